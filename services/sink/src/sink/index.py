"""The DynamoDB lane: lookups by key. ``SalesData`` from orders, ``SalesTrends`` from rollups.

Writes are conditional, so they can come in any order and any number of times: of one order id the lowest position
stands, of one scope and minute the highest version's totals, and the mark that they are stale.

An order goes as far as it must; after a restart, or into a table that was filled before, hardly any is written::

    insert, where the key is absent ──refused──▶ look at what stands ──ours is lower, or gone──▶ put, if it is lower
        25 a request                                100 a request                                  1 a request
"""

import threading
from collections.abc import Sequence

from sales import orders
from sales.events import Log
from sales.orders import Batch
from sales.rollups import Rollup
from sales.rules import Rules
from sales.streams.packed import Packed
from sink import items
from sink.items import Item, OrderItem, OrderItems
from sink.lanes import Extent, Prepared, Start, Stored, Wrote
from sink.pace import half_read_units, write_units
from sink.records import find_rollups
from sink.store import StoreError
from sink.writes import Insert, Look, Outcome, Table, Write

log = Log(__name__)

ORDER_BYTES = 550
LINE_BYTES = 250
ROLLUP_BYTES = 300
"""What one of each takes in memory, decoded: measured with orders of 2 lines and of 20,000, and with rollups."""

LOOKED_AT = ("order_id", "event_time", "stream", "position")
"""Of an item that stands: what decides, and what tells a reused id."""


class OrdersIndex:
    """``SalesData``: of the events with one order id the one with the lowest position stands, whatever the order of
    arrival. Positions are compared within one stream id; an item from another stream (or an earlier incarnation) stays
    as it is, first come.

    Args:
        name: for people.
        table: where to.
        rules: what counts as an order.
        make: makes the stream's items.
    """

    def __init__(self, name: str, table: Table, rules: Rules, make: OrderItems) -> None:
        self.name = name
        self.reused_ids = 0
        """events seen that carry another event's order id, with another event time; seen again, counted again"""
        self._table = table
        self._rules = rules
        self._make = make

    def prepare(self, run: Packed) -> Prepared[Batch]:
        """See ``Lane``."""
        chunk = run.chunk()
        decoded = orders.decode(self._rules, chunk.keys, chunk.values, chunk.positions, chunk.broker_times)
        batch = decoded.accepted
        held = ORDER_BYTES * len(batch) + LINE_BYTES * len(batch.product_ids)
        return Prepared(batch, [rejection.position for rejection in decoded.rejected], held)

    def start(self, partition: str, committed: int | None) -> Start:  # noqa: ARG002 (any partition starts alike)
        """See ``Lane``: where the group is."""
        return Start(committed)

    def store(self, extent: Extent[Batch], abandoned: threading.Event) -> Stored:
        """See ``Lane``; raises as ``Table.write``."""
        lowest = self._make.of(extent.partition, extent.pieces)
        others = self._write(lowest.items, abandoned)
        reused = lowest.reused + sum(
            other["event_time"]["S"] != item.event_time
            for item, other in zip(lowest.items, others, strict=True)
            if other is not None
        )
        if reused:
            self.reused_ids += reused
            log.info(
                "order_ids_reused",
                "{lane}: {events} events reuse the order id of another event ({events_in_all} in all)",
                lane=self.name,
                events=reused,
                events_in_all=self.reused_ids,
            )
        duplicates = sum(other is not None for other in others)
        return Stored(extent.end, Wrote(items=len(others) - duplicates, duplicates=duplicates))

    def _write(self, wanted: Sequence[OrderItem], abandoned: threading.Event) -> list[Item | None]:
        """What stood in each one's place. Nearly all are new; of the others most stand there already, at the same
        position, and nothing is left to do."""
        inserted = self._table.insert([Insert(item.attributes, write_units(item.size)) for item in wanted], abandoned)
        refused = [place for place, new in enumerate(inserted) if not new]
        looks = [Look(_key(wanted[place]), half_read_units(wanted[place].size)) for place in refused]
        others: list[Item | None] = [None] * len(wanted)
        for place, found in zip(refused, self._table.look(looks, LOOKED_AT, abandoned), strict=True):
            others[place] = self._ours(found.item)
        lower = [place for place in refused if not _stands(others[place], wanted[place])]
        outcomes = self._table.write([_order_write(wanted[place]) for place in lower], abandoned)
        for place, outcome in zip(lower, outcomes, strict=True):
            others[place] = self._ours(outcome.other)
        return others

    def _ours(self, item: Item | None) -> Item | None:
        """The same, if it is a sink's."""
        if item is not None and (missing := set(LOOKED_AT).difference(item)):
            raise StoreError(
                f"{self._table.address}: an item has no {' and no '.join(sorted(missing))}, so no sink wrote it, and "
                f"it stands in the way of an order: remove it ({item.get('order_id')})"
            )
        return item


