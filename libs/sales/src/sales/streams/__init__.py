"""The port for streams: what Tillstream asks of Kafka and of Kinesis. Nothing outside this folder knows which it is.

Words: a *stream* has *partitions*; a record's *position* is its place in its partition. Positions are opaque ordered
integers: compare them, never add to them or expect the next one (logs have gaps). Outside the process they are
written with a fixed number of digits, so that text sorts as numbers do.

Every call that touches the network may block for at most its timeout, and raises `StreamError` when the far side
stays away; what was written but not acknowledged is then unknown, and writing it again must be harmless.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING, Protocol, Self, TypeVar

if TYPE_CHECKING:
    from sales.streams.packed import PackedMember, PackedReader


NO_TIPS: Mapping[str, int] = MappingProxyType({})
"""Of no partition it is known when it was at its tip; see `Readable.packed_reader`."""

SILENT_SECONDS = 30.0
"""What a far side said of its ends is worth so long; afterwards nobody knows how much there is to read."""


class StreamError(Exception):
    """The far side can't be reached, refused, or lost something; the message says what, where and what to do."""


class AwayError(StreamError):
    """The far side does not answer; it may later. Trying again is right."""


class PositionLostError(StreamError):
    """The stream no longer reaches back to the position asked for (retention, or another incarnation)."""


@dataclass(frozen=True, slots=True, eq=False)
class Chunk:
    """Consecutive records of one partition as columns of equal length, in position order."""

    partition: str
    keys: list[bytes | None]
    values: list[bytes]
    positions: list[int]
    broker_times: list[int]
    """ms since 1970, the log's own time"""

    def __len__(self) -> int:
        return len(self.values)

    def size(self) -> int:
        """Bytes of the values."""
        return sum(map(len, self.values))

    def cut(self, at: int) -> "tuple[Chunk, Chunk]":
        """In two, the first with ``at`` records."""
        return self._part(slice(at)), self._part(slice(at, None))

    def _part(self, which: slice) -> "Chunk":
        return Chunk(
            self.partition, self.keys[which], self.values[which], self.positions[which], self.broker_times[which]
        )


Records = TypeVar("Records")
"""Consecutive records of one partition: a `Chunk`, or `sales.streams.packed.Packed`."""


class Polled(Protocol[Records]):
    """What gives records of some partitions of a stream. One thread at a time."""

    def poll(self, max_records: int, timeout: float) -> list[Records]:
        """The next records, at most ``max_records`` in all, at most once a partition; empty when none came in
        ``timeout`` seconds (0: don't wait). Faults that mend themselves are retried inside, without blocking longer.

        Raises:
            PositionLostError: the position is no longer there.
            StreamError: a fault that will not mend itself. After either the reader gives nothing more: open another.
        """
        ...

    def lag(self) -> dict[str, int | None]:
        """Records not yet read, of each partition that is read, as last heard (no call to the far side). None where
        that is not known, or where nothing was heard for SILENT_SECONDS; on Kinesis, which doesn't count, only 0 at the
        tip is known."""
        ...

    def close(self) -> None:
        """Gives back connections and threads; may block for a few seconds. Twice is once."""
        ...


class Reader(Polled[Chunk], Protocol):
    """Reads partitions that the caller names, each after a position that the caller knows."""

    def partitions(self) -> list[str]:
        """All partitions of the stream, whoever reads them, in their natural order, as last heard (no call to the far
        side): a new one appears within seconds."""
        ...

    def add(self, after: Mapping[str, int | None]) -> None:
        """Reads these partitions too from now on, each from the first record after the given position; None means from
        the oldest record there is. One that is read already is read on where it is. A shard that came of a split or
        merge gives nothing before its parents, as far as they are read here, were handed out to their end. May ask the
        far side, for a bounded time.

        Raises:
            PositionLostError: a position is no longer there.
            StreamError: no such partition, or no answer; nothing was added, and this reader goes on as before.
        """
        ...


class Member(Polled[Records], Protocol[Records]):
    """A reader that shares a stream's partitions with the other members of its group, and remembers how far it came.

    Callbacks run inside ``poll`` and ``close``, on the caller's thread.
    """

    def commit(self, positions: Mapping[str, int]) -> None:
        """Everything up to these positions (inclusive) is done, durably. Blocks until acknowledged; inside
        ``on_revoked`` it may be only sent, before the partitions are given away.

        Raises:
            StreamError: not acknowledged, or the partition belongs to another member by now.
        """
        ...

    def pause(self, partition: str) -> None:
        """``poll`` returns no more of this partition until ``resume``; the group still hears of us."""
        ...

    def resume(self, partition: str) -> None:
        """The end of a ``pause``."""
        ...

    def seek(self, partition: str, after: int | None) -> None:
        """The next record of this partition is the first after ``after`` (None: the oldest there is)."""
        ...


