"""A small shop with everything that can go wrong in it, stored and published by brute force.

Written from the contract alone, in plain Python: what the board should hold is worked out event by event, and the
Parquet objects, pins and markers are written as the layout says. Neither the processor, the sink nor the SQL of
``verify`` has a part in it.
"""

import hashlib
import io
import json
import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

STREAM = "orders-0badcafe"
LETTERS = "orders-dead-letters-0badcafe"
ROLLUPS = "sales-rollups-0badcafe"
DIGITS = 20
CURRENCY = "USD"
REGION_OF = {"GB": "Europe", "FR": "Europe", "US": "Americas", "JP": "Asia", "ZZ": "Unknown"}
REGIONS = ("", "Africa", "Americas", "Asia", "Europe", "Oceania", "Unknown")
PANE_MS = {"1m": 1_000, "5m": 5_000, "15m": 15_000, "1h": 60_000, "24h": 900_000}
LENGTH_MS = {"1m": 60_000, "5m": 300_000, "15m": 900_000, "1h": 3_600_000, "24h": 86_400_000}
AS_OF = 1_795_161_153_123
"""2026-11-20T07:52:33.123Z"""


@dataclass(frozen=True)
class Item:
    """One order line."""

    product_id: str = "85123A"
    quantity: int = 2
    unit_amount: int = 255
    product_name: str = "White hanging heart"
    category: str = "Home"
    discount_percent: int = 0
    unit_cost: int | None = 140

    @property
    def gross(self) -> int:
        return self.quantity * self.unit_amount

    @property
    def discount(self) -> int:
        return int((Decimal(self.gross * self.discount_percent) / 100).quantize(Decimal(1), ROUND_HALF_UP))

    @property
    def net(self) -> int:
        return self.gross - self.discount


@dataclass(frozen=True)
class Event:
    """One well-formed event at its position."""

    order_id: str
    position: int
    event_ms: int = AS_OF - 10_000
    partition: str = "0"
    type: str = "sale"
    country: str = "GB"
    customer_id: int | None = 17850
    items: tuple[Item, ...] = (Item(),)

    @property
    def sign(self) -> int:
        return -1 if self.type == "return" else 1


@dataclass
class World:
    """What was sent, how far the tick has come, and how the sink cut it up."""

    events: list[Event]
    applied: dict[str, int]
    """partition to the last position in the tick"""
    cuts: dict[str, list[int]]
    """partition to the ends of its extents"""
    malformed: dict[str, list[int]] = field(default_factory=dict)
    as_of: int = AS_OF
    windows: tuple[str, ...] = ("1m", "5m", "15m", "1h", "24h")
    top_k: int = 100

    def until_tick(self) -> list[Event]:
        return [event for event in self.events if event.position <= self.applied[event.partition]]

    def counted(self) -> list[Event]:
        """Of each identity the event at the lowest position."""
        return _standing(self.until_tick())

    def letters(self) -> list[tuple[str, int, str]]:
        """What is refused: partition, position, reason."""
        standing = _standing(self.events)
        conflicts = [(e.partition, e.position, "conflict") for e in self.events if _is_conflict(e, standing)]
        malformed = [(partition, place, "json") for partition, places in self.malformed.items() for place in places]
        return sorted(conflicts + malformed)


def _standing(events: Iterable[Event]) -> list[Event]:
    first: dict[tuple[str, int], Event] = {}
    for event in sorted(events, key=lambda event: event.position):
        first.setdefault((event.order_id, event.event_ms), event)
    return list(first.values())


