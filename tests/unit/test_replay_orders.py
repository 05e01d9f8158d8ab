"""A file of order lines becomes orders, in the order of event time, and every row is accounted for."""

import csv
import gzip
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings

from generator import mapping, replay, table
from generator.cells import Cells
from generator.mapping import Mapping, ReplayError
from generator.replay import ReplayedOrder, Report
from sales.countries import REGION_OF
from sales.orders import decode
from sales.rules import Rules
from sales.times import format_time, parse_time

HEADER = ["InvoiceNo", "StockCode", "Description", "Quantity", "InvoiceDate", "UnitPrice", "CustomerID", "Country"]
ONLINE_RETAIL = mapping.load("online-retail")


def a_row(**changes: str) -> dict[str, str]:
    row = {
        "InvoiceNo": "536365",
        "StockCode": "85123A",
        "Description": "WHITE HANGING HEART",
        "Quantity": "6",
        "InvoiceDate": "2010-12-01 08:26:00",
        "UnitPrice": "2.55",
        "CustomerID": "17850.0",
        "Country": "United Kingdom",
    }
    return row | changes


def a_file(folder: Path, *rows: dict[str, str]) -> Path:
    path = folder / "orders.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, HEADER)
        writer.writeheader()
        writer.writerows(rows)
    return path


def replayed(
    folder: Path, *rows: dict[str, str], rules: Mapping = ONLINE_RETAIL, **arguments: Any
) -> tuple[list[ReplayedOrder], Report]:
    report = Report()
    orders = list(replay.orders(a_file(folder, *rows), rules, report, **arguments))
    assert report.rows == len(rows)
    return orders, report


def documents(orders: Sequence[ReplayedOrder]) -> list[dict[str, Any]]:
    return [json.loads(order.value) for order in orders]


def test_the_rows_of_an_invoice_are_the_lines_of_an_order(tmp_path: Path) -> None:
    orders, report = replayed(
        tmp_path, a_row(), a_row(StockCode="71053", Description=" WHITE METAL LANTERN ", Quantity="2", UnitPrice="3.39")
    )
    assert documents(orders) == [
        {
            "schema": 1,
            "type": "sale",
            "order_id": "536365",
            "event_time": "2010-12-01T08:26:00.000Z",
            "customer_id": 17850,
            "country": "GB",
            "currency": "GBP",
            "lines": [
                {
                    "product_id": "85123A",
                    "product_name": "WHITE HANGING HEART",
                    "category": "Home",
                    "quantity": 6,
                    "unit_amount": 255,
                },
                {
                    "product_id": "71053",
                    "product_name": "WHITE METAL LANTERN",
                    "category": "Candles and lights",
                    "quantity": 2,
                    "unit_amount": 339,
                },
            ],
        }
    ]
    [order] = orders
    assert order.key == b"536365"
    assert (order.is_return, order.lines, order.units, order.net_minor) == (False, 2, 8, 6 * 255 + 2 * 339)
    assert report.as_dict()["fates"] == {"sold": 2}


def test_an_invoice_with_the_prefix_is_a_return_with_positive_quantities(tmp_path: Path) -> None:
    [order], report = replayed(tmp_path, a_row(InvoiceNo="C536379", Quantity="-1"))
    assert order.is_return
    assert json.loads(order.value)["type"] == "return"
    assert json.loads(order.value)["lines"][0]["quantity"] == 1
    assert (report.sales, report.returns, report.fates) == (0, 1, {"returned": 1})


def test_interleaved_invoices_are_told_apart(tmp_path: Path) -> None:
    rows = [a_row(InvoiceNo=number, StockCode=code) for number, code in ("1w", "2x", "1y", "2z")]
    orders, _ = replayed(tmp_path, *rows)
    assert [(o["order_id"], [line["product_id"] for line in o["lines"]]) for o in documents(orders)] == [
        ("1", ["w", "y"]),
        ("2", ["x", "z"]),
    ]


