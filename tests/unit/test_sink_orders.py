"""Whatever orders come, and however they are held, the objects hold each line of each with what the contract says."""

import json
import secrets
from collections import defaultdict
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sales.columnar import decoding
from sales.columnar.decoding import Decoder, Secrets
from sales.countries import REGION_OF
from sales.streams import Chunk
from sales.streams.packed import pack
from sink import orders, parquet
from sink.assembling import Assembly, position_texts, row_groups
from sink.orders import OrdersTable
from support.sinking import EVENT_TIME, RULES, STREAM, an_order

Order = dict[str, Any]

TIERS = [pytest.param(False, id="plain"), pytest.param(True, id="compiled")]

TEXT = st.text(st.characters(codec="utf-8"), max_size=8)
ID = st.sampled_from(["a", "b", "o-1", "o-2", "é", "x" * 64, '"', "\\u0041", "日本"])


@st.composite
def an_event(draw: st.DrawFn) -> Order:
    order: Order = {
        "schema": 1,
        "type": draw(st.sampled_from(["sale", "return"])),
        "order_id": draw(ID),
        "event_time": draw(st.integers(-3, 0)) * 3_000_000 + EVENT_TIME,
        "country": draw(st.sampled_from(["GB", "DE", "US", "FR"])),
        "currency": "USD",
        "lines": draw(st.lists(a_line(), min_size=1, max_size=4)),
    }
    if draw(st.booleans()):
        order["customer_id"] = draw(st.none() | st.integers(-(2**63), 2**63 - 1))
    if draw(st.booleans()):
        order["original_order_id"] = draw(st.none() | ID)
    return order


@st.composite
def a_line(draw: st.DrawFn) -> dict[str, Any]:
    line: dict[str, Any] = {
        "product_id": draw(st.sampled_from(["p1", "p2", "ü"]) | TEXT.filter(bool)),
        "quantity": draw(st.integers(1, 9) | st.just(10**5)),
        "unit_amount": draw(st.integers(0, 999) | st.just(10**5)),
    }
    for field, values in {
        "product_name": TEXT,
        "category": TEXT,
        "discount_percent": st.integers(0, 100),
        "unit_cost": st.none() | st.integers(0, 10**6),
    }.items():
        if draw(st.booleans()):
            line[field] = draw(values)
    return line


def time_text(ms: int) -> str:
    return f"{datetime.fromtimestamp(ms // 1000, UTC):%Y-%m-%dT%H:%M:%S}.{ms % 1000:03d}Z"


