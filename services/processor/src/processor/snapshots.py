"""What the processor keeps across a crash, and its form on disk. Pure.

State is a log of deltas: each holds what was added since the one before, so what is written follows what changed. The
delta from nothing (a dump) begins a new log.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from processor.cells import Cells, ListedNames, listed
from processor.labels import LatestNames

FORMAT = 4
"""Changes when older code could not read what newer code writes, or the other way round."""


class SnapshotError(Exception):
    """The bytes are no snapshot that this version reads; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Delta:
    """What was added since the last delta, and the small things as they stand now."""

    as_of: int
    max_event_time: int
    positions: dict[str, tuple[int, int]]
    """partition to (last applied position, digits)"""
    counts: dict[str, int]
    known_from: int
    """start of the first window of all, where it was one of the wall clock; else 0"""
    late: int
    cells: dict[str, list[Cells]]
    """by table (products, categories, countries, minutes): what is to be added up; a table's parts share their names"""
    product_names: LatestNames
    sent: dict[int, int]
    """minute to its number of events when its rollup was last sent"""


def encode(delta: Delta) -> bytes:
    """A delta as bytes."""
    return _encode(
        {
            "format": FORMAT,
            "as_of": delta.as_of,
            "max_event_time": delta.max_event_time,
            # Kinesis positions have 186 bits, more than msgpack's integers.
            "positions": {name: [str(position), digits] for name, (position, digits) in delta.positions.items()},
            "counts": delta.counts,
            "known_from": delta.known_from,
            "late": delta.late,
            "cells": {table: _table(parts) for table, parts in delta.cells.items()},
            "product_names": _names(delta.product_names),
            "sent": list(delta.sent.items()),
        }
    )


def decode(payload: bytes) -> Delta:
    """Bytes to a delta.

    Raises:
        SnapshotError: another version wrote them, or they are none.
    """
    try:
        document: dict[str, Any] = _decode(payload)
    except msgspec.MsgspecError as error:
        raise SnapshotError(f"the snapshot can't be read ({error}): remove RECOVERY_DIR to rebuild it") from error
    if document.get("format") != FORMAT:
        raise SnapshotError(
            f"the snapshot has format {document.get('format')}, this version reads {FORMAT}: "
            "run the version that wrote it, or remove RECOVERY_DIR to rebuild it from the stream"
        )
    return Delta(
        as_of=document["as_of"],
        max_event_time=document["max_event_time"],
        positions={name: (int(position), digits) for name, (position, digits) in document["positions"].items()},
        counts=document["counts"],
        known_from=document["known_from"],
        late=document["late"],
        cells={table: _cells_of(*written) for table, written in document["cells"].items()},
        product_names=_names_of(*document["product_names"]),
        sent=dict(document["sent"]),
    )


def _table(parts: list[Cells]) -> list[Any]:
    own = listed(parts)
    names = own[0].names
    texts = [
        names.text(code) for code in range(max((int(part.codes.max()) + 1 for part in own if len(part)), default=0))
    ]
    rows = [[part.panes.tobytes(), part.codes.tobytes(), part.sums.tobytes()] for part in own]
    return [texts, own[0].sums.shape[1], rows]


def _cells_of(texts: list[str], columns: int, rows: list[list[bytes]]) -> list[Cells]:
    names = ListedNames(texts)
    return [
        Cells(
            names,
            np.frombuffer(panes, dtype=np.int64),
            np.frombuffer(codes, dtype=np.int64),
            np.frombuffer(sums, dtype=np.int64).reshape(-1, columns),
        )
        for panes, codes, sums in rows
    ]


def _names(latest: LatestNames) -> list[Any]:
    return [
        [latest.products.text(code) for code in latest.product_codes.tolist()],
        [latest.names.text(code) for code in latest.name_codes.tolist()],
        latest.event_times.tobytes(),
        # Kinesis positions have 186 bits, more than msgpack's integers.
        list(map(str, latest.positions.tolist())),
        latest.partitions.tolist(),
    ]


def _names_of(
    products: list[str], names: list[str], event_times: bytes, positions: list[str], partitions: list[str]
) -> LatestNames:
    own = np.arange(len(products))
    return LatestNames(
        products=ListedNames(products),
        product_codes=own,
        names=ListedNames(names),
        name_codes=own,
        event_times=np.frombuffer(event_times, dtype=np.int64),
        positions=_objects(map(int, positions)),
        partitions=_objects(partitions),
    )


def _objects(values: Iterable[Any]) -> npt.NDArray[np.object_]:
    listed = list(values)
    objects = np.empty(len(listed), dtype=np.object_)
    objects[:] = listed
    return objects


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder().decode
