"""What goes wrong in the middle of a scan is told as what it is, not as DuckDB's text about it."""

import threading
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tillstream.database import Database
from tillstream.exporting import export_scanned
from tillstream.scanned import SEGMENTS, ScannedOrders
from tillstream.spans import Span

ITEM = {
    "order_id": {"S": "one"},
    "event_time": {"S": "2026-11-20T07:52:33.123Z"},
    "country": {"S": "GB"},
    "region": {"S": "Europe"},
    "currency": {"S": "USD"},
    "lines": {
        "L": [
            {
                "M": {
                    **{name: {"S": name} for name in ("product_id", "product_name", "category")},
                    **{name: {"N": "1"} for name in ("line", "quantity", "discount")},
                    **{name: {"N": "2.5"} for name in ("sales", "net")},
                }
            }
        ]
    },
}


class Pages:
    """A table of two pages in each segment, of which some may be refused."""

    def __init__(self, *, refused: bool) -> None:
        self._refused = refused
        self._lock = threading.Lock()
        self.asked = 0

    def describe_table(self, **_: Any) -> dict[str, Any]:
        return {"Table": {"ItemCount": 2 * SEGMENTS}}

    def scan(self, **request: Any) -> dict[str, Any]:
        with self._lock:
            self.asked += 1
        if "ExclusiveStartKey" not in request:
            return {"Items": [ITEM], "ScannedCount": 1, "LastEvaluatedKey": {"order_id": {"S": "one"}}}
        if self._refused:
            raise ClientError({"Error": {"Code": "ProvisionedThroughputExceededException"}}, "Scan")
        return {"Items": [ITEM], "ScannedCount": 1}


def test_every_page_of_every_segment_is_written(tmp_path: Path) -> None:
    pages = Pages(refused=False)
    orders = ScannedOrders(pages, "SalesData", "USD", Span())
    with Database.open(tmp_path) as database:
        lines = export_scanned(database, orders, Span(), tmp_path / "x.csv", "csv", "USD", lambda _what, _share: None)
    assert lines == pages.asked == 2 * SEGMENTS
    assert orders.share() == 1
    assert (tmp_path / "x.csv").read_text().splitlines()[1].endswith(",1,2.50,,GB,Europe,1,2.50,USD,1")


def test_a_refused_page_ends_the_export_with_its_reason(tmp_path: Path) -> None:
    orders = ScannedOrders(Pages(refused=True), "SalesData", "USD", Span())
    with Database.open(tmp_path) as database, pytest.raises(ClientError, match="ProvisionedThroughput"):
        export_scanned(database, orders, Span(), tmp_path / "x.csv", "csv", "USD", lambda _what, _share: None)