def time_of(ms: int) -> datetime:
    return datetime.fromtimestamp(ms // 1000, UTC).replace(microsecond=ms % 1000 * 1000, tzinfo=None)


def expected(order: Order, position: int, broker_time: int, digits: int) -> list[dict[str, Any]]:
    """An order's rows, by hand."""
    sign = -1 if order["type"] == "return" else 1
    rows = []
    for number, line in enumerate(order["lines"], 1):
        gross = line["quantity"] * line["unit_amount"]
        discount = (gross * line.get("discount_percent", 0) * 2 + 100) // 200
        cost = line.get("unit_cost")
        rows.append(
            {
                "order_id": order["order_id"],
                "type": order["type"],
                "event_time": time_of(order["event_time"]),
                "customer_id": order.get("customer_id"),
                "country": order["country"],
                "region": REGION_OF[order["country"]],
                "currency": "USD",
                "original_order_id": order.get("original_order_id"),
                "line": number,
                "product_id": line["product_id"],
                "product_name": line.get("product_name", ""),
                "category": line.get("category", "Uncategorised"),
                "quantity": sign * line["quantity"],
                "unit_amount": line["unit_amount"],
                "discount_percent": line.get("discount_percent", 0),
                "unit_cost": cost,
                "gross_amount": sign * gross,
                "discount_amount": sign * discount,
                "net_amount": sign * (gross - discount),
                "profit_amount": None if cost is None else sign * (gross - discount - line["quantity"] * cost),
                "stream": STREAM,
                "partition": "3",
                "position": str(position).rjust(digits, "0"),
                "accepted_at": time_of(broker_time),
            }
        )
    return rows


def a_table(*, compiled: bool, digits: int = 20) -> OrdersTable:
    decoder = Decoder(RULES, Secrets.of(secrets.randbits(128)), compiled=compiled)
    return OrdersTable(decoder, Assembly("USD", REGION_OF, STREAM, digits))


@pytest.mark.parametrize("compiled", TIERS)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    events=st.lists(an_event(), min_size=1, max_size=12),
    cuts=st.sets(st.integers(1, 11)),
    first=st.sampled_from([0, 9_998, 99_999_995, 10**18]) | st.sampled_from([10**50]),
    group=st.integers(1, 6),
    forgetful=st.booleans(),
)
def test_every_line_of_every_order_is_there_as_the_contract_has_it(
    monkeypatch: pytest.MonkeyPatch,
    compiled: bool,
    events: list[Order],
    cuts: set[int],
    first: int,
    group: int,
    forgetful: bool,
) -> None:
    monkeypatch.setattr(orders, "ROW_GROUP_ROWS", group)
    monkeypatch.setattr(decoding, "MOST_TEXTS", 2 if forgetful else 10**6)  # then dictionaries change in between
    digits = 56 if first > 2**63 else 20
    table = a_table(compiled=compiled, digits=digits)
    positions = [first + 3 * number for number in range(len(events))]
    values = [json.dumps(order | {"event_time": time_text(order["event_time"])}).encode() for order in events]
    keys: list[bytes | None] = [order["order_id"].encode() for order in events]
    broker_times = [EVENT_TIME + number for number in range(len(events))]
    edges = sorted({0, len(events)} | {cut for cut in cuts if cut < len(events)})
    pieces = []
    for start, end in pairwise(edges):
        part = slice(start, end)
        piece = table.hold(pack(Chunk("3", keys[part], values[part], positions[part], broker_times[part])))
        assert piece.rejected == []
        pieces.append(piece.content)

    wanted: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    for order, position, broker_time in zip(events, positions, broker_times, strict=True):
        hour = f"{datetime.fromtimestamp(order['event_time'] // 1000, UTC):dt=%Y-%m-%d/hour=%H}"
        wanted[f"orders/{hour}/"] += expected(order, position, broker_time, digits)

    found = {}
    for rows in table.objects("3", pieces):
        body = parquet.encode(table, rows.groups)
        file = pq.ParquetFile(pa.BufferReader(body))
        found[rows.folder] = file.read().to_pylist()
        assert rows.rows == len(found[rows.folder])
        assert rows.orders == len({row["position"] for row in found[rows.folder]})
        assert rows.first_position == found[rows.folder][0]["position"]
        sizes = [file.metadata.row_group(number).num_rows for number in range(file.num_row_groups)]
        assert all(group <= size < group + 4 for size in sizes[:-1])
    assert found == wanted
    assert list(found) == sorted(found)


@pytest.mark.parametrize("compiled", TIERS)
@pytest.mark.parametrize("twice", ['null,"original_order_id":"r0"', '"r1","original_order_id":"r0"'])
def test_of_a_name_that_comes_twice_the_last_one_counts(compiled: bool, twice: str) -> None:
    table = a_table(compiled=compiled)
    value = an_order("a", type="return", original_order_id="?").replace(b'"?"', twice.encode())
    piece = table.hold(pack(Chunk("0", [b"a"], [value], [1], [EVENT_TIME])))
    [rows] = table.objects("0", [piece.content])
    [group] = rows.groups
    assert (piece.rejected, group["original_order_id"].to_pylist()) == ([], ["r0"])


def test_small_pieces_are_held_for_what_they_take_not_for_what_is_in_them() -> None:
    table = a_table(compiled=False)
    piece = table.hold(pack(Chunk("0", [b"a"], [an_order("a")], [1], [EVENT_TIME])))
    assert piece.held > 4_000


@pytest.mark.parametrize("compiled", TIERS)
def test_long_texts_begin_new_dictionaries_and_their_rows_stay_what_they_were(
    monkeypatch: pytest.MonkeyPatch, compiled: bool
) -> None:
    monkeypatch.setattr(decoding, "MOST_TEXT_BYTES", 2_000)
    table = a_table(compiled=compiled)
    names = [f"{number:04d}".rjust(900, "x") for number in range(9)]
    seen, pieces = set(), []
    for number, name in enumerate(names):
        line = {"product_id": f"p{number}", "quantity": 1, "unit_amount": 1, "product_name": name}
        pieces.append(
            table.hold(pack(Chunk("0", [b"a"], [an_order("a", lines=[line])], [number], [EVENT_TIME]))).content
        )
        seen.add(id(pieces[-1].names.dictionary))
    [rows] = table.objects("0", pieces)
    assert [name for group in rows.groups for name in group["product_name"].to_pylist()] == names
    assert len(seen) > 2


