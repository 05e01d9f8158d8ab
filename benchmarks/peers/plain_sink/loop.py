"""The sink that people write first: poll a batch, json, rows by hour, one Parquet object each, then commit.

Each order at least once: what was stored and not yet committed when it ends is stored a second time. No message is
checked, and nothing else than the orders' own fields is worked out.
"""

import io
import json
import os
import uuid
from collections import defaultdict
from datetime import datetime

import boto3
import pyarrow as pa
import pyarrow.parquet as pq
from confluent_kafka import Consumer

BATCH = 100_000
"""Messages; a few seconds of work, and files of some megabytes."""
BATCH_SECONDS = 5.0
"""How long a batch that is not full waits."""

SCHEMA = pa.schema(
    {
        "order_id": pa.string(),
        "event_time": pa.timestamp("ms", "UTC"),
        "type": pa.string(),
        "country": pa.string(),
        "currency": pa.string(),
        "customer_id": pa.int64(),
        "original_order_id": pa.string(),
        "line": pa.int32(),
        "product_id": pa.string(),
        "product_name": pa.string(),
        "category": pa.string(),
        "quantity": pa.int64(),
        "unit_amount": pa.int64(),
        "discount_percent": pa.int32(),
        "unit_cost": pa.int64(),
    }
)


def main() -> None:
    """Runs until it is killed."""
    s3 = boto3.client("s3")
    consumer = Consumer(
        {
            "bootstrap.servers": os.environ["BOOTSTRAP"],
            "group.id": os.environ["GROUP"],
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
        }
    )
    consumer.subscribe([os.environ["TOPIC"]])
    while True:
        hours = defaultdict(list)
        for message in consumer.consume(BATCH, BATCH_SECONDS):
            if not message.error():
                order = json.loads(message.value())
                hours[order["event_time"][:13]] += rows(order)
        for hour, found in hours.items():
            columns = [
                pa.array(column, field.type) for column, field in zip(zip(*found, strict=True), SCHEMA, strict=True)
            ]
            body = io.BytesIO()
            pq.write_table(pa.table(columns, schema=SCHEMA), body, compression="zstd")
            day, _, number = hour.partition("T")
            key = f"orders/dt={day}/hour={number}/{uuid.uuid4()}.parquet"
            s3.put_object(Bucket=os.environ["BUCKET"], Key=key, Body=body.getvalue())
        if hours:
            consumer.commit(asynchronous=False)


def rows(order: dict) -> list[tuple]:
    """A row for each line, in the schema's order."""
    head = (
        order["order_id"],
        datetime.fromisoformat(order["event_time"]),
        order["type"],
        order["country"],
        order["currency"],
        order.get("customer_id"),
        order.get("original_order_id"),
    )
    return [
        (
            *head,
            number,
            line["product_id"],
            line.get("product_name", ""),
            line.get("category", "Uncategorised"),
            line["quantity"],
            line["unit_amount"],
            line.get("discount_percent", 0),
            line.get("unit_cost"),
        )
        for number, line in enumerate(order["lines"], start=1)
    ]


if __name__ == "__main__":
    main()
