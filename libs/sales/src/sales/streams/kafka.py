"""Kafka: topics are streams, offsets are positions.

Here is what is asked once in a while: administration, and where a topic begins and ends. What runs all the time is in
``kafka_confluent`` (librdkafka) or ``kafka_python`` (no native code), whichever ``KAFKA_CLIENT`` names; both put a
key's records into the same partition.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from importlib.util import find_spec
from typing import Any, TypeVar

from kafka import TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient, OffsetSpec
from kafka.errors import KafkaError, RetriableError, TopicAlreadyExistsError, UnknownTopicOrPartitionError, for_code

from sales.events import Log
from sales.settings import StreamSettings
from sales.streams import NO_TIPS, AwayError, Checkpoints, Chunk, Member, PositionLostError, Reader, StreamError, Writer
from sales.streams.kafka_confluent import (
    ConfluentMember,
    ConfluentReader,
    ConfluentWriter,
    last_records,
    librdkafka_settings,
    probe,
)
from sales.streams.kafka_python import PurePythonMember, PurePythonReader, PurePythonWriter, kafka_python_settings
from sales.streams.kafka_watched import Watched
from sales.streams.packed import PackedMember, PackedReader, Packing, PackingMember
from sales.streams.reaching import reach
from sales.streams.seldom import Seldom

log = Log(__name__)

POSITION_DIGITS = 20
"""An offset is a signed 64-bit number: at most 19 digits."""

INCARNATION_CHARACTERS = 8
"""Of a topic id's 32 (it is random): enough to tell a name's incarnations apart."""

BOOTSTRAP_SECONDS = 3.0
"""One try to reach a broker; tries are repeated."""

REQUEST_SECONDS = 15.0
"""How long a broker may take for one administrative answer, and how long a question is repeated."""

ASK_AGAIN_SECONDS = 0.2

WATCH_SECONDS = 10.0
"""How soon a reader hears that its topic was deleted."""

SETTLE_SECONDS = 30.0
"""How long a cluster may take to spread the news of a new or a deleted topic."""

HOUR_MS = 3_600_000

COMPILED = ("cramjam", "crc32c", "numba")
"""What reading whole batches needs."""

T = TypeVar("T")


class KafkaWire:
    """One Kafka cluster; one connection for questions to it, which several threads may use."""

    def __init__(self, settings: StreamSettings, admin: KafkaAdminClient) -> None:
        self._settings = settings
        self._admin = admin
        # One question at a time: the client's retries keep state that it does not guard.
        self._lock = threading.Lock()
        self._watched: dict[tuple[str, str], Watched] = {}
        self._watch_lock = threading.Lock()
        """guards the dictionary, and that there is one watching thread"""
        self._watch: threading.Thread | None = None
        self._closing = threading.Event()
        self._seldom = Seldom()

    @classmethod
    def connect(cls, settings: StreamSettings) -> "KafkaWire":
        """Reaches a broker within ``CONNECT_SECONDS``.

        Raises:
            AwayError: none answered.
            StreamError: it refused the credentials.
        """
        where = settings.kafka_bootstrap_servers
        clients_log = logging.getLogger("kafka")
        if clients_log.level == logging.NOTSET:
            # It tells of every try to reach a broker, several a second; what is away is said here and by the calls.
            clients_log.setLevel(logging.CRITICAL)

        def attempt() -> KafkaAdminClient:
            seconds = min(BOOTSTRAP_SECONDS, settings.connect_seconds)
            probe(librdkafka_settings(settings), where, seconds)
            return KafkaAdminClient(
                **kafka_python_settings(settings),
                bootstrap_timeout_ms=round(seconds * 1000),
                request_timeout_ms=round(REQUEST_SECONDS * 1000),
            )

        admin = reach("Kafka", where, settings.connect_seconds, (AwayError, KafkaError, OSError), attempt)
        return cls(settings, admin)

    def create(self, name: str, *, partitions: int, retention_hours: int) -> bool:
        """Creates the topic if it is not there, with the log's own time, and waits until every partition has a leader.

        One that is there already stays as it is; what differs from what was asked for is a warning on the log.

        Raises:
            StreamError: the cluster refused (rights, fewer brokers than ``REPLICATION_FACTOR``) or did not settle.
        """
        wanted = {"message.timestamp.type": "LogAppendTime", "retention.ms": str(retention_hours * HOUR_MS)}
        topic = {
            "num_partitions": partitions,
            "replication_factor": self._settings.replication_factor,
            "configs": wanted,
        }
        answer = self.ask(
            f"create topic {name!r}", lambda admin: admin.create_topics({name: topic}, raise_errors=False)
        )
        fault = answer["topics"][0]
        if fault["error_code"] == TopicAlreadyExistsError.errno:
            self._compare(name, partitions, wanted)
            return False
        if fault["error_code"]:
            raise StreamError(f"Kafka refuses to create topic {name!r}: {_words(fault)}")
        self.ask(
            f"wait for topic {name!r}",
            lambda admin: admin.wait_for_topics([name], timeout_ms=round(SETTLE_SECONDS * 1000)),
        )
        return True

    def _compare(self, name: str, partitions: int, wanted: dict[str, str]) -> None:
        present = self.describe(name)
        if present is not None and len(present["partitions"]) != partitions:
            log.warning(
                "topic_partitions_differ",
                "topic {stream!r} has {partitions} partitions, not {expected_partitions}",
                stream=name,
                partitions=len(present["partitions"]),
                expected_partitions=partitions,
            )
        resource = ConfigResource(ConfigResourceType.TOPIC, name, list(wanted))
        configs = self.ask(f"read the settings of topic {name!r}", lambda admin: admin.describe_configs([resource]))
        for key, value in wanted.items():
            found = configs["topic"][name].get(key, {}).get("value")
            if found != value:
                log.warning(
                    "topic_setting_differs",
                    "topic {stream!r} has {setting}={found}, not {expected}",
                    stream=name,
                    setting=key,
                    found=found,
                    expected=value,
                )

    def open(self, name: str) -> "KafkaStream":
        """The topic's present incarnation.

        Raises:
            StreamError: there is none of that name.
        """
        topic = self.describe(name)
        if topic is None:
            raise StreamError(
                f"Kafka at {self._settings.kafka_bootstrap_servers} has no topic {name!r}; "
                "`tillstream setup` creates it"
            )
        return KafkaStream(self, self._settings, name, topic["topic_id"])

    def delete(self, name: str) -> None:
        """Deletes the topic and waits until the cluster has forgotten it; no topic of that name is no error."""
        answer = self.ask(f"delete topic {name!r}", lambda admin: admin.delete_topics([name], raise_errors=False))
        fault = answer["topics"][0]
        if fault["error_code"] not in (0, UnknownTopicOrPartitionError.errno):
            raise StreamError(f"Kafka refuses to delete topic {name!r}: {_words(fault)}")
        deadline = time.monotonic() + SETTLE_SECONDS
        while self.describe(name) is not None:
            if time.monotonic() > deadline:
                raise StreamError(f"topic {name!r} is still there {SETTLE_SECONDS:.0f} s after it was deleted")
            time.sleep(0.05)

    def close(self) -> None:
        """Closes the connection for questions; readers and writers have their own."""
        self._closing.set()
        if self._watch is not None:
            self._watch.join(REQUEST_SECONDS)
        self._admin.close()

    def watch(self, name: str, topic_id: str) -> Watched:
        """What is known of this incarnation from now on. Asks the cluster once, for the first answer.

        The clients don't tell: of a deleted topic one hears nothing, and from one that was deleted and made again they
        read on at the old offset. So a thread asks the cluster every ``WATCH_SECONDS``.
        """
        found = _partitions(self.incarnation(name, topic_id))
        with self._watch_lock:
            watched = self._watched.setdefault((name, topic_id), Watched(found))
            watched.heard = time.monotonic()
            if self._watch is None:
                self._watch = threading.Thread(target=self._ask_for_topics, name="kafka-watch", daemon=True)
                self._watch.start()
        return watched

    def _ask_for_topics(self) -> None:
        while not self._closing.wait(WATCH_SECONDS):
            with self._watch_lock:
                there = [(key, watched) for key, watched in self._watched.items() if watched.lost is None]
            for (name, topic_id), watched in there:
                try:
                    watched.names = _partitions(self.incarnation(name, topic_id))
                    watched.heard = time.monotonic()
                except PositionLostError as fault:
                    watched.lost = fault
                except StreamError as fault:
                    if self._seldom.due("away"):
                        log.warning("kafka_away", "{error}; what reads and writes waits", error=fault)
                except Exception:  # a watch that ended would miss every deletion from then on
                    if self._seldom.due("unexpected"):
                        log.exception(
                            "kafka_watch_failed",
                            "asking for topic {stream!r} failed; it is asked for again",
                            stream=name,
                        )

    def incarnation(self, name: str, topic_id: str) -> dict[str, Any]:
        """What the cluster says of a topic.

        Raises:
            PositionLostError: it was deleted, or deleted and made again.
        """
        topic = self.describe(name)
        if topic is None or topic["topic_id"] != topic_id:
            raise PositionLostError(f"topic {name!r} with id {topic_id} is no more: it was deleted")
        return topic

    def describe(self, name: str) -> dict[str, Any] | None:
        """What the cluster says of a topic; None: not there."""
        topics = self.ask(f"describe topic {name!r}", lambda admin: admin.describe_topics([name]))
        topic: dict[str, Any] = topics[0]
        if topic["error_code"] == UnknownTopicOrPartitionError.errno:
            return None
        if topic["error_code"]:
            raise StreamError(f"Kafka does not describe topic {name!r}: {_words(topic)}")
        return topic

    def ask(self, what: str, question: Callable[[KafkaAdminClient], T]) -> T:
        """The answer to one administrative question; asked again for a while when the cluster is changing.

        Raises:
            StreamError: refused, or not answered in that time; says what was asked.
        """
        deadline = time.monotonic() + REQUEST_SECONDS
        while True:
            try:
                with self._lock:
                    return question(self._admin)
            except KafkaError as fault:
                if not isinstance(fault, RetriableError) or time.monotonic() > deadline:
                    where = self._settings.kafka_bootstrap_servers
                    raise StreamError(f"Kafka at {where} does not {what}: {fault}") from fault
            time.sleep(ASK_AGAIN_SECONDS)


class KafkaStream:
    """One incarnation of one topic."""

    def __init__(self, wire: KafkaWire, settings: StreamSettings, topic: str, topic_id: str) -> None:
        self._wire = wire
        self._settings = settings
        self._topic = topic
        self._topic_id = topic_id
        self._pure_python = settings.kafka_client == "kafka-python"

    @property
    def id(self) -> str:
        """Name and the first characters of the topic id."""
        return f"{self._topic}-{self._topic_id.replace('-', '')[:INCARNATION_CHARACTERS]}"

    @property
    def position_digits(self) -> int:
        """20."""
        return POSITION_DIGITS

    def partitions(self) -> list[str]:
        """The partitions' numbers, ascending.

        Raises:
            PositionLostError: the topic was deleted, or deleted and made again.
        """
        return _partitions(self._wire.incarnation(self._topic, self._topic_id))

    def ends(self) -> dict[str, int | None]:
        """The last record of each partition; reads backwards past what is no record (transaction markers)."""
        names = self.partitions()
        lows, highs = self._bounds(names)
        ends: dict[str, int | None] = dict.fromkeys(names)
        unknown = [name for name in names if lows[name] < highs[name]]
        back = 1
        while unknown:
            starts = {int(name): max(lows[name], highs[name] - back) for name in unknown}
            found = last_records(librdkafka_settings(self._settings), self._topic, starts, REQUEST_SECONDS)
            ends.update({str(number): position for number, position in found.items()})
            unknown = [name for name in unknown if ends[name] is None and starts[int(name)] > lows[name]]
            back *= 16
        return ends

    def committed(self, group: str, checkpoints: Checkpoints) -> dict[str, int | None]:  # noqa: ARG002 (Kafka keeps them)
        """The group's offsets; the cluster forgets them with the topic."""
        present = self.partitions()
        answer = self._wire.ask(
            f"tell how far group {group!r} is", lambda admin: admin.list_group_offsets({group: None})
        )
        offsets = {
            str(partition.partition): found.offset
            for partition, found in answer.get(group, {}).items()
            if partition.topic == self._topic
        }
        return {name: offset - 1 if (offset := offsets.get(name, -1)) >= 0 else None for name in present}

    def behind(self, after: Mapping[str, int | None]) -> dict[str, int | None]:
        """Up to the end of the log; what retention has removed does not count."""
        lows, highs = self._bounds(after)
        return {
            name: max(0, highs[name] - max(lows[name], 0 if position is None else position + 1))
            for name, position in after.items()
        }

    def reader(self, after: Mapping[str, int | None]) -> Reader:
        """A reader of its own, in no group.

        Raises:
            PositionLostError: retention has removed what comes after a position, or the topic is another by now.
        """
        starts = self.starts(after)
        if self._pure_python:
            return PurePythonReader(
                kafka_python_settings(self._settings),
                self._topic,
                starts,
                watched=self._watched(),
                starts_of=self.starts,
            )
        return ConfluentReader(
            librdkafka_settings(self._settings), self._topic, starts, watched=self._watched(), starts_of=self.starts
        )

    def packed_reader(
        self,
        after: Mapping[str, int | None],
        tips: Mapping[str, int] = NO_TIPS,  # noqa: ARG002 (an offset stays valid when its record has expired)
    ) -> PackedReader:
        """A reader of whole batches, whichever client is set; what ``reader`` gives, packed, where the package's extra
        ``compiled`` is not installed."""
        if not _compiled():
            return Packing(self.reader(after))
        from sales.streams.kafka_batches import BatchesReader  # noqa: PLC0415 (numba takes a second, and 100 MB)

        return BatchesReader(
            kafka_python_settings(self._settings),
            self._topic,
            self.starts(after),
            watched=self._watched(),
            starts_of=self.starts,
        )

    def member(
        self,
        group: str,
        checkpoints: Checkpoints,  # noqa: ARG002 (Kafka keeps a group's positions itself)
        on_assigned: Callable[[dict[str, int | None]], None],
        on_revoked: Callable[[list[str]], None],
    ) -> Member[Chunk]:
        """A member of a consumer group; its positions are the group's committed offsets."""
        if self._pure_python:
            return PurePythonMember(
                kafka_python_settings(self._settings),
                self._topic,
                group,
                watched=self._watched(),
                starts_of=self.starts,
                on_assigned=on_assigned,
                on_revoked=on_revoked,
            )
        return ConfluentMember(
            librdkafka_settings(self._settings),
            self._topic,
            group,
            watched=self._watched(),
            starts_of=self.starts,
            on_assigned=on_assigned,
            on_revoked=on_revoked,
        )

    def packed_member(
        self,
        group: str,
        checkpoints: Checkpoints,
        on_assigned: Callable[[dict[str, int | None]], None],
        on_revoked: Callable[[list[str]], None],
    ) -> PackedMember:
        """Owns as ``member`` does, and reads as ``packed_reader``; what ``member`` gives, packed, without librdkafka or
        where the package's extra ``compiled`` is not installed."""
        if self._pure_python or not _compiled():
            return PackingMember(self.member(group, checkpoints, on_assigned, on_revoked))
        from sales.streams.kafka_member import BatchesMember  # noqa: PLC0415 (see packed_reader)

        return BatchesMember(
            librdkafka_settings(self._settings),
            kafka_python_settings(self._settings),
            self._topic,
            group,
            watched=self._watched(),
            starts_of=self.starts,
            on_assigned=on_assigned,
            on_revoked=on_revoked,
        )

    def writer(self) -> Writer:
        """An idempotent producer that waits for all replicas."""
        if self._pure_python:
            return PurePythonWriter(kafka_python_settings(self._settings), self._topic)
        return ConfluentWriter(librdkafka_settings(self._settings), self._topic)

    def _watched(self) -> Watched:
        return self._wire.watch(self._topic, self._topic_id)

    def starts(self, after: Mapping[str, int | None]) -> dict[int, int]:
        """The offset to begin with, for each partition and position to begin after. Asks the cluster, so that no
        client ever decides by itself where to go when an offset is out of range."""
        present = self.partitions()
        for name in after:
            if name not in present:
                raise StreamError(f"stream {self.id} has no partition {name!r}")
        lows, highs = self._bounds(after)
        starts = {}
        for name, position in after.items():
            start = lows[name] if position is None else position + 1
            if start < lows[name]:
                raise PositionLostError(
                    f"retention removed records of {self.id}/{name}: "
                    f"asked for what comes after {position}, the oldest is {lows[name]}"
                )
            if start > highs[name]:
                raise PositionLostError(f"{self.id}/{name} ends before position {position}: it lost records")
            starts[int(name)] = start
        return starts

    def _bounds(self, names: Iterable[str]) -> tuple[dict[str, int], dict[str, int]]:
        """First offset, and the one past the last, of each partition."""
        partitions = [TopicPartition(self._topic, int(name)) for name in names]
        if not partitions:
            return {}, {}

        def offsets(spec: OffsetSpec) -> dict[str, int]:
            found = self._wire.ask(
                f"tell the bounds of {self.id}",
                lambda admin: admin.list_partition_offsets(dict.fromkeys(partitions, spec)),
            )
            return {str(partition.partition): answer.offset for partition, answer in found.items()}

        return offsets(OffsetSpec.EARLIEST), offsets(OffsetSpec.LATEST)


def _compiled() -> bool:
    """Whether whole batches can be read."""
    return all(map(find_spec, COMPILED))


def _partitions(topic: Mapping[str, Any]) -> list[str]:
    """The numbers of a described topic's partitions, ascending."""
    return [str(number) for number in sorted(partition["partition_index"] for partition in topic["partitions"])]


def _words(fault: Mapping[str, Any]) -> str:
    """A broker's answer, for people."""
    return str(fault.get("error_message") or for_code(fault["error_code"]).__name__)
