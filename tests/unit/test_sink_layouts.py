"""Messages become the rows that the contract names, in the folders it names, as the same objects every time."""

import base64
import datetime
import random
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sales import dead_letters, rollups
from sales.countries import REGION_OF
from sales.rejections import Rejection
from sales.rollups import Rollup
from sales.streams import Chunk
from sales.streams.packed import pack
from sink import parquet
from sink.layouts import Layout, Rows
from sink.messages import dead_letters_layout, rollups_layout
from sink.orders import OrdersTable, orders_layout
from support.sinking import EVENT_TIME, HOUR_MS, RULES, STREAM, a_chunk, a_line, an_order
from support.world import SCHEMA

DIGITS = 20


def orders() -> OrdersTable:
    return orders_layout(RULES, REGION_OF, STREAM, DIGITS)


def objects_of(layout: Layout[Any], *chunks: Chunk) -> list[Rows]:
    """What becomes of some chunks of one partition."""
    return list(layout.objects("0", [layout.hold(pack(chunk)).content for chunk in chunks]))


def rows_of(layout: Layout[Any], *values: bytes, **chunk: Any) -> list[dict[str, Any]]:
    """What stands in the objects that these messages make."""
    found = []
    for rows in objects_of(layout, a_chunk(values, **chunk)):
        found += pq.read_table(pa.BufferReader(parquet.encode(layout, rows.groups))).to_pylist()
    return found


def test_an_order_line_has_every_column_of_the_contract() -> None:
    [row] = rows_of(orders(), an_order(), positions=[41])
    at = datetime.datetime(2026, 11, 20, 6, 52, 33, 123_000)  # noqa: DTZ001 (UTC without a zone is the contract)
    assert row == {
        "order_id": "o-1",
        "type": "sale",
        "event_time": at,
        "customer_id": 17850,
        "country": "GB",
        "region": "Europe",
        "currency": "USD",
        "original_order_id": None,
        "line": 1,
        "product_id": "85123A",
        "product_name": "White hanging heart",
        "category": "Home",
        "quantity": 6,
        "unit_amount": 255,
        "discount_percent": 10,
        "unit_cost": 140,
        "gross_amount": 1530,
        "discount_amount": 153,
        "net_amount": 1377,
        "profit_amount": 537,
        "stream": STREAM,
        "partition": "0",
        "position": "00000000000000000041",
        "accepted_at": at,
    }


def test_the_columns_and_types_are_those_that_readers_were_promised() -> None:
    layout = orders()
    [rows] = objects_of(layout, a_chunk([an_order()]))
    assert pq.read_schema(pa.BufferReader(parquet.encode(layout, rows.groups))).equals(SCHEMA)


def test_amounts_and_quantities_of_a_return_are_negative_and_its_unit_amounts_are_not() -> None:
    [row] = rows_of(orders(), an_order(type="return", original_order_id="o-0"))
    assert (row["quantity"], row["gross_amount"], row["discount_amount"], row["net_amount"]) == (-6, -1530, -153, -1377)
    assert (row["profit_amount"], row["unit_amount"], row["unit_cost"]) == (-537, 255, 140)
    assert row["original_order_id"] == "o-0"


def test_profit_and_cost_are_missing_where_no_cost_is_known() -> None:
    line = a_line()
    del line["unit_cost"]
    rows = rows_of(orders(), an_order(lines=[line, a_line()], customer_id=None))
    assert [(row["line"], row["unit_cost"], row["profit_amount"]) for row in rows] == [(1, None, None), (2, 140, 537)]
    assert rows[0]["customer_id"] is None


def test_rows_lie_in_the_folder_of_their_event_hour_under_the_first_position_there() -> None:
    layout = orders()
    values = [an_order("a"), an_order("b", event_time=EVENT_TIME - HOUR_MS), an_order("c"), b"{", an_order("d")]
    piece = layout.hold(pack(a_chunk(values, positions=[3, 5, 8, 9, 12])))
    found = [(rows.folder, rows.first_position[-2:], rows.orders) for rows in layout.objects("0", [piece.content])]
    assert found == [("orders/dt=2026-11-20/hour=05/", "05", 1), ("orders/dt=2026-11-20/hour=06/", "03", 3)]
    assert piece.rejected == [9]


def test_an_extent_of_malformed_messages_alone_has_no_object() -> None:
    layout = orders()
    piece = layout.hold(pack(a_chunk([b"{", b"[]"])))
    assert (list(layout.objects("0", [piece.content])), piece.rejected) == ([], [7, 10])


