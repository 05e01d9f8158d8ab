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


def parse_windows(names: str) -> tuple[Window, ...]:
    """``"1m 5m 1h"`` (spaces or commas) to windows, shortest first.

    A window's pane is the coarsest of the ladder that

    - gives it at least 60 panes, and divides it without a remainder;
    - is not coarser than the next longer window's, and not longer than what this window has beyond the next shorter
      one: so what leaves one window always folds whole into a pane of the next.

    Raises:
        ValueError: none given, a malformed one, or the same length twice; the message says what is allowed.
    """
    lengths = {_length(name): name for name in names.replace(",", " ").split()}
    if not lengths:
        raise ValueError("at least one window is needed, for example 1m 5m 15m 1h 24h")
    if len(lengths) < len(names.replace(",", " ").split()):
        raise ValueError(f"the same window twice in {names!r}")
    windows: list[Window] = []
    ordered = sorted(lengths)
    coarsest = PANE_LADDER_MS[-1]
    for length, shorter in zip(reversed(ordered), [*reversed(ordered[:-1]), 0], strict=True):
        limit = min(coarsest, length // PANES_PER_WINDOW, length - shorter)
        fitting = [pane for pane in PANE_LADDER_MS if pane <= limit and length % pane == 0]
        coarsest = fitting[-1] if fitting else PANE_LADDER_MS[0]
        windows.append(Window(length_ms=length, pane_ms=coarsest, name=lengths[length]))
    return tuple(reversed(windows))


def _length(name: str) -> int:
    match = _NAME.match(name)
    if match is None:
        raise ValueError(f"{name!r} is no window: a whole number and s, m, h or d, for example 1m, 15m, 24h")
    return int(match[1]) * _UNIT_MS[match[2]]
