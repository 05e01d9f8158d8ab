"""Kafka without native code: kafka-python, for machines where librdkafka can't be had. Slower, the same answers."""

import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import takewhile
from typing import Any, ClassVar

from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.consumer.subscription_state import AsyncConsumerRebalanceListener
from kafka.coordinator.assignors.range import RangePartitionAssignor
from kafka.errors import (
    KafkaError,
    LogTruncationError,
    NoOffsetForPartitionError,
    OffsetOutOfRangeError,
    RetriableError,
)
from kafka.structs import OffsetAndMetadata

from sales.events import Log
from sales.settings import StreamSettings
from sales.streams import Chunk, PositionLostError, StreamError
from sales.streams.closing import Closing
from sales.streams.kafka_watched import Watched

log = Log(__name__)

ALL_RECORDS = 1_000_000
"""More than one answer of the brokers holds: those are bounded by bytes."""

METADATA_SECONDS = 60.0
"""How often the topic's partitions are asked for: how soon a member hears of new ones."""

SESSION_SECONDS = 90.0
"""A group waits this long for a member that is silent: longer than with librdkafka, because this client's heartbeat
stands still while ``on_revoked`` runs."""

SLICE_SECONDS = 0.1
"""A member looks this often for partitions that came while it waited: they are taken on between two polls."""

JOIN_SECONDS = 3.0
"""Every member hears within a second, the heartbeat's interval, that the group changes."""

COMMIT_SECONDS = 15.0

COMMIT_TRIES = 5
"""Of a commit inside ``on_revoked``."""

WRITE_SECONDS = 60.0
"""How long ``write`` waits for room in the queue."""

DELIVERY_SECONDS = 120.0
"""How long a record is retried before it is refused for good."""

CLOSE_SECONDS = 10.0

QUEUE_RECORDS = 20_000
QUEUE_BYTES = 64 * 1024 * 1024
"""What a writer may hold unacknowledged; this client has no bound of its own."""

LARGEST_RECORD_BYTES = 1_048_576


def kafka_python_settings(settings: StreamSettings) -> dict[str, Any]:
    """What every client needs: where the brokers are and how to speak to them."""
    config: dict[str, Any] = {
        "bootstrap_servers": settings.kafka_bootstrap_servers.split(","),
        "client_id": "tillstream",
        "security_protocol": settings.kafka_security_protocol,
    }
    if settings.kafka_security_protocol.startswith("SASL"):
        config["sasl_mechanism"] = settings.kafka_sasl_mechanism
        config["sasl_plain_username"] = settings.kafka_sasl_username
        config["sasl_plain_password"] = settings.kafka_sasl_password.get_secret_value()
    if settings.kafka_ssl_ca_file:
        config["ssl_cafile"] = settings.kafka_ssl_ca_file
    if settings.kafka_ssl_certificate_file:
        config["ssl_certfile"] = settings.kafka_ssl_certificate_file
        config["ssl_keyfile"] = settings.kafka_ssl_key_file
        config["ssl_password"] = settings.kafka_ssl_key_password.get_secret_value()  # never None: Python would ask
    return config


