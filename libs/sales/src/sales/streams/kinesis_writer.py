"""Writing to Kinesis: PutRecords, with each refused record sent again, and a key's records never overtaking each other.

PutRecords takes some records of a call and refuses others (a hot shard). So no call has two records of one key, and a
refused record goes out again before anything later with its key.
"""

import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from sales.aws_faults import passes
from sales.events import Log
from sales.streams import StreamError
from sales.streams.closing import Closing
from sales.streams.reaching import backoff
from sales.streams.seldom import Seldom

log = Log(__name__)

CALL_RECORDS = 500
CALL_BYTES = 5_000_000
LARGEST_RECORD_BYTES = 1_048_576
"""Key and value together: limits of PutRecords that every region and server has."""

LONGEST_KEY = 256
"""Characters."""

LINGER_SECONDS = 0.02
"""How long the first record waits for others to share its call."""

LOOK_AHEAD = 4 * CALL_RECORDS
"""How far into the queue a call looks for other keys when one key comes again and again."""

QUEUE_BYTES = 64 * 1024 * 1024
QUEUE_RECORDS = 50_000

ATTEMPTS = 12
FIRST_BACKOFF_SECONDS = 0.1
LONGEST_BACKOFF_SECONDS = 10.0
"""Twelve attempts with these pauses take about a minute: longer than a shard is hot for, or a failover takes."""

UNREMARKABLE_ATTEMPTS = 3
"""A shard is often hot for a moment; beyond this it is worth a line on the log."""

WRITE_SECONDS = 60.0
"""How long ``write`` waits for room in the queue."""

CLOSE_SECONDS = 10.0


@dataclass(slots=True, eq=False)
class _Record:
    key: str
    value: bytes
    attempts: int = 0

    @property
    def size(self) -> int:
        return len(self.key.encode()) + len(self.value)


