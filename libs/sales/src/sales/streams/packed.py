"""Records of a stream in one buffer, for readers that look at bytes: no Python object for a record."""

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from sales.memory import PADDING
from sales.streams import Chunk, Member, Polled, Reader

Int64s = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Packed:
    """Consecutive records of one partition, in position order: record ``i`` has the value
    ``data[value_starts[i]:value_ends[i]]``, and the same for its key.

    The data is lent: a reader writes other records into the same memory once nobody looks into it any more. Whoever
    keeps some of it for longer copies that: a view of one byte keeps megabytes.
    """

    partition: str
    data: npt.NDArray[np.uint8]
    """ends with PADDING bytes that belong to no record"""
    key_starts: Int64s
    """-1: the record has no key"""
    key_ends: Int64s
    value_starts: Int64s
    value_ends: Int64s
    positions: Sequence[int] | Int64s
    broker_times: Int64s
    """ms since 1970, the log's own time"""

    def __len__(self) -> int:
        return len(self.value_starts)

    def key(self, row: int) -> bytes | None:
        """The key of one record."""
        start = int(self.key_starts[row])
        return None if start < 0 else self.data[start : self.key_ends[row]].tobytes()

    def value(self, row: int) -> bytes:
        """The value of one record."""
        return self.data[self.value_starts[row] : self.value_ends[row]].tobytes()

    def size(self) -> int:
        """Bytes of the values."""
        return int((self.value_ends - self.value_starts).sum())

    def cut(self, at: int) -> "tuple[Packed, Packed]":
        """In two, the first with ``at`` records; both look into the same data."""
        return self._part(slice(at)), self._part(slice(at, None))

    def cut_after(self, position: int) -> "tuple[Packed, Packed]":
        """In two: the records up to and with a position, and those behind it."""
        return self.cut(bisect_right(self.positions, position))

    def chunk(self) -> Chunk:
        """The same as Python objects, copied."""
        data = self.data.data
        keys = zip(self.key_starts.tolist(), self.key_ends.tolist(), strict=True)
        values = zip(self.value_starts.tolist(), self.value_ends.tolist(), strict=True)
        return Chunk(
            self.partition,
            [None if start < 0 else bytes(data[start:end]) for start, end in keys],
            [bytes(data[start:end]) for start, end in values],
            list(map(int, self.positions)),
            self.broker_times.tolist(),
        )

    def _part(self, which: slice) -> "Packed":
        return Packed(
            self.partition,
            self.data,
            self.key_starts[which],
            self.key_ends[which],
            self.value_starts[which],
            self.value_ends[which],
            self.positions[which],
            self.broker_times[which],
        )


class PackedReader(Polled[Packed], Protocol):
    """A `Reader` that packs: the same promises, the same errors."""

    def partitions(self) -> list[str]:
        """As `Reader.partitions`."""
        ...

    def add(self, after: Mapping[str, int | None]) -> None:
        """As `Reader.add`."""
        ...

    def tips(self) -> dict[str, int]:
        """When there was nothing behind what has been handed out, in ms since 1970 by this machine's clock, of each
        partition where that is known. For a wire where a position expires though nothing came after it (Kinesis):
        whoever keeps a position keeps this with it. Others tell of none."""
        ...


PackedMember: TypeAlias = Member[Packed]
"""A `Member` that packs: the same promises, the same errors."""


def pack(chunk: Chunk) -> Packed:
    """A chunk's records, copied into one buffer."""
    keys = [key or b"" for key in chunk.keys]
    count = len(keys)
    lengths = np.fromiter(map(len, [*keys, *chunk.values]), dtype=np.int64, count=2 * count)
    ends = np.cumsum(lengths)
    starts = ends - lengths
    key_starts = starts[:count]
    if None in chunk.keys:
        key_starts = np.where([key is None for key in chunk.keys], -1, key_starts)
    return Packed(
        partition=chunk.partition,
        data=np.frombuffer(b"".join([*keys, *chunk.values, bytes(PADDING)]), dtype=np.uint8),
        key_starts=key_starts,
        key_ends=ends[:count],
        value_starts=starts[count:],
        value_ends=ends[count:],
        positions=chunk.positions,
        broker_times=np.array(chunk.broker_times, dtype=np.int64),
    )


class Packing:
    """Packs what any reader gives."""

    def __init__(self, reader: Reader, tips: Callable[[], dict[str, int]] = dict) -> None:
        self._reader = reader
        self.tips = tips
        self.lag = reader.lag
        self.partitions = reader.partitions
        self.add = reader.add
        self.close = reader.close

    def poll(self, max_records: int, timeout: float) -> list[Packed]:
        """As the reader's, packed."""
        return [pack(chunk) for chunk in self._reader.poll(max_records, timeout)]


class PackingMember:
    """Packs what any member gives."""

    def __init__(self, member: Member[Chunk]) -> None:
        self._member = member
        self.lag = member.lag
        self.commit = member.commit
        self.pause = member.pause
        self.resume = member.resume
        self.seek = member.seek
        self.close = member.close

    def poll(self, max_records: int, timeout: float) -> list[Packed]:
        """As the member's, packed."""
        return [pack(chunk) for chunk in self._member.poll(max_records, timeout)]
