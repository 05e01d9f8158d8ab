"""The clock on the wall may be set back while the processor runs, and the engine goes by it.

Bytewax (0.21) keeps the times at which it wakes a source, notifies a step and ends an epoch as times on the wall. An
hour back means an hour without a tick and without a snapshot, and nothing can move it from inside. So the process ends
as a crash would end it, which costs nothing that a snapshot and the stream do not hold, and whoever keeps it running
starts it again.
"""

import logging
import os
import threading
import time
from collections.abc import Callable

from sales.service import EXIT_FAILED

log = logging.getLogger(__name__)

LOOK_SECONDS = 1.0

BEARABLE_SECONDS = 5.0
"""The engine stands still for as long as the clock went back; so short is less than a restart costs."""


class WallClock:
    """Notices when the clock on the wall is set back; what runs slower or faster than it should is no step."""

    def __init__(self, wall: Callable[[], float] = time.time, steady: Callable[[], float] = time.monotonic) -> None:
        """Begins now.

        Args:
            wall: seconds since 1970.
            steady: seconds of a clock that nobody sets.
        """
        self._wall, self._steady = wall, steady
        self._ahead = wall() - steady()

    def set_back(self) -> float:
        """By how many seconds it was set back since the last call."""
        before, self._ahead = self._ahead, self._wall() - self._steady()
        return max(0.0, before - self._ahead)


def leave_when_set_back() -> None:
    """Watches the clock in a thread of its own, for as long as the process lives."""
    clock = WallClock()
    never = threading.Event()

    def watch() -> None:
        while (seconds := clock.set_back()) <= BEARABLE_SECONDS:
            never.wait(LOOK_SECONDS)
        log.error(
            "the clock on the wall went back by %.0f s, and the engine would wait until it is there again; "
            "the next start goes on from the last snapshot",
            seconds,
        )
        os._exit(EXIT_FAILED)

    threading.Thread(target=watch, name="clock", daemon=True).start()
