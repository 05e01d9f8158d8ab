"""From Flink's topic to Redis: of each window and kind the newest that the end of the orders does not cut off."""

import json
import os

import redis
from confluent_kafka import Consumer

SLIDE_MS = {"1m": 1_000, "5m": 5_000, "15m": 15_000, "1h": 60_000, "24h": 900_000}


def main() -> None:
    """Runs until it is killed."""
    last = int(os.environ["AS_OF"])
    client = redis.Redis.from_url(os.environ["REDIS_URL"])
    consumer = Consumer(
        {
            "bootstrap.servers": os.environ["BOOTSTRAP"],
            "group.id": f"{os.environ['GROUP']}-bridge",
            "auto.offset.reset": "earliest",
        }
    )
    consumer.subscribe([os.environ["OUTPUT"]])
    newest: dict[tuple[str, str], tuple[int, list[dict]]] = {}
    while True:
        changed = set()
        for message in consumer.consume(10_000, 0.2):
            if message.error():
                continue
            row = json.loads(message.value())
            name = row["win"], row["kind"]
            ends, rows = newest.get(name, (0, []))
            if row["ends"] - SLIDE_MS[row["win"]] > last or row["ends"] < ends:
                continue
            if row["ends"] > ends:
                rows = []
                newest[name] = row["ends"], rows
            rows.append(row)
            changed.add(name)
        with client.pipeline() as pipe:
            for name in changed:
                publish(pipe, *name, newest[name][1])
            pipe.execute()


def publish(pipe: "redis.client.Pipeline", window: str, kind: str, rows: list[dict]) -> None:
    """One window of one kind, whole."""
    key = f"{os.environ['PREFIX']}{window}:{kind}"
    if kind == "aov":
        [row] = rows
        totals = {
            "orders": row["orders"],
            "sales_minor": row["sales"],
            "returns": row["events"] - row["orders"],
            "refunded_minor": row["sales"] - row["revenue"],
            "revenue_minor": row["revenue"],
            "units": row["units"],
        }
        pipe.hset(key, mapping=totals)
        return
    of_products = kind.startswith("product:")
    for measure in [kind.partition(":")[2]] if of_products else ["units", "revenue", "orders"]:
        place = key if of_products else f"{key}:{measure}"
        pipe.delete(place)
        pipe.zadd(place, {row["label"]: row[measure] for row in rows})


if __name__ == "__main__":
    main()
