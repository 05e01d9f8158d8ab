"""The DynamoDB lane: lookups by key. ``SalesData`` from orders, ``SalesTrends`` from rollups.

Writes are conditional, so they can come in any order and any number of times: of one order id the lowest position
stands, of one scope and minute the highest version's totals, and the mark that they are stale.
"""

import logging
import random
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any, Literal

from botocore.exceptions import ClientError

from sales import aws_faults, orders
from sales.orders import Batch
from sales.rollups import Rollup
from sales.rules import Rules
from sales.streams import AwayError, Chunk
from sink import failpoints, items
from sink.delivery import AbandonedError, Extent, Prepared, Start, Stored
from sink.items import Item, OrderItem, OrderItems
from sink.records import find_rollups
from sink.store import StoreError

log = logging.getLogger(__name__)

FIRST_PAUSE_SECONDS = 0.05
LONGEST_PAUSE_SECONDS = 5.0
"""Between two rounds of items that were throttled, with jitter: at 5 units a second a round of some hundred items is
refused many times, and shorter pauses would only be refused more often."""

THROTTLE_LOG_SECONDS = 30.0

ORDER_BYTES = 550
LINE_BYTES = 250
ROLLUP_BYTES = 300
"""What one of each takes in memory, decoded: measured with orders of 2 lines and of 20,000, and with rollups."""

LEAST_ROUND = 8
"""Items in a round at least, however hard the table throttles."""

MOST_ROUND = 128
"""Items in a round at most: after each one a stop is noticed, so that a slow table does not hold it up."""


