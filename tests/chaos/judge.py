"""What the board should show, worked out from the messages themselves; nothing of the processor has a part in it.

Messages are read as `support.orders` reads them, by plain JSON, and summed up by SQL. What a tick says it has applied
is what is read for it: each tick is judged at its own positions and its own time.
"""

import json
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import duckdb
import pyarrow as pa

from chaos.topics import Log
from sales.board import Keys, LiveNumbers
from sales.countries import REGION_OF
from sales.times import format_time
from support.orders import Order, read, time_ms
from tillstream.compare import compare
from tillstream.recompute import Expected

WINDOWS = {
    "1m": (60_000, 1_000),
    "5m": (300_000, 5_000),
    "15m": (900_000, 15_000),
    "1h": (3_600_000, 60_000),
    "24h": (86_400_000, 900_000),
}
"""name to length and pane, ms"""
TOP_K = 100
CURRENCY = "USD"
MINUTE_MS = 60_000
CLOSED_AFTER_MS = 30_000

LETTERS_SECONDS = 60.0
"""A dead letter is certain with the next snapshot, a second later; so long it may take on a busy machine."""

SHOWN = 12
"""Differences told of one check; the rest is counted."""

_LINES = pa.schema(
    {
        "event_ms": pa.int64(),
        "is_return": pa.bool_(),
        "first": pa.int64(),  # 1 on one line of each event: summed up it counts events
        "first_of_category": pa.int64(),  # likewise events with a line of that category
        "country": pa.string(),
        "region": pa.string(),
        "product": pa.string(),
        "category": pa.string(),
        "units": pa.int64(),
        "revenue": pa.int64(),
    }
)

_TOTALS = """
SELECT
    coalesce(sum(first) FILTER (NOT is_return), 0)::BIGINT,
    coalesce(sum(revenue) FILTER (NOT is_return), 0)::BIGINT,
    coalesce(sum(first) FILTER (is_return), 0)::BIGINT,
    coalesce(-sum(revenue) FILTER (is_return), 0)::BIGINT,
    coalesce(sum(revenue), 0)::BIGINT,
    coalesce(sum(units), 0)::BIGINT
FROM lines WHERE event_ms >= $start AND event_ms < $behind
"""

_PRODUCTS = """
SELECT product, sum({measure})::BIGINT AS number FROM lines WHERE event_ms >= $start AND event_ms < $behind
GROUP BY product ORDER BY number DESC, product DESC LIMIT $top
"""

_GROUPS = """
SELECT {group}, sum(units)::BIGINT, sum(revenue)::BIGINT, coalesce(sum({first}) FILTER (NOT is_return), 0)::BIGINT
FROM lines WHERE event_ms >= $start AND event_ms < $behind
GROUP BY {group}
"""

_TRENDS = """
SELECT
    {place}, event_ms // 60000 * 60000 AS minute, sum(units)::BIGINT, sum(revenue)::BIGINT,
    coalesce(sum(first) FILTER (NOT is_return), 0)::BIGINT
FROM lines WHERE event_ms >= $start AND event_ms // 60000 * 60000 <= $as_of
GROUP BY ALL
"""

_MINUTES = """
SELECT
    event_ms // 60000 * 60000 AS minute, {scope}, sum({first})::BIGINT,
    coalesce(sum({first}) FILTER (NOT is_return), 0)::BIGINT, coalesce(sum({first}) FILTER (is_return), 0)::BIGINT,
    sum(units)::BIGINT, coalesce(sum(revenue) FILTER (NOT is_return), 0)::BIGINT,
    coalesce(-sum(revenue) FILTER (is_return), 0)::BIGINT
FROM lines WHERE event_ms >= $start AND event_ms < $behind
GROUP BY ALL
"""

Place = tuple[int, int]
"""partition, offset"""

Minutes = dict[tuple[str, str], tuple[int, ...]]
"""(minute, scope) to version, orders, returns, units, sales, refunded"""


@dataclass
class _Applied:
    """What was read so far, but for the lines of the accepted."""

    accepted: int = 0
    duplicates: int = 0
    refused: dict[Place, str] = field(default_factory=dict)
    max_event_ms: int = 0
    identities: dict[tuple[str, int], tuple[int, int]] = field(default_factory=dict)
    """to the partition that has it, and a digest of its content"""
    names: dict[str, tuple[int, int, int, int, str]] = field(default_factory=dict)
    """product to the event time, offset, partition and line that name it last, and the name"""


