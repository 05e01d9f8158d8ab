"""A signal ends DuckDB's work at once, and is not lost in it."""

import os
import signal
from collections.abc import Iterator

import duckdb
import pyarrow as pa
import pytest

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
