"""Only what the sink wrote is looked at as bytes."""

import io
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sink.schemas import ORDERS
from tillstream.pieces import pieces
from tillstream.stored import StoredError

KEY = "orders/dt=2026-11-20/hour=06/some.parquet"
COLUMNS = ["order_id", "product_id", "event_time", "quantity"]


class File(io.BytesIO):
    """As a stored object is read."""

    def hold(self, start: int, end: int) -> None:
        """Fetches ahead."""


class Objects:
    """One object."""

    def __init__(self, table: pa.Table) -> None:
        file = io.BytesIO()
        pq.write_table(table, file)
        self.body = file.getvalue()

    def open(self, key: str) -> File:
        assert key == KEY
        return File(self.body)


def read(table: pa.Table) -> list[dict[str, Any]]:
    found = pieces(Objects(table), [KEY], COLUMNS, ["product_id"])  # type: ignore[arg-type]  # an object that is at hand
    return [row for piece in found for row in piece.table.to_pylist()]


def a_table(**kinds: pa.DataType) -> pa.Table:
    schema = pa.schema([(name, kinds.get(name, ORDERS.field(name).type)) for name in COLUMNS])
    return pa.Table.from_pylist([{"order_id": "a", "product_id": "p", "event_time": 7, "quantity": 3}], schema)


def test_rows_are_read_whether_texts_are_dictionaries_or_not() -> None:
    for kind in (pa.string(), pa.dictionary(pa.int32(), pa.string())):
        [row] = read(a_table(product_id=kind))
        assert (row["order_id"], row["product_id"], row["quantity"]) == ("a", "p", 3)


@pytest.mark.parametrize(
    ("name", "kind"), [("order_id", pa.large_string()), ("event_time", pa.timestamp("us")), ("quantity", pa.int32())]
)
def test_a_column_of_another_type_is_refused_by_name(name: str, kind: pa.DataType) -> None:
    with pytest.raises(StoredError, match=f"column {name} is .*, not "):
        read(a_table(**{name: kind}))