class Writer(Protocol):
    """Appends to a stream. At least once; one key's records keep their order. One thread at a time.

    After a record was refused for good every call raises: what came behind it must not overtake it. Open another.
    """

    def write(self, keys: Sequence[bytes], values: Sequence[bytes]) -> None:
        """Queues records; blocks while the bounded queue is full.

        Raises:
            StreamError: an earlier record was refused for good, or the queue did not drain in time.
        """
        ...

    def flush(self, timeout: float) -> None:
        """Blocks until everything written so far is acknowledged.

        Raises:
            StreamError: something was refused, or is not acknowledged after ``timeout`` seconds.
        """
        ...

    def unacknowledged(self) -> int:
        """Records that were written and of which nobody has said that they are there; never blocks. Any thread."""
        ...

    def close(self) -> None:
        """Flushes (bounded) and gives everything back. Twice is once.

        Raises:
            StreamError: something is not acknowledged. At the end of a ``with`` block that fails it is only logged.
        """
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Readable(Protocol):
    """What can be read as a stream is: the stream itself, or what is stored of it."""

    @property
    def id(self) -> str:
        """Name and incarnation, ``orders-1f2e3d4c``: a stream that was deleted and made again has another id."""
        ...

    @property
    def position_digits(self) -> int:
        """How many digits a position is written with: 20 on Kafka, 56 on Kinesis."""
        ...

    def partitions(self) -> list[str]:
        """Names of the partitions there are now, in their natural order; asks the far side."""
        ...

    def packed_reader(self, after: Mapping[str, int | None], tips: Mapping[str, int] = NO_TIPS) -> "PackedReader":
        """As `Stream.reader`, for code that looks at bytes: the records of a run in one buffer, and on Kafka, where
        numba is installed, without a Python object for each.

        Args:
            after: as `Stream.reader` has it.
            tips: what `PackedReader.tips` told when these positions were reached.
        """
        ...


class Stream(Readable, Protocol):
    """One incarnation of one named stream."""

    def ends(self) -> dict[str, int | None]:
        """Position of the last record of each partition at some moment during the call; None: empty. For people and
        checks (it may read records to find out)."""
        ...

    def committed(self, group: str, checkpoints: "Checkpoints") -> dict[str, int | None]:
        """How far ``group`` is in each partition that there is: what it committed last; None: nothing yet. Asks, and
        joins nothing. Raises as ``checkpoints`` do, too."""
        ...

    def behind(self, after: Mapping[str, int | None]) -> dict[str, int | None]:
        """How many records there are after each position (None: in all). None: some, where the wire does not count. For
        people and checks, as ``ends``; on Kafka, marks of transactions count."""
        ...

    def reader(self, after: Mapping[str, int | None]) -> Reader:
        """Reads exactly these partitions, each from the first record after the given position; None means from the
        oldest record there is."""
        ...

    def member(
        self,
        group: str,
        checkpoints: "Checkpoints",
        on_assigned: Callable[[dict[str, int | None]], None],
        on_revoked: Callable[[list[str]], None],
    ) -> Member[Chunk]:
        """Joins ``group``. ``on_assigned`` gets each new partition with the last committed position (None: none);
        ``on_revoked`` the partitions that go to somebody else, while commits still count where they can, and those that
        ended (a shard that was split) once all of them is committed.

        Args:
            group: the name that members share; each group reads everything once.
            checkpoints: where positions are kept if the wire itself keeps none (Kinesis).
            on_assigned: may call ``seek``.
            on_revoked: must finish or drop what is open for these partitions.
        """
        ...

    def packed_member(
        self,
        group: str,
        checkpoints: "Checkpoints",
        on_assigned: Callable[[dict[str, int | None]], None],
        on_revoked: Callable[[list[str]], None],
    ) -> "PackedMember":
        """As ``member``, for code that looks at bytes, as ``packed_reader`` is to ``reader``. Members of both kinds may
        be in one group."""
        ...

    def writer(self) -> Writer:
        """A new writer, idempotent and acknowledged by all replicas where the wire can."""
        ...


@dataclass(frozen=True, slots=True, order=True)
class Checkpoint:
    """How far a group is in one partition; a newer one is the greater."""

    position: int
    """everything up to it is done"""
    tip_ms: int = 0
    """when there was nothing behind the position, in ms since 1970 by the member's clock: what is there now came later.
    0: that is not known"""


class Checkpoints(Protocol):
    """Keeps a checkpoint per group, stream and partition, for a wire that does not do it itself.

    Raises, all calls:
        AwayError: no answer now.
        StreamError: refused.
    """

    def load(self, group: str, stream: str, partition: str) -> Checkpoint | None:
        """What was saved last, or None; one round trip."""
        ...

    def save(self, group: str, stream: str, partition: str, checkpoint: Checkpoint) -> None:
        """Durably, before it returns; an older one may be overwritten by a newer one only."""
        ...


class Wire(Protocol):
    """One Kafka cluster or one Kinesis account and region."""

    def create(self, name: str, *, partitions: int, retention_hours: int) -> bool:
        """Creates the stream if it is not there and waits until it can be used; True if it was created now."""
        ...

    def open(self, name: str) -> Stream:
        """The stream's present incarnation.

        Raises:
            StreamError: there is none of that name; the message says how to create it.
        """
        ...

    def delete(self, name: str) -> None:
        """Removes the stream and its records, and waits until it is gone. For tests and rebuilds."""
        ...

    def close(self) -> None:
        """Gives back connections."""
        ...


def format_position(position: int, digits: int) -> str:
    """The fixed-width text of a position: sorts as the number does."""
    return f"{position:0{digits}d}"
