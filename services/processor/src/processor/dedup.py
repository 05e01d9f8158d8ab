"""Which events were seen before: identity to position and content, by event minute.

An event's identity is its order id and event time. The first position that carries it is the event; the same position
again (a replay after a crash) is accepted again, another position is a duplicate or, with other content, a conflict.
So the map may run ahead of the snapshot that the stream is read from, and only has to be durable before a snapshot
that passes its positions: `sync`.

A duplicate carries the event time of its original, so only that minute's identities are looked up. Minutes in use are
in memory; behind them is one journal, read again when something late arrives for a minute that has left memory.
"""

import struct
from collections import OrderedDict
from collections.abc import Sequence
from enum import IntEnum

import numpy as np
import numpy.typing as npt
import xxhash

from processor.journal import Journal, Place
from sales.windows import MINUTE_MS

MAX_RESIDENT = 2_000_000
"""Identities kept in memory (about 250 bytes each): some minutes at full speed, days in an ordinary shop."""

_SEGMENT_BYTES = 64 * 1024 * 1024
"""A segment is removed when its newest minute has expired, so it should hold not much more than some minutes."""

_DIGEST = 16
_POSITION = 24
"""Bytes of a position: 56 decimal digits (Kinesis) are 186 bits."""
_ENTRY = _DIGEST + _DIGEST + _POSITION
_MINUTE = struct.Struct("<q")

Seen = tuple[int, bytes]
"""position and content digest"""


class Verdict(IntEnum):
    """What an event is."""

    ACCEPTED = 0
    DUPLICATE = 1
    CONFLICT = 2


class Dedup:
    """The identities of one source slot. One thread; `admit` may read the disk, `sync` writes it."""

    def __init__(self, journal: Journal, *, seed: int, horizon_ms: int, max_resident: int = MAX_RESIDENT) -> None:
        """Opens what an earlier run has left.

        Args:
            journal: where identities are kept; nobody else writes it.
            seed: a secret of this deployment, so that nobody can craft two orders with one hash.
            horizon_ms: how far behind the newest event an event is still looked up: at least the longest window.
            max_resident: identities kept in memory.
        """
        self._journal = journal
        self._seed = seed
        self._horizon = horizon_ms
        self._max_resident = max_resident
        self._resident = 0
        self._minutes: OrderedDict[int, dict[bytes, Seen]] = OrderedDict()
        self._blocks: dict[int, list[Place]] = {}
        self._newest_in: dict[int, int] = {}
        """segment to its newest minute"""
        self._fresh: dict[int, list[bytes]] = {}
        """entries by minute that are not in the journal yet"""
        self._newest = 0
        for segment in journal.segments():
            for place, payload in journal.frames(segment):
                self._note_block(_MINUTE.unpack_from(payload)[0], place)
        if journal.segments():
            journal.end()

    def admit(
        self,
        order_ids: Sequence[str],
        event_times: npt.NDArray[np.int64],
        contents: Sequence[bytes],
        positions: Sequence[int],
    ) -> npt.NDArray[np.int8]:
        """A `Verdict` for each event, in the order of their positions (one partition), and remembers the accepted."""
        verdicts = np.zeros(len(order_ids), dtype=np.int8)
        if not len(order_ids):
            return verdicts
        self._newest = max(self._newest, int(event_times.max()))
        oldest = self._newest - self._horizon
        for minute in np.unique(event_times // MINUTE_MS).tolist():
            if minute in self._minutes:
                self._minutes.move_to_end(minute)  # the least recently used minute leaves memory first
        seed, digest = self._seed, xxhash.xxh3_128_digest
        rows = zip(order_ids, event_times.tolist(), contents, positions, strict=True)
        for row, (order_id, event_time, content, position) in enumerate(rows):
            minute = event_time // MINUTE_MS
            if event_time < oldest:
                continue  # no window covers it and no map knows it
            known = self._minutes.get(minute)
            if known is None:
                known = self._load(minute)
            identity = digest(f"{order_id}\0{event_time}".encode(), seed=seed)
            content_digest = digest(content, seed=seed)
            seen = known.get(identity)
            if seen is None or position < seen[0]:
                known[identity] = (position, content_digest)
                self._resident += seen is None
                entry = identity + content_digest + position.to_bytes(_POSITION, "little")
                self._fresh.setdefault(minute, []).append(entry)
            elif seen[0] != position:
                verdicts[row] = Verdict.DUPLICATE if seen[1] == content_digest else Verdict.CONFLICT
        return verdicts

    def sync(self) -> None:
        """Makes everything admitted durable, then lets old minutes go. Blocks for one write to the disk."""
        for minute, entries in self._fresh.items():
            self._note_block(minute, self._journal.append(_MINUTE.pack(minute) + b"".join(entries)))
        self._journal.sync()
        self._fresh = {}
        self._expire()
        while self._resident > self._max_resident and len(self._minutes) > 1:
            _, dropped = self._minutes.popitem(last=False)
            self._resident -= len(dropped)
        if self._journal.end().offset > _SEGMENT_BYTES:
            self._journal.roll()

    def _load(self, minute: int) -> dict[bytes, Seen]:
        known: dict[bytes, Seen] = {}
        for place in self._blocks.get(minute, ()):
            block = self._journal.read(place)
            for start in range(_MINUTE.size, len(block), _ENTRY):
                identity = block[start : start + _DIGEST]
                content = block[start + _DIGEST : start + 2 * _DIGEST]
                position = int.from_bytes(block[start + 2 * _DIGEST : start + _ENTRY], "little")
                seen = known.get(identity)
                if seen is None or position < seen[0]:
                    known[identity] = (position, content)
        self._minutes[minute] = known
        self._resident += len(known)
        return known

    def _note_block(self, minute: int, place: Place) -> None:
        self._blocks.setdefault(minute, []).append(place)
        self._newest_in[place.segment] = max(self._newest_in.get(place.segment, minute), minute)
        self._newest = max(self._newest, minute * MINUTE_MS)

    def _expire(self) -> None:
        oldest = (self._newest - self._horizon) // MINUTE_MS
        for minute in [minute for minute in self._blocks if minute < oldest]:
            del self._blocks[minute]
            self._resident -= len(self._minutes.pop(minute, ()))
        writing = self._journal.end().segment
        for segment, newest in list(self._newest_in.items()):
            if newest < oldest and segment != writing:
                self._journal.drop(segment)
                del self._newest_in[segment]
