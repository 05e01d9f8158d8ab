"""What is asked of S3 is answered as plain Python answers it, each order once, and reads no more than it needs."""

import json
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from botocore.exceptions import ClientError
from sqlglot import transpile
from sqlglot.errors import ErrorLevel

from sales.rules import Rules
from sales.settings import AwsSettings, StoreSettings
from sink import aws
from sink.orders import orders_layout
from sink.parquet import ROW_GROUP_ROWS, encode
from sink.relations import sales_view
from sink.schemas import ORDERS
from support import world as small
from support.world import Event, World, a_world, time_text
from tillstream.catalogue import open_catalogue
from tillstream.local.server import inherited
from tillstream.named import named, names
from tillstream.spans import Span

PREFIX = "team-a/"
ALWAYS = Span()


class Shop:
    """A small world, stored."""

    def __init__(self, world: World, settings: StoreSettings) -> None:
        self.world = world
        self.settings = settings
        self.s3 = aws.client("s3", settings, connections=1)
        small.store(world, self.s3, settings.s3_bucket, PREFIX)

    @property
    def orders(self) -> list[Event]:
        """Each order once."""
        everything = dict.fromkeys(self.world.applied, sys.maxsize)
        return replace(self.world, applied=everything).counted()

    def ask(self, text: str, folder: Path, span: Span = ALWAYS) -> list[tuple[Any, ...]]:
        with open_catalogue(self.settings, span, folder) as catalogue:
            return catalogue.database.execute(text).rows

    def command(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "tillstream", "query", *arguments],
            env=inherited(
                AWS_ENDPOINT_URL=str(self.settings.aws_endpoint_url),
                S3_BUCKET=self.settings.s3_bucket,
                S3_PREFIX=PREFIX,
            ),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )


@pytest.fixture
def open_shop(aws_settings: AwsSettings, s3_bucket: str) -> Callable[..., Shop]:
    def open_(**changes: Any) -> Shop:
        settings = StoreSettings(aws_endpoint_url=aws_settings.aws_endpoint_url, s3_bucket=s3_bucket, s3_prefix=PREFIX)
        return Shop(a_world(**changes), settings)

    return open_


def test_the_view_has_each_order_once_and_the_table_each_event(open_shop: Callable[..., Shop], tmp_path: Path) -> None:
    shop = open_shop()
    held = shop.ask("SELECT order_id, event_time, position, line, net_amount FROM sales", tmp_path)
    expected = [
        (event.order_id, time_text(event.event_ms), f"{event.position:020d}", line, event.sign * item.net)
        for event in shop.orders
        for line, item in enumerate(event.items, start=1)
    ]
    assert sorted((row[0], f"{row[1].isoformat(timespec='milliseconds')}Z", *row[2:]) for row in held) == sorted(
        expected
    )
    [(events,)] = shop.ask("SELECT count(*) FROM orders WHERE line = 1", tmp_path)
    assert events == len(shop.world.events) > len(shop.orders)


def top_products(orders: Sequence[Event]) -> list[tuple[Any, ...]]:
    hours: dict[tuple[str, int], dict[str, list[Any]]] = defaultdict(lambda: defaultdict(lambda: ["", 0, 0]))
    for event in orders:
        text = time_text(event.event_ms)
        for item in event.items:
            found = hours[text[:10], int(text[11:13])][item.product_id]
            found[0] = max(found[0], item.product_name)
            found[1] += event.sign * item.quantity
            found[2] += event.sign * item.net
    return [
        (*hour, place, product, *rest)
        for hour, products in sorted(hours.items())
        for place, (product, rest) in enumerate(
            sorted(products.items(), key=lambda pair: (pair[1][2], pair[0]), reverse=True)[:10], start=1
        )
    ]


def aov(orders: Sequence[Event]) -> list[tuple[Any, ...]]:
    days: dict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0])
    for event in orders:
        if event.type == "sale":
            found = days[time_text(event.event_ms)[:10], small.REGION_OF[event.country]]
            found[0] += 1
            found[1] += sum(item.net for item in event.items)
    return [(*key, count, revenue, revenue / count) for key, (count, revenue) in sorted(days.items())]


def category_share(orders: Sequence[Event]) -> list[tuple[Any, ...]]:
    units: Counter[str] = Counter()
    revenue: Counter[str] = Counter()
    for event in orders:
        for item in event.items:
            units[item.category] += event.sign * item.quantity
            revenue[item.category] += event.sign * item.net
    whole = sum(revenue.values())
    return [
        (category, units[category], value, 100 * float(value) / whole)
        for category, value in sorted(revenue.items(), key=lambda pair: (-pair[1], pair[0]))
    ]


