"""Topics as the judge reads them: with a client of its own, from the beginning, up to where it wants."""

import time
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from confluent_kafka import Consumer, KafkaException, TopicPartition

READ_SECONDS = 120.0
"""A broker that was just started again answers within seconds; a slow machine takes longer."""
ASK_SECONDS = 10.0
BATCH = 1_000


@dataclass(frozen=True)
class Message:
    """One message of a topic."""

    partition: int
    offset: int
    key: bytes | None
    value: bytes
    broker_ms: int


class Log(Protocol):
    """What the judge asks of a topic."""

    def until(self, ends: Mapping[int, int]) -> Iterator[Message]:
        """What was not given yet, up to these offsets."""

    def rest(self) -> Iterator[Message]:
        """What was not given yet."""

    def has_given(self, partition: int, offset: int) -> bool:
        """Whether this message was given already."""


class TopicError(Exception):
    """A topic does not give what it holds."""


class Topic:
    """One topic, each message once, in the order of its partition."""

    def __init__(self, bootstrap: str, name: str) -> None:
        self.name = name
        self._consumer = Consumer(
            {
                "bootstrap.servers": bootstrap,
                "group.id": "chaos",  # the client insists on one; it neither joins nor commits
                "enable.auto.commit": False,
                "auto.offset.reset": "error",
                "reconnect.backoff.max.ms": 500,
                "log_level": 0,
            }
        )
        self._next: dict[int, int] = {}
        """partition to the next offset to hand out"""
        self._held: dict[int, deque[Message]] = defaultdict(deque)

    def ends(self) -> dict[int, int]:
        """Partition to its last offset; -1 where it is empty.

        Raises:
            TopicError: the broker does not say.
        """
        try:
            found = self._consumer.list_topics(self.name, timeout=ASK_SECONDS).topics[self.name]
            ends = {
                number: self._consumer.get_watermark_offsets(TopicPartition(self.name, number), timeout=ASK_SECONDS)
                for number in found.partitions
            }
        except KafkaException as error:
            raise TopicError(f"{self.name} does not tell its ends: {error}") from error
        return {number: high - 1 for number, (_, high) in ends.items()}

    def until(self, ends: Mapping[int, int]) -> Iterator[Message]:
        """What was not given yet, up to these offsets.

        Raises:
            TopicError: it does not come.
        """
        for number in ends.keys() - self._next.keys():
            self._next[number] = 0
            self._consumer.incremental_assign([TopicPartition(self.name, number, 0)])
        deadline = time.monotonic() + READ_SECONDS
        while True:
            for number, end in ends.items():
                held = self._held[number]
                while held and held[0].offset <= end:
                    message = held.popleft()
                    self._next[number] = message.offset + 1
                    yield message
            if all(self._next[number] > end for number, end in ends.items()):
                return
            if time.monotonic() > deadline:
                raise TopicError(f"{self.name} gives {self._next} and not up to {ends}")
            for found in self._consumer.consume(BATCH, 0.5):
                if found.error() is None:  # else news of a broker that is away; the deadline bounds them
                    partition, offset = found.partition() or 0, found.offset() or 0
                    message = Message(partition, offset, found.key(), found.value() or b"", found.timestamp()[1])
                    self._held[partition].append(message)

    def has_given(self, partition: int, offset: int) -> bool:
        """Whether this message was given already."""
        return self._next.get(partition, 0) > offset

    def rest(self) -> Iterator[Message]:
        """What was not given yet, up to its present end."""
        yield from self.until(self.ends())

    def close(self) -> None:
        """Gives the connections back."""
        self._consumer.close()
