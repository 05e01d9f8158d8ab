"""Reading Kinesis: a thread fetches ahead into bounded buffers, so that ``poll`` only waits as long as it was told to.

A shard that was split or merged is read to its end before its children, so that a key's records keep their order.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from sales.aws_faults import code, passes
from sales.events import Log
from sales.streams import (
    NO_TIPS,
    SILENT_SECONDS,
    AwayError,
    Checkpoint,
    Checkpoints,
    Chunk,
    PositionLostError,
    StreamError,
)
from sales.streams.reaching import backoff
from sales.streams.seldom import Seldom

log = Log(__name__)

IDLE_SECONDS = 1.0
"""The pause grows to this while a shard gives nothing."""

LONGEST_BACKOFF_SECONDS = 10.0

LIST_SECONDS = 10.0
"""How often the shards are listed: splits, merges and a deleted stream are noticed this late at most."""

FETCH_RECORDS = 10_000
"""The most that GetRecords returns; at most 10 MB."""

AHEAD_RECORDS = 10_000
"""A shard with this many records in its buffer is not read further."""

AHEAD_BYTES = 64 * 1024 * 1024
"""While all buffers together hold this much, only a shard whose own is empty is read: one that is paused holds back no
other."""

TIP_MARGIN_SECONDS = 600.0
"""How far this machine's clock may be off from the service's when a shard is read on by the time of its tip."""

TIP_SECONDS = 600.0
"""How often a member saves that a quiet shard is still at its tip."""

FIRST_LOAD_PAUSE_SECONDS = 0.5
"""Before checkpoints that could not be loaded are asked for again; the pause grows to ``LIST_SECONDS``."""

CLOSE_SECONDS = 5.0
"""How long ``close`` waits for a request that is under way; the thread ends with it in any case."""


@dataclass(frozen=True, slots=True)
class Shard:
    """A shard as the service lists it."""

    name: str
    parents: tuple[str, ...]
    closed: bool
    """takes no more records: it was split or merged"""


@dataclass(frozen=True, slots=True)
class Listing:
    """A stream's shards, and how long it keeps their records."""

    shards: list[Shard]
    """parents before children"""
    retention_seconds: float


@dataclass(slots=True, eq=False)
class _Source:
    """One shard being read. Guarded by the reader's condition, but for what only the fetching thread touches."""

    shard: Shard
    after: int | None
    """position of the last record fetched"""
    pause: float
    """seconds between two reads; grows while there is nothing"""
    tip: Checkpoint | None = None
    """the last time when there was nothing behind a position not after ``after``"""
    unproved: bool = False
    """the record at ``after`` has still to be seen, as proof that nothing after it was removed"""
    by_time: bool = False
    """that record has expired; the iterator began at the time of the tip"""
    iterator: str | None = None
    due: float = 0.0
    faults: int = 0
    chunks: deque[Chunk] = field(default_factory=deque)
    records: int = 0
    at_tip: bool = False
    heard: float = 0.0
    """when it was last fetched, on a clock that never goes back"""
    finished: bool = False
    paused: bool = False

    @property
    def done(self) -> bool:
        """Read to its end, and everything handed out."""
        return self.finished and not self.chunks


