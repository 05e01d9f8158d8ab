"""The hot path on Kafka: librdkafka through confluent-kafka.

Its clients fetch, compress and retry in native threads; what costs here is each call into Python, so records are taken
as lists and turned into columns without a Python function per record.
"""

import logging
import re
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from sales.events import Log
from sales.settings import StreamSettings
from sales.streams import AwayError, Chunk, PositionLostError, StreamError
from sales.streams.closing import Closing
from sales.streams.kafka_watched import Watched
from sales.streams.seldom import Seldom

log = Log(__name__)

TAKE = 500
"""Records per call into librdkafka: a small list is emptied while still in the processor's cache; 500 at a time was
twice as fast as 10,000."""

PREFETCH_KBYTES = 65_536
"""What one consumer may hold ahead of its reader."""

SESSION_SECONDS = 15.0
"""A member that is silent this long has lost its partitions: how long they wait when a process was killed. The client's
own 45 s keep them waiting for most of a minute; heartbeats come every 3 s, from a thread of their own."""

COMMIT_SECONDS = 15.0
"""How long a commit may take: a coordinator that moves to another broker needs some seconds."""

WRITE_SECONDS = 60.0
"""How long ``write`` waits for room in the queue."""

DELIVERY_SECONDS = 120.0
"""How long librdkafka retries a record before it is refused for good; its own default is 300."""

CLOSE_SECONDS = 10.0

QUEUE_RECORDS = 100_000
QUEUE_KBYTES = 131_072

LARGEST_RECORD_BYTES = 1_048_576
"""What the producer takes, a little less than what a broker takes by default, headers included."""


def librdkafka_settings(settings: StreamSettings) -> dict[str, Any]:
    """What every client needs: where the brokers are and how to speak to them."""
    config: dict[str, Any] = {
        "bootstrap.servers": settings.kafka_bootstrap_servers,
        "client.id": "tillstream",
        "security.protocol": settings.kafka_security_protocol,
        "error_cb": _note,
        "logger": _librdkafka,
    }
    if settings.kafka_security_protocol.startswith("SASL"):
        config["sasl.mechanism"] = settings.kafka_sasl_mechanism
        config["sasl.username"] = settings.kafka_sasl_username
        config["sasl.password"] = settings.kafka_sasl_password.get_secret_value()
    if settings.kafka_ssl_ca_file:
        config["ssl.ca.location"] = settings.kafka_ssl_ca_file
    if settings.kafka_ssl_certificate_file:
        config["ssl.certificate.location"] = settings.kafka_ssl_certificate_file
        config["ssl.key.location"] = settings.kafka_ssl_key_file
        config["ssl.key.password"] = settings.kafka_ssl_key_password.get_secret_value()
    return config


def probe(config: dict[str, Any], where: str, seconds: float) -> None:
    """Asks for the cluster's brokers, once.

    Raises:
        AwayError: none answered in time; with the reason that the last one gave.
        StreamError: they don't let us in, or the settings can't be used: no use in asking again.
    """
    told: list[KafkaError] = []
    try:
        admin = AdminClient(config | {"error_cb": told.append})
    except KafkaException as fault:
        raise StreamError(
            f"Kafka's client refuses its settings: {_about_files(fault.args[0].str(), config)}"
        ) from fault
    deadline = time.monotonic() + seconds
    while True:
        try:
            admin.list_topics(timeout=min(1.0, seconds))
        except KafkaException as fault:
            admin.poll(0)  # the callback runs in here
            for why in told:
                if why.code() in (KafkaError._AUTHENTICATION, KafkaError._SSL) or _REFUSAL.search(why.str()):
                    raise StreamError(f"Kafka at {where} does not let us in: {why.str()}") from fault
            if time.monotonic() >= deadline:
                reasons = [why.str() for why in told if why.code() != KafkaError._ALL_BROKERS_DOWN]
                if told and not reasons:  # a broker that can't be reached gives one
                    protocol = config["security.protocol"]
                    reasons = [f"the far side hangs up: does it speak KAFKA_SECURITY_PROTOCOL={protocol} there?"]
                raise AwayError(reasons[-1] if reasons else str(fault)) from fault
        else:
            return


_REFUSAL = re.compile(r"alert\b.*(certificate|unknown ca)", re.IGNORECASE)
"""How a broker says in TLS 1.3 that it wants a certificate, or another one: the client takes it for a lost
connection."""

_FILES = {
    "ssl.key.location": ("KAFKA_SSL_KEY_FILE", "a PEM file with a key, and KAFKA_SSL_KEY_PASSWORD what opens it"),
    "ssl.certificate.location": ("KAFKA_SSL_CERTIFICATE_FILE", "a PEM file with a certificate"),
    "ssl.ca.location": ("KAFKA_SSL_CA_FILE", "a PEM file with authorities"),
}


