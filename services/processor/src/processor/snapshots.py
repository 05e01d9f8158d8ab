"""What the processor keeps across a crash, and its form on disk. Pure.

State is a log of deltas: each holds what was added since the one before, so what is written follows what changed. The
delta from nothing (a dump) begins a new log.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np

from processor.panes import Cells, ProductName, cells

FORMAT = 2
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
    cells: dict[str, Cells]
    """by table: products, categories, countries, minutes"""
    product_names: dict[str, ProductName]
    sent: dict[int, int]
    """minute to its number of events when its rollup was last sent"""


def merge(parts: Sequence[Cells], columns: int) -> Cells:
    """One table of cells with the sums of all."""
    names: dict[str, int] = {}
    codes = []
    for part in parts:
        own = np.array([names.setdefault(name, len(names)) for name in part.names], dtype=np.int64)
        codes.append(own[part.codes])
    nothing = np.zeros(0, dtype=np.int64)
    return cells(
        list(names),
        np.concatenate([nothing, *(part.panes for part in parts)]),
        np.concatenate([nothing, *codes]),
        np.concatenate([nothing.reshape(0, columns), *(part.sums for part in parts)]),
    )


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
            "cells": {
                table: [part.names, part.panes.tobytes(), part.codes.tobytes(), part.sums.tobytes(), part.sums.shape[1]]
                for table, part in delta.cells.items()
            },
            "product_names": {
                product: [name.event_time, str(name.position), name.partition, name.name]
                for product, name in delta.product_names.items()
            },
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
        cells={
            table: Cells(
                names=names,
                panes=np.frombuffer(panes, dtype=np.int64),
                codes=np.frombuffer(codes, dtype=np.int64),
                sums=np.frombuffer(sums, dtype=np.int64).reshape(-1, columns),
            )
            for table, (names, panes, codes, sums, columns) in document["cells"].items()
        },
        product_names={
            product: ProductName(event_time, int(position), partition, name)
            for product, (event_time, position, partition, name) in document["product_names"].items()
        },
        sent=dict(document["sent"]),
    )


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder().decode
