"""Rows that share a key are added up alike in compiled code and in numpy, and the greatest of them found."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from processor import grouping
from processor.grouping import Int64s

TIERS = pytest.mark.parametrize("tier", ["", "_in_numpy"], ids=["compiled", "numpy"])
KEYS = st.one_of(st.integers(0, 5), st.integers(-(2**63), 2**63 - 1), st.integers(0, 9).map(lambda key: key << 40))
NUMBERS = st.integers(-(2**50), 2**50)


def run(tier: str, name: str, *args: Any) -> Any:
    return getattr(grouping, name + tier)(*args)


def array(rows: Sequence[tuple[int, ...]], columns: int) -> Int64s:
    return np.array(rows, dtype=np.int64).reshape(-1, columns)


def test_the_tiers_are_two() -> None:
    assert grouping.group is not grouping.group_in_numpy


@TIERS
@given(rows=st.lists(st.tuples(KEYS, NUMBERS, NUMBERS), max_size=60), transposed=st.booleans())
def test_rows_are_added_up_by_key_in_the_order_of_first_rows(
    tier: str, rows: list[tuple[int, int, int]], transposed: bool
) -> None:
    expected: dict[int, list[int]] = {}
    for key, first, second in rows:
        sums = expected.setdefault(key, [0, 0])
        sums[0] += first
        sums[1] += second
    table = array(rows, 3)
    values = np.stack((table[:, 1], table[:, 2])).T if transposed else table[:, 1:]
    keys, sums = run(tier, "group", table[:, 0], values)
    assert keys.tolist() == list(expected)
    assert sums.tolist() == list(expected.values())


@given(
    ranks=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2), st.integers(0, 2**62)), min_size=1, max_size=9),
    rows=st.lists(st.tuples(KEYS, st.integers(0, 8)), max_size=60),
)
def test_of_the_rows_with_one_key_the_last_that_ranks_highest_is_found(
    ranks: list[tuple[int, int, int]], rows: list[tuple[int, int]]
) -> None:
    owned = [(key, owner % len(ranks)) for key, owner in rows]
    expected: dict[int, int] = {}
    for row, (key, owner) in enumerate(owned):
        if key not in expected or ranks[owner] >= ranks[owned[expected[key]][1]]:
            expected[key] = row
    table = array(owned, 2)
    found = grouping.greatest(table[:, 0], table[:, 1], array(ranks, 3))
    assert found.tolist() == list(expected.values())


@TIERS
@given(rows=st.lists(st.tuples(st.integers(0, 3), NUMBERS, NUMBERS), max_size=30), sign=st.sampled_from([1, -1]))
def test_rows_are_added_to_a_table_and_taken_away(tier: str, rows: list[tuple[int, int, int]], sign: int) -> None:
    table = np.arange(8).reshape(4, 2)
    expected = table.tolist()
    for place, first, second in rows:
        expected[place][0] += sign * first
        expected[place][1] += sign * second
    numbers = array(rows, 3)
    run(tier, "add_rows", table, numbers[:, 0], numbers[:, 1:], sign)
    assert table.tolist() == expected