class Fetching:
    """What a reader is besides ``poll``: fetches partitions that the caller names, from the offsets it names;
    ``watched`` tells of the topic; ``starts_of`` finds the offsets of positions."""

    settings: ClassVar[dict[str, Any]] = {
        "enable_auto_commit": False,
        "auto_offset_reset": "none",
        "isolation_level": "read_committed",
        "allow_auto_create_topics": False,
        "fetch_max_wait_ms": 100,
        "heartbeat_interval_ms": 1000,
        "metadata_max_age_ms": round(METADATA_SECONDS * 1000),
        # The broker has checked what it took; without native code the sums would cost more than everything else.
        "check_crcs": False,
    }

    def __init__(
        self,
        config: dict[str, Any],
        topic: str,
        starts: Mapping[int, int],
        *,
        watched: Watched,
        starts_of: Callable[[Mapping[str, int | None]], dict[int, int]],
    ) -> None:
        self._topic = topic
        self._watched = watched
        self._starts_of = starts_of
        self._next: dict[int, int] = {}
        self._waiting: dict[int, list[Any]] = {}
        """what is fetched and not handed out"""
        self._paused: set[int] = set()
        self._closed = False
        try:
            self._consumer = KafkaConsumer(**(config | self.settings))
        except KafkaError as fault:
            raise StreamError(f"Kafka's client does not start: {fault}") from fault
        self.begin(starts)

    def begin(self, starts: Mapping[int, int]) -> None:
        """Reads these partitions too, each from an offset that is there; what was fetched of others stays."""
        self._consumer.assign([TopicPartition(self._topic, number) for number in {**self._next, **starts}])
        for number, offset in starts.items():
            self._consumer.seek(TopicPartition(self._topic, number), offset)
        self._next.update(starts)

    def end(self, numbers: Iterable[int]) -> None:
        """Reads these partitions no more, and drops what was fetched of them."""
        for number in numbers:
            self._drop(number)
        self._consumer.assign([TopicPartition(self._topic, number) for number in self._next])

    def go_to(self, number: int, offset: int) -> None:
        """Reads a partition on from an offset that is there, and drops what was fetched of it."""
        self._consumer.seek(TopicPartition(self._topic, number), offset)
        self._waiting.pop(number, None)
        self._next[number] = offset

    def pause(self, partition: str) -> None:
        """Stops fetching it; what is fetched already waits."""
        there = self._own(partition)
        self._paused.add(there.partition)
        self._consumer.pause(there)

    def resume(self, partition: str) -> None:
        """Goes on where the reader was."""
        there = self._own(partition)
        self._paused.discard(there.partition)
        self._consumer.resume(there)

    def _own(self, partition: str) -> TopicPartition:
        if int(partition) not in self._next:
            raise StreamError(f"partition {partition} of {self._topic} is not assigned to this member")
        return TopicPartition(self._topic, int(partition))

    def _drop(self, number: int) -> None:
        del self._next[number]
        self._waiting.pop(number, None)
        self._paused.discard(number)

    def partitions(self) -> list[str]:
        """As the cluster was last asked."""
        return self._watched.partitions()

    def add(self, after: Mapping[str, int | None]) -> None:
        """Asks the cluster whether the positions are there, and reads on; what was fetched ahead stays."""
        self.begin(self._starts_of({name: position for name, position in after.items() if int(name) not in self._next}))

    def _has_waiting(self) -> bool:
        return not self._paused.issuperset(self._waiting)

    def _fetch(self, wait: float) -> None:
        """Takes over all that the client has fetched. None must stay there: the client (3.0.12) forgets a partition
        that is paused when it holds some of its records, and never reads it again."""
        try:
            found = self._consumer.poll(round(wait * 1000), max_records=ALL_RECORDS)
        except (OffsetOutOfRangeError, NoOffsetForPartitionError, LogTruncationError) as fault:
            raise PositionLostError(f"{self._topic} no longer has what comes next: {fault}") from fault
        except RetriableError as fault:
            log.warning("kafka_fault", "Kafka: {error}", error=fault)
            return
        except KafkaError as fault:
            raise StreamError(f"reading {self._topic} failed: {fault}") from fault
        for partition, records in found.items():
            self._waiting.setdefault(partition.partition, []).extend(records)

    def lag(self) -> dict[str, int | None]:
        """Records up to the end that the last fetch heard of."""
        lags: dict[str, int | None] = dict.fromkeys(map(str, self._next))
        for number, position in {} if self._watched.is_silent() else self._next.items():
            high = self._consumer.highwater(TopicPartition(self._topic, number))
            if high is not None:
                lags[str(number)] = max(0, high - position)
        return lags

    def close(self) -> None:
        """Leaves."""
        if not self._closed:
            self._closed = True
            self._consumer.close(timeout_ms=round(CLOSE_SECONDS * 1000))


