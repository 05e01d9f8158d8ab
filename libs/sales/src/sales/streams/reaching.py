"""Reaching a far side that may not be there yet: brokers and services start in any order."""

import logging
from collections.abc import Callable
from typing import TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_delay, wait_exponential_jitter

from sales.streams import AwayError

log = logging.getLogger(__name__)

FIRST_PAUSE_SECONDS = 0.2
"""A local broker that is just starting is back this soon."""

LONGEST_PAUSE_SECONDS = 5.0
"""Long enough not to crowd a broker that recovers, short enough for a person who waits."""

T = TypeVar("T")


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
        log.warning("%s at %s is away (%s); next try in %.1f s", what, where, fault, pause)

    retrying = Retrying(
        stop=stop_after_delay(seconds),
        wait=wait_exponential_jitter(initial=FIRST_PAUSE_SECONDS, max=LONGEST_PAUSE_SECONDS, jitter=0.1),
        retry=retry_if_exception_type(faults),
        before_sleep=note,
        reraise=True,
    )
    try:
        return retrying(attempt)
    except faults as fault:
        raise AwayError(f"{what} at {where} can't be reached for {seconds:.0f} s: {fault}") from fault
