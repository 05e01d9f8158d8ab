"""Where S3 ends and the stream goes on.

S3      (origin, 10](10, 20](20, 30](30, 40](40, 50](50, 60](60, 70](70, 80]    first order at 3
stream                      ┊ oldest = 25 …
"""

import pytest

from sink.extents import Done, StoredObject
from tillstream.handover import taken


def an_extent(after: int | None, end: int, *firsts: int) -> Done:
    objects = [
        StoredObject(
            key=f"orders/dt=2026-11-20/hour=0{hour}/orders-1+0+{first:020d}.parquet",
            rows=1,
            orders=1,
            bytes=1,
            checksum="",
        )
        for hour, first in enumerate(firsts)
    ]
    return Done(
        stream="orders-1",
        partition="0",
        after=None if after is None else f"{after:020d}",
        end=f"{end:020d}",
        read=1,
        stored=1,
        rejected=0,
        objects=objects,
    )


EIGHT = [an_extent(None, 10, 7, 3), *[an_extent(end - 10, end, end - 9) for end in range(20, 90, 10)]]


def ends(extents: object) -> list[int]:
    return [int(done.end) for done in extents]  # type: ignore[attr-defined]


@pytest.mark.parametrize("oldest", [0, 3])
def test_a_stream_that_has_every_order_needs_no_s3(oldest: int) -> None:
    assert ends(taken(EIGHT, oldest)) == []


@pytest.mark.parametrize(
    ("oldest", "last"),
    [(4, 30), (25, 40), (30, 40), (31, 50), (61, 70), (80, 80)],
    ids=str,
)
def test_the_state_ends_a_quarter_into_what_both_have(oldest: int, last: int) -> None:
    assert ends(taken(EIGHT, oldest)) == list(range(10, last + 10, 10))


def test_where_both_have_nothing_in_common_all_of_s3_is_taken() -> None:
    assert ends(taken(EIGHT, 81)) == ends(EIGHT)
    assert ends(taken([], 81)) == []


def test_an_extent_without_orders_is_an_extent() -> None:
    refused = [an_extent(None, 10), an_extent(10, 20, 15), an_extent(20, 30)]
    assert ends(taken(refused, 12)) == []
    assert ends(taken(refused, 16)) == [10, 20]
