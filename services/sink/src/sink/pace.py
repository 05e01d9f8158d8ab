"""How fast a table of provisioned capacity is written and read. Pure but for the clock that it is given."""

import math
import threading
import time
from collections.abc import Callable, Sequence

UNIT_BYTES = 1024
"""What one write unit pays for: a write of an item up to this size."""

READ_BYTES = 4096
"""What half a read unit pays for: an eventually consistent read of an item up to this size, whatever is shown of it."""

SAVED_SECONDS = 60.0
"""How long unused units are kept for a burst. DynamoDB keeps those of 300 s and promises none of them."""


def write_units(item_bytes: int) -> int:
    """What writing an item of that size takes, from the table and from each index that holds all of it."""
    return max(1, math.ceil(item_bytes / UNIT_BYTES))


def half_read_units(item_bytes: int) -> int:
    """What an eventually consistent read of an item of that size takes from the table, in halves of a read unit."""
    return max(1, math.ceil(item_bytes / READ_BYTES))


class Pace:
    """A bucket of units, filled at the table's rate, from which writes (or reads) take theirs; threads may share it.

    It begins with what a second brings. The last one taken may bring it into debt, which the next one waits for: an
    item of 390 units can be written at 5 units a second too.

    Args:
        clock: seconds that only grow.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._rate: int | None = None
        self._units = 0.0
        self._filled_at = clock()

    @property
    def rate(self) -> int | None:
        """Units per second; None: no bound."""
        return self._rate

    @rate.setter
    def rate(self, rate: int | None) -> None:
        with self._lock:
            self._fill()
            if self._rate is None and rate is not None:
                self._units = rate
            self._rate = rate

    def ready_in(self, units: Sequence[int]) -> float:
        """Seconds until the first of these should go; 0: now. They are let through by what a second brings, so that
        they go together and not one by one.

        Args:
            units: each one's, in their order.
        """
        with self._lock:
            if self._rate is None:
                return 0.0
            self._fill()
            return max(0.0, (min(self._rate, sum(units)) - self._units) / self._rate)

    def take(self, units: Sequence[int]) -> int:
        """How many of these go now, at least one; takes their units."""
        with self._lock:
            if self._rate is None:
                return len(units)
            self._fill()
            taken = 0
            for needed in units:
                if taken and self._units < needed:
                    break
                self._units -= needed
                taken += 1
            return taken

    def _fill(self) -> None:
        now = self._clock()
        if self._rate is not None:
            self._units = min(self._rate * SAVED_SECONDS, self._units + self._rate * (now - self._filled_at))
        self._filled_at = now
