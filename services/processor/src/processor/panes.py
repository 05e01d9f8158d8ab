"""From orders to sums per pane. Pure.

Orders are summed once, at the finest resolution (one-second panes; minutes for the rollups), and only these sums travel
on.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from processor.cells import Cells, in_panes, no_cells
from processor.grouping import Int64s, greatest, group
from processor.labels import LatestNames, position_words
from sales.columnar import columns as c
from sales.columnar.columns import Columns
from sales.columnar.countries import COUNTRIES, COUNTRY_CODES
from sales.columnar.scopes import cell_codes, scope_codes
from sales.columnar.texts import Dictionaries, Names
from sales.windows import MINUTE_MS, SECOND_MS

PRODUCT_COLUMNS = ("lines", "units", "revenue")
CATEGORY_COLUMNS = ("lines", "units", "revenue", "orders")
COUNTRY_COLUMNS = ("events", "units", "orders", "returns", "sales", "refunded")
"""What is summed for each thing. The first column counts occurrences: above 0 the thing is present, even where the
others cancel out. Units and revenue are net of returns; sales and refunded are both positive, in minor units."""


@dataclass(frozen=True, slots=True)
class Reading:
    """How some messages were read, for those who watch."""

    slot: str
    messages: int
    scanned: int
    """of them, by compiled code"""
    broker_times: dict[str, int]
    """of the last one of each partition, ms since 1970"""
    identities_bytes: int
    """what the slot's tables of identities had in memory at its last snapshot"""


@dataclass(frozen=True, slots=True, eq=False)
class Partial:
    """What some messages add to the numbers, with the positions they reach."""

    positions: dict[str, tuple[int, int]]
    """``<stream id>/<partition>`` to the last position, accepted or not, and how many digits it is written with"""
    max_event_time: int
    """of the accepted orders, ms; 0 without any"""
    products: Cells
    categories: Cells
    countries: Cells
    minutes: Cells
    """per minute: by country (``GB``) and by country and category (``GB/Home``), in COUNTRY_COLUMNS"""
    product_names: LatestNames
    counts: dict[str, int] = field(default_factory=dict)
    """accepted, duplicates, dead_letters, dead_letters:<reason>"""
    lags: dict[str, int | None] = field(default_factory=dict)
    """messages not yet read, by partition; None where that is not known"""
    readings: list[Reading] = field(default_factory=list)


@dataclass(frozen=True, slots=True, eq=False)
class Origin:
    """Where rows of columns come from: one run of messages."""

    partition: str
    """``<stream id>/<partition>``"""
    positions: Sequence[int] | Int64s
    """one a message"""
    position_digits: int

    def __len__(self) -> int:
        return len(self.positions)


Summarise = Callable[[Columns, Dictionaries, Sequence[Origin]], Partial]
"""`summarise`, or the same compiled."""


def summarise(columns: Columns, dictionaries: Dictionaries, origins: Sequence[Origin]) -> Partial:
    """Sums some accepted, deduplicated orders.

    Args:
        columns: accepted orders; may be none.
        dictionaries: what the codes of their texts mean.
        origins: the runs that their rows count through, in order.
    """
    orders, lines = columns.orders, columns.lines
    if not len(columns):
        return nothing_of(dictionaries, origins)
    is_sale = 1 - (orders[c.FLAGS] & c.IS_RETURN)
    sign = 2 * is_sale - 1
    net = columns.net()
    line_order, line_sign = lines[c.ORDER], sign[lines[c.ORDER]]
    ones = np.ones(len(net), dtype=np.int64)
    seconds, minutes = _Panes(orders[c.EVENT_TIME], SECOND_MS), _Panes(orders[c.EVENT_TIME], MINUTE_MS)

    # Orders are counted once for each thing they touch, however many of their lines do: so first one row for each
    # (order, category), then one for each (pane, category).
    categories = len(dictionaries.categories)
    touched, in_category = group(line_order * categories + lines[c.CATEGORY], _rows(ones, lines[c.QUANTITY], net))
    order_of = touched // categories
    category_of = touched - order_of * categories
    touching, quantity, amount = in_category.T
    by_order = _country_columns(is_sale, _per_order(columns, lines[c.QUANTITY]), _per_order(columns, net))
    by_category = _country_columns(is_sale[order_of], quantity, amount)
    country_of = orders[c.COUNTRY]
    return Partial(
        positions=reached(origins),
        max_event_time=int(orders[c.EVENT_TIME].max()),
        products=seconds.cells(
            dictionaries.products,
            len(dictionaries.products),
            line_order,
            lines[c.PRODUCT],
            _rows(ones, line_sign * lines[c.QUANTITY], line_sign * net),
        ),
        categories=seconds.cells(
            dictionaries.categories,
            categories,
            order_of,
            category_of,
            _rows(touching, sign[order_of] * quantity, sign[order_of] * amount, is_sale[order_of]),
        ),
        countries=seconds.cells(COUNTRIES, COUNTRY_CODES, np.arange(len(columns)), country_of, _rows(*by_order)),
        minutes=minutes.cells(
            dictionaries.scopes,
            scope_codes(categories),
            np.concatenate((np.arange(len(columns)), order_of)),
            np.concatenate((country_of, cell_codes(country_of[order_of], category_of))),
            np.concatenate((_rows(*by_order), _rows(*by_category))),
        ),
        product_names=_latest_names(columns, dictionaries, origins),
    )


