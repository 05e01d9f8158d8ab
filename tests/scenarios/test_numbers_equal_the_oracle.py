"""Whatever arrives, in whatever order, cut however, crashed wherever: every number equals a brute-force oracle.

The oracle is written from the contract alone and shares no code with what it checks.
"""

import json
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from processor.crossing import Arrivals, Departures
from processor.dataflow import SnapshotLog
from processor.dedup import Dedup, Verdict, identities
from processor.journal import Journal
from processor.numbers import Numbers
from processor.panes import Origin
from processor.tiers import summarising
from sales.board import Keys, Tick
from sales.columnar import columns as c
from sales.columnar.decoding import Decoder, Secrets
from sales.countries import REGION_OF
from sales.rules import Rules
from sales.streams import Chunk
from sales.streams.packed import pack
from sales.windows import parse_windows

BASE = 1_795_166_400_000  # 2026-11-20T08:00:00Z, a multiple of 15 minutes
WINDOWS = "1m 5m 15m 1h 24h"
# From the contract: name, length and the longest pane it allows, in ms.
ORACLE_WINDOWS = [
    ("1m", 60_000, 1_000),
    ("5m", 300_000, 5_000),
    ("15m", 900_000, 15_000),
    ("1h", 3_600_000, 60_000),
    ("24h", 86_400_000, 900_000),
]
REGIONS = {"GB": "Europe", "DE": "Europe", "US": "Americas", "JP": "Asia", "ZZ": "Unknown"}
PARTITIONS = 3
RULES = Rules("USD", REGION_OF.keys())
TOP_K = 3


# ---------------------------------------------------------------------------------------------------------- the world


@dataclass(frozen=True)
class Event:
    """One message: an order as a producer sends it, or rubbish."""

    order_id: str
    event_time: int
    type: str
    country: str
    lines: tuple[tuple[str, str, str, int, int, int], ...]
    """product, name, category, quantity, unit amount, discount percent"""
    escaped: bool = False
    """written with \\u escapes where a text is not ASCII"""
    spoilt: str = ""
    """the field that breaks the contract, if one does"""

    @property
    def partition(self) -> int:
        return sum(self.order_id.encode()) % PARTITIONS

    def value(self) -> bytes:
        second, ms = divmod(self.event_time, 1000)
        text = np.datetime_as_string(np.datetime64(second, "s")) + f".{ms:03d}Z"
        order = {
            "schema": 1,
            "type": self.type,
            "order_id": self.order_id,
            "event_time": str(text),
            "country": self.country,
            "currency": "EUR" if self.spoilt == "currency" else "USD",
            "lines": [
                {
                    "product_id": product + "x" * 257 * (self.spoilt == "product_id"),
                    "product_name": name + "x" * 1025 * (self.spoilt == "product_name"),
                    "category": category + "x" * 257 * (self.spoilt == "category"),
                    "quantity": quantity,
                    "unit_amount": amount,
                    "discount_percent": percent,
                }
                for product, name, category, quantity, amount, percent in self.lines
            ],
        }
        return json.dumps(order, ensure_ascii=self.escaped).encode()


LINES = st.tuples(
    st.sampled_from(["p1", "p2", "p10", "é", "z" * 256]),
    st.sampled_from(["one", "two", "three"]),
    st.sampled_from(["Home", "", "Garden/Out", "🧺" * 256]),
    st.integers(1, 5),
    st.integers(0, 999),
    st.sampled_from([0, 10, 33, 100]),
)
# Close together, at the edges of panes and windows, some minutes and some hours back, and a little ahead.
TIMES = st.one_of(
    st.sampled_from([0, 1, 999, 1_000, 59_999, 60_000, -1, -60_000, -60_001, -300_000, -900_000, -3_600_000]),
    st.integers(-3_700_000, 120_000),
    st.integers(-90_000_000, 0),
)
EVENTS = st.builds(
    Event,
    order_id=st.sampled_from([f"o{number}" for number in range(12)]),
    event_time=TIMES.map(lambda offset: BASE + offset),
    type=st.sampled_from(["sale", "sale", "sale", "return"]),
    country=st.sampled_from(list(REGIONS)),
    lines=st.lists(LINES, min_size=1, max_size=4).map(tuple),
    escaped=st.booleans(),
    spoilt=st.sampled_from([""] * 16 + ["currency", "product_id", "product_name", "category"]),
)


