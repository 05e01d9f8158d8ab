"""What ``verify`` and ``trace`` have in common: they read everything, say what they are at, and end with one line."""

import contextlib
import time
from collections.abc import Callable, Iterator

import typer
from rich.console import Console

from sales.service import EXIT_AWAY
from tillstream.interrupts import Interrupted, raised
from tillstream.unheard import unheard

EXIT_UNABLE = 4
"""What is stored or shown breaks its own contract so that nothing can be made of it, or this machine has not enough
disk or memory: trying again does not help."""

REDIS_SECONDS = 10.0
"""Redis answers in milliseconds, or not at all."""

Say = Callable[[str], None]
"""Told, now and then, what is being waited for or worked on."""

Progress = Callable[[str, float], None]
"""Told what is being done, and which share of it is, 0 to 1. May be called by another thread."""


@contextlib.contextmanager
def reading(command: str) -> Iterator[Say]:
    """Shows what the work inside says, and makes its faults one line and an exit code.

    Raises:
        typer.Exit: EXIT_AWAY, EXIT_UNABLE, or 128 and the signal's number.
    """
    notes = Console(stderr=True)

    def ended(why: object, code: int) -> typer.Exit:
        with unheard():
            notes.print(f"{command}: {why}", markup=False, highlight=False, soft_wrap=True)
        return typer.Exit(code)

    try:
        with raised(), notes.status("") as status:
            yield status.update if notes.is_terminal else _plain(notes, command)
    except Interrupted as stop:
        raise ended(f"stopped by {stop}", stop.exit_code) from None
    except Exception as error:
        from tillstream.faults import AWAY, UNABLE  # noqa: PLC0415 (clients of everything: half a second to import)

        if isinstance(error, AWAY):
            raise ended(error, EXIT_AWAY) from error
        if isinstance(error, UNABLE):
            raise ended(error, EXIT_UNABLE) from error
        raise


def _plain(notes: Console, command: str) -> Say:
    """Without a terminal: a line when something is said, at most one every 5 s."""
    last = -5.0

    def say(text: str) -> None:
        nonlocal last
        if time.monotonic() - last >= 5:
            last = time.monotonic()
            notes.print(f"{command}: {text}", markup=False, highlight=False, soft_wrap=True)

    return say
