"""Slots: small numbers that names have while they are held. Pure."""

from collections import OrderedDict

import numpy as np
import numpy.typing as npt

from processor.cells import ListedNames
from processor.grouping import Int64s
from sales.columnar.scopes import Scopes
from sales.columnar.texts import Names

PREFIX_BYTES = 8

_DICTIONARIES = 8
"""How many dictionaries' slots are remembered: each decoder of this process has some."""


class Register:
    """Gives each name a slot, and gives the slot to another name when nothing of the first is held any more."""

    def __init__(self) -> None:
        self._slot_of: dict[str, int] = {}
        self._names: list[str] = []
        self._prefixes = np.zeros(64, dtype=np.uint64)
        """the first PREFIX_BYTES of each name's UTF-8, as numbers that order as they do"""
        self._free: list[int] = []
        self.assigned: list[int] = []
        """slots that the last `hold` gave to a name"""
        self._held = np.zeros(0, dtype=np.int64)
        """occurrences of each slot; at 0 it is free"""
        self._found: OrderedDict[int, _Found] = OrderedDict()
        """for the dictionaries met last, by their id"""
        self._listed: _Found | None = None

    def __len__(self) -> int:
        return len(self._slot_of)

    @property
    def size(self) -> int:
        """All slots are below this."""
        return len(self._names)

    def hold(self, names: Names, codes: Int64s, occurrences: Int64s) -> Int64s:
        """The slot of each row's name, a new one if need be; holds it so many times more."""
        self.assigned = []
        found = self._find(names, codes)
        slots = found.slots(codes)
        if (slots < 0).any():
            for code in np.unique(codes[slots < 0]).tolist():
                name = names.text(code)
                slot = self._slot_of.get(name)
                found.link(code, self._assign(name) if slot is None else slot)
            slots = found.slots(codes)
            if self.size > len(self._held):
                grown = np.zeros(max(64, 2 * len(self._held), self.size), dtype=np.int64)
                grown[: len(self._held)] = self._held
                self._held = grown
        np.add.at(self._held, slots, occurrences)
        return slots

    def release(self, slots: Int64s, occurrences: Int64s) -> Int64s:
        """Holds distinct slots so many times less; those that are free now."""
        self._held[slots] -= occurrences
        gone: Int64s = slots[self._held[slots] == 0]
        for slot in gone.tolist():
            del self._slot_of[self._names[slot]]
            self._free.append(slot)
        for found in (*self._found.values(), self._listed):
            if found is not None:
                found.unlink(gone)
        return gone

    def slots(self, names: Names, codes: Int64s) -> Int64s:
        """The slot of each name, -1 where it has none."""
        return self._find(names, codes).slots(codes)

    def taken(self) -> Int64s:
        """The slots of all names."""
        return np.fromiter(self._slot_of.values(), dtype=np.int64, count=len(self._slot_of))

    def name(self, slot: int) -> str:
        """The name that has a slot."""
        return self._names[slot]

    def names(self, slots: Int64s) -> list[str]:
        """The names that have some slots."""
        return [self._names[slot] for slot in slots.tolist()]

    def prefixes(self, slots: Int64s) -> npt.NDArray[np.uint64]:
        """Numbers that order as the first letters of the names do that have some slots."""
        return self._prefixes[slots]

    def listed(self) -> ListedNames:
        """Names by slot."""
        return ListedNames(self._names)

    def _find(self, names: Names, codes: Int64s) -> "_Found":
        """What is known of some names' slots already."""
        if isinstance(names, ListedNames):
            return self._find_listed(names, codes)
        known = self._found.get(id(names))
        if known is None:
            known = self._found[id(names)] = _Found(names)
            if len(self._found) > _DICTIONARIES:
                self._found.popitem(last=False)
        self._found.move_to_end(id(names))
        known.reach(int(codes.max()) + 1 if len(codes) else 0)
        return known

    def _find_listed(self, names: ListedNames, codes: Int64s) -> "_Found":
        """Of names that come a few times, one after the other, and never again."""
        found = self._listed
        if found is None or found.names is not names:
            found = self._listed = _Found(names)
            found.reach(len(names.names))
        for code in np.unique(codes[found.slots(codes) < 0]).tolist():
            slot = self._slot_of.get(names.names[code])
            if slot is not None:
                found.link(code, slot)
        return found

    def _assign(self, name: str) -> int:
        if self._free:
            slot = self._free.pop()
            self._names[slot] = name
        else:
            slot = len(self._names)
            self._names.append(name)
        if slot == len(self._prefixes):
            self._prefixes = np.concatenate((self._prefixes, np.zeros_like(self._prefixes)))
        self._prefixes[slot] = int.from_bytes(name.encode()[:PREFIX_BYTES].ljust(PREFIX_BYTES, b"\0"), "big")
        self._slot_of[name] = slot
        self.assigned.append(slot)
        return slot


class _Found:
    """Slots of one dictionary's codes, and back, so that a name is looked up once and not with every batch. Scopes have
    676 codes for each category, few of which are in use, so theirs are no array."""

    def __init__(self, names: Names) -> None:
        self.names = names  # kept alive: its id is the key
        self._sparse: dict[int, int] | None = {} if isinstance(names, Scopes) else None
        self._slot_of = np.zeros(0, dtype=np.int64)
        self._code_of = np.zeros(0, dtype=np.int64)

    def slots(self, codes: Int64s) -> Int64s:
        """Of some codes; -1 where none is known."""
        if self._sparse is None:
            slots: Int64s = self._slot_of[codes]
            return slots
        get = self._sparse.get
        return np.fromiter((get(code, -1) for code in codes.tolist()), dtype=np.int64, count=len(codes))

    def reach(self, codes: int) -> None:
        """Makes room for codes below a number."""
        if self._sparse is None:
            self._slot_of = _stretched(self._slot_of, codes)

    def link(self, code: int, slot: int) -> None:
        """A code's slot."""
        self._code_of = _stretched(self._code_of, slot + 1)
        self._code_of[slot] = code
        if self._sparse is None:
            self._slot_of[code] = slot
        else:
            self._sparse[code] = slot

    def unlink(self, slots: Int64s) -> None:
        """These slots are nobody's any more."""
        known = slots[slots < len(self._code_of)]
        codes = self._code_of[known]
        codes = codes[codes >= 0]
        self._code_of[known] = -1
        if self._sparse is None:
            self._slot_of[codes] = -1
        else:
            for code in codes.tolist():
                del self._sparse[code]


def _stretched(numbers: Int64s, length: int) -> Int64s:
    """At least so long, with -1 behind."""
    if length <= len(numbers):
        return numbers
    return np.concatenate((numbers, np.full(max(length, 2 * len(numbers)) - len(numbers), -1, dtype=np.int64)))
