"""Compiled code writes the lines that the standard library's csv module would."""

import csv
import io
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tillstream.csv_lines import COLUMNS, HEADER, PIECE_BYTES, csv_lines

TEXTS = [name for name in COLUMNS if name.endswith(("_id", "_name")) and name != "customer_id"]
TEXTS += ["category", "country", "region", "currency"]
AMOUNTS = [name for name in COLUMNS if name.endswith("_amount")]

texts = st.text(st.sampled_from("=+-@#\t\n\r,\"'ab é😀"), max_size=20)
amounts = st.integers(-(10**15), 10**15)
lines = st.fixed_dictionaries(
    {
        **dict.fromkeys(TEXTS, texts),
        **dict.fromkeys(AMOUNTS, amounts),
        "profit_amount": st.none() | amounts,
        "customer_id": st.none() | st.integers(-(2**63), 2**63 - 1) | st.just(-(2**63)),
        "quantity": st.integers(-(10**12), 10**12),
        "discount_percent": st.integers(0, 100),
        "line": st.integers(1, 10**6),
        "event_time": st.datetimes(datetime(2000, 1, 1), datetime(2000, 3, 9)).map(  # noqa: DTZ001 (as stored)
            lambda time: time.replace(microsecond=0)
        ),
    }
)


def a_table(rows: list[dict[str, Any]], *, repeating: bool = True) -> pa.Table:
    """As it is read: texts dictionary-encoded, all but the order's id, or none."""
    narrow = pa.dictionary(pa.int32(), pa.string()) if repeating else pa.string()
    kinds = {name: pa.int64() for name in COLUMNS}
    kinds |= dict.fromkeys(TEXTS, narrow)
    kinds |= {"order_id": pa.string(), "event_time": pa.timestamp("ms"), "line": pa.int32()}
    return pa.Table.from_pylist(rows, pa.schema([(name, kinds[name]) for name in COLUMNS]))


def expected(rows: list[dict[str, Any]], digits: int) -> str:
    """By the contract, in the quoting of DuckDB: an empty text is ``""``, as nothing at all is no value, and what
    has a ``#`` in it is quoted, as some readers begin a comment there."""

    def cell(name: str, value: Any) -> str:
        if value is None:
            return ""
        if name == "event_time":
            return f"{value:%d/%m/%Y}"
        if name in AMOUNTS:
            return f"{Decimal(value).scaleb(-digits):.{digits}f}"
        if name not in TEXTS:
            return str(value)
        harmless = f"'{value}" if value[:1] in tuple("=+-@\t\r\n") else value
        out = io.StringIO(newline="")
        csv.writer(out, lineterminator="\r\n").writerow([harmless])
        written = out.getvalue().removesuffix("\r\n")
        return f'"{written}"' if "#" in written and written[:1] != '"' else written

    return "".join(",".join(cell(name, row[name]) for name in COLUMNS) + "\n" for row in rows)


def written(table: pa.Table, digits: int, rows: Any = None) -> str:
    chosen = np.arange(len(table)) if rows is None else np.array(rows, np.int64)
    return b"".join(bytes(piece) for piece in csv_lines(table, digits).of(chosen)).decode()


@given(st.lists(lines, max_size=8), st.sampled_from([0, 2, 3]), st.booleans())
def test_lines_are_those_of_the_csv_module(rows: list[dict[str, Any]], digits: int, repeating: bool) -> None:
    assert written(a_table(rows, repeating=repeating), digits) == expected(rows, digits)


def a_line(**difference: Any) -> dict[str, Any]:
    line = dict.fromkeys(TEXTS, "text") | dict.fromkeys(COLUMNS[6:9], 0) | {"quantity": 1, "net_amount": 255, "line": 1}
    return line | {"customer_id": 7, "event_time": datetime(2026, 11, 20, tzinfo=UTC).replace(tzinfo=None)} | difference


def test_only_the_chosen_rows_are_written() -> None:
    rows = [a_line(line=number) for number in range(5)]
    assert written(a_table(rows), 2, [1, 4]) == expected([rows[1], rows[4]], 2)


def test_a_slice_of_a_table_is_its_own_rows() -> None:
    rows = [a_line(line=number, order_id=f"o{number}", category=f"c{number % 3}") for number in range(9)]
    assert written(a_table(rows).slice(4, 3), 2) == expected(rows[4:7], 2)


@pytest.mark.parametrize("length", [1000, 2 * PIECE_BYTES])
def test_lines_longer_than_a_piece_are_whole(length: int) -> None:
    rows = [a_line(line=number, product_name="x" * length, order_id='"' * length) for number in range(3)]
    assert written(a_table(rows), 2) == expected(rows, 2)


def test_many_pieces_are_one_after_the_other() -> None:
    rows = [a_line(line=number, gross_amount=number - 5000) for number in range(30_000)]
    table = a_table(rows)
    assert sum(1 for _ in csv_lines(table, 2).of(np.arange(len(table)))) > 1
    assert written(table, 2) == expected(rows, 2)


def test_the_header_names_each_column() -> None:
    assert len(HEADER.split(b",")) == len(COLUMNS)
