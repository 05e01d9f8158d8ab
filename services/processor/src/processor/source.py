"""The source: from the orders stream to sums, one item a run of messages.

Decoding, dead letters and the memory of identities belong to the partition that a message came from, so they happen
here, on the source's side, and nothing but sums has to be exchanged.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta

import numpy as np
from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition

from processor.dedup import Dedup, Verdict, identities
from processor.journal import Journal, Place
from processor.panes import Origin, Partial, Reading, Summarise
from processor.recovery import RecoveryDirectory
from processor.telemetry import Telemetry
from processor.tiers import summarising
from sales import dead_letters
from sales.columnar import columns as c
from sales.columnar.columns import Columns, Int64s, Uint64s
from sales.columnar.decoding import Decoder
from sales.events import Log
from sales.rejections import Rejection
from sales.streams import PositionLostError, Readable, StreamError, Writer, format_position
from sales.streams.packed import Packed, PackedReader

log = Log(__name__)

LOOK_SECONDS = 0.005
"""How soon a slot that has read everything looks again: well below a tick, and not at once, because a sum costs half a
millisecond however few orders are in it."""

TAKE_BYTES = 32 * 1024 * 1024
"""A sum takes in no further messages when theirs are so many bytes: large orders make short sums, and not gigabytes."""

HEARTBEAT_SECONDS = 0.5
"""How often lags are told while nothing arrives."""

FLUSH_SECONDS = 10.0
"""How long one try to have dead letters acknowledged may take; the writer it is given may try for longer."""

WATCHED_MESSAGES = 10_000
"""The share of dead letters is judged over this many messages."""

RESIDENT_BYTES = 64 * 1024 * 1024
"""What the identities of all slots together may have in memory, but for the minutes that are being written."""

PARTITIONS_SECONDS = 5.0
"""How often a slot looks for partitions that are new."""

Positions = dict[str, int | None]
"""partition to the last position taken; None: none yet"""

Tips = dict[str, int]
"""partition to a time, ms since 1970, when there was nothing behind its position; see `PackedReader.tips`"""

SlotState = tuple[Positions, Place] | tuple[Positions, Place, Tips]
"""where to resume, and how far the journal of identities is durable; earlier versions kept no tips"""


class TooManyDeadLettersError(Exception):
    """Most of what arrives can't be accepted: something upstream is broken, and going on would bin the stream."""


class OrdersSource(FixedPartitionedSource[Partial, SlotState]):
    """The orders stream, cut into a fixed number of slots that read some of its partitions each."""

    def __init__(
        self,
        *,
        stream: Readable,
        slots: int,
        decoder: Decoder,
        recovery: RecoveryDirectory,
        dead_letters_writer: Callable[[], Writer],
        horizon_ms: int,
        poll_records: int,
        dead_letter_share: float,
        stopping: Callable[[], bool],
        telemetry: Telemetry,
    ) -> None:
        """Connects nothing yet.

        Args:
            stream: the orders.
            slots: how many.
            decoder: shared by all slots: the engine runs them in one thread.
            recovery: where identities are kept.
            dead_letters_writer: opens the dead letters stream for writing, once a slot.
            horizon_ms: how far back identities are remembered.
            poll_records: messages decoded in one piece.
            dead_letter_share: the share at which the slot stops with an error.
            stopping: asked before each run; True ends the source in order.
            telemetry: is told that the engine takes turns.
        """
        self._stream = stream
        self._slots = slots
        self._decoder = decoder
        self._summarise = summarising(compiled=decoder.compiled)
        self._recovery = recovery
        self._dead_letters_writer = dead_letters_writer
        self._horizon_ms = horizon_ms
        self._poll_records = poll_records
        self._dead_letter_share = dead_letter_share
        self._stopping = stopping
        self._telemetry = telemetry

    def list_parts(self) -> list[str]:
        """Every slot can be read from here."""
        return [f"slot-{index}" for index in range(self._slots)]

    def build_part(self, step_id: str, for_part: str, resume_state: SlotState | None) -> "Slot":  # noqa: ARG002  # the engine's signature
        """Opens one slot where its snapshot left off; new partitions begin at their oldest message."""
        self._recovery.must_resume(found=resume_state is not None, what="stream's positions")
        index = int(for_part.removeprefix("slot-"))
        resumed, durable = resume_state[:2] if resume_state else ({}, None)
        tips = resume_state[2] if resume_state and len(resume_state) == 3 else {}
        mine = self._stream.partitions()[index :: self._slots]
        after: Positions = {**dict.fromkeys(mine), **resumed}
        return Slot(
            name=for_part,
            stream=self._stream,
            after=after,
            mine=slice(index, None, self._slots),
            reader=self._stream.packed_reader(after, tips),
            decoder=self._decoder,
            summarise=self._summarise,
            dedup=Dedup(
                Journal(self._recovery.identities(for_part)),
                horizon_ms=self._horizon_ms,
                resident_bytes=RESIDENT_BYTES // self._slots,
                upto=durable,
            ),
            dead_letters_writer=self._dead_letters_writer(),
            poll_records=self._poll_records,
            watch=DeadLetterWatch(self._dead_letter_share),
            stopping=self._stopping,
            telemetry=self._telemetry,
        )


