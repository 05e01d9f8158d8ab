"""What the processor keeps across a crash, and its form on disk. Pure.

State is a log of deltas: each holds what was added since the one before, so what is written follows what changed. The
delta from nothing (a dump) begins a new log.
"""

from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np

from processor.cells import Cells, ListedNames, listed
from processor.grouping import Int64s
from processor.labels import LatestNames
from processor.lost import WAY_OUT

FORMAT = 5
"""Changes when older code could not read what newer code writes, or the other way round."""


Narrow = tuple[int, str, bytes]
"""A least number, a numpy type, and how much more than the least each number is, in that type: sums are mostly small,
and panes near to each other."""


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


def check(payload: bytes) -> None:
    """Looks at the format alone.

    Raises:
        SnapshotError: another version wrote these bytes, or they are no delta.
    """
    try:
        found = _decode_head(payload).format
    except msgspec.MsgspecError as error:
        raise SnapshotError(f"the snapshot can't be read ({error}): {WAY_OUT}") from error
    if found != FORMAT:
        raise SnapshotError(
            f"the snapshot has format {found}, this version reads {FORMAT}: "
            f"run the version that wrote it, or go on with this one: {WAY_OUT}"
        )


def decode(payload: bytes) -> Delta:
    """Bytes to a delta.

    Raises:
        SnapshotError: another version wrote them, or they are none.
    """
    check(payload)
    document: dict[str, Any] = _decode(payload)
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
    rows = [[_narrow(column) for column in (part.panes, part.codes, *part.sums.T)] for part in own]
    return [texts, rows]


def _cells_of(texts: list[str], rows: list[list[Narrow]]) -> list[Cells]:
    names = ListedNames(texts)
    cells = []
    for part in rows:
        panes, codes, *sums = map(_wide, part)
        cells.append(Cells(names, panes, codes, np.stack(sums).T))
    return cells


def _narrow(numbers: Int64s) -> Narrow:
    least, most = (int(numbers.min()), int(numbers.max())) if len(numbers) else (0, 0)
    kind = next(kind for kind in ("<u1", "<u2", "<u4", "<u8") if most - least < 1 << 8 * int(kind[-1]))
    return least, kind, (numbers - least).astype(kind).tobytes()


def _wide(narrow: Narrow) -> Int64s:
    least, kind, payload = narrow
    return np.frombuffer(payload, dtype=kind).astype(np.int64) + least


def _names(latest: LatestNames) -> list[Any]:
    return [
        [latest.products.text(code) for code in latest.product_codes.tolist()],
        [latest.names.text(code) for code in latest.name_codes.tolist()],
        _narrow(latest.event_times),
        [_narrow(word) for word in latest.positions.T],
        latest.partitions,
        _narrow(latest.partition_codes),
    ]


def _names_of(
    products: list[str],
    names: list[str],
    event_times: Narrow,
    positions: list[Narrow],
    partitions: list[str],
    partition_codes: Narrow,
) -> LatestNames:
    own = np.arange(len(products))
    return LatestNames(
        products=ListedNames(products),
        product_codes=own,
        names=ListedNames(names),
        name_codes=own,
        event_times=_wide(event_times),
        positions=np.stack([_wide(word) for word in positions]).T,
        partitions=partitions,
        partition_codes=_wide(partition_codes),
    )


class _Head(msgspec.Struct):
    """What every version begins with."""

    format: int | None = None


_decode_head = msgspec.msgpack.Decoder(_Head).decode
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder().decode
