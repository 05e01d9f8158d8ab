"""The orders stream as S3 holds it, for the processor to read: stored rows become messages again.

A message made of a row has the row's position and broker time, and decodes to what the first one decoded to: the row
has every field that the processor looks at. What was no order has no row, so its position is passed over.
"""

import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sales.orders import Line, Order, encode
from sales.rules import MAX_MESSAGE_BYTES
from sales.streams import NO_TIPS, Chunk
from sales.streams.packed import Packed, pack
from sink.extents import Done, StoredObject
from sink.parquet import checksum
from tillstream.stored import Store, StoredError

_ORDER_COLUMNS = "position accepted_at type order_id event_time country currency customer_id original_order_id".split()
_LINE_COLUMNS = "product_id quantity unit_amount product_name category discount_percent unit_cost".split()
"""In the order of `Line`'s fields."""

_NO_CATEGORY = Line("", 1, 0).category
"""The very text that encoding leaves out: it asks whether a value is the default, not whether it is equal to it."""


class ArchivedOrders:
    """A `Readable` over the stored orders of some extents, as far as they were placed late enough.

    Every poll blocks while it fetches from S3, and raises what `Store` raises, or StoredError where an object is not
    what its marker says.
    """

    def __init__(
        self,
        store: Store,
        stream_id: str,
        position_digits: int,
        extents: Mapping[str, Sequence[Done]],
        *,
        since: str,
        folder: Path,
        progress: Callable[[int, int], None],
    ) -> None:
        """Reads nothing yet.

        Args:
            store: where the objects are.
            stream_id: of the stream that they were stored from.
            position_digits: of its positions.
            extents: by partition, all of the stream's in their natural order; those to read.
            since: ``dt=2026-11-20/hour=08``; orders of earlier hours are left out.
            folder: takes downloaded objects, an extent of each reader's at a time.
            progress: told how many orders of how many were given.
        """
        self._store = store
        self._digits = position_digits
        self.id = stream_id
        self._folder = folder
        self._progress = progress
        self._wanted = {
            name: [wanted for done in dones if (wanted := [item for item in done.objects if self._hour(item) >= since])]
            for name, dones in extents.items()
        }
        self._given = 0
        self.first_ms: int | None = None
        """the earliest event time that was given, ms since 1970; None: nothing was"""
        self.last_ms: int | None = None
        """the latest one"""

    @property
    def position_digits(self) -> int:
        """As the stream's."""
        return self._digits

    def partitions(self) -> list[str]:
        """All of them."""
        return list(self._wanted)

    def orders(self, partition: str) -> int:
        """How many orders of a partition there are to read."""
        return sum(item.orders for wanted in self._wanted[partition] for item in wanted)

    def packed_reader(self, after: Mapping[str, int | None], tips: Mapping[str, int] = NO_TIPS) -> "ArchivedReader":  # noqa: ARG002 (a stream's signature)
        """Reads these partitions, from their beginning."""
        if any(position is not None for position in after.values()):
            raise ValueError("what is stored is read from its beginning only")
        return ArchivedReader(self, list(after))

    def tables(self, partition: str) -> Iterator[pa.Table]:
        """The rows to read of a partition, in the order of the stream, an extent at a time."""
        for wanted in self._wanted[partition]:
            with tempfile.TemporaryDirectory(dir=self._folder) as folder:
                there = self._store.download([item.key for item in wanted], Path(folder))
                tables = [_read(item, there.get(item.key)) for item in wanted]
            yield pa.concat_tables(tables).sort_by([("position", "ascending"), ("line", "ascending")]).combine_chunks()

    def note(self, event_times: npt.NDArray[np.int64]) -> None:
        """Some orders were given."""
        self._given += len(event_times)
        first, last = int(event_times.min()), int(event_times.max())
        self.first_ms = first if self.first_ms is None else min(first, self.first_ms)
        self.last_ms = last if self.last_ms is None else max(last, self.last_ms)
        self._progress(self._given, sum(map(self.orders, self._wanted)))

    def _hour(self, item: StoredObject) -> str:
        place = self._store.place(item.key)
        if place is None or place.hour is None:
            raise StoredError(f"a marker of {self.id} names {item.key!r}, which is no object of orders")
        return hour_name(place.date, place.hour)


def hour_name(date: str, hour: int) -> str:
    """``dt=2026-11-20/hour=08``; sorts as time does."""
    return f"dt={date}/hour={hour:02d}"


