"""The real clock, and the signals that end a service in order."""

import time

from sales.service import leave_at_once, on_signals

_SLICE_SECONDS = 0.1
"""How soon a wait notices that the process shall stop."""


class SystemClock:
    """Real time. SIGTERM and SIGINT end the process with exit code 0 (after ``listen``), or make the clock say stop
    (after ``finish_first``)."""

    def __init__(self) -> None:
        self._stopping = False
        self._finish_first = False

    def listen(self) -> None:
        """From now on the signals end the process; a container's first process would not hear them otherwise. Main
        thread only."""
        on_signals(self._stop)

    def finish_first(self) -> None:
        """From now on there is something to finish."""
        self._finish_first = True

    def _stop(self) -> None:
        if not self._finish_first:
            leave_at_once()
        # A plain flag: setting an Event from a handler can wait for a lock that the interrupted code holds.
        self._stopping = True

    def now(self) -> int:
        """The wall clock, ms since 1970."""
        return time.time_ns() // 1_000_000

    def monotonic(self) -> float:
        """Seconds that never go back."""
        return time.monotonic()

    def wait(self, seconds: float) -> None:
        """Blocks that long, or until somebody wants to stop."""
        deadline = time.monotonic() + seconds
        while not self._stopping and (left := deadline - time.monotonic()) > 0:
            time.sleep(min(left, _SLICE_SECONDS))

    def stopping(self) -> bool:
        """True once a signal came."""
        return self._stopping
