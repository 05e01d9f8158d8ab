"""The clock on the wall may be set while the processor runs, and the engine goes by it.

Bytewax (0.21) keeps the times at which it wakes a source, notifies a step and ends an epoch as times on the wall. An
hour back means an hour without a tick and without a snapshot, and nothing can move it from inside. An hour ahead means
the same when the clock is set between the engine's look at it and our own, which tells it when to come again: it takes
the difference of the two for the time to sleep. So the process ends as a crash would end it, which costs nothing that a
snapshot and the stream do not hold, and whoever keeps it running starts it again.
"""

import os
import threading
import time
from collections.abc import Callable

from sales.events import Log
from sales.service import EXIT_FAILED

log = Log(__name__)

LOOK_SECONDS = 1.0

BEARABLE_SECONDS = 5.0
"""The engine stands still for as long as the clock was set; so short is less than a restart costs."""

JUDGED_AFTER_SECONDS = 10.0
"""When it is asked whether the engine has borne a clock that was set ahead."""

STILL_SECONDS = 5.0
"""An engine at work takes turns many times a second; one that has taken none for so long sleeps. Less than the time
before it is asked: it may have taken one just after the clock was set, with the old time in its hand."""


class ClockWatch:
    """Notices when the clock on the wall is set; what runs slower or faster than it should is no step."""

    def __init__(
        self,
        still: Callable[[], float],
        wall: Callable[[], float] = time.time,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begins now.

        Args:
            still: for how many seconds the engine has done nothing.
            wall: seconds since 1970.
            steady: seconds of a clock that nobody sets.
        """
        self._still, self._wall, self._steady = still, wall, steady
        self._ahead = wall() - steady()
        self._jump = 0.0
        """by so much the clock was set ahead, and the engine is not known to have borne it; 0: it was not"""
        self._jumped = 0.0

    def look(self) -> str | None:
        """To be called about once a second: why the process has to end, or None."""
        before, self._ahead = self._ahead, self._wall() - self._steady()
        step, now = self._ahead - before, self._steady()
        if step < -BEARABLE_SECONDS:
            return f"back by {-step:.0f} s, and the engine would wait until it is there again"
        if step > BEARABLE_SECONDS:
            self._jump, self._jumped = step, now
        if self._jump and now - self._jumped > JUDGED_AFTER_SECONDS:
            jump, self._jump = self._jump, 0.0
            if self._still() > STILL_SECONDS:
                return f"ahead by {jump:.0f} s while the engine looked at it, and it would sleep for as long"
        return None


def leave_when_set(still: Callable[[], float]) -> None:
    """Watches the clock in a thread of its own, for as long as the process lives.

    Args:
        still: for how many seconds the engine has done nothing; called from that thread.
    """
    watch = ClockWatch(still)
    never = threading.Event()

    def look() -> None:
        while (step := watch.look()) is None:
            never.wait(LOOK_SECONDS)
        log.error(
            "clock_set", "the clock on the wall went {step}; the next start goes on from the last snapshot", step=step
        )
        os._exit(EXIT_FAILED)

    threading.Thread(target=look, name="clock", daemon=True).start()
