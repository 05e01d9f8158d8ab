"""An exported file has each order's lines once, in the contract's columns, to the cent; and no cell that calculates."""

import csv
import io
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import boto3
import duckdb
import pyarrow.parquet as pq
import pytest

from sales.settings import AwsSettings, StoreSettings
from sink import aws, tables
from support import world as small
from support.world import Event, Item, World, a_world, time_text
from tillstream.export import whole
from tillstream.local.server import inherited

COLUMNS = (
    "order_id,category,customer_id,order_date,product_id,product_name,discount,sales,profit,"
    "country,region,quantity,net,currency,line"
).split(",")

FORMULAS = ["=1+1", "+44", "-5", "@SUM(A1)", "\tcmd", "\r=2", "\n=3"]
HARMLESS = ["", "a=1", "'=1", " =1", 'says "hi", twice', "two\nlines", "Größe 9", "1=1"]


@pytest.fixture
def place(aws_settings: AwsSettings, s3_bucket: str) -> dict[str, str]:
    return {"AWS_ENDPOINT_URL": str(aws_settings.aws_endpoint_url), "S3_BUCKET": s3_bucket, "S3_PREFIX": "team-a/"}


@pytest.fixture
def store(aws_settings: AwsSettings, s3_bucket: str) -> Callable[[World], None]:
    def store_(world: World) -> None:
        client = aws.client("s3", aws_settings, connections=1)
        small.store(world, client, s3_bucket, "team-a/")
        client.close()

    return store_


def export(place: dict[str, str], folder: Path, *arguments: str) -> "subprocess.CompletedProcess[bytes]":
    return subprocess.run(
        [sys.executable, "-m", "tillstream", "export", *arguments],
        env=inherited(**place),
        cwd=folder,
        capture_output=True,
        timeout=120,
        check=False,
    )


def orders_of(world: World) -> list[Event]:
    """Each order once."""
    return replace(world, applied=dict.fromkeys(world.applied, sys.maxsize)).counted()


def line_of(event: Event, number: int, item: Item) -> list[str]:
    """A row of the CSV, from the contract alone."""

    def major(minor: int) -> str:
        return f"{Decimal(minor).scaleb(-2):.2f}"

    def cell(text: str) -> str:
        return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r", "\n") else text

    day = time_text(event.event_ms)
    return [
        cell(event.order_id),
        cell(item.category),
        "" if event.customer_id is None else str(event.customer_id),
        f"{day[8:10]}/{day[5:7]}/{day[:4]}",
        cell(item.product_id),
        cell(item.product_name),
        str(item.discount_percent),
        major(event.sign * item.gross),
        "" if item.unit_cost is None else major(event.sign * (item.net - item.quantity * item.unit_cost)),
        event.country,
        small.REGION_OF[event.country],
        str(event.sign * item.quantity),
        major(event.sign * item.net),
        "USD",
        str(number),
    ]


def lines_of(events: list[Event]) -> list[list[str]]:
    return sorted(line_of(event, number, item) for event in events for number, item in enumerate(event.items, start=1))


def rows_of(data: bytes) -> list[list[str]]:
    header, *rows = csv.reader(io.StringIO(data.decode(), newline=""))
    assert header == COLUMNS
    return sorted(rows)


def a_strange_world() -> World:
    """A usual one, and names that spreadsheets would take for formulas or break at."""
    world = a_world()
    strange = tuple(Item(product_name=name, category=name or "Home") for name in FORMULAS + HARMLESS)
    last = max(event.position for event in world.events if event.partition == "0")
    event = Event("=strange", position=last + 1, items=strange)
    return replace(world, events=[*world.events, event], cuts=world.cuts | {"0": [*world.cuts["0"][:-1], last + 9]})


def test_a_csv_has_each_line_once_and_to_the_cent(
    place: dict[str, str], store: Callable[[World], None], tmp_path: Path
) -> None:
    world = a_strange_world()
    store(world)
    done = export(place, tmp_path)
    assert done.returncode == 0, done.stderr
    expected = lines_of(orders_of(world))
    assert rows_of((tmp_path / "exported_sales_data.csv").read_bytes()) == expected
    assert f"{len(expected):,} lines in exported_sales_data.csv" in done.stdout.decode()
    assert [path.name for path in tmp_path.iterdir()] == ["exported_sales_data.csv"]


