"""The whole graph on one page.

    orders ──▶ numbers ──▶ ticks ────▶ board (Redis)
    (source)   (one key)   └▶ rollups ──▶ stream

An item is what a run of messages adds up to, never a single event. One step holds the numbers and takes each item
whole, with its position: so what it has applied is, for each partition, a prefix, and a tick is a consistent cut.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import bytewax.operators as op
from bytewax.dataflow import Dataflow
from bytewax.inputs import FixedPartitionedSource
from bytewax.operators import KeyedStream, StatefulBatchLogic
from bytewax.outputs import FixedPartitionedSink

from processor.crossing import Arrivals, Crossed
from processor.journal import Journal, Place
from processor.numbers import Numbers
from processor.panes import Partial
from processor.recovery import RecoveryDirectory
from processor.snapshots import check, decode, encode
from processor.source import SlotState
from processor.telemetry import Telemetry
from processor.ticking import LEAST_SECONDS, seconds_to_next
from sales.board import Tick
from sales.events import Log
from sales.memory import give_back
from sales.rollups import Rollup

KEY = "sales"
"""The one key: merging partial sums is cheap, and sharding them would mix moments in one tick. The engine takes a key's
hash for the process that has it: for this key the first one, of up to MOST_PROCESSES, which publishes and is asked for
metrics. So ticks cross nothing."""

HOLD_SECONDS = 30.0
"""After a crash what was shown is read again before a tick is published; longer than this the board does not wait."""

Answer = Tick | Rollup

log = Log(__name__)


def build(
    *,
    orders: FixedPartitionedSource[Partial, SlotState] | FixedPartitionedSource[Partial | Crossed, SlotState],
    numbers: Callable[[Place | None], StatefulBatchLogic[Any, Answer, Place]],
    board: FixedPartitionedSink[Tick, None],
    rollups: FixedPartitionedSink[Rollup, None],
) -> Dataflow:
    """The dataflow. Step names are part of the snapshots: renaming one loses its state."""
    flow = Dataflow("processor")
    sums = op.input("orders", flow, cast("FixedPartitionedSource[Partial | Crossed, SlotState]", orders))
    keyed = op.key_on("shop", sums, lambda _: KEY)
    answers = op.stateful_batch("numbers", keyed, numbers)
    split = op.branch("split", answers, _is_tick)
    op.output("board", cast("KeyedStream[Tick]", split.trues), board)
    op.output("rollups", cast("KeyedStream[Rollup]", split.falses), rollups)
    return flow


def _is_tick(answer: tuple[str, Answer]) -> bool:
    return isinstance(answer[1], Tick)


@dataclass(frozen=True, slots=True)
class Shown:
    """What the board showed when this process took over: numbers must not go back behind it."""

    as_of: int
    positions: dict[str, str]


class NumbersLogic(StatefulBatchLogic[Partial | Crossed, Answer, Place]):
    """Drives the numbers: applies, ticks, keeps. The engine calls it from one thread."""

    def __init__(
        self,
        *,
        numbers: Numbers,
        journal: Journal,
        recovery: RecoveryDirectory,
        resume_state: Place | None,
        clock: str,
        now_ms: Callable[[], int],
        tick_ms: int,
        shown: Shown | None,
        telemetry: Telemetry,
    ) -> None:
        """Takes the numbers back from the journal, up to where the snapshot was taken.

        Args:
            numbers: fresh.
            journal: where they are kept.
            recovery: tells whether there should be a snapshot.
            resume_state: where the snapshot ends in the journal.
            clock: ``wall`` or ``event``.
            now_ms: the clock on the wall.
            tick_ms: the longest time between two ticks.
            shown: what the board shows already; ticks wait until they reach it.
            telemetry: is told where the numbers stand.

        Raises:
            RecoveryError: there should be a snapshot and is none.
            JournalError: the journal is shorter than the snapshot says.
            SnapshotError: another version wrote it.
        """
        self._arrivals = Arrivals()
        self._numbers = numbers
        self._log = SnapshotLog(journal, recovery, numbers, resume_state)
        self._wall = clock == "wall"
        self._now_ms = now_ms
        self._longest = tick_ms / 1000
        self._next_tick = datetime.now(UTC)
        self._soonest = self._next_tick
        """when the next tick may be, if there is something new"""
        self._ticked = time.monotonic()
        self._worked = time.process_time()
        self._shown = shown
        self._telemetry = telemetry
        self._hold_until = time.monotonic() + HOLD_SECONDS
        if self._wall and shown is not None:
            numbers.advance(shown.as_of)

    def on_batch(self, values: list[Partial | Crossed]) -> tuple[list[Answer], bool]:
        """Applies each item whole."""
        now = self._now_ms()
        if self._wall:
            self._numbers.advance(now)
        answers: list[Answer] = []
        for item in values:
            partial = self._arrivals.partial(item)
            self._numbers.apply(partial)
            if partial.positions:
                self._next_tick = min(self._next_tick, self._soonest)
            self._telemetry.took(partial.counts, partial.readings, partial.lags)
        answers.extend(self._numbers.take_rollups(now))
        return answers, self.RETAIN

    def on_notify(self) -> tuple[list[Answer], bool]:
        """A tick."""
        started, worked = time.monotonic(), time.process_time()
        answers = self._publish()
        last = self._telemetry.last_publish  # this tick's answers are still to be written
        soonest = seconds_to_next(
            longest=self._longest,
            tick=time.monotonic() - started + last.seconds,
            other=(worked - self._worked - last.worked) / max(started - self._ticked, LEAST_SECONDS),
        )
        self._ticked, self._worked = started, time.process_time()
        now = datetime.now(UTC)
        self._soonest = now + timedelta(seconds=soonest)
        self._next_tick = now + timedelta(seconds=self._longest)
        return answers, self.RETAIN

    def on_eof(self) -> tuple[list[Answer], bool]:
        """A last tick, and corrections that were still gathered; the state stays."""
        return self._publish(flush=True), self.RETAIN

    def notify_at(self) -> datetime:
        """When the next tick is due."""
        return self._next_tick

    def snapshot(self) -> Place:
        """Writes what changed, durably; the engine keeps the place where it ends."""
        started = time.monotonic()
        place, size = self._log.save()
        self._telemetry.saved(time.monotonic() - started, size)
        return place

    def _publish(self, *, flush: bool = False) -> list[Answer]:
        now = self._now_ms()
        if self._wall:
            self._numbers.advance(now)
        answers: list[Answer] = list(self._numbers.take_rollups(now, flush=flush))
        tick = self._numbers.tick(now) if self._has_caught_up() else None
        self._telemetry.stands(self._numbers.standing())
        return answers if tick is None else [*answers, tick]

    def _has_caught_up(self) -> bool:
        if self._shown is None or self._numbers.reaches(self._shown.as_of, self._shown.positions):
            self._shown = None
            return True
        if time.monotonic() > self._hold_until:
            log.warning(
                "board_not_reached",
                "the stream has not come back to what the board shows after {seconds:.0f} s; going on",
                seconds=HOLD_SECONDS,
            )
            self._shown = None
            return True
        return False


class SnapshotLog:
    """The numbers' state on disk: a dump, then deltas; a new dump when the deltas have outgrown it."""

    SMALLEST_SEGMENT = 64 * 1024 * 1024
    """A segment is not replaced before it has this many bytes: reading it back takes a fraction of a second."""
    SNAPSHOTS_APART = 60
    """Nor before this many snapshots: the engine may resume some epochs back, in the segment before."""
    CERTAIN_AFTER = 3
    """An epoch is committed while the next ones run; after this many snapshots one has been, for certain."""

    def __init__(
        self, journal: Journal, recovery: RecoveryDirectory, numbers: Numbers, resume_state: Place | None
    ) -> None:
        recovery.must_resume(found=resume_state is not None, what="numbers")
        self._journal = journal
        self._recovery = recovery
        self._numbers = numbers
        self._snapshots = 0
        self._dump_bytes = 0
        if resume_state is None:
            for segment in journal.segments():
                journal.drop(segment)
            journal.roll()
            return
        started = time.monotonic()
        journal.cut(Place(*resume_state))
        for place, payload in journal.frames(resume_state[0]):
            if place.offset == 0:
                self._dump_bytes = len(payload)
            numbers.load(decode(payload))
        give_back()
        log.info(
            "numbers_read_back",
            "{megabytes:.1f} MB of numbers read back in {seconds:.3f} s",
            megabytes=resume_state[1] / 1e6,
            seconds=time.monotonic() - started,
        )

    @staticmethod
    def check(journal: Journal) -> None:
        """Goes over what an earlier run has left, before the engine runs: it answers what is raised inside of it with
        an abort of its own, and a page of addresses.

        Raises:
            JournalError: a frame is damaged.
            SnapshotError: another version wrote one.
        """
        for place, payload in journal.survey():
            if place.offset == 0:
                check(payload)

    def save(self) -> tuple[Place, int]:
        """Appends what changed and waits for the disk; the place to cut the journal at, if this snapshot resumes, and
        the bytes written."""
        self._snapshots += 1
        if self._snapshots == self.CERTAIN_AFTER:
            self._recovery.note_snapshot()
        delta, payload = self._numbers.take_delta(), b""
        if delta is not None:
            size = self._journal.end().offset
            if self._snapshots >= self.SNAPSHOTS_APART and size > max(self.SMALLEST_SEGMENT, 4 * self._dump_bytes):
                kept = self._journal.roll() - 1
                for segment in self._journal.segments():
                    if segment < kept:
                        self._journal.drop(segment)
                payload = encode(self._numbers.dump())
                self._dump_bytes = len(payload)
                self._snapshots = self.CERTAIN_AFTER
            else:
                payload = encode(delta)
            self._journal.append(payload)
        self._journal.sync()
        return self._journal.end(), len(payload)
