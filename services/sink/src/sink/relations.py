"""What is stored, as those who ask see it: three tables and the view ``sales``. Pure.

The same names, types and text in Athena and in DuckDB, so that a question has the same answer in both.
"""

from dataclasses import dataclass

import pyarrow as pa

from sink.schemas import DEAD_LETTERS, ORDERS, ROLLUPS


@dataclass(frozen=True, slots=True)
class Relation:
    """One stored table."""

    name: str
    """in SQL"""
    folder: str
    """in the bucket, below S3_PREFIX"""
    schema: pa.Schema
    """of its objects"""
    hourly: bool
    """has a folder for each hour, not only for each day"""

    @property
    def partitions(self) -> dict[str, str]:
        """The columns that stand in the folders' names, and their SQL types, which Athena and DuckDB share."""
        return {"dt": "varchar", "hour": "integer"} if self.hourly else {"dt": "varchar"}


TABLES = (
    Relation("orders", "orders", ORDERS, hourly=True),
    Relation("rollups", "rollups", ROLLUPS, hourly=False),
    Relation("dead_letters", "dead-letters", DEAD_LETTERS, hourly=False),
)

PLACE = '"stream" || \'+\' || "partition" || \'+\' || "position"'
"""Where an event is, as a text of SQL. Within a partition of a stream it sorts as positions do; two partitions never
share an identity, and of two incarnations of a stream neither is first: any order does that is always the same."""


def sales_view() -> str:
    """The text of the view ``sales``: each order once, as the rows of its lowest position; the columns of ``orders``.

    An order is found again within its hour, so ``dt`` and ``hour`` are among the keys: a condition on them, or on
    ``order_id`` and ``event_time``, reaches through the view to the folders, and other hours are not read.
    """
    columns = ", ".join(f'"{name}"' for name in (*ORDERS.names, *TABLES[0].partitions))
    return (
        f"SELECT {columns} FROM ("  # noqa: S608 (names of our own)
        f'SELECT *, min({PLACE}) OVER (PARTITION BY "dt", "hour", "order_id", "event_time") AS "first_place" '
        f'FROM orders) AS "placed" WHERE {PLACE} = "first_place"'
    )
