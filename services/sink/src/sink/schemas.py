"""The columns of the stored tables, and the folders that their objects are in. Pure; all of it is contract."""

import numpy as np
import pyarrow as pa

TIME = pa.timestamp("ms")
"""UTC without a zone: Athena's and DuckDB's plain ``timestamp``."""

ORDERS = pa.schema(
    [
        ("order_id", pa.string()),
        ("type", pa.string()),
        ("event_time", TIME),
        ("customer_id", pa.int64()),
        ("country", pa.string()),
        ("region", pa.string()),
        ("currency", pa.string()),
        ("original_order_id", pa.string()),
        ("line", pa.int32()),
        ("product_id", pa.string()),
        ("product_name", pa.string()),
        ("category", pa.string()),
        ("quantity", pa.int64()),
        ("unit_amount", pa.int64()),
        ("discount_percent", pa.int32()),
        ("unit_cost", pa.int64()),
        ("gross_amount", pa.int64()),
        ("discount_amount", pa.int64()),
        ("net_amount", pa.int64()),
        ("profit_amount", pa.int64()),
        ("stream", pa.string()),
        ("partition", pa.string()),
        ("position", pa.string()),
        ("accepted_at", TIME),
    ]
)

ROLLUPS = pa.schema(
    [
        ("minute", TIME),
        ("scope", pa.string()),
        ("country", pa.string()),
        ("category", pa.string()),
        ("version", pa.int64()),
        ("orders", pa.int64()),
        ("returns", pa.int64()),
        ("units", pa.int64()),
        ("sales_minor", pa.int64()),
        ("refunded_minor", pa.int64()),
        ("revenue_minor", pa.int64()),
        ("stale", pa.bool_()),
        ("stream", pa.string()),
        ("partition", pa.string()),
        ("position", pa.string()),
        ("accepted_at", TIME),
    ]
)

DEAD_LETTERS = pa.schema(
    [
        ("stream", pa.string()),
        ("partition", pa.string()),
        ("position", pa.string()),
        ("broker_time", TIME),
        ("key", pa.binary()),
        ("reason", pa.string()),
        ("detail", pa.string()),
        ("raw", pa.binary()),
        ("raw_bytes", pa.int64()),
        ("raw_sha256", pa.string()),
        ("archived_stream", pa.string()),
        ("archived_partition", pa.string()),
        ("archived_position", pa.string()),
        ("archived_at", TIME),
    ]
)


def folder_of(table: str, slot: int, *, hourly: bool) -> str:
    """The folder of the hour (or day) that began ``slot`` hours (or days) after 1970, with its slash at the end."""
    start = np.datetime64(slot, "h" if hourly else "D")
    day = f"{table}/dt={np.datetime_as_string(start, unit='D')}/"
    return f"{day}hour={slot % 24:02d}/" if hourly else day
