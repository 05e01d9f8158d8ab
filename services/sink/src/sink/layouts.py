"""What is in the stored tables: a stream's messages as Arrow tables, and where their rows belong. Pure.

Tables are held narrow: columns that repeat few values are dictionaries. ``parquet.encode`` widens one object's rows
to the layout's schema when they are written.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from sales import orders
from sales.rules import Rules
from sales.streams import Chunk, format_position
from sales.times import parse_times
from sales.windows import DAY_MS, HOUR_MS
from sink.records import find_dead_letters, find_rollups

TIME = pa.timestamp("ms")
"""UTC without a zone: Athena's and DuckDB's plain ``timestamp``."""


@dataclass(frozen=True, slots=True, eq=False)
class Piece:
    """One chunk's messages, decoded."""

    table: pa.Table
    rejected: list[int]
    """positions of the messages that are no row of the table: malformed"""


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """One stored table: which folder, which columns, how messages become rows."""

    folder: str
    version: int
    """raised when the columns, or how they are computed, change"""
    schema: pa.Schema
    """the objects' columns, in their order"""
    repeating: tuple[str, ...]
    """columns whose values repeat: these are dictionary-encoded in the object"""
    time: str
    """the column whose time chooses the folder"""
    hourly: bool
    """folders for each hour, not only for each day"""
    position: str
    """the column that holds a message's own position"""
    decode: Callable[[Chunk], Piece]

    def folder_of(self, slot: int) -> str:
        """The folder of the hour (or day) that began ``slot`` hours (or days) after 1970."""
        start = np.datetime64(slot, "h" if self.hourly else "D")
        day = f"{self.folder}/dt={np.datetime_as_string(start, unit='D')}/"
        return f"{day}hour={slot % 24:02d}/" if self.hourly else day

    def slots(self, table: pa.Table) -> npt.NDArray[np.int64]:
        """Each row's hour (or day), counted from 1970."""
        times = table[self.time].cast(pa.int64()).to_numpy()
        slots: npt.NDArray[np.int64] = times // (HOUR_MS if self.hourly else DAY_MS)
        return slots


ORDERS = pa.schema(
    [
        ("order_id", pa.string()),
        ("type", pa.string()),
        ("event_time", TIME),
        ("customer_id", pa.int64()),
        ("country", pa.string()),
        ("region", pa.string()),
        ("currency", pa.string()),
        ("original_order_id", pa.string()),
        ("line", pa.int32()),
        ("product_id", pa.string()),
        ("product_name", pa.string()),
        ("category", pa.string()),
        ("quantity", pa.int64()),
        ("unit_amount", pa.int64()),
        ("discount_percent", pa.int32()),
        ("unit_cost", pa.int64()),
        ("gross_amount", pa.int64()),
        ("discount_amount", pa.int64()),
        ("net_amount", pa.int64()),
        ("profit_amount", pa.int64()),
        ("stream", pa.string()),
        ("partition", pa.string()),
        ("position", pa.string()),
        ("accepted_at", TIME),
    ]
)


def orders_layout(rules: Rules, regions: Mapping[str, str], stream: str, digits: int) -> Layout:
    """One row for each line of each well-formed order; amounts and quantities of returns are negative.

    Args:
        rules: what counts as an order.
        regions: each country's region.
        stream: the stream's id.
        digits: how many its positions are written with.
    """

    def decode(chunk: Chunk) -> Piece:
        decoded = orders.decode(rules, chunk.keys, chunk.values, chunk.positions, chunk.broker_times)
        batch = decoded.accepted
        order = pa.array(batch.line_order)
        sign = np.where(batch.is_return, -1, 1)[batch.line_order]
        gross, net = batch.gross(), batch.net()
        no_cost = batch.unit_costs < 0
        regions_of = [regions[country] for country in batch.countries]
        columns = {
            "order_id": _text(batch.order_ids).take(order),
            "type": _choice(batch.is_return, "sale", "return").take(order),
            "event_time": _times(batch.event_times[batch.line_order]),
            "customer_id": pa.array(batch.customer_ids, pa.int64()).take(order),
            "country": _text(batch.countries).dictionary_encode().take(order),
            "region": _text(regions_of).dictionary_encode().take(order),
            "currency": _constant(rules.currency, len(order)),
            "original_order_id": _text(batch.original_order_ids).take(order),
            "line": pa.array(batch.line_number.astype(np.int32)),
            "product_id": _text(batch.product_ids),
            "product_name": _text(batch.product_names),
            "category": _text(batch.categories),
            "quantity": pa.array(batch.quantities * sign),
            "unit_amount": pa.array(batch.unit_amounts),
            "discount_percent": pa.array(batch.discount_percents.astype(np.int32)),
            "unit_cost": pa.array(batch.unit_costs, mask=no_cost),
            "gross_amount": pa.array(gross * sign),
            "discount_amount": pa.array((gross - net) * sign),
            "net_amount": pa.array(net * sign),
            "profit_amount": pa.array((net - batch.quantities * batch.unit_costs) * sign, mask=no_cost),
            "stream": _constant(stream, len(order)),
            "partition": _constant(chunk.partition, len(order)),
            "position": _positions(batch.positions, digits).take(order),
            "accepted_at": _times(batch.broker_times[batch.line_order]),
        }
        return Piece(pa.table(columns), rejected=[rejection.position for rejection in decoded.rejected])

    return Layout(
        folder="orders",
        version=1,
        schema=ORDERS,
        repeating=tuple(
            "type country region currency product_id product_name category unit_amount discount_percent unit_cost "
            "stream partition".split()
        ),
        time="event_time",
        hourly=True,
        position="position",
        decode=decode,
    )


