"""Running totals of rolling windows over panes. Pure.

Each window has a *level* of panes as coarse as its edge needs. Sums enter at the finest level whose window still
covers them; what leaves a window is subtracted from its total and folds into the next level, where the next longer
window still counts it::

    24h |------------- 15 min panes -------------|
     1h                             |- 1 min ----|----|
     5m                                       |5s|----|
     1m                                          |1s s|
                                                      as_of

So every second is stored once, old time coarsely, and a total is never summed again. What is ahead of a window's end
(an order may be dated a few minutes ahead) waits in the finest level until the window reaches it.
"""

from collections import OrderedDict
from collections.abc import Sequence

import numpy as np

from processor.cells import Cells, Int64s, ListedNames, Names, group, no_cells
from sales.windows import Window

_RUNS_BEFORE_MERGE = 8
"""A pane collects this many unmerged runs of sums before they are merged into one; merging costs a sort."""


_DICTIONARIES = 8
"""How many dictionaries' slots are remembered: each source slot of this process has one."""


class _Pane:
    """Sums by slot for one pane, as runs that are merged now and then."""

    __slots__ = ("runs",)

    def __init__(self) -> None:
        self.runs: list[tuple[Int64s, Int64s]] = []

    def add(self, slots: Int64s, sums: Int64s) -> None:
        """Adds sums of distinct slots."""
        self.runs.append((slots, sums))
        if len(self.runs) > _RUNS_BEFORE_MERGE:
            self.merged()

    def merged(self) -> tuple[Int64s, Int64s]:
        """Distinct slots, ascending, and their sums."""
        if len(self.runs) > 1:
            slots, sums = (np.concatenate(column) for column in zip(*self.runs, strict=True))
            self.runs = [group(slots, sums)]
        return self.runs[0]


