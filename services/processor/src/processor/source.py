"""The source: from the orders stream to sums, one item a run of messages.

Decoding, dead letters and the memory of identities belong to the partition that a message came from, so they happen
here, on the source's side, and nothing but sums has to be exchanged.
"""

import logging
import time
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import numpy as np
import numpy.typing as npt
from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition

from processor.dedup import Dedup, Verdict
from processor.journal import Journal
from processor.panes import Partial, summarise
from processor.recovery import RecoveryDirectory
from sales import dead_letters
from sales.orders import Batch, decode
from sales.rejections import Rejection
from sales.rules import Rules
from sales.streams import Chunk, Reader, Stream, Writer, format_position

log = logging.getLogger(__name__)

IDLE_SECONDS = 0.005
"""How soon an empty stream is asked again: well below a tick."""

HEARTBEAT_SECONDS = 0.5
"""How often lags are told while nothing arrives."""

FLUSH_SECONDS = 60.0
"""How long a snapshot waits for dead letters to be acknowledged before the processor gives up and starts again."""

WATCHED_MESSAGES = 10_000
"""The share of dead letters is judged over this many messages."""

Positions = dict[str, int | None]
"""partition to the last position taken; None: none yet"""


class TooManyDeadLettersError(Exception):
    """Most of what arrives can't be accepted: something upstream is broken, and going on would bin the stream."""


