"""The state, built from stored orders: the processor's own source and numbers, run to the end of what is stored.

Nothing is published and nothing is sent on the way. The processor does both when it takes the state: rollups of all
minutes in the longest window then go out again, with the versions that they had.
"""

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition
from bytewax.operators import StatefulBatchLogic
from bytewax.run import cli_main

from processor import assembly
from processor.dataflow import Answer, SnapshotLog, build
from processor.journal import Journal, Place
from processor.numbers import Numbers
from processor.panes import Partial
from processor.publish import ElsewhereSink
from processor.recovery import RecoveryDirectory
from processor.settings import ProcessorSettings
from processor.source import OrdersSource, Slot, SlotState
from processor.telemetry import Telemetry
from sales import dead_letters
from sales.streams import Readable
from sales.streams.closing import Closing

CONFLICT = "conflict"
"""The one reason for which a stored order may be refused."""


class RebuildError(Exception):
    """What is stored can't be made a state of; the message says what and why."""


@dataclass(frozen=True, slots=True)
class Part:
    """One partition of what is stored, beside the orders that are read of it."""

    position: int
    """all up to it is part of the state; what follows is for the stream"""
    resumes: bool = True
    """the stream still has the partition"""
    tip_ms: int | None = None
    """a time when the stream had nothing behind the position, where that is known: see `PackedReader.tips`"""
    unread: int = 0
    """orders that no window and no identity needs any more: they are counted, but not read"""
    dead_letters: Mapping[str, int] = field(default_factory=dict)
    """messages up to the position that became dead letters, by reason"""


