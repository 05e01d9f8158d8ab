"""Which events were seen before: identity to position and content, by event minute.

An event's identity is its order id and event time. The first position that carries it is the event; the same position
again (a replay after a crash) is accepted again, another position is a duplicate or, with other content, a conflict.
So what is known may run ahead of the snapshot that the stream is read from, and only has to be durable before a
snapshot that passes its positions: `sync`.

A duplicate carries the event time of its original, so only that minute's identities are looked up. On the disk, one
journal holds for each an *entry* of 32 bytes. In memory a minute in use has a hash table of four bytes a slot: the
entry's number and, in the bits that it leaves, a tag of the hash; entries themselves are read again where tags are
equal, which is nearly only where something did come twice. Everything goes through numpy, thousands of events at a
time.
"""

import struct
import time
import zlib
from array import array
from collections import OrderedDict
from enum import IntEnum

import numpy as np
import numpy.typing as npt

from processor.journal import Journal, Place
from processor.probing import Slots, advance
from sales.events import Log
from sales.windows import MINUTE_MS

log = Log(__name__)

Uint64s = npt.NDArray[np.uint64]
Int64s = npt.NDArray[np.int64]

_SEGMENT_BYTES = 64 * 1024 * 1024
"""A segment is removed when its newest minute has expired, so it should hold not much more than some minutes."""

_WORDS = 4
LOW, HIGH, CONTENT, MARK = range(_WORDS)
"""An entry: the identity's 128 bits, a digest of the content, and the position's 64 bits."""
_NO_ENTRIES = np.zeros((0, _WORDS), dtype=np.uint64)

_MINUTE = struct.Struct("<qI")
"""What a frame begins with: the minute of its entries and a sum of it, since at a start nothing else of it is read."""
_TIME_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
"""Odd, so that no two times change a hash in the same way."""

_LEAST_TAG_BITS = 8
_LEAST_SLOTS = 256
_SINGLY = 64
"""Up to so many entries of one block are read one by one, more with the block as a whole."""


class Verdict(IntEnum):
    """What an event is."""

    ACCEPTED = 0
    DUPLICATE = 1
    CONFLICT = 2


def identities(id_low: Uint64s, id_high: Uint64s, event_times: Int64s, contents: Uint64s, marks: Uint64s) -> Uint64s:
    """Entries, shape (events, 4), from an order id's two hashes and what belongs to the event."""
    entries = np.empty((len(id_low), _WORDS), dtype=np.uint64)
    entries[:, LOW] = id_low ^ (event_times.astype(np.uint64) * _TIME_MULTIPLIER)
    entries[:, HIGH] = id_high
    entries[:, CONTENT] = contents
    entries[:, MARK] = marks
    return entries