def return_rate(orders: Sequence[Event]) -> list[tuple[Any, ...]]:
    moved: dict[str, Counter[str]] = defaultdict(Counter)
    for event in orders:
        for item in event.items:
            moved[item.category][event.type] += item.quantity
    return [
        (category, found["sale"], found["return"], 100 * found["return"] / found["sale"] if found["sale"] else None)
        for category, found in sorted(moved.items())
    ]


def cohorts(orders: Sequence[Event]) -> list[tuple[Any, ...]]:
    bought = [event for event in orders if event.type == "sale" and event.customer_id is not None]
    first: dict[int | None, str] = {}
    for event in sorted(bought, key=lambda event: event.event_ms):
        first.setdefault(event.customer_id, time_text(event.event_ms)[:7])
    customers: dict[tuple[str, int], set[int | None]] = defaultdict(set)
    revenue: Counter[tuple[str, int]] = Counter()
    for event in bought:
        begun, now = first[event.customer_id], time_text(event.event_ms)[:7]
        later = 12 * (int(now[:4]) - int(begun[:4])) + int(now[5:]) - int(begun[5:])
        customers[begun, later].add(event.customer_id)
        revenue[begun, later] += sum(item.net for item in event.items)
    return [
        (f"{month}-01", later, len(who), revenue[month, later]) for (month, later), who in sorted(customers.items())
    ]


def countries(orders: Sequence[Event]) -> list[tuple[Any, ...]]:
    found: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0, 0])
    for event in orders:
        cells = found[event.country]
        cells[0 if event.type == "sale" else 1] += 1
        cells[2] += sum(event.sign * item.quantity for item in event.items)
        cells[3] += sum(event.sign * item.net for item in event.items)
    ranked = sorted(found.items(), key=lambda pair: (-pair[1][3], pair[0]))
    return [(country, small.REGION_OF[country], *cells) for country, cells in ranked]


ORACLES = {
    "top-products": top_products,
    "aov": aov,
    "category-share": category_share,
    "return-rate": return_rate,
    "cohorts": cohorts,
    "countries": countries,
}


def test_every_named_query_has_an_oracle() -> None:
    assert sorted(ORACLES) == names()


def months() -> list[Event]:
    """The same shop in three months: some orders, with their repetitions, one or two months earlier."""
    return [
        replace(event, event_ms=event.event_ms - (sum(event.order_id.encode()) % 3) * 30 * 86_400_000)
        for event in a_world().events
    ]


@pytest.mark.parametrize("name", sorted(ORACLES))
def test_a_named_query_answers_as_plain_python_does(open_shop: Callable[..., Shop], tmp_path: Path, name: str) -> None:
    shop = open_shop(events=months())
    day = Span(start=small.AS_OF - 86_400_000, end=small.AS_OF - 50_000)
    for span in (ALWAYS, day):
        inside = [event for event in shop.orders if span.start <= event.event_ms < span.end]
        answer = [
            tuple(str(value) if hasattr(value, "isoformat") else value for value in row)
            for row in shop.ask(named(name, span), tmp_path, span)
        ]
        expected = ORACLES[name](inside)
        assert len(expected) > (1 if span == ALWAYS else 0)
        assert answer == expected


@pytest.mark.parametrize("name", sorted(ORACLES))
def test_a_named_query_means_the_same_in_athenas_dialect(
    open_shop: Callable[..., Shop], tmp_path: Path, name: str
) -> None:
    shop = open_shop(events=months())
    text = named(name, ALWAYS)
    [translated] = transpile(text, read="athena", write="duckdb", unsupported_level=ErrorLevel.RAISE)
    assert shop.ask(translated, tmp_path) == shop.ask(text, tmp_path)


def test_the_view_means_the_same_in_athenas_dialect(open_shop: Callable[..., Shop], tmp_path: Path) -> None:
    [translated] = transpile(sales_view(), read="athena", write="duckdb", unsupported_level=ErrorLevel.RAISE)
    key = "order_id, event_time, line, position, net_amount"
    shop = open_shop()
    assert shop.ask(f"SELECT {key} FROM ({translated}) ORDER BY ALL", tmp_path) == shop.ask(
        f"SELECT {key} FROM sales ORDER BY ALL", tmp_path
    )


@pytest.mark.parametrize("where", ["dt = '2026-11-20' AND hour = 7", "dt = '2026-11-19'"])
def test_a_question_of_an_hour_reads_that_hours_objects_alone(
    open_shop: Callable[..., Shop], tmp_path: Path, where: str
) -> None:
    shop = open_shop()
    with open_catalogue(shop.settings, ALWAYS, tmp_path) as catalogue:
        read: set[str] = set()
        whole = catalogue.objects.read

        def noted(key: str, start: int, end: int) -> bytes:
            read.add(key)
            return whole(key, start, end)

        catalogue.objects.read = noted  # type: ignore[method-assign]
        catalogue.database.execute("SELECT count(*) FROM sales")
        everything = set(read)
        read.clear()
        catalogue.database.execute(f"SELECT product_id, sum(net_amount) FROM sales WHERE {where} GROUP BY ALL")
    wanted = "dt=2026-11-20/hour=07/" if "hour" in where else "dt=2026-11-19/"
    outside = [key for key in read if wanted not in key]
    assert len(outside) <= 1  # the columns are taken from the first object of all
    assert len(everything) > 2 * len(read)


