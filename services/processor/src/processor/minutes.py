"""Totals of each minute, for the trend on the board and for the rollups that go to the sink. Pure."""

from collections.abc import Iterator, Mapping

import numpy as np

from processor.cells import Cells, ListedNames
from processor.panes import COUNTRY_COLUMNS
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
        self._minutes: dict[int, dict[str, Sums]] = {}
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
        if as_of - as_of % MINUTE_MS > self._as_of:
            self._touched.update(minute for minute in self._minutes if self._as_of <= minute <= as_of)
        self._as_of = as_of
        if oldest > self._oldest:
            for minute in [minute for minute in self._minutes if minute < oldest]:
                if minute in self._unsent and self._sent.get(minute) != self._events(minute):
                    self._leaving.extend(_rollups(minute, self._minutes[minute]))
                del self._minutes[minute]
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
        for minute, code, row in zip(cells.panes.tolist(), cells.codes.tolist(), cells.sums.tolist(), strict=True):
            scope = cells.names.text(code)
            if "/" not in scope and not restoring and self._is_closed(minute):
                self.late += row[_EVENTS]
            if minute < self._oldest:
                if minute >= self.known_from and not restoring:
                    self._stale.setdefault(minute, set()).add(scope)
                continue
            sums = self._minutes.setdefault(minute, {}).get(scope)
            if sums is None:
                self._minutes[minute][scope] = row
            else:
                for column, value in enumerate(row):
                    sums[column] += value
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
        changed = {
            minute: {scope: sums for scope, sums in self._minutes[minute].items() if "/" not in scope}
            for minute in sorted(ready)
        }
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
                    rollups.extend(_rollups(minute, self._minutes[minute]))
        for minute, scopes in sorted(self._stale.items()):
            rollups.extend(_stale(minute, scopes))
        self._stale = {}
        return rollups

    def dump(self) -> Cells:
        """All minutes as cells; a fresh table that adds them is equal to this (`mark_sent` and ``late`` apart)."""
        names: dict[str, int] = {}
        rows = [
            (minute, names.setdefault(scope, len(names)), sums)
            for minute, scopes in self._minutes.items()
            for scope, sums in scopes.items()
        ]
        return Cells(
            names=ListedNames(list(names)),
            panes=np.array([minute for minute, _, _ in rows], dtype=np.int64),
            codes=np.array([code for _, code, _ in rows], dtype=np.int64),
            sums=np.array([sums for _, _, sums in rows], dtype=np.int64).reshape(-1, len(COUNTRY_COLUMNS)),
        )

    def _is_closed(self, minute: int) -> bool:
        return minute + MINUTE_MS + CLOSE_AFTER_MS <= self._as_of

    def _events(self, minute: int) -> int:
        return sum(sums[_EVENTS] for scope, sums in self._minutes[minute].items() if "/" not in scope)


def _rollups(minute: int, scopes: Mapping[str, Sums]) -> Iterator[Rollup]:
    whole = [sum(column) for column in zip(*(sums for scope, sums in scopes.items() if "/" not in scope), strict=True)]
    yield _record(minute, ALL, whole)
    for scope, sums in scopes.items():
        if "/" in scope:
            yield _record(minute, scope, sums)


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