def test_without_compiled_code_the_lines_are_the_same(
    place: dict[str, str], store: Callable[[World], None], tmp_path: Path
) -> None:
    store(a_strange_world())
    assert export(place, tmp_path).returncode == 0
    without_numba = "import sys; sys.modules['numba'] = None; from tillstream.app import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", without_numba, "export", "--output", "plain.csv"],
        env=inherited(**place),
        cwd=tmp_path,
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    compiled, plain = ((tmp_path / name).read_bytes() for name in ("exported_sales_data.csv", "plain.csv"))
    assert sorted(plain.splitlines()) == sorted(compiled.splitlines())


def test_the_same_question_gives_the_same_file(
    place: dict[str, str], store: Callable[[World], None], tmp_path: Path
) -> None:
    store(a_world())
    first, second = (export(place, tmp_path, "--output", "-").stdout for _ in range(2))
    assert first == second
    dates = [f"{row[3][6:]}-{row[3][3:5]}-{row[3][:2]}" for row in csv.reader(io.StringIO(first.decode()))][1:]
    assert dates == sorted(dates)


def test_no_cell_of_text_begins_as_a_formula_and_numbers_stay_numbers(
    place: dict[str, str], store: Callable[[World], None], tmp_path: Path
) -> None:
    store(a_strange_world())
    assert export(place, tmp_path).returncode == 0
    table = duckdb.sql(f"SELECT * FROM read_csv('{tmp_path / 'exported_sales_data.csv'}')")
    kinds = dict(zip(table.columns, map(str, table.types), strict=True))
    texts = [name for name, kind in kinds.items() if kind == "VARCHAR"]
    assert {"sales", "profit", "net", "quantity", "discount", "line"}.isdisjoint(texts)
    assert str(kinds["order_date"]) == "DATE"  # as people of most countries write it
    cells = [cell for name in texts for (cell,) in table.select(name).fetchall()]
    assert not [cell for cell in cells if cell and cell[0] in "=+-@\t\r\n"]
    (least,) = table.aggregate("min(net)").fetchone() or ()
    assert least < 0


def test_a_span_has_the_orders_from_its_begin_to_before_its_end(
    place: dict[str, str], store: Callable[[World], None], tmp_path: Path
) -> None:
    world = a_world()
    store(world)
    times = sorted(event.event_ms for event in orders_of(world))
    first, end = times[20], times[90]
    done = export(place, tmp_path, "--from", time_text(first), "--to", time_text(end), "-o", "some.csv")
    assert done.returncode == 0, done.stderr
    inside = [event for event in orders_of(world) if first <= event.event_ms < end]
    assert rows_of((tmp_path / "some.csv").read_bytes()) == lines_of(inside)


def test_a_parquet_file_has_the_same_lines_with_types(
    place: dict[str, str], store: Callable[[World], None], tmp_path: Path
) -> None:
    world = a_strange_world()
    store(world)
    assert export(place, tmp_path, "--format", "parquet").returncode == 0
    table = pq.read_table(tmp_path / "exported_sales_data.parquet")
    assert table.column_names == COLUMNS
    assert {str(table.schema.field(name).type) for name in ("sales", "profit", "net")} == {"decimal128(18, 2)"}
    held = sorted((row["order_id"], row["line"], row["product_name"], row["net"]) for row in table.to_pylist())
    assert held == sorted(
        (event.order_id, number, item.product_name, Decimal(event.sign * item.net).scaleb(-2))
        for event in orders_of(world)
        for number, item in enumerate(event.items, start=1)
    )
    days = {row["order_id"]: row["order_date"].isoformat() for row in table.to_pylist()}
    assert days["ahead"] == time_text(small.AS_OF + 200_000)[:10]


@pytest.mark.parametrize(("currency", "amount"), [("JPY", "255"), ("KWD", "0.255"), ("USD", "2.55")])
def test_amounts_have_the_digits_of_their_currency(
    place: dict[str, str], store: Callable[[World], None], tmp_path: Path, currency: str, amount: str
) -> None:
    order = Event("one", position=1, items=(Item(quantity=1, unit_amount=255),))
    store(World(events=[order], applied={"0": 1}, cuts={"0": [1]}))
    assert export(place | {"CURRENCY": currency}, tmp_path).returncode == 0
    [row] = rows_of((tmp_path / "exported_sales_data.csv").read_bytes())
    assert row[COLUMNS.index("sales")] == amount


