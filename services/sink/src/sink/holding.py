"""Orders as the archive holds them until their extent is stored: columns in memory of their own. Pure.

What a decoder gives is lent, and wide; here each column is copied as narrow as its numbers are, which takes about a
quarter of what the messages did. Texts of lines stay the codes that they were decoded to.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Self

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from sales.columnar import columns as c
from sales.columnar.decoding import Decoded
from sales.columnar.texts import Dictionaries, Dictionary, PlainDictionary
from sales.streams.packed import Packed

Integers = npt.NDArray[Any]
"""int32 or int64; Kinesis's positions, which need 187 bits, are Python's own"""


PIECE_BYTES = 4_096
"""What the arrays of one ``Held`` take beside what is in them."""


@dataclass(frozen=True, slots=True, eq=False)
class Codes:
    """A text for each line, by number."""

    codes: npt.NDArray[np.int32]
    dictionary: Dictionary

    @property
    def nbytes(self) -> int:
        """In memory, without the dictionary."""
        return self.codes.nbytes


@dataclass(frozen=True, slots=True, eq=False)
class Held:
    """Orders of one partition and their lines, both in the order of the stream until ``take`` gives them another."""

    positions: Integers
    broker_times: Integers
    """ms since 1970"""
    event_times: Integers
    """ms since 1970"""
    customers: Integers
    """anything where the flags say that there is none"""
    flags: npt.NDArray[np.uint8]
    countries: npt.NDArray[np.int16]
    """see ``sales.columnar.countries``"""
    line_counts: npt.NDArray[np.int32]
    ids: pa.StringArray
    originals: pa.StringArray
    """ids of the orders that returns are of; null where there is none"""

    products: Codes
    names: Codes
    categories: Codes
    quantities: Integers
    unit_amounts: Integers
    discounts: npt.NDArray[np.int8]
    unit_costs: Integers
    """-1 where no cost is known"""

    def __len__(self) -> int:
        return len(self.flags)

    def size(self) -> int:
        """Bytes in memory, all told: a piece of one order is nearly all arrays' own."""
        large = 52 * len(self) if self.positions.dtype == object else 0
        arrays = sum(int(getattr(self, field.name).nbytes) for field in fields(self))
        return PIECE_BYTES + large + arrays

    def take(self, order: npt.NDArray[np.intp]) -> Self:
        """The orders with these numbers, each with its lines."""
        counts = self.line_counts[order]
        first = np.cumsum(self.line_counts, dtype=np.intp) - self.line_counts
        lines = np.repeat(first[order] - (np.cumsum(counts) - counts), counts)
        lines += np.arange(len(lines))
        places = pa.array(order)

        def taken(name: str) -> Any:
            column = getattr(self, name)
            if isinstance(column, pa.Array):
                return column.take(places)
            if isinstance(column, Codes):
                return Codes(column.codes[lines], column.dictionary)
            return column[lines if name in _OF_LINES else order]

        return type(self)(**{field.name: taken(field.name) for field in fields(self)})


_OF_LINES = frozenset({"quantities", "unit_amounts", "discounts", "unit_costs"})


def hold(decoded: Decoded, dictionaries: Dictionaries) -> Held:
    """Copies what became orders.

    Args:
        decoded: a single run.
        dictionaries: those that it was decoded with.
    """
    [run] = decoded.runs
    orders, lines = decoded.columns.orders, decoded.columns.lines
    rows = orders[c.ROW]
    positions = run.positions if isinstance(run.positions, np.ndarray) else np.array(run.positions, dtype=object)
    return Held(
        positions=positions[rows],
        broker_times=run.broker_times[rows],
        event_times=orders[c.EVENT_TIME].copy(),
        customers=_narrow(orders[c.CUSTOMER]),
        flags=orders[c.FLAGS].astype(np.uint8),
        countries=orders[c.COUNTRY].astype(np.int16),
        line_counts=orders[c.LINES].astype(np.int32),
        ids=_texts(run.data, run.key_starts[rows], run.key_ends[rows]),  # an order's key is its id
        originals=_originals(run, orders),
        products=Codes(lines[c.PRODUCT].astype(np.int32), dictionaries.products),
        names=Codes(lines[c.NAME].astype(np.int32), dictionaries.names),
        categories=Codes(lines[c.CATEGORY].astype(np.int32), dictionaries.categories),
        quantities=_narrow(lines[c.QUANTITY]),
        unit_amounts=_narrow(lines[c.UNIT_AMOUNT]),
        discounts=lines[c.DISCOUNT].astype(np.int8),
        unit_costs=_narrow(lines[c.UNIT_COST]),
    )