def _about_files(fault: str, config: Mapping[str, Any]) -> str:
    """The client's words, and which of our files they are about; of the authorities it says too little to tell."""
    for name, (setting, wanted) in _FILES.items():
        if config.get(name) and (name in fault or name == "ssl.ca.location"):
            return f"{fault} (is {setting}, {config[name]}, {wanted}?)"
    return fault


_seldom = Seldom()


def _note(fault: KafkaError) -> None:
    """Connections that come and go; librdkafka mends them. Fatal faults come back as results of the calls."""
    if _seldom.due(fault.name()):
        log.warning("kafka_fault", "Kafka: {error}", error=fault.str())


def _worth_a_line(record: logging.LogRecord) -> bool:
    """The client says ``FACILITY [client] [thread]: ...``; ``_note`` tells of faults of connections already."""
    facility = record.getMessage().partition(" ")[0]
    return facility not in _CONNECTION_FACILITIES and _seldom.due(facility)


_CONNECTION_FACILITIES = {"FAIL", "ERROR"}

_librdkafka = logging.getLogger(f"{__name__}.librdkafka")
_librdkafka.addFilter(_worth_a_line)


_CONSUMER = {
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    "auto.offset.reset": "error",
    "isolation.level": "read_committed",
    "enable.partition.eof": False,
    "allow.auto.create.topics": False,
    "queued.max.messages.kbytes": PREFETCH_KBYTES,
    # With the default of 1000 ms a reader that empties the queue faster than that waits for nothing.
    "fetch.queue.backoff.ms": 10,
    # A request that waits for new records holds up what a seek, or the end of a pause, asks of the same broker.
    "fetch.wait.max.ms": 100,
    # How soon a member hears that the group changes.
    "heartbeat.interval.ms": 1000,
    # How soon a member hears of new partitions.
    "topic.metadata.refresh.interval.ms": 60_000,
}


_PASSING = {
    KafkaError._TRANSPORT,
    KafkaError._ALL_BROKERS_DOWN,
    KafkaError._TIMED_OUT,
    KafkaError._RESOLVE,
    KafkaError._MAX_POLL_EXCEEDED,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.REQUEST_TIMED_OUT,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError.NOT_COORDINATOR,
    KafkaError.REBALANCE_IN_PROGRESS,
}
"""Faults that librdkafka mends by itself; after too long a pause between polls it joins its group again."""


def last_records(
    config: dict[str, Any], topic: str, starts: Mapping[int, int], seconds: float
) -> dict[int, int | None]:
    """Position of the last record at or after each start; None: none there, only marks of transactions.

    Raises:
        StreamError: the partitions' ends were not reached in time.
    """
    last: dict[int, int | None] = dict.fromkeys(starts)
    reading = set(starts)
    deadline = time.monotonic() + seconds
    consumer = _consumer({"group.id": "tillstream-reader"} | config | _CONSUMER | {"enable.partition.eof": True})
    try:
        consumer.assign([TopicPartition(topic, number, offset) for number, offset in starts.items()])
        while reading:
            for message in consumer.consume(TAKE, 0.05):
                fault = message.error()
                number = message.partition()
                if fault is None:
                    last[number or 0] = message.offset()
                elif fault.code() == KafkaError._PARTITION_EOF:
                    reading.discard(number)
                elif fault.code() not in _PASSING:
                    raise StreamError(f"{topic} does not tell where it ends: {fault.str()}")
            if reading and time.monotonic() > deadline:
                raise StreamError(f"the end of {topic} was not reached in {seconds:.0f} s")
    except KafkaException as fault:
        raise StreamError(f"{topic} does not tell where it ends: {fault}") from fault
    finally:
        consumer.close()
    return last


def _consumer(config: dict[str, Any]) -> Consumer:
    try:
        return Consumer(config)
    except KafkaException as fault:
        raise StreamError(f"Kafka's client refuses its settings: {fault}") from fault


