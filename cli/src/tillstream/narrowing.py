"""Which hours a question can be about, found by DuckDB before anything of them is listed.

The question is planned, not asked, over an empty file for each hour there may be. The plan of each scan says which
conditions chose among the files, and how many they left.
"""

import io
import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
from fsspec import AbstractFileSystem

from sink.relations import Relation
from tillstream.database import Database

Hour = tuple[str, int]
"""``dt`` and ``hour``, as in the folders."""


class EmptyHours(AbstractFileSystem):  # type: ignore[misc]  # fsspec is shipped without type information
    """A file without rows for each of some hours, as ``empty://orders/dt=…/hour=…/none``."""

    protocol = "empty"
    cachable = False  # fsspec would hand out one instance for equal arguments

    def __init__(self, schema: pa.Schema, hours: Sequence[Hour]) -> None:
        super().__init__()
        file = io.BytesIO()
        pq.write_table(schema.empty_table(), file)
        self._file = file.getvalue()
        self._paths = [f"orders/dt={day}/hour={hour:02d}/none" for day, hour in hours]

    def glob(self, path: str, **_: Any) -> list[str]:  # noqa: ARG002 (DuckDB asks for all of them)
        """All of them."""
        return self._paths

    def open(self, path: str, mode: str = "rb", **_: Any) -> io.BytesIO:  # noqa: ARG002 (they are all the same)
        """To read."""
        return io.BytesIO(self._file)

    def size(self, path: str) -> int:  # noqa: ARG002 (they are all the same)
        """In bytes."""
        return len(self._file)

    def modified(self, path: str) -> datetime:  # noqa: ARG002 (they are all the same)
        """Long ago."""
        return datetime.fromtimestamp(0, UTC)


def asked_hours(database: Database, orders: Relation, hours: Sequence[Hour], question: str) -> Sequence[Hour]:
    """Those of the hours that the answer can depend on; all of them when the plan does not tell.

    Args:
        database: has the view ``sales``; its view ``orders`` is made anew.
        orders: the table.
        hours: of which it may have objects.
        question: in SQL; refers to no other stored table.
    """
    if not hours or not database.is_select(question):
        return hours
    database.attach(EmptyHours(orders.schema, hours))
    columns = ", ".join(f"{name}: {kind}" for name, kind in orders.partitions.items())
    database.execute(
        "CREATE OR REPLACE VIEW orders AS FROM "
        f"read_parquet('empty://orders/*', hive_partitioning = true, hive_types = {{{columns}}})"
    )
    # It would answer count(*) from the footers: a scan that is not in the plan says nothing of its hours.
    database.execute("SET disabled_optimizers = 'statistics_propagation'")
    try:
        [(_, plan)] = database.execute(f"EXPLAIN (FORMAT json) {question}").rows
        scans = [node["extra_info"] for node in _nodes(json.loads(plan)) if node["name"].strip() == "READ_PARQUET"]
        chosen = [_chosen(database, hours, scan) for scan in scans]
    except duckdb.Error:  # the question will say what is wrong with it
        return hours
    finally:
        database.execute("RESET disabled_optimizers")
    return sorted(set().union(*chosen)) if chosen else hours


def _chosen(database: Database, hours: Sequence[Hour], scan: dict[str, str]) -> Sequence[Hour]:
    """The hours of one scan. Its conditions are a text for people, so they must choose as many as DuckDB did."""
    conditions = scan.get("File Filters")
    if conditions is None:
        return hours
    found = database.execute(
        "SELECT dt, hour FROM (SELECT unnest(?::VARCHAR[]) AS dt, unnest(?::INTEGER[]) AS hour) "  # noqa: S608 (the words are DuckDB's)
        f"WHERE {conditions.replace(')(', ') AND (')}",
        [[day for day, _ in hours], [hour for _, hour in hours]],
    ).rows
    chosen = [(str(day), int(hour)) for day, hour in found]
    return chosen if scan.get("Scanning Files") == f"{len(chosen)}/{len(hours)}" else hours


def _nodes(plan: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for node in plan:
        yield node
        yield from _nodes(node["children"])
