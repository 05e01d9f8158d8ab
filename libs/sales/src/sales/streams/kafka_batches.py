"""The processor's hot path on Kafka: whole record batches, taken apart by compiled code. Needs numba.

kafka-python does what is not done for every record: connections, credentials, metadata, leaders that change, fetch
sessions, retries. It is kept from taking batches apart itself: its `Fetcher` makes an object for each answer of a
broker and asks that for records; here the object is an `Answer`, which gives batches.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from kafka import TopicPartition
from kafka.net.compat import KafkaNetClient
from kafka.net.manager import KafkaConnectionManager
from kafka.net.selector import NetworkSelector
from kafka.record import MemoryRecords

from sales.streams import StreamError
from sales.streams.kafka_python import Fetching
from sales.streams.kafka_records import Batch, Memory, batches_of, unpack
from sales.streams.kafka_watched import Watched
from sales.streams.packed import Packed

ANSWER_BYTES = 4 * 1024 * 1024
"""What one broker may send at once, or one batch that is larger. A reader holds at most two answers of each broker, as
they were sent (compressed): one that it hands out, and one that is on its way meanwhile; and of one run per partition
what was too much for the last ``poll``."""

PARTITION_BYTES = 1024 * 1024
"""What of an answer may be of one partition, so that a busy one leaves room for the others."""

RECEIVE_BYTES = 256 * 1024
"""What is taken from a socket at once; the client's own 4 KB cost a call of the system for a dozen orders."""

RUN_RECORDS = 4_096
"""A run takes in batches until it has so many: what is done once for a run weighs little then."""

RUN_BYTES = 2 * 1024 * 1024
"""A run takes in no further batch when it has so many, compressed: large records make short runs."""

LARGEST_RUN = 16_384
"""A batch with more records is handed out in pieces."""

CALL_SECONDS = 0.05
"""How long the client may go without a call while it waits for answers: what is not an answer shows that late."""


def _client(**config: Any) -> KafkaNetClient:
    net = NetworkSelector(**config)
    return KafkaNetClient(net=net, manager=_Connections(net, **config), **config)


class _Connections(KafkaConnectionManager):  # type: ignore[misc]  # the client ships no types
    """The client's connections, but they receive much at once."""

    async def _build_transport(self, *args: Any, **options: Any) -> Any:
        transport = await super()._build_transport(*args, **options)
        transport._sock = _WideSocket(transport._sock)
        return transport


class _WideSocket:
    """A socket that hands out as much as there is, whatever it is asked for."""

    def __init__(self, socket: Any) -> None:
        self._socket = socket

    def __getattr__(self, name: str) -> Any:
        return getattr(self._socket, name)

    def recv(self, _: int) -> bytes:
        """What has come, RECEIVE_BYTES at most."""
        received: bytes = self._socket.recv(RECEIVE_BYTES)
        return received


class BatchesReader(Fetching):
    """Reads partitions that the caller names; compiled code takes their records apart."""

    settings = Fetching.settings | {
        "fetch_max_bytes": ANSWER_BYTES,
        "max_partition_fetch_bytes": PARTITION_BYTES,
        "metrics_enabled": False,
        "kafka_client": _client,
    }

    _memory = Memory()
    """of all readers in the process: who reads with several has one run at a time in the processor's caches"""

    def __init__(
        self,
        config: dict[str, Any],
        topic: str,
        starts: Mapping[int, int],
        *,
        watched: Watched,
        starts_of: Callable[[Mapping[str, int | None]], dict[int, int]],
    ) -> None:
        self._rests: dict[int, Packed] = {}
        """of runs that were larger than what was asked for; the partition is in ``_waiting`` too"""
        self._fetched: dict[int, int] = {}
        """offsets behind what came, records or not"""
        self._failure: StreamError | None = None
        self._call_at = 0.0
        """when the client is called even if no answer has come"""
        self._asked = 0
        """brokers that owed an answer after the last call"""
        super().__init__(config, topic, starts, watched=watched, starts_of=starts_of)
        self._consumer._fetcher.PartitionRecords = self._answer

    def _answer(self, fetch_offset: int, partition: TopicPartition, records: MemoryRecords, **options: Any) -> "Answer":
        return Answer(fetch_offset, partition, records, fetched=self._fetched, **options)

    def poll(self, max_records: int, timeout: float) -> list[Packed]:
        """The next records; waits for the first one only, at most ``timeout`` seconds. An error stays."""
        if self._closed:
            raise StreamError(f"the reader of {self._topic} is closed")
        if self._failure is not None:
            raise self._failure
        try:
            self._watched.partitions()
            if not self._has_waiting():
                self._fetch(timeout)
            return self._hand_out(max_records)
        except StreamError as fault:
            self._failure = fault
            raise

    def _fetch(self, wait: float) -> None:
        """See `Fetching`. Where every broker still owes its answer a call would find nothing, and it costs a third of a
        millisecond, as it goes to the client's own thread and back: who asks a hundred times a second is spared it."""
        fetcher, now = self._consumer._fetcher, time.monotonic()
        owed = len(fetcher._nodes_with_pending_fetch_requests)
        if not wait and now < self._call_at and 0 < self._asked <= owed and not fetcher._completed_fetches:
            return
        super()._fetch(wait)
        self._call_at = now + CALL_SECONDS
        self._asked = len(fetcher._nodes_with_pending_fetch_requests)

    def _hand_out(self, room: int) -> list[Packed]:
        """One run of each partition that has some, while there is room."""
        runs = []
        for number in list(self._waiting):
            if room == 0:
                break
            if number in self._paused:
                continue
            run = self._next_run(number, min(room, LARGEST_RUN))
            if len(run):
                self._next[number] = int(run.positions[-1]) + 1
                runs.append(run)
                room -= len(run)
        return runs

    def _next_run(self, number: int, room: int) -> Packed:
        batches = self._waiting.pop(number)
        run = self._rests.pop(number, None)
        if run is None:
            taken = _batches_of_a_run(batches, room)
            try:
                run, taken = unpack(str(number), batches[:taken], self._next[number], self._memory)
            except StreamError as fault:
                raise StreamError(f"{self._topic}/{number}: {fault}") from fault
            batches = batches[taken:]
        if len(run) > room:
            run, self._rests[number] = run.cut(room)
        if batches or number in self._rests:
            self._waiting[number] = batches  # at the back, so that a busy partition starves none
        return run

    def go_to(self, number: int, offset: int) -> None:
        """See `Fetching`."""
        super().go_to(number, offset)
        self._forget(number)

    def _drop(self, number: int) -> None:
        super()._drop(number)
        self._forget(number)

    def _forget(self, number: int) -> None:
        self._rests.pop(number, None)
        self._fetched.pop(number, None)

    def lag(self) -> dict[str, int | None]:
        """Records up to the end that the last fetch heard of; ends of transactions count until they are fetched."""
        for number, offset in self._fetched.items():
            if number not in self._waiting:
                self._next[number] = offset
        return super().lag()

    def tips(self) -> dict[str, int]:
        """None: an offset stays valid when its record has expired."""
        return {}


