"""Bytewax with its own windowing operators: Kafka connector, event clock, one sliding window for each of ours.

Everything has one key, as the shop's numbers are one thing, and a window's fold adds an order's sums to a dictionary:
that was several times faster than a key for each product, country and category.
"""

import os
from collections import defaultdict
from datetime import UTC, datetime, timedelta

import bytewax.operators as op
import bytewax.operators.windowing as w
import msgspec
import redis
from bytewax.connectors.kafka import KafkaSource, KafkaSourceMessage
from bytewax.dataflow import Dataflow
from bytewax.outputs import DynamicSink, StatelessSinkPartition

from sales.countries import REGION_OF

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
WINDOWS = {"1m": (60, 1), "5m": (300, 5), "15m": (900, 15), "1h": (3600, 60), "24h": (86_400, 900)}
"""name to length and slide, seconds"""
WAIT = timedelta(hours=1)
"""The connector reads partitions in turns of BATCH messages; that much event time may lie between them."""
BATCH = 100

Sums = dict[tuple[str, str, str], int]
"""(group, measure, member) to value"""


class Line(msgspec.Struct):
    """What is needed of a line."""

    product_id: str
    category: str
    quantity: int
    unit_amount: int
    discount_percent: int = 0


class Order(msgspec.Struct):
    """What is needed of an order."""

    type: str
    event_time: datetime
    country: str
    lines: list[Line]


_decode = msgspec.json.Decoder(Order).decode


def sums(message: KafkaSourceMessage) -> tuple[datetime, list[tuple[tuple[str, str, str], int]]]:
    """What an order adds to every window that it is in."""
    order = _decode(message.value)
    sale = order.type == "sale"
    sign = 1 if sale else -1
    adds: defaultdict[tuple[str, str, str], int] = defaultdict(int)
    units = revenue = 0
    for line in order.lines:
        gross = line.quantity * line.unit_amount
        net = gross - (gross * line.discount_percent + 50) // 100
        units += line.quantity
        revenue += net
        for group, name in (("product", line.product_id), ("category", line.category)):
            adds[group, "units", name] += sign * line.quantity
            adds[group, "revenue", name] += sign * net
        adds["category", "orders", line.category] = int(sale)
    for group, name in (("country", order.country), ("region", REGION_OF[order.country])):
        adds[group, "units", name] += sign * units
        adds[group, "revenue", name] += sign * revenue
        adds[group, "orders", name] += int(sale)
    adds["aov", "", "orders" if sale else "returns"] += 1
    adds["aov", "", "sales_minor" if sale else "refunded_minor"] += revenue
    adds["aov", "", "revenue_minor"] += sign * revenue
    adds["aov", "", "units"] += sign * units
    return order.event_time, list(adds.items())


def fold(state: Sums, order: tuple[datetime, list[tuple[tuple[str, str, str], int]]]) -> Sums:
    """One order into one window."""
    for name, value in order[1]:
        state[name] = state.get(name, 0) + value
    return state


def merge(one: Sums, other: Sums) -> Sums:
    """Two halves of a window (sessions need it; sliding windows never do)."""
    for name, value in other.items():
        one[name] = one.get(name, 0) + value
    return one


class Board(DynamicSink[tuple[str, datetime, Sums]]):
    """The newest closed window of each length into Redis."""

    def build(self, step_id: str, worker_index: int, worker_count: int) -> "BoardPartition":  # noqa: ARG002 (the engine's)
        """One for each worker; there is one."""
        return BoardPartition()


class BoardPartition(StatelessSinkPartition[tuple[str, datetime, Sums]]):
    """Writes them."""

    def __init__(self) -> None:
        self._client = redis.Redis.from_url(os.environ["REDIS_URL"])
        self._prefix = os.environ["PREFIX"]
        self._last = datetime.fromtimestamp(int(os.environ["AS_OF"]) / 1000, UTC)
        self._shown: dict[str, datetime] = {}

    def write_batch(self, items: list[tuple[str, datetime, Sums]]) -> None:
        """Windows that end after the end of the topic are not full: they are closed only because it ends."""
        newest: dict[str, tuple[datetime, Sums]] = {}
        for name, end, state in items:
            begun = end - timedelta(seconds=WINDOWS[name][1])
            if begun <= self._last and end > newest.get(name, (self._shown.get(name, EPOCH),))[0]:
                newest[name] = (end, state)
        with self._client.pipeline() as pipe:
            for name, (end, state) in newest.items():
                self._shown[name] = end
                self._publish(pipe, name, state)
            pipe.execute()

    def _publish(self, pipe: "redis.client.Pipeline", window: str, state: Sums) -> None:
        keys: defaultdict[str, dict[str, int]] = defaultdict(dict)
        for (group, measure, member), value in state.items():
            keys[f"{self._prefix}{window}:{group}:{measure}".removesuffix(":")][member] = value
        for key, members in keys.items():
            pipe.delete(key)
            if key.endswith(":aov"):
                pipe.hset(key, mapping=members)
                continue
            best = sorted(members.items(), key=lambda pair: (pair[1], pair[0]), reverse=True)
            pipe.zadd(key, dict(best[:100] if ":product:" in key else best))


flow = Dataflow("peer")
messages = op.input(
    "orders", flow, KafkaSource([os.environ["BOOTSTRAP"]], [os.environ["TOPIC"]], tail=False, batch_size=BATCH)
)
keyed = op.key_on("shop", op.map("sums", messages, sums), lambda _: "shop")
clock = w.EventClock(ts_getter=lambda order: order[0], wait_for_system_duration=WAIT)
for label, (length, slide) in WINDOWS.items():
    windower = w.SlidingWindower(timedelta(seconds=length), timedelta(seconds=slide), EPOCH)
    closed = w.fold_window(label, keyed, clock, windower, dict, fold, merge, ordered=False)

    def named(item: tuple[str, tuple[int, Sums]], label: str = label) -> tuple[str, datetime, Sums]:
        """A closed window by its end."""
        number, state = item[1]
        return label, EPOCH + timedelta(seconds=number * WINDOWS[label][1] + WINDOWS[label][0]), state

    op.output(f"board-{label}", op.map(f"named-{label}", closed.down, named), Board())
