"""What Redis should hold when a topic has been read to its end, worked out from the topic's own messages.

Plain ``json``, the contract's rules once more in plain Python, Parquet, and SQL in DuckDB: nothing of the processor or
of the library's decoder takes part; only the table of countries and regions is the library's. ``as_of`` is the largest
accepted event time (``CLOCK=event``), so the answer is a function of the topic and is kept beside it.
"""

import hashlib
import json
import re
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import redis
from benchmarks.lab import BenchmarkError, Lab
from benchmarks.topics import Loaded
from confluent_kafka import Consumer, KafkaException, Message, TopicPartition

from sales.countries import REGION_OF

WINDOWS = {
    "1m": (60_000, 1_000),
    "5m": (300_000, 5_000),
    "15m": (900_000, 15_000),
    "1h": (3_600_000, 60_000),
    "24h": (86_400_000, 900_000),
}
"""name to length and pane, ms"""
TOP_K = 100
MEMORY = "6GB"
"""What DuckDB may take; the rest goes to disk."""
MAX_BYTES = 1_000_000
MAX_AMOUNT = 10**12
MAX_DEPTH = 100
FUTURE_MS = 300_000

_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:\d\d)", re.ASCII)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EARLIEST = datetime(2000, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_BATCH = 5_000
_ROW_GROUP_ORDERS = 200_000
_SILENCE_SECONDS = 30.0
_SAY_SECONDS = 10.0

Numbers = dict[str, dict[str, int]]
"""key without prefix to member (or field) and value"""


