"""Orders on their way to the sums: two tables of numbers, one row a field. Pure.

Texts are codes of the `Dictionaries` that the orders were decoded with, and an order's id is its keyed hash.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sales.columnar.texts import Dictionaries
from sales.orders import discount_amount

Int64s = npt.NDArray[np.int64]
Uint64s = npt.NDArray[np.uint64]

ORDER_COLUMNS = 10
ROW, EVENT_TIME, FLAGS, COUNTRY, ID_LOW, ID_HIGH, CUSTOMER, ORIGINAL, LINES, ORIGINAL_PLACE = range(ORDER_COLUMNS)
"""Of each order: which message it was; ms since 1970; flags; two letters as 26 x first + second; the two hashes of its
id; customer id or 0; hash of the original order's id or 0; its number of lines; the byte of the message where the
original order's id begins, times ORIGINAL_BYTES, and how many it has, or 0 where the scanner did not read it."""

ORIGINAL_BYTES = 128
"""More than an id has that the scanner reads."""

IS_RETURN, HAS_CUSTOMER, HAS_ORIGINAL = 1, 2, 4
"""Flags."""

LINE_COLUMNS = 8
ORDER, PRODUCT, NAME, CATEGORY, QUANTITY, UNIT_AMOUNT, DISCOUNT, UNIT_COST = range(LINE_COLUMNS)
"""Of each line: the column of its order; codes of three texts; four numbers, -1 where no cost is known."""


@dataclass(frozen=True, slots=True, eq=False)
class Columns:
    """Orders in the order of their messages, and their lines in theirs."""

    orders: Int64s
    """shape (ORDER_COLUMNS, orders)"""
    lines: Int64s
    """shape (LINE_COLUMNS, lines), ``ORDER`` ascending"""

    def __len__(self) -> int:
        return int(self.orders.shape[1])

    def net(self) -> Int64s:
        """Per line: gross less discount, >= 0."""
        gross: Int64s = self.lines[QUANTITY] * self.lines[UNIT_AMOUNT]
        percents = self.lines[DISCOUNT]
        return gross - discount_amount(gross, percents) if percents.any() else gross

    def take(self, kept: npt.NDArray[np.bool_]) -> "Columns":
        """The orders where ``kept`` is true, with their lines."""
        if kept.all():
            return self
        # compress and take leave each column in one piece; indexing would lay out rows.
        lines = np.compress(kept[self.lines[ORDER]], self.lines, axis=1)
        lines[ORDER] = (np.cumsum(kept) - 1)[lines[ORDER]]
        return Columns(orders=np.compress(kept, self.orders, axis=1), lines=lines)


def merge(parts: Sequence[Columns]) -> Columns:
    """The orders of all, in the order of their rows."""
    counts = [len(part) for part in parts]
    orders = np.concatenate([part.orders for part in parts], axis=1)
    lines = np.concatenate([part.lines for part in parts], axis=1)
    lines[ORDER] += np.repeat(np.cumsum([0, *counts[:-1]]), [part.lines.shape[1] for part in parts])
    order = np.argsort(orders[ROW], kind="stable")
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    lines[ORDER] = place[lines[ORDER]]
    lines = np.take(lines, np.argsort(lines[ORDER], kind="stable"), axis=1)
    return Columns(orders=np.take(orders, order, axis=1), lines=lines)


def contents(columns: Columns, dictionaries: Dictionaries, multipliers: Uint64s) -> Uint64s:
    """A digest of each order's content without its identity: equal content is a duplicate, other content a conflict.

    Multiply and add under secret odd multipliers, as in multilinear hashing (Lemire and Kaser, 2014), once over each
    line and once over each order. It decides what a second event with a known identity is called, and no sum depends
    on it: 64 bits are enough.

    Args:
        columns: the orders.
        dictionaries: what their texts' codes mean.
        multipliers: CONTENT_MULTIPLIERS odd numbers.
    """
    orders, lines = columns.orders.view(np.uint64), columns.lines.view(np.uint64)
    line = dictionaries.products.hashes(columns.lines[PRODUCT]) * multipliers[0]
    line += dictionaries.names.hashes(columns.lines[NAME]) * multipliers[1]
    line += dictionaries.categories.hashes(columns.lines[CATEGORY]) * multipliers[2]
    for multiplier, field in zip(multipliers[3:], (QUANTITY, UNIT_AMOUNT, DISCOUNT, UNIT_COST), strict=False):
        line += lines[field] * multiplier
    _stir(line)
    first = np.cumsum(columns.orders[LINES]) - columns.orders[LINES]
    number = np.arange(len(line)) - first[columns.lines[ORDER]]
    line *= number.astype(np.uint64) * multipliers[7] * np.uint64(2) + multipliers[8]
    content: Uint64s = np.add.reduceat(line, first) if len(columns) else line
    for multiplier, field in zip(multipliers[9:], (FLAGS, COUNTRY, CUSTOMER, ORIGINAL, LINES), strict=True):
        content += orders[field] * multiplier
    _stir(content)
    return content


CONTENT_MULTIPLIERS = 14


def _stir(words: Uint64s) -> None:
    """Spreads every bit over the lower half and back (the finish of MurmurHash3, A. Appleby), in place."""
    words ^= words >> np.uint64(33)
    words *= np.uint64(0xFF51AFD7ED558CCD)
    words ^= words >> np.uint64(33)
