"""Panes and rolling windows as arithmetic on time. Pure: no clock, no I/O.

All times are integers, milliseconds since 1970-01-01T00:00:00Z (event time).

A *pane* is one non-overlapping slice ``[start, start + pane_ms)`` of event time. A *window* is half-open,
made of whole panes, and ends with the pane that holds ``as_of``::

        start                                   end
          |----|----|----|----| ... |----|----|
                                      as_of ^      (inside the last pane)
"""

import re
from dataclasses import dataclass

SECOND_MS = 1_000
MINUTE_MS = 60 * SECOND_MS
HOUR_MS = 60 * MINUTE_MS
DAY_MS = 24 * HOUR_MS

PANE_LADDER_MS = (1 * SECOND_MS, 5 * SECOND_MS, 15 * SECOND_MS, MINUTE_MS, 15 * MINUTE_MS)
"""Pane lengths, each a multiple of the one before, so that fine panes fold into coarse ones without a remainder."""

PANES_PER_WINDOW = 60
"""A window has at least this many panes: its edge moves by less than 2 % of its length (one second is the finest)."""

_NAME = re.compile(r"^([1-9][0-9]{0,3})([smhd])$")
_UNIT_MS = {"s": SECOND_MS, "m": MINUTE_MS, "h": HOUR_MS, "d": DAY_MS}


@dataclass(frozen=True, slots=True, order=True)
class Window:
    """A rolling window: its length and pane length in milliseconds, and its name in keys (``1m``, ``24h``)."""

    length_ms: int
    pane_ms: int
    name: str

    def end(self, as_of: int) -> int:
        """End (exclusive) of the pane that holds ``as_of``, which is the end of the window."""
        return as_of - as_of % self.pane_ms + self.pane_ms

    def bounds(self, as_of: int) -> tuple[int, int]:
        """``(window_start, window_end)`` at ``as_of``, both in ms, end exclusive."""
        end = self.end(as_of)
        return end - self.length_ms, end


def parse_window(name: str) -> Window:
    """``"5m"`` to a window. Its pane is the coarsest of the ladder that gives at least 60 panes and no remainder.

    Raises:
        ValueError: the name is not a whole number of s, m, h or d; the message says what is allowed.
    """
    match = _NAME.match(name)
    if match is None:
        raise ValueError(f"window {name!r}: expected a whole number and s, m, h or d, for example 1m, 15m, 24h")
    length = int(match[1]) * _UNIT_MS[match[2]]
    fitting = [pane for pane in PANE_LADDER_MS if pane * PANES_PER_WINDOW <= length and length % pane == 0]
    return Window(length_ms=length, pane_ms=fitting[-1] if fitting else SECOND_MS, name=name)


def parse_windows(names: str) -> tuple[Window, ...]:
    """``"1m 5m 1h"`` (spaces or commas) to windows, shortest first.

    Raises:
        ValueError: none given, a malformed one, or the same length twice.
    """
    windows = tuple(sorted(parse_window(name) for name in names.replace(",", " ").split()))
    if not windows:
        raise ValueError("windows: at least one is needed, for example 1m 5m 15m 1h 24h")
    if len({window.length_ms for window in windows}) < len(windows):
        raise ValueError(f"windows: the same length twice in {names!r}")
    return windows