@dataclass(frozen=True, slots=True)
class Answer:
    """What is right."""

    as_of: int
    accepted: int
    bad: int
    numbers: Numbers


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked of a topic."""

    windows: Mapping[str, tuple[int, int]] = field(default_factory=lambda: WINDOWS)
    """name to length and pane, ms"""
    region_of: Mapping[str, str] = field(default_factory=lambda: REGION_OF)


USUAL = Question()


def answer(lab: Lab, loaded: Loaded, question: Question = USUAL) -> Answer:
    """The answer for this topic, kept from an earlier run or worked out now; says how far it is.

    Raises:
        BenchmarkError: the topic does not give what was loaded.
    """
    asked = json.dumps([dict(question.windows), dict(question.region_of)]).encode()
    rules = hashlib.sha256(Path(__file__).read_bytes() + asked).hexdigest()[:8]  # another oracle, another answer
    kept = lab.folder / f"{loaded.stream_id}.answer-{rules}.json"
    if kept.exists():
        return Answer(**json.loads(kept.read_text()))
    folder = lab.scratch("oracle")
    bad = to_parquet(lab.broker.address, loaded, folder)
    found = _ask(folder, bad, question)
    kept.write_text(
        json.dumps({"as_of": found.as_of, "accepted": found.accepted, "bad": found.bad, "numbers": found.numbers})
    )
    return found


def differences(
    expected: Answer, client: "redis.Redis", prefix: str, *, only: str = "", derived: bool = True
) -> list[str]:
    """Where Redis does not hold the answer, read in one transaction: a line for each number that differs.

    Args:
        expected: the answer.
        client: of the Redis.
        prefix: of the keys.
        only: a regular expression; keys that do not fit it as a whole are not asked for.
        derived: ask for the average as well, which others leave to the reader to divide, and for totals that are 0,
            which who only ever adds has not written.
    """
    keys = [key for key in expected.numbers if not only or re.fullmatch(only, key)]
    with client.pipeline(transaction=True) as pipe:
        for key in keys:
            if key.endswith(":aov"):
                pipe.hgetall(prefix + key)
            else:
                pipe.zrevrange(prefix + key, 0, TOP_K - 1 if ":product:" in key else -1, withscores=True)
        answers = pipe.execute()
    lines = []
    for key, content in zip(keys, answers, strict=True):
        right = {name: value for name, value in expected.numbers[key].items() if derived or name != "aov_minor"}
        pairs = content.items() if isinstance(content, dict) else content
        found = {name.decode(): value for name, value in pairs}
        if key.endswith(":aov"):
            found = {name: int(found.get(name, 0)) for name in right if name in found or not derived}
        lines += [
            f"{prefix}{key} {name}: {right.get(name)} expected, {found.get(name)} found"
            for name in sorted(right.keys() | found.keys())
            if right.get(name) != found.get(name)
        ]
    return lines


_SCHEMAS = {
    "orders": pa.schema(
        {
            "event": pa.int64(),
            "partition": pa.int32(),
            "position": pa.int64(),
            "order_id": pa.string(),
            "event_ms": pa.int64(),
            "is_return": pa.bool_(),
            "country": pa.string(),
            "customer_id": pa.int64(),
            "original_order_id": pa.string(),
        }
    ),
    "lines": pa.schema(
        {
            "event": pa.int64(),
            "line": pa.int64(),
            "product_id": pa.string(),
            "product_name": pa.string(),
            "category": pa.string(),
            "quantity": pa.int64(),
            "unit_amount": pa.int64(),
            "discount_percent": pa.int64(),
            "unit_cost": pa.int64(),
        }
    ),
}


def _empty(table: str) -> dict[str, list[Any]]:
    return {name: [] for name in _SCHEMAS[table].names}


@dataclass(slots=True)
class _Columns:
    orders: dict[str, list[Any]] = field(default_factory=lambda: _empty("orders"))
    lines: dict[str, list[Any]] = field(default_factory=lambda: _empty("lines"))

    def add(self, event: int, place: tuple[int, int], event_ms: int, order: dict[str, Any]) -> None:
        """One accepted order under a number of its own; its place is partition and position."""
        head = (
            event,
            *place,
            order["order_id"],
            event_ms,
            order["type"] == "return",
            order["country"],
            order.get("customer_id"),
            order.get("original_order_id"),
        )
        for column, value in zip(self.orders.values(), head, strict=True):
            column.append(value)
        for number, line in enumerate(order["lines"], start=1):
            row = (
                event,
                number,
                line["product_id"],
                line.get("product_name", ""),
                line.get("category", "Uncategorised"),
                line["quantity"],
                line["unit_amount"],
                line.get("discount_percent", 0),
                line.get("unit_cost"),
            )
            for column, value in zip(self.lines.values(), row, strict=True):
                column.append(value)


def to_parquet(bootstrap: str, loaded: Loaded, folder: Path) -> int:
    """Reads the topic once and writes what is accepted, as `event` numbers it: ``orders.parquet``, ``lines.parquet``.

    Returns:
        how many messages break the contract.

    Raises:
        BenchmarkError: the topic does not give what was loaded.
    """
    columns, bad, said = _Columns(), 0, time.monotonic()
    writers = {
        name: pq.ParquetWriter(folder / f"{name}.parquet", schema, compression="zstd")
        for name, schema in _SCHEMAS.items()
    }

    def write() -> None:
        writers["orders"].write_table(pa.table(columns.orders, schema=_SCHEMAS["orders"]))
        writers["lines"].write_table(pa.table(columns.lines, schema=_SCHEMAS["lines"]))

    # Numbers ascend within a partition: of one identity, met twice, the lower number is the lower position.
    for event, message in enumerate(messages(bootstrap, loaded.shape.topic, loaded.ends), start=1):
        order = _accepted(message.key(), message.value() or b"", message.timestamp()[1])
        if order is None:
            bad += 1
        else:
            columns.add(event, (message.partition(), message.offset()), *order)
        if len(columns.orders["event"]) == _ROW_GROUP_ORDERS:
            write()
            columns = _Columns()
        if event % _BATCH == 0 and time.monotonic() > said + _SAY_SECONDS:
            said = time.monotonic()
            sys.stderr.write(f"oracle: {event:,} of {loaded.messages:,} messages read\n")
    write()
    for writer in writers.values():
        writer.close()
    return bad


def messages(bootstrap: str, topic: str, ends: Mapping[str, int]) -> Iterator[Message]:
    """Every message up to the ends. Those of a partition come in order.

    Raises:
        BenchmarkError: they don't come.
    """
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "oracle", "enable.auto.commit": False})
    try:
        consumer.assign([TopicPartition(topic, int(name), 0) for name in ends])
        left = sum(end + 1 for end in ends.values())
        while left:
            taken = consumer.consume(_BATCH, _SILENCE_SECONDS)
            if not taken:
                raise BenchmarkError(f"{topic} gave nothing for {_SILENCE_SECONDS:g} s; {left:,} messages are missing")
            for message in taken:
                if message.error():
                    raise KafkaException(message.error())
                yield message
            left -= len(taken)
    finally:
        consumer.close()


def _refuse(_constant: str) -> None:
    raise ValueError("no JSON")


_decode = json.JSONDecoder(parse_constant=_refuse).decode


def _accepted(key: bytes | None, value: bytes, broker_ms: int) -> tuple[int, dict[str, Any]] | None:
    """Event time and order, or None where the contract refuses the message."""
    if len(value) > MAX_BYTES:
        return None
    try:
        order = _decode(value.decode())
        if value.count(b"{") + value.count(b"[") > MAX_DEPTH and _depth(order) > MAX_DEPTH:
            return None
        if type(order) is not dict or order["schema"] != 1 or type(order["schema"]) is not int:
            return None
        if not _TIME.fullmatch(order["event_time"]):
            return None
        moment = datetime.fromisoformat(order["event_time"])
        lines = order["lines"]
        good = (
            moment >= _EARLIEST
            and order["type"] in ("sale", "return")
            and _text(order["order_id"], 1, 64)
            and order["order_id"].encode() == key
            and _text(order.get("original_order_id", "x") or "x", 1, 64)
            and order.get("original_order_id") != ""
            and (order.get("customer_id") is None or _whole(order["customer_id"], -(2**63), 2**63 - 1))
            and order["country"] in REGION_OF
            and order["currency"] == "USD"
            and type(lines) is list
            and len(lines) > 0
            and all(map(_line, lines))
            and sum(line["quantity"] for line in lines) <= MAX_AMOUNT
            and sum(line["quantity"] * line["unit_amount"] for line in lines) <= MAX_AMOUNT
            and sum(line["quantity"] * (line.get("unit_cost") or 0) for line in lines) <= MAX_AMOUNT
        )
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    event_ms = (moment - _EPOCH) // _MILLISECOND
    return (event_ms, order) if good and event_ms <= broker_ms + FUTURE_MS else None


def _depth(document: object) -> int:
    """How many arrays and objects are inside one another."""
    if isinstance(document, dict):
        return 1 + max(map(_depth, document.values()), default=0)
    if isinstance(document, list):
        return 1 + max(map(_depth, document), default=0)
    return 0


def _line(line: dict[str, Any]) -> bool:
    cost = line.get("unit_cost")
    return (
        _text(line["product_id"], 1, 256)
        and _text(line.get("product_name", ""), 0, 1024)
        and _text(line.get("category", ""), 0, 256)
        and _whole(line["quantity"], 1, MAX_AMOUNT)
        and _whole(line["unit_amount"], 0, MAX_AMOUNT)
        and _whole(line.get("discount_percent", 0), 0, 100)
        and (cost is None or _whole(cost, 0, MAX_AMOUNT))
    )


def _text(value: object, shortest: int, longest: int) -> bool:
    return type(value) is str and shortest <= len(value) <= longest


def _whole(value: object, least: int, most: int) -> bool:
    return type(value) is int and least <= value <= most


# What counts: of events with one identity the first; amounts from quantity, price and discount.
_COUNTED = """
CREATE TABLE counted AS
WITH standing AS (SELECT min(event) AS event FROM orders GROUP BY order_id, event_ms)
SELECT
    o.event, o.event_ms, o.is_return, o.country, r.region, l.product_id, l.category,
    CASE WHEN o.is_return THEN -1 ELSE 1 END * l.quantity AS units,
    CASE WHEN o.is_return THEN -1 ELSE 1 END
        * (l.quantity * l.unit_amount - (l.quantity * l.unit_amount * l.discount_percent + 50) // 100) AS revenue
FROM standing
JOIN orders AS o USING (event)
JOIN lines AS l USING (event)
JOIN regions AS r USING (country)
"""

_PRODUCTS = """
WITH summed AS (
    SELECT product_id, sum({measure})::BIGINT AS value FROM counted
    WHERE event_ms >= $start AND event_ms < $end GROUP BY product_id
)
SELECT product_id, value FROM summed ORDER BY value DESC, product_id DESC LIMIT $top
"""

_GROUPS = """
WITH parts AS (
    SELECT {group} AS name, event, is_return, sum(units) AS units, sum(revenue) AS revenue FROM counted
    WHERE event_ms >= $start AND event_ms < $end GROUP BY ALL
)
SELECT name, sum(units)::BIGINT, sum(revenue)::BIGINT, count(*) FILTER (NOT is_return) FROM parts GROUP BY name
"""

_TOTALS = """
SELECT
    count(DISTINCT event) FILTER (NOT is_return),
    coalesce(sum(revenue) FILTER (NOT is_return), 0)::BIGINT,
    count(DISTINCT event) FILTER (is_return),
    coalesce(-sum(revenue) FILTER (is_return), 0)::BIGINT,
    coalesce(sum(revenue), 0)::BIGINT,
    coalesce(sum(units), 0)::BIGINT
FROM counted WHERE event_ms >= $start AND event_ms < $end
"""


def _ask(folder: Path, bad: int, question: Question) -> Answer:
    with duckdb.connect(str(folder / "oracle.duckdb")) as database:
        database.execute("SET memory_limit = ?", [MEMORY])
        database.execute("SET temp_directory = ?", [str(folder / "spill")])
        for name in ("orders", "lines"):
            database.execute(f"CREATE VIEW {name} AS FROM read_parquet('{folder / name}.parquet')")
        database.execute("CREATE TABLE regions (country VARCHAR, region VARCHAR)")
        regions = question.region_of
        database.execute("INSERT INTO regions SELECT unnest(?), unnest(?)", [list(regions), list(regions.values())])
        [(accepted, as_of)] = database.execute("SELECT count(*), max(event_ms) FROM orders").fetchall()
        database.execute(_COUNTED)
        numbers: Numbers = {}
        for window, (length, pane) in question.windows.items():
            end = as_of - as_of % pane + pane
            numbers |= _window(database, window, {"start": end - length, "end": end})
        return Answer(as_of=as_of, accepted=accepted, bad=bad, numbers=numbers)


def _window(database: "duckdb.DuckDBPyConnection", window: str, bounds: Mapping[str, int]) -> Numbers:
    numbers: Numbers = {}
    for measure in ("units", "revenue"):
        rows = database.execute(_PRODUCTS.format(measure=measure), {**bounds, "top": TOP_K}).fetchall()
        numbers[f"{window}:product:{measure}"] = dict(rows)
    for group in ("category", "region", "country"):
        rows = database.execute(_GROUPS.format(group=group), bounds).fetchall()
        for index, measure in enumerate(("units", "revenue", "orders"), start=1):
            numbers[f"{window}:{group}:{measure}"] = {row[0]: row[index] for row in rows}
    [totals] = database.execute(_TOTALS, bounds).fetchall()
    names = ("orders", "sales_minor", "returns", "refunded_minor", "revenue_minor", "units")
    numbers[f"{window}:aov"] = dict(zip(names, totals, strict=True))
    orders, sales = totals[:2]
    if orders:
        numbers[f"{window}:aov"]["aov_minor"] = (2 * sales + orders) // (2 * orders)
    return numbers