# --------------------------------------------------------------------------------------------------------- the oracle


@dataclass
class Expected:
    zsets: dict[str, list[tuple[str, int]]] = field(default_factory=dict)
    aov: dict[str, dict[str, str]] = field(default_factory=dict)
    trend: dict[str, dict[str, int]] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)


def net_of(line: tuple[str, str, str, int, int, int]) -> int:
    gross = Decimal(line[3] * line[4])
    discount = (gross * line[5] / 100).quantize(Decimal(1), rounding=ROUND_HALF_UP)
    return int(gross - discount)


def accepted_of(logs: list[list[Event]]) -> list[tuple[int, Event]]:
    """(position, event) of what counts: the first of each identity."""
    accepted = []
    for log in logs:
        seen: set[tuple[str, int]] = set()
        for position, event in enumerate(log):
            if not event.spoilt and (event.order_id, event.event_time) not in seen:
                seen.add((event.order_id, event.event_time))
                accepted.append((position, event))
    return accepted


def iso(ms: int) -> str:
    return f"{np.datetime_as_string(np.datetime64(ms, 'ms'))}Z"


def oracle(logs: list[list[Event]], as_of: int) -> Expected:
    expected = Expected()
    accepted = accepted_of(logs)
    shown: set[str] = set()
    for window, length, pane in ORACLE_WINDOWS:
        end = as_of // pane * pane + pane
        start = end - length
        inside = [event for _, event in accepted if start <= event.event_time < end]
        sums: dict[tuple[str, str], dict[str, int]] = {
            (group, measure): defaultdict(int)
            for group in ("product", "category", "region", "country")
            for measure in ("units", "revenue", "orders")
        }
        totals: dict[str, int] = defaultdict(int)
        for event in inside:
            sign = 1 if event.type == "sale" else -1
            places = [("region", REGIONS[event.country]), ("country", event.country)]
            for line in event.lines:
                for group, name in [("product", line[0]), ("category", line[2]), *places]:
                    sums[group, "units"][name] += sign * line[3]
                    sums[group, "revenue"][name] += sign * net_of(line)
                totals["units"] += sign * line[3]
                totals["sales_minor" if sign > 0 else "refunded_minor"] += net_of(line)
            totals["orders" if sign > 0 else "returns"] += 1
            for group, name in [*{("category", line[2]) for line in event.lines}, *places]:
                sums[group, "orders"][name] += sign > 0
        for (group, measure), values in sums.items():
            if (group, measure) != ("product", "orders"):
                best = sorted(values.items(), key=lambda item: (item[1], item[0].encode()), reverse=True)
                expected.zsets[f"sales:{window}:{group}:{measure}"] = best[:TOP_K] if group == "product" else best
                shown.update(name for name, _ in best[:TOP_K] if group == "product")
        aov = {name: str(totals[name]) for name in ("orders", "sales_minor", "returns", "refunded_minor", "units")}
        aov["revenue_minor"] = str(totals["sales_minor"] - totals["refunded_minor"])
        aov["window_start"], aov["window_end"] = iso(start), iso(end)
        if totals["orders"]:
            average = Decimal(totals["sales_minor"]) / totals["orders"]
            aov["aov_minor"] = str(average.quantize(Decimal(1), rounding=ROUND_HALF_UP))
        expected.aov[f"sales:{window}:aov"] = aov
        oldest = start
    for _, event in accepted:
        minute = event.event_time // 60_000 * 60_000
        if oldest <= event.event_time and minute <= as_of:
            sign = 1 if event.type == "sale" else -1
            for place in ("", f"region:{REGIONS[event.country]}:"):
                for measure, value in (
                    ("units", sign * sum(line[3] for line in event.lines)),
                    ("revenue", sign * sum(map(net_of, event.lines))),
                    ("orders", int(sign > 0)),
                ):
                    trend = expected.trend.setdefault(f"sales:trend:{place}{measure}", {})
                    trend[iso(minute)] = trend.get(iso(minute), 0) + value
    latest: dict[str, tuple[int, int, int, int]] = {}
    for position, event in accepted:
        if event.event_time >= oldest:
            for number, line in enumerate(event.lines):
                rank = (event.event_time, position, event.partition, number)
                if line[0] in shown and rank >= latest.get(line[0], (0, 0, 0, 0)):
                    latest[line[0]] = rank
                    expected.names[line[0]] = line[1]
    return expected


