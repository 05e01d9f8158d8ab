"""A year of a real shop through the whole chain, on both wires, held against SQL over its CSV.

The first stretch of the year is sent by the generator's process (``--until``), the rest by the same code from here, so
that the file is read once and not twenty times. Processor and sink are processes of their own. The sink begins when the
year is over, one lane after the other: a year played in a minute is more than the protocol server for S3 and DynamoDB
can take in that time, and its orders are no less there later.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pytest

from generator import mapping, replay
from generator.replay import ReplayedOrder
from sales.times import format_time
from support.retail import Retail
from support.services import START_SECONDS, OpenPipeline, Pipeline
from tillstream.compare import Difference, compare

WIRES = [pytest.param("kafka", marks=pytest.mark.kafka), "kinesis"]

INSTANTS = 21
"""Twenty inside the year, and its end."""

CURRENCY = "GBP"
TOP_K = 100
SENT_AT_ONCE = 1000

STRETCH_SECONDS = 60.0
"""A twentieth of the year takes a second."""

STORED_SECONDS = 600.0
"""A year's orders take DynamoDB's protocol server 102 s on two idle cores."""


@dataclass
class Year:
    """The orders as the replay makes them, and what became of the file's rows."""

    path: Path
    orders: list[ReplayedOrder]
    report: replay.Report


@dataclass
class Played:
    """What one wire's pipeline showed."""

    pipeline: Pipeline
    differences: dict[str, list[Difference]] = field(default_factory=dict)
    """by instant"""
    boards: dict[str, dict[str, Any]] = field(default_factory=dict)
    """by instant: all windows, trends and names, as bytes"""
    first_manifest: dict[str, Any] = field(default_factory=dict)


@pytest.fixture(scope="module")
def retail(online_retail: Path) -> Retail:
    return Retail(online_retail)


@pytest.fixture(scope="module")
def year(online_retail: Path) -> Year:
    report = replay.Report()
    orders = list(replay.orders(online_retail, mapping.load("online-retail"), report))
    return Year(online_retail, orders, report)


@pytest.fixture(scope="module")
def play(open_pipeline: OpenPipeline, retail: Retail, year: Year) -> Callable[[str], Played]:
    """Plays the year on one wire, once."""
    played: dict[str, Played] = {}

    def play_(wire: str) -> Played:
        if wire not in played:
            pipeline = open_pipeline(wire, CURRENCY=CURRENCY, TOP_K=str(TOP_K), CLOCK="event", ROTATE_SECONDS="5")
            played[wire] = Played(pipeline)
            _play(played[wire], retail, year)
        return played[wire]

    return play_


def _play(played: Played, retail: Retail, year: Year) -> None:
    """Sends the year in stretches, and looks at the board after each."""
    pipeline = played.pipeline
    pipeline.start("processor")
    instants = retail.instants(INSTANTS)
    sent = retail.orders_until(instants[0])
    manifest = pipeline.folder / "manifest.json"
    source = ["--source", "replay", "--replay-file", str(year.path), "--speed", "max"]
    until = ["--until", format_time(instants[0]), "--manifest", str(manifest)]
    pipeline.start("generator", *source, *until)
    pipeline.finish("generator", START_SECONDS)
    played.first_manifest = json.loads(manifest.read_text(encoding="utf-8"))
    with pipeline.orders.writer() as writer:
        for instant in instants:
            upto = retail.orders_until(instant)
            for first in range(sent, upto, SENT_AT_ONCE):
                stretch = year.orders[first : min(first + SENT_AT_ONCE, upto)]
                writer.write([order.key for order in stretch], [order.value for order in stretch])
            writer.flush(STRETCH_SECONDS)
            sent = upto
            pipeline.until(
                lambda: int(pipeline.live().status.get("accepted", "0")) >= sent,  # noqa: B023 (asked at once)
                STRETCH_SECONDS,
                f"{sent} orders accepted",
            )
            name = format_time(instant)
            live = pipeline.live()
            expected = retail.expected(instant, TOP_K, live.names)
            checks = compare(live, expected, pipeline.keys, CURRENCY)
            assert sum(check.compared for check in checks) > 100
            played.differences[name] = [difference for check in checks for difference in check.differences]
            assert live.status["as_of"] == name
            played.boards[name] = pipeline.board()