ROLLUPS = pa.schema(
    [
        ("minute", TIME),
        ("scope", pa.string()),
        ("country", pa.string()),
        ("category", pa.string()),
        ("version", pa.int64()),
        ("orders", pa.int64()),
        ("returns", pa.int64()),
        ("units", pa.int64()),
        ("sales_minor", pa.int64()),
        ("refunded_minor", pa.int64()),
        ("revenue_minor", pa.int64()),
        ("stale", pa.bool_()),
        ("stream", pa.string()),
        ("partition", pa.string()),
        ("position", pa.string()),
        ("accepted_at", TIME),
    ]
)


def rollups_layout(stream: str, digits: int) -> Layout:
    """One row for each rollup as it was sent: of one scope and minute the highest version is right, if none is stale.

    Args:
        stream: the stream's id.
        digits: how many its positions are written with.
    """

    def decode(chunk: Chunk) -> Piece:
        rollups = find_rollups(chunk.values)
        found = rollups.records
        columns = {
            "minute": _times(parse_times([r.minute for r in found])),
            "scope": _text([r.scope for r in found]),
            "country": _text([r.country for r in found]),
            "category": _text([r.category for r in found]),
            "version": _integers([r.version for r in found]),
            "orders": _integers([r.orders for r in found]),
            "returns": _integers([r.returns for r in found]),
            "units": _integers([r.units for r in found]),
            "sales_minor": _integers([r.sales_minor for r in found]),
            "refunded_minor": _integers([r.refunded_minor for r in found]),
            "revenue_minor": _integers([r.revenue_minor for r in found]),
            "stale": pa.array([r.stale for r in found], pa.bool_()),
            "stream": _constant(stream, len(found)),
            "partition": _constant(chunk.partition, len(found)),
            "position": _positions([chunk.positions[row] for row in rollups.rows], digits),
            "accepted_at": _integers([chunk.broker_times[row] for row in rollups.rows]).cast(TIME),
        }
        return Piece(pa.table(columns), rejected=rollups.missing(chunk.positions))

    return Layout(
        folder="rollups",
        version=1,
        schema=ROLLUPS,
        repeating=("minute", "scope", "country", "category", "stale", "stream", "partition"),
        time="minute",
        hourly=False,
        position="position",
        decode=decode,
    )


DEAD_LETTERS = pa.schema(
    [
        ("stream", pa.string()),
        ("partition", pa.string()),
        ("position", pa.string()),
        ("broker_time", TIME),
        ("key", pa.binary()),
        ("reason", pa.string()),
        ("detail", pa.string()),
        ("raw", pa.binary()),
        ("raw_bytes", pa.int64()),
        ("raw_sha256", pa.string()),
        ("archived_stream", pa.string()),
        ("archived_partition", pa.string()),
        ("archived_position", pa.string()),
        ("archived_at", TIME),
    ]
)


def dead_letters_layout(stream: str, digits: int) -> Layout:
    """One row for each dead letter as it was sent; ``stream``, ``partition`` and ``position`` are those of the message
    that was refused (its identity: sent twice it is one), ``archived_*`` those of the letter itself.

    Args:
        stream: the id of the stream of dead letters.
        digits: how many its positions are written with.
    """

    def decode(chunk: Chunk) -> Piece:
        letters = find_dead_letters(chunk.values)
        found = [record.letter for record in letters.records]
        columns = {
            "stream": _text([letter.stream for letter in found]),
            "partition": _text([letter.partition for letter in found]),
            "position": _text([letter.position for letter in found]),
            "broker_time": _times(parse_times([letter.broker_time for letter in found])),
            "key": pa.array([record.key for record in letters.records], pa.binary()),
            "reason": _text([letter.reason for letter in found]),
            "detail": _text([letter.detail for letter in found]),
            "raw": pa.array([record.raw for record in letters.records], pa.binary()),
            "raw_bytes": _integers([letter.raw_bytes for letter in found]),
            "raw_sha256": _text([letter.raw_sha256 for letter in found]),
            "archived_stream": _constant(stream, len(found)),
            "archived_partition": _constant(chunk.partition, len(found)),
            "archived_position": _positions([chunk.positions[row] for row in letters.rows], digits),
            "archived_at": _integers([chunk.broker_times[row] for row in letters.rows]).cast(TIME),
        }
        return Piece(pa.table(columns), rejected=letters.missing(chunk.positions))

    return Layout(
        folder="dead-letters",
        version=1,
        schema=DEAD_LETTERS,
        repeating=("stream", "partition", "reason", "archived_stream", "archived_partition"),
        time="broker_time",
        hourly=False,
        position="archived_position",
        decode=decode,
    )


def _text(values: list[str] | list[str | None]) -> pa.Array:
    return pa.array(values, pa.string())


def _integers(values: list[int]) -> pa.Array:
    return pa.array(values, pa.int64())


def _times(ms: npt.NDArray[np.int64]) -> pa.Array:
    return pa.array(ms).cast(TIME)


def _choice(second: npt.NDArray[np.bool_], if_false: str, if_true: str) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array(second.astype(np.int32)), pa.array([if_false, if_true]))


def _constant(value: str, rows: int) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int32)), pa.array([value]))


def _positions(positions: list[int], digits: int) -> pa.Array:
    return _text([format_position(position, digits) for position in positions])
