"""What the ``__main__`` of every service does alike: signals, memory, and exit codes that scripts can use."""

import gc
import os
import signal
import sys
import time
from collections.abc import Callable

EXIT_FAILED = 1
"""A fault that needs somebody."""

EXIT_SETTINGS = 2
"""A setting or argument is missing or wrong (click and argparse use 2 as well)."""

EXIT_AWAY = 3
"""Something needed at the start could not be reached in time."""

COLLECT_AFTER = (50_000, 20, 50)
"""Objects before Python looks for cycles among the youngest, and how often among older ones. With its own 700, 10, 10
it walks again and again through what never is a cycle: that was a tenth of the processor's time, and half of what
making a DynamoDB item takes."""


def on_signals(action: Callable[[], None]) -> None:
    """SIGTERM and SIGINT do this from now on (a container's first process hears them only if it asked to). What is
    ignored from the start stays so: a shell's background job ignores Ctrl-C. Main thread only; the action must not wait
    for a lock, because the interrupted code may hold it."""
    for number in (signal.SIGTERM, signal.SIGINT):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda *_: action())


def collect_rarely() -> None:
    """Python looks for cycles rarely from now on, and never among what is there by now: to be called when a service is
    put together. What comes later are messages, which have none."""
    gc.freeze()
    gc.set_threshold(*COLLECT_AFTER)


def cause_among(error: BaseException, expected: tuple[type[BaseException], ...]) -> BaseException | None:
    """The first of these kinds in the chain of an error's causes: what was raised inside an engine that wraps it."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, expected):
            return seen
        seen = seen.__cause__ or seen.__context__
    return None


class Stop:
    """Somebody asked the service to stop.

    A plain flag and no `threading.Event`: setting an event from a signal's handler can wait for ever for the lock that
    the interrupted code holds.
    """

    SLICE_SECONDS = 0.1
    """How soon a wait notices."""

    def __init__(self) -> None:
        self._asked = False

    def set(self) -> None:
        """From now on; any thread, or a signal's handler."""
        self._asked = True

    def is_set(self) -> bool:
        """Whether somebody asked."""
        return self._asked

    def wait(self, seconds: float) -> bool:
        """Blocks that long, or until somebody asks; whether somebody did."""
        end = time.monotonic() + seconds
        while not self._asked and (left := end - time.monotonic()) > 0:
            time.sleep(min(left, self.SLICE_SECONDS))
        return self._asked


def leave_at_once() -> None:
    """Ends the process with 0, from a signal's handler, while there is nothing to finish yet.

    Not by an exception: raised while a native client calls back, it would be swallowed there. So would be the one that
    flushing raises when the signal came in the middle of a write.
    """
    try:
        sys.stderr.flush()
    finally:
        os._exit(0)
