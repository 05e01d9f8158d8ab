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

from collections.abc import Sequence

import numpy as np

from processor.cells import Cells, Pane, no_cells
from processor.grouping import Int64s, add_rows, group
from processor.register import Register
from sales.columnar.texts import Names
from sales.windows import Window


class RollingTable:
    """Totals by name of every window, over one kind of thing (products, categories, countries).

    The first column counts occurrences; a name is in a window while that count is above 0. Until the first
    `advance` the table speaks of no time and must not be added to.
    """

    def __init__(self, windows: Sequence[Window], columns: int) -> None:
        self._windows = tuple(windows)
        self._bounds = [(0, 0)] * len(windows)
        self._levels: list[dict[int, Pane]] = [{} for _ in windows]
        self._columns = columns
        self._register = Register()
        self._totals = np.zeros((len(windows), 0, columns), dtype=np.int64)
        self._last_places: dict[tuple[int, int], int] = {}
        """window and column to what `top` may begin its search with"""

    def advance(self, as_of: int) -> Int64s:
        """Moves every window to ``as_of`` (ms), which must not go back; slots whose names have left the table."""
        bounds = [window.bounds(as_of) for window in self._windows]
        gone = [np.zeros(0, dtype=np.int64)]
        if bounds == self._bounds:
            return gone[0]
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
                    self._levels[index + 1].setdefault(coarse, Pane()).add(*pane.merged())
                else:
                    slots, sums = pane.merged()
                    gone.append(self._register.release(slots, sums[:, 0]))
        self._bounds = bounds
        return np.concatenate(gone)

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
        slots = self._register.hold(cells.names, codes, sums[:, 0])
        if self._register.size > self._totals.shape[1]:
            self._grow()
        self._add_to_windows(panes, slots, sums)
        self._add_to_levels(panes, slots, sums)

    def slots(self, names: Names, codes: Int64s) -> Int64s:
        """The slot of each name, -1 where the table does not hold it. A slot is a name's while it is in the table."""
        return self._register.slots(names, codes)

    @property
    def size(self) -> int:
        """All slots are below this."""
        return self._register.size

    def taken(self) -> Int64s:
        """The slots of all names that are in the table."""
        return self._register.taken()

    def names(self, slots: Int64s) -> list[str]:
        """The names that have some slots."""
        return self._register.names(slots)

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
        whole = Cells(self._register.listed(), panes[order], np.concatenate(slots)[order], np.concatenate(sums)[order])
        return whole.listed()

    def __len__(self) -> int:
        return len(self._register)

    def totals(self, window: int) -> dict[str, list[int]]:
        """Name to its columns, of every name in the window with this index. For tables with few names."""
        present = np.flatnonzero(self._totals[window, :, 0] > 0)
        rows = self._totals[window, present].tolist()
        return {self._register.name(slot): row for slot, row in zip(present.tolist(), rows, strict=True)}

    def top(self, window: int, column: int, k: int) -> list[tuple[int, str, int]]:
        """Value, name and slot of the ``k`` names with the highest value in one column, best first; ties by name,
        descending by its bytes.

        A partial sort of those that are not far below the last place of the time before, if there are enough. Where
        many share the last place their first letters decide, and whole names are compared only where those are equal.
        """
        table, least = self._totals[window], self._last_places.get((window, column), 0)
        present = np.flatnonzero(table[:, column] >= least) if least > 0 else np.zeros(0, dtype=np.int64)
        present = present[table[present, 0] > 0]
        if len(present) < k:
            present = np.flatnonzero(table[:, 0] > 0)
        values = table[present, column]
        if len(values) > k:
            last = np.partition(values, len(values) - k)[len(values) - k]
            above, sharing = np.flatnonzero(values > last), np.flatnonzero(values == last)
            prefixes, places = self._register.prefixes(present[sharing]), k - len(above)
            sharing = sharing[prefixes >= np.partition(prefixes, len(prefixes) - places)[len(prefixes) - places]]
            chosen = np.concatenate((above, sharing))
            present, values = present[chosen], values[chosen]
            self._last_places[window, column] = int(last) - int(last) // 4
        # Code points order as UTF-8 bytes do, which is how Redis compares members.
        names = self.names(present)
        return sorted(zip(values.tolist(), names, present.tolist(), strict=True), reverse=True)[:k]

    def _apply(self, window: int, pane: Pane, sign: int) -> None:
        slots, sums = pane.merged()
        add_rows(self._totals[window], slots, sums, sign)

    def _add_to_windows(self, panes: Int64s, slots: Int64s, sums: Int64s) -> None:
        whole: tuple[Int64s, Int64s] | None = None
        for index, (start, end) in enumerate(self._bounds):
            first, behind = np.searchsorted(panes, (start, end)).tolist()  # rows are sorted by pane
            if first == 0 and behind == len(panes):
                whole = whole or _by_slot(panes, slots, sums)
                inside = whole
            else:
                inside = _by_slot(panes[first:behind], slots[first:behind], sums[first:behind])
            add_rows(self._totals[index], *inside, 1)

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
            pane = self._levels[levels[first]].setdefault(int(coarse[first]), Pane())
            pane.add(*_by_slot(panes[rows], slots[rows], sums[rows]))

    def _grow(self) -> None:
        size = max(64, 2 * self._totals.shape[1], self._register.size)
        totals = np.zeros((len(self._windows), size, self._columns), dtype=np.int64)
        totals[:, : self._totals.shape[1]] = self._totals
        self._totals = totals


def _by_slot(panes: Int64s, slots: Int64s, sums: Int64s) -> tuple[Int64s, Int64s]:
    """Distinct slots and their sums, of rows that are sorted by pane and have distinct slots within one."""
    return (slots, sums) if not len(panes) or panes[0] == panes[-1] else group(slots, sums)
