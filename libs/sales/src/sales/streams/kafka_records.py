"""Kafka's record batches (KIP-98, message format 2) as bytes and columns, without a Python object for a record.

A batch is looked at in two steps. `batches_of` walks over the headers of what a broker sent and checks each batch's
sum; `unpack` decompresses some batches and takes them apart into one `Packed`, in compiled code that checks every
length against the end of its batch: whatever the bytes are, nothing outside is read. Needs numba.
"""

import struct
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from weakref import finalize

import cramjam
import numpy as np
import numpy.typing as npt
from crc32c import crc32c

from sales.compiled import byte_at, compiled, put_long, signed
from sales.memory import PADDING
from sales.streams import StreamError
from sales.streams.packed import Packed

_HEADER = struct.Struct(">qiibIhiqqqhii")
"""base offset, length, leader epoch, magic, sum, attributes, last offset's delta, first and max timestamp, producer's
id and epoch, base sequence, number of records"""

_LENGTH = struct.Struct(">qi")
"""Base offset and length, which every message format begins with; the length counts what is behind it."""

_MAGIC_AT = 16
_SUMMED_AT = 21
"""The sum covers everything from the attributes on."""

_CODEC_BITS, _APPEND_TIME_BIT, _TRANSACTIONAL_BIT, _CONTROL_BIT = 0x07, 0x08, 0x10, 0x20

_SMALLEST_RECORD = 7
"""Seven numbers of one byte each: no batch has more records than a seventh of its bytes."""

_CONTROL_KEY = struct.Struct(">hh")
"""version, type; a type of 0 ends a transaction that was aborted"""

_XERIAL = b"\x82SNAPPY\0"
"""What Java's snappy begins with: 8 bytes more of versions, and blocks, each behind its length."""

BUFFER_BYTES = 8 * 1024 * 1024
"""Room for a run; of a fresh one, only what is written to takes memory."""

BUFFERS = 8
"""So many are kept that nobody looks into."""

FULL_BYTES = 16 * 1024 * 1024
"""Behind so many bytes of records no further batch is taken in."""

LARGEST_BYTES = 128 * 1024 * 1024
"""No run has more, whatever its batches claim to hold: a few bytes could be decompressed to gigabytes."""

Bytes = npt.NDArray[np.uint8]


class Memory:
    """Buffers that are used again when nobody looks into them any more: fresh ones come from the system page by page,
    which costs more than decompressing into them. Any thread."""

    def __init__(self) -> None:
        self._free: deque[Bytes] = deque(maxlen=BUFFERS)

    def take(self, size: int = 0) -> Bytes:
        """At least ``size`` bytes, until the array and every view of it are gone."""
        if size > BUFFER_BYTES:
            return np.empty(size, dtype=np.uint8)
        try:
            owner = self._free.pop()  # not asked before whether there is one: another thread may take the last
        except IndexError:
            owner = np.empty(BUFFER_BYTES, dtype=np.uint8)
        # Views of this array hold it, as it is no view of another one to numpy; a view of `owner` would not be held.
        lent = np.frombuffer(owner.data, dtype=np.uint8)
        finalize(lent, self._free.append, owner).atexit = False
        return lent


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """One record batch, its sum checked, its records as they were sent."""

    base_offset: int
    next_offset: int
    """behind the last record that was ever in it; compaction may have removed some"""
    leader_epoch: int
    attributes: int
    first_time: int
    max_time: int
    producer_id: int
    """-1: none"""
    count: int
    records: memoryview
    """compressed, unless the attributes name no codec"""

    @property
    def is_transactional(self) -> bool:
        """Whether a transaction decides about it."""
        return bool(self.attributes & _TRANSACTIONAL_BIT)

    @property
    def is_control(self) -> bool:
        """Whether it holds the end of a transaction instead of records."""
        return bool(self.attributes & _CONTROL_BIT)

    def ends_aborted(self) -> bool:
        """Whether it tells that its producer's transaction was aborted.

        Raises:
            StreamError: it is not what such a batch should be.
        """
        if not self.is_control:
            return False
        key = unpack("", [self], self.base_offset, Memory())[0].key(0)
        if key is None or len(key) < _CONTROL_KEY.size:
            raise _corrupt(self.base_offset, "the end of a transaction has no type")
        _, kind = _CONTROL_KEY.unpack_from(key)
        return bool(kind == 0)


