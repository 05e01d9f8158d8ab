"""Carries a stream's records to a lane, which stores them; in order, each at least once, in bounded memory.

One thread reads, decodes and decides; jobs on a few worker threads talk to the store. So a store that is slow or away
never keeps the reader from its group: its partitions are paused, and go on when the store is back. A partition has at
most one extent being stored and one being filled::

    stream ──poll──▶ open extent ──rotation──▶ sealed extent ──lane.store──▶ commit
                     └─ full while another is being stored: pause
"""

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from typing import Generic, TypeVar

from sales.events import Log
from sales.streams import AwayError, Checkpoints, Stream, StreamError
from sales.streams.packed import Packed, PackedMember
from sales.streams.reaching import backoff
from sink import failpoints
from sink.lanes import Extent, Lane, Pinned, Start, Stored, Wrote

log = Log(__name__)

POLL_RECORDS = 10_000
POLL_BYTES = 4_000_000
"""What one poll should bring: columns of 2,000 to 10,000 records are decoded fastest, and while they are, each byte of
theirs takes about ten as Python objects."""

FIRST_POLL_RECORDS = 500
"""Until it is known how large the records are."""

POLL_SECONDS = 0.1
"""How late a finished job or a stop is noticed when nothing arrives."""

FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 30.0
"""Between two tries of a job whose store is away; with jitter, so that lanes don't come back together."""

COMMIT_SECONDS = 5.0
"""Between two commits: each is a round trip on the reading thread, on Kinesis for each partition, and paid for. What a
crash makes the index read again is the work of seconds; the archive's chain knows by itself."""

FIRST_COMMIT_PAUSE_SECONDS = 1.0
"""Before a commit that was not acknowledged is tried again; grows to LONGEST_PAUSE_SECONDS."""

REJECTED_BYTES = 64
"""What the position of a malformed message takes in memory, an integer of up to 187 bits and its place in a list."""

REPORT_SECONDS = 60.0
"""A line of counts on the log, when something happened."""

LOOK_SECONDS = 1.0
"""How old ``Delivery.standing`` may be while the delivery takes its turns."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Limits:
    """When an open extent is sealed, and how much is held."""

    rotate_bytes: int
    rotate_records: int
    rotate_seconds: float
    """since the extent's first record; 0: as soon as nothing of the partition is being stored"""
    buffer_bytes: int
    """bytes in memory, of all partitions; beyond it, everything is paused until something is stored"""
    workers: int = 2
    """extents stored at one time"""


@dataclass(slots=True)
class Counts:
    """What a delivery did since it began."""

    taken: int = 0
    """messages from the stream; what was given up is read again, and counted again"""
    read: int = 0
    """in extents that are stored"""
    rejected: int = 0
    objects: int = 0
    bytes: int = 0
    items: int = 0
    duplicates: int = 0
    """these as ``Wrote`` has them"""
    extents: int = 0
    retries: int = 0
    """jobs that found the store away"""
    repeated: int = 0
    """extents that another writer had pinned or stored"""