class Dedup:
    """The identities of one source slot. One thread; `admit` may read the disk, `sync` writes it."""

    def __init__(self, journal: Journal, *, horizon_ms: int, resident_bytes: int, upto: Place | None = None) -> None:
        """Opens what an earlier run has left.

        Args:
            journal: where entries are kept; nobody else writes it.
            horizon_ms: how far behind the newest event an event is still looked up: at least the longest window.
            resident_bytes: what tables may have in memory before the least recently used minutes leave it.
            upto: up to here the journal must be whole; what follows was never relied on.

        Raises:
            JournalError: the journal is damaged before ``upto``.
        """
        self._journal = journal
        self._horizon = horizon_ms
        self._resident_bytes = resident_bytes
        self._minutes: OrderedDict[int, _Minute] = OrderedDict()
        self._blocks: dict[int, _Blocks] = {}
        self._newest_in: dict[int, int] = {}
        """segment to its newest minute"""
        self._fresh: set[int] = set()
        """minutes with entries that are not in the journal yet"""
        self._newest = 0
        self._oldest = 0
        """minute before which nothing is kept any more"""
        started = time.monotonic()
        for place, length, head in journal.recover(upto, _MINUTE.size):
            minute = _MINUTE.unpack(head)[0] if len(head) == _MINUTE.size else 0
            if head != _head(minute) or (length - _MINUTE.size) % (8 * _WORDS):
                raise journal.damaged(place)
            self._note_block(minute, place, (length - _MINUTE.size) // (8 * _WORDS))
        if self._blocks:
            found = sum(blocks.count for blocks in self._blocks.values())
            log.info(
                "identities_found",
                "{identities} identities found in {seconds:.3f} s",
                identities=found,
                seconds=time.monotonic() - started,
            )

    def admit(self, event_times: Int64s, entries: Uint64s) -> npt.NDArray[np.int8]:
        """A `Verdict` for each event, in the order of their positions (one partition), and remembers the accepted.

        Args:
            event_times: ms since 1970.
            entries: see `identities`.
        """
        verdicts = np.zeros(len(event_times), dtype=np.int8)
        if not len(event_times):
            return verdicts
        self._newest = max(self._newest, int(event_times.max()))
        minutes = event_times // MINUTE_MS
        oldest = (self._newest - self._horizon) // MINUTE_MS
        for minute in [int(minutes[0])] if (minutes == minutes[0]).all() else np.unique(minutes).tolist():
            if minute >= oldest:  # else no window covers it and no table knows it
                rows = np.flatnonzero(minutes == minute)
                verdicts[rows] = self._table(minute).admit(entries if len(rows) == len(entries) else entries[rows])
        return verdicts

    def sync(self) -> Place:
        """Makes everything admitted durable, then lets old minutes go; where the journal ends now. Blocks for one
        write to the disk."""
        for minute in sorted(self._fresh):
            fresh = self._minutes[minute].take_fresh()
            if len(fresh):
                place = self._journal.append(_head(minute) + fresh.tobytes())
                self._note_block(minute, place, len(fresh))
        self._fresh = set()
        self._journal.sync()
        self._expire()
        self._evict()
        end = self._journal.end()
        if end.offset > _SEGMENT_BYTES:
            self._journal.roll()
            end = self._journal.end()
        return end

    def resident_bytes(self) -> int:
        """What the tables have in memory now."""
        return sum(table.nbytes for table in self._minutes.values())

    def _table(self, minute: int) -> "_Minute":
        self._fresh.add(minute)
        table = self._minutes.get(minute)
        if table is not None:
            self._minutes.move_to_end(minute)
            return table
        self._evict()
        newest = next(reversed(self._minutes.values()), None)
        blocks = self._blocks.setdefault(minute, _Blocks(self._journal))
        # A new minute gets what the one before needed, so that at a steady rate no table has to grow.
        table = self._minutes[minute] = _Minute(blocks, expected=0 if newest is None or blocks.count else len(newest))
        return table

    def _evict(self) -> None:
        resident = self.resident_bytes()
        for minute in list(self._minutes)[:-1]:
            if resident <= self._resident_bytes:
                return
            if minute not in self._fresh:
                resident -= self._minutes.pop(minute).nbytes

    def _note_block(self, minute: int, place: Place, entries: int) -> None:
        self._blocks.setdefault(minute, _Blocks(self._journal)).add(place, entries)
        self._newest_in[place.segment] = max(self._newest_in.get(place.segment, minute), minute)
        self._newest = max(self._newest, minute * MINUTE_MS)

    def _expire(self) -> None:
        oldest = (self._newest - self._horizon) // MINUTE_MS
        if oldest <= self._oldest:
            return
        self._oldest = oldest
        for minute in [minute for minute in self._blocks if minute < oldest]:
            del self._blocks[minute]
            self._minutes.pop(minute, None)
        writing = self._journal.end().segment
        for segment, newest in list(self._newest_in.items()):
            if newest < oldest and segment != writing:
                self._journal.drop(segment)
                del self._newest_in[segment]


def _head(minute: int) -> bytes:
    return _MINUTE.pack(minute, zlib.crc32(b"%d" % minute))


class _Blocks:
    """The entries of one minute that are in the journal, by number: 12 bytes of memory for each block."""

    __slots__ = ("_blocks", "_journal", "count")

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._blocks = array("I")
        """of each block its segment, its place in it, and the number of its first entry"""
        self.count = 0

    def add(self, place: Place, entries: int) -> None:
        self._blocks.extend((place.segment, place.offset, self.count))
        self.count += entries

    def all(self) -> Uint64s:
        """Every entry, shape (entries, 4)."""
        blocks = [self._block(block) for block in range(len(self._blocks) // 3)]
        return np.concatenate(blocks) if blocks else _NO_ENTRIES

    def some(self, numbers: Int64s) -> Uint64s:
        """Entries by number, shape (numbers, 4)."""
        entries = np.empty((len(numbers), _WORDS), dtype=np.uint64)
        starts = np.array(self._blocks[2::3], dtype=np.int64)
        block_of = np.searchsorted(starts, numbers, side="right") - 1
        for block in np.unique(block_of).tolist():
            rows = np.flatnonzero(block_of == block)
            inside = numbers[rows] - starts[block]
            if len(rows) > _SINGLY:
                entries[rows] = self._block(block)[inside]
            else:
                place = self._place(block)
                for row, number in zip(rows.tolist(), inside.tolist(), strict=True):
                    raw = self._journal.peek(place, _MINUTE.size + 8 * _WORDS * number, 8 * _WORDS)
                    entries[row] = np.frombuffer(raw, dtype=np.uint64)
        return entries

    def _place(self, block: int) -> Place:
        return Place(*self._blocks[3 * block : 3 * block + 2])

    def _block(self, block: int) -> Uint64s:
        payload = self._journal.read(self._place(block))
        return np.frombuffer(payload, dtype=np.uint64, offset=_MINUTE.size).reshape(-1, _WORDS)


class _Minute:
    """A hash table over one minute's entries: open addressing, linear probing, at most two thirds full. A slot is
    0, or the entry's number from 1 on below a tag: as many bits of its hash as there is room for."""

    def __init__(self, blocks: _Blocks, *, expected: int) -> None:
        self._blocks = blocks
        self._fresh = _NO_ENTRIES
        """entries that are not in the journal, with room behind them"""
        self._fresh_count = 0
        self._build(max(expected, blocks.count))

    def __len__(self) -> int:
        return self._blocks.count + self._fresh_count

    @property
    def nbytes(self) -> int:
        return self._slots.nbytes + self._fresh.nbytes

    def admit(self, entries: Uint64s) -> npt.NDArray[np.int8]:
        """A verdict for each of some entries."""
        events = len(entries)
        known = len(self)
        if (known + events) * 3 > len(self._slots) * 2:
            self._build(max(2 * known, known + events))
        verdicts = np.zeros(events, dtype=np.int8)
        new = np.ones(events, dtype=np.bool_)
        places = (entries[:, LOW] & np.uint64(len(self._slots) - 1)).astype(np.int64)
        wanted = self._tagged(entries[:, LOW], known + 1)
        pending = np.arange(events)
        mask = np.uint64((1 << self._number_bits) - 1)
        while len(pending := advance(self._slots, places, wanted, pending, self._number_bits)):
            numbers = (self._slots[places[pending]] & mask).astype(np.int64) - 1
            found, mine = self._entries(numbers, known, entries), entries[pending]
            same = (found[:, LOW] == mine[:, LOW]) & (found[:, HIGH] == mine[:, HIGH])
            new[pending[same]] = False
            verdicts[pending[same]] = np.where(
                found[same, MARK] == mine[same, MARK],
                Verdict.ACCEPTED,
                np.where(found[same, CONTENT] == mine[same, CONTENT], Verdict.DUPLICATE, Verdict.CONFLICT),
            )
            pending = pending[~same]
            places[pending] = (places[pending] + 1) & (len(self._slots) - 1)
        if new.all():
            self._keep(entries)
        else:
            fresh = entries[new]
            self._keep(fresh)
            self._slots[places[new]] = self._tagged(fresh[:, LOW], known + 1)
        return verdicts

    def take_fresh(self) -> Uint64s:
        """The entries that are to go into the journal, shape (entries, 4); the caller tells `_Blocks` of them."""
        fresh = self._fresh[: self._fresh_count]
        self._fresh, self._fresh_count = _NO_ENTRIES, 0
        return fresh

    def _keep(self, entries: Uint64s) -> None:
        needed = self._fresh_count + len(entries)
        if needed > len(self._fresh):
            grown = np.empty((max(needed, 2 * len(self._fresh)), _WORDS), dtype=np.uint64)
            grown[: self._fresh_count] = self._fresh[: self._fresh_count]
            self._fresh = grown
        self._fresh[self._fresh_count : needed] = entries
        self._fresh_count = needed

    def _entries(self, numbers: Int64s, known: int, admitting: Uint64s) -> Uint64s:
        """Entries by number, from 0: those in the journal, the fresh ones, and those just being admitted."""
        entries = np.empty((len(numbers), _WORDS), dtype=np.uint64)
        durable, new = numbers < self._blocks.count, numbers >= known
        fresh = ~durable & ~new
        if durable.any():
            entries[durable] = self._blocks.some(numbers[durable])
        entries[fresh] = self._fresh[numbers[fresh] - self._blocks.count]
        entries[new] = admitting[numbers[new] - known]
        return entries

    def _build(self, expected: int) -> None:
        """A new table with room for ``expected`` entries, holding those that there are."""
        size = _LEAST_SLOTS
        while size * 2 < expected * 3:
            size *= 2
        # Numbers are below the size, as two thirds of it are used at most.
        self._number_bits = size.bit_length() - 1
        wide = self._number_bits + _LEAST_TAG_BITS > 32
        self._slots: Slots = np.zeros(size, dtype=np.uint64) if wide else np.zeros(size, dtype=np.uint32)
        low = np.concatenate((self._blocks.all()[:, LOW], self._fresh[: self._fresh_count, LOW]))
        places = (low & np.uint64(size - 1)).astype(np.int64)
        wanted = self._tagged(low, 1)
        pending = np.arange(len(low))
        while len(pending := advance(self._slots, places, wanted, pending, self._number_bits)):
            places[pending] = (places[pending] + 1) & (size - 1)

    def _tagged(self, low: Uint64s, first_number: int) -> Slots:
        """What the slots of consecutive entries hold."""
        numbers = np.arange(first_number, first_number + len(low), dtype=np.uint64)
        tag_bits = 8 * self._slots.itemsize - self._number_bits
        tagged = (low >> np.uint64(64 - tag_bits)) << np.uint64(self._number_bits) | numbers
        return tagged if self._slots.itemsize == tagged.itemsize else tagged.astype(np.uint32)