class ArchivedReader:
    """A `PackedReader` that comes to an end: a poll that gives nothing has reached it."""

    def __init__(self, archived: ArchivedOrders, partitions: list[str]) -> None:
        self._archived = archived
        self._left = {name: archived.orders(name) for name in partitions}
        self._runs = deque(self._read(name) for name in partitions)
        self._room = 0

    def partitions(self) -> list[str]:
        """All there are."""
        return self._archived.partitions()

    def add(self, after: Mapping[str, int | None]) -> None:
        """There is nothing new to come.

        Raises:
            ValueError: always.
        """
        raise ValueError(f"nothing was stored of {', '.join(after)}")

    def poll(self, max_records: int, timeout: float) -> list[Packed]:  # noqa: ARG002 (nothing is waited for)
        """The next orders, of one partition after the other."""
        self._room = max_records
        while self._runs:
            run = next(self._runs[0], None)
            if run is not None:
                return [run]
            self._runs.popleft()
        return []

    def lag(self) -> dict[str, int | None]:
        """Orders that are still to come, exactly."""
        return dict(self._left)

    def tips(self) -> dict[str, int]:
        """None."""
        return {}

    def close(self) -> None:
        """Nothing is open between two polls."""

    def _read(self, partition: str) -> Iterator[Packed]:
        for rows in self._archived.tables(partition):
            starts = _starts(rows)
            ends = np.append(starts[1:], rows.num_rows)
            first = 0
            while first < len(starts):
                behind = min(first + self._room, len(starts))
                lines = rows.slice(int(starts[first]), int(ends[behind - 1] - starts[first]))
                chunk, event_times = _messages(partition, lines, starts[first:behind] - starts[first])
                self._left[partition] -= len(chunk)
                self._archived.note(event_times)
                yield pack(chunk)
                first = behind


def _read(item: StoredObject, path: Path | None) -> pa.Table:
    """An object's rows.

    Raises:
        StoredError: it is gone, or not what its marker speaks of.
    """
    if path is None:
        raise StoredError(f"{item.key} is missing, though a marker names it")
    body = path.read_bytes()
    found = checksum(body)
    if item.checksum and found != item.checksum:
        raise StoredError(f"{item.key} is not what its marker says: its checksum is {found}, not {item.checksum}")
    try:
        table = pq.read_table(pa.BufferReader(body))
    except (pa.ArrowException, OSError) as error:
        raise StoredError(f"{item.key} can't be read: {str(error).splitlines()[0]}") from error
    orders = len(_starts(table))
    if orders != item.orders:
        raise StoredError(f"{item.key} holds {orders} orders, its marker says {item.orders}")
    return table.select([*_ORDER_COLUMNS, *_LINE_COLUMNS, "line"])


def _starts(rows: pa.Table) -> npt.NDArray[np.int64]:
    """The row at which each order begins."""
    positions = rows["position"].combine_chunks()
    changes = pc.not_equal(positions.slice(1), positions.slice(0, len(positions) - 1)).to_numpy(zero_copy_only=False)
    return np.flatnonzero(np.concatenate((np.ones(min(1, len(positions)), dtype=np.bool_), changes)))


def _messages(partition: str, rows: pa.Table, starts: npt.NDArray[np.int64]) -> tuple[Chunk, npt.NDArray[np.int64]]:
    """Orders as messages, and their event times.

    Args:
        partition: theirs.
        rows: a row a line.
        starts: the row at which each order begins.
    """
    orders = rows.select(_ORDER_COLUMNS).take(pa.array(starts))
    columns = {name: rows[name].to_pylist() for name in _LINE_COLUMNS}
    columns["quantity"] = np.abs(rows["quantity"].to_numpy()).tolist()  # stored negative where it was brought back
    columns["category"] = [_NO_CATEGORY if text == _NO_CATEGORY else text for text in columns["category"]]
    lines = list(map(Line, *columns.values()))
    event_times = orders["event_time"].to_numpy()
    times = [f"{text}Z" for text in np.datetime_as_string(event_times, unit="ms").tolist()]
    ends = [*starts[1:].tolist(), len(lines)]
    values = []
    fields = (orders[name].to_pylist() for name in _ORDER_COLUMNS[2:] if name != "event_time")
    for kind, order_id, country, currency, customer, original, event_time, start, end in zip(
        *fields, times, starts.tolist(), ends, strict=True
    ):
        order = Order(
            schema=1,
            type=kind,
            order_id=order_id,
            event_time=event_time,
            country=country,
            currency=currency,
            lines=lines[start:end],
            customer_id=customer,
            original_order_id=original,
        )
        values.append(_encode(order))
    chunk = Chunk(
        partition,
        [order_id.encode() for order_id in orders["order_id"].to_pylist()],
        values,
        list(map(int, orders["position"].to_pylist())),
        orders["accepted_at"].cast(pa.int64()).to_pylist(),
    )
    return chunk, event_times.astype(np.int64)


def _encode(order: Order) -> bytes:
    """The message; where its milliseconds make it too long, without those that are 0."""
    value = encode(order)
    if len(value) > MAX_MESSAGE_BYTES:
        short = order.event_time.removesuffix("Z").rstrip("0").rstrip(".") + "Z"
        return encode(msgspec.structs.replace(order, event_time=short))
    return value
