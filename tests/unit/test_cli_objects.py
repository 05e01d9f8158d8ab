"""Listing asks no more than it must, and what is read together stays small."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from tillstream.objects import Objects

LISTED_AT = datetime(2026, 11, 20, tzinfo=UTC)


class ListedStore:
    """S3, as far as listing goes: keys with their sizes, and which prefixes were asked for."""

    def __init__(self, sizes: dict[str, int]) -> None:
        self.sizes = sizes
        self.asked: list[str] = []

    def get_paginator(self, _operation: str) -> "ListedStore":
        return self

    def paginate(self, *, Prefix: str, **_: Any) -> Iterator[dict[str, Any]]:  # noqa: N803 (boto3's names)
        self.asked.append(Prefix)
        found = [key for key in self.sizes if key.startswith(Prefix)]
        yield {"Contents": [{"Key": key, "Size": self.sizes[key], "LastModified": LISTED_AT} for key in found]}


def hour(day: int, hour: int, size: int = 1, name: str = "a") -> dict[str, int]:
    return {f"team-a/orders/dt=2026-11-{day:02d}/hour={hour:02d}/{name}.parquet": size}


def test_one_hour_of_a_day_is_listed_by_itself_and_several_with_their_day() -> None:
    store = ListedStore(hour(19, 7) | hour(20, 7) | hour(20, 8) | hour(20, 9))
    objects = Objects(store, "bucket", "team-a/")
    objects.discover_hours("orders", [("2026-11-19", 7), ("2026-11-20", 7), ("2026-11-20", 9)])
    assert sorted(store.asked) == ["team-a/orders/dt=2026-11-19/hour=07/", "team-a/orders/dt=2026-11-20/"]
    assert objects.folders("orders") == [
        "orders/dt=2026-11-19/hour=07/",
        "orders/dt=2026-11-20/hour=07/",
        "orders/dt=2026-11-20/hour=09/",
    ]


@pytest.mark.parametrize(
    ("sizes", "together"),
    [
        ([4, 4, 2, 1], [[0, 1, 2], [3]]),
        ([1, 50, 1], [[0], [1], [2]]),
        ([0, 0], [[0, 1]]),
        ([], []),
    ],
)
def test_hours_are_read_together_up_to_a_size_and_never_split(sizes: list[int], together: list[list[int]]) -> None:
    stored = {key: size for at, each in enumerate(sizes) for key, size in hour(20, at, each).items()}
    objects = Objects(ListedStore(stored), "bucket", "team-a/")
    objects.discover("orders", ["2026-11-20"])
    folders = [[f"orders/dt=2026-11-20/hour={at:02d}/" for at in batch] for batch in together]
    assert objects.batches("orders", most_bytes=10) == folders
