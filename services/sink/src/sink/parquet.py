"""Rows to Parquet objects: the same rows in the same row groups make the same object. Pure."""

from collections.abc import Iterable
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from sink.layouts import Layout

ROW_GROUP_ROWS = 125_000
"""Engines skip whole row groups by their statistics, and read them in parallel: 100 thousand to a million is usual.
Whoever writes one has it in memory, some 130 bytes a row."""

DICTIONARY_BYTES = 64 * 2**20
"""Above it the writer would go on without one; ids of a row group take some megabytes."""

BATCH_ROWS = 65_536
"""What the writer takes at once of a column; with its own 1,024 it needs a tenth longer."""

ENCODER = f"pyarrow {pa.__version__}"
"""What stands in pins: another version writes other bytes for the same rows."""


def encode(layout: Layout[Any], groups: Iterable[pa.Table]) -> pa.Buffer:
    """One Parquet object, whole in memory.

    Args:
        layout: says which columns get dictionaries and statistics.
        groups: its row groups, one at least; texts plain or as dictionaries of what occurs in the group, once each: the
            writer takes such a dictionary as it is.
    """
    sink = pa.BufferOutputStream()
    writer: pq.ParquetWriter | None = None
    for group in groups:
        writer = writer or pq.ParquetWriter(
            sink,
            group.schema,
            version="2.6",
            compression="zstd",
            compression_level=1,
            use_dictionary=list(layout.repeating),
            dictionary_pagesize_limit=DICTIONARY_BYTES,
            write_statistics=list(layout.ranged),
            write_batch_size=BATCH_ROWS,
            store_schema=False,
        )
        writer.write_table(group, row_group_size=group.num_rows)
    if writer is not None:
        writer.close()
    return sink.getvalue()


def checksum(body: pa.Buffer | bytes) -> str:
    """XXH3 with 128 bits over an object's bytes, in hex."""
    return xxhash.xxh3_128_hexdigest(body)


def same_rows(layout: Layout[Any], one: pa.Buffer | bytes, other: pa.Buffer | bytes) -> bool:
    """Whether two objects hold the same rows, whatever wrote them; False if one of them is no object of this table."""
    try:
        rows = [pq.read_table(pa.BufferReader(body)).cast(layout.schema) for body in (one, other)]
    except (pa.ArrowException, ValueError):
        return False
    return bool(rows[0].equals(rows[1]))