class RollingTable:
    """Totals by name of every window, over one kind of thing (products, categories, countries).

    The first column counts occurrences; a name is in a window while that count is above 0. Until the first
    `advance` the table speaks of no time and must not be added to.
    """

    def __init__(self, windows: Sequence[Window], columns: int) -> None:
        self._windows = tuple(windows)
        self._bounds = [(0, 0)] * len(windows)
        self._levels: list[dict[int, _Pane]] = [{} for _ in windows]
        self._columns = columns
        self._slot_of: dict[str, int] = {}
        self._names: list[str] = []
        self._free: list[int] = []
        self._totals = np.zeros((len(windows), 0, columns), dtype=np.int64)
        self._held = np.zeros(0, dtype=np.int64)
        """occurrences of each slot in all panes; at 0 the slot is given to another name"""
        self._released: list[Int64s] = []
        self._found: OrderedDict[int, _Found] = OrderedDict()
        """for the dictionaries met last, by their id"""

    def advance(self, as_of: int) -> None:
        """Moves every window to ``as_of`` (ms), which must not go back."""
        bounds = [window.bounds(as_of) for window in self._windows]
        if bounds == self._bounds:
            return
        for index, ((_, old_end), (_, end)) in enumerate(zip(self._bounds, bounds, strict=True)):
            if end != old_end:
                for start, pane in self._levels[0].items():
                    if old_end <= start < end:
                        self._apply(index, pane, 1)
        last = len(self._windows) - 1
        for index, (window_start, _) in enumerate(bounds):
            level = self._levels[index]
            for start in [start for start in level if start < window_start]:
                pane = level.pop(start)
                self._apply(index, pane, -1)
                if index < last:
                    coarse = start - start % self._windows[index + 1].pane_ms
                    self._levels[index + 1].setdefault(coarse, _Pane()).add(*pane.merged())
                else:
                    self._release(pane)
        self._bounds = bounds

    def add(self, cells: Cells) -> None:
        """Adds sums to every window that covers them; what no window covers any more is left out."""
        panes, codes, sums = cells.panes, cells.codes, cells.sums
        if not len(panes):
            return
        if panes[0] < self._bounds[-1][0]:
            kept = np.flatnonzero(panes >= self._bounds[-1][0])
            panes, codes, sums = panes[kept], codes[kept], sums[kept]
            if not len(kept):
                return
        slots = self._slots(cells.names, codes)
        np.add.at(self._held, slots, sums[:, 0])
        self._add_to_windows(panes, slots, sums)
        self._add_to_levels(panes, slots, sums)

    def slots(self, names: Names, codes: Int64s) -> Int64s:
        """The slot of each name, -1 where the table does not hold it. A slot is a name's while it is in the table."""
        found = self._find(names, codes)
        return found.slot_of[codes]

    def take_released(self) -> Int64s:
        """Slots whose names have left the table since the last call."""
        released, self._released = self._released, []
        return np.concatenate([np.zeros(0, dtype=np.int64), *released])

    def taken(self) -> Int64s:
        """The slots of all names that are in the table."""
        return np.fromiter(self._slot_of.values(), dtype=np.int64, count=len(self._slot_of))

    def names(self, slots: Int64s) -> list[str]:
        """The names that have some slots."""
        return [self._names[slot] for slot in slots.tolist()]

    def dump(self) -> Cells:
        """All panes as cells. A fresh table that has advanced to the same ``as_of`` and adds them is equal to this."""
        starts, slots, sums = [], [], []
        for level in self._levels:
            for start, pane in level.items():
                pane_slots, pane_sums = pane.merged()
                starts.append(np.full(len(pane_slots), start, dtype=np.int64))
                slots.append(pane_slots)
                sums.append(pane_sums)
        if not starts:
            return no_cells(self._columns)
        panes = np.concatenate(starts)
        order = np.argsort(panes, kind="stable")
        whole = Cells(ListedNames(self._names), panes[order], np.concatenate(slots)[order], np.concatenate(sums)[order])
        return whole.listed()

    def __len__(self) -> int:
        return len(self._slot_of)

    def totals(self, window: int) -> dict[str, list[int]]:
        """Name to its columns, of every name in the window with this index. For tables with few names."""
        present = np.flatnonzero(self._totals[window, :, 0] > 0)
        rows = self._totals[window, present].tolist()
        return {self._names[slot]: row for slot, row in zip(present.tolist(), rows, strict=True)}

    def top(self, window: int, column: int, k: int) -> list[tuple[int, str, int]]:
        """Value, name and slot of the ``k`` names with the highest value in one column, best first; ties by name,
        descending by its bytes.

        A partial sort: names are compared only around the last place.
        """
        present = np.flatnonzero(self._totals[window, :, 0] > 0)
        values = self._totals[window, present, column]
        if len(values) > k:
            threshold = np.partition(values, len(values) - k)[len(values) - k]
            chosen = np.flatnonzero(values >= threshold)
            present, values = present[chosen], values[chosen]
        # Code points order as UTF-8 bytes do, which is how Redis compares members.
        names = self.names(present)
        return sorted(zip(values.tolist(), names, present.tolist(), strict=True), reverse=True)[:k]

    def _apply(self, window: int, pane: _Pane, sign: int) -> None:
        slots, sums = pane.merged()
        self._totals[window, slots] += sign * sums

    def _add_to_windows(self, panes: Int64s, slots: Int64s, sums: Int64s) -> None:
        whole: tuple[Int64s, Int64s] | None = None
        for index, (start, end) in enumerate(self._bounds):
            first, behind = np.searchsorted(panes, (start, end)).tolist()  # rows are sorted by pane
            if first == 0 and behind == len(panes):
                whole = whole or _by_slot(panes, slots, sums)
                inside = whole
            else:
                inside = _by_slot(panes[first:behind], slots[first:behind], sums[first:behind])
            self._totals[index, inside[0]] += inside[1]

    def _add_to_levels(self, panes: Int64s, slots: Int64s, sums: Int64s) -> None:
        """Puts rows into the panes of the shortest window whose start they are not before."""
        levels = np.zeros(len(panes), dtype=np.int64)
        for start, _ in self._bounds[:-1]:
            levels += panes < start
        lengths = np.array([window.pane_ms for window in self._windows])[levels]
        coarse = panes - panes % lengths
        # Levels fall and panes rise from row to row: so what belongs into one pane is a run of rows.
        edges = np.flatnonzero(
            np.concatenate(([True], (coarse[1:] != coarse[:-1]) | (levels[1:] != levels[:-1]), [True]))
        )
        for first, behind in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
            rows = slice(first, behind)
            pane = self._levels[levels[first]].setdefault(int(coarse[first]), _Pane())
            pane.add(*_by_slot(panes[rows], slots[rows], sums[rows]))

    def _slots(self, names: Names, codes: Int64s) -> Int64s:
        """The slot of each row; names that are new get one."""
        found = self._find(names, codes)
        slots: Int64s = found.slot_of[codes]
        if (slots < 0).any():
            for code in np.unique(codes[slots < 0]).tolist():
                name = names.text(code)
                slot = self._slot_of.get(name)
                found.link(code, self._assign(name) if slot is None else slot)
            if len(self._names) > len(self._held):
                self._grow()
            slots = found.slot_of[codes]
        return slots

    def _find(self, names: Names, codes: Int64s) -> "_Found":
        """What is known of some names' slots already."""
        if isinstance(names, ListedNames):  # met once: nothing to remember
            return self._look_up(names, codes)
        found = self._found.get(id(names))
        if found is None:
            found = self._found[id(names)] = _Found(names)
            if len(self._found) > _DICTIONARIES:
                self._found.popitem(last=False)
        found.reach(int(codes.max()) + 1 if len(codes) else 0)
        return found

    def _look_up(self, names: ListedNames, codes: Int64s) -> "_Found":
        found = _Found(names)
        found.reach(len(names.names))
        for code in np.unique(codes).tolist():
            found.slot_of[code] = self._slot_of.get(names.names[code], -1)
        return found

    def _assign(self, name: str) -> int:
        if self._free:
            slot = self._free.pop()
            self._names[slot] = name
        else:
            slot = len(self._names)
            self._names.append(name)
        self._slot_of[name] = slot
        return slot

    def _grow(self) -> None:
        size = max(64, 2 * len(self._held), len(self._names))
        totals = np.zeros((len(self._windows), size, self._columns), dtype=np.int64)
        totals[:, : len(self._held)] = self._totals
        held = np.zeros(size, dtype=np.int64)
        held[: len(self._held)] = self._held
        self._totals, self._held = totals, held

    def _release(self, pane: _Pane) -> None:
        slots, sums = pane.merged()
        self._held[slots] -= sums[:, 0]
        gone = slots[self._held[slots] == 0]
        for slot in gone.tolist():
            del self._slot_of[self._names[slot]]
            self._free.append(slot)
        self._released.append(gone)
        for found in self._found.values():
            found.unlink(gone)


