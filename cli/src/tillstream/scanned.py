"""Order lines from DynamoDB, as they come: a parallel scan whose pages are Arrow batches."""

from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from decimal import Decimal
from typing import Any

import pyarrow as pa
from botocore.exceptions import BotoCoreError, ClientError

from sales.money import exponent
from sales.settings import StoreSettings
from sales.times import format_time, parse_time
from sink import aws
from sink.schemas import ORDERS
from tillstream.spans import Span

SEGMENTS = 8
"""Parts of the table that are read at one time, a page (1 MB) of each."""

ATTEMPTS = 20
"""Of one page, with pauses of up to 20 s: at 5 read units a page is paid for in half a minute."""

COLUMNS = (
    "order_id event_time customer_id country region currency line product_id product_name category quantity "
    "discount_percent gross_amount net_amount profit_amount"
).split()
SCHEMA = pa.schema([ORDERS.field(name) for name in COLUMNS])


class ScannedOrders:
    """The lines of the orders in a table, once; a scan is no snapshot: what is written meanwhile may be in it or not.

    Everything blocks as long as DynamoDB takes, throttling included.
    """

    def __init__(self, client: Any, table: str, currency: str, span: Span) -> None:
        self._client = client
        self._table = table
        self._digits = exponent(currency)
        self._span = span
        self._items = 0
        self._scanned = 0
        self.omitted = 0
        """orders whose lines are in S3 only, as they are too large for an item"""
        self.fault: BotoCoreError | ClientError | None = None
        """why DynamoDB could not be read, for who gets only a text of what is raised"""

    @classmethod
    def of(cls, settings: StoreSettings, currency: str, span: Span) -> "ScannedOrders":
        """Those of the table that the settings name; asks nothing yet.

        Args:
            settings: which table, and where.
            currency: of all amounts.
            span: of event time.
        """
        client = aws.client("dynamodb", settings, connections=SEGMENTS, attempts=ATTEMPTS)
        return cls(client, settings.sales_table, currency, span)

    def lines(self) -> pa.RecordBatchReader:
        """The lines, in the columns that the table ``orders`` in S3 has for them.

        Raises:
            botocore.exceptions.BotoCoreError, ClientError: DynamoDB stays away or refuses; kept in ``fault`` too.
        """
        self._items = self._client.describe_table(TableName=self._table)["Table"]["ItemCount"]
        return pa.RecordBatchReader.from_batches(SCHEMA, self._batches())

    def share(self) -> float:
        """How much is read, 0 to 1; DynamoDB counts its items every few hours, so it is an estimate."""
        return min(1.0, self._scanned / self._items) if self._items else 0.0

    def _batches(self) -> Iterator[pa.RecordBatch]:
        with ThreadPoolExecutor(SEGMENTS) as pool:
            reads: dict[Future[dict[str, Any]], int] = {pool.submit(self._page, n, None): n for n in range(SEGMENTS)}
            try:
                while reads:
                    for read in wait(reads, return_when=FIRST_COMPLETED).done:
                        segment, page = reads.pop(read), read.result()
                        if "LastEvaluatedKey" in page:
                            reads[pool.submit(self._page, segment, page["LastEvaluatedKey"])] = segment
                        self._scanned += page["ScannedCount"]
                        yield pa.RecordBatch.from_pylist(list(self._rows(page["Items"])), schema=SCHEMA)
            except (BotoCoreError, ClientError) as error:
                self.fault = error
                raise
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    def _page(self, segment: int, after: dict[str, Any] | None) -> dict[str, Any]:
        page: dict[str, Any] = self._client.scan(
            TableName=self._table,
            Segment=segment,
            TotalSegments=SEGMENTS,
            # RFC 3339 of one width in UTC: texts compare as times do.
            FilterExpression="event_time >= :since AND event_time < :until",
            ExpressionAttributeValues={
                ":since": {"S": format_time(self._span.start)},
                ":until": {"S": format_time(self._span.end)},
            },
            **({} if after is None else {"ExclusiveStartKey": after}),
        )
        return page

    def _rows(self, items: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        for item in items:
            if "lines" not in item:
                self.omitted += 1
                continue
            customer = item.get("customer_id")
            order = {
                "event_time": parse_time(item["event_time"]["S"]),
                "customer_id": None if customer is None else int(customer["N"]),
                **{name: item[name]["S"] for name in ("order_id", "country", "region", "currency")},
            }
            for each in item["lines"]["L"]:
                line = each["M"]
                yield {
                    **order,
                    **{name: line[name]["S"] for name in ("product_id", "product_name", "category")},
                    "line": int(line["line"]["N"]),
                    "quantity": int(line["quantity"]["N"]),
                    "discount_percent": int(line["discount"]["N"]),
                    "gross_amount": self._minor(line["sales"]),
                    "net_amount": self._minor(line["net"]),
                    "profit_amount": self._minor(line["profit"]) if "profit" in line else None,
                }

    def _minor(self, amount: dict[str, str]) -> int:
        return int(Decimal(amount["N"]).scaleb(self._digits))