@dataclass(frozen=True, slots=True)
class Write:
    """A conditional write of one item."""

    key: Item
    operation: Literal["put_item", "update_item"]
    request: Mapping[str, Any]
    """what the operation takes beside the table's name"""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a write."""

    written: bool
    other: Item | None
    """what stood there: replaced, or kept instead"""


class Table:
    """Conditional writes to one DynamoDB table; any thread may call.

    Args:
        client: boto3's, for ``dynamodb``.
        name: the table's name.
        threads: run the requests.
    """

    def __init__(self, client: Any, name: str, threads: Executor) -> None:
        self._client = client
        self._name = name
        self._threads = threads
        self.address = f"DynamoDB table {name} at {client.meta.endpoint_url}"

    def write(self, writes: Sequence[Write], abandoned: threading.Event) -> list[Outcome]:
        """Writes each item whose condition holds; blocks until all are answered. What is throttled is tried again,
        after a pause that grows while nothing gets through, for as long as it takes.

        Args:
            writes: of different keys.
            abandoned: ends the waiting.

        Raises:
            AwayError: no answer; any of them may be written.
            StoreError: refused for good.
            AbandonedError: ``abandoned`` was set.
        """
        outcomes: list[Outcome | None] = [None] * len(writes)
        waiting = list(range(len(writes)))
        width, pause = MOST_ROUND, FIRST_PAUSE_SECONDS
        say_at = time.monotonic() + THROTTLE_LOG_SECONDS
        while waiting:
            if abandoned.is_set():
                raise AbandonedError(f"{self.address}: {len(waiting)} items were given up")
            tried, waiting = waiting[:width], waiting[width:]
            failpoints.passed("items-before")
            for place, outcome in zip(tried, self._threads.map(self._write, [writes[i] for i in tried]), strict=True):
                outcomes[place] = outcome
            failpoints.passed("items-after")
            throttled = [place for place in tried if outcomes[place] is None]
            if not throttled:
                width, pause = min(MOST_ROUND, 2 * width), FIRST_PAUSE_SECONDS
                continue
            written = len(tried) - len(throttled)
            width = max(LEAST_ROUND, 2 * written)
            pause = FIRST_PAUSE_SECONDS if written else min(LONGEST_PAUSE_SECONDS, 2 * pause)
            waiting = throttled + waiting
            if time.monotonic() >= say_at:
                say_at = time.monotonic() + THROTTLE_LOG_SECONDS
                log.warning("%s is throttled; %d items wait, none is lost", self.address, len(waiting))
            abandoned.wait(pause * random.uniform(0.5, 1))  # noqa: S311 (jitter)
        return [outcome for outcome in outcomes if outcome is not None]

    def check(self) -> None:
        """One request that shows that the table can be written.

        Raises:
            AwayError: no answer, or the table is missing or not ready (somebody may be about to create it).
            StoreError: refused for good.
        """
        try:
            status = self._client.describe_table(TableName=self._name)["Table"]["TableStatus"]
        except (ClientError, *aws_faults.TRANSPORT_FAULTS) as error:
            if isinstance(error, ClientError) and aws_faults.code(error) == "ResourceNotFoundException":
                raise AwayError(f"{self.address} does not exist; `tillstream setup` creates it") from error
            raise self._explain(error, "describe") from error
        if status not in ("ACTIVE", "UPDATING"):
            raise AwayError(f"{self.address} is {status}")

    def _write(self, write: Write) -> Outcome | None:
        """One request; None: throttled."""
        try:
            answer = getattr(self._client, write.operation)(
                TableName=self._name,
                **write.request,
                ReturnValues="ALL_OLD",
                ReturnValuesOnConditionCheckFailure="ALL_OLD",
            )
        except (ClientError, *aws_faults.TRANSPORT_FAULTS) as error:
            if isinstance(error, ClientError):
                if aws_faults.code(error) == "ConditionalCheckFailedException":
                    return Outcome(written=False, other=error.response.get("Item"))
                if aws_faults.throttled(error):
                    return None
            raise self._explain(error, f"{write.operation} {write.key}") from error
        return Outcome(written=True, other=answer.get("Attributes"))

    def _explain(self, error: Exception, what: str) -> Exception:
        message = f"{self.address}: {what}: {error}"
        if not isinstance(error, ClientError) or aws_faults.passes(error):
            return AwayError(message)
        return StoreError(message)


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

    def prepare(self, chunk: Chunk) -> Prepared[Batch]:
        """See ``Lane``."""
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
        outcomes = self._table.write([_order_write(item) for item in lowest.items], abandoned)
        reused = lowest.reused
        for item, outcome in zip(lowest.items, outcomes, strict=True):
            if outcome.other is not None and outcome.other["event_time"]["S"] != item.event_time:
                reused += 1
        if reused:
            self.reused_ids += reused
            log.info(
                "%s: %d events reuse the order id of another event (%d in all)", self.name, reused, self.reused_ids
            )
        return Stored(extent.end)


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

    def prepare(self, chunk: Chunk) -> Prepared[list[Rollup]]:
        """See ``Lane``."""
        found = find_rollups(chunk.values)
        return Prepared(found.records, found.missing(chunk.positions), ROLLUP_BYTES * len(found.records))

    def start(self, partition: str, committed: int | None) -> Start:  # noqa: ARG002 (any partition starts alike)
        """See ``Lane``: where the group is."""
        return Start(committed)

    def store(self, extent: Extent[list[Rollup]], abandoned: threading.Event) -> Stored:
        """See ``Lane``; raises as ``Table.write``."""
        best = items.rightest(rollup for piece in extent.pieces for rollup in piece)
        for stale in (False, True):
            chosen = [rollup for rollup in best if rollup.stale is stale]
            self._table.write([_rollup_write(rollup, self._currency) for rollup in chosen], abandoned)
        return Stored(extent.end)


def _order_write(item: OrderItem) -> Write:
    return Write(
        {"order_id": item.attributes["order_id"]},
        "put_item",
        {
            "Item": item.attributes,
            "ConditionExpression": "attribute_not_exists(order_id) OR (#stream = :stream AND #position > :position)",
            "ExpressionAttributeNames": {"#stream": "stream", "#position": "position"},
            "ExpressionAttributeValues": {":stream": {"S": item.stream}, ":position": {"S": item.position}},
        },
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
    )
