"""From messages to columns of acceptable orders, and rejections. Pure.

Two tiers with one answer: the compiled scanner takes the well-formed majority where numba is there; what it leaves,
and everything where it is not, goes through `sales.orders`, which decodes with msgspec and explains with pydantic.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sales.columnar import columns as c
from sales.columnar.columns import Columns, Int64s, Uint64s
from sales.columnar.countries import COUNTRY_CODES, country_code
from sales.columnar.scopes import Scopes
from sales.columnar.texts import (
    DEFAULT_CATEGORY,
    DEFAULT_NAME,
    Dictionaries,
    Dictionary,
    Key,
    PlainDictionary,
    text_hash,
)
from sales.orders import Batch, decode
from sales.rejections import Rejection
from sales.rules import EARLIEST_EVENT_TIME_MS, FUTURE_ALLOWANCE_MS, MAX_AMOUNT, Rules
from sales.streams.packed import Packed

try:
    from sales.columnar import scanner
except ImportError:  # numba has no wheel for this machine, or is not wanted
    scanner = None  # type: ignore[assignment]

LEAST_LINE_BYTES = 45
"""``{"product_id":"1","quantity":1,"unit_amount":0}`` has 47: no message holds more lines than its bytes allow."""

MOST_TEXTS = 1 << 21
"""Texts in one dictionary: twice the products that any shop sells in a day."""

MOST_TEXT_BYTES = 1 << 26
"""In the texts of all dictionaries together; their places and hashes come to some more."""


@dataclass(frozen=True, slots=True, eq=False)
class Decoded:
    """What became of some runs of messages: every message is an order in ``columns`` or one of ``rejected``."""

    runs: list[Packed]
    columns: Columns
    """rows count through all runs; the memory is the decoder's, until it decodes again"""
    rejected: list[tuple[Packed, Rejection]]
    """with the run that it was in"""
    scanned: int
    """how many messages the compiled tier took"""


@dataclass(frozen=True, slots=True)
class Secrets:
    """Keys of all hashes of one deployment, from one seed: nobody outside can craft two orders with one hash."""

    low: Key
    """of an id's first hash, and of texts"""
    high: Key
    """of an id's second hash"""
    multipliers: Uint64s

    @classmethod
    def of(cls, seed: int) -> "Secrets":
        """Stretches a seed of up to 128 bits."""
        raw = hashlib.shake_256(seed.to_bytes(16, "little")).digest(8 * (4 + c.CONTENT_MULTIPLIERS))
        words = np.frombuffer(raw, dtype=np.uint64)
        low, high = words[:4].tolist()[:2], words[:4].tolist()[2:]
        return cls(low=(low[0], low[1]), high=(high[0], high[1]), multipliers=words[4:] | np.uint64(1))


class Decoder:
    """Decodes the messages of one pipeline. One thread."""

    def __init__(self, rules: Rules, secrets: Secrets, *, compiled: bool = scanner is not None) -> None:
        """Empty dictionaries.

        Args:
            rules: the pipeline's currency and countries.
            secrets: keys of all hashes.
            compiled: whether the compiled tier takes what it can.
        """
        self._rules = rules
        self._secrets = secrets
        self._plain = _PlainTier(rules, secrets)
        self._scanner = _Scanner(rules, secrets) if compiled else None
        self.dictionaries = self._new_dictionaries()

    @property
    def compiled(self) -> bool:
        """Whether the compiled tier takes part."""
        return self._scanner is not None

    def decode(self, runs: Iterable[Packed]) -> Decoded:
        """Decodes some runs, each of one partition. Each is scanned as soon as it comes, while its bytes are still in
        the processor's cache; what follows is done once for all."""
        taken: list[Packed] = []
        starts = [0]
        flags: list[npt.NDArray[np.uint8]] = []
        if self._scanner is not None:
            self._scanner.begin(self.dictionaries)
        for run in runs:
            if self._scanner is not None:
                flags.append(self._scanner.scan(run, starts[-1]))
            taken.append(run)
            starts.append(starts[-1] + len(run))
        left = np.ones(starts[-1], dtype=np.bool_)
        parts: list[Columns] = []
        if self._scanner is not None and taken:
            left = np.concatenate(flags).astype(np.bool_)
            columns = self._scanner.columns()
            kept = self._keep(columns, taken)
            left[columns.orders[c.ROW][~kept]] = True
            parts.append(columns.take(kept))
        scanned = len(parts[0]) if parts else 0
        rejected: list[tuple[Packed, Rejection]] = []
        if left.any():
            for run, start in zip(taken, starts, strict=False):
                rows = np.flatnonzero(left[start : start + len(run)])
                if len(rows):
                    accepted, refused = self._plain.decode(run, rows, start, self.dictionaries)
                    rejected += [(run, rejection) for rejection in refused]
                    if len(accepted):
                        parts.append(accepted)
        merged = parts[0] if len(parts) == 1 else c.merge(parts) if parts else _nothing()
        return Decoded(
            runs=taken,
            columns=merged,
            rejected=rejected,
            scanned=scanned,
        )

    def contents(self, columns: Columns) -> Uint64s:
        """One digest for each order that was decoded with the present dictionaries, see `columns.contents`."""
        return c.contents(columns, self.dictionaries, self._secrets.multipliers)

    def bound(self) -> None:
        """Begins with empty dictionaries again when there is too much text in them (ids that never come back); what
        was decoded before keeps the old ones."""
        texts = (self.dictionaries.products, self.dictionaries.names, self.dictionaries.categories)
        if max(map(len, texts)) > MOST_TEXTS or sum(text.size() for text in texts) > MOST_TEXT_BYTES:
            self.dictionaries = self._new_dictionaries()

    def _new_dictionaries(self) -> Dictionaries:
        def fresh(*first: str) -> Dictionary:
            dictionary = PlainDictionary(self._secrets.low) if self._scanner is None else self._scanner.dictionary()
            for text in first:
                dictionary.code(text)
            return dictionary

        categories = fresh(DEFAULT_CATEGORY)
        return Dictionaries(fresh(), fresh(DEFAULT_NAME), categories, Scopes(categories))

    def _keep(self, columns: Columns, runs: Sequence[Packed]) -> npt.NDArray[np.bool_]:
        """One flag an order: does it keep the rules that the scanner does not look at?"""
        times = columns.orders[c.EVENT_TIME]
        broker_times = np.concatenate([run.broker_times for run in runs])[columns.orders[c.ROW]]
        kept: npt.NDArray[np.bool_] = (times >= EARLIEST_EVENT_TIME_MS) & (times <= broker_times + FUTURE_ALLOWANCE_MS)
        return kept & _within_amounts(columns)


