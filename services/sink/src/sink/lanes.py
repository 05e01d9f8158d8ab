"""What stores a stream: a lane, and what it is told and tells."""

import threading
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from sales.streams.packed import Packed

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Start:
    """Where to read a partition on."""

    after: int | None
    end: int | None = None
    """where the first extent must end, because that was decided before"""


@dataclass(frozen=True, slots=True)
class Prepared(Generic[T]):
    """One run of records as the lane holds it until it is stored."""

    content: T
    rejected: list[int]
    """positions of the messages that can't be decoded: told, not stored"""
    held: int
    """bytes that the content takes in memory: with many small lines some times its messages'"""


@dataclass(frozen=True, slots=True)
class Extent(Generic[T]):
    """A partition's records in ``(after, end]``, all of them."""

    partition: str
    after: int | None
    end: int
    pieces: list[T]
    read: int
    rejected: list[int]
    """positions of those that can't be decoded, ascending"""
    bytes: int
    """of the messages"""
    held: int
    """bytes in memory"""


@dataclass(frozen=True, slots=True)
class Wrote:
    """What a store holds of an extent, for counts; what a try before this one had written is among it."""

    objects: int = 0
    bytes: int = 0
    """of the objects"""
    items: int = 0
    """of DynamoDB's that were not there before"""
    duplicates: int = 0
    """items whose key was there before"""


@dataclass(frozen=True, slots=True)
class Stored:
    """Everything up to ``end`` is stored, durably, by whomever: the extent's own end, or that of another writer's."""

    end: int
    wrote: Wrote = field(default=Wrote(), compare=False)


@dataclass(frozen=True, slots=True)
class Pinned:
    """Another end was decided for this extent, and it is not stored yet: read exactly up to ``end`` and store that."""

    end: int


class AbandonedError(Exception):
    """Nobody waits for this extent any more; whoever reads its partition next stores it."""


class Lane(Protocol[T]):
    """Stores what a stream holds. One instance, called by the delivery's threads."""

    name: str
    """for people and the log: ``archive-orders``"""

    def prepare(self, run: Packed) -> Prepared[T]:
        """Decodes a run; on the reading thread, must not block. The run's memory is lent: what is kept is a copy."""
        ...

    def start(self, partition: str, committed: int | None) -> Start:
        """Where a partition that was just assigned is read on; on any thread, may block for a bounded time.

        Args:
            partition: its name.
            committed: the group's last committed position.

        Raises:
            AwayError: will be tried again.
        """
        ...

    def store(self, extent: Extent[T], abandoned: threading.Event) -> Stored | Pinned:
        """Stores an extent; on a worker thread, may block. Called again with the same extent after an AwayError, by
        this process or the next one: whatever was written before must be no trouble.

        Args:
            extent: at most one of a partition at a time.
            abandoned: set when nobody waits for the result any more.

        Raises:
            AwayError: will be tried again.
            AbandonedError: ``abandoned`` was set.
        """
        ...
