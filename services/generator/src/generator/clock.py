"""The real clock, and the signals that end a service in order."""

import time

from sales.service import Stop, leave_at_once, on_signals


class SystemClock:
    """Real time. SIGTERM and SIGINT end the process with exit code 0 (after ``listen``), or make the clock say stop
    (after ``finish_first``). Both are for the main thread alone."""

    def __init__(self) -> None:
        self._stop = Stop()

    def listen(self) -> None:
        """From now on the signals end the process; a container's first process would not hear them otherwise."""
        on_signals(leave_at_once)

    def finish_first(self) -> None:
        """From now on there is something to finish."""
        on_signals(self._stop.set)

    def now(self) -> int:
        """The wall clock, ms since 1970."""
        return time.time_ns() // 1_000_000

    def monotonic(self) -> float:
        """Seconds that never go back."""
        return time.monotonic()

    def wait(self, seconds: float) -> None:
        """Blocks that long, or until somebody wants to stop."""
        self._stop.wait(seconds)

    def stopping(self) -> bool:
        """True once a signal came."""
        return self._stop.is_set()