def rebuild(
    orders: Readable,
    parts: Mapping[str, Part],
    directory: Path,
    settings: ProcessorSettings,
    *,
    stopping: Callable[[], bool],
) -> Counter[str]:
    """Reads all that is stored and leaves its state in a directory, as a processor does that stops in order.

    Args:
        orders: what is stored, under the stream's id. Its readers' lag is exact, and a poll that gives nothing is at
            the end.
        parts: by partition; those of ``orders`` that are missing here are left to the stream from its oldest record on.
        directory: empty.
        settings: the processor's.
        stopping: asked now and then; once True, this ends, and what is in the directory is no state.

    Returns:
        The counts in the state: accepted, duplicates, dead_letters, dead_letters:<reason>.

    Raises:
        RebuildError: a stored order is none by these settings.
        OSError: the disk refuses; perhaps as the cause of the engine's own error.
        Exception: whatever ``orders`` raises.
    """
    counts: Counter[str] = Counter()
    with closing(RecoveryDirectory(directory, stream=orders.id, slots=settings.source_slots)) as recovery:
        source = OrdersSource(
            stream=orders,
            slots=settings.source_slots,
            decoder=assembly.decoder(settings, recovery.owner.seed),
            recovery=recovery,
            dead_letters_writer=_OnlyConflicts,
            horizon_ms=settings.horizon_ms,
            poll_records=settings.poll_records,
            dead_letter_share=1,
            stopping=stopping,
            telemetry=Telemetry(3600 * settings.retention_hours, directory),
        )

        def numbers(resume_state: Place | None) -> _Restoring:
            fresh = assembly.numbers(settings)
            if settings.clock == "wall":
                fresh.advance(time.time_ns() // 1_000_000)
            return _Restoring(fresh, SnapshotLog(Journal(recovery.numbers()), recovery, fresh, resume_state))

        stored = _Stored(source, orders, parts, counts)
        flow = build(
            orders=stored,
            numbers=numbers,
            board=ElsewhereSink(),
            rollups=ElsewhereSink(),
        )
        cli_main(  # type: ignore[no-untyped-call]  # the engine's stubs say nothing
            flow, epoch_interval=timedelta(milliseconds=settings.snapshot_ms), recovery_config=recovery.engine
        )
        if stored.failure is not None:
            raise stored.failure
        recovery.note_snapshot()
    return counts


class _Stored(FixedPartitionedSource[Partial, SlotState]):
    """The processor's source, each slot with an end."""

    def __init__(self, source: OrdersSource, orders: Readable, parts: Mapping[str, Part], counts: Counter[str]) -> None:
        self._source = source
        self.orders = orders
        self.parts = parts
        self.counts = counts
        self.failure: Exception | None = None
        """what went wrong in a slot, which ends all of them in order: what is raised inside of the engine, it answers
        with a page of addresses"""

    def list_parts(self) -> list[str]:
        """The source's slots."""
        return self._source.list_parts()

    def build_part(self, step_id: str, for_part: str, resume_state: SlotState | None) -> "_StoredSlot":
        """One of them."""
        return _StoredSlot(self._source.build_part(step_id, for_part, resume_state), self)


class _StoredSlot(StatefulSourcePartition[Partial, SlotState]):
    """A slot that ends when its reader has nothing more, and then says what its partitions come to in all."""

    def __init__(self, slot: Slot, whole: _Stored) -> None:
        self._slot = slot
        self._whole = whole
        self._parts = whole.parts
        self._conflicts = 0
        self._ended = False

    def next_batch(self) -> list[Partial]:
        """As the slot's; the last sum reaches the end of each partition."""
        if self._ended or self._whole.failure is not None:
            raise StopIteration
        try:
            partials = self._slot.next_batch()
        except StopIteration:
            raise
        except Exception as error:
            self._whole.failure = error
            raise StopIteration from error
        for partial in partials:
            self._conflicts += partial.counts.get(f"dead_letters:{CONFLICT}", 0)
            if not any(partial.lags.values()):
                self._complete(partial)
                self._ended = True
            self._whole.counts.update(partial.counts)
        return partials

    def next_awake(self) -> datetime | None:
        """As the slot's."""
        return self._slot.next_awake()

    def snapshot(self) -> SlotState:
        """Where the processor is to go on."""
        positions, durable, *_ = self._slot.snapshot()
        parts = {name: self._parts.get(name) for name in positions}
        return (
            {
                name: None if part is None else part.position
                for name, part in parts.items()
                if part is None or part.resumes
            },
            durable,
            {name: part.tip_ms for name, part in parts.items() if part is not None and part.tip_ms is not None},
        )

    def close(self) -> None:
        """As the slot's."""
        self._slot.close()

    def _complete(self, partial: Partial) -> None:
        """Adds what is known of the slot's partitions without reading it."""
        names = {path: path.removeprefix(f"{self._whole.orders.id}/") for path in partial.lags}
        mine = {path: self._parts[name] for path, name in names.items() if name in self._parts}
        digits = self._whole.orders.position_digits
        partial.positions.update({path: (part.position, digits) for path, part in mine.items()})
        letters: Counter[str] = Counter()
        for part in mine.values():
            letters.update(part.dead_letters)
        # Of the conflicts some were found again, among the orders that were read; the others are among those that
        # were not.
        letters[CONFLICT] = max(0, letters[CONFLICT] - self._conflicts)
        counts = Counter({f"dead_letters:{reason}": count for reason, count in letters.items() if count})
        counts["accepted"] = sum(part.unread for part in mine.values()) - letters[CONFLICT]
        counts["dead_letters"] = letters.total()
        for name, count in counts.items():
            partial.counts[name] = partial.counts.get(name, 0) + count


class _Restoring(StatefulBatchLogic[Partial, Answer, Place]):
    """The numbers, which hear of nothing new and have nothing to say."""

    def __init__(self, numbers: Numbers, log: SnapshotLog) -> None:
        self._numbers = numbers
        self._log = log

    def on_batch(self, values: list[Partial]) -> tuple[list[Answer], bool]:
        """Applies each item whole."""
        for partial in values:
            self._numbers.apply(partial, restoring=True)
        return [], self.RETAIN

    def on_eof(self) -> tuple[list[Answer], bool]:
        """The state stays."""
        return [], self.RETAIN

    def snapshot(self) -> Place:
        """As `NumbersLogic.snapshot`."""
        return self._log.save()[0]


class _OnlyConflicts(Closing):
    """Takes the dead letters of conflicts: they were sent when their orders came. There may be no others."""

    def write(self, keys: Sequence[bytes], values: Sequence[bytes]) -> None:  # noqa: ARG002 (a writer's signature)
        """Forgets them.

        Raises:
            RebuildError: one has another reason.
        """
        for letter in map(dead_letters.decode, values):
            if letter.reason != CONFLICT:
                raise RebuildError(
                    f"the order stored for position {letter.position} of {letter.stream}/{letter.partition} is none "
                    f"({letter.reason}: {letter.detail}); are CURRENCY and REGION_OVERRIDES what they were then?"
                )

    def flush(self, timeout: float) -> None:
        """Nothing waits."""

    def unacknowledged(self) -> int:
        """Nothing waits."""
        return 0

    def close(self) -> None:
        """Nothing is open."""
