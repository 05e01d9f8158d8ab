"""A member of a group on Kafka's hot path. Who owns what, and what flows, are two clients' work.

librdkafka's consumer is the member: it joins and leaves, sends heartbeats from a thread of its own, keeps the group's
positions. It is told to pause whatever it is assigned, and fetches nothing. What it owns is read by a `BatchesReader`,
without a Python object for a record. To its group it is like any other member with librdkafka.

::

    group ◀──heartbeats, commits── librdkafka ──assigned, revoked──▶ caller, and the reader begins and ends
    topic ────────────────────── whole batches ────────────────────▶ reader ──runs──▶ caller
"""

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from confluent_kafka import Message, TopicPartition

from sales.streams.kafka_batches import BatchesReader
from sales.streams.kafka_confluent import TAKE, ConfluentMember
from sales.streams.kafka_watched import Watched
from sales.streams.packed import Packed

HEAR_SECONDS = 0.1
"""How late a change of the group is heard while a poll waits for records."""

_FETCHES_NOTHING = {
    # Until a pause has reached the threads of librdkafka they may ask for records once, which are then dropped: for
    # few, and a broker sends a whole batch at least.
    "queued.min.messages": 1,
    "queued.max.messages.kbytes": 1,
    "fetch.message.max.bytes": 1,
}


class BatchesMember:
    """A `PackedMember`. Callbacks run inside ``poll`` and ``close``, before what these then give out.

    Args:
        owning: settings of librdkafka.
        reading: settings of kafka-python, for the same brokers.
        topic: its name.
        group: the group's.
        watched: what is known of the topic.
        starts_of: finds the offsets of positions.
        on_assigned: see `Stream.member`.
        on_revoked: see `Stream.member`.
    """

    def __init__(
        self,
        owning: dict[str, Any],
        reading: dict[str, Any],
        topic: str,
        group: str,
        *,
        watched: Watched,
        starts_of: Callable[[Mapping[str, int | None]], dict[int, int]],
        on_assigned: Callable[[dict[str, int | None]], None],
        on_revoked: Callable[[list[str]], None],
    ) -> None:
        self._reader = BatchesReader(reading, topic, {}, watched=watched, starts_of=starts_of)
        try:
            self._owner = _Owner(
                self._reader,
                owning,
                topic,
                group,
                watched=watched,
                starts_of=starts_of,
                on_assigned=on_assigned,
                on_revoked=on_revoked,
            )
        except BaseException:
            self._reader.close()
            raise
        self.commit = self._owner.commit
        self.seek = self._owner.seek
        self.pause = self._reader.pause
        self.resume = self._reader.resume
        self.lag = self._reader.lag

    def poll(self, max_records: int, timeout: float) -> list[Packed]:
        """Hears of the group, then the next records; waits for the first one only, at most ``timeout`` seconds."""
        deadline = time.monotonic() + timeout
        while True:
            self._owner.poll(TAKE, 0)
            left = max(0.0, deadline - time.monotonic())
            runs = self._reader.poll(max_records, min(left, HEAR_SECONDS))
            if runs or left <= HEAR_SECONDS:
                return runs

    def close(self) -> None:
        """Gives every partition back and leaves the group; then reads no more."""
        try:
            self._owner.close()
        finally:
            self._reader.close()


class _Owner(ConfluentMember):
    """Owns partitions for a reader, and reads none itself."""

    def __init__(self, reader: BatchesReader, config: dict[str, Any], topic: str, group: str, **options: Any) -> None:
        self._reader = reader
        super().__init__(config | _FETCHES_NOTHING, topic, group, **options)

    def _take_on(self, starts: Mapping[int, int]) -> None:
        super()._take_on(starts)
        self._consumer.pause([TopicPartition(self._topic, number) for number in starts])
        self._reader.begin(starts)

    def _drop(self, numbers: Iterable[int]) -> None:
        numbers = list(numbers)
        super()._drop(numbers)
        self._reader.end(numbers)

    def _go_to(self, number: int, offset: int) -> None:
        self._reader.go_to(number, offset)

    def _sort(self, messages: list[Message]) -> None:
        """What is no error was asked for before the pause, and the reader has it too."""
        self._without_errors(messages)
