"""A stored order becomes a message that the processor can't tell from the first one."""

import json
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
import xxhash
from hypothesis import HealthCheck, given, settings

from sales.columnar import columns as c
from sales.columnar.decoding import Decoded, Decoder, Secrets
from sales.countries import REGION_OF
from sales.streams.packed import Packed, pack
from sink import parquet
from sink.extents import Done, StoredObject
from sink.orders import orders_layout
from support.sinking import EVENT_TIME, HOUR_MS, RULES, STREAM, a_chunk, a_line, an_order
from tillstream.archived import ArchivedOrders
from tillstream.stored import Store, StoredError

LAYOUT = orders_layout(RULES, REGION_OF, STREAM, 20)
EVERYTHING = ""


class StoreInMemory(Store):
    """Hands out what a sink has encoded."""

    def __init__(self) -> None:
        self.bodies: dict[str, bytes] = {}

    def extent(self, chunks: Sequence[Any]) -> Done:
        """Stores some messages of partition 0, as the sink does."""
        objects = []
        for rows in LAYOUT.objects("0", [LAYOUT.hold(pack(chunk)).content for chunk in chunks]):
            key = f"{rows.folder}{STREAM}+0+{rows.first_position}.parquet"
            self.bodies[key] = body = parquet.encode(LAYOUT, rows.groups).to_pybytes()
            told = xxhash.xxh3_128_hexdigest(body)
            objects.append(StoredObject(key=key, rows=rows.rows, orders=rows.orders, bytes=len(body), checksum=told))
        end = f"{chunks[-1].positions[-1]:020d}"
        stored = sum(item.orders for item in objects)
        return Done(
            stream=STREAM, partition="0", after=None, end=end, read=stored, stored=stored, rejected=0, objects=objects
        )

    def download(self, keys: Collection[str], directory: Path, progress: Any = None) -> dict[str, Path]:  # noqa: ARG002
        there = {}
        for number, key in enumerate(keys):
            if key in self.bodies:
                there[key] = directory / f"{number}.parquet"
                there[key].write_bytes(self.bodies[key])
        return there


def read(
    store: StoreInMemory, folder: Path, *extents: Done, since: str = EVERYTHING, at_once: int = 1000
) -> list[Packed]:
    archived = ArchivedOrders(
        store, STREAM, 20, {"0": extents}, since=since, folder=folder, progress=lambda _done, _of: None
    )
    reader = archived.packed_reader({"0": None})
    runs: list[Packed] = []
    while run := reader.poll(at_once, 0):
        runs += run
    assert reader.lag() == {"0": 0}
    return runs


DECODER = Decoder(RULES, Secrets.of(7), compiled=False)


def decode(*runs: Packed) -> Decoded:
    return DECODER.decode(runs)


def meaning(decoded: Decoded) -> list[tuple[Any, ...]]:
    """Position, identity and digest of each order."""
    positions = np.concatenate([np.array(run.positions) for run in decoded.runs])
    orders, contents = decoded.columns.orders, DECODER.contents(decoded.columns)
    return [
        (int(positions[row]), *orders[[c.EVENT_TIME, c.ID_LOW, c.ID_HIGH, c.FLAGS, c.COUNTRY], at].tolist(), content)
        for at, (row, content) in enumerate(zip(orders[c.ROW].tolist(), contents.tolist(), strict=True))
    ]


TEXT = st.text(max_size=12)
AMOUNT = st.integers(0, 10**6)


@st.composite
def lines(draw: st.DrawFn) -> dict[str, Any]:
    line: dict[str, Any] = {
        "product_id": draw(st.text(min_size=1, max_size=12)),
        "quantity": draw(st.integers(1, 10**5)),
        "unit_amount": draw(AMOUNT),
    }
    optional = {
        "product_name": TEXT,
        "category": st.one_of(TEXT, st.just("Uncategorised")),
        "discount_percent": st.integers(0, 100),
        "unit_cost": st.one_of(st.none(), AMOUNT),
        "colour": TEXT,
    }
    for name in draw(st.sets(st.sampled_from(sorted(optional)))):
        line[name] = draw(optional[name])
    return dict(draw(st.permutations(list(line.items()))))