class RollupsIndex:
    """``SalesTrends``: of the rollups of one scope and minute the highest version's totals stand; a stale one marks
    them and changes nothing else.

    Args:
        name: for people.
        table: where to.
        currency: of all amounts.
    """

    def __init__(self, name: str, table: Table, currency: str) -> None:
        self.name = name
        self._table = table
        self._currency = currency

    def prepare(self, run: Packed) -> Prepared[list[Rollup]]:
        """See ``Lane``."""
        chunk = run.chunk()
        found = find_rollups(chunk.values)
        return Prepared(found.records, found.missing(chunk.positions), ROLLUP_BYTES * len(found.records))

    def start(self, partition: str, committed: int | None) -> Start:  # noqa: ARG002 (any partition starts alike)
        """See ``Lane``: where the group is."""
        return Start(committed)

    def store(self, extent: Extent[list[Rollup]], abandoned: threading.Event) -> Stored:
        """See ``Lane``; raises as ``Table.write``."""
        best = items.rightest(rollup for piece in extent.pieces for rollup in piece)
        outcomes: list[Outcome] = []
        for stale in (False, True):
            chosen = [rollup for rollup in best if rollup.stale is stale]
            outcomes += self._table.write([_rollup_write(rollup, self._currency) for rollup in chosen], abandoned)
        duplicates = sum(outcome.other is not None for outcome in outcomes)
        return Stored(extent.end, Wrote(items=len(outcomes) - duplicates, duplicates=duplicates))


def _key(item: OrderItem) -> Item:
    return {"order_id": item.attributes["order_id"]}


def _stands(other: Item | None, item: OrderItem) -> bool:
    """Would the conditional put leave the other as it is? The look may be old; but whatever stands is only ever
    replaced by a lower position of its own stream, so a yes is true for good. A no is for the put to decide."""
    if other is None:
        return False
    return bool(other["stream"]["S"] != item.stream or other["position"]["S"] <= item.position)


def _order_write(item: OrderItem) -> Write:
    return Write(
        _key(item),
        "put_item",
        {
            "Item": item.attributes,
            "ConditionExpression": "attribute_not_exists(order_id) OR (#stream = :stream AND #position > :position)",
            "ExpressionAttributeNames": {"#stream": "stream", "#position": "position"},
            "ExpressionAttributeValues": {":stream": {"S": item.stream}, ":position": {"S": item.position}},
        },
        write_units(item.size),
    )


def _rollup_write(rollup: Rollup, currency: str) -> Write:
    """Totals leave the mark as it stands, the mark leaves the totals: so they may come in any order."""
    attributes = items.trend(rollup, currency)
    key = {name: attributes.pop(name) for name in ("scope", "minute")}
    ours = {"stale"} if rollup.stale else attributes.keys() - {"stale"}
    values = {name: f":{name}" if name in ours else f"if_not_exists(#{name}, :{name})" for name in attributes}
    newer = "#stale <> :stale" if rollup.stale else "#version < :version"
    return Write(
        key,
        "update_item",
        {
            "Key": key,
            "UpdateExpression": "SET " + ", ".join(f"#{name} = {value}" for name, value in values.items()),
            "ConditionExpression": f"attribute_not_exists(#version) OR {newer}",
            "ExpressionAttributeNames": {f"#{name}": name for name in attributes},
            "ExpressionAttributeValues": {f":{name}": attribute for name, attribute in attributes.items()},
        },
        units=1,
    )
