"""A snapshot gives back what went in, however large the numbers and however many the words of a position."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from processor.cells import Cells, ListedNames
from processor.labels import LatestNames, position_words
from processor.snapshots import Delta, decode, encode

INT64S = st.integers(-(2**63), 2**63 - 1)
NUMBERS = st.one_of(st.integers(0, 255), st.integers(-70_000, 70_000), INT64S)
KINESIS = st.integers(0, 10**56 - 1)


@given(
    rows=st.lists(st.tuples(NUMBERS, NUMBERS, NUMBERS), min_size=1, max_size=9),
    positions=st.one_of(st.lists(KINESIS, min_size=1, max_size=5), st.just([0, 2**62])),
)
def test_what_is_encoded_comes_back(rows: list[tuple[int, int, int]], positions: list[int]) -> None:
    panes, first, second = np.array(rows, dtype=np.int64).T
    own = np.arange(len(rows))
    cells = Cells(
        ListedNames([f"n{row}" for row in range(len(rows))]), np.sort(panes), own, np.stack((first, second)).T
    )
    count = len(positions)
    names = LatestNames(
        products=ListedNames([f"p{number}" for number in range(count)]),
        product_codes=np.arange(count),
        names=ListedNames(["Lamp"]),
        name_codes=np.zeros(count, dtype=np.int64),
        event_times=np.arange(count) + 1_795_176_000_000,
        positions=position_words(positions),
        partitions=["orders/0", "orders/1"],
        partition_codes=np.arange(count) % 2,
    )
    delta = Delta(5, 7, {"orders/0": (2**180, 56)}, {"accepted": 3}, 1, 2, {"products": [cells]}, names, {60_000: 4})
    back = decode(encode(delta))
    assert (back.as_of, back.max_event_time, back.positions, back.counts) == (5, 7, delta.positions, delta.counts)
    assert (back.known_from, back.late, back.sent) == (1, 2, delta.sent)
    (found,) = back.cells["products"]
    assert found.panes.tolist() == cells.panes.tolist()
    assert [found.names.text(code) for code in found.codes.tolist()] == [f"n{row}" for row in range(len(rows))]
    assert found.sums.tolist() == cells.sums.tolist()
    assert [back.product_names.names.text(code) for code in back.product_names.name_codes.tolist()] == ["Lamp"] * count
    assert back.product_names.event_times.tolist() == names.event_times.tolist()
    assert back.product_names.positions.tolist() == names.positions.tolist()
    assert [back.product_names.partitions[code] for code in back.product_names.partition_codes] == [
        ["orders/0", "orders/1"][number % 2] for number in range(count)
    ]


@given(positions=st.lists(KINESIS, min_size=2, max_size=9))
def test_words_of_positions_order_as_the_positions_do(positions: list[int]) -> None:
    words = [tuple(row) for row in position_words(positions).tolist()]
    assert sorted(range(len(words)), key=words.__getitem__) == sorted(range(len(words)), key=positions.__getitem__)