class Judge:
    """Reads along, and compares ticks with what it has read. Each tick's positions are at or behind the last one's."""

    def __init__(
        self,
        orders: Log,
        letters: Log,
        rollups: Log,
        *,
        stream_id: str,
        keys: Keys,
        letters_seconds: float = LETTERS_SECONDS,
    ) -> None:
        self._orders, self._letters, self._rollups = orders, letters, rollups
        self._letters_seconds = letters_seconds
        self._stream_id = stream_id
        self._keys = keys
        self._applied = _Applied()
        self._database = duckdb.connect()
        self._database.execute("SET threads = 1")  # the shop runs beside it
        empty = _LINES.empty_table()  # noqa: F841 (DuckDB finds it by its name)
        self._database.execute("CREATE TABLE lines AS FROM empty")
        self._unsent: set[Place] = set()
        """refused, and not seen among the dead letters"""
        self._ahead: dict[Place, str] = {}
        """dead letters of messages that no judged tick has applied"""

    def differences(self, live: LiveNumbers) -> list[str]:
        """Where a tick, or the dead letters up to it, are not what they should be; a line each."""
        self._read(self._positions(live))
        expected = self._expected(time_ms(live.status["as_of"]))
        checks = compare(live, expected, self._keys, CURRENCY)
        lines = [f"{d.place} {d.name}: {d.expected} expected, {d.found} found" for c in checks for d in c.differences]
        return shortened([*lines, *self._counts(live), *self._dead_letters()])

    def rollup_differences(self, live: LiveNumbers) -> list[str]:
        """Where closed minutes in the rollups stream are not what they should be, after the processor ended in order.

        Args:
            live: the last tick.
        """
        as_of = time_ms(live.status["as_of"])
        start, _ = _bounds(as_of, *WINDOWS["24h"])
        behind = (as_of - CLOSED_AFTER_MS) // MINUTE_MS * MINUTE_MS
        expected = self._minutes(start, behind)
        found: Minutes = {}
        for message in self._rollups.rest():
            record = json.loads(message.value)
            name = (record["minute"], record["scope"])
            values = tuple(
                record[part] for part in ("version", "orders", "returns", "units", "sales_minor", "refunded_minor")
            )
            if record["stale"] and time_ms(record["minute"]) >= start:
                return [f"minute {name} was marked stale, and a window covers it"]
            if start <= time_ms(record["minute"]) < behind:
                found[name] = max(found.get(name, values), values)
        names = sorted(expected.keys() | found.keys())
        return shortened(
            [
                f"minute {name}: {expected.get(name)} expected, {found.get(name)} found"
                for name in names
                if expected.get(name) != found.get(name)
            ]
        )

    @property
    def accepted(self) -> int:
        """Orders that the judged ticks had applied."""
        return self._applied.accepted

    def _positions(self, live: LiveNumbers) -> dict[int, int]:
        ends = {}
        for path, position in live.positions.items():
            stream_id, _, partition = path.rpartition("/")
            assert stream_id == self._stream_id, path
            ends[int(partition)] = int(position)
        return ends

    def _read(self, ends: dict[int, int]) -> None:
        columns: dict[str, list[Any]] = {name: [] for name in _LINES.names}
        for message in self._orders.until(ends):
            place = (message.partition, message.offset)
            order = read(message.key, message.value, message.broker_ms, CURRENCY)
            reason = order if isinstance(order, str) else self._judge(order, place[0])
            if reason == "duplicate":
                self._applied.duplicates += 1
            elif reason:
                self._applied.refused[place] = reason
                self._unsent.add(place)
            elif isinstance(order, Order):
                self._applied.accepted += 1
                self._applied.max_event_ms = max(self._applied.max_event_ms, order.event_ms)
                self._add(order, place, columns)
        batch = pa.table(columns, schema=_LINES)  # noqa: F841 (DuckDB finds it by its name)
        self._database.execute("INSERT INTO lines FROM batch")

    def _judge(self, order: Order, partition: int) -> str:
        """What a well-formed event is; empty: accepted."""
        identity, content = (order.order_id, order.event_ms), hash(repr(order.content))
        held = self._applied.identities.get(identity)
        if held is None:
            self._applied.identities[identity] = (partition, content)
            return ""
        # Repetitions on two sides of a change of the partition count are outside the contract: the world sends none.
        assert held[0] == partition, f"{identity} is in two partitions"
        return "duplicate" if held[1] == content else "conflict"

    def _add(self, order: Order, place: Place, columns: dict[str, list[Any]]) -> None:
        sign = -1 if order.is_return else 1
        country = order.document["country"]
        categories: set[str] = set()
        for number, line in enumerate(order.document["lines"]):
            category = line.get("category", "Uncategorised")
            gross = line["quantity"] * line["unit_amount"]
            row = (
                order.event_ms,
                order.is_return,
                int(number == 0),
                int(category not in categories),
                country,
                REGION_OF[country],
                line["product_id"],
                category,
                sign * line["quantity"],
                sign * (gross - (gross * line.get("discount_percent", 0) + 50) // 100),
            )
            categories.add(category)
            for column, value in zip(columns.values(), row, strict=True):
                column.append(value)
            name = (order.event_ms, place[1], place[0], number, line.get("product_name", ""))
            self._applied.names[line["product_id"]] = max(name, self._applied.names.get(line["product_id"], name))

    def _expected(self, as_of: int) -> Expected:
        expected = Expected(bounds={}, totals={})
        measures = ("units", "revenue", "orders")
        for window, (length, pane) in WINDOWS.items():
            start, behind = expected.bounds[window] = _bounds(as_of, length, pane)
            inside = {"start": start, "behind": behind}
            [totals] = self._ask(_TOTALS, **inside)
            whole = ("orders", "sales_minor", "returns", "refunded_minor", "revenue_minor", "units")
            expected.totals[window] = dict(zip(whole, totals, strict=True))
            for measure in ("units", "revenue"):
                query = _PRODUCTS.format(measure=measure)
                expected.products[window, measure] = [(p, n) for p, n in self._ask(query, **inside, top=TOP_K)]
            for group in ("category", "region", "country"):
                first = "first_of_category" if group == "category" else "first"
                for label, *numbers in self._ask(_GROUPS.format(group=group, first=first), **inside):
                    for measure, number in zip(measures, numbers, strict=True):
                        expected.groups.setdefault((window, group, measure), {})[label] = number
        start = expected.bounds["24h"][0]
        for place in ("''", "region"):
            for region, minute, *numbers in self._ask(_TRENDS.format(place=place), start=start, as_of=as_of):
                for measure, number in zip(measures, numbers, strict=True):
                    expected.trends.setdefault((region, measure), {})[format_time(minute)] = number
        expected.names.update((product, name) for product, (*_, name) in self._applied.names.items())
        return expected

    def _minutes(self, start: int, behind: int) -> Minutes:
        minutes: Minutes = {}
        for scope, first in (("'all'", "first"), ("country || '/' || category", "first_of_category")):
            query = _MINUTES.format(scope=scope, first=first)
            for minute, name, *values in self._ask(query, start=start, behind=behind):
                minutes[format_time(minute), name] = tuple(values)
        return minutes

    def _counts(self, live: LiveNumbers) -> Iterator[str]:
        reasons = Counter(self._applied.refused.values())
        right = {
            "accepted": self._applied.accepted,
            "duplicates": self._applied.duplicates,
            "dead_letters": reasons.total(),
            **{f"dead_letters:{reason}": count for reason, count in reasons.items()},
        }
        expected = {name: str(count) for name, count in right.items()}
        expected["max_event_time"] = format_time(self._applied.max_event_ms)
        told = {name for name in live.status if name.startswith("dead_letters:")}
        for name in sorted(expected.keys() | told):
            if expected.get(name) != live.status.get(name):
                yield f"{self._keys.status} {name}: {expected.get(name)} expected, {live.status.get(name)} found"

    def _dead_letters(self) -> Iterator[str]:
        """Each refused message must be a dead letter, at least once, and no other may."""
        deadline = time.monotonic() + self._letters_seconds
        while True:
            for message in self._letters.rest():
                letter = json.loads(message.value)
                assert letter["stream"] == self._stream_id, letter["stream"]
                self._ahead[int(letter["partition"]), int(letter["position"])] = letter["reason"]
            for place in [place for place in self._ahead if self._orders.has_given(*place)]:
                reason = self._ahead.pop(place)
                self._unsent.discard(place)
                if self._applied.refused.get(place) != reason:
                    yield f"dead letter of {place}: {self._applied.refused.get(place)} expected, {reason} found"
            if not self._unsent:
                return
            if time.monotonic() > deadline:
                break
            time.sleep(0.05)  # between two looks; the deadline bounds them
        yield from (
            f"{place} was refused ({self._applied.refused[place]}) and is no dead letter" for place in self._unsent
        )

    def _ask(self, query: str, **parameters: Any) -> list[tuple[Any, ...]]:
        return self._database.execute(query, parameters).fetchall()


def _bounds(as_of: int, length: int, pane: int) -> tuple[int, int]:
    behind = as_of - as_of % pane + pane
    return behind - length, behind


def shortened(lines: list[str]) -> list[str]:
    """The first of them, and how many more there are."""
    more = len(lines) - SHOWN
    return [*lines[:SHOWN], f"and {more} more"] if more > 0 else lines
