"""Flink SQL: hopping windows with Flink's own table functions, Top-N by Flink's own pattern, into a Kafka topic.

Flink has no Redis connector of its own; ``bridge.py`` carries the newest windows from that topic to Redis.
"""

import os
from pathlib import Path

from pyflink.table import EnvironmentSettings, TableEnvironment

WINDOWS = {"1m": (60, 1), "5m": (300, 5), "15m": (900, 15), "1h": (3600, 60), "24h": (86_400, 900)}
"""name to length and slide, seconds"""

SOURCE = """
CREATE TABLE orders (
    `type` STRING, event_time TIMESTAMP_LTZ(3), country STRING,
    `lines` ARRAY<ROW<
        product_id STRING, category STRING, quantity BIGINT, unit_amount BIGINT, discount_percent BIGINT
    >>,
    WATERMARK FOR event_time AS event_time - INTERVAL '1' SECOND
) WITH (
    'connector' = 'kafka', 'topic' = '{TOPIC}', 'properties.bootstrap.servers' = '{BOOTSTRAP}',
    'properties.group.id' = '{GROUP}', 'scan.startup.mode' = 'earliest-offset',
    'scan.bounded.mode' = 'latest-offset', 'format' = 'json', 'json.timestamp-format.standard' = 'ISO-8601',
    'json.ignore-parse-errors' = 'true'
)
"""

SINK = """
CREATE TABLE answers (
    win STRING, kind STRING, ends BIGINT, label STRING,
    units BIGINT, revenue BIGINT, orders BIGINT, sales BIGINT, events BIGINT
) WITH (
    'connector' = 'kafka', 'topic' = '{OUTPUT}', 'properties.bootstrap.servers' = '{BOOTSTRAP}', 'format' = 'json',
    'properties.linger.ms' = '20', 'properties.compression.type' = 'lz4'
)
"""

LINES = """
CREATE VIEW sold AS
SELECT
    event_time, country, {region} AS region, product_id, category,
    CASE `type` WHEN 'sale' THEN 1 ELSE 0 END AS sale,
    CASE WHEN number = 1 THEN 1 ELSE 0 END AS head,
    CASE `type` WHEN 'sale' THEN 1 ELSE -1 END * quantity AS units,
    CASE `type` WHEN 'sale' THEN 1 ELSE -1 END
        * (quantity * unit_amount - (quantity * unit_amount * discount_percent + 50) / 100) AS revenue
FROM orders
CROSS JOIN UNNEST(`lines`) WITH ORDINALITY
    AS l(product_id, category, quantity, unit_amount, discount_percent, number)
"""

PRODUCTS = """
CREATE VIEW products_{name} AS
SELECT window_start, window_end, product_id, SUM(units) AS units, SUM(revenue) AS revenue
FROM TABLE(HOP(TABLE sold, DESCRIPTOR(event_time), {slide}, {length}))
GROUP BY window_start, window_end, product_id
"""

TOP = """
SELECT
    '{name}', 'product:{measure}', 1000 * UNIX_TIMESTAMP(CAST(window_end AS STRING)), product_id, units, revenue,
    CAST(0 AS BIGINT), CAST(0 AS BIGINT), CAST(0 AS BIGINT)
FROM (
    SELECT *, ROW_NUMBER() OVER (
        PARTITION BY window_start, window_end ORDER BY {measure} DESC, product_id DESC
    ) AS place
    FROM products_{name}
)
WHERE place <= 100
"""

GROUP = """
SELECT
    '{name}', '{kind}', 1000 * UNIX_TIMESTAMP(CAST(window_end AS STRING)), {member}, SUM(units), SUM(revenue),
    SUM(CAST(sale * head AS BIGINT)), SUM(sale * revenue), SUM(CAST(head AS BIGINT))
FROM TABLE(HOP(TABLE sold, DESCRIPTOR(event_time), {slide}, {length}))
GROUP BY window_start, window_end{by}
"""


def main() -> None:
    """Submits the job to a cluster in this process and waits for its end."""
    tables = TableEnvironment.create(EnvironmentSettings.in_streaming_mode())
    jars = ";".join(path.as_uri() for path in sorted(Path(os.environ["JARS"]).glob("flink-sql-*.jar")))
    for name, value in {
        "pipeline.jars": jars,
        "parallelism.default": "1",
        "table.local-time-zone": "UTC",
        "pipeline.object-reuse": "true",
        "execution.checkpointing.interval": "10 s",
        "execution.checkpointing.dir": Path(os.environ["STATE"]).as_uri(),
        "state.backend.type": "hashmap",
    }.items():
        tables.get_config().set(name, value)
    tables.execute_sql(SOURCE.format(**os.environ))
    tables.execute_sql(SINK.format(**os.environ))
    tables.execute_sql(LINES.format(region=region()))
    parts = []
    for name, (length, slide) in WINDOWS.items():
        hop = {"name": name, "length": f"INTERVAL '{length}' SECOND(5)", "slide": f"INTERVAL '{slide}' SECOND(5)"}
        tables.execute_sql(PRODUCTS.format(**hop))
        parts += [TOP.format(measure=measure, **hop) for measure in ("units", "revenue")]
        parts += [
            GROUP.format(kind=kind, member=kind, by=f", {kind}", **hop) for kind in ("category", "country", "region")
        ]
        parts.append(GROUP.format(kind="aov", member="''", by="", **hop))
    tables.execute_sql("INSERT INTO answers" + "UNION ALL".join(parts)).wait()


def region() -> str:
    """Our table of countries as an expression."""
    countries = dict(pair.split("=") for pair in os.environ["REGIONS"].split(","))
    names = sorted(set(countries.values()))
    cases = [
        f"WHEN country IN ({', '.join(repr(code) for code, of in countries.items() if of == name)}) THEN '{name}'"
        for name in names
    ]
    return f"CASE {' '.join(cases)} END"


if __name__ == "__main__":
    main()
