"""Rows to Parquet objects: the same rows make the same objects, however they arrived in chunks. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import xxhash

from sink.layouts import Layout

ROW_GROUP_ROWS = 250_000
"""Engines skip whole row groups by their statistics, and read them in parallel: 100 thousand to a million is usual."""

ENCODER = f"pyarrow {pa.__version__}"
"""What stands in pins: another version writes other bytes for the same rows."""


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """The rows of one object."""

    folder: str
    """with its slash at the end"""
    table: pa.Table
    first_position: str
    orders: int
    """how many messages the rows come from"""


def spread(layout: Layout, tables: list[pa.Table]) -> Iterator[Rows]:
    """All rows of an extent by the folder they belong to, oldest folder first; inside, in the order of the stream.

    Args:
        layout: what the tables are.
        tables: an extent's, in order.
    """
    whole = pa.concat_tables(tables).unify_dictionaries().combine_chunks()
    if whole.num_rows == 0:
        return
    slots = layout.slots(whole)
    if slots.min() != slots.max():
        order = np.argsort(slots, kind="stable")
        whole, slots = whole.take(pa.array(order)), slots[order]
    found, starts = np.unique(slots, return_index=True)
    ends = [*starts[1:].tolist(), len(slots)]
    for slot, start, end in zip(found.tolist(), starts.tolist(), ends, strict=True):
        # Widened here, one object at a time: the whole extent would take several times its memory.
        table = whole.slice(start, end - start).select(layout.schema.names).cast(layout.schema).combine_chunks()
        positions = table[layout.position].chunk(0)
        yield Rows(layout.folder_of(slot), table, positions[0].as_py(), orders=_runs(positions))


def encode(layout: Layout, table: pa.Table) -> pa.Buffer:
    """One Parquet object, whole in memory. Written in one piece: the same rows in several writes make other bytes."""
    sink = pa.BufferOutputStream()
    pq.write_table(
        table,
        sink,
        version="2.6",
        row_group_size=ROW_GROUP_ROWS,
        compression="zstd",
        compression_level=1,
        use_dictionary=list(layout.repeating),
        store_schema=False,
    )
    return sink.getvalue()


def digest(table: pa.Table) -> str:
    """A fingerprint of the rows' values, in hex: the same for the same rows, whatever version of a library holds them.

    XXH3 with 128 bits over, column by column: its name, one byte a row that says whether it is null, then integers as
    64-bit little endian (null: 0), or for text and binary the lengths as such integers and all bytes joined.
    """
    fingerprint = xxhash.xxh3_128()
    for name, column in zip(table.column_names, table.columns, strict=True):
        array = column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)
        fingerprint.update(name.encode() + b"\0")
        fingerprint.update(array.is_null().cast(pa.uint8()).to_numpy().data)
        if pa.types.is_string(array.type) or pa.types.is_binary(array.type):
            filled = array.fill_null("" if pa.types.is_string(array.type) else b"")
            offsets = _offsets(filled)
            fingerprint.update(np.diff(offsets).astype("<i8").data)
            data = filled.buffers()[2]
            if data is not None:
                fingerprint.update(memoryview(data)[int(offsets[0]) : int(offsets[-1])])
        else:
            # A timestamp's integer is its milliseconds, a boolean's 0 or 1.
            numbers = array.cast(pa.int64()).fill_null(0).to_numpy()
            fingerprint.update(np.ascontiguousarray(numbers, dtype="<i8").data)
    return fingerprint.hexdigest()


def _offsets(array: pa.Array) -> npt.NDArray[np.int32]:
    """Where each value of a text or binary array begins in its data, and where the last ends."""
    offsets = np.frombuffer(array.buffers()[1], dtype=np.int32)
    return offsets[array.offset : array.offset + len(array) + 1]


def _runs(values: pa.Array) -> int:
    """How many times a value differs from the one before, and the first: messages, where each has its rows together."""
    changes = pc.sum(pc.not_equal(values.slice(1), values.slice(0, len(values) - 1))).as_py()
    return 1 + (changes or 0)