@pytest.mark.parametrize("compiled", TIERS)
def test_the_same_orders_make_the_same_bytes_in_any_process(compiled: bool) -> None:
    def body(before: list[bytes]) -> bytes:
        """With a decoder that saw other texts first."""
        table = a_table(compiled=compiled)
        for value in before:
            table.hold(pack(Chunk("0", [b"o-1"], [value], [1], [EVENT_TIME])))
        values = [an_order("a", country="FR"), an_order("b", country="DE"), an_order("c", type="return")]
        piece = table.hold(pack(Chunk("0", [b"a", b"b", b"c"], values, [2, 3, 4], [EVENT_TIME] * 3)))
        [rows] = table.objects("0", [piece.content])
        encoded: bytes = parquet.encode(table, rows.groups).to_pybytes()
        return encoded

    others = [
        an_order(lines=[line]) for line in ({"product_id": "z", "quantity": 1, "unit_amount": 1, "category": "Q"},)
    ]
    assert body([]) == body(others)


@pytest.mark.parametrize("digits", [20, 21, 22, 23])
@given(positions=st.lists(st.integers(0, 2**63 - 1) | st.integers(0, 20_000), max_size=9))
def test_positions_are_written_with_all_their_digits(digits: int, positions: list[int]) -> None:
    wanted = [str(position).rjust(digits, "0") for position in positions]
    assert position_texts(np.array(positions, dtype=np.int64), digits).to_pylist() == wanted
    assert position_texts(np.array(positions, dtype=object), digits).to_pylist() == wanted


@given(counts=st.lists(st.integers(1, 9), min_size=1, max_size=30), most=st.integers(1, 20), data=st.data())
def test_row_groups_end_with_the_order_that_fills_them(counts: list[int], most: int, data: st.DataObject) -> None:
    first = data.draw(st.integers(0, len(counts) - 1))
    behind = data.draw(st.integers(first + 1, len(counts)))
    groups = list(row_groups(np.array(counts, dtype=np.int32), first, behind, most))
    assert [start for start, _ in groups] == [first, *(end for _, end in groups[:-1])]
    assert groups[-1][1] == behind
    for start, end in groups[:-1]:
        assert sum(counts[start : end - 1]) < most <= sum(counts[start:end])


Change = Callable[[list[dict[str, Any]]], Any]


@pytest.mark.parametrize(
    ("change", "same"),
    [
        pytest.param(lambda _rows: None, True, id="nothing"),
        pytest.param(lambda rows: rows[0].update(net_amount=1), False, id="an amount"),
        pytest.param(lambda rows: rows[0].update(customer_id=None), False, id="a value less"),
        pytest.param(lambda rows: rows[0].update(product_name=""), False, id="an empty text"),
        pytest.param(list.pop, False, id="a row less"),
        pytest.param(list.reverse, False, id="another order"),
    ],
)
def test_rows_are_compared_by_what_they_hold_not_by_how_they_were_written(change: Change, same: bool) -> None:
    table = a_table(compiled=False)
    values = [an_order("a"), an_order("b", country="FR")]
    piece = table.hold(pack(Chunk("0", [b"a", b"b"], values, [2, 3], [EVENT_TIME] * 2)))
    [rows] = table.objects("0", [piece.content])
    mine = parquet.encode(table, rows.groups)
    listed = pq.read_table(pa.BufferReader(mine)).to_pylist()
    change(listed)
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(listed, schema=table.schema), sink, compression="snappy")
    assert parquet.same_rows(table, sink.getvalue(), mine) is same


def test_what_is_no_object_of_the_table_holds_other_rows() -> None:
    table = a_table(compiled=False)
    piece = table.hold(pack(Chunk("0", [b"o-1"], [an_order()], [2], [EVENT_TIME])))
    [rows] = table.objects("0", [piece.content])
    mine = parquet.encode(table, rows.groups)
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"order_id": ["o-1"]}), sink)
    assert not parquet.same_rows(table, b"no Parquet", mine)
    assert not parquet.same_rows(table, sink.getvalue(), mine)