def _start_sink(pipeline: Pipeline, lane: str) -> None:
    """One lane of the sink, for the orders alone: the year closes so many minutes that its 120,000 rollups would keep
    DynamoDB's protocol server busy for several."""
    pipeline.start("sink", LANES=lane, ROLLUPS_STREAM=pipeline.create_stream(f"not-for-{lane}"))


def test_every_row_of_the_file_is_accounted_for(retail: Retail, year: Year) -> None:
    assert dict(year.report.fates) == retail.fates()
    assert year.report.rows == sum(retail.fates().values()) == 541_909


@pytest.mark.parametrize("wire", WIRES)
def test_the_generator_stops_at_the_instant(play: Callable[[str], Played], retail: Retail, wire: str) -> None:
    played = play(wire)
    first = retail.instants(INSTANTS)[0]
    accepted = played.first_manifest["accepted"]
    assert accepted["orders"] == retail.orders_until(first)
    assert accepted["last_event_time"] == format_time(first)
    [(net,)] = retail.ask("SELECT sum(net) FROM lines WHERE event_ms <= $first", first=first)
    assert accepted["revenue_minor"] == net


@pytest.mark.parametrize("wire", WIRES)
def test_at_each_instant_every_window_equals_the_sql(play: Callable[[str], Played], wire: str) -> None:
    differences = play(wire).differences
    assert len(differences) == INSTANTS
    assert {instant: found for instant, found in differences.items() if found} == {}


@pytest.mark.parametrize("wire", [WIRES[0], pytest.param("kinesis", marks=pytest.mark.slow)])
def test_s3_holds_every_order_once_and_verify_agrees(play: Callable[[str], Played], retail: Retail, wire: str) -> None:
    pipeline = play(wire).pipeline
    _start_sink(pipeline, "archive")
    report = pipeline.verify(STORED_SECONDS, everything=False)
    pipeline.stop("sink")
    assert [difference for check in report.checks for difference in check.differences] == []
    columns = (
        "order_id, type, event_ms, customer_id, country, region, product_id, product_name, category, quantity, "
        "unit_amount, net"
    )
    with duckdb.connect() as database:
        stored = database.sql(
            f"""
            SELECT {columns} FROM (
                SELECT *, epoch_ms(event_time) AS event_ms, net_amount AS net
                FROM read_parquet($files, hive_partitioning = false)
            )
            """,
            params={"files": pipeline.download("orders/")},
        ).to_arrow_table()
    retail.database.register("stored", stored)
    mine = f"SELECT {columns} FROM lines"
    theirs = f"SELECT {columns} FROM stored"
    assert retail.ask(f"{mine} EXCEPT ALL {theirs}") == []
    assert retail.ask(f"{theirs} EXCEPT ALL {mine}") == []


@pytest.mark.slow
@pytest.mark.parametrize("wire", WIRES)
def test_dynamodb_holds_every_order_once(play: Callable[[str], Played], retail: Retail, year: Year, wire: str) -> None:
    pipeline = play(wire).pipeline
    truth = {
        order_id: (type_, format_time(event_ms), Decimal(net))
        for order_id, type_, event_ms, net in retail.ask(
            "SELECT order_id, any_value(type), any_value(event_ms), sum(net)::BIGINT FROM lines GROUP BY order_id"
        )
    }
    _start_sink(pipeline, "index")
    # Each partition is written in its order, some hundred orders at a time.
    pipeline.await_items([order.order_id for order in year.orders[-2000:]], STORED_SECONDS)
    pipeline.stop("sink")
    items = pipeline.items(["order_id", "type", "event_time", "net"])
    found = {item["order_id"]: (item["type"], item["event_time"], Decimal(item["net"]) * 100) for item in items}
    assert len(items) == len(truth)
    assert found == truth


@pytest.mark.kafka
def test_both_wires_publish_the_same(play: Callable[[str], Played], retail: Retail) -> None:
    kafka, kinesis = play("kafka").boards, play("kinesis").boards
    assert kafka.keys() == kinesis.keys()
    for instant, board in kafka.items():
        other = dict(kinesis[instant])
        names, other_names = board["products"], other["products"]
        assert {**board, "products": None} == {**other, "products": None}
        # Where several orders of one minute name a product differently, its name is that of the highest position, and
        # positions differ between wires.
        assert names.keys() == other_names.keys()
