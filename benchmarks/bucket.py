"""A bucket of orders as the sink stores them, on a server of this machine, made by SQL: no service is needed."""

import contextlib
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import duckdb

import sink  # noqa: F401 (before pyarrow: it chooses the memory pool)
from sales.countries import REGION_OF
from sales.rules import Rules
from sales.settings import StoreSettings
from sales.windows import HOUR_MS
from sink import aws
from sink.orders import orders_layout
from sink.parquet import ROW_GROUP_ROWS, encode
from sink.schemas import ORDERS, folder_of
from tillstream.local import aws as local_aws
from tillstream.local.nursery import Nursery

START_MS = 1_793_491_200_000
"""2026-11-01T00:00:00Z"""
BUCKET = "bench"
STREAM = "orders-0badcafe"

# 2 lines an order; every thousandth order of an hour is there a second time. Numbers are drawn by hashes of the row's,
# so that each run has the same.
_HOUR = """
    WITH lines AS (
        SELECT range // 2 AS number, number AS identity, range % 2 + 1 AS line FROM range($lines)
        UNION ALL
        SELECT $lines + range // 2, range // 2 * 1000, range % 2 + 1 FROM range($lines // 2000 * 2)
    ),
    drawn AS (
        SELECT *, (hash(identity, $hour) >> 1)::BIGINT AS who, (hash(identity, line, $hour) >> 1)::BIGINT AS what
        FROM lines
    ),
    priced AS (
        SELECT *, 1 + (what // 7) % 9 AS quantity, 100 + (what // 11) % 4900 AS unit_amount,
            if(what % 3 = 0, 10, 0) AS discount_percent, 50 + (what // 13) % 900 AS unit_cost, what % 4000 AS product,
            quantity * unit_amount AS gross, (gross * discount_percent + 50) // 100 AS discount
        FROM drawn
    )
    SELECT
        md5(concat(identity, '/', $hour)) AS order_id, 'sale' AS type,
        make_timestamp_ms($start + who % 3600000) AS event_time, who % 100000 AS customer_id,
        ['GB', 'US', 'DE', 'FR'][1 + who % 4] AS country,
        ['Europe', 'Americas', 'Europe', 'Europe'][1 + who % 4] AS region,
        'USD' AS currency, NULL AS original_order_id, line,
        concat('P', product) AS product_id, concat('A product of the shop, number ', product) AS product_name,
        concat('Category ', product % 9) AS category, quantity, unit_amount, discount_percent, unit_cost,
        gross AS gross_amount, discount AS discount_amount, gross - discount AS net_amount,
        gross - discount - quantity * unit_cost AS profit_amount,
        $stream AS stream, '0' AS partition, lpad(($hour::BIGINT * 100000000 + number)::VARCHAR, 20, '0') AS position,
        make_timestamp_ms($start + 3600000) AS accepted_at
    FROM priced ORDER BY number, line
"""


@dataclass(frozen=True, slots=True)
class Filled:
    """What is there."""

    settings: StoreSettings
    hours: int
    lines: int
    """each order once"""
    net: int
    """their sum, minor units"""
    stored_bytes: int


@contextlib.contextmanager
def filled(*, hours: int, lines: int) -> Iterator[Filled]:
    """A bucket with an object of so many lines in each hour, and the environment that leads to it.

    Raises:
        ServerError: moto is not installed, or does not start.
    """
    with Nursery() as nursery:
        server = local_aws.start(nursery)
        os.environ.update(local_aws.environment(), AWS_ENDPOINT_URL=server.address, S3_BUCKET=BUCKET)
        settings = StoreSettings()  # type: ignore[call-arg]  # from the environment
        s3 = aws.client("s3", settings, connections=1)
        s3.create_bucket(Bucket=BUCKET)
        layout = orders_layout(Rules(currency="USD", countries=REGION_OF.keys()), REGION_OF, STREAM, 20)
        net = held = stored = 0
        with duckdb.connect() as database:
            for hour in range(hours):
                start = START_MS + hour * HOUR_MS
                given = {"hour": hour, "lines": lines, "start": start, "stream": STREAM}
                table = database.execute(_HOUR, given).to_arrow_table().cast(ORDERS)
                once = table.slice(0, lines)
                held += once.num_rows
                net += int(once["net_amount"].to_numpy().sum())
                groups = (table.slice(row, ROW_GROUP_ROWS) for row in range(0, table.num_rows, ROW_GROUP_ROWS))
                body = encode(layout, groups)
                stored += body.size
                folder = folder_of(layout.folder, start // HOUR_MS, hourly=True)
                key = f"{folder}{STREAM}+0+{hour * 100_000_000:020d}.parquet"
                s3.put_object(Bucket=BUCKET, Key=key, Body=body.to_pybytes())
                if hour % 50 == 49:
                    sys.stderr.write(f"{hour + 1} of {hours} hours are stored\n")
        s3.close()
        yield Filled(settings, hours, held, net, stored)
