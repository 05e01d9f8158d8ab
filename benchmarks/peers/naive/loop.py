"""The loop that people write first: poll, json, Redis INCR. ``BATCH`` messages share one round trip (1: none does).

It knows no windows: it adds up everything since it began. It forgets nothing, and a restart counts again what was not
committed. No message is checked.
"""

import json
import os

import redis
from confluent_kafka import Consumer

from sales.countries import REGION_OF


def main() -> None:
    """Runs until it is killed."""
    batch = int(os.environ["BATCH"])
    prefix = os.environ["PREFIX"]
    client = redis.Redis.from_url(os.environ["REDIS_URL"])
    consumer = Consumer(
        {
            "bootstrap.servers": os.environ["BOOTSTRAP"],
            "group.id": os.environ["GROUP"],
            "auto.offset.reset": "earliest",
        }
    )
    consumer.subscribe([os.environ["TOPIC"]])
    while True:
        with client.pipeline(transaction=False) as pipe:
            for message in consumer.consume(batch, 1.0):
                if not message.error():
                    count(pipe, f"{prefix}24h", json.loads(message.value()))
            pipe.execute()


def count(pipe: "redis.client.Pipeline", window: str, order: dict) -> None:
    """Adds one order."""
    sale = order["type"] == "sale"
    sign = 1 if sale else -1
    units = revenue = 0
    for line in order["lines"]:
        gross = line["quantity"] * line["unit_amount"]
        net = gross - (gross * line.get("discount_percent", 0) + 50) // 100
        units += line["quantity"]
        revenue += net
        for group, name in (("product", line["product_id"]), ("category", line["category"])):
            pipe.zincrby(f"{window}:{group}:units", sign * line["quantity"], name)
            pipe.zincrby(f"{window}:{group}:revenue", sign * net, name)
    for category in {line["category"] for line in order["lines"]}:
        pipe.zincrby(f"{window}:category:orders", int(sale), category)
    for group, name in (("country", order["country"]), ("region", REGION_OF[order["country"]])):
        pipe.zincrby(f"{window}:{group}:units", sign * units, name)
        pipe.zincrby(f"{window}:{group}:revenue", sign * revenue, name)
        pipe.zincrby(f"{window}:{group}:orders", int(sale), name)
    pipe.hincrby(f"{window}:aov", "orders" if sale else "returns", 1)
    pipe.hincrby(f"{window}:aov", "sales_minor" if sale else "refunded_minor", revenue)
    pipe.hincrby(f"{window}:aov", "revenue_minor", sign * revenue)
    pipe.hincrby(f"{window}:aov", "units", sign * units)


if __name__ == "__main__":
    main()
