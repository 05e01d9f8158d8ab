"""Tables of sums: adding them up loses nothing, however far apart their panes and however many their names."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from processor.cells import Cells, ListedNames, merge

YEARS = 26 * 366 * 86_400_000


def cells_of(names: ListedNames, *rows: tuple[int, int, int]) -> Cells:
    panes, codes, sums = zip(*sorted(rows), strict=True)
    return Cells(names, np.array(panes), np.array(codes), np.array(sums).reshape(-1, 1))


def totals(parts: list[Cells]) -> dict[tuple[int, str], int]:
    found: dict[tuple[int, str], int] = {}
    for part in parts:
        for pane, code, (total,) in zip(part.panes.tolist(), part.codes.tolist(), part.sums.tolist(), strict=True):
            key = (pane, part.names.text(code))
            found[key] = found.get(key, 0) + total
    return found


class ManyNames(ListedNames):
    """As the scopes of a million categories."""

    def text(self, code: int) -> str:
        return str(code)


def test_one_table_of_panes_decades_apart_and_a_billion_names_stays_as_it_is() -> None:
    part = cells_of(ManyNames(()), (0, 999_999_999, 1), (YEARS, 3, 2))
    assert totals(merge([part], 1)) == {(0, "999999999"): 1, (YEARS, "3"): 2}


def test_tables_whose_rows_meet_become_one() -> None:
    names = ListedNames(["a", "b"])
    parts = [cells_of(names, (0, 0, number), (0, 1, 1)) for number in range(1, 4)]
    (whole,) = merge(parts, 1)
    assert totals([whole]) == {(0, "a"): 6, (0, "b"): 3}


ROWS = st.dictionaries(
    st.tuples(st.sampled_from([0, 1000, 60_000, YEARS]), st.integers(0, 3)), st.integers(1, 9), min_size=1
)


@given(tables=st.lists(st.tuples(st.permutations("abcd"), ROWS), max_size=5), shared=st.booleans())
def test_merging_keeps_every_total(tables: list[tuple[list[str], dict[tuple[int, int], int]]], shared: bool) -> None:
    one = ListedNames("abcd")
    parts = [
        cells_of(one if shared else ListedNames(order), *[(*place, total) for place, total in rows.items()])
        for order, rows in tables
    ]
    merged = merge(parts, 1)
    assert totals(merged) == totals(parts)
    assert len({id(part.names) for part in merged}) == 1
    for part in merged:
        places = list(zip(part.panes.tolist(), part.codes.tolist(), strict=True))
        assert len(set(places)) == len(places)
        assert part.panes.tolist() == sorted(part.panes.tolist())
