"""Places where a test ends this process, or freezes it: one at each arrow of what has to survive that.

Nothing happens at them unless the environment names one, ``TILLSTREAM_FAILPOINT=object-after:3:stop``: the third time
the process comes by, it stops as by SIGSTOP, and is a zombie to its successors until it is told to go on. ``end``, or
no last word, is SIGKILL: nothing of it runs any more, no ``finally`` and no other thread. For tests; no setting.
"""

import os
import signal
import threading
from dataclasses import dataclass
from typing import Literal, get_args

VARIABLE = "TILLSTREAM_FAILPOINT"

Place = Literal[
    "claimed",
    "pin-before",
    "pin-after",
    "object-before",
    "object-after",
    "part-after",
    "complete-before",
    "complete-after",
    "done-before",
    "done-after",
    "head-after",
    "items-before",
    "items-after",
    "commit-before",
    "commit-after",
]
PLACES: tuple[Place, ...] = get_args(Place)

Action = Literal["end", "stop"]
ACTIONS: tuple[Action, ...] = get_args(Action)


@dataclass(slots=True)
class _Armed:
    place: str
    left: int
    action: str


_armed: _Armed | None = None
_lock = threading.Lock()


def arm(text: str) -> None:
    """From now on the place that ``PLACE[:TIMES][:ACTION]`` names does what it says; empty: none does.

    Raises:
        ValueError: it says nothing of the kind; a test that misspells a place would prove nothing.
    """
    global _armed  # noqa: PLW0603 (one process has one)
    place, _, rest = text.partition(":")
    times, _, action = rest.partition(":")
    if times in ACTIONS and not action:
        times, action = "", times
    counted = times == "" or (times.isdecimal() and int(times) > 0)
    if text and not (place in PLACES and counted and action in ("", *ACTIONS)):
        raise ValueError(f"{VARIABLE}: {text!r} is not PLACE[:TIMES][:end|stop] with one of {', '.join(PLACES)}")
    _armed = _Armed(place, int(times or 1), action or "end") if text else None


def passed(place: Place) -> None:
    """The process is at this place; any thread."""
    if _armed is None or _armed.place != place:
        return
    with _lock:
        _armed.left -= 1
        due = _armed.left == 0
    if due and _armed.action == "end":
        os.kill(os.getpid(), signal.SIGKILL)
    elif due:
        # To this thread: a signal to the process may reach another one first, and this one would run on for a moment.
        signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)
