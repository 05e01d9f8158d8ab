"""Reads a file of rows as text, a batch of columns at a time: CSV (compressed or not) or Parquet, whatever its size."""

import codecs
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

from generator.mapping import Mapping, ReplayError

CSV_BLOCK_BYTES = 4 << 20
"""Of the unpacked file: some 40,000 rows, so that what arrow costs a block is spread thin."""

PARQUET_BATCH_ROWS = 32_768

TextColumns = list[list[str | None]]
"""One list for each column asked for, all of one length; None where the cell is empty"""


def read(path: Path, columns: Sequence[str], mapping: Mapping, unreadable: Callable[[], None]) -> Iterator[TextColumns]:
    """The columns asked for, batch by batch, in the file's order. Blocks on the disk; holds one batch at a time.

    Args:
        path: what it is follows from its name: .parquet, or else CSV with a header row.
        columns: the file's names of the columns.
        mapping: encoding and delimiter of a CSV.
        unreadable: called for each row of a CSV that has too few or too many cells and is left out.

    Raises:
        ReplayError: the file can't be read, or lacks a column.
    """
    try:
        if path.name.endswith((".parquet", ".pq")):
            yield from _parquet(path, columns)
        else:
            yield from _csv(path, columns, mapping, unreadable)
    except OSError as error:
        words = os.strerror(error.errno) if error.errno else _one_line(error)  # arrow repeats the path in its own words
        raise ReplayError(f"{path} can't be read: {words}") from error
    except pa.ArrowException as error:
        raise ReplayError(f"{path} can't be read: {_one_line(error)}") from error


def _csv(path: Path, columns: Sequence[str], mapping: Mapping, unreadable: Callable[[], None]) -> Iterator[TextColumns]:
    def parsing(on_bad_row: Callable[[], None]) -> pa.csv.ParseOptions:
        def leave_out(_row: pa.csv.InvalidRow) -> str:
            on_bad_row()
            return "skip"

        return pa.csv.ParseOptions(delimiter=mapping.delimiter, newlines_in_values=True, invalid_row_handler=leave_out)

    reading = pa.csv.ReadOptions(
        use_threads=False, block_size=CSV_BLOCK_BYTES, encoding=codecs.lookup(mapping.encoding).name
    )
    # Opening a file reads its first block: once for the header alone, where bad rows don't count yet.
    with pa.csv.open_csv(path, reading, parsing(lambda: None)) as probe:
        _check(path, columns, probe.schema.names)
    text = pa.csv.ConvertOptions(
        include_columns=list(columns),
        column_types=dict.fromkeys(columns, pa.string()),
        strings_can_be_null=True,
        null_values=[""],
    )
    with pa.csv.open_csv(path, reading, parsing(unreadable), text) as file:
        for batch in file:
            yield [column.to_pylist() for column in batch.columns]


def _parquet(path: Path, columns: Sequence[str]) -> Iterator[TextColumns]:
    with pa.parquet.ParquetFile(path) as file:
        _check(path, columns, file.schema_arrow.names)
        for batch in file.iter_batches(batch_size=PARQUET_BATCH_ROWS, columns=list(columns)):
            yield [_text(batch.column(name)) for name in columns]


def _text(column: pa.Array) -> list[str | None]:
    """A column of any type as a CSV would have it."""
    if pa.types.is_timestamp(column.type):
        zone = "+00:00" if column.type.tz is not None else ""
        precise = pc.cast(column, pa.timestamp("us"), safe=False)  # beyond a microsecond: not for event times
        return [None if time is None else time.isoformat(" ") + zone for time in precise.to_pylist()]
    return [value or None for value in pc.cast(column, pa.string()).to_pylist()]


def _check(path: Path, columns: Sequence[str], there: Sequence[str]) -> None:
    for name in columns:
        if list(there).count(name) != 1:
            problem = "no column" if name not in there else "more than one column"
            raise ReplayError(f"{path} has {problem} {name!r}, which the mapping names; it has: {', '.join(there)}")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
