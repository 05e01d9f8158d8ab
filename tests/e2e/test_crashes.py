"""kill -9, again and again, of each service, under load and with everything that can go wrong in the orders.

A killed service is started again at once, as an orchestrator would, and is killed again some time after it has shown
that it works. In the end the stream itself is read, and what is in it must be in S3, in DynamoDB, among the dead
letters and on the board: all of it, once.
"""

import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import duckdb
import pytest

from sales import dead_letters
from sales.streams import format_position
from support.orders import read, time_ms
from support.services import OpenPipeline, Pipeline
from tillstream.stored import Store

WIRES = [pytest.param("kafka", marks=[pytest.mark.kafka, pytest.mark.slow]), "kinesis"]

SERVICES = ("generator", "processor", "sink")
KILLS = 5
"""of each"""

LONGEST_PAUSE = 1.5
"""Seconds that a service may work between two kills: several snapshots, ticks, extents."""

WORK_SECONDS = 120.0
"""A sink that comes back to a Kafka group waits until the group has given up the one that was killed."""

SETTLE_SECONDS = 120.0
STORED_SECONDS = 240.0

RATE = {"kafka": "60/s", "kinesis": "150/s"}
"""A Kafka group takes 15 seconds to give up a member that was killed: so many orders more come in meanwhile, and
DynamoDB's protocol server takes some hundred a second."""

LOAD = {
    "LATE": "0.02",
    "OUT_OF_ORDER": "0.1",
    "DUPLICATES": "0.05",
    "CONFLICTS": "0.02",
    "MALFORMED": "0.03",
    "FUTURE": "0.01",
    "UNKNOWN_CURRENCY": "0.01",
}

Place = tuple[str, str]
"""partition, position as text"""


@dataclass
class Sent:
    """What is in the orders stream."""

    orders: dict[Place, tuple[str, int, int, int]] = field(default_factory=dict)
    """well-formed events: order id, event time (ms), lines, net (minor units, negative for returns)"""
    refused: dict[Place, str] = field(default_factory=dict)
    """reason"""

    def standing(self) -> dict[tuple[str, int], Place]:
        """Identity to the lowest position that carries it."""
        standing: dict[tuple[str, int], Place] = {}
        for place, (order_id, event_ms, *_) in self.orders.items():
            standing[order_id, event_ms] = min(place, standing.get((order_id, event_ms), place))
        return standing

    def first_of_each_id(self) -> dict[str, Place]:
        """Order id to the lowest position that carries it."""
        first: dict[str, Place] = {}
        for place, (order_id, *_) in self.orders.items():
            first[order_id] = min(place, first.get(order_id, place))
        return first


@pytest.fixture(scope="module")
def crashed(open_pipeline: OpenPipeline) -> Callable[[str], tuple[Pipeline, Sent]]:
    """A pipeline that went through all crashes, with everything applied; and what its stream holds."""
    done: dict[str, tuple[Pipeline, Sent]] = {}

    def crashed_(wire: str) -> tuple[Pipeline, Sent]:
        if wire not in done:
            pipeline = open_pipeline(wire, ROTATE_SECONDS="2", SNAPSHOT_MS="300", RATE=RATE[wire], **LOAD)
            _crash(pipeline, random.Random(wire))  # noqa: S311 - a seed makes a failure come again
            done[wire] = pipeline, _sent(pipeline)
        return done[wire]

    return crashed_


def _crash(pipeline: Pipeline, dice: random.Random) -> None:
    works = {name: _start(pipeline, name) for name in SERVICES}
    victims = list(SERVICES) * KILLS
    dice.shuffle(victims)
    for number, name in enumerate(victims, start=1):
        pipeline.until(works[name], WORK_SECONDS, f"at work again: {name}")
        time.sleep(dice.uniform(0, LONGEST_PAUSE))  # the random moment; nothing is waited for
        pipeline.kill(name)
        works[name] = _start(pipeline, name, SEED=str(number))
    for name in SERVICES:
        pipeline.until(works[name], WORK_SECONDS, f"at work again: {name}")
    pipeline.stop("generator")
    pipeline.settle(SETTLE_SECONDS)


def _start(pipeline: Pipeline, name: str, **settings: str) -> Callable[[], bool]:
    """Starts a service; the answer tells whether it has done something since."""
    done = {"generator": _sent_so_far, "processor": _accepted, "sink": _extents}[name]
    before = done(pipeline)
    pipeline.start(name, **settings)
    return lambda: done(pipeline) > before


def _sent_so_far(pipeline: Pipeline) -> int:
    return sum(end or 0 for end in pipeline.orders.ends().values())


def _accepted(pipeline: Pipeline) -> int:
    return int(pipeline.live().status.get("accepted", "0"))


