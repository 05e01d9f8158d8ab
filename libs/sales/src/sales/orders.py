"""The order event, version 1: its shape on the wire, its rules, its amounts. Pure.

``decode`` turns raw messages into columns. What can't be accepted comes back beside them, each with its reason;
nothing is raised for data.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec import Meta

from sales.rejections import Rejection, explain, is_nested_too_deep
from sales.rules import (
    EARLIEST_EVENT_TIME_MS,
    FUTURE_ALLOWANCE_MS,
    MAX_AMOUNT,
    MAX_MESSAGE_BYTES,
    MAX_NAME,
    MAX_TEXT,
    Rules,
)
from sales.times import parse_times

Count = Annotated[int, Meta(ge=1, le=MAX_AMOUNT)]
Amount = Annotated[int, Meta(ge=0, le=MAX_AMOUNT)]
OrderId = Annotated[str, Meta(min_length=1, max_length=64)]


class Line(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """One line of an order, as on the wire; amounts in minor units."""

    product_id: Annotated[str, Meta(min_length=1, max_length=MAX_NAME)]
    quantity: Count
    unit_amount: Amount
    product_name: Annotated[str, Meta(max_length=MAX_TEXT)] = ""
    category: Annotated[str, Meta(max_length=MAX_NAME)] = "Uncategorised"
    discount_percent: Annotated[int, Meta(ge=0, le=100)] = 0
    unit_cost: Amount | None = None


class Order(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """One order event, as on the wire. Unknown fields are left out; types are strict."""

    schema: Literal[1]
    type: Literal["sale", "return"]
    order_id: OrderId
    event_time: str
    country: str
    currency: str
    lines: Annotated[list[Line], Meta(min_length=1)]
    customer_id: Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | None = None
    original_order_id: OrderId | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Accepted orders as columns, in the order of their positions.

    Order columns have one row an order; line columns one row a line, where ``line_order[i]`` is the row of the order
    that line ``i`` belongs to (ascending) and ``line_number[i]`` its place in it, from 1.
    """

    positions: list[int]
    broker_times: npt.NDArray[np.int64]
    """ms since 1970, the log's own time"""
    event_times: npt.NDArray[np.int64]
    """ms since 1970"""
    order_ids: list[str]
    is_return: npt.NDArray[np.bool_]
    customer_ids: list[int | None]
    countries: list[str]
    original_order_ids: list[str | None]
    contents: list[bytes]
    """Canonical bytes of the decoded content without the identity: equal is a duplicate, different a conflict."""

    line_order: npt.NDArray[np.int64]
    line_number: npt.NDArray[np.int64]
    product_ids: list[str]
    product_names: list[str]
    categories: list[str]
    quantities: npt.NDArray[np.int64]
    unit_amounts: npt.NDArray[np.int64]
    discount_percents: npt.NDArray[np.int64]
    unit_costs: npt.NDArray[np.int64]
    """-1 where no cost is known"""

    def __len__(self) -> int:
        return len(self.order_ids)

    def gross(self) -> npt.NDArray[np.int64]:
        """Per line: quantity x unit amount, before discount; always >= 0."""
        return self.quantities * self.unit_amounts

    def net(self) -> npt.NDArray[np.int64]:
        """Per line: gross less discount; always >= 0. This is what *revenue* means everywhere."""
        gross = self.gross()
        return gross - discount_amount(gross, self.discount_percents)

    def take(self, kept: npt.NDArray[np.bool_]) -> "Batch":
        """The orders where ``kept`` (one flag an order) is true, with their lines."""
        if kept.all():
            return self
        rows = np.flatnonzero(kept)
        lines = np.flatnonzero(kept[self.line_order])
        new_row = np.cumsum(kept) - 1

        return Batch(
            positions=_pick(self.positions, rows),
            broker_times=self.broker_times[rows],
            event_times=self.event_times[rows],
            order_ids=_pick(self.order_ids, rows),
            is_return=self.is_return[rows],
            customer_ids=_pick(self.customer_ids, rows),
            countries=_pick(self.countries, rows),
            original_order_ids=_pick(self.original_order_ids, rows),
            contents=_pick(self.contents, rows),
            line_order=new_row[self.line_order[lines]],
            line_number=self.line_number[lines],
            product_ids=_pick(self.product_ids, lines),
            product_names=_pick(self.product_names, lines),
            categories=_pick(self.categories, lines),
            quantities=self.quantities[lines],
            unit_amounts=self.unit_amounts[lines],
            discount_percents=self.discount_percents[lines],
            unit_costs=self.unit_costs[lines],
        )


_T = TypeVar("_T")


def _pick(column: list[_T], chosen: npt.NDArray[np.int64]) -> list[_T]:
    return [column[i] for i in chosen.tolist()]


@dataclass(frozen=True, slots=True)
class Decoded:
    """What became of a run of messages: every one is either a row of ``accepted`` or one of ``rejected``."""

    accepted: Batch
    rejected: list[Rejection]


