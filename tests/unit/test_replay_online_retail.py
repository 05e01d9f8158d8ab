"""The year of a real shop: what the replay makes of it equals SQL over the file, which knows nothing of the replay."""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

from generator import mapping, replay
from generator.replay import ReplayedOrder, Report
from sales.times import parse_time

ROWS = 541_909

FATES = """
CREATE VIEW lines AS
SELECT *,
    min(local_time) OVER (PARTITION BY invoice) AS order_time,
    CASE
        WHEN quantity < 0 AND invoice NOT LIKE 'C%' THEN 'stock_correction'
        WHEN price < 0 THEN 'negative_price'
        WHEN price = 0 THEN 'no_price'
        WHEN upper(product) IN ('POST', 'DOT', 'C2', 'M', 'D', 'S', 'B', 'CRUK', 'BANK CHARGES', 'AMAZONFEE')
            THEN 'no_product'
        WHEN invoice LIKE 'C%' THEN 'returned'
        ELSE 'sold'
    END AS fate,
    abs(quantity) AS pieces,
    CAST(round(price * 100) AS BIGINT) AS pence
FROM (
    SELECT InvoiceNo AS invoice, StockCode AS product, CAST(Quantity AS BIGINT) AS quantity,
        CAST(InvoiceDate AS TIMESTAMP) AS local_time, CAST(UnitPrice AS DECIMAL(12, 4)) AS price,
        CAST(CAST(CustomerID AS DOUBLE) AS BIGINT) AS customer, trim(Description) AS name, Country AS country
    FROM read_csv(?, all_varchar = true, header = true)
)
"""


@pytest.fixture(scope="module")
def shop(online_retail: Path) -> tuple[list[ReplayedOrder], Report]:
    report = Report()
    return list(replay.orders(online_retail, mapping.load("online-retail"), report)), report


@pytest.fixture(scope="module")
def sql(online_retail: Path) -> Iterator["duckdb.DuckDBPyConnection"]:
    with duckdb.connect() as connection:
        connection.execute(FATES.replace("?", f"'{online_retail}'").replace("CREATE VIEW", "CREATE TABLE"))
        yield connection


def test_the_fates_add_up_to_all_rows(
    shop: tuple[list[ReplayedOrder], Report], sql: "duckdb.DuckDBPyConnection"
) -> None:
    _, report = shop
    assert report.rows == ROWS
    assert dict(report.fates) == dict(sql.execute("SELECT fate, count(*) FROM lines GROUP BY fate").fetchall())
    assert dict(report.fates) == {
        "sold": 527_792,
        "returned": 8_704,
        "no_product": 2_896,
        "stock_correction": 1_336,
        "no_price": 1_179,
        "negative_price": 2,
    }
    assert report.prices_rounded == 3
    assert report.orders_with_two_times == 43
    assert not report.unknown_countries


def test_every_order_has_the_time_and_the_amounts_that_sql_finds(
    shop: tuple[list[ReplayedOrder], Report], sql: "duckdb.DuckDBPyConnection"
) -> None:
    orders, report = shop
    expected = sql.execute(
        """
        SELECT invoice, epoch_ms(any_value(order_time) AT TIME ZONE 'Europe/London'), count(*), sum(pieces),
            sum(pieces * pence), any_value(invoice) LIKE 'C%'
        FROM lines WHERE fate IN ('sold', 'returned') GROUP BY invoice
        """
    ).fetchall()
    assert {(o.order_id, o.event_time, o.lines, o.units, o.net_minor, o.is_return) for o in orders} == set(expected)
    assert len(orders) == len(expected) == report.sales + report.returns
    assert (report.sales, report.returns) == (19_773, 3_422)


def test_products_and_customers_are_those_of_the_file(
    shop: tuple[list[ReplayedOrder], Report], sql: "duckdb.DuckDBPyConnection"
) -> None:
    orders, _ = shop
    pieces: Counter[tuple[str, str]] = Counter()
    customers: Counter[int | None] = Counter()
    for order in orders:
        document = json.loads(order.value)
        customers[document["customer_id"]] += 1
        for line in document["lines"]:
            pieces[line["product_id"], line["product_name"]] += line["quantity"]
    assert dict(pieces) == {
        (product, name): count
        for product, name, count in sql.execute(
            "SELECT product, name, sum(pieces) FROM lines WHERE fate IN ('sold', 'returned') GROUP BY ALL"
        ).fetchall()
    }
    assert dict(customers) == dict(
        sql.execute(
            "SELECT customer, count(DISTINCT invoice) FROM lines WHERE fate IN ('sold', 'returned') GROUP BY customer"
        ).fetchall()
    )


def test_event_times_ascend(shop: tuple[list[ReplayedOrder], Report]) -> None:
    times = [order.event_time for order in shop[0]]
    assert times == sorted(times)


@pytest.mark.parametrize("until", ["2010-12-01T08:26:00Z", "2011-03-27T10:00:00Z", "2011-10-30T12:34:56Z"])
def test_a_replay_that_stops_at_an_instant_gives_the_orders_up_to_it(
    online_retail: Path, shop: tuple[list[ReplayedOrder], Report], until: str
) -> None:
    instant = parse_time(until)
    report = Report()
    orders = list(replay.orders(online_retail, mapping.load("online-retail"), report, until=instant))
    assert orders == [order for order in shop[0] if order.event_time <= instant]
    assert report.fates["sold"] + report.fates["returned"] == sum(order.lines for order in orders)