class ConfluentReader:
    """Reads partitions that the caller names, from the offsets it names; ``watched`` tells of the topic; ``starts_of``
    finds the offsets of positions."""

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
        self._taken: dict[int, Chunk] = {}
        """what the running poll has got so far"""
        self._failure: StreamError | None = None
        self._closed = False
        # librdkafka asks for a group id even where no group is used: nothing is ever committed under it.
        self._consumer = _consumer({"group.id": "tillstream-reader"} | _CONSUMER | config)
        self._begin(starts)

    def _begin(self, starts: Mapping[int, int]) -> None:
        self._consumer.assign([TopicPartition(self._topic, number, offset) for number, offset in starts.items()])
        self._next = dict(starts)

    def partitions(self) -> list[str]:
        """As the cluster was last asked."""
        return self._watched.partitions()

    def add(self, after: Mapping[str, int | None]) -> None:
        """Asks the cluster whether the positions are there, and reads on; what was fetched ahead stays."""
        fresh = {name: position for name, position in after.items() if int(name) not in self._next}
        starts = self._starts_of(fresh)
        try:
            self._consumer.incremental_assign([TopicPartition(self._topic, *start) for start in starts.items()])
        except KafkaException as fault:
            raise StreamError(f"Kafka's client does not take on partitions of {self._topic}: {fault}") from fault
        self._next.update(starts)

    def poll(self, max_records: int, timeout: float) -> list[Chunk]:
        """The next records; waits for the first one only, at most ``timeout`` seconds.

        An error stays: what was fetched together with it is not handed out, so going on would leave a gap.
        """
        self._watched.partitions()
        self._check()
        self._taken = {}
        room = max_records
        wait = 0.0
        while room > 0:
            # Without waiting first: consume() with a timeout returns when it has all it asked for, or at the end of
            # the timeout.
            messages = self._consume(min(room, TAKE) if wait == 0 else 1, wait)
            if messages:
                room -= len(messages)
                self._sort(messages)
                wait = 0.0
            elif not self._taken and wait == 0 and timeout > 0:
                self._check()
                wait = timeout
            else:
                break
        if not self._taken:
            self._check()
        return list(self._taken.values())

    def _consume(self, count: int, wait: float) -> list[Message]:
        """Messages, and in here a member's callbacks."""
        try:
            return self._consumer.consume(count, wait)
        except KafkaException as fault:
            self._failure = StreamError(f"reading {self._topic} failed: {fault}")
            raise self._failure from fault
        except RuntimeError as fault:
            if self._closed:
                raise StreamError(f"the reader of {self._topic} is closed") from fault
            self._failure = StreamError(f"reading {self._topic} was ended by an error before: {fault}")
            raise
        except BaseException as fault:
            self._failure = StreamError(f"reading {self._topic} was ended by an error before: {fault!r}")
            raise

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _sort(self, messages: list[Message]) -> None:
        """Appends messages to their partitions' columns."""
        if any(map(Message.error, messages)):
            messages = self._without_errors(messages)
        for number, run in groupby(messages, Message.partition):
            if number is None:
                continue
            some = list(run)
            chunk = self._taken.get(number)
            if chunk is None:
                chunk = self._taken[number] = Chunk(str(number), [], [], [], [])
            chunk.keys.extend([message.key() for message in some])
            chunk.values.extend([message.value() or b"" for message in some])
            chunk.positions.extend([message.offset() or 0 for message in some])
            chunk.broker_times.extend([time for _, time in map(Message.timestamp, some)])
            self._next[number] = chunk.positions[-1] + 1

    def _without_errors(self, messages: list[Message]) -> list[Message]:
        """Keeps records; what tells of a fault that won't mend itself becomes this reader's failure."""
        records = []
        for message in messages:
            fault = message.error()
            if fault is None:
                records.append(message)
            elif fault.code() in (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE):
                self._failure = PositionLostError(
                    f"{self._topic}/{message.partition()} has no more what comes next: {fault.str()}"
                )
            elif fault.code() in _PASSING:
                _note(fault)
            else:
                self._failure = StreamError(f"reading {self._topic} failed: {fault.str()}")
        return records

    def lag(self) -> dict[str, int | None]:
        """Records up to the end that the last fetch heard of."""
        if self._closed:
            return {}
        lags: dict[str, int | None] = dict.fromkeys(map(str, self._next))
        for number, position in {} if self._watched.is_silent() else self._next.items():
            _, high = self._consumer.get_watermark_offsets(TopicPartition(self._topic, number), cached=True)
            if high >= 0:
                lags[str(number)] = max(0, high - position)
        return lags

    def close(self) -> None:
        """Leaves; for a member, callbacks run inside."""
        if not self._closed:
            self._closed = True
            self._consumer.close()


