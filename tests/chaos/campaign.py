"""Fault after fault: each at a random moment, under load; then the time until the board is fresh, and the judge."""

import math
import random
import signal
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Self

from chaos import faults, proof
from chaos.faults import Fault, Step
from chaos.judge import Judge
from chaos.topics import Topic
from chaos.world import UnexpectedError, World
from sales.board import LiveNumbers
from tillstream.local.nursery import Nursery

PAUSE_SECONDS = 1.5
"""At most so long the shop works between a judgement and the next fault: several ticks, and a snapshot or none."""
FRESH_SECONDS = 180.0
"""The board is fresh within seconds; a machine with other work takes longer."""


END = "end"
"""The kind of what comes behind the last fault."""


@dataclass(frozen=True)
class Outcome:
    """What became of one step of a fault."""

    number: int
    """of the fault"""
    kind: str
    step: str
    recovery: float
    """seconds from the fault's end to a tick that covers what was in the stream then"""
    differences: tuple[str, ...]
    """lines for people; none: all is right"""


class Campaign:
    """A shop with its judge, open inside a ``with`` block."""

    def __init__(self, nursery: Nursery, *, seed: int, rate: str, pause_seconds: float) -> None:
        """Starts everything; the block begins with the first numbers.

        Args:
            nursery: ends it.
            seed: decides which faults come, and when.
            rate: of good orders.
            pause_seconds: how long SIGSTOP lasts.
        """
        self._dice = random.Random(seed)  # noqa: S311 - a seed makes a run come again
        self.kinds = faults.kinds(pause_seconds)
        self.world = World(nursery, rate=rate, seed=seed * 1_000_000)
        address = self.world.broker.address
        self.judge = Judge(
            Topic(address, "orders"),
            Topic(address, "orders-dead-letters"),
            Topic(address, "sales-rollups"),
            stream_id=self.world.stream_id,
            keys=self.world.keys,
        )
        self._number = 0

    def __enter__(self) -> Self:
        try:
            self.world.until(lambda: bool(self.world.positions()), FRESH_SECONDS, "at work")
        except BaseException:
            self.world.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.world.close()

    def draw(self) -> Fault:
        """The next fault, of those that this world can have."""
        possible = [kind for kind in self.kinds if faults.refusal(kind, self.world) is None]
        return self._dice.choices(possible, [kind.weight for kind in possible])[0]

    def strike(self, fault: Fault) -> Iterator[Outcome]:
        """Lets it happen; what became of each of its steps.

        Raises:
            NotInTimeError: the processor did not recover, so nothing more can be said.
        """
        self._number += 1
        self.world.let_pass(self._dice.uniform(0, PAUSE_SECONDS))
        try:
            for step in fault.strike(self.world, self._dice):
                began = time.monotonic() if step.since is None else step.since
                self.world.until_fresh(FRESH_SECONDS)
                recovery = time.monotonic() - began
                differences = [*self._endings(step), *self.judge.differences(self._board())]
                yield Outcome(self._number, fault.name, step.name, recovery, tuple(differences))
        except UnexpectedError as error:
            yield Outcome(self._number, fault.name, fault.name, 0.0, (str(error),))

    def end(self, aws_endpoint: str) -> Iterator[Outcome]:
        """Closes the shop: everything applied and the processor stopped in order; then the closed minutes are judged
        too, and ``verify`` proves the board from an archive.

        Args:
            aws_endpoint: of the archive.
        """
        self._number += 1
        with self.world.no_generator():
            self.world.until_fresh(FRESH_SECONDS)
            began = time.monotonic()
            with self.world.down(signal.SIGTERM):
                ended, live = time.monotonic() - began, self._board()
                found = [
                    *self._endings(Step("the end", (faults.IN_ORDER,))),
                    *self.judge.differences(live),
                    *self.judge.rollup_differences(live),
                ]
                yield Outcome(self._number, END, "stopped at the end", ended, tuple(found))
                began = time.monotonic()
                proved = proof.differences(self.world, aws_endpoint)
                yield Outcome(self._number, END, "verify from S3", time.monotonic() - began, tuple(proved))

    def _board(self) -> LiveNumbers:
        return self.world.answer(self.world.board, FRESH_SECONDS, "answered by Redis")

    def _endings(self, step: Step) -> Iterator[str]:
        endings, self.world.processor.endings = self.world.processor.endings, []
        for ending in endings:
            if not any(way.fits(ending) for way in step.ends):
                yield f"the processor ended by itself: {ending}"
        if step.ends and not endings:
            yield "the processor did not end, and should have"


def table(outcomes: Sequence[Outcome]) -> list[str]:
    """Lines for people: each step with how often it came, recovery p50, p95 and max in seconds, and differences."""
    by_step: dict[str, list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        by_step[outcome.step].append(outcome)
    rows: list[tuple[str, ...]] = [("fault", "times", "p50 s", "p95 s", "max s", "differences")]
    for name, group in [*by_step.items(), ("all but the end", [each for each in outcomes if each.kind != END])]:
        if not group:
            continue
        seconds = sorted(outcome.recovery for outcome in group)
        figures = (f"{value:.1f}" for value in (rank(seconds, 0.5), rank(seconds, 0.95), seconds[-1]))
        rows.append((name, str(len(group)), *figures, str(sum(len(outcome.differences) for outcome in group))))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in rows
    ]


def rank(ascending: Sequence[float], share: float) -> float:
    """The value that this share of all does not exceed (nearest rank)."""
    return ascending[math.ceil(len(ascending) * share) - 1]
