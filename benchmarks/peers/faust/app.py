"""Faust: an order becomes a record for each product, category, country, region and for the shop, sent on under that
name, and each name has a value in a windowed table for each of our windows. The window that ends with the topic's last
pane goes to Redis, once a second."""

import os
from collections import defaultdict
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import faust
from faust.types.windows import WindowRange_from_start
from redis.asyncio import Redis

WINDOWS = {"1m": (60, 1), "5m": (300, 5), "15m": (900, 15), "1h": (3600, 60), "24h": (86_400, 900)}
"""name to length and step, seconds"""
KEPT = timedelta(days=2)
"""Partitions are read each at its own pace: no window may expire before the end of the topic."""
REGIONS = dict(pair.split("=") for pair in os.environ["REGIONS"].split(","))
AS_OF = int(os.environ["AS_OF"]) / 1000
PREFIX = os.environ["PREFIX"]
MEASURES = ("units", "revenue", "orders", "sales", "events")


class Part(faust.Record, serializer="json"):
    """What an order adds to a name."""

    name: str
    time: float
    """when the order was placed, seconds since 1970"""
    sums: list[int]


app = faust.App(
    os.environ["GROUP"],
    broker=f"kafka://{os.environ['BOOTSTRAP']}",
    datadir=os.environ["STATE"],
    store="memory://",
    topic_partitions=1,
    topic_replication_factor=1,
    stream_wait_empty=False,
    web_enabled=False,
    producer_linger=0.05,
    producer_max_batch_size=1_000_000,
    broker_session_timeout=300.0,  # a loop that is busy sending must not lose its partitions: it would count twice
    broker_request_timeout=400.0,
    broker_max_poll_interval=3600.0,
)
orders = app.topic(os.environ["TOPIC"], key_serializer="raw", value_serializer="json")
parts = app.topic(os.environ["OUTPUT"], value_type=Part)
tables = {
    window: app.Table(window, default=lambda: [0] * len(MEASURES))
    .hopping(timedelta(seconds=length), timedelta(seconds=step), expires=KEPT)
    .relative_to_field(Part.time)
    for window, (length, step) in WINDOWS.items()
}
client = Redis.from_url(os.environ["REDIS_URL"])
changed: set[str] = set()


def add(state: list[int], more: list[int]) -> list[int]:
    """Sums of a window and of one record more."""
    return [one + other for one, other in zip(state, more, strict=True)]


def split(order: dict[str, Any]) -> Iterator[tuple[str, list[int]]]:
    """What the order adds to each name."""
    sale = order["type"] == "sale"
    sign = 1 if sale else -1
    sums: defaultdict[str, list[int]] = defaultdict(lambda: [0, 0])
    for line in order["lines"]:
        gross = line["quantity"] * line["unit_amount"]
        net = gross - (gross * line.get("discount_percent", 0) + 50) // 100
        country = order["country"]
        for name in (
            f"product|{line['product_id']}",
            f"category|{line['category']}",
            f"country|{country}",
            f"region|{REGIONS[country]}",
            "aov|",
        ):
            sums[name][0] += sign * line["quantity"]
            sums[name][1] += sign * net
    for name, (units, revenue) in sums.items():
        yield name, [units, revenue, int(sale), revenue if sale else 0, 1]


@app.agent(orders)
async def part(stream: Any) -> None:
    """Sends each part of an order on, under its name."""
    async for order in stream:
        time = datetime.fromisoformat(order["event_time"]).timestamp()
        for name, sums in split(order):
            await parts.send(key=name.encode(), value=Part(name=name, time=time, sums=sums))


@app.agent(parts)
async def count(stream: Any) -> None:
    """Adds each part to all windows that it is in."""
    async for record in stream:
        for table in tables.values():
            table[record.name].apply(add, record.sums)
        changed.add(record.name)


@app.timer(interval=1.0)
async def show() -> None:
    """Writes what has changed."""
    async with client.pipeline(transaction=False) as pipe:
        for name in changed:
            group, _, member = name.partition("|")
            for window, (length, step) in WINDOWS.items():
                end = AS_OF - AS_OF % step + step
                sums = tables[window][name][WindowRange_from_start(end - length, length)]
                values = dict(zip(MEASURES, sums, strict=True))
                if values["events"]:
                    write(pipe, window, group, member, values)
        changed.clear()
        await pipe.execute()


def write(pipe: Any, window: str, group: str, member: str, values: dict[str, int]) -> None:
    """One name of one window."""
    if group != "aov":
        for measure in ("units", "revenue") if group == "product" else ("units", "revenue", "orders"):
            pipe.zadd(f"{PREFIX}{window}:{group}:{measure}", {member: values[measure]})
        return
    totals = {
        "orders": values["orders"],
        "sales_minor": values["sales"],
        "returns": values["events"] - values["orders"],
        "refunded_minor": values["sales"] - values["revenue"],
        "revenue_minor": values["revenue"],
        "units": values["units"],
    }
    pipe.hset(f"{PREFIX}{window}:aov", mapping=totals)


if __name__ == "__main__":
    app.main()