@st.composite
def orders(draw: st.DrawFn) -> bytes:
    """An order as any producer may write it."""
    moment = EVENT_TIME - draw(st.integers(0, 5 * HOUR_MS))
    order: dict[str, Any] = json.loads(
        an_order(
            draw(st.text(min_size=1, max_size=20)),
            event_time=moment,
            type=draw(st.sampled_from(["sale", "return"])),
            country=draw(st.sampled_from(["GB", "ZZ"])),
            lines=draw(st.lists(lines(), min_size=1, max_size=4)),
        )
    )
    order["event_time"] = draw(
        st.sampled_from(
            [order["event_time"], order["event_time"].replace("Z", "+00:00"), order["event_time"][:-1] + "9Z"]
        )
    )
    order["customer_id"] = draw(st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1)))
    order["original_order_id"] = draw(st.one_of(st.none(), st.text(min_size=1, max_size=12)))
    for name in draw(st.sets(st.sampled_from(["customer_id", "original_order_id"]))):
        del order[name]
    shuffled = dict(draw(st.permutations(list(order.items()))))
    return json.dumps(shuffled, ensure_ascii=draw(st.booleans()), indent=draw(st.sampled_from([None, 1]))).encode()


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
@given(values=st.lists(orders(), min_size=1, max_size=12), at_once=st.integers(1, 5))
def test_identity_and_content_are_those_of_the_first_message(tmp_path: Path, values: list[bytes], at_once: int) -> None:
    chunk = a_chunk(values)
    store = StoreInMemory()
    runs = read(store, tmp_path, store.extent([chunk]), at_once=at_once)
    assert meaning(decode(*runs)) == meaning(decode(pack(chunk)))
    again = decode(*runs)
    assert again.rejected == []


def test_what_was_refused_is_passed_over_and_positions_stay(tmp_path: Path) -> None:
    chunk = a_chunk([an_order("a"), b"{", an_order("b"), an_order("c", currency="EUR"), an_order("d")])
    store = StoreInMemory()
    [run] = read(store, tmp_path, store.extent([chunk]))
    assert [int(position) for position in run.positions] == [7, 13, 19]


def test_orders_of_many_hours_come_in_the_order_of_the_stream(tmp_path: Path) -> None:
    values = [an_order(f"o-{number}", event_time=EVENT_TIME - number % 3 * HOUR_MS) for number in range(20)]
    store = StoreInMemory()
    runs = read(store, tmp_path, store.extent([a_chunk(values)]), at_once=6)
    assert [int(position) for run in runs for position in run.positions] == [7 + 3 * number for number in range(20)]
    assert [len(run) for run in runs] == [6, 6, 6, 2]


def test_hours_that_nobody_needs_are_not_read(tmp_path: Path) -> None:
    values = [an_order("new"), an_order("old", event_time=EVENT_TIME - 2 * HOUR_MS)]
    store = StoreInMemory()
    extent = store.extent([a_chunk(values)])
    del store.bodies[next(key for key in store.bodies if "hour=04" in key)]
    [run] = read(store, tmp_path, extent, since="dt=2026-11-20/hour=05")
    assert run.key(0) == b"new"


def test_an_order_of_the_largest_size_fits_again(tmp_path: Path) -> None:
    moment = "2026-11-20T06:52:33Z"
    line = a_line(product_name="", product_id="p")
    del line["product_name"], line["unit_cost"], line["discount_percent"], line["category"]
    order = json.loads(an_order("o", event_time=EVENT_TIME, lines=[line]))
    order |= {"event_time": moment, "lines": []}
    del order["customer_id"]
    empty, one = (len(json.dumps(order | {"lines": some}, separators=(",", ":"))) for some in ([], [line]))
    order["lines"] = [line] * ((1_000_000 - empty) // (one - empty + 1))
    size = len(json.dumps(order, separators=(",", ":")))
    order["lines"][-1] = line | {"product_id": "p" * (1 + min(255, 1_000_000 - size))}
    value = json.dumps(order, separators=(",", ":")).encode()
    assert len(value) == 1_000_000
    store = StoreInMemory()
    runs = read(store, tmp_path, store.extent([a_chunk([value])]))
    assert decode(*runs).rejected == []


@pytest.mark.parametrize("fault", ["gone", "torn", "altered"])
def test_an_object_that_is_not_what_its_marker_says_is_refused(tmp_path: Path, fault: str) -> None:
    store = StoreInMemory()
    extent = store.extent([a_chunk([an_order("a"), an_order("b")])])
    [key] = store.bodies
    if fault == "gone":
        del store.bodies[key]
    elif fault == "torn":
        store.bodies[key] = store.bodies[key][:-40]
    else:
        other = StoreInMemory()
        other.extent([a_chunk([an_order("a"), an_order("b", country="DE")])])
        store.bodies[key] = other.bodies[key]
    with pytest.raises(StoredError, match="orders/dt=2026-11-20/hour=06/"):
        read(store, tmp_path, extent)