IN_AN_HOUR = "dt = '2026-11-20' AND hour = 7"
YESTERDAY = "dt = '2026-11-19'"


@pytest.mark.parametrize(
    ("question", "hours"),
    [
        (f"SELECT count(*) FROM orders WHERE {IN_AN_HOUR}", IN_AN_HOUR),
        (f"SELECT country, sum(net_amount) FROM sales WHERE {IN_AN_HOUR} GROUP BY ALL", IN_AN_HOUR),
        (f"WITH s AS (FROM sales) SELECT count(*) FROM s WHERE {YESTERDAY} AND hour IN (1, 2, 23)", None),
        (f"SELECT count(*) FROM orders WHERE {YESTERDAY} OR hour = 7", f"{YESTERDAY} OR hour = 7"),
        (
            f"FROM orders SELECT count(*) WHERE {YESTERDAY} UNION ALL FROM sales SELECT count(*) WHERE {IN_AN_HOUR}",
            None,
        ),
        (f"SELECT (SELECT count(*) FROM orders), count(*) FROM orders WHERE {IN_AN_HOUR}", "true"),
        (
            f"SELECT a.hour, count(*) FROM orders a JOIN sales b USING (order_id) WHERE a.{YESTERDAY} GROUP BY ALL",
            "true",
        ),
        (f"SELECT count(*) FROM orders LEFT JOIN dead_letters USING (dt) WHERE {IN_AN_HOUR}", "true"),
        ("SELECT count(*), min(dt), max(hour) FROM orders", "true"),
        ("SELECT count(*) FROM sales WHERE dt <> 'a)(b'", "true"),
        ("SELECT count(*) FROM orders WHERE dt = '1999-01-01'", "false"),
        ("CREATE TABLE mine AS FROM orders; SELECT count(*) FROM mine", "true"),
    ],
)
def test_a_question_lists_the_hours_that_it_needs_and_has_the_same_answer(
    open_shop: Callable[..., Shop], tmp_path: Path, question: str, hours: str | None
) -> None:
    shop = open_shop()
    with open_catalogue(shop.settings, ALWAYS, tmp_path) as catalogue:
        every = set(catalogue.objects.folders("orders"))
        needed = f"SELECT DISTINCT format('orders/dt={{}}/hour={{:02}}/', dt, hour) FROM orders WHERE {hours or 'true'}"
        expected = {folder for (folder,) in catalogue.database.execute(needed).rows}
        answer = sorted(catalogue.database.execute(question).rows)
    with open_catalogue(shop.settings, ALWAYS, tmp_path, question=question) as catalogue:
        listed = set(catalogue.objects.folders("orders"))
        assert sorted(catalogue.database.execute(question).rows) == answer
    assert len(every) > 2
    assert listed < every if hours is None else listed == expected


@pytest.mark.parametrize(
    "where",
    [
        "event_time >= TIMESTAMP '2026-11-20 07:20:00' AND event_time < TIMESTAMP '2026-11-20 07:22:00'",
        "position BETWEEN '00000000000000400000' AND '00000000000000400100'",
    ],
)
def test_of_a_large_object_only_the_row_groups_of_a_condition_are_read(
    open_shop: Callable[..., Shop], tmp_path: Path, where: str
) -> None:
    """An hour of a million lines, in the order in which they were placed."""
    shop = open_shop(events=[])
    lines = duckdb.sql(
        """
        SELECT md5(range::VARCHAR) AS order_id, 1 AS line, (hash(range) >> 40)::BIGINT AS net_amount,
            make_timestamp_ms(epoch_ms(TIMESTAMP '2026-11-20 07:00:00') + range * 3600 // 1000) AS event_time,
            lpad(range::VARCHAR, 20, '0') AS position
        FROM range(1_000_000) ORDER BY range
        """
    ).to_arrow_table()
    for number, field in enumerate(ORDERS):
        if field.name not in lines.column_names:
            lines = lines.add_column(number, field, pa.nulls(len(lines), field.type))
    layout = orders_layout(Rules(currency="USD", countries=small.REGION_OF.keys()), small.REGION_OF, "orders-1", 20)
    rows = lines.select(ORDERS.names).cast(ORDERS)
    groups = (rows.slice(row, ROW_GROUP_ROWS) for row in range(0, len(rows), ROW_GROUP_ROWS))
    body = encode(layout, groups).to_pybytes()
    key = f"{PREFIX}orders/dt=2026-11-20/hour=07/large.parquet"
    shop.s3.put_object(Bucket=shop.settings.s3_bucket, Key=key, Body=body)

    def fetched(question: str) -> tuple[int, list[Any]]:
        size = 0
        with open_catalogue(shop.settings, ALWAYS, tmp_path, question=question) as catalogue:
            whole = catalogue.objects.read

            def counted(key: str, start: int, end: int) -> bytes:
                nonlocal size
                size += end - start
                return whole(key, start, end)

            catalogue.objects.read = counted  # type: ignore[method-assign]
            rows = catalogue.database.execute(question).rows
        return size, rows

    columns = "count(order_id), sum(net_amount), min(event_time), max(position)"
    everything, [(lines_there, *_)] = fetched(f"SELECT {columns} FROM orders")
    some, [(found, *_)] = fetched(f"SELECT {columns} FROM orders WHERE {where}")
    assert lines_there == 1_000_000
    assert 0 < found < 40_000
    assert some < everything / 6  # one row group of eight