def _within_amounts(columns: Columns) -> npt.NDArray[np.bool_]:
    """One flag an order: its pieces, its gross and its cost are at most MAX_AMOUNT.

    Nearly always the largest numbers of all lines prove it for every order; else each order is looked at. The product
    of two allowed numbers reaches 1e24, beyond int64: floating point finds those that can't be added up exactly.
    """
    kept = np.ones(len(columns), dtype=np.bool_)
    if not len(columns):
        return kept
    lines = columns.lines
    quantities, amounts, costs = lines[c.QUANTITY], lines[c.UNIT_AMOUNT], np.maximum(lines[c.UNIT_COST], 0)
    dearest = max(1, int(amounts.max()), int(costs.max()))
    if int(quantities.max()) * dearest * int(columns.orders[c.LINES].max()) <= MAX_AMOUNT:
        return kept
    for units in (np.ones_like(amounts), amounts, costs):
        too_large = quantities.astype(np.float64) * units > 2.0 * MAX_AMOUNT
        kept[lines[c.ORDER][too_large]] = False
        sums = np.zeros(len(columns), dtype=np.int64)
        np.add.at(sums, lines[c.ORDER], np.where(too_large, 0, quantities * units))
        kept &= sums <= MAX_AMOUNT
    return kept


class _Scanner:
    """The compiled tier: the scanner with the memory that it writes to."""

    def __init__(self, rules: Rules, secrets: Secrets) -> None:
        self._low = secrets.low
        self._keys = np.array([*secrets.low, *secrets.high], dtype=np.uint64)
        self._currency = np.uint64(int.from_bytes(f'{rules.currency}"'.encode(), "little"))
        self._countries = np.zeros(COUNTRY_CODES, dtype=np.uint8)
        for country in rules.countries:
            self._countries[country_code(country)] = 1
        self._orders = np.empty((c.ORDER_COLUMNS, 0), dtype=np.int64)
        self._lines = np.empty((c.LINE_COLUMNS, 0), dtype=np.int64)
        self._column = self._line = 0
        self._texts: list[Dictionary] = []
        self._headers = np.zeros(5, dtype=np.int64)
        self._memos = scanner.no_memos(0)

    def dictionary(self) -> Dictionary:
        """A new one that this tier can add to."""
        return scanner.ScannedDictionary(self._low)

    def begin(self, dictionaries: Dictionaries) -> None:
        """Forgets what was scanned before; texts go to these dictionaries from now on."""
        self._column = self._line = 0
        texts = [dictionaries.products, dictionaries.names, dictionaries.categories]
        # Memos hold codes of these dictionaries, and half of them at most should be taken.
        crowded = 2 * len(dictionaries.products) > len(self._memos) < scanner.MOST_MEMOS
        if texts != self._texts or crowded:
            self._texts = texts
            self._memos = scanner.no_memos(len(dictionaries.products))
            headers = [text.header for text in texts]  # type: ignore[attr-defined]  # see dictionary()
            self._headers[:] = [*headers, self._memos.ctypes.data, len(self._memos) - 1]

    def scan(self, run: Packed, first_row: int) -> npt.NDArray[np.uint8]:
        """Adds what it takes of a run; 1 for each message that it leaves.

        Args:
            run: the messages.
            first_row: the row of the first one.
        """
        self._orders = _widened(self._orders, self._column, len(run))
        self._lines = _widened(self._lines, self._line, len(run.data) // LEAST_LINE_BYTES + 1)
        left = np.ones(len(run), dtype=np.uint8)
        message = 0
        while message < len(run):
            message, self._column, self._line = scanner.scan(
                run.data.ctypes.data,
                run.key_starts,
                run.key_ends,
                run.value_starts,
                run.value_ends,
                message,
                first_row,
                self._column,
                self._line,
                self._orders.ctypes.data,
                self._orders.shape[1],
                self._lines.ctypes.data,
                self._lines.shape[1],
                self._currency,
                self._countries.ctypes.data,
                self._keys.ctypes.data,
                self._headers.ctypes.data,
                left,
            )
            if message < len(run):
                for text in self._texts:
                    text.make_room()  # type: ignore[attr-defined]
        return left

    def columns(self) -> Columns:
        """What was taken since `begin`."""
        return Columns(orders=self._orders[:, : self._column], lines=self._lines[:, : self._line])


def _widened(table: Int64s, used: int, more: int) -> Int64s:
    """A table with room for so many columns more."""
    if used + more <= table.shape[1]:
        return table
    wider = np.empty((table.shape[0], max(used + more, 2 * table.shape[1])), dtype=np.int64)
    wider[:, :used] = table[:, :used]
    return wider


class _PlainTier:
    """The careful tier, which takes every message."""

    def __init__(self, rules: Rules, secrets: Secrets) -> None:
        self._rules = rules
        self._low, self._high = text_hash(secrets.low), text_hash(secrets.high)

    def decode(
        self, run: Packed, rows: Int64s, first_row: int, dictionaries: Dictionaries
    ) -> tuple[Columns, list[Rejection]]:
        """Orders and rejections of some messages of a run, whose first message has the row ``first_row``."""
        numbers = rows.tolist()
        decoded = decode(
            self._rules,
            [run.key(number) for number in numbers],
            [run.value(number) for number in numbers],
            [int(run.positions[number]) for number in numbers],
            run.broker_times[rows].tolist(),
        )
        row_of = {int(run.positions[number]): first_row + number for number in numbers}
        return self._columns(decoded.accepted, row_of, dictionaries), decoded.rejected

    def _columns(self, batch: Batch, row_of: dict[int, int], dictionaries: Dictionaries) -> Columns:
        orders = np.zeros((c.ORDER_COLUMNS, len(batch)), dtype=np.int64)
        orders[c.ROW] = [row_of[position] for position in batch.positions]
        orders[c.EVENT_TIME] = batch.event_times
        orders[c.FLAGS] = batch.is_return * c.IS_RETURN
        orders[c.COUNTRY] = [country_code(country) for country in batch.countries]
        ids = [order_id.encode() for order_id in batch.order_ids]
        words = orders.view(np.uint64)
        words[c.ID_LOW] = np.fromiter(map(self._low, ids), np.uint64, len(ids))
        words[c.ID_HIGH] = np.fromiter(map(self._high, ids), np.uint64, len(ids))
        for row, customer in enumerate(batch.customer_ids):
            if customer is not None:
                orders[c.CUSTOMER, row] = customer
                orders[c.FLAGS, row] |= c.HAS_CUSTOMER
        for row, original in enumerate(batch.original_order_ids):
            if original is not None:
                words[c.ORIGINAL, row] = self._low(original.encode())
                orders[c.FLAGS, row] |= c.HAS_ORIGINAL
        orders[c.LINES] = np.bincount(batch.line_order, minlength=len(batch))
        lines = np.empty((c.LINE_COLUMNS, len(batch.line_order)), dtype=np.int64)
        lines[c.ORDER] = batch.line_order
        for field, texts, dictionary in (
            (c.PRODUCT, batch.product_ids, dictionaries.products),
            (c.NAME, batch.product_names, dictionaries.names),
            (c.CATEGORY, batch.categories, dictionaries.categories),
        ):
            lines[field] = np.fromiter(map(dictionary.code, texts), np.int64, len(texts))
        lines[c.QUANTITY] = batch.quantities
        lines[c.UNIT_AMOUNT] = batch.unit_amounts
        lines[c.DISCOUNT] = batch.discount_percents
        lines[c.UNIT_COST] = batch.unit_costs
        return Columns(orders=orders, lines=lines)


def _nothing() -> Columns:
    return Columns(
        orders=np.zeros((c.ORDER_COLUMNS, 0), dtype=np.int64), lines=np.zeros((c.LINE_COLUMNS, 0), dtype=np.int64)
    )
