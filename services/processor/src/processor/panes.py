"""From orders to sums per pane. Pure.

Orders are summed once, at the finest resolution (one-second panes; minutes for the rollups), and only these sums travel
on.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from processor import columns as c
from processor.cells import Cells, Int64s, Names, add_up
from processor.columns import Columns
from processor.countries import COUNTRIES, COUNTRY_CODES
from processor.labels import LatestNames
from processor.scopes import cell_codes, scope_codes
from processor.texts import Dictionaries
from sales.windows import MINUTE_MS, SECOND_MS

PRODUCT_COLUMNS = ("lines", "units", "revenue")
CATEGORY_COLUMNS = ("lines", "units", "revenue", "orders")
COUNTRY_COLUMNS = ("events", "units", "orders", "returns", "sales", "refunded")
"""What is summed for each thing. The first column counts occurrences: above 0 the thing is present, even where the
others cancel out. Units and revenue are net of returns; sales and refunded are both positive, in minor units."""


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


def summarise(columns: Columns, dictionaries: Dictionaries, origins: Sequence[Origin]) -> Partial:
    """Sums some accepted, deduplicated orders.

    Args:
        columns: accepted orders; may be none.
        dictionaries: what the codes of their texts mean.
        origins: the runs that their rows count through, in order.
    """
    orders, lines = columns.orders, columns.lines
    times = orders[c.EVENT_TIME]
    second_of, seconds = _panes(times, SECOND_MS)
    is_sale = 1 - (orders[c.FLAGS] & c.IS_RETURN)
    sign = 2 * is_sale - 1
    net = columns.net()
    line_order, line_sign = lines[c.ORDER], sign[lines[c.ORDER]]
    ones = np.ones(len(net), dtype=np.int64)

    products, categories = len(dictionaries.products), len(dictionaries.categories)
    product_keys, product_sums = add_up(
        second_of[line_order] * products + lines[c.PRODUCT],
        (ones, line_sign * lines[c.QUANTITY], line_sign * net),
        len(seconds) * products,
    )

    # Orders are counted once for each thing they touch, however many of their lines do: so first one row for each
    # (order, category), then one for each (pane, category).
    touched, in_category = add_up(
        line_order * categories + lines[c.CATEGORY], (ones, lines[c.QUANTITY], net), len(columns) * categories
    )
    order_of, category_of = touched // max(categories, 1), touched % max(categories, 1)
    touching, quantity, amount = in_category.T
    category_keys, category_sums = add_up(
        second_of[order_of] * categories + category_of,
        (touching, sign[order_of] * quantity, sign[order_of] * amount, is_sale[order_of]),
        len(seconds) * categories,
    )

    by_order = _country_columns(is_sale, _per_order(columns, lines[c.QUANTITY]), _per_order(columns, net))
    country_keys, country_sums = add_up(
        second_of * COUNTRY_CODES + orders[c.COUNTRY], by_order, len(seconds) * COUNTRY_CODES
    )
    return Partial(
        positions={origin.partition: (int(origin.positions[-1]), origin.position_digits) for origin in origins},
        max_event_time=int(times.max()) if len(columns) else 0,
        products=_cells(dictionaries.products, seconds, product_keys, products, product_sums),
        categories=_cells(dictionaries.categories, seconds, category_keys, categories, category_sums),
        countries=_cells(COUNTRIES, seconds, country_keys, COUNTRY_CODES, country_sums),
        minutes=Cells(
            dictionaries.scopes,
            *_minutes(
                columns,
                by_order,
                (order_of, category_of),
                _country_columns(is_sale[order_of], quantity, amount),
                scope_codes(categories),
            ),
        ),
        product_names=_latest_names(columns, dictionaries, origins),
    )


def _panes(times: Int64s, pane_ms: int) -> tuple[Int64s, Int64s]:
    """For each time the number of its pane, and the panes' starts, ascending."""
    starts = times - times % pane_ms
    if len(starts) and (starts == starts[0]).all():
        return np.zeros(len(starts), dtype=np.int64), starts[:1]
    distinct, numbers = np.unique(starts, return_inverse=True)
    return numbers, distinct