class DeadLetterWatch:
    """Counts dead letters among the last messages."""

    def __init__(self, share: float) -> None:
        self._share = share
        self._runs: deque[tuple[int, int]] = deque()
        self._messages = 0
        self._dead = 0

    def note(self, messages: int, dead: int) -> None:
        """Counts one run.

        Raises:
            TooManyDeadLettersError: the share is above its limit, over at least WATCHED_MESSAGES messages.
        """
        if not messages:
            return
        self._runs.append((messages, dead))
        self._messages += messages
        self._dead += dead
        while self._messages - self._runs[0][0] >= WATCHED_MESSAGES:
            oldest_messages, oldest_dead = self._runs.popleft()
            self._messages -= oldest_messages
            self._dead -= oldest_dead
        if self._messages >= WATCHED_MESSAGES and self._dead > self._share * self._messages:
            raise TooManyDeadLettersError(
                f"{self._dead} of the last {self._messages} messages could not be accepted (DEAD_LETTER_SHARE is "
                f"{self._share}): look at the dead letters, mend the producer or the settings, and start again"
            )


class Slot(StatefulSourcePartition[Partial, SlotState]):
    """One slot at work. The engine calls it from one thread; `next_batch` never waits for messages."""

    def __init__(
        self,
        *,
        name: str,
        stream: Readable,
        after: Positions,
        mine: slice,
        reader: PackedReader,
        decoder: Decoder,
        summarise: Summarise,
        dedup: Dedup,
        dead_letters_writer: Writer,
        poll_records: int,
        watch: DeadLetterWatch,
        stopping: Callable[[], bool],
        telemetry: Telemetry,
    ) -> None:
        self._name = name
        self._stream_id = stream.id
        self._digits = stream.position_digits
        self._after = after
        self._mine = mine
        """which of the stream's partitions, in their natural order"""
        self._reader = reader
        self._decoder = decoder
        self._summarise = summarise
        self._dedup = dedup
        self._dead_letters = dead_letters_writer
        self._poll_records = poll_records
        self._watch = watch
        self._stopping = stopping
        self._telemetry = telemetry
        self._caught_up = False
        self._identities_bytes = 0
        self._message_bytes = 1
        """of the messages taken last, in the mean"""
        self._heartbeat_at = 0.0
        self._look_at = time.monotonic() + PARTITIONS_SECONDS

    def next_batch(self) -> list[Partial]:
        """Sums of the next run of messages; empty when there are none.

        Raises:
            StopIteration: the processor is asked to stop.
            StreamError: the stream is away for good, or has lost our position.
            TooManyDeadLettersError: see there.
        """
        if self._stopping():
            raise StopIteration
        self._telemetry.turn()
        now = time.monotonic()
        if now >= self._look_at:
            self._look_at = now + PARTITIONS_SECONDS
            self._take_on_new()
        partial = self._take(now)
        return [] if partial is None else [partial]

    def next_awake(self) -> datetime | None:
        """Soon, when there was nothing; at once otherwise."""
        return datetime.now(UTC) + timedelta(seconds=LOOK_SECONDS) if self._caught_up else None

    def snapshot(self) -> SlotState:
        """Where to resume; before it returns, identities and dead letters up to there are durable."""
        durable = self._dedup.sync()
        self._identities_bytes = self._dedup.resident_bytes()
        self._dead_letters.flush(FLUSH_SECONDS)
        return dict(self._after), durable, self._reader.tips()

    def close(self) -> None:
        """Gives back the connections."""
        self._reader.close()
        self._dead_letters.close()

    def _take_on_new(self) -> None:
        """Partitions that were added to the stream since, from their oldest message."""
        new = [name for name in self._reader.partitions()[self._mine] if name not in self._after]
        if not new:
            return
        try:
            self._reader.add(dict.fromkeys(new))
        except PositionLostError:
            raise
        except StreamError as fault:  # nothing was added; it is tried again
            log.warning(
                "partitions_not_added",
                "new partitions {partitions} can't be read yet: {error}",
                partitions=" ".join(new),
                error=fault,
            )
            return
        self._after.update(dict.fromkeys(new))
        log.info("partitions_added", "reading new partitions too: {partitions}", partitions=" ".join(new))

    def _polled(self) -> Iterator[Packed]:
        """What there is, up to so many messages and about TAKE_BYTES: as many messages as had room the last time."""
        taken, size = 0, 0
        most = min(self._poll_records, max(1, TAKE_BYTES // self._message_bytes))
        while taken < most and size < TAKE_BYTES and (runs := self._reader.poll(most - taken, 0)):
            for run in runs:
                taken += len(run)
                size += int(run.value_ends[-1] - run.value_starts[0])
                yield run
        if taken:
            self._message_bytes = size // taken + 1

    def _take(self, now: float) -> Partial | None:
        """Sums of the next messages; without any now and then a sum of nothing, with the lags."""
        decoded = self._decoder.decode(self._polled())
        runs = decoded.runs
        self._caught_up = not runs
        if not runs:
            if now < self._heartbeat_at:
                return None
            self._heartbeat_at = now + HEARTBEAT_SECONDS
        columns = decoded.columns
        times = columns.orders[c.EVENT_TIME]
        words = columns.orders.view(np.uint64)
        marks = np.concatenate([np.zeros(0, np.uint64), *(_marks(run.positions) for run in runs)])[
            columns.orders[c.ROW]
        ]
        verdicts = self._dedup.admit(
            times, identities(words[c.ID_LOW], words[c.ID_HIGH], times, self._decoder.contents(columns), marks)
        )
        rejected = decoded.rejected
        if (verdicts == Verdict.CONFLICT).any():
            rejected = rejected + _conflicts(columns, verdicts == Verdict.CONFLICT, runs)
        self._send(rejected)
        self._watch.note(sum(map(len, runs)), len(rejected))
        accepted = columns.take(verdicts == Verdict.ACCEPTED)
        origins = [Origin(self._path(run.partition), run.positions, self._digits) for run in runs]
        partial = self._summarise(accepted, self._decoder.dictionaries, origins)
        self._decoder.bound()
        counts = partial.counts
        counts["accepted"] = len(accepted)
        counts["duplicates"] = int((verdicts == Verdict.DUPLICATE).sum())
        counts["dead_letters"] = len(rejected)
        for _, rejection in rejected:
            name = f"dead_letters:{rejection.reason}"
            counts[name] = counts.get(name, 0) + 1
        partial.readings.append(
            Reading(
                slot=self._name,
                messages=sum(map(len, runs)),
                scanned=decoded.scanned,
                broker_times={self._path(run.partition): int(run.broker_times[-1]) for run in runs},
                identities_bytes=self._identities_bytes,
            )
        )
        self._after.update((run.partition, int(run.positions[-1])) for run in runs)
        lags = self._reader.lag()  # of what is read: a shard that has ended and expired is not among them
        self._caught_up = all(lag == 0 for lag in lags.values())
        partial.lags.update((self._path(name), lag) for name, lag in lags.items())
        return partial

    def _path(self, partition: str) -> str:
        return f"{self._stream_id}/{partition}"

    def _send(self, rejected: Sequence[tuple[Packed, Rejection]]) -> None:
        if not rejected:
            return
        letters = [
            dead_letters.dead_letter(
                rejection,
                stream=self._stream_id,
                partition=run.partition,
                position=format_position(rejection.position, self._digits),
            )
            for run, rejection in rejected
        ]
        keys, values = zip(*map(dead_letters.encode, letters), strict=True)
        self._dead_letters.write(keys, values)


def _marks(positions: Sequence[int] | Int64s) -> Uint64s:
    """64 bits of each position: the position itself, or its 186 bits folded (Kinesis)."""
    if isinstance(positions, np.ndarray):
        return positions.view(np.uint64)
    folded = [(position ^ position >> 64 ^ position >> 128) & (2**64 - 1) for position in positions]
    return np.array(folded, dtype=np.uint64)


def _conflicts(
    columns: Columns, in_conflict: np.typing.NDArray[np.bool_], runs: Sequence[Packed]
) -> list[tuple[Packed, Rejection]]:
    """A rejection for each event whose identity was taken by other content."""
    starts = np.cumsum([0, *map(len, runs)])
    rejected = []
    for row in columns.orders[c.ROW][in_conflict].tolist():
        which = int(np.searchsorted(starts, row, side="right")) - 1
        run, number = runs[which], row - int(starts[which])
        order_id = (run.key(number) or b"").decode()
        rejection = Rejection(
            position=int(run.positions[number]),
            broker_time=int(run.broker_times[number]),
            key=run.key(number),
            value=run.value(number),
            reason="conflict",
            detail=f"order {order_id!r} with this event time came before with other content",
        )
        rejected.append((run, rejection))
    return rejected