class OrdersSource(FixedPartitionedSource[Partial, Positions]):
    """The orders stream, cut into a fixed number of slots that read some of its partitions each."""

    def __init__(
        self,
        *,
        stream: Stream,
        slots: int,
        rules: Rules,
        recovery: RecoveryDirectory,
        dead_letters_writer: Callable[[], Writer],
        horizon_ms: int,
        poll_records: int,
        dead_letter_share: float,
        stopping: Callable[[], bool],
    ) -> None:
        """Connects nothing yet.

        Args:
            stream: the orders.
            slots: how many.
            rules: what is accepted.
            recovery: where identities are kept.
            dead_letters_writer: opens the dead letters stream for writing, once a slot.
            horizon_ms: how far back identities are remembered.
            poll_records: messages decoded in one piece.
            dead_letter_share: the share at which the slot stops with an error.
            stopping: asked before each run; True ends the source in order.
        """
        self._stream = stream
        self._slots = slots
        self._rules = rules
        self._recovery = recovery
        self._dead_letters_writer = dead_letters_writer
        self._horizon_ms = horizon_ms
        self._poll_records = poll_records
        self._dead_letter_share = dead_letter_share
        self._stopping = stopping

    def list_parts(self) -> list[str]:
        """Every slot can be read from here."""
        return [f"slot-{index}" for index in range(self._slots)]

    def build_part(self, step_id: str, for_part: str, resume_state: Positions | None) -> "Slot":  # noqa: ARG002  # the engine's signature
        """Opens one slot where its snapshot left off; new partitions begin at their oldest message."""
        self._recovery.must_resume(found=resume_state is not None, what="stream's positions")
        index = int(for_part.removeprefix("slot-"))
        mine = [name for number, name in enumerate(self._stream.partitions()) if number % self._slots == index]
        after: Positions = {**dict.fromkeys(mine), **(resume_state or {})}
        dedup = Dedup(
            Journal(self._recovery.identities(for_part)), seed=self._recovery.owner.seed, horizon_ms=self._horizon_ms
        )
        return Slot(
            stream=self._stream,
            after=after,
            reader=self._stream.reader(after),
            dedup=dedup,
            rules=self._rules,
            dead_letters_writer=self._dead_letters_writer(),
            poll_records=self._poll_records,
            watch=DeadLetterWatch(self._dead_letter_share),
            stopping=self._stopping,
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


class Slot(StatefulSourcePartition[Partial, Positions]):
    """One slot at work. The engine calls it from one thread; `next_batch` never waits for messages."""

    def __init__(
        self,
        *,
        stream: Stream,
        after: Positions,
        reader: Reader,
        dedup: Dedup,
        rules: Rules,
        dead_letters_writer: Writer,
        poll_records: int,
        watch: DeadLetterWatch,
        stopping: Callable[[], bool],
    ) -> None:
        self._stream_id = stream.id
        self._digits = stream.position_digits
        self._after = after
        self._reader = reader
        self._dedup = dedup
        self._rules = rules
        self._dead_letters = dead_letters_writer
        self._poll_records = poll_records
        self._watch = watch
        self._stopping = stopping
        self._idle = False
        self._heartbeat_at = 0.0

    def next_batch(self) -> list[Partial]:
        """Sums of the next run of messages; empty when there are none.

        Raises:
            StopIteration: the processor is asked to stop.
            StreamError: the stream is away for good, or has lost our position.
            TooManyDeadLettersError: see there.
        """
        if self._stopping():
            raise StopIteration
        chunks = self._reader.poll(self._poll_records, 0)
        self._idle = not chunks
        if chunks:
            return [self._take(chunk) for chunk in chunks]
        if time.monotonic() < self._heartbeat_at:
            return []
        return [self._beat()]

    def next_awake(self) -> datetime | None:
        """Soon, when there was nothing; at once otherwise."""
        return datetime.now(UTC) + timedelta(seconds=IDLE_SECONDS) if self._idle else None

    def snapshot(self) -> Positions:
        """Where to resume; before it returns, identities and dead letters up to there are durable."""
        self._dedup.sync()
        self._dead_letters.flush(FLUSH_SECONDS)
        return dict(self._after)

    def close(self) -> None:
        """Gives back the connections."""
        self._reader.close()
        self._dead_letters.close()

    def _beat(self) -> Partial:
        self._heartbeat_at = time.monotonic() + HEARTBEAT_SECONDS
        nothing = decode(self._rules, [], [], [], []).accepted
        partial = summarise(nothing, partition="", position=None, position_digits=self._digits, last_broker_time=0)
        partial.lags.update(self._lags())
        return partial

    def _lags(self) -> dict[str, int | None]:
        known = self._reader.lag()
        return {f"{self._stream_id}/{name}": known.get(name) for name in self._after}

    def _take(self, chunk: Chunk) -> Partial:
        decoded = decode(self._rules, chunk.keys, chunk.values, chunk.positions, chunk.broker_times)
        batch = decoded.accepted
        verdicts = self._dedup.admit(batch.order_ids, batch.event_times, batch.contents, batch.positions)
        rejected = decoded.rejected + _conflicts(batch, verdicts, chunk)
        self._send(chunk.partition, rejected)
        self._watch.note(len(chunk), len(rejected))
        accepted = batch.take(verdicts == Verdict.ACCEPTED)
        partial = summarise(
            accepted,
            partition=f"{self._stream_id}/{chunk.partition}",
            position=chunk.positions[-1],
            position_digits=self._digits,
            last_broker_time=chunk.broker_times[-1],
        )
        counts = partial.counts
        counts["accepted"] = len(accepted)
        counts["duplicates"] = int((verdicts == Verdict.DUPLICATE).sum())
        counts["dead_letters"] = len(rejected)
        for rejection in rejected:
            name = f"dead_letters:{rejection.reason}"
            counts[name] = counts.get(name, 0) + 1
        partial.lags.update(self._lags())
        self._after[chunk.partition] = chunk.positions[-1]
        return partial

    def _send(self, partition: str, rejected: list[Rejection]) -> None:
        if not rejected:
            return
        letters = [
            dead_letters.dead_letter(
                rejection,
                stream=self._stream_id,
                partition=partition,
                position=format_position(rejection.position, self._digits),
            )
            for rejection in rejected
        ]
        keys, values = zip(*map(dead_letters.encode, letters), strict=True)
        self._dead_letters.write(keys, values)


def _conflicts(batch: Batch, verdicts: npt.NDArray[np.int8], chunk: Chunk) -> list[Rejection]:
    """A rejection for each event whose identity was taken by other content."""
    rows = np.flatnonzero(verdicts == Verdict.CONFLICT).tolist()
    place = {position: row for row, position in enumerate(chunk.positions)} if rows else {}
    return [
        Rejection(
            position=batch.positions[row],
            broker_time=chunk.broker_times[place[batch.positions[row]]],
            key=chunk.keys[place[batch.positions[row]]],
            value=chunk.values[place[batch.positions[row]]],
            reason="conflict",
            detail=f"order {batch.order_ids[row]!r} with this event time came before with other content",
        )
        for row in rows
    ]