def _batches_of_a_run(batches: Sequence[Batch], room: int) -> int:
    """How many batches to take for the next run: one at least."""
    records = size = 0
    for taken, batch in enumerate(batches):
        if taken and (records + batch.count > room or records >= RUN_RECORDS or size >= RUN_BYTES):
            return taken
        records += batch.count
        size += len(batch.records)
    return len(batches)


class Answer:
    """What a broker sent of one partition, as the client's `Fetcher` wants to see it: with whole batches for records.

    Leaves out what is no record: ends of transactions, and batches of those that were aborted.
    """

    def __init__(
        self,
        fetch_offset: int,
        partition: TopicPartition,
        records: MemoryRecords,
        *,
        fetched: dict[int, int],
        aborted_transactions: Iterable[Any] | None,
        on_drain: Callable[["Answer"], None],
        **_: Any,
    ) -> None:
        self.topic_partition = partition
        self.next_fetch_offset = fetch_offset
        self.leader_epoch = -1
        self.bytes_read = 0
        self._bytes: memoryview | None = memoryview(records._buffer)
        self._fetched = fetched
        self._on_drain = on_drain
        self._aborted = sorted((each.first_offset, each.producer_id) for each in aborted_transactions or ())

    def __bool__(self) -> bool:
        return self._bytes is not None

    def drain(self) -> None:
        """Forgets what is left."""
        if self._bytes is not None:
            self._bytes = None
            self._on_drain(self)

    def take(self, _: int) -> list[Batch]:
        """All batches that hold records, however many those are.

        Raises:
            StreamError: one of them is corrupt, or in a format of before Kafka 0.11.
        """
        if self._bytes is None:
            return []
        kept = []
        offset, epoch = self.next_fetch_offset, self.leader_epoch
        aborting: set[int] = set()
        try:
            for batch in batches_of(self._bytes):
                if self._holds_records(batch, aborting) and batch.count and batch.next_offset > offset:
                    kept.append(batch)
                offset, epoch = max(offset, batch.next_offset), batch.leader_epoch
        except StreamError as fault:
            there = self.topic_partition
            raise StreamError(f"{there.topic}/{there.partition}: {fault}") from fault
        self.bytes_read = len(self._bytes)
        self.next_fetch_offset, self.leader_epoch = offset, epoch
        self._fetched[self.topic_partition.partition] = offset
        self.drain()
        return kept

    def _holds_records(self, batch: Batch, aborting: set[int]) -> bool:
        """Whether a batch's records count; ``aborting`` are the producers whose transaction here was aborted."""
        if batch.producer_id >= 0:
            while self._aborted and self._aborted[0][0] < batch.next_offset:
                aborting.add(self._aborted.pop(0)[1])
            if batch.ends_aborted():
                aborting.discard(batch.producer_id)
            elif batch.is_transactional and batch.producer_id in aborting:
                return False
        return not batch.is_control
