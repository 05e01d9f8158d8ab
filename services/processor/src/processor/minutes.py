"""Totals of each minute, for the trend on the board and for the rollups that go to the sink. Pure."""

import zlib
from collections.abc import Iterator, Mapping

import numpy as np

from processor.cells import Cells, Pane, no_cells
from processor.grouping import Int64s
from processor.panes import COUNTRY_COLUMNS
from processor.register import Register
from sales.columnar.texts import Names
from sales.rollups import ALL, Rollup
from sales.times import format_time
from sales.windows import MINUTE_MS

CLOSE_AFTER_MS = 30_000
"""A minute is closed when ``as_of`` is this far past its end: nearly all orders are in by then, and rollups go out
once instead of many times."""

CORRECTIONS_AFTER_MS = 10_000
"""How long corrections of closed minutes are gathered before they are sent again."""

_EVENTS, _UNITS, _ORDERS, _RETURNS, _SALES, _REFUNDED = range(len(COUNTRY_COLUMNS))

Sums = list[int]
"""COUNTRY_COLUMNS of one scope"""


class Minutes:
    """Sums by minute and scope, over the length of the longest window.

    A scope is a country (``GB``) or a country and category (``GB/Home``). Minutes are ms since 1970.
    """

    def __init__(self) -> None:
        self._register = Register()
        self._is_cell = np.zeros(0, dtype=np.bool_)
        """by slot: a country and category"""
        self._minutes: dict[int, _Minute] = {}
        self._sent: dict[int, int] = {}
        """minute to the number of events it had when it was last sent"""
        self._oldest = 0
        self._as_of = 0
        self._touched: set[int] = set()
        """minutes whose trend has changed since `take_trend`"""
        self._gone: set[int] = set()
        self._unsent: set[int] = set()
        """minutes whose rollup, once closed, has to be sent"""
        self._stale: dict[int, set[str]] = {}
        self._leaving: list[Rollup] = []
        """records of minutes that were dropped before a tick could send them (history replayed at full speed)"""
        self._corrected_at: int | None = None
        """when the oldest correction that waits to be sent was first seen"""
        self.known_from = 0
        """of minutes before this one nothing was ever known here, and nothing is said: neither totals nor stale"""
        self.late = 0
        """events that came after their minute was closed"""

    def advance(self, as_of: int, oldest: int) -> None:
        """Moves to ``as_of``; minutes before ``oldest``, the start of the longest window, are dropped."""
        self._as_of = as_of
        if oldest > self._oldest:
            for minute in [minute for minute in self._minutes if minute < oldest]:
                if minute in self._unsent and self._sent.get(minute) != self._events(minute):
                    self._leaving.extend(self._rollups(minute))
                slots, sums = self._minutes.pop(minute).merged()
                self._register.release(slots, sums[:, _EVENTS])
                self._gone.add(minute)
                self._touched.discard(minute)
                self._unsent.discard(minute)
                self._sent.pop(minute, None)
            self._oldest = oldest

    def add(self, cells: Cells, *, restoring: bool = False) -> None:
        """Adds sums. An event for a minute that is gone makes that minute stale, if it was ever known here.

        Args:
            cells: by minute and scope, in COUNTRY_COLUMNS.
            restoring: these are sums that were added before a restart: nothing is late or stale.
        """
        # Rows are sorted by minute.
        edges = np.flatnonzero(np.concatenate(([True], cells.panes[1:] != cells.panes[:-1], [True])))
        for first, behind in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True) if len(cells) else ():
            minute, codes, sums = int(cells.panes[first]), cells.codes[first:behind], cells.sums[first:behind]
            closed = not restoring and self._is_closed(minute)
            if minute < self._oldest:
                if not restoring:
                    self._miss(minute, [cells.names.text(code) for code in codes.tolist()], sums, late=closed)
                continue
            slots = self._hold(cells.names, codes, sums[:, _EVENTS])
            if closed:
                self.late += int(sums[~self._is_cell[slots], _EVENTS].sum())
            self._minutes.setdefault(minute, _Minute()).add(slots, sums)
            self._touched.add(minute)
            self._unsent.add(minute)

    def mark_sent(self, sent: Mapping[int, int]) -> None:
        """Takes over what an earlier run of this process had sent: minute to its number of events then."""
        self._sent.update(sent)
        self._unsent -= {
            minute for minute, events in sent.items() if minute in self._minutes and self._events(minute) == events
        }

    def sent(self) -> dict[int, int]:
        """What `mark_sent` needs."""
        return dict(self._sent)

    def take_trend(self) -> tuple[dict[int, dict[str, Sums]], set[int]]:
        """Minutes up to ``as_of`` that changed since the last call, each with its sums by country; and those gone."""
        ready = {minute for minute in self._touched if minute <= self._as_of}
        self._touched -= ready
        changed = {minute: self._by_country(minute) for minute in sorted(ready)}
        gone, self._gone = self._gone, set()
        return changed, gone

    def take_rollups(self, now_ms: int, *, flush: bool = False) -> list[Rollup]:
        """Records of the minutes that closed since the last call, and of those corrected at least 10 s ago.

        To be called after every `add` and `advance`, before the state is kept: what left the longest window or is
        stale is told once.

        Args:
            now_ms: any clock that runs.
            flush: corrections don't wait any longer.
        """
        closed = [minute for minute in sorted(self._unsent) if self._is_closed(minute)]
        corrected = [minute for minute in closed if minute in self._sent]
        if corrected and self._corrected_at is None:
            self._corrected_at = now_ms
        due = flush or (self._corrected_at is not None and now_ms - self._corrected_at >= CORRECTIONS_AFTER_MS)
        if due or not corrected:
            self._corrected_at = None
        rollups, self._leaving = self._leaving, []
        for minute in closed:
            if due or minute not in self._sent:
                self._unsent.discard(minute)
                events = self._events(minute)
                if self._sent.get(minute) != events:
                    self._sent[minute] = events
                    rollups.extend(self._rollups(minute))
                self._minutes[minute].pack()
        for minute, scopes in sorted(self._stale.items()):
            rollups.extend(_stale(minute, scopes))
        self._stale = {}
        return rollups

    def dump(self) -> Cells:
        """All minutes as cells; a fresh table that adds them is equal to this (`mark_sent` and ``late`` apart)."""
        if not self._minutes:
            return no_cells(len(COUNTRY_COLUMNS))
        minutes = sorted(self._minutes)
        slots, sums = zip(*(self._minutes[minute].merged() for minute in minutes), strict=True)
        panes = np.repeat(np.array(minutes, dtype=np.int64), list(map(len, slots)))
        return Cells(self._register.listed(), panes, np.concatenate(slots), np.concatenate(sums)).listed()

    def _miss(self, minute: int, scopes: list[str], sums: Int64s, *, late: bool) -> None:
        """Notes what came for a minute that is gone."""
        if late:
            events = sums[:, _EVENTS].tolist()
            self.late += sum(count for scope, count in zip(scopes, events, strict=True) if "/" not in scope)
        if minute >= self.known_from:
            self._stale.setdefault(minute, set()).update(scopes)

    def _hold(self, names: Names, codes: Int64s, events: Int64s) -> Int64s:
        slots = self._register.hold(names, codes, events)
        if self._register.size > len(self._is_cell):
            self._is_cell = np.concatenate((self._is_cell, np.zeros(self._register.size, dtype=np.bool_)))
        for slot in self._register.assigned:
            self._is_cell[slot] = "/" in self._register.name(slot)
        return slots

    def _is_closed(self, minute: int) -> bool:
        return minute + MINUTE_MS + CLOSE_AFTER_MS <= self._as_of

    def _events(self, minute: int) -> int:
        slots, sums = self._minutes[minute].merged()
        return int(sums[~self._is_cell[slots], _EVENTS].sum())

    def _by_country(self, minute: int) -> dict[str, Sums]:
        slots, sums = self._minutes[minute].merged()
        rows = np.flatnonzero(~self._is_cell[slots])
        return dict(zip(self._register.names(slots[rows]), sums[rows].tolist(), strict=True))

    def _rollups(self, minute: int) -> Iterator[Rollup]:
        slots, sums = self._minutes[minute].merged()
        cells = self._is_cell[slots]
        yield _record(minute, ALL, sums[~cells].sum(axis=0).tolist())
        for scope, row in zip(self._register.names(slots[cells]), sums[cells].tolist(), strict=True):
            yield _record(minute, scope, row)