@dataclass(frozen=True, slots=True)
class Lag:
    """What a partition holds that is not stored."""

    messages: int | None
    """read or not; None: the wire does not count them, or nobody asked. Of a partition that is paused at least so
    many"""
    reached: float
    """what the broker took before this time is stored, as far as is known; in seconds since 1970"""

    def seconds(self, now: float) -> float:
        """How old the oldest of these messages is at most; 0 where there is none."""
        return 0.0 if self.messages == 0 else max(0.0, now - self.reached)


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a delivery is."""

    lags: Mapping[str, Lag]
    """by partition"""
    unstarted: tuple[str, ...]
    """partitions of which it is not known yet where to begin: the store is away"""
    held: int
    """bytes in memory"""


@dataclass(slots=True)
class _Open(Generic[T]):
    """The extent that is being filled."""

    after: int | None
    end: int | None = None
    pieces: list[T] = field(default_factory=list)
    read: int = 0
    rejected: list[int] = field(default_factory=list)
    bytes: int = 0
    held: int = 0
    since: float = 0.0
    oldest: float = 0.0
    """when the broker took the first message, in seconds since 1970"""

    @property
    def last(self) -> int | None:
        """The position up to which the partition was read."""
        return self.after if self.end is None else self.end


@dataclass(slots=True)
class _Partition(Generic[T]):
    """One assigned partition."""

    name: str
    committed: int | None
    reached: float
    """as ``Lag`` has it"""
    open: _Open[T] | None = None
    """None until it is known where to start"""
    pinned_end: int | None = None
    """where the open extent must end"""
    sealed: Extent[T] | None = None
    job: "Future[Start | Stored | Pinned] | None" = None
    tries: int = 0
    retry_at: float = 0.0
    paused: bool = False
    abandoned: threading.Event = field(default_factory=threading.Event)

    def held(self) -> int:
        """Bytes in memory."""
        return (self.open.held if self.open else 0) + (self.sealed.held if self.sealed else 0)


class Delivery(Generic[T]):
    """Runs one lane on one stream, as a member of a group.

    Args:
        stream: what is read.
        group: the group that shares it.
        checkpoints: where a wire without memory of its own keeps positions.
        lane: what stores.
        limits: rotation and memory.
        stop_seconds: how long a stop, or the loss of a partition, waits for stores under way.
        clock: seconds that only grow.
        now: seconds since 1970.
    """

    def __init__(
        self,
        stream: Stream,
        group: str,
        checkpoints: Checkpoints,
        lane: Lane[T],
        limits: Limits,
        *,
        stop_seconds: float,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.counts = Counts()
        self.running = False
        """between the group's joining and the end"""
        self.standing: Standing | None = None
        """replaced as a whole, for other threads to read; None: no partition was assigned yet"""
        self._stream = stream
        self._group = group
        self._checkpoints = checkpoints
        self._lane = lane
        self._limits = limits
        self._stop_seconds = stop_seconds
        self._clock = clock
        self._now = now
        self._turned = clock()
        self._look_at = 0.0
        self._partitions: dict[str, _Partition[T]] = {}
        self._uncommitted: dict[str, int] = {}
        self._commit_at = 0.0
        self._commit_tries = 0
        self._poll_records = FIRST_POLL_RECORDS
        self._fault: Exception | None = None
        self._report_at = clock() + REPORT_SECONDS
        self._reported = Counts()

    def run(self, stop: threading.Event) -> None:
        """Joins the group and delivers until ``stop`` is set; then stores what was read, commits and leaves. Requests
        that are still under way are left alone then: whoever reads next repeats them.

        Raises:
            StreamError: the stream can't be read on.
            StoreError: the store refuses for good, or holds something else than it must.
        """
        self._workers = ThreadPoolExecutor(self._limits.workers, thread_name_prefix=self._lane.name)
        self._member: PackedMember = self._stream.packed_member(
            self._group, self._checkpoints, self._on_assigned, self._on_revoked
        )
        self._turned = self._clock()
        self.running = True
        try:
            while not stop.is_set():
                self._step()
            self._finish(list(self._partitions))
            self._raise_fault()
        finally:
            self.running = False
            self._abandon(list(self._partitions))
            self._workers.shutdown(wait=False, cancel_futures=True)
            self._member.close()
        self._report()

    def still_seconds(self) -> float:
        """Since its last turn. Any thread may ask."""
        return self._clock() - self._turned

    def _step(self) -> None:
        self._turned = self._clock()
        self._read()
        self._raise_fault()
        for partition in self._partitions.values():
            self._collect(partition)
        self._seal_due()
        for partition in self._partitions.values():
            self._submit(partition)
        self._pause_and_resume()
        self._commit()
        self._look()
        if self._clock() >= self._report_at:
            self._report()

    # Assignment: inside poll and close, on the reading thread.

    def _on_assigned(self, committed: dict[str, int | None]) -> None:
        failpoints.passed("claimed")
        self._abandon(committed)
        now = self._now()
        self._partitions |= {name: _Partition(name, position, now) for name, position in committed.items()}
        # Found out here, nothing is fetched that would be dropped; if the store is away, the partitions wait for it as
        # for any other job.
        try:
            for name, position in committed.items():
                self._turned = self._clock()
                start = self._lane.start(name, position)
                self._restart(self._partitions[name], start.after, start.end)
        except AwayError as error:
            log.warning(
                "lane_start_waits", "{lane}: {error}; new partitions wait for it", lane=self._lane.name, error=error
            )

    def _on_revoked(self, names: list[str]) -> None:
        self._finish(names)

    def _finish(self, names: Iterable[str]) -> None:
        """Stores and commits what is read of these partitions, within ``stop_seconds``, and forgets them."""
        deadline = self._clock() + self._stop_seconds
        leaving = [self._partitions[name] for name in names if name in self._partitions]
        while True:
            self._turned = self._clock()
            jobs = []
            for partition in leaving:
                self._finish_job(partition)
                if partition.sealed is None and partition.open is not None and partition.pinned_end is None:
                    self._seal(partition, partition.open)
                if partition.sealed is None:
                    continue
                if partition.tries == 0:  # a store that was away once is not waited for here
                    self._submit(partition)
                if partition.job is not None:
                    jobs.append(partition.job)
            remaining = deadline - self._clock()
            if not jobs or remaining <= 0:
                break
            wait(jobs, timeout=min(remaining, COMMIT_SECONDS), return_when=FIRST_COMPLETED)
        self._commit_at = 0.0
        self._commit()
        for partition in leaving:
            if partition.held():
                log.warning(
                    "partition_given_up",
                    "{lane}: partition {partition} is given up with records that are not stored; they will be read "
                    "again",
                    lane=self._lane.name,
                    partition=partition.name,
                )
        self._abandon([partition.name for partition in leaving])

    def _finish_job(self, partition: _Partition[T]) -> None:
        """Takes in a finished job of a partition that is about to be forgotten: nothing is read or sought any more."""
        job = partition.job
        if job is None or not job.done():
            return
        sealed = partition.sealed
        try:
            outcome = self._outcome(partition, job)
        except Exception as error:  # noqa: BLE001 (nothing may pass through the client's callback; raised after poll)
            self._fault = self._fault or error
            outcome = None
        if sealed is not None and isinstance(outcome, Stored) and outcome.end == sealed.end:
            self._stored(partition, sealed, outcome.wrote)
        elif outcome is not None or self._fault is not None:
            partition.sealed, partition.open = None, None

    def _abandon(self, names: Iterable[str]) -> None:
        for name in names:
            partition = self._partitions.pop(name, None)
            if partition is not None:
                partition.abandoned.set()
            self._uncommitted.pop(name, None)

    def _raise_fault(self) -> None:
        if self._fault is not None:
            raise self._fault

    # Reading.

    def _read(self) -> None:
        runs = self._member.poll(self._poll_records, POLL_SECONDS)
        for run in runs:
            self._take(run)
        records = sum(map(len, runs))
        if records:
            mean = sum(map(Packed.size, runs)) / records
            self._poll_records = max(1, min(POLL_RECORDS, int(POLL_BYTES / max(mean, 1))))

    def _take(self, run: Packed) -> None:
        """Adds a run to its partition's open extent; a pinned extent ends inside it where it must."""
        partition = self._partitions.get(run.partition)
        if partition is None or partition.open is None:
            return  # read before it was known where to start; will be read again from there
        rest = run
        if partition.open.last is not None and run.positions[0] <= partition.open.last:
            # What is counted twice here could never be told from two orders again, neither in a pin nor in a file.
            again, rest = run.cut_after(partition.open.last)
            log.warning(
                "records_came_again",
                "{lane}: {records} records of partition {partition} came again and are left out",
                lane=self._lane.name,
                records=len(again),
                partition=run.partition,
            )
        while len(rest):
            pinned = partition.pinned_end
            inside, rest = rest.cut(len(rest)) if pinned is None else rest.cut_after(pinned)
            if len(inside):
                self._add(partition.open, inside)
            if pinned is not None and (len(rest) or inside.positions[-1] == pinned):
                self._seal(partition, partition.open)

    def _add(self, extent: _Open[T], run: Packed) -> None:
        if extent.read == 0:
            extent.since = self._clock()
            extent.oldest = int(run.broker_times[0]) / 1000
        self.counts.taken += len(run)
        prepared = self._lane.prepare(run)
        extent.pieces.append(prepared.content)
        extent.read += len(run)
        extent.rejected += prepared.rejected
        extent.bytes += run.size()
        extent.held += prepared.held + REJECTED_BYTES * len(prepared.rejected)
        extent.end = int(run.positions[-1])  # on Kafka numpy's, which neither JSON nor a store knows

    # Rotation.

    def _seal_due(self) -> None:
        free = [
            (partition, partition.open)
            for partition in self._partitions.values()
            if partition.open is not None and partition.sealed is None and partition.pinned_end is None
        ]
        for partition, extent in free:
            if self._due(extent):
                self._seal(partition, extent)
        if free and self._held() > self._limits.buffer_bytes and not self._any_sealed():
            self._seal(*max(free, key=lambda candidate: candidate[1].held))

    def _due(self, extent: _Open[T]) -> bool:
        if extent.read == 0:
            return False
        return self._full(extent) or self._clock() - extent.since >= self._limits.rotate_seconds

    def _full(self, extent: _Open[T]) -> bool:
        return extent.bytes >= self._limits.rotate_bytes or extent.read >= self._limits.rotate_records

    def _seal(self, partition: _Partition[T], extent: _Open[T]) -> None:
        """Closes the open extent, if it holds anything, and begins the next; only while none of the partition is being
        stored."""
        end = partition.pinned_end if partition.pinned_end is not None else extent.end
        if end is None:
            return
        if extent.read:
            partition.reached = extent.oldest
        partition.sealed = Extent(
            partition.name, extent.after, end, extent.pieces, extent.read, extent.rejected, extent.bytes, extent.held
        )
        partition.open = _Open(after=end)
        partition.pinned_end = None

    # Jobs.

    def _submit(self, partition: _Partition[T]) -> None:
        if partition.job is not None or self._clock() < partition.retry_at:
            return
        if partition.sealed is not None:
            partition.job = self._workers.submit(self._lane.store, partition.sealed, partition.abandoned)
        elif partition.open is None:
            partition.job = self._workers.submit(self._lane.start, partition.name, partition.committed)

    def _collect(self, partition: _Partition[T]) -> None:
        """Takes in a finished job."""
        job = partition.job
        if job is None or not job.done():
            return
        outcome = self._outcome(partition, job)
        sealed = partition.sealed
        match outcome:
            case Start(after, end):
                self._restart(partition, after, end)
            case Stored(end, wrote) if sealed is not None and end == sealed.end:
                self._stored(partition, sealed, wrote)
            case Stored(end):
                self.counts.repeated += 1
                self._uncommitted[partition.name] = end
                self._restart(partition, end, None)
            case Pinned(end) if sealed is not None:
                self.counts.repeated += 1
                self._restart(partition, sealed.after, end)

    def _outcome(
        self, partition: _Partition[T], job: "Future[Start | Stored | Pinned]"
    ) -> Start | Stored | Pinned | None:
        """A finished job's result; None: the store was away, and the job is due again later."""
        partition.job = None
        try:
            outcome = job.result()
        except AwayError as error:
            pause = backoff(partition.tries, FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS)
            partition.tries += 1
            partition.retry_at = self._clock() + pause
            self.counts.retries += 1
            log.warning(
                "partition_waits",
                "{lane}: partition {partition} waits: {error}; next try in {pause_seconds:.1f} s",
                lane=self._lane.name,
                partition=partition.name,
                error=error,
                pause_seconds=pause,
            )
            return None
        if partition.tries:
            log.info(
                "partition_goes_on",
                "{lane}: partition {partition} goes on",
                lane=self._lane.name,
                partition=partition.name,
            )
        partition.tries, partition.retry_at = 0, 0.0
        return outcome

    def _stored(self, partition: _Partition[T], extent: Extent[T], wrote: Wrote) -> None:
        partition.sealed = None
        self._uncommitted[partition.name] = extent.end
        self.counts.extents += 1
        self.counts.read += extent.read
        self.counts.rejected += len(extent.rejected)
        self.counts.objects += wrote.objects
        self.counts.bytes += wrote.bytes
        self.counts.items += wrote.items
        self.counts.duplicates += wrote.duplicates

    def _restart(self, partition: _Partition[T], after: int | None, end: int | None) -> None:
        """Forgets what is held of a partition and reads it on from another place."""
        begins = "its origin" if after is None else after
        if end is None:
            log.info(
                "partition_read",
                "{lane}: partition {partition} reads on after {after}",
                lane=self._lane.name,
                partition=partition.name,
                after=begins,
            )
        else:
            log.info(
                "partition_read_pinned",
                "{lane}: partition {partition} reads on after {after}, first exactly up to {pinned_end}",
                lane=self._lane.name,
                partition=partition.name,
                after=begins,
                pinned_end=end,
            )
        partition.sealed = None
        partition.open = _Open(after)
        partition.pinned_end = end
        self._member.seek(partition.name, after)

    # Back-pressure.

    def _pause_and_resume(self) -> None:
        over = self._held() > self._limits.buffer_bytes and self._any_sealed()
        for partition in self._partitions.values():
            paused = over or partition.open is None or (partition.sealed is not None and self._full(partition.open))
            if paused != partition.paused:
                (self._member.pause if paused else self._member.resume)(partition.name)
                partition.paused = paused

    def _held(self) -> int:
        return sum(partition.held() for partition in self._partitions.values())

    def _any_sealed(self) -> bool:
        return any(partition.sealed is not None for partition in self._partitions.values())

    # Commit, look and report.

    def _commit(self) -> None:
        """Tells the group how far we are. A failure is no loss: what was stored is known, or harmless to repeat."""
        if not self._uncommitted or self._clock() < self._commit_at:
            return
        failpoints.passed("commit-before")
        try:
            self._member.commit(self._uncommitted)
        except StreamError as error:
            pause = backoff(self._commit_tries, FIRST_COMMIT_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS)
            self._commit_tries += 1
            self._commit_at = self._clock() + pause
            log.warning(
                "lane_commit_repeated",
                "{lane}: a commit was not acknowledged, it will be repeated: {error}",
                lane=self._lane.name,
                error=error,
            )
        else:
            failpoints.passed("commit-after")
            self._uncommitted = {}
            self._commit_tries = 0
            self._commit_at = self._clock() + COMMIT_SECONDS

    def _look(self) -> None:
        """Takes down where we are, for whoever watches."""
        if self._clock() < self._look_at:
            return
        self._look_at = self._clock() + LOOK_SECONDS
        unread = self._member.lag()
        if self._partitions or self.standing is not None:
            self.standing = Standing(
                {name: self._lag(partition, unread.get(name)) for name, partition in self._partitions.items()},
                tuple(name for name, partition in self._partitions.items() if partition.open is None),
                self._held(),
            )

    def _lag(self, partition: _Partition[T], unread: int | None) -> Lag:
        if partition.open is None:  # what is read now is dropped, so the reader's place says nothing
            return Lag(None, partition.reached)
        held = partition.open.read
        if partition.sealed is not None:
            held += partition.sealed.read
        elif held:
            partition.reached = partition.open.oldest
        elif partition.paused:  # nothing is asked for, so nobody hears of what has come since
            return Lag(None, partition.reached)
        elif unread == 0:
            partition.reached = self._now()
        return Lag(None if unread is None else held + unread, partition.reached)

    def _report(self) -> None:
        self._report_at = self._clock() + REPORT_SECONDS
        now = replace(self.counts)
        if now == self._reported:
            return
        self._reported = now
        log.info(
            "lane_progress",
            "{lane}: {messages} messages stored in {extents} extents, {malformed_messages} malformed among them; "
            "{retries} retries, {repeated_extents} extents of other writers",
            lane=self._lane.name,
            messages=now.read,
            extents=now.extents,
            malformed_messages=now.rejected,
            retries=now.retries,
            repeated_extents=now.repeated,
        )
