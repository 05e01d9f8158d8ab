"""Ctrl-C, ``kill`` and a closed terminal as one exception, which cannot come at a moment that would leak a process.

Process-wide, as signals are. Only the main thread of a command calls this.
"""

import contextlib
import os
import signal
from collections.abc import Iterator
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(BaseException):
    """Somebody wants this process to stop. No Exception, so that nobody catches it by accident."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number

    @property
    def exit_code(self) -> int:
        """What shells say of a process that a signal ended."""
        return 128 + self.number

    @property
    def by_keyboard(self) -> bool:
        """Ctrl-C, as opposed to ``kill`` or a closed terminal."""
        return self.number == signal.SIGINT


class _State:
    shields = 0
    pending: int | None = None
    """came behind a shield"""
    asked: int | None = None
    """was raised, and not yet answered"""


def _handle(number: int, _frame: FrameType | None) -> None:
    if number == signal.SIGHUP:  # one closed terminal says so several times: the kernel twice, a shell once more
        signal.signal(number, signal.SIG_IGN)
    if not _State.shields:
        _State.asked = number
        raise Interrupted(number)
    if _State.pending is not None:  # asked for twice while stopping: go at once; the wardens end the children
        os._exit(128 + number)
    _State.pending = number


@contextlib.contextmanager
def raised() -> Iterator[None]:
    """Inside, the first of SIGNALS raises `Interrupted` in the main thread, and so does each later one, but for further
    SIGHUPs. What is ignored from the start stays so: ``nohup`` and shells' background jobs ask for it that way."""
    before = {n: signal.signal(n, _handle) for n in SIGNALS if signal.getsignal(n) is not signal.SIG_IGN}
    try:
        yield
    finally:
        _State.asked = None
        for number, handler in before.items():
            signal.signal(number, handler)


def check() -> None:
    """Raises `Interrupted` if one was raised that never arrived: native code that calls back into Python, as clients of
    Kafka do, loses what is raised there. For loops that wait.
    """
    if _State.asked is not None:
        raise Interrupted(_State.asked)


def waits() -> bool:
    """Has a signal come behind a shield? For work inside that can end early."""
    return _State.pending is not None


def answered() -> None:
    """What was asked for last is being done; the next signal is another one."""
    _State.asked = None


@contextlib.contextmanager
def shielded() -> Iterator[None]:
    """Inside, a signal waits until the outermost shield ends; a second one ends the process at once. For steps that
    are bounded in time and must not stop halfway."""
    _State.shields += 1
    try:
        yield
    finally:
        _State.shields -= 1
        if not _State.shields and _State.pending is not None:
            number, _State.pending = _State.pending, None
            _State.asked = number
            raise Interrupted(number)