class _Minute:
    """Sums of one minute by slot. Packed it needs about a tenth of the memory: a day has 1,440 minutes, and each may
    have thousands of scopes, which nobody asks for unless something late arrives."""

    __slots__ = ("_packed", "_pane")

    def __init__(self) -> None:
        self._pane: Pane | None = Pane()
        self._packed = b""

    def add(self, slots: Int64s, sums: Int64s) -> None:
        """Adds sums of distinct slots."""
        if self._pane is None:
            pane = Pane()
            pane.add(*self.merged())
            self._pane = pane
        self._pane.add(slots, sums)

    def merged(self) -> tuple[Int64s, Int64s]:
        """Distinct slots and their sums."""
        if self._pane is not None:
            return self._pane.merged()
        rows = np.frombuffer(zlib.decompress(self._packed), dtype=np.int64).reshape(1 + len(COUNTRY_COLUMNS), -1)
        return rows[0], rows[1:].T

    def pack(self) -> None:
        """Until the next `add`."""
        if self._pane is not None:
            slots, sums = self._pane.merged()
            self._packed = zlib.compress(np.vstack((slots, sums.T)).tobytes(), 1)
            self._pane = None


def _record(minute: int, scope: str, sums: Sums) -> Rollup:
    country, slash, category = scope.partition("/")
    return Rollup(
        minute=format_time(minute),
        scope=scope,
        country=country if slash else None,
        category=category if slash else None,
        version=sums[_EVENTS],
        orders=sums[_ORDERS],
        returns=sums[_RETURNS],
        units=sums[_UNITS],
        sales_minor=sums[_SALES],
        refunded_minor=sums[_REFUNDED],
        revenue_minor=sums[_SALES] - sums[_REFUNDED],
    )


def _stale(minute: int, scopes: set[str]) -> Iterator[Rollup]:
    for scope in (ALL, *sorted(scope for scope in scopes if "/" in scope)):
        country, slash, category = scope.partition("/")
        yield Rollup(
            minute=format_time(minute),
            scope=scope,
            country=country if slash else None,
            category=category if slash else None,
            version=0,
            stale=True,
        )
