"""The tables of the two small streams, rollups and dead letters: a row for each message. Pure."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from sales.streams import Chunk, format_position
from sales.streams.packed import Packed
from sales.times import parse_times
from sales.windows import DAY_MS
from sink.layouts import Piece, Rows
from sink.parquet import ROW_GROUP_ROWS
from sink.records import find_dead_letters, find_rollups
from sink.schemas import DEAD_LETTERS, ROLLUPS, TIME, folder_of

PIECE_BYTES = 16_384
"""What an Arrow table takes beside what is in it."""


@dataclass(frozen=True, slots=True, eq=False)
class MessageTable:
    """A ``Layout`` that holds Arrow tables, in folders of days."""

    folder: str
    version: int
    schema: pa.Schema
    repeating: tuple[str, ...]
    time: str
    """the column whose day chooses the folder"""
    position: str
    """the column that holds a message's own position"""
    decode: Callable[[Chunk], tuple[pa.Table, list[int]]]
    """a chunk's rows, and the positions of what is malformed"""

    @property
    def ranged(self) -> list[str]:
        """See ``Layout``."""
        names: list[str] = self.schema.names
        return names

    def hold(self, run: Packed) -> Piece[pa.Table]:
        """See ``Layout``."""
        table, rejected = self.decode(run.chunk())
        return Piece(table, rejected, PIECE_BYTES + table.get_total_buffer_size())

    def objects(self, partition: str, pieces: Sequence[pa.Table]) -> Iterator[Rows]:  # noqa: ARG002 (in the rows)
        """See ``Layout``."""
        whole = pa.concat_tables(pieces).unify_dictionaries().cast(self.schema).combine_chunks()
        days = pc.cast(whole[self.time], pa.int64()).to_numpy() // DAY_MS
        for day in np.unique(days).tolist():
            table = whole.filter(pa.array(days == day)).combine_chunks()
            yield Rows(
                folder=folder_of(self.folder, day, hourly=False),
                first_position=table[self.position][0].as_py(),
                orders=table.num_rows,
                rows=table.num_rows,
                groups=(table.slice(start, ROW_GROUP_ROWS) for start in range(0, table.num_rows, ROW_GROUP_ROWS)),
            )


def rollups_layout(stream: str, digits: int) -> MessageTable:
    """One row for each rollup as it was sent: of one scope and minute the highest version is right, if none is stale.

    Args:
        stream: the stream's id.
        digits: how many its positions are written with.
    """

    def decode(chunk: Chunk) -> tuple[pa.Table, list[int]]:
        rollups = find_rollups(chunk.values)
        found = rollups.records
        columns = {
            "minute": _times(parse_times([r.minute for r in found])),
            "scope": _text([r.scope for r in found]),
            "country": _text([r.country for r in found]),
            "category": _text([r.category for r in found]),
            "version": _integers([r.version for r in found]),
            "orders": _integers([r.orders for r in found]),
            "returns": _integers([r.returns for r in found]),
            "units": _integers([r.units for r in found]),
            "sales_minor": _integers([r.sales_minor for r in found]),
            "refunded_minor": _integers([r.refunded_minor for r in found]),
            "revenue_minor": _integers([r.revenue_minor for r in found]),
            "stale": pa.array([r.stale for r in found], pa.bool_()),
            "stream": _constant(stream, len(found)),
            "partition": _constant(chunk.partition, len(found)),
            "position": _positions([chunk.positions[row] for row in rollups.rows], digits),
            "accepted_at": _integers([chunk.broker_times[row] for row in rollups.rows]).cast(TIME),
        }
        return pa.table(columns), rollups.missing(chunk.positions)

    return MessageTable(
        folder="rollups",
        version=1,
        schema=ROLLUPS,
        repeating=("scope", "country", "category", "stream", "partition"),
        time="minute",
        position="position",
        decode=decode,
    )


def dead_letters_layout(stream: str, digits: int) -> MessageTable:
    """One row for each dead letter as it was sent; ``stream``, ``partition`` and ``position`` are those of the message
    that was refused (its identity: sent twice it is one), ``archived_*`` those of the letter itself.

    Args:
        stream: the id of the stream of dead letters.
        digits: how many its positions are written with.
    """

    def decode(chunk: Chunk) -> tuple[pa.Table, list[int]]:
        letters = find_dead_letters(chunk.values)
        found = [record.letter for record in letters.records]
        columns = {
            "stream": _text([letter.stream for letter in found]),
            "partition": _text([letter.partition for letter in found]),
            "position": _text([letter.position for letter in found]),
            "broker_time": _times(parse_times([letter.broker_time for letter in found])),
            "key": pa.array([record.key for record in letters.records], pa.binary()),
            "reason": _text([letter.reason for letter in found]),
            "detail": _text([letter.detail for letter in found]),
            "raw": pa.array([record.raw for record in letters.records], pa.binary()),
            "raw_bytes": _integers([letter.raw_bytes for letter in found]),
            "raw_sha256": _text([letter.raw_sha256 for letter in found]),
            "archived_stream": _constant(stream, len(found)),
            "archived_partition": _constant(chunk.partition, len(found)),
            "archived_position": _positions([chunk.positions[row] for row in letters.rows], digits),
            "archived_at": _integers([chunk.broker_times[row] for row in letters.rows]).cast(TIME),
        }
        return pa.table(columns), letters.missing(chunk.positions)

    return MessageTable(
        folder="dead-letters",
        version=1,
        schema=DEAD_LETTERS,
        repeating=("stream", "partition", "reason", "archived_stream", "archived_partition"),
        time="broker_time",
        position="archived_position",
        decode=decode,
    )


def _text(values: list[str] | list[str | None]) -> pa.Array:
    return pa.array(values, pa.string())


def _integers(values: list[int]) -> pa.Array:
    return pa.array(values, pa.int64())


def _times(ms: npt.NDArray[np.int64]) -> pa.Array:
    return pa.array(ms).cast(TIME)


def _constant(value: str, rows: int) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int32)), pa.array([value]))


def _positions(positions: list[int], digits: int) -> pa.Array:
    return _text([format_position(position, digits) for position in positions])
