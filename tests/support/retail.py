"""What a year of a real shop comes to, in SQL over its CSV: nothing of the replay or the pipeline has a part in it.

Only the mapping file is shared: which codes are fees, which country a name means, which words make a category.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import duckdb

from generator import mapping
from sales.countries import REGION_OF
from tillstream.recompute import Expected

WINDOWS = {"1m": (60_000, 1_000), "5m": (300_000, 5_000), "15m": (900_000, 15_000)} | {
    "1h": (3_600_000, 60_000),
    "24h": (86_400_000, 900_000),
}
"""Length and pane, ms."""

_ROWS = """
CREATE TABLE rows AS
WITH cells AS (
    SELECT
        InvoiceNo AS order_id,
        starts_with(InvoiceNo, 'C') AS is_return,
        trim(StockCode) AS product_id,
        trim(coalesce(Description, '')) AS product_name,
        Quantity::BIGINT AS quantity,
        InvoiceDate::TIMESTAMP AS local,
        UnitPrice::DECIMAL(18, 6) AS price,
        CustomerID::DOUBLE::BIGINT AS customer_id,
        Country AS country_name
    FROM read_csv($path, header = true, all_varchar = true)
)
SELECT
    *,
    CASE
        WHEN quantity < 0 AND NOT is_return THEN 'stock_correction'
        WHEN price < 0 THEN 'negative_price'
        WHEN price = 0 THEN 'no_price'
        WHEN upper(product_id) IN (SELECT upper(unnest($fees::VARCHAR[]))) THEN 'no_product'
        WHEN quantity = 0 THEN 'no_quantity'
        WHEN quantity > 0 AND is_return THEN 'sale_in_return'
        WHEN is_return THEN 'returned'
        ELSE 'sold'
    END AS fate
FROM cells
"""

# An invoice with two timestamps has the earlier one. Clocks in London were an hour ahead of UTC from 27 March to
# 30 October 2011; nothing was sold in the nights between.
_LINES = """
CREATE TABLE lines AS
WITH orders AS (
    SELECT order_id, min(local) AS local FROM rows GROUP BY order_id
),
times AS (
    SELECT
        order_id,
        epoch_ms(
            local - CASE
                WHEN local >= '2011-03-27 02:00' AND local < '2011-10-30 02:00' THEN INTERVAL 1 HOUR
                ELSE INTERVAL 0 HOUR
            END
        ) AS event_ms
    FROM orders
),
named AS (
    SELECT DISTINCT product_name FROM rows
),
categories AS (
    SELECT n.product_name, arg_min(w.category, w.rank) AS category
    FROM named AS n
    JOIN words AS w ON contains(' ' || upper(n.product_name), ' ' || upper(w.word))
    GROUP BY n.product_name
)
SELECT
    r.order_id,
    CASE WHEN r.is_return THEN 'return' ELSE 'sale' END AS type,
    t.event_ms,
    r.customer_id,
    c.country,
    c.region,
    r.product_id,
    r.product_name,
    coalesce(k.category, 'Uncategorised') AS category,
    r.quantity,
    floor(r.price * 100 + 0.5)::BIGINT AS unit_amount,
    r.quantity * floor(r.price * 100 + 0.5)::BIGINT AS net
FROM rows AS r
JOIN times AS t USING (order_id)
JOIN countries AS c ON c.name = r.country_name
LEFT JOIN categories AS k USING (product_name)
WHERE r.fate IN ('sold', 'returned')
"""

_TOTALS = """
SELECT
    count(DISTINCT order_id) FILTER (type = 'sale'),
    coalesce(sum(net) FILTER (type = 'sale'), 0)::BIGINT,
    count(DISTINCT order_id) FILTER (type = 'return'),
    coalesce(-sum(net) FILTER (type = 'return'), 0)::BIGINT,
    coalesce(sum(net), 0)::BIGINT,
    coalesce(sum(quantity), 0)::BIGINT
FROM day WHERE event_ms >= $start
"""

_PRODUCTS = """
SELECT product_id, sum({measure})::BIGINT AS number
FROM day WHERE event_ms >= $start
GROUP BY product_id ORDER BY number DESC, product_id DESC LIMIT $top
"""

_GROUPS = """
SELECT {group}, sum(quantity)::BIGINT, sum(net)::BIGINT, count(DISTINCT order_id) FILTER (type = 'sale')
FROM day WHERE event_ms >= $start
GROUP BY {group}
"""

_TRENDS = """
SELECT
    {place}, strftime(make_timestamp(event_ms * 1000), '%Y-%m-%dT%H:%M:00.000Z') AS minute,
    sum(quantity)::BIGINT, sum(net)::BIGINT, count(DISTINCT order_id) FILTER (type = 'sale')