def nothing_of(dictionaries: Dictionaries, origins: Sequence[Origin]) -> Partial:
    """What no orders add."""
    nothing = np.zeros(0, dtype=np.int64)
    return Partial(
        positions=reached(origins),
        max_event_time=0,
        products=no_cells(len(PRODUCT_COLUMNS)),
        categories=no_cells(len(CATEGORY_COLUMNS)),
        countries=no_cells(len(COUNTRY_COLUMNS)),
        minutes=no_cells(len(COUNTRY_COLUMNS)),
        product_names=LatestNames(
            products=dictionaries.products,
            product_codes=nothing,
            names=dictionaries.names,
            name_codes=nothing,
            event_times=nothing,
            positions=position_words(nothing),
            partitions=(),
            partition_codes=nothing,
        ),
    )


def reached(origins: Sequence[Origin]) -> dict[str, tuple[int, int]]:
    """The last position of each origin's partition, and its digits."""
    return {origin.partition: (int(origin.positions[-1]), origin.position_digits) for origin in origins}


def _rows(*columns: Int64s) -> Int64s:
    """Columns as rows."""
    return np.stack(columns).T


class _Panes:
    """Which pane each order is in, as numbers from the first one."""

    def __init__(self, times: Int64s, pane_ms: int) -> None:
        numbers = times // pane_ms
        first = int(numbers.min())
        self._pane_of = numbers - first
        self._first_ms = first * pane_ms
        self._pane_ms = pane_ms

    def cells(self, names: Names, width: int, orders: Int64s, codes: Int64s, values: Int64s) -> Cells:
        """The sums of rows by pane and name.

        Args:
            names: what the codes mean.
            width: codes are below it.
            orders: which order each row belongs to.
            codes: of each row.
            values: shape (rows, columns).
        """
        keys, sums = group(self._pane_of[orders] * width + codes, values)
        panes = keys // width
        return in_panes(names, panes, keys - panes * width, sums, first=self._first_ms, pane_ms=self._pane_ms)


def _per_order(columns: Columns, values: Int64s) -> Int64s:
    """The sums of each order's lines."""
    first = np.cumsum(columns.orders[c.LINES]) - columns.orders[c.LINES]
    sums: Int64s = np.add.reduceat(values, first)
    return sums


def _country_columns(is_sale: Int64s, quantity: Int64s, amount: Int64s) -> tuple[Int64s, ...]:
    """COUNTRY_COLUMNS, one row an event."""
    is_return = 1 - is_sale
    return (
        np.ones_like(is_sale),
        (is_sale - is_return) * quantity,
        is_sale,
        is_return,
        is_sale * amount,
        is_return * amount,
    )


def _latest_names(columns: Columns, dictionaries: Dictionaries, origins: Sequence[Origin]) -> LatestNames:
    lines, times = columns.lines, columns.orders[c.EVENT_TIME]
    positions = np.concatenate([position_words(origin.positions) for origin in origins])
    starts = np.cumsum([len(origin) for origin in origins])
    rows = columns.orders[c.ROW]
    partitions = sorted({origin.partition for origin in origins})
    partition_of_origin = np.array([partitions.index(origin.partition) for origin in origins])
    partition_of = partition_of_origin[np.searchsorted(starts, rows, side="right")]
    ranks = np.column_stack((times, positions[rows], partition_of))
    last = greatest(lines[c.PRODUCT], lines[c.ORDER], ranks)
    order_of = lines[c.ORDER][last]
    return LatestNames(
        products=dictionaries.products,
        product_codes=lines[c.PRODUCT][last],
        names=dictionaries.names,
        name_codes=lines[c.NAME][last],
        event_times=times[order_of],
        positions=positions[rows[order_of]],
        partitions=partitions,
        partition_codes=partition_of[order_of],
    )
