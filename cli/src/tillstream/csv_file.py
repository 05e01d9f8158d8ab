"""A CSV of stored order lines by compiled code, some thousand at a time. Needs numba."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from sink.relations import TABLES
from sink.schemas import ORDERS
from tillstream.catalogue import Catalogue
from tillstream.csv_lines import COLUMNS, HEADER, csv_lines
from tillstream.objects import Objects
from tillstream.pieces import pieces
from tillstream.reading import Progress
from tillstream.spans import Span

REPEATING = [name for name in COLUMNS if ORDERS.field(name).type == pa.string() and name != "order_id"]
"""Texts of few values, beside the rows of a row piece."""


def write_csv(catalogue: Catalogue, span: Span, path: Path, digits: int, tell: Progress) -> int:
    """Writes what is stored in a span, but for the rows in the table ``repeated``, oldest hour first.

    Args:
        catalogue: opened for the span; with a table ``repeated`` of (filename, file_row_number).
        span: of event time.
        path: to be written; a device or a pipe will do.
        digits: how many digits amounts have behind the point.
        tell: hears of the progress.

    Returns:
        How many lines were written.

    Raises:
        duckdb.Error, OSError: the file can't be written, or this machine lacks something.
        botocore.exceptions.BotoCoreError, ClientError: S3 stays away or refuses.
        StoredError: an object is not what the sink writes.
    """
    keys = catalogue.objects.glob(f"{Objects.protocol}://{TABLES[0].folder}/*")
    place = {key: number for number, key in enumerate(keys)}
    written = 0
    with path.open("wb") as file:
        file.write(HEADER)
        for piece in pieces(catalogue.objects, keys, COLUMNS, REPEATING):
            tell("writing", place[piece.key] / len(keys))
            times = piece.table["event_time"].cast(pa.int64()).to_numpy()
            wanted = (times >= span.start) & (times < span.end)
            wanted[_repeated(catalogue, piece.key, piece.first_row, len(times))] = False
            rows = np.flatnonzero(wanted)
            for lines in csv_lines(piece.table, digits).of(rows):
                file.write(lines)
            written += len(rows)
    return written


def _repeated(catalogue: Catalogue, key: str, first_row: int, rows: int) -> npt.NDArray[np.int64]:
    """Those of some rows of an object that are left out."""
    found: npt.NDArray[np.int64] = catalogue.database.array(
        "SELECT file_row_number - ? FROM repeated WHERE filename = ? AND file_row_number BETWEEN ? AND ?",
        [first_row, f"{Objects.protocol}://{key}", first_row, first_row + rows - 1],
    )
    return found