def test_the_same_messages_make_the_same_objects_however_they_were_cut_into_chunks() -> None:
    dice = random.Random(5)  # noqa: S311 (a seed makes the orders the same each time)
    values = [
        an_order(
            f"o-{number}",
            event_time=EVENT_TIME - dice.randrange(3) * HOUR_MS,
            country=dice.choice(["GB", "FR", "US"]),
            customer_id=dice.choice([None, 1, 2]),
            lines=[a_line(product_id=f"p{dice.randrange(9)}") for _ in range(dice.randrange(1, 4))],
        )
        for number in range(60)
    ]
    positions = list(range(100, 160))

    def objects(cuts: list[int]) -> list[tuple[str, bytes]]:
        edges = [0, *sorted(cuts), len(values)]
        chunks = [a_chunk(values[a:b], positions=positions[a:b]) for a, b in pairwise(edges)]
        layout = orders()  # with dictionaries of its own
        return [(rows.folder, parquet.encode(layout, rows.groups).to_pybytes()) for rows in objects_of(layout, *chunks)]

    whole = objects([])
    assert len(whole) == 3
    for _ in range(5):
        assert objects([dice.randrange(61) for _ in range(dice.randrange(1, 9))]) == whole


def test_a_rollup_becomes_a_row_of_its_day_and_what_is_none_is_counted() -> None:
    layout = rollups_layout("sales-rollups-0badcafe", DIGITS)
    rollup = Rollup(
        minute="2026-11-20T06:52:00.000Z", scope="GB/Home", country="GB", category="Home", version=3, orders=2, units=5,
        sales_minor=900, revenue_minor=900,
    )  # fmt: skip
    values = [
        rollups.encode(rollup)[1],
        b"{}",
        rollups.encode(Rollup(minute="soon", scope="all", version=1))[1],
        rollups.encode(Rollup(minute="2026-11-20T06:52:00.000Z", scope="all", version=2**70))[1],
        rollups.encode(Rollup(minute="2026-11-20T06:52:00.000Z", scope="all", version=1, stale=True))[1],
    ]
    piece = layout.hold(pack(a_chunk(values)))
    [rows] = layout.objects("0", [piece.content])
    [table] = rows.groups
    first, last = table.to_pylist()
    assert (rows.folder, rows.orders, piece.rejected) == ("rollups/dt=2026-11-20/", 2, [10, 13, 16])
    assert first["minute"] == datetime.datetime(2026, 11, 20, 6, 52)  # noqa: DTZ001 (UTC without a zone)
    assert (first["scope"], first["version"], first["revenue_minor"], first["stale"]) == ("GB/Home", 3, 900, False)
    assert (last["country"], last["stale"]) == (None, True)


def test_a_dead_letter_keeps_its_bytes_its_own_place_and_that_of_the_message_it_is_about() -> None:
    layout = dead_letters_layout("orders-dead-letters-0badcafe", DIGITS)
    rejection = Rejection(41, EVENT_TIME, b"k", b"\xff{", "json", "the message is no JSON")
    letter = dead_letters.dead_letter(rejection, stream=STREAM, partition="3", position="00000000000000000041")
    broken = dead_letters.encode(letter)[1].replace(base64.b64encode(b"\xff{"), b"*")
    piece = layout.hold(pack(a_chunk([dead_letters.encode(letter)[1], broken], positions=[8, 9])))
    [rows] = layout.objects("0", [piece.content])
    [table] = rows.groups
    [row] = table.to_pylist()
    assert (rows.folder, piece.rejected) == ("dead-letters/dt=2026-11-20/", [9])
    assert (row["stream"], row["partition"], row["position"]) == (STREAM, "3", "00000000000000000041")
    assert (row["raw"], row["raw_bytes"], row["key"], row["reason"]) == (b"\xff{", 2, b"k", "json")
    assert (row["archived_stream"], row["archived_position"]) == (
        "orders-dead-letters-0badcafe",
        "00000000000000000008",
    )


@pytest.mark.parametrize("make", [rollups_layout, dead_letters_layout])
def test_what_is_nested_too_deep_is_malformed_like_anything_else(make: Callable[[str, int], Layout[Any]]) -> None:
    deep = b'{"a":' * 50_000 + b"1" + b"}" * 50_000
    run = pack(Chunk("0", [None, None], [deep, b"[" * 50_000], [7, 10], [EVENT_TIME] * 2))
    assert make("a-1", DIGITS).hold(run).rejected == [7, 10]
