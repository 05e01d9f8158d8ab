"""Stored objects as Arrow tables of some thousand rows, one after the other, read while the one before is worked on."""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from sink.schemas import ORDERS
from tillstream.objects import Objects
from tillstream.stored import StoredError

ROWS = 131_072
"""In one piece: some megabytes, and a hundred times what handing it over costs."""

AHEAD = 2
"""Pieces that are read beside the one that is worked on."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True, eq=False)
class Piece:
    """Some rows of an object."""

    key: str
    first_row: int
    """its number in the object"""
    table: pa.Table


def pieces(objects: Objects, keys: Sequence[str], columns: Sequence[str], repeating: Sequence[str]) -> Iterator[Piece]:
    """The objects' rows in their order. Of S3 a footer and then one row group at a time are fetched, each at once.

    Args:
        objects: where they are.
        keys: which.
        columns: what is decoded.
        repeating: of these, what comes dictionary-encoded.

    Raises:
        botocore.exceptions.BotoCoreError, ClientError: S3 stays away or refuses.
        StoredError: an object is no Parquet file with these columns, of the types that the sink gives them.
    """
    return _ahead(piece for key in keys for piece in _read(objects, key, columns, repeating))


def _read(objects: Objects, key: str, columns: Sequence[str], repeating: Sequence[str]) -> Iterator[Piece]:
    file = objects.open(key)
    try:
        source = pq.ParquetFile(pa.PythonFile(file, mode="r"), read_dictionary=list(repeating), pre_buffer=False)
        if missing := set(columns).difference(source.schema.names):
            raise StoredError(f"{key} has no column {', '.join(sorted(missing))}")
        _check(key, source.schema_arrow, columns)
        first_row = 0
        for number in range(source.num_row_groups):
            # What lies between the columns is little beside them; a request for each would cost more.
            file.hold(*_reach(source.metadata.row_group(number), columns))
            for batch in source.iter_batches(ROWS, row_groups=[number], columns=list(columns), use_threads=False):
                yield Piece(key, first_row, pa.table(batch))
                first_row += batch.num_rows
    except pa.ArrowException as error:
        raise StoredError(f"{key}: {error}") from error


def _check(key: str, schema: pa.Schema, columns: Sequence[str]) -> None:
    """That each column has the type that the sink gives it: what reads these tables looks at bytes."""
    for name in columns:
        found, due = schema.field(name).type, ORDERS.field(name).type
        if (found.value_type if pa.types.is_dictionary(found) else found) != due:
            raise StoredError(f"{key}: column {name} is {found}, not {due}; something else than the sink wrote it")


def _reach(group: pq.RowGroupMetaData, columns: Sequence[str]) -> tuple[int, int]:
    """Where the first of some columns begins in its object, and where the last ends."""
    chunks = [group.column(index) for index in range(group.num_columns)]
    wanted = [chunk for chunk in chunks if chunk.path_in_schema in columns]
    starts = [chunk.dictionary_page_offset or chunk.data_page_offset for chunk in wanted]
    ends = [start + chunk.total_compressed_size for start, chunk in zip(starts, wanted, strict=True)]
    return min(starts), max(ends)


def _ahead(items: Iterator[T]) -> Iterator[T]:
    """The same, but the next ones are made meanwhile, by a thread."""
    pool = ThreadPoolExecutor(1)
    try:
        waiting: deque[Future[T | None]] = deque(pool.submit(next, items, None) for _ in range(AHEAD))
        while (item := waiting.popleft().result()) is not None:
            waiting.append(pool.submit(next, items, None))
            yield item
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