def batches_of(answer: memoryview) -> Iterator[Batch]:
    """The whole batches in what a broker sent of one partition; a broker may cut the last one off.

    Raises:
        StreamError: a batch fails its sum, or is in a format of before Kafka 0.11.
    """
    at = 0
    while len(answer) - at >= _LENGTH.size:
        base_offset, length = _LENGTH.unpack_from(answer, at)
        whole = answer[at : at + _LENGTH.size + length]
        if length < _MAGIC_AT + 1 - _LENGTH.size:
            raise _corrupt(base_offset, f"a length of {length}")
        if len(whole) < _LENGTH.size + length:
            return
        if whole[_MAGIC_AT] != 2:
            raise StreamError(
                f"records at offset {base_offset} are in Kafka's message format {whole[_MAGIC_AT]}, of before 0.11; "
                "write them anew, or begin behind them"
            )
        if len(whole) < _HEADER.size:
            raise _corrupt(base_offset, f"a length of {length}")
        at += len(whole)
        yield _batch(whole)


def _batch(whole: memoryview) -> Batch:
    (
        base_offset,
        _,
        leader_epoch,
        _,
        checksum,
        attributes,
        last_delta,
        first_time,
        max_time,
        producer_id,
        _,
        _,
        count,
    ) = _HEADER.unpack_from(whole)
    if crc32c(whole[_SUMMED_AT:]) != checksum:
        raise _corrupt(base_offset, "its sum (CRC-32C) is wrong")
    if last_delta < 0 or count < 0:
        raise _corrupt(base_offset, f"{count} records up to {last_delta}")
    return Batch(
        base_offset=base_offset,
        next_offset=base_offset + last_delta + 1,
        leader_epoch=leader_epoch,
        attributes=attributes,
        first_time=first_time,
        max_time=max_time,
        producer_id=producer_id,
        count=count,
        records=whole[_HEADER.size :],
    )


def unpack(partition: str, batches: Sequence[Batch], start: int, memory: Memory) -> tuple[Packed, int]:
    """The records of consecutive batches from offset ``start`` on: compressed batches may begin before it. And how many
    batches these were: fewer than given, where FULL_BYTES are reached.

    Raises:
        StreamError: a batch is not what it should be.
    """
    data, ends = _decompressed(batches, memory)
    columns = np.empty((6, sum(batch.count for batch in batches)), dtype=np.int64)
    data_address, column_address, stride = data.ctypes.data, columns.ctypes.data, columns.strides[0]
    rows = begin = 0
    for batch, end in zip(batches, ends, strict=False):
        rows = take_apart(
            data_address,
            begin,
            end,
            batch.count,
            batch.base_offset,
            batch.next_offset,
            start,
            batch.max_time if batch.attributes & _APPEND_TIME_BIT else batch.first_time,
            0 if batch.attributes & _APPEND_TIME_BIT else 1,
            column_address,
            stride,
            rows,
        )
        if rows < 0:
            raise _corrupt(batch.base_offset, "its records don't fit into it")
        begin = end
    key_starts, key_ends, value_starts, value_ends, offsets, times = columns[:, :rows]
    data[begin : begin + PADDING] = 0
    whole = data[: begin + PADDING]
    return Packed(partition, whole, key_starts, key_ends, value_starts, value_ends, offsets, times), len(ends)


def _decompressed(batches: Sequence[Batch], memory: Memory) -> tuple[Bytes, list[int]]:
    """The batches' records one behind the other, PADDING bytes more, and where each batch ends. Not all batches, where
    these are enough."""
    data = memory.take()
    ends: list[int] = []
    begin = 0
    for batch in batches:
        if begin >= FULL_BYTES:
            break
        while (size := _decompress(batch, data.data[begin:-PADDING])) is None:
            if len(data) >= LARGEST_BYTES:
                if ends:
                    return data, ends
                raise _corrupt(batch.base_offset, f"it can't be decompressed, or to more than {LARGEST_BYTES} bytes")
            larger = memory.take(2 * len(data))
            larger[:begin] = data[:begin]
            data = larger
        if batch.count * _SMALLEST_RECORD > size:
            raise _corrupt(batch.base_offset, f"{batch.count} records in {size} bytes")
        begin += size
        ends.append(begin)
    return data, ends


def _decompress(batch: Batch, room: memoryview) -> int | None:
    """Writes a batch's records and returns their size; None if there is not enough room, or they are corrupt."""
    codec = batch.attributes & _CODEC_BITS
    if codec not in _CODECS:
        raise _corrupt(batch.base_offset, f"there is no codec {codec}")
    try:
        return _CODECS[codec](batch.records, room)
    except (cramjam.DecompressionError, struct.error):
        return None


