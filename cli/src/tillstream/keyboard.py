"""Single key presses from a terminal, without Enter; nothing where there is no terminal."""

import contextlib
import os
import select
import sys
import termios
import time
import tty
from collections.abc import Callable, Iterator

from tillstream.unheard import unheard

_ARROWS = {"\x1b[C": "right", "\x1b[D": "left", "\t": "right", "\x1b[Z": "left"}

NextKey = Callable[[float], str | None]
"""Waits up to that many seconds for a key: its character, ``left``, ``right``, or None."""


@contextlib.contextmanager
def keys() -> Iterator[NextKey]:
    """Takes keys one by one inside. Signals (Ctrl-C) still come as signals."""
    fd = _foreground_terminal()
    if fd is None:
        yield _nothing
        return
    before = termios.tcgetattr(fd)
    tty.setcbreak(fd)

    def next_key(seconds: float) -> str | None:
        ready, _, _ = select.select([fd], [], [], seconds)
        if not ready:
            return None
        text = os.read(fd, 16).decode(errors="replace")
        return _ARROWS.get(text, text[:1]) or None

    try:
        yield next_key
    finally:
        with unheard():
            termios.tcsetattr(fd, termios.TCSADRAIN, before)


def _nothing(seconds: float) -> None:
    time.sleep(seconds)


def _foreground_terminal() -> int | None:
    """A process in the background that asks its terminal is stopped by it."""
    try:
        fd = sys.stdin.fileno()
        return fd if os.isatty(fd) and os.tcgetpgrp(fd) == os.getpgrp() else None
    except (OSError, ValueError):  # closed, or replaced by something that is no file
        return None
