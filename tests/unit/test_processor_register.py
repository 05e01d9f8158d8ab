"""Slots of names: what they cost follows the names that are held, not the numbers that they come with."""

import numpy as np

from processor.cells import Cells, ListedNames
from processor.register import Register
from sales.columnar.countries import country_code
from sales.columnar.scopes import Scopes, cell_codes


class ManyCategories(ListedNames):
    """A category for each number."""

    def text(self, code: int) -> str:
        return f"c{code}"


SCOPES = Scopes(ManyCategories(()))
FAR = cell_codes(np.array([country_code("GB"), country_code("DE")]), np.array([10**12, 3]))
"""An array with room for these would have 5 petabytes."""


def test_scopes_of_very_many_categories_are_held_found_and_let_go() -> None:
    register = Register()
    slots = register.hold(SCOPES, FAR, np.array([2, 1]))
    assert register.names(slots) == ["GB/c1000000000000", "DE/c3"]
    assert register.slots(SCOPES, FAR[::-1]).tolist() == slots[::-1].tolist()
    assert register.release(slots, np.array([2, 0])).tolist() == slots[:1].tolist()
    assert register.slots(SCOPES, FAR).tolist() == [-1, slots[1]]
    again = register.hold(SCOPES, FAR, np.array([1, 1]))
    assert register.names(again) == ["GB/c1000000000000", "DE/c3"]


def test_a_dictionary_that_is_met_again_and_again_is_not_the_one_forgotten() -> None:
    register, living = Register(), OneName("kept")
    code = np.zeros(1, dtype=np.int64)
    (slot,) = register.hold(living, code, np.ones(1, dtype=np.int64)).tolist()
    others = [OneName(f"other {number}") for number in range(20)]
    for other in others:
        register.hold(other, code, np.ones(1, dtype=np.int64))
        register.hold(living, code, np.ones(1, dtype=np.int64))
    assert register.slots(living, code).tolist() == [slot]


class OneName:
    """A dictionary that grows: the register remembers it by itself, unlike a list that belongs to one table."""

    def __init__(self, name: str) -> None:
        self._name = name

    def text(self, _: int) -> str:
        return self._name


def test_cells_with_names_of_their_own_need_room_for_their_rows_alone() -> None:
    cells = Cells(SCOPES, np.array([0, 60_000]), FAR, np.array([[1], [2]])).listed()
    assert [cells.names.text(code) for code in cells.codes.tolist()] == ["GB/c1000000000000", "DE/c3"]
    assert cells.sums.tolist() == [[1], [2]]