class _Found:
    """Slots of one dictionary's codes, and back, so that a name is looked up once and not with every batch."""

    def __init__(self, names: Names) -> None:
        self.names = names  # kept alive: its id is the key
        self.slot_of = np.zeros(0, dtype=np.int64)
        self._code_of = np.zeros(0, dtype=np.int64)

    def reach(self, codes: int) -> None:
        """Makes room for codes below a number."""
        self.slot_of = _stretched(self.slot_of, codes)

    def link(self, code: int, slot: int) -> None:
        """A code's slot."""
        self._code_of = _stretched(self._code_of, slot + 1)
        self.slot_of[code] = slot
        self._code_of[slot] = code

    def unlink(self, slots: Int64s) -> None:
        """These slots are nobody's any more."""
        codes = self._code_of[slots[slots < len(self._code_of)]]
        self.slot_of[codes[codes >= 0]] = -1
        self._code_of[slots[slots < len(self._code_of)]] = -1


def _by_slot(panes: Int64s, slots: Int64s, sums: Int64s) -> tuple[Int64s, Int64s]:
    """Distinct slots and their sums, of rows that are sorted by pane and have distinct slots within one."""
    return (slots, sums) if not len(panes) or panes[0] == panes[-1] else group(slots, sums)


def _stretched(numbers: Int64s, length: int) -> Int64s:
    """At least so long, with -1 behind."""
    if length <= len(numbers):
        return numbers
    return np.concatenate((numbers, np.full(max(length, 2 * len(numbers)) - len(numbers), -1, dtype=np.int64)))
