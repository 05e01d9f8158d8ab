"""The best of a window are those that sorting everything would give, from tick to tick."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from processor.cells import ListedNames, in_panes
from processor.rolling import RollingTable
from sales.windows import parse_windows

NOON = 1_795_176_000_000
NAMES = [f"{prefix}{number}" for prefix in ("", "P-00000", "P-000000", "\u00e9", "P-00000\x00") for number in range(9)]
ROWS = st.lists(
    st.tuples(st.integers(0, len(NAMES) - 1), st.integers(0, 90_000), st.integers(1, 2), st.integers(-3, 3)),
    min_size=1,
    max_size=60,
)
STEPS = st.lists(st.tuples(ROWS, st.sampled_from([0, 1_000, 30_000, 90_000])), min_size=1, max_size=4)


@settings(max_examples=300)
@given(steps=STEPS, k=st.integers(1, 12))
def test_the_best_are_the_first_of_all_sorted(steps: list[tuple[list[tuple[int, int, int, int]], int]], k: int) -> None:
    table = RollingTable(parse_windows("1m 5m"), 2)
    as_of = NOON
    table.advance(as_of)
    for rows, later in steps:
        summed: dict[tuple[int, int], list[int]] = {}
        for code, age, count, value in rows:
            sums = summed.setdefault(((as_of - age) // 1000 * 1000, code), [0, 0])
            sums[0] += count
            sums[1] += value
        panes, codes = np.array(list(summed), dtype=np.int64).T
        table.add(in_panes(ListedNames(NAMES), panes, codes, np.array(list(summed.values())), first=0))
        as_of += later
        table.advance(as_of)
        for window in range(2):
            totals = table.totals(window)
            everything = sorted(((sums[1], name.encode()) for name, sums in totals.items()), reverse=True)
            found = [(value, name.encode()) for value, name, _ in table.top(window, 1, k)]
            assert found == everything[:k]
