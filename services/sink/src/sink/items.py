"""Orders and rollups as DynamoDB items, in the service's own notation (``{"S": …}``). Pure.

``SalesData``, of the lowest position that holds an ``order_id``: amounts are decimals in major units, negative for
returns.

=============================== =======================================================================================
``order_id``                    key
``type``, ``event_time``        ``sale`` or ``return``; RFC 3339 in UTC with milliseconds
``order_date``                  ISO date of the event time in UTC
``customer_id``                 number; missing where unknown
``country``, ``region``         code, and the region it lies in
``product_id``, ``product_name`` of the line with the largest net (its size, for returns too), the first of equals
``category``                    of the same line, key of ``CategoryIndex``
``sales``                       the order's gross, before discount
``discount``                    the order's effective percentage, discount / gross x 100, half up to two decimals
``net``                         gross less discount
``profit``                      net less cost; missing when a line has no cost
``currency``                    ISO 4217
``original_order_id``           of a return, where known
``lines``                       list of maps: ``line product_id product_name category quantity unit_amount discount
                                sales net``, and ``unit_cost profit`` where known
``lines_omitted``               true instead of ``lines`` where those would make the item too large
``stream partition position``   where the event is: stream id, partition, position in fixed width
=============================== =======================================================================================

An empty category is ``Uncategorised`` at the top (not in ``lines``), because an index takes no empty key.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from sales.money import exponent, to_text
from sales.orders import Batch
from sales.rollups import Rollup
from sales.streams import format_position
from sales.times import format_times

LARGEST_ITEM_BYTES = 390_000
"""DynamoDB takes 400 KB (409,600 bytes); the size here is an estimate from above, and indexes add a little."""

Attribute = dict[str, Any]
Item = dict[str, Attribute]


@dataclass(frozen=True, slots=True)
class OrderItem:
    """An order as it is to stand in ``SalesData``, unless a lower position of its stream stands there."""

    order_id: str
    event_time: str
    position: str
    stream: str
    attributes: Item
    size: int
    """see ``size``"""


class OrderItems:
    """Makes the items of one stream's orders.

    Args:
        stream: the stream's id.
        digits: how many its positions are written with.
        currency: of all amounts.
        regions: each country's region.
    """

    def __init__(self, stream: str, digits: int, currency: str, regions: Mapping[str, str]) -> None:
        self._stream = stream
        self._digits = digits
        self._currency = currency
        self._exponent = exponent(currency)
        self._regions = regions

    def of(self, partition: str, batches: Iterable[Batch]) -> "Lowest":
        """One item for each order id in consecutive batches of a partition: the first, with the lowest position."""
        found: dict[str, OrderItem] = {}
        reused = 0
        for batch in batches:
            firsts: list[int] = []
            times: dict[str, str] = {}
            for row, (order_id, event_time) in enumerate(
                zip(batch.order_ids, format_times(batch.event_times), strict=True)
            ):
                earlier = times.get(order_id) or (found[order_id].event_time if order_id in found else None)
                if earlier is None:
                    firsts.append(row)
                    times[order_id] = event_time
                elif earlier != event_time:
                    reused += 1
            for item in self._items(partition, batch, firsts, times):
                found[item.order_id] = item
        return Lowest(list(found.values()), reused)

    def _items(self, partition: str, batch: Batch, rows: list[int], times: Mapping[str, str]) -> Iterator[OrderItem]:
        starts = np.searchsorted(batch.line_order, np.arange(len(batch) + 1)).tolist()
        gross, net = batch.gross().tolist(), batch.net().tolist()
        quantities, costs = batch.quantities.tolist(), batch.unit_costs.tolist()
        units, percents = batch.unit_amounts.tolist(), batch.discount_percents.tolist()
        for row in rows:
            lines = range(starts[row], starts[row + 1])
            sign = -1 if batch.is_return[row] else 1
            largest = max(lines, key=net.__getitem__)  # max keeps the first of equals
            order_gross, order_net = sum(gross[i] for i in lines), sum(net[i] for i in lines)
            order_id, event_time = batch.order_ids[row], times[batch.order_ids[row]]
            position = format_position(batch.positions[row], self._digits)
            item: Item = {
                "order_id": _text(order_id),
                "type": _text("return" if batch.is_return[row] else "sale"),
                "event_time": _text(event_time),
                "order_date": _text(event_time[:10]),
                "country": _text(batch.countries[row]),
                "region": _text(self._regions[batch.countries[row]]),
                "product_id": _text(batch.product_ids[largest]),
                "product_name": _text(batch.product_names[largest]),
                "category": _text(batch.categories[largest] or "Uncategorised"),
                "sales": self._amount(sign * order_gross),
                "discount": {"N": _percentage(order_gross - order_net, order_gross)},
                "net": self._amount(sign * order_net),
                "currency": _text(self._currency),
                "stream": _text(self._stream),
                "partition": _text(partition),
                "position": _text(position),
            }
            if all(costs[i] >= 0 for i in lines):
                item["profit"] = self._amount(sign * (order_net - sum(quantities[i] * costs[i] for i in lines)))
            customer, original = batch.customer_ids[row], batch.original_order_ids[row]
            if customer is not None:
                item["customer_id"] = _number(customer)
            if original is not None:
                item["original_order_id"] = _text(original)
            details: list[Attribute] = []
            for i in lines:
                line: Item = {
                    "line": _number(i - starts[row] + 1),
                    "product_id": _text(batch.product_ids[i]),
                    "product_name": _text(batch.product_names[i]),
                    "category": _text(batch.categories[i]),
                    "quantity": _number(sign * quantities[i]),
                    "unit_amount": self._amount(units[i]),
                    "discount": _number(percents[i]),
                    "sales": self._amount(sign * gross[i]),
                    "net": self._amount(sign * net[i]),
                }
                if costs[i] >= 0:
                    line["unit_cost"] = self._amount(costs[i])
                    line["profit"] = self._amount(sign * (net[i] - quantities[i] * costs[i]))
                details.append({"M": line})
            item["lines"] = {"L": details}
            item_bytes = size(item)
            if item_bytes > LARGEST_ITEM_BYTES:
                del item["lines"]
                item["lines_omitted"] = {"BOOL": True}
                item_bytes = size(item)
            yield OrderItem(order_id, event_time, position, self._stream, item, item_bytes)

    def _amount(self, minor: int) -> Attribute:
        return {"N": to_text(minor, self._exponent)}


@dataclass(frozen=True, slots=True)
class Lowest:
    """The items of an extent."""

    items: list[OrderItem]
    reused: int
    """further events that carry an id of an earlier one, with another event time"""


def trend(rollup: Rollup, currency: str) -> Item:
    """A rollup as it stands in ``SalesTrends``; amounts are decimals in major units."""
    digits = exponent(currency)
    item: Item = {
        "scope": _text(rollup.scope),
        "minute": _text(rollup.minute),
        "version": _number(rollup.version),
        "orders": _number(rollup.orders),
        "returns": _number(rollup.returns),
        "units": _number(rollup.units),
        "sales": {"N": to_text(rollup.sales_minor, digits)},
        "refunded": {"N": to_text(rollup.refunded_minor, digits)},
        "revenue": {"N": to_text(rollup.revenue_minor, digits)},
        "currency": _text(currency),
        "stale": {"BOOL": rollup.stale},
    }
    if rollup.country is not None:
        item["country"] = _text(rollup.country)
    if rollup.category is not None:
        item["category"] = _text(rollup.category)
    return item


def rightest(rollups: Iterable[Rollup]) -> list[Rollup]:
    """Of each scope and minute those that count: the totals of the highest version, and a stale one if there is one."""
    best: dict[tuple[str, str, bool], Rollup] = {}
    for rollup in rollups:
        key = (rollup.scope, rollup.minute, rollup.stale)
        held = best.get(key)
        if held is None or rollup.version > held.version:
            best[key] = rollup
    return list(best.values())


def size(item: Item) -> int:
    """An item's bytes as DynamoDB counts them, rounded up."""
    total = 0
    for name, attribute in item.items():
        for kind, value in attribute.items():  # there is one
            total += len(name)
            if kind == "S":
                total += len(value) if value.isascii() else len(value.encode())
            elif kind == "N":
                total += len(value) // 2 + 3
            elif kind == "L":  # of maps
                total += 3 + sum(4 + len(element["M"]) + size(element["M"]) for element in value)
            else:
                total += 1
    return total


def _percentage(part: int, whole: int) -> str:
    """100 x part / whole, half up to two decimals; both at least 0."""
    return "0" if whole == 0 else to_text((20_000 * part + whole) // (2 * whole), 2)


def _text(value: str) -> Attribute:
    return {"S": value}


def _number(value: int) -> Attribute:
    return {"N": str(value)}