def join(pieces: Sequence[Held]) -> Held:
    """All orders of some pieces, one after the other; at least one piece."""

    def joined(name: str) -> Any:
        columns = [getattr(piece, name) for piece in pieces]
        if isinstance(columns[0], pa.Array):
            return pa.concat_arrays(columns)
        if isinstance(columns[0], Codes):
            return _joined(columns)
        return np.concatenate(columns)

    return Held(**{field.name: joined(field.name) for field in fields(Held)})


def _narrow(column: npt.NDArray[np.int64]) -> Integers:
    """A copy, in four bytes each if they fit."""
    fits = not len(column) or (column.max() <= np.iinfo(np.int32).max and column.min() >= np.iinfo(np.int32).min)
    return column.astype(np.int32 if fits else np.int64)


def _texts(data: npt.NDArray[np.uint8], starts: npt.NDArray[np.int64], ends: npt.NDArray[np.int64]) -> pa.StringArray:
    """Texts that lie in some bytes, copied; they must be UTF-8."""
    # Seen as 2n - 1 texts with the gaps between them, every second is wanted; Arrow copies them without an object each.
    offsets = np.empty(2 * len(starts), dtype=np.int32)
    offsets[::2], offsets[1::2] = starts, ends
    if not len(offsets):
        return pa.array([], pa.string())
    all_of_it = pa.Array.from_buffers(
        pa.string(), len(offsets) - 1, [None, pa.py_buffer(offsets), pa.py_buffer(data)], null_count=0
    )
    return all_of_it.take(pa.array(np.arange(0, len(offsets), 2, dtype=np.int32)))


def _originals(run: Packed, orders: npt.NDArray[np.int64]) -> pa.StringArray:
    """The ids of the orders that returns are of: few have one."""
    has = orders[c.FLAGS] & c.HAS_ORIGINAL != 0
    if not has.any():
        return pa.nulls(len(has), pa.string())
    rows, places = orders[c.ROW][has], orders[c.ORIGINAL_PLACE][has]
    start, length = np.divmod(places, c.ORIGINAL_BYTES)
    start += run.value_starts[rows]
    found = _texts(run.data, start, start + length)
    if not places.all():
        unread = [_return(run.value(row)).original_order_id for row in rows.tolist()]
        found = pa.array(unread, pa.string())
    return found.take(pa.array(np.cumsum(has) - 1, mask=~has))


class _Return(msgspec.Struct):
    original_order_id: str | None = None
    """of a name that comes twice the last one counts, and the first may be null"""


_return = msgspec.json.Decoder(_Return).decode


def _joined(columns: Sequence[Codes]) -> Codes:
    """One after the other. A decoder may have begun a new dictionary between two."""
    dictionary = columns[0].dictionary
    if all(column.dictionary is dictionary for column in columns):
        return Codes(np.concatenate([column.codes for column in columns]), dictionary)
    merged = PlainDictionary((0, 0))
    return Codes(np.concatenate([_recoded(column, merged) for column in columns]), merged)


def _recoded(column: Codes, dictionary: Dictionary) -> npt.NDArray[np.int32]:
    """The numbers of the same texts in another dictionary."""
    distinct, places = np.unique(column.codes, return_inverse=True)
    codes = [dictionary.code(column.dictionary.text(code)) for code in distinct.tolist()]
    recoded: npt.NDArray[np.int32] = np.array(codes, dtype=np.int32)[places]
    return recoded
