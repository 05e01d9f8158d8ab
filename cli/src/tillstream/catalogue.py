"""What is stored in S3 as tables of a DuckDB in memory: ``orders``, ``rollups``, ``dead_letters``, and ``sales``."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import pyarrow as pa

from sales.settings import StoreSettings
from sink.relations import TABLES, Relation, sales_view
from tillstream.database import Database
from tillstream.narrowing import Hour, asked_hours
from tillstream.objects import Objects
from tillstream.reading import Say
from tillstream.spans import Span

_TYPES = {
    pa.string(): "varchar",
    pa.binary(): "blob",
    pa.bool_(): "boolean",
    pa.int32(): "integer",
    pa.int64(): "bigint",
    pa.timestamp("ms"): "timestamp",
}


@dataclass(frozen=True, slots=True)
class Catalogue:
    """What can be asked, and the objects behind it."""

    database: Database
    objects: Objects


@contextlib.contextmanager
def open_catalogue(
    settings: StoreSettings, span: Span, directory: Path, say: Say = lambda _text: None, question: str | None = None
) -> Iterator[Catalogue]:
    """The tables, to be asked and read piece by piece.

    Listing blocks for one request, and one for each thousand objects of a day.

    Args:
        settings: where the bucket is.
        span: only the folders of these hours (of rollups and dead letters: days) are there.
        directory: takes what DuckDB has no memory for.
        say: hears what goes on.
        question: nothing but this SQL will be asked: what it does not need is not even listed.

    Raises:
        botocore.exceptions.BotoCoreError, ClientError: S3 stays away or refuses; from questions too.
    """
    objects = Objects.at(settings)
    with Database.open(directory) as database:
        database.attach(objects)
        for table in TABLES:
            database.execute(f"CREATE VIEW {table.name} AS {_nothing(table)}")
        database.execute(f"CREATE VIEW sales AS {sales_view()}")
        mentioned = [table for table in TABLES if question is None or _mentions(question, table)]
        for table in mentioned:
            say(f"listing {table.folder}")
            days = span.days or [day for day in objects.days(table.folder) if span.touches_day(day)]
            if table.hourly:
                hours: Sequence[Hour] = [hour for day in days for hour in product([day], range(24))]
                hours = [hour for hour in hours if span.touches_hour(*hour)]
                if question is not None and mentioned == [table]:
                    hours = asked_hours(database, table, hours, question)
                objects.discover_hours(table.folder, hours)
            else:
                objects.discover(table.folder, days)
            there = bool(objects.folders(table.folder))
            rows = f"SELECT * FROM {files(table)}" if there else _nothing(table)  # noqa: S608 (names of our own)
            database.execute(f"CREATE OR REPLACE VIEW {table.name} AS {rows}")
        try:
            yield Catalogue(database, objects)
        except Exception:
            if objects.fault is not None:
                raise objects.fault from None
            raise


def _mentions(question: str, table: Relation) -> bool:
    """Can the question be about this table? Its name may stand in it and mean something else, never the reverse."""
    names = (table.name, "sales") if table.hourly else (table.name,)
    return any(name in question.lower() for name in names)


def files(table: Relation, folders: Sequence[str] = ()) -> str:
    """All listed objects of a table, or those of some folders, as what SQL selects from."""
    partitions = ", ".join(f"{name}: {kind}" for name, kind in table.partitions.items())
    paths = [f"{Objects.protocol}://{folder}*" for folder in folders or [f"{table.folder}/"]]
    return f"read_parquet({paths}, hive_partitioning = true, hive_types = {{{partitions}}})"


def _nothing(table: Relation) -> str:
    """No rows, with the table's columns."""
    kinds = {field.name: _TYPES[field.type] for field in table.schema} | table.partitions
    columns = ", ".join(f'CAST(NULL AS {kind}) AS "{name}"' for name, kind in kinds.items())
    return f"SELECT {columns} WHERE false"