class PurePythonReader(Fetching):
    """Reads partitions that the caller names."""

    def poll(self, max_records: int, timeout: float) -> list[Chunk]:
        """The next records; waits for the first one only, at most ``timeout`` seconds."""
        if self._closed:
            raise StreamError(f"the reader of {self._topic} is closed")
        self._watched.partitions()
        if not self._has_waiting():
            self._fetch(timeout)
        chunks: list[Chunk] = []
        room = max_records
        for number in list(self._waiting):
            if room == 0:
                break
            if number in self._paused:
                continue
            records = self._waiting.pop(number)
            if len(records) > room:
                self._waiting[number] = records[room:]  # at the back, so that a small max_records starves none
                records = records[:room]
            room -= len(records)
            chunks.append(self._chunk(number, records))
        return chunks

    def _chunk(self, number: int, records: list[Any]) -> Chunk:
        self._next[number] = records[-1].offset + 1
        return Chunk(
            str(number),
            [record.key for record in records],
            [record.value or b"" for record in records],
            [record.offset for record in records],
            [record.timestamp for record in records],
        )


class PurePythonMember(PurePythonReader):
    """A member of a consumer group. When the group changes, every partition is given back and dealt out anew: with
    cooperative rebalancing this client (3.0.12) joined over and over again in some trials, and could not leave.

    In two things it falls short of the port, while the group changes: ``poll`` may wait for JOIN_SECONDS whatever its
    timeout, because the client drops an answer of the group that comes between two polls and joins once more. And
    ``on_revoked`` runs on the client's own thread. The caller's waits in ``poll`` meanwhile, so the two never run
    together; but a commit in there is only queued, and acknowledged before the partitions are given away. One that
    fails then is a line on the log.
    """

    def __init__(
        self,
        config: dict[str, Any],
        topic: str,
        group: str,
        *,
        watched: Watched,
        starts_of: Callable[[Mapping[str, int | None]], dict[int, int]],
        on_assigned: Callable[[dict[str, int | None]], None],
        on_revoked: Callable[[list[str]], None],
    ) -> None:
        self._on_assigned = on_assigned
        self._on_revoked = on_revoked
        self._new: set[int] = set()
        """assigned, but not yet told to the caller"""
        self._joining = True
        """the group has not dealt out its partitions yet"""
        self._arriving: dict[str, int | None] = {}
        self._revoking: dict[TopicPartition, OffsetAndMetadata] | None = None
        """offsets to commit when ``on_revoked`` returns; None: it is not running"""
        self._callback_fault: BaseException | None = None
        group_config = {
            "group_id": group,
            "partition_assignment_strategy": (RangePartitionAssignor,),
            "session_timeout_ms": round(SESSION_SECONDS * 1000),
        }
        super().__init__(config | group_config, topic, {}, watched=watched, starts_of=starts_of)

    def begin(self, starts: Mapping[int, int]) -> None:  # noqa: ARG002 (the group deals them out later)
        """Joins the group."""
        self._consumer.subscribe([self._topic], listener=_Listener(self))
        # The member that deals out partitions does so from what it knows of the topic; before the first answer that is
        # nothing, and it would only deal again METADATA_SECONDS later.
        try:
            self._consumer.partitions_for_topic(self._topic)
        except KafkaError as fault:
            raise StreamError(f"Kafka does not describe topic {self._topic!r}: {fault}") from fault

    def _fetch(self, wait: float) -> None:
        started = time.monotonic()
        left = wait
        while True:
            try:
                super()._fetch(max(0.0, min(left, SLICE_SECONDS)))
            except StreamError:
                if self._callback_fault is not None:
                    raise self._callback_fault from None
                raise
            if self._new:
                self._take_on()
            left = started + (max(wait, JOIN_SECONDS) if self._joining else wait) - time.monotonic()
            if left <= 0 or self._has_waiting():
                return

    # The listener's side, on the client's thread.

    def arrive(self, partitions: set[TopicPartition]) -> None:
        """Holds new partitions until the caller's thread has been told of them."""
        self._joining = False
        self._consumer.pause(*partitions)
        for partition in partitions:
            self._consumer.seek(partition, 0)  # any offset: without one the client would look for a committed one
            self._new.add(partition.partition)

    async def leave(self, partitions: set[TopicPartition], *, lost: bool) -> None:
        """Tells the caller, and commits what it asked for, while the partitions are still ours."""
        self._joining = True
        numbers = [partition.partition for partition in partitions]
        self._new.difference_update(numbers)
        names = [str(number) for number in numbers if number in self._next]
        if self._closed or not names:
            return
        self._revoking = None if lost else {}
        try:
            self._on_revoked(names)
            if self._revoking:
                await self._commit_leaving(self._revoking)
        except BaseException as fault:
            self._callback_fault = fault
            raise
        finally:
            self._revoking = None
            for name in names:
                self._drop(int(name))

    async def _commit_leaving(self, offsets: dict[TopicPartition, OffsetAndMetadata]) -> None:
        for _ in range(COMMIT_TRIES):
            try:
                await self._consumer.commit_async(offsets)
            except RetriableError as fault:
                log.warning("kafka_commit_repeated", "Kafka did not take a commit, trying again: {error}", error=fault)
            except KafkaError as fault:
                log.warning(
                    "kafka_commit_refused",
                    "Kafka did not take a commit, another member will read again: {error}",
                    error=fault,
                )
                return
            else:
                return

    # The caller's side.

    def _take_on(self) -> None:
        """Tells the caller of new partitions and begins to read them."""
        numbers = sorted(self._new)
        committed = {number: self._committed(number) for number in numbers}
        self._arriving = {
            str(number): offset - 1 if offset is not None else None for number, offset in committed.items()
        }
        try:
            self._on_assigned(dict(self._arriving))
            starts = self._starts_of(self._arriving)
        finally:
            self._arriving = {}
        for number, offset in starts.items():
            partition = TopicPartition(self._topic, number)
            self._consumer.seek(partition, offset)
            self._consumer.resume(partition)
            self._next[number] = offset
        self._new.difference_update(numbers)

    def _committed(self, number: int) -> int | None:
        try:
            offset: int | None = self._consumer.committed(
                TopicPartition(self._topic, number), timeout_ms=round(COMMIT_SECONDS * 1000)
            )
        except KafkaError as fault:
            raise StreamError(f"Kafka does not tell the committed offset: {fault}") from fault
        return offset

    def commit(self, positions: Mapping[str, int]) -> None:
        """Commits the offsets after these positions, and waits for the answer."""
        for name in positions:
            self._own(name)
        offsets = {
            TopicPartition(self._topic, int(name)): OffsetAndMetadata(position + 1, "", -1)
            for name, position in positions.items()
        }
        if self._revoking is not None:
            self._revoking.update(offsets)
            return
        if not offsets:
            return
        try:
            self._consumer.commit(offsets, timeout_ms=round(COMMIT_SECONDS * 1000))
        except (KafkaError, RuntimeError) as fault:  # RuntimeError: on the client's thread, the partitions are lost
            raise StreamError(f"Kafka did not take the commit: {fault}") from fault

    def seek(self, partition: str, after: int | None) -> None:
        """Goes on after a position; asks the cluster whether it is there."""
        if partition in self._arriving:
            self._arriving[partition] = after
            return
        self._own(partition)
        ((number, offset),) = self._starts_of({partition: after}).items()
        self.go_to(number, offset)

    def close(self) -> None:
        """Gives every partition back, on the caller's thread, and leaves the group."""
        if self._closed:
            return
        try:
            held = [str(number) for number in self._next]
            if held:
                self._on_revoked(held)
        finally:
            super().close()