class KinesisWriter(Closing):
    """Queues for a thread that sends. After a refused record every call raises: open another writer to go on."""

    def __init__(self, client: Any, stream: str) -> None:
        self._client = client
        self._stream = stream
        self._changed = threading.Condition()
        self._queue: deque[_Record] = deque()
        self._bytes = 0
        """of all records not acknowledged"""
        self._sending = 0
        self._hurry = False
        self._failure: StreamError | None = None
        self._seldom = Seldom()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name=f"kinesis-writer-{stream}", daemon=True)
        self._thread.start()

    def write(self, keys: Sequence[bytes], values: Sequence[bytes]) -> None:
        """Queues records; waits for room. A record or key that is too large is refused at once."""
        deadline = time.monotonic() + WRITE_SECONDS
        for key, value in zip(keys, values, strict=True):
            record = _Record(self._key(key), value)
            if record.size > LARGEST_RECORD_BYTES:
                raise self._fail(StreamError(f"a record of {record.size} bytes is more than {self._stream} takes"))
            with self._changed:
                while self._full(record.size):
                    self._check()
                    if not self._changed.wait(deadline - time.monotonic()) and time.monotonic() >= deadline:
                        raise StreamError(
                            f"{len(self._queue)} records for {self._stream} wait for {WRITE_SECONDS:.0f} s"
                        )
                self._check()
                self._queue.append(record)
                self._bytes += record.size
                if len(self._queue) in (1, CALL_RECORDS):
                    self._changed.notify_all()

    def _full(self, size: int) -> bool:
        return len(self._queue) >= QUEUE_RECORDS or (self._bytes > 0 and self._bytes + size > QUEUE_BYTES)

    def _key(self, key: bytes) -> str:
        try:
            text = key.decode()
        except UnicodeDecodeError as fault:
            raise self._fail(StreamError(f"a key for {self._stream} is not UTF-8: {key!r}")) from fault
        if not 1 <= len(text) <= LONGEST_KEY:
            raise self._fail(StreamError(f"a key for {self._stream} has {len(text)} characters, not 1 to 256"))
        return text

    def flush(self, timeout: float) -> None:
        """Sends without waiting for company, and waits until all is acknowledged."""
        deadline = time.monotonic() + timeout
        with self._changed:
            self._hurry = True
            self._changed.notify_all()
            try:
                while self._queue or self._sending:
                    self._check()
                    remaining = deadline - time.monotonic()
                    if remaining <= 0:
                        waiting = len(self._queue) + self._sending
                        raise StreamError(f"{self._stream} did not acknowledge {waiting} records in {timeout:.0f} s")
                    self._changed.wait(remaining)
                self._check()
            finally:
                self._hurry = False

    def unacknowledged(self) -> int:
        """What waits to be sent, and what is under way."""
        with self._changed:
            return len(self._queue) + self._sending

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure
        if self._stopping:
            raise StreamError(f"the writer of {self._stream} is closed")

    def _fail(self, fault: StreamError) -> StreamError:
        with self._changed:
            if self._failure is None:
                self._failure = fault
            self._changed.notify_all()
        return fault

    def close(self) -> None:
        """Flushes; what is not acknowledged then is dropped, and StreamError says so."""
        if self._stopping:
            return
        try:
            self.flush(CLOSE_SECONDS)
        finally:
            with self._changed:
                self._stopping = True
                self._changed.notify_all()
            self._thread.join(CLOSE_SECONDS)

    # What follows runs in the sending thread.

    def _run(self) -> None:
        try:
            while True:
                with self._changed:
                    batch = self._next()
                if not batch:
                    return
                self._send(batch)
        except StreamError as fault:
            self._fail(fault)
        except Exception as fault:  # a thread has no caller: whatever ends it must reach write() and flush()
            self._fail(StreamError(f"writing {self._stream} failed: {fault!r}"))
            raise

    def _next(self) -> list[_Record]:
        """Waits for records, and for company; empty: it is over."""
        while not self._queue:
            if self._stopping or self._failure is not None:
                return []
            self._changed.wait()
        linger = time.monotonic() + LINGER_SECONDS
        while len(self._queue) < CALL_RECORDS and not self._hurry and not self._stopping:
            remaining = linger - time.monotonic()
            if remaining <= 0:
                break
            self._changed.wait(remaining)
        if self._stopping or self._failure is not None:
            return []
        batch = self._batch()
        self._sending = len(batch)
        return batch

    def _batch(self) -> list[_Record]:
        """The first record of each key, as many as a call takes; the others keep their order in the queue."""
        batch: list[_Record] = []
        passed: list[_Record] = []
        keys: set[str] = set()
        size = 0
        while self._queue and len(batch) < CALL_RECORDS and len(passed) < LOOK_AHEAD:
            record = self._queue[0]
            if record.key not in keys and size + record.size > CALL_BYTES:
                break
            self._queue.popleft()
            if record.key in keys:
                passed.append(record)
            else:
                keys.add(record.key)
                batch.append(record)
                size += record.size
        self._queue.extendleft(reversed(passed))
        return batch

    def _send(self, batch: list[_Record]) -> None:
        refused, fault = self._put(batch)
        with self._changed:
            self._sending = 0
            self._bytes -= sum(record.size for record in batch) - sum(record.size for record in refused)
            self._queue.extendleft(reversed(refused))
            self._changed.notify_all()
            if not refused:
                return
            for record in refused:
                record.attempts += 1
            attempts = max(record.attempts for record in refused)
            if attempts >= ATTEMPTS:
                raise StreamError(f"{self._stream} refused a record {ATTEMPTS} times: {fault}")
            if attempts > UNREMARKABLE_ATTEMPTS and self._seldom.due("refused"):
                log.warning(
                    "kinesis_records_refused",
                    "{stream} refuses {refused_records} of {records} records ({error}); trying again",
                    stream=self._stream,
                    refused_records=len(refused),
                    records=len(batch),
                    error=fault,
                )
            end = time.monotonic() + backoff(attempts - 1, FIRST_BACKOFF_SECONDS, LONGEST_BACKOFF_SECONDS)
            while not self._stopping and time.monotonic() < end:
                self._changed.wait(end - time.monotonic())

    def _put(self, batch: list[_Record]) -> tuple[list[_Record], str]:
        """One call; what has to be sent again, and why. StreamError for what no retry mends."""
        try:
            answer = self._client.put_records(
                StreamName=self._stream,
                Records=[{"Data": record.value, "PartitionKey": record.key} for record in batch],
            )
        except ClientError as fault:
            if not passes(fault):
                raise StreamError(f"{self._stream} refuses what is written: {fault}") from fault
            return batch, str(fault)
        except BotoCoreError as fault:
            return batch, str(fault)
        refused = []
        why = ""
        for record, result in zip(batch, answer["Records"], strict=True):
            if result.get("ErrorCode"):
                refused.append(record)
                why = f"{result['ErrorCode']}: {result.get('ErrorMessage', '')}"
        return refused, why