def _cells(names: Names, panes: Int64s, keys: Int64s, width: int, sums: Int64s) -> Cells:
    return Cells(names=names, panes=panes[keys // max(width, 1)], codes=keys % max(width, 1), sums=sums)


def _per_order(columns: Columns, values: Int64s) -> Int64s:
    """The sums of each order's lines."""
    first = np.cumsum(columns.orders[c.LINES]) - columns.orders[c.LINES]
    sums: Int64s = np.add.reduceat(values, first) if len(columns) else values
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


def _minutes(
    columns: Columns,
    by_order: Sequence[Int64s],
    touched: tuple[Int64s, Int64s],
    by_category: Sequence[Int64s],
    width: int,
) -> tuple[Int64s, Int64s, Int64s]:
    """Panes, scopes and sums per minute by country, and by country and category.

    Args:
        columns: the orders.
        by_order: COUNTRY_COLUMNS of each.
        touched: an order and a category that it touches, row by row.
        by_category: COUNTRY_COLUMNS of those rows.
        width: how many scopes there can be.
    """
    minute_of, minutes = _panes(columns.orders[c.EVENT_TIME], MINUTE_MS)
    countries = columns.orders[c.COUNTRY]
    order_of, category_of = touched
    keys = np.concatenate(
        (minute_of * width + countries, minute_of[order_of] * width + cell_codes(countries[order_of], category_of))
    )
    values = [np.concatenate(pair) for pair in zip(by_order, by_category, strict=True)]
    distinct, sums = add_up(keys, values, len(minutes) * width)
    return minutes[distinct // width], distinct % width, sums


def _latest_names(columns: Columns, dictionaries: Dictionaries, origins: Sequence[Origin]) -> LatestNames:
    products = columns.lines[c.PRODUCT]
    times = columns.orders[c.EVENT_TIME][columns.lines[c.ORDER]]
    latest = np.full(len(dictionaries.products), -1, dtype=np.int64)
    np.maximum.at(latest, products, times)
    winners = np.flatnonzero(times == latest[products])
    starts = np.cumsum([0, *map(len, origins)])
    rows = columns.orders[c.ROW][columns.lines[c.ORDER][winners]]
    origin_of = np.searchsorted(starts, rows, side="right") - 1
    positions = _positions(origins, starts, rows, origin_of)
    if len(origins) > 1:
        # Within one run rows stand in the order of their positions already.
        rank_of = np.argsort(np.argsort([origin.partition for origin in origins]))
        order = np.lexsort((winners, rank_of[origin_of], _sortable(positions)))
        winners, origin_of, positions = winners[order], origin_of[order], positions[order]
    chosen = np.empty(len(latest), dtype=np.int64)
    chosen[products[winners]] = np.arange(len(winners))  # of those that are given one place the last stays
    distinct = np.flatnonzero(latest >= 0)
    last = chosen[distinct]
    partitions = np.array([origin.partition for origin in origins], dtype=np.object_)
    return LatestNames(
        products=dictionaries.products,
        product_codes=distinct,
        names=dictionaries.names,
        name_codes=columns.lines[c.NAME][winners[last]],
        event_times=latest[distinct],
        positions=positions[last].astype(np.object_),
        partitions=partitions[origin_of[last]],
    )


def _positions(
    origins: Sequence[Origin], starts: Int64s, rows: Int64s, origin_of: Int64s
) -> Int64s | npt.NDArray[np.object_]:
    """The position of each row: int64s, or Python's integers where they are larger (Kinesis: 186 bits)."""
    if all(isinstance(origin.positions, np.ndarray) for origin in origins):
        return np.concatenate([np.zeros(0, np.int64), *(origin.positions for origin in origins)])[rows]
    inside = rows - starts[origin_of]
    found = [
        int(origins[origin].positions[row]) for origin, row in zip(origin_of.tolist(), inside.tolist(), strict=True)
    ]
    positions = np.empty(len(found), dtype=np.object_)
    positions[:] = found
    return positions


def _sortable(positions: Int64s | npt.NDArray[np.object_]) -> Int64s:
    """Numbers in the order of the positions."""
    ranks: Int64s = np.unique(positions, return_inverse=True)[1]
    return ranks
