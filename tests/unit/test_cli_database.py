"""A signal ends DuckDB's work at once, and is not lost in it; values are handed over without a search of the disk."""

import os
import signal
import sys
from collections.abc import Iterator
from importlib.abc import MetaPathFinder
from importlib.util import find_spec
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from tillstream.database import Database
from tillstream.interrupts import Interrupted, raised

SCHEMA = pa.schema([("number", pa.int64())])


def test_a_signal_while_a_query_runs_is_raised_and_closing_does_not_wait_for_the_query() -> None:
    def endless() -> Iterator[pa.RecordBatch]:
        os.kill(os.getpid(), signal.SIGINT)
        while True:
            yield pa.record_batch([[1]], SCHEMA)

    with duckdb.connect() as connection:
        connection.register("lines", pa.RecordBatchReader.from_batches(SCHEMA, endless()))
        connection.execute("CREATE TABLE objects (number BIGINT)")
        with raised(), pytest.raises(Interrupted) as stop:
            Database(connection).run("size")
    assert stop.value.by_keyboard


def test_a_signal_while_a_file_is_opened_is_raised_and_an_error_after_it_is_the_errors_own(tmp_path: Path) -> None:
    class Files(MemoryFileSystem):  # type: ignore[misc]  # fsspec is shipped without type information
        protocol = "ours"
        opened = 0

        def glob(self, *_: object, **__: object) -> list[str]:
            return ["/lines.parquet"]

        def _open(self, *_: object, **__: object) -> None:
            self.opened += 1
            if self.opened == 1:
                os.kill(os.getpid(), signal.SIGINT)
            raise FileNotFoundError("there is none")

    files = Files()
    with Database.open(tmp_path) as database:
        database.attach(files)
        with raised(), pytest.raises(Interrupted) as stop:
            database.execute("FROM read_parquet('ours://lines.parquet')")
        assert stop.value.by_keyboard
        with raised(), pytest.raises(duckdb.Error, match="there is none"):
            database.execute("FROM read_parquet('ours://lines.parquet')")
        assert database.execute("SELECT 1").rows == [(1,)]
    assert files.opened == 2


@pytest.mark.skipif(find_spec("pandas") is not None, reason="DuckDB finds pandas at once where it is")
def test_pandas_is_not_looked_for_at_each_value(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked_for: list[str] = []

    class Last(MetaPathFinder):
        """Is asked for what nobody has found."""

        def find_spec(self, fullname: str, *_: object) -> None:
            looked_for.append(fullname)

    with Database.open(tmp_path) as database:
        database.execute("CREATE TABLE things (name VARCHAR, number BIGINT)")
        monkeypatch.setattr(sys, "meta_path", [*sys.meta_path, Last()])
        database.fill("things", [("one", 1), ("two", 2)])
        assert database.execute("FROM things").rows == [("one", 1), ("two", 2)]
    assert "pandas" not in looked_for