class KinesisReader:
    """Reads shards that the caller names, each after a position."""

    def __init__(
        self,
        client: Any,
        stream: str,
        list_shards: Callable[[], Listing],
        *,
        listed: Listing,
        read_seconds: float,
    ) -> None:
        self._client = client
        self._stream = stream
        self._list_shards = list_shards
        self._listed = listed.shards
        self._read_seconds = read_seconds
        self._changed = threading.Condition()
        self._sources: dict[str, _Source] = {}
        self._bytes = 0
        self._failure: StreamError | None = None
        self._stopping = False
        self._list_due = time.monotonic() + LIST_SECONDS
        self._seldom = Seldom()
        self._thread = threading.Thread(target=self._run, name=f"kinesis-{stream}", daemon=True)
        self._thread.start()

    def partitions(self) -> list[str]:
        """All shards that were listed last, every ``LIST_SECONDS``; a child appears when its parents have ended, or
        earlier."""
        return [shard.name for shard in self._listed]

    def add(self, after: Mapping[str, int | None], tips: Mapping[str, int] = NO_TIPS) -> None:
        """Begins to read these shards; lists them anew if some are not known yet."""
        fresh = {name: position for name, position in after.items() if name not in self._sources}
        shards = {shard.name: shard for shard in self._listed}
        if not fresh.keys() <= shards.keys():
            shards = {shard.name: shard for shard in self._list_shards().shards}
        missing = sorted(fresh.keys() - shards.keys())
        if missing:
            raise PositionLostError(f"stream {self._stream} has no shards {', '.join(missing)} any more")
        self._begin(
            [(shards[name], position) for name, position in fresh.items()],
            {
                name: Checkpoint(position, tips[name])
                for name, position in fresh.items()
                if position is not None and name in tips
            },
        )

    def _begin(
        self, starts: list[tuple[Shard, int | None]], tips: Mapping[str, Checkpoint | None] = MappingProxyType({})
    ) -> None:
        with self._changed:
            for shard, after in starts:
                self._sources[shard.name] = _Source(shard, after, pause=self._read_seconds, tip=tips.get(shard.name))
            self._changed.notify_all()

    def poll(self, max_records: int, timeout: float) -> list[Chunk]:
        """The next records, of a parent before its children; waits at most ``timeout`` seconds for the first."""
        deadline = time.monotonic() + timeout
        with self._changed:
            while True:
                if self._stopping:
                    raise StreamError(f"the reader of {self._stream} is closed")
                chunks = self._take(max_records)
                if chunks:
                    self._changed.notify_all()
                    return chunks
                if self._failure is not None:
                    raise self._failure
                remaining = deadline - time.monotonic()
                if remaining <= 0:
                    return []
                self._changed.wait(remaining)

    def _take(self, max_records: int) -> list[Chunk]:
        taken = []
        room = max_records
        for name, source in list(self._sources.items()):
            if room <= 0:
                break
            if source.paused or not source.chunks:
                continue
            chunk = source.chunks.popleft()
            if len(chunk) > room:
                chunk, rest = chunk.cut(room)
                source.chunks.appendleft(rest)
            taken.append(chunk)
            room -= len(chunk)
            source.records -= len(chunk)
            self._bytes -= chunk.size()
            # Read shards move to the back, so that a small max_records starves none.
            del self._sources[name]
            self._sources[name] = source
        return taken

    def lag(self) -> dict[str, int | None]:
        """0 for a shard whose last fetch came to its tip and was handed out."""
        silent = time.monotonic() - SILENT_SECONDS
        with self._changed:
            return {
                name: 0
                if not source.chunks and (source.finished or (source.at_tip and source.heard > silent))
                else None
                for name, source in self._sources.items()
            }

    def tips(self) -> dict[str, int]:
        """As `PackedReader.tips`: of shards of which all that was fetched has been handed out."""
        with self._changed:
            return {
                name: source.tip.tip_ms
                for name, source in self._sources.items()
                if source.tip is not None and not source.chunks
            }

    def close(self) -> None:
        """Ends the thread."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        if self._thread is not threading.current_thread():
            self._thread.join(CLOSE_SECONDS)

    # What follows runs in the fetching thread.

    def _run(self) -> None:
        try:
            while True:
                with self._changed:
                    source = self._next()
                    if self._stopping or self._failure is not None:
                        return
                if source is None:
                    self._refresh()
                else:
                    self._fetch(source)
        except StreamError as fault:
            self._fail(fault)
        except Exception as fault:  # a thread has no caller: whatever ends it must reach poll()
            self._fail(StreamError(f"reading {self._stream} failed: {fault!r}"))
            raise

    def _next(self) -> _Source | None:
        """Waits until a shard may be read, and returns it; None: the shards are to be listed again, or it is over."""
        while not self._stopping and self._failure is None:
            now = time.monotonic()
            if self._list_due <= now:
                return None
            ready = [source for source in self._sources.values() if self._may_read(source)]
            source = min(ready, key=lambda ready: ready.due, default=None)
            if source is not None and source.due <= now:
                return source
            due = self._list_due if source is None else min(source.due, self._list_due)
            self._changed.wait(due - now)
        return None

    def _may_read(self, source: _Source) -> bool:
        return (
            not source.finished
            and not source.paused
            and source.records < AHEAD_RECORDS
            and (not source.chunks or self._bytes < AHEAD_BYTES)
            and all(parent not in self._sources or self._sources[parent].done for parent in source.shard.parents)
        )

    def _refresh(self) -> None:
        try:
            listed = self._list_shards().shards
        except PositionLostError:
            raise
        except StreamError as fault:
            self._warn(fault)
            listed = []
        with self._changed:
            self._list_due = time.monotonic() + LIST_SECONDS
            if listed:
                self._listed = listed
            for shard in listed:
                source = self._sources.get(shard.name)
                if source is not None:
                    source.shard = shard
            self._changed.notify_all()

    def _fetch(self, source: _Source) -> None:
        """One read of one shard; what it brings is dropped if the shard was sought elsewhere meanwhile."""
        started = time.monotonic()
        began_ms = time.time_ns() // 1_000_000
        closed = source.shard.closed
        try:
            if source.iterator is None:
                source.iterator = self._iterator(source)
            answer = self._client.get_records(ShardIterator=source.iterator, Limit=FETCH_RECORDS)
        except ClientError as fault:
            if code(fault) == "ExpiredIteratorException":
                source.iterator, source.by_time = None, False
            elif code(fault) in ("InvalidArgumentException", "ResourceNotFoundException"):
                self._go_by_time(source, str(fault))
            elif passes(fault):
                self._put_off(source, fault)
            else:
                raise StreamError(f"reading {self._stream}/{source.shard.name} failed: {fault}") from fault
            return
        except BotoCoreError as fault:
            self._put_off(source, fault)
            return
        source.faults = 0
        at_tip = answer["MillisBehindLatest"] == 0 and len(answer["Records"]) < FETCH_RECORDS
        # A closed shard's end is the missing iterator. Not every server leaves it out; but a shard that was closed
        # before we asked, and had nothing more up to its tip, has ended as well.
        following = answer.get("NextShardIterator")
        finished = following is None or (closed and at_tip and not answer["Records"])
        if source.unproved and (answer["Records"] or at_tip or finished):
            if not answer["Records"] or int(answer["Records"][0]["SequenceNumber"]) != source.after:
                self._go_by_time(source, "records after it may have been removed by retention")
                return
            source.unproved = False
        source.iterator = following
        chunk = self._chunk(source, answer["Records"])
        with self._changed:
            if self._sources.get(source.shard.name) is not source:
                return
            if at_tip and source.after is not None:
                source.tip = Checkpoint(source.after, began_ms)
            source.at_tip = at_tip
            source.heard = time.monotonic()
            source.finished = finished
            if finished:
                self._list_due = started  # its children can be read now
            if len(chunk):
                source.chunks.append(chunk)
                source.records += len(chunk)
                self._bytes += chunk.size()
                source.pause = self._read_seconds
            elif at_tip:
                source.pause = min(source.pause * 2, max(IDLE_SECONDS, self._read_seconds))
            source.due = started + source.pause
            self._changed.notify_all()

    def _iterator(self, source: _Source) -> str:
        """The first fetch begins at the record that was done last: if it is no longer there, more may be missing, and
        Kinesis has no other way to tell."""
        where: dict[str, Any]
        if source.after is None:
            where = {"ShardIteratorType": "TRIM_HORIZON"}
        elif source.by_time and source.tip is not None:
            earliest = source.tip.tip_ms / 1000 - TIP_MARGIN_SECONDS
            where = {"ShardIteratorType": "AT_TIMESTAMP", "Timestamp": earliest}
        else:
            where = {"ShardIteratorType": "AT_SEQUENCE_NUMBER", "StartingSequenceNumber": str(source.after)}
        source.unproved = source.after is not None and not source.by_time
        answer = self._client.get_shard_iterator(StreamName=self._stream, ShardId=source.shard.name, **where)
        iterator: str = answer["ShardIterator"]
        return iterator

    def _go_by_time(self, source: _Source, why: str) -> None:
        """The last record that was done can't be found. When the shard was at its tip there, not longer ago than the
        stream keeps records, all that came behind it is still there: it is read on from that time. That is so for a
        shard that is quiet for longer than its retention.

        Raises:
            PositionLostError: that was too long ago, or is not known; or the stream was deleted.
        """
        try:
            retention = self._list_shards().retention_seconds
        except PositionLostError:
            raise
        except StreamError as fault:
            source.iterator = None
            self._put_off(source, fault)
            return
        oldest_ms = (time.time() - retention + 2 * TIP_MARGIN_SECONDS) * 1000
        was_there = source.after is not None and source.tip is not None and source.tip.position <= source.after
        if source.by_time or not was_there or source.tip is None or source.tip.tip_ms < oldest_ms:
            raise PositionLostError(
                f"{self._stream}/{source.shard.name} no longer holds position {source.after}: {why}"
            )
        source.iterator, source.by_time = None, True

    def _chunk(self, source: _Source, records: list[dict[str, Any]]) -> Chunk:
        """What is new of these records, as columns."""
        if source.after is not None:
            new = next((at for at, found in enumerate(records) if int(found["SequenceNumber"]) > source.after), None)
            records = [] if new is None else records[new:]
        chunk = Chunk(
            source.shard.name,
            [record["PartitionKey"].encode() for record in records],
            [record["Data"] for record in records],
            [int(record["SequenceNumber"]) for record in records],
            [round(record["ApproximateArrivalTimestamp"].timestamp() * 1000) for record in records],
        )
        if records:
            source.after = chunk.positions[-1]
            source.by_time = False
        return chunk

    def _put_off(self, source: _Source, fault: Exception) -> None:
        """Reads the shard again later: with longer pauses, not all readers at the same moment."""
        source.faults += 1
        source.due = time.monotonic() + backoff(source.faults, self._read_seconds, LONGEST_BACKOFF_SECONDS)
        self._warn(fault)

    def _warn(self, fault: Exception) -> None:
        if self._seldom.due(type(fault).__name__):
            log.warning(
                "kinesis_read_repeated", "reading {stream}: {error}; trying again", stream=self._stream, error=fault
            )

    def _fail(self, fault: StreamError) -> None:
        with self._changed:
            self._failure = fault
            self._changed.notify_all()


class KinesisMember(KinesisReader):
    """The only member of its group: every shard is its own, new ones when they are listed."""

    def __init__(
        self,
        client: Any,
        stream: str,
        list_shards: Callable[[], Listing],
        *,
        stream_id: str,
        group: str,
        checkpoints: Checkpoints,
        on_assigned: Callable[[dict[str, int | None]], None],
        on_revoked: Callable[[list[str]], None],
        read_seconds: float,
    ) -> None:
        self._stream_id = stream_id
        self._group = group
        self._checkpoints = checkpoints
        self._on_assigned = on_assigned
        self._on_revoked = on_revoked
        self._arriving: dict[str, int | None] = {}
        self._known: set[str] = set()
        self._done: dict[str, int | None] = {}
        """the position up to which the caller is done with a shard: committed, or where it chose to read on"""
        self._told: dict[str, float] = {}
        """when each shard's checkpoint was last saved, or tried"""
        self._load_at = 0.0
        self._load_tries = 0
        super().__init__(client, stream, list_shards, listed=list_shards(), read_seconds=read_seconds)

    def poll(self, max_records: int, timeout: float) -> list[Chunk]:
        """As a reader's; lets go of shards that ended and takes on new ones first."""
        self._let_go()
        self._take_on()
        self._tell_tips()
        return super().poll(max_records, timeout)

    def _let_go(self) -> None:
        """Of shards that ended, once the caller is done with all of them: nobody would read the rest again. One that is
        paused waits for something."""
        with self._changed:
            ended = [
                name
                for name, source in self._sources.items()
                if source.done and not source.paused and source.after == self._done[name]
            ]
        if ended:
            self._on_revoked(ended)
            with self._changed:
                for name in ended:
                    del self._sources[name]
                self._changed.notify_all()

    def _take_on(self) -> None:
        with self._changed:
            arriving = [shard for shard in self._listed if shard.name not in self._known]
        if not arriving or time.monotonic() < self._load_at:
            return
        try:
            found = {shard.name: self._checkpoints.load(self._group, self._stream_id, shard.name) for shard in arriving}
        except AwayError as fault:
            self._load_at = time.monotonic() + backoff(self._load_tries, FIRST_LOAD_PAUSE_SECONDS, LIST_SECONDS)
            self._load_tries += 1
            self._warn(fault)
            return
        self._load_tries = 0
        self._arriving = {name: None if saved is None else saved.position for name, saved in found.items()}
        try:
            self._on_assigned(dict(self._arriving))
            self._done |= self._arriving
            self._told |= dict.fromkeys(found, time.monotonic())
            self._begin([(shard, self._arriving[shard.name]) for shard in arriving], found)
            self._known.update(found)
        finally:
            self._arriving = {}

    def _tell_tips(self) -> None:
        """Saves of quiet shards, once in a while, that there is still nothing new: see ``_go_by_time``."""
        now = time.monotonic()
        with self._changed:
            quiet = [
                (name, source.tip)
                for name, source in self._sources.items()
                if now - self._told[name] >= TIP_SECONDS
                and source.tip is not None
                and source.tip.position == self._done[name]
            ]
        for name, tip in quiet:
            self._told[name] = now
            try:
                self._checkpoints.save(self._group, self._stream_id, name, tip)
            except StreamError as fault:
                self._warn(fault)

    def commit(self, positions: Mapping[str, int]) -> None:
        """Saves the positions through the checkpoints, one after the other."""
        for partition in positions:
            self._own(partition)
        for partition, position in positions.items():
            tip = self._own(partition).tip
            known = tip is not None and tip.position <= position
            checkpoint = Checkpoint(position, tip.tip_ms if tip is not None and known else 0)
            self._checkpoints.save(self._group, self._stream_id, partition, checkpoint)
            self._done[partition] = position
            self._told[partition] = time.monotonic()

    def pause(self, partition: str) -> None:
        """What was fetched ahead stays in its buffer."""
        with self._changed:
            self._own(partition).paused = True

    def resume(self, partition: str) -> None:
        """Goes on where the reader was."""
        with self._changed:
            self._own(partition).paused = False
            self._changed.notify_all()

    def seek(self, partition: str, after: int | None) -> None:
        """Drops what was fetched ahead and goes on after a position."""
        if partition in self._arriving:
            self._arriving[partition] = after
            return
        with self._changed:
            source = self._own(partition)
            self._bytes -= sum(map(Chunk.size, source.chunks))
            self._sources[partition] = _Source(
                source.shard, after, pause=self._read_seconds, paused=source.paused, tip=source.tip
            )
            self._done[partition] = after
            self._changed.notify_all()

    def _own(self, partition: str) -> _Source:
        source = self._sources.get(partition)
        if source is None:
            raise StreamError(f"partition {partition} of {self._stream} is not assigned to this member")
        return source

    def close(self) -> None:
        """Gives every shard back first."""
        if self._stopping:
            return
        held = list(self._sources)
        if held:
            self._on_revoked(held)
        super().close()