def _copy(records: memoryview, room: memoryview) -> int | None:
    size = len(records)
    if size > len(room):
        return None
    room[:size] = records
    return size


def _snappy(records: memoryview, room: memoryview) -> int:
    if records[: len(_XERIAL)] != _XERIAL:
        return int(cramjam.snappy.decompress_raw_into(records, room))
    at, size = 16, 0
    while at < len(records):
        (length,) = struct.unpack_from(">I", records, at)
        at += 4
        size += cramjam.snappy.decompress_raw_into(records[at : at + length], room[size:])
        at += length
    return size


_CODECS: dict[int, Callable[[memoryview, memoryview], int | None]] = {
    0: _copy,
    1: cramjam.gzip.decompress_into,
    2: _snappy,
    3: cramjam.lz4.decompress_into,
    4: cramjam.zstd.decompress_into,
}


def _corrupt(base_offset: int, why: str) -> StreamError:
    return StreamError(f"the batch at offset {base_offset} is corrupt: {why}")


@compiled("UniTuple(int64, 2)(int64, int64)")
def _number(place: int, end: int) -> tuple[int, int]:
    """A number of variable length and the place behind it; past ``end`` if it does not end there."""
    bits, shift = np.uint64(0), np.uint64(0)
    while place < end and shift < np.uint64(64):
        byte = byte_at(place)
        place += 1
        bits |= np.uint64(byte & 0x7F) << shift
        if byte < 0x80:
            return signed(bits >> np.uint64(1)) ^ -signed(bits & np.uint64(1)), place
        shift += np.uint64(7)
    return 0, end + 1


@compiled("UniTuple(int64, 2)(int64, int64)")
def _bytes(place: int, end: int) -> tuple[int, int]:
    """Where the bytes behind a length begin (-1: there are none, not even empty ones) and the place behind them; past
    ``end`` if they don't end there."""
    length, place = _number(place, end)
    if length > end - place:
        return -1, end + 1
    return (place, place + length) if length >= 0 else (-1, place)


@compiled("int64(int64, int64, int64, int64, int64, int64, int64, int64, int64, int64, int64, int64)")
def take_apart(
    data: int,
    begin: int,
    end: int,
    count: int,
    base_offset: int,
    next_offset: int,
    start: int,
    time: int,
    time_counts: int,
    columns: int,
    stride: int,
    row: int,
) -> int:
    """Writes one line for each record from offset ``start`` on, and returns the number of lines then; -1: corrupt.

    Args:
        data: address of the buffer.
        begin: the batch's first byte in it.
        end: behind the batch's last byte.
        count: records in it.
        base_offset: what their offsets count from.
        next_offset: what they stay below.
        start: the first offset that is wanted.
        time: ms since 1970, of the batch.
        time_counts: 1: a record's own time counts from there; 0: all have that time.
        columns: address of room for lines: key's begin and end, value's begin and end, offset, time.
        stride: bytes from one column to the next.
        row: lines that are there.
    """
    place, limit = data + begin, data + end
    offset = base_offset - 1
    for _ in range(count):
        length, place = _number(place, limit)
        if length < 0 or length > limit - place:
            return -1
        behind = place + length
        time_delta, place = _number(place + 1, behind)  # after a byte of attributes, none of which is in use
        offset_delta, place = _number(place, behind)
        key, place = _bytes(place, behind)
        key_end = place
        value, place = _bytes(place, behind)
        value_end = place
        headers, place = _number(place, behind)
        if headers < 0:
            return -1
        while headers > 0 and place < behind:
            name, place = _bytes(place, behind)
            _, place = _bytes(place, behind)
            if name < 0:
                return -1
            headers -= 1
        if headers > 0 or place != behind or offset_delta <= offset - base_offset:
            return -1
        if offset_delta >= next_offset - base_offset:
            return -1
        offset = base_offset + offset_delta
        if offset >= start:
            line = columns + 8 * row
            put_long(line, key - data if key >= 0 else -1)
            put_long(line + stride, key_end - data)
            put_long(line + 2 * stride, (value if value >= 0 else value_end) - data)
            put_long(line + 3 * stride, value_end - data)
            put_long(line + 4 * stride, offset)
            put_long(line + 5 * stride, time + time_counts * time_delta)
            row += 1
    return row if place == limit else -1
