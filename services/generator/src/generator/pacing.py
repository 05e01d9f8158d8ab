"""When orders happen: slices of time with a number of orders each. Nothing here reads a clock that it wasn't given."""

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

TICK_SECONDS = 0.02
"""How often a paced source acts: short enough to look steady, long enough to make blocks at high rates."""

BURST_SECONDS = 1.0
"""How much of a delay is caught up with: a far side that was away is not flooded afterwards."""

BLOCK = 2000
"""Orders in one block at most: what numpy costs a call is then spread thin, and a block takes some milliseconds."""

_SECONDS_OF = {"s": 1.0, "min": 60.0, "h": 3600.0}


class Clock(Protocol):
    """Time, and the wish to stop."""

    def now(self) -> int:
        """The wall clock, ms since 1970; may step."""
        ...

    def monotonic(self) -> float:
        """Seconds that never go back."""
        ...

    def wait(self, seconds: float) -> None:
        """Blocks that long, or until somebody wants to stop."""
        ...

    def stopping(self) -> bool:
        """True once somebody wants to stop."""
        ...


@dataclass(frozen=True, slots=True)
class Rate:
    """Orders a second."""

    per_second: float | None
    """None: as many as can be made"""

    @classmethod
    def parse(cls, text: str) -> "Rate":
        """``500/s``, ``30/min``, ``0.5/s``, ``max``. ValueError with a sentence if it is none of these."""
        if text.strip() == "max":
            return cls(None)
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*/\s*(s|min|h)\s*", text)
        if match is None or float(match[1]) == 0:
            raise ValueError(f"{text!r} is no rate; allowed: a number above 0 with /s, /min or /h (500/s), or max")
        return cls(float(match[1]) / _SECONDS_OF[match[2]])


@dataclass(frozen=True, slots=True)
class Speed:
    """How fast event time runs, relative to the wall clock."""

    factor: float | None
    """None: without waiting"""

    @classmethod
    def parse(cls, text: str) -> "Speed":
        """``1x``, ``3600x``, ``0.5x``, ``max``. ValueError with a sentence if it is none of these."""
        if text.strip() == "max":
            return cls(None)
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*x\s*", text)
        if match is None or float(match[1]) == 0:
            raise ValueError(f"{text!r} is no speed; allowed: a number above 0 with x (1x, 3600x), or max")
        return cls(float(match[1]))


@dataclass(frozen=True, slots=True)
class Slice:
    """Some orders, spread evenly over ``(start, end]``."""

    start: int
    """ms since 1970"""
    end: int
    count: int

    def times(self) -> npt.NDArray[np.int64]:
        """When each order is placed, ascending; the last at ``end``."""
        steps = np.arange(1, self.count + 1, dtype=np.int64)
        return self.start + (self.end - self.start) * steps // self.count


def live(rate: Rate, clock: Clock, rhythm: Callable[[int], float]) -> Iterator[Slice]:
    """Slices that end now, until the clock says stop; blocks between them to keep the rate.

    Args:
        rate: orders a second; with ``max`` every slice has BLOCK orders.
        clock: read once a slice.
        rhythm: how busy an instant is; the rate is multiplied by it.
    """
    earned = 0.0
    counted = clock.monotonic()
    start = clock.now()
    while not clock.stopping():
        if rate.per_second is None:
            count = BLOCK
        else:
            present = rate.per_second * rhythm(clock.now())
            passed = clock.monotonic() - counted
            counted += passed
            earned = min(earned + passed * present, max(1.0, present * BURST_SECONDS))
            count = min(int(earned), BLOCK)
            if count == 0:
                clock.wait(min(max(TICK_SECONDS, (1 - earned) / present), BURST_SECONDS))
                continue
            earned -= count
        end = clock.now()
        yield Slice(min(start, end), end, count)
        start = end
        if rate.per_second is not None and earned < 1:
            clock.wait(max(0.0, counted + TICK_SECONDS - clock.monotonic()))


def simulated(rate: Rate, start: int, speed: Speed, clock: Clock, rhythm: Callable[[int], float]) -> Iterator[Slice]:
    """Slices of a day that begins at ``start``, played at ``speed``, until the clock says stop. Which orders there are
    depends on the arguments alone, not on the clock.

    Args:
        rate: orders a second of event time; not ``max``.
        start: ms since 1970.
        speed: how fast event time runs; blocks to keep it.
        clock: only waited on.
        rhythm: how busy an instant is; the rate is multiplied by it.
    """
    if rate.per_second is None:
        raise ValueError("a simulated day needs a rate in orders a second")
    wait = waiter(speed, clock)
    per_tick = math.inf if speed.factor is None else rate.per_second * speed.factor * TICK_SECONDS
    count = int(min(max(1.0, per_tick), BLOCK))
    exact = float(start)
    while not clock.stopping():
        begin = int(exact)
        exact += 1000 * count / (rate.per_second * rhythm(begin))
        wait(int(exact))
        if not clock.stopping():
            yield Slice(begin, int(exact), count)


def waiter(speed: Speed, clock: Clock) -> Callable[[int], None]:
    """A function that blocks until an event time (ms) is due, or until the clock says stop. The first event time that
    it hears of is due at once."""
    if speed.factor is None:
        return lambda _event_time: None
    per_ms = 1000 * speed.factor
    origin: list[tuple[int, float]] = []

    def wait(event_time: int) -> None:
        if not origin:
            origin.append((event_time, clock.monotonic()))
        first, begun = origin[0]
        due = begun + (event_time - first) / per_ms
        while not clock.stopping() and (left := due - clock.monotonic()) > 0:
            clock.wait(left)

    return wait