def time_text(ms: int) -> str:
    return datetime.fromtimestamp(ms // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S.") + f"{ms % 1000:03d}Z"


def position_text(position: int) -> str:
    return f"{position:0{DIGITS}d}"


def a_world(seed: int = 7, **changes: Any) -> World:
    """Two partitions, 26 hours: sales and returns, repetitions and conflicts, ties, late and old orders, one dated
    ahead; the tick has not come to the end, and the extents go past it."""
    dice = random.Random(seed)  # noqa: S311 - a seed makes the world the same each time, nothing is secret
    products = [(f"P{number}", f"Product {number}", dice.choice(("Home", "Garden", "Toys"))) for number in range(9)]

    def items() -> tuple[Item, ...]:
        return tuple(
            Item(
                product_id=(chosen := dice.choice(products))[0],
                product_name=chosen[1] + dice.choice(("", " (new)")),
                category=chosen[2],
                quantity=dice.choice((1, 1, 2, 3, 12)),
                unit_amount=dice.choice((0, 99, 99, 250, 333, 1995)),
                discount_percent=dice.choice((0, 0, 0, 5, 33, 100)),
                unit_cost=dice.choice((None, 50, 120)),
            )
            for _ in range(dice.choice((1, 1, 2, 3)))
        )

    ages = (3, 20, 45, 59, 61, 200, 299, 700, 3_000, 3_599, 20_000, 86_000, 87_500, 93_000)
    events: list[Event] = []
    at = {"0": 100, "1": 7}
    for number in range(150):
        partition = dice.choice(("0", "1"))
        at[partition] += dice.choice((1, 1, 2, 5))
        event = Event(
            order_id=f"o{number}",
            position=at[partition],
            event_ms=AS_OF - dice.choice(ages) * 1000 - dice.randrange(900),
            partition=partition,
            type=dice.choice(("sale", "sale", "sale", "return")),
            country=dice.choice(tuple(REGION_OF)),
            customer_id=dice.choice((None, 17850, 13047)),
            items=items(),
        )
        events.append(event)
        if dice.random() < 0.1:
            at[partition] += 1
            again = replace(event, position=at[partition])
            events.append(again if dice.random() < 0.5 else replace(again, country="FR", items=items()))
    ahead = Event(
        "ahead", position=at["0"] + 1, event_ms=AS_OF + 200_000, items=(Item("P0", 5, 99, "Product 0 (soon)"),)
    )
    events.append(ahead)
    at["0"] += 1
    applied = dict(at)
    for number in range(6):  # what the tick has not seen
        partition = dice.choice(("0", "1"))
        at[partition] += 1
        events.append(Event(f"unseen{number}", position=at[partition], partition=partition))
    at["0"] += 1
    world = World(
        events=events,
        applied=applied,
        cuts={"0": [150, 220, at["0"]], "1": [60, at["1"]]},
        malformed={"0": [applied["0"] - 200, at["0"]]},
    )
    return replace(world, **changes)


def board(world: World) -> tuple[dict[str, dict[str, int]], dict[str, dict[str, str]]]:
    """Every sorted set and every hash that the board should hold, by key without prefix."""
    zsets: dict[str, dict[str, int]] = {}
    hashes: dict[str, dict[str, str]] = {}
    counted = world.counted()
    shown: set[str] = set()
    for window in world.windows:
        pane = PANE_MS[window]
        end = world.as_of - world.as_of % pane + pane
        start = end - LENGTH_MS[window]
        inside = [event for event in counted if start <= event.event_ms < end]
        for measure, ranking in _rankings(inside, world.top_k).items():
            zsets[f"{window}:product:{measure}"] = ranking
            shown |= ranking.keys()
        for group in ("category", "region", "country"):
            for measure, members in _groups(inside, group).items():
                zsets[f"{window}:{group}:{measure}"] = members
        hashes[f"{window}:aov"] = _aov(inside, start, end, world.as_of)
    longest = max(LENGTH_MS[window] for window in world.windows)
    pane = max(PANE_MS[window] for window in world.windows)
    start = world.as_of - world.as_of % pane + pane - longest
    hashes |= _trends([event for event in counted if event.event_ms >= start], start, world.as_of)
    hashes["products"] = _names(counted, shown)
    hashes["positions"] = {
        f"{STREAM}/{partition}": position_text(position) for partition, position in world.applied.items()
    }
    seen = world.until_tick()
    refused = Counter(reason for partition, place, reason in world.letters() if place <= world.applied[partition])
    hashes["status"] = {
        "as_of": time_text(world.as_of),
        "max_event_time": time_text(max(event.event_ms for event in seen)) if seen else "",
        "accepted": str(len(counted)),
        "duplicates": str(len(seen) - len(counted) - refused["conflict"]),
        "dead_letters": str(refused.total()),
        "clock": "event",
        **{f"dead_letters:{reason}": str(count) for reason, count in refused.items()},
    }
    return {key: content for key, content in zsets.items() if content}, hashes


def publish(world: World, client: Any, prefix: str = "sales:") -> None:
    """Writes the whole board."""
    zsets, hashes = board(world)
    for key, members in zsets.items():
        client.zadd(prefix + key, members)
    for key, fields in hashes.items():
        if fields:
            client.hset(prefix + key, mapping=fields)


def store(world: World, s3: Any, bucket: str, prefix: str = "") -> None:
    """Writes every object, pin and marker."""
    for partition, ends in world.cuts.items():
        after: int | None = None
        for end in ends:
            _store_extent(s3, bucket, prefix, world, (partition, after, end))
            after = end
    letters = world.letters()
    if letters:
        store_letters([*letters, letters[0]], s3, bucket, prefix)  # one was sent twice
    store_rollups(rollups(world), s3, bucket, prefix)


def rollups(world: World) -> list[dict[str, Any]]:
    """The closed minutes, of all scopes."""
    by_scope: dict[tuple[int, str], list[tuple[Event, tuple[Item, ...]]]] = defaultdict(list)
    for event in world.counted():
        minute = event.event_ms - event.event_ms % 60_000
        if minute + 90_000 > world.as_of:
            continue
        by_scope[minute, "all"].append((event, event.items))
        for category in {item.category for item in event.items}:
            items = tuple(item for item in event.items if item.category == category)
            by_scope[minute, f"{event.country}/{category}"].append((event, items))
    return [_rollup(minute, scope, inside) for (minute, scope), inside in sorted(by_scope.items())]


def _rollup(minute: int, scope: str, inside: list[tuple[Event, tuple[Item, ...]]]) -> dict[str, Any]:
    country, slash, category = scope.partition("/")
    sales = [(event, items) for event, items in inside if event.type == "sale"]
    returns = [(event, items) for event, items in inside if event.type == "return"]
    sold = sum(item.net for _, items in sales for item in items)
    refunded = sum(item.net for _, items in returns for item in items)
    return {
        "minute": minute,
        "scope": scope,
        "country": country if slash else None,
        "category": category if slash else None,
        "version": len(inside),
        "orders": len(sales),
        "returns": len(returns),
        "units": sum(event.sign * item.quantity for event, items in inside for item in items),
        "sales_minor": sold,
        "refunded_minor": refunded,
        "revenue_minor": sold - refunded,
        "stale": False,
    }


def store_rollups(rollups: Sequence[dict[str, Any]], s3: Any, bucket: str, prefix: str = "") -> None:
    """Writes rollups as one extent of their stream."""
    rows = [
        rollup | {"stream": ROLLUPS, "partition": "0", "position": position_text(number), "accepted_at": AS_OF}
        for number, rollup in enumerate(rollups)
    ]
    if rows:
        _store_table(pa.Table.from_pylist(rows, schema=ROLLUPS_SCHEMA), "rollups", ROLLUPS, s3, bucket, prefix)


def store_letters(letters: Sequence[tuple[str, int, str]], s3: Any, bucket: str, prefix: str = "") -> None:
    """Writes dead letters (partition, position, reason) as one extent of their stream."""
    table = pa.Table.from_pylist(
        [
            {
                "stream": STREAM,
                "partition": partition,
                "position": position_text(position),
                "broker_time": AS_OF,
                "key": b"o-refused",
                "reason": reason,
                "detail": "it was refused",
                "raw": b"{",
                "raw_bytes": 1,
                "raw_sha256": hashlib.sha256(b"{").hexdigest(),
                "archived_stream": LETTERS,
                "archived_partition": "0",
                "archived_position": position_text(number),
                "archived_at": AS_OF,
            }
            for number, (partition, position, reason) in enumerate(letters)
        ],
        schema=LETTERS_SCHEMA,
    )
    _store_table(table, "dead-letters", LETTERS, s3, bucket, prefix)


def _store_table(table: "pa.Table", folder: str, stream: str, s3: Any, bucket: str, prefix: str) -> None:
    """One object, a row a message, as the only extent of a stream."""
    body = encode(table)
    key = f"{folder}/dt=2026-11-20/{stream}+0+{position_text(0)}.parquet"
    s3.put_object(Bucket=bucket, Key=prefix + key, Body=body)
    count = table.num_rows
    marker = {
        "stream": stream,
        "partition": "0",
        "after": None,
        "end": position_text(count - 1),
        "read": count,
        "stored": count,
        "rejected": 0,
        "objects": [
            {"key": key, "rows": count, "orders": count, "bytes": len(body), "checksum": checksum_of(body)},
        ],
    }
    s3.put_object(Bucket=bucket, Key=f"{prefix}_extents/{stream}/0/origin.done", Body=json.dumps(marker))


def _store_extent(s3: Any, bucket: str, prefix: str, world: World, extent: tuple[str, int | None, int]) -> None:
    """Writes one extent (partition, after, end): its pin, its objects, its marker."""
    partition, after, end = extent
    begin = -1 if after is None else after
    inside = [e for e in world.events if e.partition == partition and begin < e.position <= end]
    malformed = [place for place in world.malformed.get(partition, ()) if begin < place <= end]
    by_hour: dict[str, list[Event]] = defaultdict(list)
    for event in sorted(inside, key=lambda event: event.position):
        by_hour[datetime.fromtimestamp(event.event_ms // 1000, UTC).strftime("dt=%Y-%m-%d/hour=%H")].append(event)
    manifest = {
        "stream": STREAM,
        "partition": partition,
        "after": None if after is None else position_text(after),
        "end": position_text(end),
    }
    s3.put_object(
        Bucket=bucket, Key=f"{prefix}_extents/{STREAM}/{partition}/head", Body=json.dumps({"end": manifest["end"]})
    )
    name = "origin" if after is None else position_text(after)
    folder = f"{prefix}_extents/{STREAM}/{partition}"
    s3.put_object(Bucket=bucket, Key=f"{folder}/{name}.json", Body=json.dumps(manifest | {"encoder": "1", "schema": 1}))
    objects = []
    for hour, events in by_hour.items():
        key = f"orders/{hour}/{STREAM}+{partition}+{position_text(events[0].position)}.parquet"
        table = rows(events)
        body = encode(table)
        s3.put_object(Bucket=bucket, Key=prefix + key, Body=body)
        objects.append(
            {
                "key": key,
                "rows": table.num_rows,
                "orders": len(events),
                "bytes": len(body),
                "checksum": checksum_of(body),
            }
        )
    done: dict[str, Any] = manifest | {
        "read": len(inside) + len(malformed),
        "stored": len(inside),
        "rejected": len(malformed),
    }
    done |= {"rejected_at": [position_text(place) for place in sorted(malformed)]}
    s3.put_object(Bucket=bucket, Key=f"{folder}/{name}.done", Body=json.dumps(done | {"objects": objects}))


def checksum_of(body: bytes) -> str:
    """What a marker holds of an object."""
    return xxhash.xxh3_128_hexdigest(body)


def encode(table: "pa.Table") -> bytes:
    file = io.BytesIO()
    pq.write_table(table, file, compression="zstd")
    return file.getvalue()


def lines_of(body: bytes) -> list[dict[str, Any]]:
    """The rows of a Parquet object."""
    lines: list[dict[str, Any]] = pq.read_table(pa.BufferReader(body)).to_pylist()
    return lines


def table_of(lines: list[dict[str, Any]]) -> "pa.Table":
    """Rows as the layout has them."""
    return pa.Table.from_pylist(lines, schema=SCHEMA)


def rows(events: Iterable[Event]) -> "pa.Table":
    """The order lines as the layout has them."""
    lines = [
        {
            "order_id": event.order_id,
            "type": event.type,
            "event_time": event.event_ms,
            "customer_id": event.customer_id,
            "country": event.country,
            "region": REGION_OF[event.country],
            "currency": CURRENCY,
            "original_order_id": None,
            "line": number,
            "product_id": item.product_id,
            "product_name": item.product_name,
            "category": item.category,
            "quantity": event.sign * item.quantity,
            "unit_amount": item.unit_amount,
            "discount_percent": item.discount_percent,
            "unit_cost": item.unit_cost,
            "gross_amount": event.sign * item.gross,
            "discount_amount": event.sign * item.discount,
            "net_amount": event.sign * item.net,
            "profit_amount": None
            if item.unit_cost is None
            else event.sign * (item.net - item.quantity * item.unit_cost),
            "stream": STREAM,
            "partition": event.partition,
            "position": position_text(event.position),
            "accepted_at": event.event_ms + 250,
        }
        for event in events
        for number, item in enumerate(event.items, start=1)
    ]
    return table_of(lines)


SCHEMA = pa.schema(
    [
        pa.field("order_id", pa.string()),
        pa.field("type", pa.string()),
        pa.field("event_time", pa.timestamp("ms")),
        pa.field("customer_id", pa.int64()),
        pa.field("country", pa.string()),
        pa.field("region", pa.string()),
        pa.field("currency", pa.string()),
        pa.field("original_order_id", pa.string()),
        pa.field("line", pa.int32()),
        pa.field("product_id", pa.string()),
        pa.field("product_name", pa.string()),
        pa.field("category", pa.string()),
        pa.field("quantity", pa.int64()),
        pa.field("unit_amount", pa.int64()),
        pa.field("discount_percent", pa.int32()),
        pa.field("unit_cost", pa.int64()),
        pa.field("gross_amount", pa.int64()),
        pa.field("discount_amount", pa.int64()),
        pa.field("net_amount", pa.int64()),
        pa.field("profit_amount", pa.int64()),
        pa.field("stream", pa.string()),
        pa.field("partition", pa.string()),
        pa.field("position", pa.string()),
        pa.field("accepted_at", pa.timestamp("ms")),
    ]
)


ROLLUPS_SCHEMA = pa.schema(
    [
        pa.field("minute", pa.timestamp("ms")),
        pa.field("scope", pa.string()),
        pa.field("country", pa.string()),
        pa.field("category", pa.string()),
        *(pa.field(name, pa.int64()) for name in ("version", "orders", "returns", "units")),
        *(pa.field(name, pa.int64()) for name in ("sales_minor", "refunded_minor", "revenue_minor")),
        pa.field("stale", pa.bool_()),
        pa.field("stream", pa.string()),
        pa.field("partition", pa.string()),
        pa.field("position", pa.string()),
        pa.field("accepted_at", pa.timestamp("ms")),
    ]
)


LETTERS_SCHEMA = pa.schema(
    [
        pa.field("stream", pa.string()),
        pa.field("partition", pa.string()),
        pa.field("position", pa.string()),
        pa.field("broker_time", pa.timestamp("ms")),
        pa.field("key", pa.binary()),
        pa.field("reason", pa.string()),
        pa.field("detail", pa.string()),
        pa.field("raw", pa.binary()),
        pa.field("raw_bytes", pa.int64()),
        pa.field("raw_sha256", pa.string()),
        pa.field("archived_stream", pa.string()),
        pa.field("archived_partition", pa.string()),
        pa.field("archived_position", pa.string()),
        pa.field("archived_at", pa.timestamp("ms")),
    ]
)


def _rankings(inside: Sequence[Event], top_k: int) -> dict[str, dict[str, int]]:
    totals: dict[str, dict[str, int]] = {"units": defaultdict(int), "revenue": defaultdict(int)}
    for event in inside:
        for item in event.items:
            totals["units"][item.product_id] += event.sign * item.quantity
            totals["revenue"][item.product_id] += event.sign * item.net
    return {
        measure: dict(sorted(members.items(), key=lambda pair: (pair[1], pair[0].encode()), reverse=True)[:top_k])
        for measure, members in totals.items()
    }


def _groups(inside: Sequence[Event], group: str) -> dict[str, dict[str, int]]:
    totals: dict[str, dict[str, int]] = {name: defaultdict(int) for name in ("units", "revenue", "orders")}
    for event in inside:
        labels = set()
        for item in event.items:
            label = {"category": item.category, "region": REGION_OF[event.country], "country": event.country}[group]
            labels.add(label)
            totals["units"][label] += event.sign * item.quantity
            totals["revenue"][label] += event.sign * item.net
        for label in labels:
            totals["orders"][label] += event.type == "sale"
    return totals


def _aov(inside: Sequence[Event], start: int, end: int, as_of: int) -> dict[str, str]:
    sales = [event for event in inside if event.type == "sale"]
    returns = [event for event in inside if event.type == "return"]
    sold = sum(item.net for event in sales for item in event.items)
    refunded = sum(item.net for event in returns for item in event.items)
    fields = {
        "orders": str(len(sales)),
        "sales_minor": str(sold),
        "returns": str(len(returns)),
        "refunded_minor": str(refunded),
        "revenue_minor": str(sold - refunded),
        "units": str(sum(event.sign * item.quantity for event in inside for item in event.items)),
        "revenue": f"{Decimal(sold - refunded) / 100:.2f}",
        "window_start": time_text(start),
        "window_end": time_text(end),
        "as_of": time_text(as_of),
        "currency": CURRENCY,
    }
    if sales:
        average = int((Decimal(sold) / len(sales)).quantize(Decimal(1), ROUND_HALF_UP))
        fields |= {"aov_minor": str(average), "aov": f"{Decimal(average) / 100:.2f}"}
    return fields


def _trends(events: Iterable[Event], start: int, as_of: int) -> dict[str, dict[str, str]]:
    cells: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for event in events:
        minute = event.event_ms - event.event_ms % 60_000
        if minute < start or minute > as_of:
            continue
        for place in ("", f"region:{REGION_OF[event.country]}:"):
            text = time_text(minute)
            cells[f"trend:{place}units"][text] += sum(event.sign * item.quantity for item in event.items)
            cells[f"trend:{place}revenue"][text] += sum(event.sign * item.net for item in event.items)
            cells[f"trend:{place}orders"][text] += event.type == "sale"
    return {key: {minute: str(value) for minute, value in cell.items()} for key, cell in cells.items()}


def _names(counted: Iterable[Event], shown: set[str]) -> dict[str, str]:
    names: dict[str, str] = {}
    for event in sorted(counted, key=lambda event: (event.event_ms, event.position, event.partition)):
        for item in event.items:
            if item.product_id in shown:
                names[item.product_id] = item.product_name
    return names


def _is_conflict(event: Event, counted: Iterable[Event]) -> bool:
    for first in counted:
        if (first.order_id, first.event_ms) == (event.order_id, event.event_ms):
            return replace(first, position=event.position) != event
    return False
