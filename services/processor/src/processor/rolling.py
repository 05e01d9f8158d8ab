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

from collections.abc import Iterator, Sequence

import numpy as np

from processor.panes import Cells, Int64s, group
from sales.windows import Window

_RUNS_BEFORE_MERGE = 8
"""A pane collects this many unmerged runs of sums before they are merged into one; merging costs a sort."""


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
        oldest = self._bounds[-1][0]
        kept = np.flatnonzero(cells.panes >= oldest)
        if not len(kept):
            return
        panes, sums = cells.panes[kept], cells.sums[kept]
        slots = self._slots(cells.names, cells.codes[kept])
        np.add.at(self._held, slots, sums[:, 0])
        for index, (start, end) in enumerate(self._bounds):
            inside = (panes >= start) & (panes < end)
            if inside.any():
                self._sum_into(index, slots[inside], sums[inside])
        level_of = np.zeros(len(panes), dtype=np.int64)
        for start, _ in self._bounds[:-1]:
            level_of += panes < start
        for index, window in enumerate(self._windows):
            chosen = np.flatnonzero(level_of == index)
            if len(chosen):
                starts = panes[chosen] - panes[chosen] % window.pane_ms
                for pane_start, rows in _runs(starts):
                    run = chosen[rows]
                    one_pane = (panes[run] == panes[run[0]]).all()
                    distinct = (slots[run], sums[run]) if one_pane else group(slots[run], sums[run])
                    self._levels[index].setdefault(pane_start, _Pane()).add(*distinct)

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
            empty = np.zeros(0, dtype=np.int64)
            return Cells(names=[], panes=empty, codes=empty, sums=np.zeros((0, self._columns), dtype=np.int64))
        used, codes = np.unique(np.concatenate(slots), return_inverse=True)
        names = [self._names[slot] for slot in used.tolist()]
        return Cells(names=names, panes=np.concatenate(starts), codes=codes, sums=np.concatenate(sums))

    def __contains__(self, name: str) -> bool:
        return name in self._slot_of

    def __len__(self) -> int:
        return len(self._slot_of)

    def totals(self, window: int) -> dict[str, list[int]]:
        """Name to its columns, of every name in the window with this index. For tables with few names."""
        present = np.flatnonzero(self._totals[window, :, 0] > 0)
        rows = self._totals[window, present].tolist()
        return {self._names[slot]: row for slot, row in zip(present.tolist(), rows, strict=True)}

    def top(self, window: int, column: int, k: int) -> dict[str, int]:
        """The ``k`` names with the highest value in one column, best first; ties by name, descending by its bytes.

        A partial sort: names are compared only around the last place.
        """
        present = np.flatnonzero(self._totals[window, :, 0] > 0)
        values = self._totals[window, present, column]
        if len(values) > k:
            threshold = np.partition(values, len(values) - k)[len(values) - k]
            chosen = np.flatnonzero(values >= threshold)
            present, values = present[chosen], values[chosen]
        # Code points order as UTF-8 bytes do, which is how Redis compares members.
        best = sorted(zip(values.tolist(), (self._names[slot] for slot in present.tolist()), strict=True), reverse=True)
        return {name: value for value, name in best[:k]}

    def _apply(self, window: int, pane: _Pane, sign: int) -> None:
        slots, sums = pane.merged()
        self._totals[window, slots] += sign * sums

    def _sum_into(self, window: int, slots: Int64s, sums: Int64s) -> None:
        np.add.at(self._totals[window], slots, sums)

    def _slots(self, names: list[str], codes: Int64s) -> Int64s:
        """The slot of each row; names that are new get one."""
        used = np.zeros(len(names), dtype=np.bool_)
        used[codes] = True
        slot_of = np.full(len(names), -1, dtype=np.int64)
        for code in np.flatnonzero(used).tolist():
            slot = self._slot_of.get(names[code])
            slot_of[code] = self._assign(names[code]) if slot is None else slot
        if len(self._names) > len(self._held):
            self._grow()
        slots: Int64s = slot_of[codes]
        return slots

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
        for slot in slots[self._held[slots] == 0].tolist():
            del self._slot_of[self._names[slot]]
            self._free.append(slot)


def _runs(starts: Int64s) -> Iterator[tuple[int, Int64s]]:
    """Each distinct value with the rows that have it."""
    if (starts == starts[0]).all():
        yield int(starts[0]), np.arange(len(starts))
        return
    order = np.argsort(starts, kind="stable")
    values, first = np.unique(starts[order], return_index=True)
    yield from zip(values.tolist(), np.split(order, first[1:]), strict=True)