class ConfluentMember(ConfluentReader):
    """A member of a consumer group; partitions come and go one by one (cooperative rebalancing)."""

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
        self._arriving: dict[str, int | None] | None = None
        self._commit: _Commit | None = None
        self._rebalancing = False
        self._lost = False
        super().__init__(
            config
            | {
                "group.id": group,
                "partition.assignment.strategy": "cooperative-sticky",
                "session.timeout.ms": round(SESSION_SECONDS * 1000),
                "on_commit": _note_commit,
            },
            topic,
            {},
            watched=watched,
            starts_of=starts_of,
        )

    def _begin(self, starts: Mapping[int, int]) -> None:
        self._next = dict(starts)
        self._consumer.subscribe([self._topic], on_assign=self._assigned, on_revoke=self._revoked, on_lost=self._lose)

    def _assigned(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        committed = consumer.committed(partitions, timeout=COMMIT_SECONDS) if partitions else []
        for partition in committed:
            if partition.error is not None:
                raise StreamError(f"Kafka does not tell the committed offset: {partition.error.str()}")
        self._arriving = {str(found.partition): found.offset - 1 if found.offset >= 0 else None for found in committed}
        try:
            if self._arriving:
                self._on_assigned(dict(self._arriving))
            starts = self._starts_of(self._arriving)
        finally:
            self._arriving = None
        self._take_on(starts)

    def _take_on(self, starts: Mapping[int, int]) -> None:
        """Reads partitions that were assigned, from these offsets."""
        self._consumer.incremental_assign([TopicPartition(self._topic, *start) for start in starts.items()])
        self._next.update(starts)

    def _revoked(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._rebalancing = True
        try:
            self._give_back([partition.partition for partition in partitions])
        finally:
            self._rebalancing = False
            consumer.incremental_unassign(partitions)

    def _lose(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """The group did not hear of us for too long, and deals out our partitions."""
        self._lost = True
        try:
            self._revoked(consumer, partitions)
        finally:
            self._lost = False

    def _give_back(self, numbers: Iterable[int]) -> None:
        held = [number for number in numbers if number in self._next]
        try:
            if held:
                self._on_revoked([str(number) for number in held])
        finally:
            self._drop(held)

    def _drop(self, numbers: Iterable[int]) -> None:
        """Forgets partitions, and what the running poll has of them: another member reads it again."""
        for number in numbers:
            del self._next[number]
            self._taken.pop(number, None)

    def commit(self, positions: Mapping[str, int]) -> None:
        """Commits the offsets after these positions, and waits for the answer. Inside ``on_revoked`` it only sends
        them, and a refusal is a line on the log: whoever reads next then reads again."""
        if not positions:
            return
        for name in positions:
            self._own(name)
        if self._lost:
            raise StreamError(f"the partitions of {self._topic} are another member's by now")
        offsets = [TopicPartition(self._topic, int(name), position + 1) for name, position in positions.items()]
        if self._rebalancing:
            # Nobody can wait here: the answer would come through this callback's own thread, and the client lets no
            # other thread in. But the coordinator hears of it before it hears that we gave the partitions back.
            try:
                self._consumer.commit(offsets=offsets, asynchronous=True)
            except KafkaException as fault:
                raise StreamError(f"Kafka did not take the commit: {fault}") from fault
            return
        self._await_commit()
        self._commit = _Commit(self._consumer, offsets)
        refusal = self._await_commit()
        if refusal is not None:
            raise StreamError(f"Kafka did not take the commit: {refusal}")

    def _await_commit(self) -> str | None:
        """Waits for the last commit, and tells its fault; StreamError if it takes too long."""
        if self._commit is None:
            return None
        if not self._commit.ended.wait(COMMIT_SECONDS):
            raise StreamError(f"Kafka did not answer a commit for {self._topic} in {COMMIT_SECONDS:.0f} s")
        return self._commit.fault

    def close(self) -> None:
        """Gives every partition back and leaves the group."""
        if self._closed:
            return
        try:
            self._give_back(list(self._next))
        finally:
            if self._commit is not None and not self._commit.ended.is_set():
                # Closing under the feet of a commit is not safe. The group will miss us after a while.
                log.warning(
                    "kafka_group_left_silently",
                    "left the group of {stream} without a word: a commit is not answered",
                    stream=self._topic,
                )
                self._closed = True
            super().close()

    def pause(self, partition: str) -> None:
        """Stops fetching it; what was fetched ahead is dropped and fetched again later."""
        self._own(partition)
        self._consumer.pause([TopicPartition(self._topic, int(partition))])

    def resume(self, partition: str) -> None:
        """Goes on where the reader was."""
        self._own(partition)
        self._consumer.resume([TopicPartition(self._topic, int(partition))])

    def seek(self, partition: str, after: int | None) -> None:
        """Goes on after a position; asks the cluster whether it is there."""
        if self._arriving is not None and partition in self._arriving:
            self._arriving[partition] = after
            return
        self._own(partition)
        ((number, offset),) = self._starts_of({partition: after}).items()
        self._go_to(number, offset)

    def _go_to(self, number: int, offset: int) -> None:
        try:
            self._consumer.seek(TopicPartition(self._topic, number, offset))
        except KafkaException as fault:
            raise StreamError(f"Kafka's client does not seek in {self._topic}/{number}: {fault}") from fault
        self._next[number] = offset

    def _own(self, partition: str) -> None:
        if int(partition) not in self._next:
            raise StreamError(f"partition {partition} of {self._topic} is not assigned to this member")


def _commit(consumer: Consumer, offsets: list[TopicPartition]) -> str | None:
    """Commits and waits; what went wrong."""
    try:
        answers = consumer.commit(offsets=offsets, asynchronous=False)
    except (KafkaException, RuntimeError) as fault:
        return str(fault)
    return next((answer.error.str() for answer in answers or [] if answer.error is not None), None)


def _note_commit(fault: KafkaError | None, _: list[TopicPartition]) -> None:
    """The answer to a commit that nobody waited for."""
    if fault is not None:
        log.warning(
            "kafka_commit_refused",
            "Kafka did not take a commit, another member will read again: {error}",
            error=fault.str(),
        )


class _Commit:
    """A commit that is waited for in a thread: librdkafka repeats it without an end while the brokers are away."""

    def __init__(self, consumer: Consumer, offsets: list[TopicPartition]) -> None:
        self.ended = threading.Event()
        self.fault: str | None = None
        threading.Thread(target=self._run, args=(consumer, offsets), name="kafka-commit", daemon=True).start()

    def _run(self, consumer: Consumer, offsets: list[TopicPartition]) -> None:
        try:
            self.fault = _commit(consumer, offsets)
        finally:
            self.ended.set()


class ConfluentWriter(Closing):
    """An idempotent producer. After a refused record every call raises: open another writer to go on."""

    def __init__(self, config: dict[str, Any], topic: str) -> None:
        self._topic = topic
        self._failure: StreamError | None = None
        self._closed = False
        try:
            self._producer = Producer(
                config
                | {
                    "enable.idempotence": True,
                    "acks": "all",
                    "partitioner": "murmur2_random",
                    "linger.ms": 5,
                    "compression.type": "lz4",
                    "message.max.bytes": LARGEST_RECORD_BYTES,
                    "message.timeout.ms": round(DELIVERY_SECONDS * 1000),
                    "queue.buffering.max.messages": QUEUE_RECORDS,
                    "queue.buffering.max.kbytes": QUEUE_KBYTES,
                    "delivery.report.only.error": True,
                    "on_delivery": self._refused,
                }
            )
        except KafkaException as fault:
            raise StreamError(f"Kafka's client refuses its settings: {fault}") from fault

    def _refused(self, fault: KafkaError | None, message: Message) -> None:
        if fault is not None and self._failure is None:
            self._failure = StreamError(f"{self._topic}/{message.partition()} did not take a record: {fault.str()}")

    def write(self, keys: Sequence[bytes], values: Sequence[bytes]) -> None:
        """Queues records in order; waits for room."""
        self._check()
        if self._closed:
            raise StreamError(f"the writer of {self._topic} is closed")
        produce = self._producer.produce
        topic = self._topic
        for key, value in zip(keys, values, strict=True):
            try:
                produce(topic, value, key)
            except BufferError:
                self._produce_when_room(key, value)
            except KafkaException as fault:
                self._failure = StreamError(f"{topic} did not take a record: {fault}")
                raise self._failure from fault
        self._producer.poll(0)
        self._check()

    def _produce_when_room(self, key: bytes, value: bytes) -> None:
        deadline = time.monotonic() + WRITE_SECONDS
        while time.monotonic() < deadline:
            self._producer.poll(0.1)
            self._check()
            try:
                self._producer.produce(self._topic, value, key)
            except BufferError:
                continue
            return
        raise StreamError(f"{len(self._producer)} records for {self._topic} wait for {WRITE_SECONDS:.0f} s")

    def flush(self, timeout: float) -> None:
        """Waits until all is acknowledged."""
        waiting = self._producer.flush(timeout)
        self._check()
        if waiting:
            raise StreamError(f"{self._topic} did not acknowledge {waiting} records in {timeout:.0f} s")

    def unacknowledged(self) -> int:
        """The client's queue, once what it has to tell us is out of it."""
        self._producer.poll(0)
        return len(self._producer)

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure

    def close(self) -> None:
        """Flushes; what is not acknowledged then is dropped, and StreamError says so."""
        if self._closed:
            return
        self._closed = True
        try:
            self.flush(CLOSE_SECONDS)
        finally:
            self._producer.purge()
            self._producer.flush(1)