def discount_amount(gross: npt.NDArray[np.int64], percent: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Gross x percent / 100, half up, for gross >= 0 (up to 9e16 without overflow)."""
    discounted: npt.NDArray[np.int64] = (gross * percent + 50) // 100
    return discounted


encode: Callable[[Order], bytes] = msgspec.json.Encoder().encode
"""A message that `decode` makes this order of. Fields that hold the default, the object itself, are left out."""

_decode_order = msgspec.json.Decoder(Order).decode
_encode_content = msgspec.msgpack.Encoder().encode


def decode(
    rules: Rules,
    keys: Sequence[bytes | None],
    values: Sequence[bytes],
    positions: Sequence[int],
    broker_times: Sequence[int],
) -> Decoded:
    """Messages of one partition, in position order, to columns of accepted orders and a list of rejections.

    Args:
        rules: the pipeline's currency and countries.
        keys: each message's key; must equal the order id.
        values: each message's bytes.
        positions: each message's place in its partition, ascending.
        broker_times: when the log took each message, ms since 1970.
    """
    orders: list[Order] = []
    rows: list[int] = []
    rejected: list[Rejection] = []

    def reject(row: int, *, cause: str = "") -> None:
        rejected.append(explain(rules, keys[row], values[row], positions[row], broker_times[row], cause=cause))

    for row, value in enumerate(values):
        if len(value) > MAX_MESSAGE_BYTES or is_nested_too_deep(value):
            reject(row)
            continue
        try:
            orders.append(_decode_order(value))
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            reject(row, cause=str(error))
            continue
        rows.append(row)

    batch = _columns(orders, rows, positions, broker_times)
    kept = _keep(rules, batch, orders, [keys[row] for row in rows])
    if not kept.all():
        for index in np.flatnonzero(~kept).tolist():
            reject(rows[index])
        rejected.sort(key=lambda rejection: rejection.position)
        batch = batch.take(kept)
    return Decoded(accepted=batch, rejected=rejected)


def _columns(orders: list[Order], rows: list[int], positions: Sequence[int], broker_times: Sequence[int]) -> Batch:
    counts = np.fromiter((len(order.lines) for order in orders), dtype=np.int64, count=len(orders))
    lines = [line for order in orders for line in order.lines]
    line_order = np.repeat(np.arange(len(orders), dtype=np.int64), counts)
    first_line = np.cumsum(counts) - counts

    def integers(values: list[int]) -> npt.NDArray[np.int64]:
        return np.array(values, dtype=np.int64)

    return Batch(
        positions=[positions[row] for row in rows],
        broker_times=integers([broker_times[row] for row in rows]),
        event_times=parse_times([order.event_time for order in orders]),
        order_ids=[order.order_id for order in orders],
        is_return=np.array([order.type == "return" for order in orders], dtype=np.bool_),
        customer_ids=[order.customer_id for order in orders],
        countries=[order.country for order in orders],
        original_order_ids=[order.original_order_id for order in orders],
        contents=[
            _encode_content((o.type, o.customer_id, o.country, o.currency, o.original_order_id, o.lines))
            for o in orders
        ],
        line_order=line_order,
        line_number=np.arange(1, len(lines) + 1, dtype=np.int64) - first_line[line_order],
        product_ids=[line.product_id for line in lines],
        product_names=[line.product_name for line in lines],
        categories=[line.category for line in lines],
        quantities=integers([line.quantity for line in lines]),
        unit_amounts=integers([line.unit_amount for line in lines]),
        discount_percents=integers([line.discount_percent for line in lines]),
        unit_costs=integers([-1 if line.unit_cost is None else line.unit_cost for line in lines]),
    )


def _keep(rules: Rules, batch: Batch, orders: list[Order], keys: Sequence[bytes | None]) -> npt.NDArray[np.bool_]:
    """One flag an order: does it keep the rules that its shape alone can't express?"""
    kept = batch.event_times >= EARLIEST_EVENT_TIME_MS
    kept &= batch.event_times <= batch.broker_times + FUTURE_ALLOWANCE_MS
    kept &= np.array([key == order_id.encode() for key, order_id in zip(keys, batch.order_ids, strict=True)], np.bool_)
    if any(order.currency != rules.currency for order in orders):
        kept &= np.array([order.currency == rules.currency for order in orders], np.bool_)
    if not set(batch.countries) <= set(rules.countries):
        kept &= np.array([country in rules.countries for country in batch.countries], np.bool_)
    return kept & _within_amounts(batch)


def _within_amounts(batch: Batch) -> npt.NDArray[np.bool_]:
    """One flag an order: its pieces, its gross and its cost are at most MAX_AMOUNT.

    Products of two allowed numbers reach 1e24, beyond int64; floating point tells those far beyond from those that
    are small enough to be added up exactly.
    """
    quantities = batch.quantities.astype(np.float64)
    too_large = quantities * batch.unit_amounts > 2.0 * MAX_AMOUNT
    too_large |= quantities * batch.unit_costs > 2.0 * MAX_AMOUNT
    kept = np.ones(len(batch), dtype=np.bool_)
    kept[batch.line_order[too_large]] = False
    for unit in (np.ones_like(batch.quantities), batch.unit_amounts, np.maximum(batch.unit_costs, 0)):
        sums = np.zeros(len(batch), dtype=np.int64)
        np.add.at(sums, batch.line_order, np.where(too_large, 0, batch.quantities * unit))
        kept &= sums <= MAX_AMOUNT
    return kept