def test_an_invoice_with_two_times_has_the_earlier_and_comes_in_its_place(tmp_path: Path) -> None:
    orders, report = replayed(
        tmp_path,
        a_row(InvoiceNo="1", InvoiceDate="2010-12-01 08:26:00"),
        a_row(InvoiceNo="2", InvoiceDate="2010-12-01 08:26:00"),
        a_row(InvoiceNo="1", InvoiceDate="2010-12-01 08:27:00"),
        a_row(InvoiceNo="3", InvoiceDate="2010-12-01 08:28:00"),
    )
    assert [(order.order_id, order.lines) for order in orders] == [("1", 2), ("2", 1), ("3", 1)]
    assert format_time(orders[0].event_time) == "2010-12-01T08:26:00.000Z"
    assert report.orders_with_two_times == 1


def test_rows_a_little_out_of_order_are_put_in_order(tmp_path: Path) -> None:
    times = ["10:00", "09:30", "11:00", "10:45", "10:15"]
    rows = [a_row(InvoiceNo=time, InvoiceDate=f"2010-12-01 {time}:00") for time in times]
    orders, _ = replayed(tmp_path, *rows)
    assert [order.order_id for order in orders] == sorted(times)


def test_rows_far_out_of_order_are_an_error_that_says_where(tmp_path: Path) -> None:
    rows = [a_row(InvoiceDate="2010-12-01 10:00:00"), a_row(InvoiceNo="2", InvoiceDate="2010-12-01 08:59:00")]
    with pytest.raises(ReplayError, match=r"row 2 \(2010-12-01T08:59:00.000Z\) .* sort the file by time"):
        replayed(tmp_path, *rows)


def test_a_number_that_comes_again_after_the_span_is_another_order(tmp_path: Path) -> None:
    rows = [a_row(InvoiceDate="2010-12-01 08:00:00"), a_row(InvoiceDate="2010-12-01 09:00:01")]
    orders, _ = replayed(tmp_path, *rows)
    assert [format_time(order.event_time) for order in orders] == [
        "2010-12-01T08:00:00.000Z",
        "2010-12-01T09:00:01.000Z",
    ]


def test_a_late_row_of_an_order_finds_it_wherever_the_reader_cuts_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [
        a_row(InvoiceNo=number, InvoiceDate=f"2010-12-01 {time}")
        for number, time in (("X", "10:00:00"), ("Y", "11:00:01"), ("X", "10:00:30"))
    ]
    whole, _ = replayed(tmp_path, *rows)
    monkeypatch.setattr(table, "CSV_BLOCK_BYTES", 90)
    cut, _ = replayed(tmp_path, *rows)
    assert cut == whole
    assert [(order.order_id, order.lines) for order in whole] == [("X", 2), ("Y", 1)]


@pytest.mark.parametrize(
    ("local", "utc"),
    [
        ("2011-01-10 12:00:00", "2011-01-10T12:00:00.000Z"),
        ("2011-07-10 12:00:00", "2011-07-10T11:00:00.000Z"),
        ("2011-03-27 01:30:00", "2011-03-27T01:30:00.000Z"),  # the clock went from 01:00 to 02:00
        ("2011-10-30 01:30:00", "2011-10-30T00:30:00.000Z"),  # the clock showed it twice: the first of the two
        ("2011-10-30T01:30:00+00:00", "2011-10-30T01:30:00.000Z"),
    ],
)
def test_local_times_become_utc(tmp_path: Path, local: str, utc: str) -> None:
    [order], _ = replayed(tmp_path, a_row(InvoiceDate=local))
    assert json.loads(order.value)["event_time"] == utc


