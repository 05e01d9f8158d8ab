"""Streams inside one process, with the semantics of the real wires: for tests of what reads and writes streams.

As unkind as the real ones where the port allows it: positions have gaps, polls hand out at most what was asked for,
members of a group share partitions and hand them over.
"""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from sales.streams import NO_TIPS, Checkpoint, Checkpoints, Chunk, PositionLostError, StreamError
from sales.streams.closing import Closing
from sales.streams.packed import Packing, PackingMember

POSITION_DIGITS = 20

LARGEST_RECORD_BYTES = 1_048_576
"""Key and value together; as on Kinesis."""


@dataclass(slots=True)
class _Log:
    """One partition."""

    keys: list[bytes] = field(default_factory=list)
    values: list[bytes] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    times: list[int] = field(default_factory=list)
    trimmed: int = -1
    """everything up to this position is gone"""
    next_position: int = 0


class MemoryWire:
    """Streams in memory; several threads may use it.

    Args:
        clock: ms since 1970, asked once for each record: the log's own time.
        position_gap: positions between two records of a partition.
    """

    def __init__(self, clock: Callable[[], int] | None = None, position_gap: int = 2) -> None:
        self._clock = clock or (lambda: time.time_ns() // 1_000_000)
        self._gap = position_gap
        self._streams: dict[str, MemoryStream] = {}
        self._incarnations = 0

    def create(self, name: str, *, partitions: int, retention_hours: int) -> bool:  # noqa: ARG002 (nothing expires here)
        """Creates the stream if it is not there; True if it was created now."""
        if name in self._streams:
            return False
        self._incarnations += 1
        self._streams[name] = MemoryStream(f"{name}-{self._incarnations:08x}", partitions, self._clock, self._gap)
        return True

    def open(self, name: str) -> "MemoryStream":
        """The stream's present incarnation; StreamError if there is none."""
        if name not in self._streams:
            raise StreamError(f"there is no stream {name!r}; create it first")
        return self._streams[name]

    def delete(self, name: str) -> None:
        """Removes the stream; what reads or writes it gets StreamError from then on."""
        stream = self._streams.pop(name, None)
        if stream is not None:
            stream.gone = True

    def close(self) -> None:
        """Nothing to give back: what is stored stays for the next test step."""


class MemoryStream:
    """One incarnation of a stream in memory."""

    def __init__(self, stream_id: str, partitions: int, clock: Callable[[], int], gap: int) -> None:
        self.logs = {str(number): _Log() for number in range(partitions)}
        self.changed = threading.Condition()
        self.clock = clock
        self.groups: dict[str, list[MemoryMember]] = {}
        self.gone = False
        self._id = stream_id
        self._gap = gap

    @property
    def id(self) -> str:
        """Name and incarnation."""
        return self._id

    @property
    def position_digits(self) -> int:
        """As on Kafka."""
        return POSITION_DIGITS

    def partitions(self) -> list[str]:
        """Names of the partitions, in their natural order."""
        return list(self.logs)

    def ends(self) -> dict[str, int | None]:
        """Position of each partition's last record; None: empty."""
        with self.changed:
            return {name: log.positions[-1] if log.positions else None for name, log in self.logs.items()}

    def committed(self, group: str, checkpoints: Checkpoints) -> dict[str, int | None]:
        """As ``checkpoints`` have it."""
        saved = {name: checkpoints.load(group, self._id, name) for name in self.partitions()}
        return {name: None if found is None else found.position for name, found in saved.items()}

    def behind(self, after: Mapping[str, int | None]) -> dict[str, int | None]:
        """Counts them."""
        with self.changed:
            logs = self.logs
            return {
                name: len(logs[name].positions) - _first_after(logs[name], position) for name, position in after.items()
            }

    def reader(self, after: Mapping[str, int | None]) -> "MemoryReader":
        """Reads these partitions, each after a position; None: from the oldest record."""
        return MemoryReader(self, dict(after))

    def packed_reader(
        self,
        after: Mapping[str, int | None],
        tips: Mapping[str, int] = NO_TIPS,  # noqa: ARG002 (as on Kafka)
    ) -> Packing:
        """The same, packed."""
        return Packing(self.reader(after))

    def member(
        self,
        group: str,
        checkpoints: Checkpoints,
        on_assigned: Callable[[dict[str, int | None]], None],
        on_revoked: Callable[[list[str]], None],
    ) -> "MemoryMember":
        """Joins a group; positions are kept by ``checkpoints``, as on Kinesis."""
        return MemoryMember(self, group, checkpoints, on_assigned, on_revoked)

    def packed_member(
        self,
        group: str,
        checkpoints: Checkpoints,
        on_assigned: Callable[[dict[str, int | None]], None],
        on_revoked: Callable[[list[str]], None],
    ) -> PackingMember:
        """The same, packed."""
        return PackingMember(self.member(group, checkpoints, on_assigned, on_revoked))

    def writer(self) -> "MemoryWriter":
        """A new writer."""
        return MemoryWriter(self)

    def grow(self, partitions: int) -> None:
        """Adds empty partitions until there are so many; keys may go elsewhere from then on."""
        with self.changed:
            for number in range(len(self.logs), partitions):
                self.logs[str(number)] = _Log()
            self.changed.notify_all()

    def partition_of(self, key: bytes) -> str:
        """Where a key's records go: any function of the key alone will do."""
        return str(sum(key) % len(self.logs))

    def append(self, key: bytes, value: bytes) -> None:
        """Puts one record at the end of its partition."""
        with self.changed:
            self.check()
            log = self.logs[self.partition_of(key)]
            log.keys.append(key)
            log.values.append(value)
            log.positions.append(log.next_position)
            log.times.append(self.clock())
            log.next_position += 1 + self._gap
            self.changed.notify_all()

    def trim(self, partition: str, through: int) -> None:
        """Forgets the records up to a position, as retention does."""
        with self.changed:
            log = self.logs[partition]
            keep = _first_after(log, through)
            for column in (log.keys, log.values, log.positions, log.times):
                del column[:keep]
            log.trimmed = max(log.trimmed, through)

    def check(self) -> None:
        """StreamError once the stream was deleted."""
        if self.gone:
            raise StreamError(f"stream {self._id} was deleted")


def _first_after(log: _Log, after: int | None) -> int:
    """Index of the first record after a position (None: the oldest)."""
    if after is None:
        return 0
    low, high = 0, len(log.positions)
    while low < high:
        middle = (low + high) // 2
        if log.positions[middle] <= after:
            low = middle + 1
        else:
            high = middle
    return low


class MemoryReader:
    """Reads some partitions."""

    def __init__(self, stream: MemoryStream, after: Mapping[str, int | None]) -> None:
        self._stream = stream
        self._after: dict[str, int | None] = {}
        self._paused: set[str] = set()
        self._closed = False
        self.add(after)

    def partitions(self) -> list[str]:
        """All of the stream's."""
        return self._stream.partitions()

    def add(self, after: Mapping[str, int | None]) -> None:
        """Reads these partitions too."""
        fresh = {name: position for name, position in after.items() if name not in self._after}
        for partition, position in fresh.items():
            self._check_start(partition, position)
        self._after |= fresh

    def _start(self, partition: str, after: int | None) -> None:
        self._check_start(partition, after)
        with self._stream.changed:
            self._after[partition] = after

    def _check_start(self, partition: str, after: int | None) -> None:
        with self._stream.changed:
            log = self._stream.logs.get(partition)
            if log is None:
                raise StreamError(f"stream {self._stream.id} has no partition {partition!r}")
            if after is not None and after < log.trimmed:
                raise PositionLostError(f"position {after} of {self._stream.id}/{partition} was removed by retention")

    def poll(self, max_records: int, timeout: float) -> list[Chunk]:
        """The next records, at most one chunk a partition; waits up to ``timeout`` seconds for the first."""
        deadline = time.monotonic() + timeout
        with self._stream.changed:
            while True:
                self._stream.check()
                if self._closed:
                    raise StreamError(f"the reader of {self._stream.id} is closed")
                chunks = self._take(max_records)
                remaining = deadline - time.monotonic()
                if chunks or remaining <= 0:
                    return chunks
                self._stream.changed.wait(remaining)

    def _take(self, max_records: int) -> list[Chunk]:
        chunks: list[Chunk] = []
        room = max_records
        for partition in list(self._after):
            if room <= 0:
                break
            if partition in self._paused:
                continue
            log = self._stream.logs[partition]
            after = self._after[partition]
            if after is not None and after < log.trimmed:
                raise PositionLostError(f"position {after} of {self._stream.id}/{partition} was removed by retention")
            start = _first_after(log, after)
            stop = min(start + room, len(log.positions))
            if start == stop:
                continue
            chunks.append(
                Chunk(
                    partition,
                    list(log.keys[start:stop]),
                    log.values[start:stop],
                    log.positions[start:stop],
                    log.times[start:stop],
                )
            )
            room -= stop - start
            # Read partitions move to the back, so that a small max_records starves none.
            del self._after[partition]
            self._after[partition] = chunks[-1].positions[-1]
        return chunks

    def lag(self) -> dict[str, int | None]:
        """Records not yet read, per partition."""
        return self._stream.behind(self._after)

    def close(self) -> None:
        """Nothing to give back."""
        self._closed = True


class MemoryMember(MemoryReader):
    """Shares the partitions with the group's other members: the n-th of m members takes every m-th partition."""

    def __init__(
        self,
        stream: MemoryStream,
        group: str,
        checkpoints: Checkpoints,
        on_assigned: Callable[[dict[str, int | None]], None],
        on_revoked: Callable[[list[str]], None],
    ) -> None:
        super().__init__(stream, {})
        self._group = group
        self._checkpoints = checkpoints
        self._on_assigned = on_assigned
        self._on_revoked = on_revoked
        self._arriving: dict[str, int | None] = {}
        self._members = stream.groups.setdefault(group, [])
        with stream.changed:
            self._members.append(self)
            stream.changed.notify_all()

    def poll(self, max_records: int, timeout: float) -> list[Chunk]:
        """As a reader's; takes and gives partitions first."""
        self._balance()
        return super().poll(max_records, timeout)

    def _balance(self) -> None:
        with self._stream.changed:
            if self._closed:
                raise StreamError(f"this member of group {self._group} is closed")
            share = self._stream.partitions()[self._members.index(self) :: len(self._members)]
            leaving = [name for name in self._after if name not in share]
        if leaving:
            self._on_revoked(leaving)
            self._drop(leaving)
        with self._stream.changed:
            held = {name for member in self._members for name in member.holding()}
            self._arriving = dict.fromkeys(name for name in share if name not in held)
        if self._arriving:
            self._take_on()

    def holding(self) -> set[str]:
        """Partitions that no other member may take."""
        return {*self._after, *self._arriving}

    def _take_on(self) -> None:
        for name in self._arriving:
            found = self._checkpoints.load(self._group, self._stream.id, name)
            self._arriving[name] = None if found is None else found.position
        try:
            self._on_assigned(dict(self._arriving))
            for name, after in self._arriving.items():
                self._start(name, after)
        finally:
            self._arriving = {}

    def _drop(self, partitions: list[str]) -> None:
        with self._stream.changed:
            for name in partitions:
                del self._after[name]
                self._paused.discard(name)
            self._stream.changed.notify_all()

    def commit(self, positions: Mapping[str, int]) -> None:
        """Saves the positions through the checkpoints."""
        for partition in positions:
            self._own(partition)
        for partition, position in positions.items():
            self._checkpoints.save(self._group, self._stream.id, partition, Checkpoint(position))

    def pause(self, partition: str) -> None:
        """No more of this partition until ``resume``."""
        self._own(partition)
        self._paused.add(partition)

    def resume(self, partition: str) -> None:
        """The end of a pause."""
        self._own(partition)
        self._paused.discard(partition)

    def seek(self, partition: str, after: int | None) -> None:
        """Goes on after a position."""
        if partition in self._arriving:
            self._arriving[partition] = after
            return
        self._own(partition)
        self._start(partition, after)

    def _own(self, partition: str) -> None:
        if partition not in self._after:
            raise StreamError(f"partition {partition} of {self._stream.id} is not assigned to this member")

    def close(self) -> None:
        """Leaves the group."""
        if self._closed:
            return
        held = list(self._after)
        try:
            if held:
                self._on_revoked(held)
        finally:
            self._closed = True
            with self._stream.changed:
                self._members.remove(self)
            self._drop(held)


class MemoryWriter(Closing):
    """Appends at once."""

    def __init__(self, stream: MemoryStream) -> None:
        self._stream = stream
        self._failure: StreamError | None = None
        self._closed = False

    def write(self, keys: Sequence[bytes], values: Sequence[bytes]) -> None:
        """Appends; StreamError for a record that is too large, and from then on."""
        self.flush(0)
        if self._closed:
            raise StreamError(f"the writer of {self._stream.id} is closed")
        for key, value in zip(keys, values, strict=True):
            size = len(key) + len(value)
            if size > LARGEST_RECORD_BYTES:
                self._failure = StreamError(f"a record of {size} bytes is more than {self._stream.id} takes")
                raise self._failure
            self._stream.append(key, value)

    def flush(self, timeout: float) -> None:  # noqa: ARG002 (nothing is ever queued)
        """Everything is written already; StreamError if something was refused."""
        if self._failure is not None:
            raise self._failure

    def unacknowledged(self) -> int:
        """Nothing is ever queued."""
        return 0

    def close(self) -> None:
        """StreamError if something was refused."""
        if not self._closed:
            self._closed = True
            self.flush(0)


class MemoryCheckpoints:
    """Positions in memory; an older one never overwrites a newer."""

    def __init__(self) -> None:
        self.saved: dict[tuple[str, str, str], Checkpoint] = {}

    def load(self, group: str, stream: str, partition: str) -> Checkpoint | None:
        """The last one saved, or None."""
        return self.saved.get((group, stream, partition))

    def save(self, group: str, stream: str, partition: str, checkpoint: Checkpoint) -> None:
        """Keeps the checkpoint if it is newer."""
        key = (group, stream, partition)
        self.saved[key] = max(checkpoint, self.saved.get(key, checkpoint))