@pytest.fixture
def items(place: dict[str, str], new_name: Callable[[str], str]) -> Callable[[list[Event], list[str]], dict[str, str]]:
    """Puts orders into a fresh table as the contract has them, those named without their lines; gives the place."""

    def put(events: list[Event], omitted: list[str]) -> dict[str, str]:
        there = place | {"SALES_TABLE": new_name("SalesData"), "DYNAMODB_BILLING": "on-demand"}
        settings = StoreSettings(**{name.lower(): value for name, value in there.items()})  # type: ignore[arg-type]
        definition = tables.sales_table(settings)
        dynamodb = boto3.resource("dynamodb", region_name="us-east-1", endpoint_url=place["AWS_ENDPOINT_URL"])
        dynamodb.create_table(**definition)
        with dynamodb.Table(there["SALES_TABLE"]).batch_writer() as writer:
            for event in events:
                item = item_of(event)
                if event.order_id in omitted:
                    del item["lines"]
                    item["lines_omitted"] = True
                writer.put_item(Item=item)
        return there

    return put


def item_of(event: Event) -> dict[str, Any]:
    """An order in DynamoDB, from the contract alone."""

    def major(minor: int) -> Decimal:
        return Decimal(event.sign * minor).scaleb(-2)

    lines = []
    for number, item in enumerate(event.items, start=1):
        line = {
            "line": number,
            "product_id": item.product_id,
            "product_name": item.product_name,
            "category": item.category,
            "quantity": event.sign * item.quantity,
            "discount": item.discount_percent,
            "sales": major(item.gross),
            "net": major(item.net),
        }
        if item.unit_cost is not None:
            line["profit"] = major(item.net - item.quantity * item.unit_cost)
        lines.append(line)
    order = {
        "order_id": event.order_id,
        "type": event.type,
        "event_time": time_text(event.event_ms),
        "category": event.items[0].category or "Uncategorised",
        "country": event.country,
        "region": small.REGION_OF[event.country],
        "currency": "USD",
        "lines": lines,
    }
    return order if event.customer_id is None else order | {"customer_id": event.customer_id}


def test_dynamodb_gives_the_same_file(
    items: Callable[[list[Event], list[str]], dict[str, str]], tmp_path: Path
) -> None:
    orders = orders_of(a_strange_world())
    done = export(items(orders, ["o7"]), tmp_path, "--source", "dynamodb")
    assert done.returncode == 0, done.stderr
    held = rows_of((tmp_path / "exported_sales_data.csv").read_bytes())
    assert held == lines_of([event for event in orders if event.order_id != "o7"])
    assert b"very large orders: 1" in done.stderr


def test_a_span_of_dynamodb_is_one_of_event_time(
    items: Callable[[list[Event], list[str]], dict[str, str]], tmp_path: Path
) -> None:
    orders = orders_of(a_world())
    times = sorted(event.event_ms for event in orders)
    between = ("--from", time_text(times[20]), "--to", time_text(times[90]))
    done = export(items(orders, []), tmp_path, "--source", "dynamodb", *between)
    assert done.returncode == 0, done.stderr
    inside = [event for event in orders if times[20] <= event.event_ms < times[90]]
    assert rows_of((tmp_path / "exported_sales_data.csv").read_bytes()) == lines_of(inside)


def test_it_goes_down_a_pipe_too(place: dict[str, str], store: Callable[[World], None], tmp_path: Path) -> None:
    world = a_world()
    store(world)
    done = export(place, tmp_path, "--output", "-")
    assert done.returncode == 0, done.stderr
    assert rows_of(done.stdout) == lines_of(orders_of(world))
    assert list(tmp_path.iterdir()) == []


def test_nothing_stored_makes_a_file_with_a_header(place: dict[str, str], tmp_path: Path) -> None:
    done = export(place, tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "exported_sales_data.csv").read_text() == ",".join(COLUMNS) + "\n"


def test_what_was_there_stays_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "sales.csv"
    path.write_text("of yesterday")

    def fail() -> None:
        with whole(path) as part:
            part.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("sales.csv", "of yesterday")]


@pytest.mark.parametrize(
    ("change", "arguments", "code", "words"),
    [
        ({"S3_BUCKET": "nowhere"}, (), 3, "NoSuchBucket"),
        ({"SALES_TABLE": "Nowhere"}, ("--source", "dynamodb"), 3, "ResourceNotFound"),
        ({}, ("--output", "no/such/folder/sales.csv"), 4, "no/such/folder"),
        ({}, ("--from", "never"), 2, "2026-11-20T08:00"),
        ({}, ("--format", "xls"), 2, "parquet"),
    ],
)
def test_what_can_not_be_done_is_said_in_a_line(
    place: dict[str, str], tmp_path: Path, change: dict[str, Any], arguments: tuple[str, ...], code: int, words: str
) -> None:
    done = export(place | change, tmp_path, *arguments)
    assert done.returncode == code, done.stderr
    assert words in done.stderr.decode()
    assert b"Traceback" not in done.stderr
