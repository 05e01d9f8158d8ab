"""Processes of one cluster keep in step: played through on an engine that has nothing but the rule for epochs.

turn     the engine calls the slots that are due, in order; a turn has one time, that of its beginning
rule     a turn of an epoch's time or more after the one that ended the last epoch ends this one
barrier  no process begins an epoch before all have ended the one before
"""

from dataclasses import dataclass, field

import pytest

from processor.sharing import GAP, Pace

BEAT = 1.0
COMMIT = 0.01
"""Seconds from the last process's end of an epoch until all may go on."""


@dataclass
class Process:
    """An engine with two slots, whose every batch takes a fixed time; always with more to read."""

    batch: float
    paced: bool
    stall: tuple[float, float] = (float("inf"), 0.0)
    """at a time, once, for so long"""
    clock: float = 0.0
    epoch: int = 0
    ended: list[float] = field(default_factory=list)
    """when each epoch did"""
    worked: list[tuple[float, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.began = self.clock
        self.pace = Pace(BEAT, ["slot-0", "slot-2"], now=lambda: self.clock)

    def turn(self, released: float) -> None:
        self.clock = max(self.clock, released)
        if self.clock > self.stall[0]:
            self.clock += self.stall[1]
            self.stall = (float("inf"), 0.0)
        started = self.clock
        for slot in ("slot-0", "slot-2"):
            until = self.pace.called(slot) if self.paced else started
            before = self.clock
            self.clock += self.batch
            while self.clock < until:
                self.clock += self.batch
            self.worked.append((before, self.clock))
        if started - self.began >= BEAT * (1 - GAP if self.paced else 1):
            self.began = started
            self.epoch += 1
            self.ended.append(self.clock)
            self.pace.ended()
        rest = self.pace.rest_until() if self.paced else None
        self.clock = max(self.clock, rest or 0.0) + 0.0001

    def share(self, start: float, end: float) -> float:
        """Of that time, how much it worked."""
        return sum(max(0.0, min(b, end) - max(a, start)) for a, b in self.worked) / (end - start)


def play(processes: list[Process], seconds: float) -> None:
    while True:
        # Whoever may go on, and comes first.
        ready = []
        for process in processes:
            others = [other for other in processes if other is not process]
            if all(other.epoch >= process.epoch for other in others):
                last = max((other.ended[process.epoch - 1] for other in others if process.epoch), default=0.0)
                ready.append((max(process.clock, last + COMMIT if process.epoch else 0.0), process))
        released, process = min(ready, key=lambda pair: pair[0])
        if released > seconds:
            return
        process.turn(released)


BATCHES = [(0.020, 0.005), (0.012, 0.021), (0.015, 0.003), (0.003, 0.003)]


def test_without_a_pace_the_faster_of_two_starves() -> None:
    slow, fast = Process(0.027, paced=False), Process(0.005, paced=False)
    play([slow, fast], 80.0)
    assert fast.share(60.0, 80.0) < 0.2
    assert slow.share(60.0, 80.0) > 0.9


@pytest.mark.parametrize("batches", BATCHES)
def test_with_the_pace_both_work_nearly_all_the_time(batches: tuple[float, float]) -> None:
    processes = [Process(batch, paced=True) for batch in batches]
    play(processes, 40.0)
    for process in processes:
        assert process.share(10.0, 40.0) > 0.85
        assert len(process.ended) >= 38


@pytest.mark.parametrize("batches", BATCHES)
@pytest.mark.parametrize("stall", [0.3, 1.0, 1.6, 4.0])
@pytest.mark.parametrize("stalled", [0, 1])
def test_a_process_that_stalled_is_in_step_again_some_beats_later(
    batches: tuple[float, float], stall: float, stalled: int
) -> None:
    processes = [Process(batch, paced=True) for batch in batches]
    processes[stalled].stall = (10.4, stall)
    play(processes, 40.0)
    for process in processes:
        assert process.share(25.0, 40.0) > 0.85