FROM day WHERE event_ms >= $start
GROUP BY ALL
"""

_NAMES = """
WITH latest AS (
    SELECT product_id, max(event_ms) AS event_ms FROM day GROUP BY product_id
)
SELECT product_id, list(DISTINCT product_name) FROM day SEMI JOIN latest USING (product_id, event_ms)
GROUP BY product_id
"""


class Retail:
    """The shop's year as tables ``rows`` and ``lines`` of one DuckDB database."""

    def __init__(self, path: Path) -> None:
        facts = mapping.load("online-retail")
        self.database = duckdb.connect()
        run = self.database.execute
        run(_ROWS, {"path": str(path), "fees": facts.no_products})
        run("CREATE TABLE words (rank INTEGER, category VARCHAR, word VARCHAR)")
        words = [(rank, rule.name, word) for rank, rule in enumerate(facts.categories) for word in rule.words]
        run(
            "INSERT INTO words SELECT unnest(?), unnest(?), unnest(?)",
            [list(column) for column in zip(*words, strict=True)],
        )
        run("CREATE TABLE countries (name VARCHAR, country VARCHAR, region VARCHAR)")
        places = [(name, code, REGION_OF[code]) for name, code in facts.countries.items()]
        run(
            "INSERT INTO countries SELECT unnest(?), unnest(?), unnest(?)",
            [list(column) for column in zip(*places, strict=True)],
        )
        run(_LINES)

    def ask(self, query: str, **parameters: Any) -> list[tuple[Any, ...]]:
        """The rows of a query."""
        return self.database.execute(query, parameters or None).fetchall()

    def fates(self) -> dict[str, int]:
        """How many rows came to what."""
        return dict(self.ask("SELECT fate, count(*) FROM rows GROUP BY fate"))

    def instants(self, count: int) -> list[int]:
        """Event times (ms) spread over the year, the last one the year's last."""
        times = [time for (time,) in self.ask("SELECT DISTINCT event_ms FROM lines ORDER BY event_ms")]
        return [times[len(times) * number // count - 1] for number in range(1, count + 1)]

    def orders_until(self, as_of: int) -> int:
        """How many orders there are up to an event time."""
        [(count,)] = self.ask("SELECT count(DISTINCT order_id) FROM lines WHERE event_ms <= $as_of", as_of=as_of)
        return int(count)

    def expected(self, as_of: int, top_k: int, shown: Mapping[str, str]) -> Expected:
        """What all windows show when the largest event time is ``as_of``.

        Args:
            as_of: ms since 1970.
            top_k: how many products a top list has.
            shown: the names on the board. Several orders of a minute may name a product differently; positions decide,
                which the file doesn't know, so each name of that minute is as right as the other.
        """
        expected = Expected(bounds={}, totals={})
        self.database.execute(
            "CREATE OR REPLACE TEMP TABLE day AS SELECT * FROM lines WHERE event_ms <= $as_of AND event_ms >= $start",
            {"as_of": as_of, "start": _start(as_of, *WINDOWS["24h"])},
        )
        measures = ("units", "revenue", "orders")
        for name, (length, pane) in WINDOWS.items():
            inside = {"start": _start(as_of, length, pane)}
            expected.bounds[name] = (inside["start"], inside["start"] + length)
            [totals] = self.ask(_TOTALS, **inside)
            whole = ("orders", "sales_minor", "returns", "refunded_minor", "revenue_minor", "units")
            expected.totals[name] = dict(zip(whole, totals, strict=True))
            for measure, column in (("units", "quantity"), ("revenue", "net")):
                query = _PRODUCTS.format(measure=column)
                expected.products[name, measure] = [(p, n) for p, n in self.ask(query, **inside, top=top_k)]
            for group in ("category", "region", "country"):
                for label, *numbers in self.ask(_GROUPS.format(group=group), **inside):
                    for measure, number in zip(measures, numbers, strict=True):
                        expected.groups.setdefault((name, group, measure), {})[label] = number
        # The last window is the longest, and begins with a minute.
        for place in ("''", "region"):
            for region, minute, *numbers in self.ask(_TRENDS.format(place=place), **inside):
                for measure, number in zip(measures, numbers, strict=True):
                    expected.trends.setdefault((region, measure), {})[minute] = number
        for product, names in self.ask(_NAMES):
            expected.names[product] = shown[product] if shown.get(product) in names else names[0]
        return expected


def _start(as_of: int, length: int, pane: int) -> int:
    return as_of - as_of % pane + pane - length
