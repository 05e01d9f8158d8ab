"""Reaching a far side that may not be there yet, or is away for a while: brokers and services start in any order."""

import random
from collections.abc import Callable
from typing import TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_delay

from sales.events import Log
from sales.streams import AwayError, Stream, StreamError, Wire

log = Log(__name__)

FIRST_PAUSE_SECONDS = 0.2
"""A local broker that is just starting is back this soon."""

LONGEST_PAUSE_SECONDS = 5.0
"""Long enough not to crowd a broker that recovers, short enough for a person who waits."""

T = TypeVar("T")


DOUBLINGS = 30
"""More than any first pause needs to become the longest; without an end the power leaves what a float can hold."""


def backoff(tries: int, first: float, longest: float) -> float:
    """Seconds to wait before the next try, after any number of tries that failed.

    Doubles with each from ``first`` (``tries`` = 0) up to ``longest``; a random part of up to a half is left out, so
    that many who failed together don't come back together.
    """
    return min(first * 2.0 ** min(tries, DOUBLINGS), longest) * random.uniform(0.5, 1)  # noqa: S311 (spreads load)


def reach(what: str, where: str, seconds: float, faults: tuple[type[Exception], ...], attempt: Callable[[], T]) -> T:
    """What ``attempt`` returns, tried again with growing pauses while it raises one of ``faults``; each failure is
    a line on the log.

    Args:
        what: the far side's name for people ("Kafka").
        where: its address.
        seconds: no new attempt starts later than this; a running one is bounded by its own timeout.
        faults: what may mend itself; anything else passes through at once.
        attempt: one bounded try.

    Raises:
        AwayError: still away; names the address, and has the last fault as its cause.
    """

    def note(state: RetryCallState) -> None:
        fault = state.outcome.exception() if state.outcome is not None else None
        pause = state.next_action.sleep if state.next_action is not None else 0.0
        log.warning(
            "far_side_away",
            "{what} at {where} is away ({error}); next try in {pause_seconds:.1f} s",
            what=what,
            where=where,
            error=fault,
            pause_seconds=pause,
        )

    retrying = Retrying(
        stop=stop_after_delay(seconds),
        wait=lambda state: backoff(state.attempt_number - 1, FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS),
        retry=retry_if_exception_type(faults),
        before_sleep=note,
        reraise=True,
    )
    try:
        return retrying(attempt)
    except faults as fault:
        raise AwayError(f"{what} at {where} can't be reached for {seconds:.0f} s: {fault}") from fault


def open_stream(wire: Wire, name: str, seconds: float) -> Stream:
    """The stream of that name, waited for: whoever creates it may start later.

    Args:
        wire: where it is or will be.
        name: the stream's.
        seconds: as in ``reach``.

    Raises:
        AwayError: it can't be opened; with the reason that the last try gave.
    """
    return reach("stream", name, seconds, (StreamError,), lambda: wire.open(name))