@pytest.mark.parametrize(
    ("changes", "fate"),
    [
        ({"Quantity": "-6"}, "stock_correction"),
        ({"Quantity": "-6", "UnitPrice": "0"}, "stock_correction"),
        ({"UnitPrice": "-11062.06"}, "negative_price"),
        ({"UnitPrice": "0.0"}, "no_price"),
        ({"StockCode": "POST"}, "no_product"),
        ({"StockCode": "m"}, "no_product"),
        ({"Quantity": "0"}, "no_quantity"),
        ({"InvoiceNo": "C1", "Quantity": "6"}, "sale_in_return"),
        ({"InvoiceNo": " "}, "unreadable:order_id"),
        ({"InvoiceDate": "yesterday"}, "unreadable:event_time"),
        ({"InvoiceDate": ""}, "unreadable:event_time"),
        ({"StockCode": ""}, "unreadable:product_id"),
        ({"Quantity": "six"}, "unreadable:quantity"),
        ({"Quantity": "6.5"}, "unreadable:quantity"),
        ({"UnitPrice": "£2.55"}, "unreadable:unit_price"),
        ({"UnitPrice": "NaN"}, "unreadable:unit_price"),
        ({"UnitPrice": "1e999999"}, "unreadable:unit_price"),
        ({"CustomerID": "the baker"}, "unreadable:customer_id"),
        ({"InvoiceNo": "x" * 65}, "refused:field:order_id"),
        ({"Quantity": str(10**12 + 1)}, "refused:field:quantity"),
        ({"Quantity": str(10**10), "UnitPrice": "10"}, "refused:field:unit_amount"),
        ({"InvoiceDate": "1999-12-31 23:59:59"}, "refused:field:event_time"),
    ],
)
def test_a_row_that_is_no_sale_is_counted_by_its_reason(tmp_path: Path, changes: dict[str, str], fate: str) -> None:
    orders, report = replayed(tmp_path, a_row(**changes))
    assert orders == []
    assert report.fates == {fate: 1}
    assert (report.sales, report.returns) == (0, 0)


def test_a_row_that_is_no_sale_leaves_its_neighbours(tmp_path: Path) -> None:
    [order], report = replayed(tmp_path, a_row(), a_row(StockCode="POST"), a_row(StockCode="22752"))
    assert order.lines == 2
    assert report.fates == {"sold": 2, "no_product": 1}


def test_prices_are_rounded_half_up_and_counted(tmp_path: Path) -> None:
    prices = ["0.001", "0.004", "0.005", "1.235", "1.234", "2.50", "3"]
    [order], report = replayed(tmp_path, *(a_row(UnitPrice=price) for price in prices))
    assert [line["unit_amount"] for line in json.loads(order.value)["lines"]] == [0, 0, 1, 124, 123, 250, 300]
    assert report.prices_rounded == 5


@given(st.integers(1, 10**9))
def test_a_price_in_tenths_of_a_penny_is_the_nearest_penny_half_up(tenths: int) -> None:
    read = Cells(ONLINE_RETAIL).line(
        ["A", "1", f"{tenths // 1000}.{tenths % 1000:03d}", "", None, None, None], in_return=False
    )
    assert not isinstance(read, str)
    assert read.line["unit_amount"] == (tenths + 5) // 10
    assert read.rounded == (tenths % 10 != 0)


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("EIRE", "IE"),
        ("RSA", "ZA"),
        ("USA", "US"),
        ("Channel Islands", "JE"),
        ("European Community", "ZZ"),
        ("Unspecified", "ZZ"),
        ("united kingdom", "GB"),
        ("fr", "FR"),
        ("", "ZZ"),
    ],
)
def test_country_names_become_codes(tmp_path: Path, name: str, code: str) -> None:
    [order], report = replayed(tmp_path, a_row(Country=name))
    assert json.loads(order.value)["country"] == code
    assert not report.unknown_countries


def test_an_unknown_country_is_counted_by_name(tmp_path: Path) -> None:
    [order], report = replayed(tmp_path, a_row(Country="Atlantis"), a_row(Country="Atlantis"))
    assert json.loads(order.value)["country"] == "ZZ"
    assert report.unknown_countries == {"Atlantis": 1}


def test_a_guest_has_no_customer_number(tmp_path: Path) -> None:
    [order], _ = replayed(tmp_path, a_row(CustomerID=""))
    assert json.loads(order.value)["customer_id"] is None


def test_until_is_inclusive_and_counts_what_it_left_out(tmp_path: Path) -> None:
    rows = [a_row(InvoiceNo=str(minute), InvoiceDate=f"2010-12-01 08:{minute}:00") for minute in (10, 20, 30)]
    orders, report = replayed(tmp_path, *rows, until=parse_time("2010-12-01T08:20:00Z"))
    assert [order.order_id for order in orders] == ["10", "20"]
    assert report.fates == {"sold": 2, "after_until": 1}


