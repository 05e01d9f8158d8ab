"""The S3 lane: each extent of a stream as Parquet objects, exactly once. The protocol is told in ``extents``."""

import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Executor, Future
from typing import Generic, TypeVar

import msgspec
import pyarrow as pa

from sales.events import Log
from sales.streams import format_position
from sales.streams.packed import Packed
from sink import extents, failpoints, parquet
from sink.extents import Chain, Done, Head, Pin, StoredObject
from sink.lanes import AbandonedError, Extent, Pinned, Prepared, Start, Stored, Wrote
from sink.layouts import Layout, Rows
from sink.store import Store, StoreError

log = Log(__name__)

CHECKSUM = "checksum"
"""Name of the metadata (``x-amz-meta-checksum``) that tells an object's bytes."""

WAITING_OBJECTS = 16
WAITING_BYTES = 16 * 2**20
"""Encoded objects in memory at most: an extent may fan out over thousands of hours."""


T = TypeVar("T")
_S = TypeVar("_S", Pin, Done, Head)


class ArchiveError(StoreError):
    """The store holds something else than the stream: going on could lose or double orders."""


class Archive(Generic[T]):
    """Stores a stream's extents; holds what its layout makes of the messages until then.

    Not the messages themselves: columns take a part of their memory, and at the rotation only encoding is left to do.

    Args:
        name: for people.
        store: where to.
        layout: the table.
        stream: the stream's id.
        digits: how many its positions are written with.
        puts: runs the requests for data objects.
    """

    def __init__(self, name: str, store: Store, layout: Layout[T], *, stream: str, digits: int, puts: Executor) -> None:
        self.name = name
        self._store = store
        self._layout = layout
        self._stream = stream
        self._digits = digits
        self._puts = puts
        self._encoding = threading.Lock()
        """Held while rows are put together and encoded: of several extents at one time that would take several times
        the memory, and one core does it no sooner."""

    def prepare(self, run: Packed) -> Prepared[T]:
        """See ``Lane``."""
        piece = self._layout.hold(run)
        return Prepared(piece.content, piece.rejected, piece.held)

    def start(self, partition: str, committed: int | None) -> Start:
        """See ``Lane``. The chain in the store alone decides, not what was committed: groups are reset, their
        positions expire, buckets are emptied."""
        chain = self._chain(partition)
        after = self._head(chain)
        while (done := self._done(chain, after)) is not None:
            after = int(done.end)
        if committed != after:
            log.info(
                "commit_and_chain_differ",
                "{lane}: partition {partition} was committed up to {committed}; its chain ends at {chain_end}",
                lane=self.name,
                partition=partition,
                committed=committed,
                chain_end=after,
            )
        pin = self._pin(chain, after)
        return Start(after, None if pin is None else int(pin.end))

    def store(self, extent: Extent[T], abandoned: threading.Event) -> Stored | Pinned:
        """See ``Lane``.

        Raises:
            AwayError: will be tried again.
            ArchiveError: records were lost from the stream, or rows differ from those that are stored.
            AbandonedError: ``abandoned`` was set.
        """
        chain = self._chain(extent.partition)
        mine = Pin(
            stream=self._stream,
            partition=extent.partition,
            after=chain.text(extent.after),
            end=chain.text(extent.end) or "",
            read=extent.read,
            encoder=parquet.ENCODER,
            schema=self._layout.version,
        )
        failpoints.passed("pin-before")
        pin = self._pin_first(chain, extent.after, mine)
        failpoints.passed("pin-after")
        if pin.end != mine.end:
            done = self._done(chain, extent.after)
            return Pinned(int(pin.end)) if done is None else Stored(int(done.end))
        self._check(chain.pin_key(extent.after), pin, mine)
        objects = list(self._write(extent, abandoned))
        failpoints.passed("done-before")
        self._mark_done(
            chain.done_key(extent.after),
            Done(
                stream=self._stream,
                partition=extent.partition,
                after=mine.after,
                end=mine.end,
                read=extent.read,
                stored=sum(stored.orders for stored in objects),
                rejected=len(extent.rejected),
                rejected_at=[format_position(position, self._digits) for position in extent.rejected],
                objects=objects,
            ),
        )
        failpoints.passed("done-after")
        self._store.overwrite(chain.head_key, extents.encode(Head(end=mine.end)))
        failpoints.passed("head-after")
        return Stored(extent.end, Wrote(objects=len(objects), bytes=sum(stored.bytes for stored in objects)))

    def _chain(self, partition: str) -> Chain:
        return Chain(self._stream, partition, self._digits)

    def _head(self, chain: Chain) -> int | None:
        head = self._read(chain.head_key, Head)
        return None if head is None else int(head.end)

    def _pin(self, chain: Chain, after: int | None) -> Pin | None:
        return self._read(chain.pin_key(after), Pin)

    def _done(self, chain: Chain, after: int | None) -> Done | None:
        return self._read(chain.done_key(after), Done)

    def _read(self, key: str, kind: type[_S]) -> _S | None:
        body = self._store.read(key)
        try:
            return None if body is None else extents.decode(body, kind)
        except msgspec.MsgspecError as error:
            raise ArchiveError(f"{self._store.address}: {key} can't be understood: {error}") from error

    def _pin_first(self, chain: Chain, after: int | None, mine: Pin) -> Pin:
        """The pin that counts: ours if there was none, else the one that is there."""
        if self._store.create(chain.pin_key(after), extents.encode(mine)):
            return mine
        pin = self._pin(chain, after)
        if pin is None:
            raise ArchiveError(
                f"{self._store.address}: {chain.pin_key(after)} was there and is gone; nothing may remove it"
            )
        return pin

    def _check(self, key: str, pin: Pin, mine: Pin) -> None:
        if pin.read != mine.read:
            raise ArchiveError(
                f"{self._store.address}: {key} was pinned with {pin.read} messages, the stream now has {mine.read} "
                f"there: the others are gone (retention?) and this extent can no longer be stored whole"
            )
        if pin.schema != mine.schema:
            raise ArchiveError(
                f"{self._store.address}: {key} was begun with version {pin.schema} of table {self._layout.folder}, "
                f"this program writes version {mine.schema}: finish it with the older program"
            )

    def _write(self, extent: Extent[T], abandoned: threading.Event) -> Iterator[StoredObject]:
        """Encodes here, sends on the other threads; a few objects at a time."""
        waiting: deque[tuple[int, Future[StoredObject]]] = deque()
        try:
            objects = self._layout.objects(extent.partition, extent.pieces)
            while True:
                if abandoned.is_set():
                    raise AbandonedError(f"{self.name}: partition {extent.partition} belongs to another by now")
                while len(waiting) >= WAITING_OBJECTS or sum(size for size, _ in waiting) >= WAITING_BYTES:
                    yield waiting.popleft()[1].result()
                with self._encoding:
                    rows = next(objects, None)
                    if rows is None:
                        break
                    body = parquet.encode(self._layout, rows.groups)
                key = f"{rows.folder}{self._stream}+{extent.partition}+{rows.first_position}.parquet"
                waiting.append((body.size, self._puts.submit(self._put, key, rows, body)))
            while waiting:
                yield waiting.popleft()[1].result()
        finally:
            for _, future in waiting:
                future.cancel()

    def _put(self, key: str, rows: Rows, body: pa.Buffer) -> StoredObject:
        checksum = parquet.checksum(body)
        size = body.size
        failpoints.passed("object-before")
        if not self._store.create(key, body.to_pybytes(), {CHECKSUM: checksum}):
            facts = self._store.facts(key)
            if facts is None or facts.metadata.get(CHECKSUM) != checksum:
                checksum, size = self._adopt(key, body)
        failpoints.passed("object-after")
        return StoredObject(key=key, rows=rows.rows, orders=rows.orders, bytes=size, checksum=checksum)

    def _adopt(self, key: str, mine: pa.Buffer) -> tuple[str, int]:
        """Checksum and size of an object that is not ours byte for byte; it must be row for row, as another version of
        the library writes it."""
        found = self._store.read(key)
        if found is None or not parquet.same_rows(self._layout, found, mine):
            raise ArchiveError(
                f"{self._store.address}: {key} holds other rows than the stream. Was CURRENCY, REGION_OVERRIDES or the "
                "program changed while this extent was being written? It is not marked done: start again with what it "
                "was begun with, or remove its objects, but not its pin"
            )
        return parquet.checksum(found), len(found)

    def _mark_done(self, key: str, done: Done) -> None:
        if self._store.create(key, extents.encode(done)):
            return
        found = self._read(key, Done)
        if found is None or not found.same_rows(done):
            raise ArchiveError(f"{self._store.address}: {key} speaks of other rows than the stream holds")