def _extents(pipeline: Pipeline) -> int:
    folder = f"_extents/{pipeline.orders.id}/"
    return sum(1 for key, _ in Store.open(pipeline.settings).listing(folder) if key.endswith(".done"))


def _sent(pipeline: Pipeline) -> Sent:
    sent = Sent()
    for chunk in pipeline.sent():
        messages = zip(chunk.keys, chunk.values, chunk.positions, chunk.broker_times, strict=True)
        for key, value, position, broker_ms in messages:
            place = (chunk.partition, format_position(position, pipeline.orders.position_digits))
            order = read(key, value, broker_ms, pipeline.settings.currency)
            if isinstance(order, str):
                sent.refused[place] = order
            else:
                sent.orders[place] = (order.order_id, order.event_ms, len(order.document["lines"]), order.net)
    return sent


@pytest.mark.parametrize("wire", WIRES)
def test_every_number_is_equal(crashed: Callable[[str], tuple[Pipeline, Sent]], wire: str) -> None:
    pipeline, sent = crashed(wire)
    assert len(sent.orders) > 1000
    report = pipeline.verify(STORED_SECONDS)
    assert [difference for check in report.checks for difference in check.differences] == []
    status = pipeline.live().status
    assert int(status["accepted"]) == len(sent.standing())


@pytest.mark.parametrize("wire", WIRES)
def test_s3_holds_every_event_once(crashed: Callable[[str], tuple[Pipeline, Sent]], wire: str) -> None:
    pipeline, sent = crashed(wire)
    pipeline.await_stored(pipeline.orders, STORED_SECONDS)
    with duckdb.connect() as database:
        rows = database.execute(
            """
            SELECT partition, position, order_id, epoch_ms(event_time), count(*), sum(net_amount)::BIGINT
            FROM read_parquet($files, hive_partitioning = false)
            GROUP BY ALL
            """,
            {"files": pipeline.download("orders/")},
        ).fetchall()
    stored = {
        (partition, position): (order_id, event_ms, lines, net)
        for partition, position, order_id, event_ms, lines, net in rows
    }
    assert stored == sent.orders
    assert len(rows) == len(stored)


@pytest.mark.parametrize("wire", WIRES)
def test_dynamodb_holds_what_s3_holds(crashed: Callable[[str], tuple[Pipeline, Sent]], wire: str) -> None:
    pipeline, sent = crashed(wire)
    expected = {
        order_id: (place, sent.orders[place][1], Decimal(sent.orders[place][3]))
        for order_id, place in sent.first_of_each_id().items()
    }

    def found() -> dict[str, Any]:
        items = pipeline.items(["order_id", "partition", "position", "event_time", "net"])
        return {
            item["order_id"]: (
                (item["partition"], item["position"]),
                time_ms(item["event_time"]),
                Decimal(item["net"]) * 100,
            )
            for item in items
        }

    # Each partition is written in its order, but for some hundred orders at a time.
    last = sorted(expected, key=lambda order_id: expected[order_id][0][1])[-2000:]
    pipeline.await_items(last, STORED_SECONDS)
    assert found() == expected


@pytest.mark.parametrize("wire", WIRES)
def test_every_refused_message_is_a_dead_letter_once(
    crashed: Callable[[str], tuple[Pipeline, Sent]], wire: str
) -> None:
    pipeline, sent = crashed(wire)
    letters: dict[Place, str] = {}
    stream = pipeline.wire.open(pipeline.settings.dead_letters_stream)
    for chunk in pipeline.read(stream):
        for value in chunk.values:
            letter = dead_letters.decode(value)
            assert letters.setdefault((letter.partition, letter.position), letter.reason) == letter.reason
            assert letter.stream == pipeline.orders.id
    standing = set(sent.standing().values())
    conflicts = {place for place, reason in letters.items() if reason == "conflict"}
    assert {place: reason for place, reason in letters.items() if place not in conflicts} == sent.refused
    assert conflicts
    assert conflicts <= sent.orders.keys() - standing
    status = pipeline.live().status
    assert int(status["dead_letters"]) == len(letters)
    assert int(status["duplicates"]) == len(sent.orders) - len(standing) - len(conflicts)
    counted = Counter(letters.values())
    assert {reason: int(status[f"dead_letters:{reason}"]) for reason in counted} == counted
    pipeline.await_stored(stream, STORED_SECONDS)
    with duckdb.connect() as database:
        rows = database.execute(
            "SELECT DISTINCT partition, position, reason FROM read_parquet($files, hive_partitioning = false)",
            {"files": pipeline.download("dead-letters/")},
        ).fetchall()
    assert {(partition, position): reason for partition, position, reason in rows} == letters