def test_a_shift_moves_every_time_by_the_same(tmp_path: Path) -> None:
    rows = [a_row(InvoiceNo=str(minute), InvoiceDate=f"2010-12-01 08:{minute}:00") for minute in (10, 20)]
    orders, _ = replayed(tmp_path, *rows, shift_ms=86_400_000)
    assert [document["event_time"] for document in documents(orders)] == [
        "2010-12-02T08:10:00.000Z",
        "2010-12-02T08:20:00.000Z",
    ]
    assert [format_time(order.event_time) for order in orders] == [d["event_time"] for d in documents(orders)]


def test_a_row_with_too_few_cells_is_counted(tmp_path: Path) -> None:
    path = a_file(tmp_path, a_row())
    with path.open("a") as file:
        file.write("536366,85123A\n")
    report = Report()
    assert len(list(replay.orders(path, ONLINE_RETAIL, report))) == 1
    assert report.fates == {"sold": 1, "unreadable:row": 1}


def test_a_description_with_line_breaks_and_quotes_is_one_cell(tmp_path: Path) -> None:
    [order], _ = replayed(tmp_path, a_row(Description='a "large",\nred bowl'))
    assert json.loads(order.value)["lines"][0]["product_name"] == 'a "large",\nred bowl'


def test_compressed_files_are_read(tmp_path: Path) -> None:
    plain = a_file(tmp_path, a_row())
    packed = tmp_path / "orders.csv.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    assert list(replay.orders(packed, ONLINE_RETAIL)) == list(replay.orders(plain, ONLINE_RETAIL))


def test_parquet_with_types_of_its_own_gives_the_same_orders(tmp_path: Path) -> None:
    plain = a_file(tmp_path, a_row(), a_row(StockCode="71053", UnitPrice="3.39", CustomerID=""))
    columns = {
        "InvoiceNo": pa.array(["536365", "536365"]).dictionary_encode(),
        "StockCode": pa.array(["85123A", "71053"]),
        "Description": pa.array(["WHITE HANGING HEART"] * 2),
        "Quantity": pa.array([6, 6], pa.int32()),
        "InvoiceDate": pa.array([1_291_191_960_000_000_000] * 2, pa.timestamp("ns")),
        "UnitPrice": pa.array([2.55, 3.39]),
        "CustomerID": pa.array([17850.0, None]),
        "Country": pa.array(["United Kingdom"] * 2),
        "more": pa.array([[1], [2]]),
    }
    path = tmp_path / "orders.parquet"
    pa.parquet.write_table(pa.table(columns), path)
    assert list(replay.orders(path, ONLINE_RETAIL)) == list(replay.orders(plain, ONLINE_RETAIL))


def test_parquet_times_with_a_zone_are_instants(tmp_path: Path) -> None:
    row = {name: [value] for name, value in a_row().items()}
    times = pa.array([parse_time("2011-07-10T12:00:00Z")], pa.timestamp("ms", tz="Europe/London"))
    path = tmp_path / "orders.parquet"
    pa.parquet.write_table(pa.table(row | {"InvoiceDate": times}), path)
    [order] = replay.orders(path, ONLINE_RETAIL)
    assert format_time(order.event_time) == "2011-07-10T12:00:00.000Z"


CELL = st.sampled_from(
    ["", "0", "1", "-1", "6", "2.55", "0.001", "-3", "x", "2010-12-01 08:26:00", "C1", "POST", "EIRE"]
)
ROW = st.fixed_dictionaries(
    {
        "InvoiceNo": st.sampled_from(["1", "2", "3", "C4", "C5", ""]),
        "StockCode": st.sampled_from(["A", "B", "POST", ""]),
        "Description": st.sampled_from(["RED MUG", ""]),
        "Quantity": CELL,
        "InvoiceDate": st.integers(0, 200).map(
            lambda minute: f"2010-12-01 {8 + minute // 60:02d}:{minute % 60:02d}:00"
        ),
        "UnitPrice": CELL,
        "CustomerID": CELL,
        "Country": CELL,
    }
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(ROW, max_size=40), st.integers(0, 14_400))
def test_whatever_the_rows_they_add_up_and_every_order_is_acceptable(
    tmp_path: Path, rows: list[dict[str, str]], span: int
) -> None:
    rows.sort(key=lambda row: row["InvoiceDate"])
    rules = ONLINE_RETAIL.model_copy(update={"span_seconds": span})
    orders, report = replayed(tmp_path, *rows, rules=rules)

    times = [order.event_time for order in orders]
    assert times == sorted(times)
    assert sum(order.lines for order in orders) == report.fates["sold"] + report.fates["returned"]
    assert (report.sales, report.returns) == (
        sum(not order.is_return for order in orders),
        sum(order.is_return for order in orders),
    )
    accepted = Rules(currency="GBP", countries=REGION_OF.keys())
    keys, values = [order.key for order in orders], [order.value for order in orders]
    decoded = decode(accepted, keys, values, range(len(orders)), times)
    assert decoded.rejected == []
    assert decoded.accepted.event_times.tolist() == times
    assert int(decoded.accepted.net().sum()) == sum(order.net_minor for order in orders)