# -------------------------------------------------------------------------------------------- the processor, in pieces


class Recovery:
    """Stands for the recovery directory: has no opinion."""

    def note_snapshot(self) -> None: ...

    def must_resume(self, *, found: bool, what: str) -> None: ...


class Machine:
    """The processor's parts put together by hand, with a place where a crash can be told to happen."""

    def __init__(self, folder: Path, logs: list[list[Event]], clock: str, *, compiled: bool) -> None:
        self.folder, self.logs, self.clock, self.compiled = folder, logs, clock, compiled
        self.durable: tuple[list[int], object] | None = None
        self.start()

    def start(self) -> None:
        positions, place = self.durable or ([0] * PARTITIONS, None)
        self.next = list(positions)
        self.dedup = Dedup(Journal(self.folder / "identities"), horizon_ms=90_000_000, resident_bytes=3000)
        self.decoder = Decoder(RULES, Secrets.of(7), compiled=self.compiled)
        self.summarise = summarising(compiled=self.compiled)
        self.numbers = Numbers(
            windows=parse_windows(WINDOWS),
            keys=Keys("sales:"),
            top_k=TOP_K,
            currency="USD",
            region_of=REGION_OF,
            clock=self.clock,
        )
        self.departures, self.arrivals = Departures(1), Arrivals()
        self.log = SnapshotLog(Journal(self.folder / "numbers"), Recovery(), self.numbers, place)  # type: ignore[arg-type]
        # Elsewhere a journal is begun anew after an hour; here with every second snapshot.
        self.log.SMALLEST_SEGMENT, self.log.SNAPSHOTS_APART = 0, 2

    def read(self, partition: int, count: int) -> None:
        events = self.logs[partition][self.next[partition] : self.next[partition] + count]
        if not events:
            return
        positions = list(range(self.next[partition], self.next[partition] + len(events)))
        keys: list[bytes | None] = [event.order_id.encode() for event in events]
        values = [event.value() for event in events]
        run = pack(Chunk(str(partition), keys, values, positions, [BASE + 86_400_000] * len(events)))
        decoded = self.decoder.decode([run])
        columns, words = decoded.columns, decoded.columns.orders.view(np.uint64)
        times, marks = columns.orders[c.EVENT_TIME], np.array(positions, dtype=np.uint64)[columns.orders[c.ROW]]
        entries = identities(words[c.ID_LOW], words[c.ID_HIGH], times, self.decoder.contents(columns), marks)
        accepted = columns.take(self.dedup.admit(times, entries) == Verdict.ACCEPTED)
        origin = Origin(f"orders/{partition}", positions, position_digits=20)
        partial = self.summarise(accepted, self.decoder.dictionaries, [origin])
        if partition % 2:  # comes from another process, as every second slot does where there are two
            partial = self.arrivals.partial(self.departures.crossed(partial))
        self.numbers.apply(partial)
        self.numbers.take_rollups(0)
        self.next[partition] += len(events)

    def snapshot(self) -> None:
        self.dedup.sync()
        place, _ = self.log.save()
        self.durable = (list(self.next), place)

    def crash(self) -> None:
        self.start()


@contextmanager
def machine(logs: list[list[Event]], clock: str, *, compiled: bool) -> Iterator[Machine]:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr("processor.dedup._SEGMENT_BYTES", 200)
        yield Machine(Path(folder), logs, clock, compiled=compiled)


