"""DuckDB for one command: the SQL files, on tables and Parquet files of this machine."""

import contextlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.abc import MetaPathFinder
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

import duckdb
import numpy.typing as npt
import pyarrow as pa
from fsspec import AbstractFileSystem

from tillstream import interrupts

Row = tuple[Any, ...]

_PANDAS = find_spec("pandas") is not None

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Answer:
    """What a question gives."""

    columns: list[str]
    rows: list[Row]


class Database:
    """A database in memory. Each call blocks while DuckDB works, and raises ``duckdb.Error`` where a file, a value or
    this machine is not fit for the work (then nothing of the call was done), and ``Interrupted`` when a signal came."""

    def __init__(self, connection: "duckdb.DuckDBPyConnection") -> None:
        self._connection = connection

    @classmethod
    @contextlib.contextmanager
    def open(cls, directory: Path) -> "Iterator[Database]":
        """An empty one, closed in the end.

        Args:
            directory: takes what DuckDB has no memory for.
        """
        with duckdb.connect() as connection:
            connection.execute("SET temp_directory = ?", [str(directory / "spill")])
            connection.execute("SET enable_external_file_cache = false")  # it would keep what was read, up to the limit
            connection.execute("SET enable_progress_bar = true; SET enable_progress_bar_print = false")
            yield cls(connection)

    def run(self, name: str, parameters: Mapping[str, Any] | None = None) -> list[Row]:
        """The rows that one of the SQL files gives."""
        return self.execute(_text(name), parameters).rows

    def each(self, name: str, parameters: Mapping[str, Any], at_once: int) -> Iterator[Row]:
        """As `run`, with only so many rows in Python's memory; nothing else can be asked before its end."""
        self._guarded(lambda: self._connection.execute(_text(name), parameters))
        while rows := self._guarded(lambda: self._connection.fetchmany(at_once)):
            yield from rows

    def attach(self, files: AbstractFileSystem) -> None:
        """Lets it read these files, by their protocol's paths."""
        self._connection.register_filesystem(files)

    def register(self, name: str, batches: pa.RecordBatchReader) -> None:
        """Makes a table of what comes only once, as it is asked for."""
        self._connection.register(name, batches)

    def progress(self) -> float:
        """How much of the call that runs is done, 0 to 1; for other threads than its own. Calls nothing that waits."""
        return max(0.0, self._connection.query_progress()) / 100

    def fill(self, table: str, rows: Sequence[Row]) -> None:
        """Adds rows to a table."""
        if rows:
            columns = ", ".join("unnest(?)" for _ in rows[0])
            lists = [list(column) for column in zip(*rows, strict=True)]
            self.execute(f"INSERT INTO {table} SELECT {columns}", lists)

    def execute(self, text: str, parameters: Mapping[str, Any] | Sequence[Any] | None = None) -> Answer:
        """What a text of SQL gives."""

        def ask() -> Answer:
            with _no_pandas():
                found = self._connection.execute(text, parameters)
            return Answer([column[0] for column in found.description or ()], found.fetchall())

        return self._guarded(ask)

    def is_select(self, text: str) -> bool:
        """Is it one statement that only reads?"""
        statements = self._connection.extract_statements(text)
        return [statement.type for statement in statements] == [duckdb.StatementType.SELECT]

    def array(self, text: str, parameters: Sequence[Any]) -> "npt.NDArray[Any]":
        """The one column that a text of SQL gives, without nulls."""
        return self._guarded(lambda: next(iter(self._connection.execute(text, parameters).fetchnumpy().values())))

    def _guarded(self, ask: Callable[[], T]) -> T:
        try:
            return ask()
        except (RuntimeError, duckdb.Error):
            # DuckDB says the first when a signal's handler raises, the second when it does so inside what DuckDB calls,
            # as the opening of a file; what was raised it drops. Its threads may still be at work, and closing would
            # wait for them.
            self._connection.interrupt()
            interrupts.check()
            raise


class _NoPandas(MetaPathFinder):
    """Ends a search for pandas before it begins."""

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> None:  # noqa: ARG002 (a protocol)
        if fullname == "pandas":
            raise ModuleNotFoundError(name=fullname)


@contextlib.contextmanager
def _no_pandas() -> Iterator[None]:
    """Inside, pandas is not looked for where it is not installed.

    DuckDB does so at each value in a list that it is given, on all of the disk: 35 times as long as everything else.
    """
    finder = _NoPandas()
    if not _PANDAS:
        sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        if not _PANDAS:
            sys.meta_path.remove(finder)


def _text(name: str) -> str:
    return (files("tillstream") / "sql" / f"{name}.sql").read_text(encoding="utf-8")