def test_where_the_reader_cuts_the_file_makes_no_difference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [
        a_row(InvoiceNo=str(number // 3 + number % 2), InvoiceDate=f"2010-12-01 08:{number // 2:02d}:00")
        for number in range(100)
    ]
    rules = ONLINE_RETAIL.model_copy(update={"span_seconds": 120})
    whole, _ = replayed(tmp_path, *rows, rules=rules)
    monkeypatch.setattr(table, "CSV_BLOCK_BYTES", 200)
    cut, _ = replayed(tmp_path, *rows, rules=rules)
    assert cut == whole
    assert len(whole) > 30


MOMENTS = st.lists(st.tuples(st.sampled_from("XY"), st.integers(0, 24), st.sampled_from([0, 0, 3, 10])), max_size=12)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300)
@given(MOMENTS, st.integers(1, 3))
def test_however_few_rows_are_read_at_once_the_orders_are_the_same(
    tmp_path: Path, moments: list[tuple[str, int, int]], at_once: int
) -> None:
    moments.sort(key=lambda moment: moment[1])  # each row at most ten minutes late: the span
    rows = [
        a_row(InvoiceNo=number, InvoiceDate=f"2010-12-01 10:{10 + at - late:02d}:00") for number, at, late in moments
    ]
    rules = ONLINE_RETAIL.model_copy(update={"span_seconds": 600})
    whole, _ = replayed(tmp_path, *rows, rules=rules)

    read = table.read

    def read_few(*arguments: Any) -> Iterator[table.TextColumns]:
        for columns in read(*arguments):
            for start in range(0, len(columns[0]), at_once):
                yield [column[start : start + at_once] for column in columns]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(table, "read", read_few)
        cut, _ = replayed(tmp_path, *rows, rules=rules)
    assert cut == whole
    assert [order.event_time for order in cut] == sorted(order.event_time for order in cut)
    assert sum(order.lines for order in cut) == len(rows)


def test_a_missing_column_is_named_and_so_are_those_there_are(tmp_path: Path) -> None:
    path = tmp_path / "orders.csv"
    path.write_text("InvoiceNo,StockCode\n1,2\n")
    with pytest.raises(ReplayError, match=r"no column 'InvoiceDate'.*it has: InvoiceNo, StockCode"):
        list(replay.orders(path, ONLINE_RETAIL))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("empty.csv", b""),
        ("binary.csv", b"\xff\xfe\x00InvoiceNo"),
        ("no.csv.gz", b"this is no gzip"),
        ("cut.csv.gz", gzip.compress(b"InvoiceNo,StockCode\n" * 10_000, mtime=0)[:60]),
        ("no.parquet", b"this is no parquet"),
    ],
    ids=["empty", "binary", "no gzip", "cut gzip", "no parquet"],
)
def test_a_file_that_is_none_is_one_line_that_names_it(tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ReplayError) as caught:
        list(replay.orders(path, ONLINE_RETAIL))
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["missing.csv", "missing.parquet", "missing.csv.gz"])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(ReplayError, match=f"{name} can't be read: No such file or directory"):
        list(replay.orders(tmp_path / name, ONLINE_RETAIL))


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(ReplayError, match="can't be read"):
        list(replay.orders(tmp_path, ONLINE_RETAIL))