def content(tick: Tick, board: dict[str, dict[str, str]]) -> Expected:
    """What a reader of Redis would see, in the oracle's shape."""
    seen = Expected(names=tick.hashes["sales:products"])
    for key, members in tick.zsets.items():
        seen.zsets[key] = sorted(members.items(), key=lambda item: (item[1], item[0].encode()), reverse=True)
    for key, fields in tick.hashes.items():
        if key.endswith(":aov"):
            left_out = ("as_of", "currency", "revenue", "aov")
            seen.aov[key] = {name: value for name, value in fields.items() if name not in left_out}
    for key, patch in tick.patches.items():
        fields = board.setdefault(key, {})
        for name, value in patch.items():
            if value is None:
                fields.pop(name, None)
            else:
                fields[name] = value
    seen.trend = {key: {name: int(value) for name, value in fields.items()} for key, fields in board.items() if fields}
    return seen


# ---------------------------------------------------------------------------------------------------------- the claims

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("read"), st.integers(0, PARTITIONS - 1), st.integers(1, 6)),
        st.tuples(st.just("advance"), st.integers(0, 5_000_000), st.just(0)),
        st.tuples(st.just("snapshot"), st.just(0), st.just(0)),
        st.tuples(st.just("crash"), st.just(0), st.just(0)),
    ),
    max_size=12,
)
BOTH_TIERS = pytest.mark.parametrize("compiled", [True, False], ids=["compiled", "plain"])
BOUNDED = settings(max_examples=400)


def logs_of(events: list[Event], repeated: list[int]) -> list[list[Event]]:
    logs: list[list[Event]] = [[] for _ in range(PARTITIONS)]
    for event in [*events, *(events[index % len(events)] for index in repeated if events)]:
        logs[event.partition].append(event)
    return logs


@BOTH_TIERS
@BOUNDED
@given(events=st.lists(EVENTS, min_size=1, max_size=25), repeated=st.lists(st.integers(0, 99), max_size=6), steps=STEPS)
def test_with_the_event_clock_every_number_equals_the_oracle(
    events: list[Event], repeated: list[int], steps: list[tuple[str, int, int]], compiled: bool
) -> None:
    logs = logs_of(events, repeated)
    with machine(logs, "event", compiled=compiled) as processor:
        for step, partition, count in [*steps, *(("read", partition, 99) for partition in range(PARTITIONS))]:
            if step == "read":
                processor.read(partition, count)
            elif step == "snapshot":
                processor.snapshot()
            elif step == "crash":
                processor.crash()
        accepted = accepted_of(logs)
        tick = processor.numbers.tick(0)
        if not accepted:
            assert tick is None
            return
        assert tick is not None
        as_of = max(event.event_time for _, event in accepted)
        assert tick.as_of == iso(as_of)
        assert content(tick, {}) == oracle(logs, as_of)


@BOTH_TIERS
@BOUNDED
@given(
    events=st.lists(EVENTS, min_size=1, max_size=25),
    repeated=st.lists(st.integers(0, 99), max_size=6),
    steps=STEPS,
    later=st.sampled_from([0, 1, 999, 60_000, 3_600_000, 90_000_000]),
)
@example(
    events=[Event("o1", BASE + 60_000, "sale", "GB", (("p1", "one", "Home", 1, 1, 0),))], repeated=[], steps=[], later=0
)
def test_with_the_clock_on_the_wall_every_tick_equals_the_oracle(
    events: list[Event], repeated: list[int], steps: list[tuple[str, int, int]], later: int, compiled: bool
) -> None:
    logs = logs_of(events, repeated)
    with machine(logs, "wall", compiled=compiled) as processor:
        now, board = BASE, dict[str, dict[str, str]]()
        finally_ = [("read", partition, 99) for partition in range(PARTITIONS)] + [("advance", later, 0)]
        for step, argument, count in [("advance", 0, 0), *steps, *finally_]:
            if step == "read":
                processor.read(argument, count)
            elif step == "snapshot":
                processor.snapshot()
            elif step == "crash":
                processor.crash()
                processor.numbers.advance(now)
                board = {}
            elif step == "advance":
                now += argument
                processor.numbers.advance(now)
            tick = processor.numbers.tick(0)
            assert tick is not None
            applied = [log[: processor.next[partition]] for partition, log in enumerate(logs)]
            assert content(tick, board) == oracle(applied, now)
