"""Quix Streams: an order becomes a record for each product, category, country, region and for the shop, grouped by
that, with one hopping window for each of ours. The window that ends with the topic's last pane goes to Redis."""

import os
from collections import defaultdict
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import redis
from quixstreams import Application
from quixstreams.dataframe.windows import Count, Sum

MINUTE, HOUR = 60_000, 3_600_000
WINDOWS = {
    "1m": (MINUTE, 1_000),
    "5m": (5 * MINUTE, 5_000),
    "15m": (15 * MINUTE, 15_000),
    "1h": (HOUR, MINUTE),
    "24h": (24 * HOUR, 15 * MINUTE),
}
"""name to length and step, ms"""
GRACE = 2 * HOUR
"""Partitions are read each at its own pace: nothing is late."""
REGIONS = dict(pair.split("=") for pair in os.environ["REGIONS"].split(","))
AS_OF = int(os.environ["AS_OF"])
PREFIX = os.environ["PREFIX"]

client = redis.Redis.from_url(os.environ["REDIS_URL"])


def event_time(order: dict[str, Any], *_: object) -> int:
    """When the order was placed, ms."""
    return round(datetime.fromisoformat(order["event_time"]).timestamp() * 1000)


def parts(order: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """What the order adds to each group that it is in."""
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
        yield {
            "name": name,
            "units": units,
            "revenue": revenue,
            "orders": int(sale),
            "sales": revenue if sale else 0,
        }


def show(window: str) -> Any:
    """A function that writes a result of that window."""
    step = WINDOWS[window][1]
    end = AS_OF - AS_OF % step + step

    def write(result: dict[str, Any], key: str, *_: object) -> None:
        if result["end"] != end:
            return
        group, _, name = key.partition("|")
        if group == "aov":
            totals = {
                "orders": result["orders"],
                "sales_minor": result["sales"],
                "returns": result["events"] - result["orders"],
                "refunded_minor": result["sales"] - result["revenue"],
                "revenue_minor": result["revenue"],
                "units": result["units"],
            }
            client.hset(f"{PREFIX}{window}:aov", mapping=totals)
            return
        with client.pipeline(transaction=False) as pipe:
            for measure in ("units", "revenue") if group == "product" else ("units", "revenue", "orders"):
                pipe.zadd(f"{PREFIX}{window}:{group}:{measure}", {name: result[measure]})
            pipe.execute()

    return write


def main() -> None:
    """Runs until it is killed."""
    app = Application(
        broker_address=os.environ["BOOTSTRAP"],
        consumer_group=os.environ["GROUP"],
        auto_offset_reset="earliest",
        state_dir=os.environ["STATE"],
        loglevel="WARNING",
    )
    orders = app.dataframe(app.topic(os.environ["TOPIC"], timestamp_extractor=event_time))
    grouped = orders.apply(parts, expand=True).group_by("name", key_serializer="str", key_deserializer="str")
    for window, (length, step) in WINDOWS.items():
        grouped.hopping_window(length, step, GRACE, name=window).agg(
            units=Sum("units"), revenue=Sum("revenue"), orders=Sum("orders"), sales=Sum("sales"), events=Count()
        ).current().update(show(window), metadata=True)
    app.run()


if __name__ == "__main__":
    main()