def test_a_span_lists_its_hours_alone(open_shop: Callable[..., Shop], tmp_path: Path) -> None:
    shop = open_shop()
    span = Span.of("2026-11-20T07:00", "2026-11-20T08:00")
    rows = shop.ask("SELECT DISTINCT dt, hour FROM orders", tmp_path, span)
    assert rows == [("2026-11-20", 7)]


def test_an_empty_bucket_has_empty_tables(aws_settings: AwsSettings, s3_bucket: str, tmp_path: Path) -> None:
    settings = StoreSettings(aws_endpoint_url=aws_settings.aws_endpoint_url, s3_bucket=s3_bucket)
    with open_catalogue(settings, ALWAYS, tmp_path) as catalogue:
        for table in ("orders", "sales", "rollups", "dead_letters"):
            assert catalogue.database.execute(f"SELECT * FROM {table}").rows == []
        for name in names():
            assert catalogue.database.execute(named(name, ALWAYS)).rows == []


def test_an_object_that_is_gone_is_a_fault_of_the_store(open_shop: Callable[..., Shop], tmp_path: Path) -> None:
    shop = open_shop()

    def ask_too_late() -> None:
        with open_catalogue(shop.settings, ALWAYS, tmp_path) as catalogue:
            key = catalogue.objects.glob("stored://orders/*")[-1]
            shop.s3.delete_object(Bucket=shop.settings.s3_bucket, Key=PREFIX + key)
            catalogue.database.execute("SELECT sum(net_amount) FROM orders")

    with pytest.raises(ClientError, match="NoSuchKey"):
        ask_too_late()


def test_dead_letters_can_be_asked(open_shop: Callable[..., Shop], tmp_path: Path) -> None:
    shop = open_shop()
    rows = shop.ask("SELECT reason, count(*) FROM dead_letters WHERE dt = '2026-11-20' GROUP BY ALL", tmp_path)
    assert {reason for reason, _ in rows} == {"json", "conflict"}


def test_the_command_answers_in_three_formats(open_shop: Callable[..., Shop]) -> None:
    shop = open_shop()
    text = "SELECT type, count(*) AS orders FROM sales WHERE line = 1 GROUP BY type ORDER BY type"
    counts = Counter(event.type for event in shop.orders)
    as_json, as_csv, table = (shop.command(text, "--format", name) for name in ("json", "csv", "table"))
    assert json.loads(as_json.stdout) == [{"type": name, "orders": counts[name]} for name in ("return", "sale")]
    assert as_csv.stdout.splitlines() == ["type,orders", f"return,{counts['return']}", f"sale,{counts['sale']}"]
    assert f"│ sale   │ {counts['sale']:>6} │" in table.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("top-product",), 2, "top-products"),
        (("SELECT nothing FROM sales",), 2, "nothing"),
        (("SELEC 1",), 2, "SELEC"),
        (("aov", "--from", "yesterday"), 2, "2026-11-20"),
        (("aov", "--from", "2026-11-20", "--to", "2026-11-20"), 2, "nothing from"),
    ],
)
def test_a_mistake_is_said_in_a_line(
    open_shop: Callable[..., Shop], arguments: tuple[str, ...], code: int, words: str
) -> None:
    done = open_shop().command(*arguments)
    assert done.returncode == code, done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_a_bucket_that_is_not_there_is_said(open_shop: Callable[..., Shop]) -> None:
    shop = open_shop()
    shop.settings = shop.settings.model_copy(update={"s3_bucket": "nowhere"})
    done = shop.command("countries")
    assert done.returncode == 3
    assert "NoSuchBucket" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_text_for_athena_needs_no_settings() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tillstream", "query", "countries", "--from", "2026-11-20", "--print"],
        env=inherited(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "event_time >= TIMESTAMP '2026-11-20 00:00:00.000'" in done.stdout