class _Listener(AsyncConsumerRebalanceListener):  # type: ignore[misc]  # the client ships no types
    """What the client calls when the group changes."""

    def __init__(self, member: PurePythonMember) -> None:
        self._member = member

    async def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:
        """Still ours while this runs."""
        await self._member.leave(revoked, lost=False)

    async def on_partitions_lost(self, lost: set[TopicPartition]) -> None:
        """Somebody else's already."""
        await self._member.leave(lost, lost=True)

    async def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        """All of them: those of before were given back first."""
        self._member.arrive(assigned)


class PurePythonWriter(Closing):
    """An idempotent producer. After a refused record every call raises: open another writer to go on."""

    def __init__(self, config: dict[str, Any], topic: str) -> None:
        self._topic = topic
        self._failure: StreamError | None = None
        self._closed = False
        self._waiting: deque[tuple[Any, int]] = deque()
        """futures of what is not known to be acknowledged, and sizes"""
        self._bytes = 0
        try:
            self._producer = KafkaProducer(
                **config,
                enable_idempotence=True,
                acks="all",
                linger_ms=5,
                batch_size=131_072,
                compression_type="lz4",
                delivery_timeout_ms=round(DELIVERY_SECONDS * 1000),
                max_block_ms=round(WRITE_SECONDS * 1000),
                max_request_size=LARGEST_RECORD_BYTES,
                allow_auto_create_topics=False,
            )
        except KafkaError as fault:
            raise StreamError(f"Kafka's client does not start: {fault}") from fault

    def write(self, keys: Sequence[bytes], values: Sequence[bytes]) -> None:
        """Queues records in order; waits for room."""
        self._forget_acknowledged()
        if self._closed:
            raise StreamError(f"the writer of {self._topic} is closed")
        deadline = time.monotonic() + WRITE_SECONDS
        for key, value in zip(keys, values, strict=True):
            size = len(key) + len(value)
            while len(self._waiting) >= QUEUE_RECORDS or (self._waiting and self._bytes + size > QUEUE_BYTES):
                self._await_oldest(deadline)
                self._forget_acknowledged()
            try:
                future = self._producer.send(self._topic, value, key)
            except KafkaError as fault:
                raise self._fail(fault) from fault
            self._waiting.append((future, size))
            self._bytes += size
        self._forget_acknowledged()

    def _forget_acknowledged(self) -> None:
        if self._failure is not None:
            raise self._failure
        while self._waiting and self._waiting[0][0].is_done:
            future, size = self._waiting.popleft()
            self._bytes -= size
            if future.failed():
                raise self._fail(future.exception)

    def _await_oldest(self, deadline: float) -> None:
        future, _ = self._waiting[0]
        try:
            future.get(timeout=max(0.0, deadline - time.monotonic()))
        except KafkaError as fault:
            if future.is_done:
                raise self._fail(fault) from fault
            raise StreamError(
                f"{len(self._waiting)} records for {self._topic} wait for {WRITE_SECONDS:.0f} s"
            ) from fault

    def _fail(self, fault: BaseException) -> StreamError:
        self._failure = StreamError(f"{self._topic} did not take a record: {fault}")
        return self._failure

    def flush(self, timeout: float) -> None:
        """Waits until all is acknowledged."""
        self._forget_acknowledged()
        try:
            self._producer.flush(timeout)
        except KafkaError as fault:
            self._forget_acknowledged()
            raise StreamError(
                f"{self._topic} did not acknowledge {len(self._waiting)} records in {timeout:.0f} s"
            ) from fault
        self._forget_acknowledged()

    def unacknowledged(self) -> int:
        """From the oldest on that is not acknowledged."""
        waiting = list(self._waiting)
        return len(waiting) - sum(1 for _ in takewhile(lambda entry: entry[0].is_done, waiting))

    def close(self) -> None:
        """Flushes; what is not acknowledged then is dropped, and StreamError says so."""
        if self._closed:
            return
        self._closed = True
        try:
            self.flush(CLOSE_SECONDS)
        finally:
            try:
                self._producer.close(timeout=1)
            except KafkaError as fault:
                log.warning(
                    "kafka_writer_not_closed",
                    "closing the writer of {stream}: {error}",
                    stream=self._topic,
                    error=fault,
                )
