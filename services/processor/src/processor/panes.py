"""From a batch of accepted orders to sums per pane. Pure.

A batch is summed once, at the finest resolution (one-second panes; minutes for the rollups), and only these sums
travel on. Everything is int64 and exact.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from sales.orders import Batch
from sales.rollups import cell_scope
from sales.windows import MINUTE_MS, SECOND_MS

Int64s = npt.NDArray[np.int64]

PRODUCT_COLUMNS = ("lines", "units", "revenue")
CATEGORY_COLUMNS = ("lines", "units", "revenue", "orders")
COUNTRY_COLUMNS = ("events", "units", "orders", "returns", "sales", "refunded")
"""What is summed for each thing. The first column counts occurrences: above 0 the thing is present, even where the
others cancel out. Units and revenue are net of returns; sales and refunded are both positive, in minor units."""


@dataclass(frozen=True, slots=True, eq=False)
class Cells:
    """Sums by (pane, name): row ``i`` holds ``sums[i]`` for the name ``names[codes[i]]`` in the pane that starts at
    ``panes[i]`` (ms since 1970). No two rows have the same pane and name; sorted by pane. Codes mean something inside
    this object only."""

    names: list[str]
    panes: Int64s
    codes: Int64s
    sums: Int64s
    """shape (rows, columns)"""

    def __len__(self) -> int:
        return len(self.panes)


class ProductName(NamedTuple):
    """What a product was called in one line; of two the later one is shown."""

    event_time: int
    position: int
    partition: str
    name: str

    def is_later_than(self, other: "ProductName | None") -> bool:
        """The rule for the name on the board: latest event time, then highest position, then last partition."""
        return other is None or self[:3] > other[:3]


@dataclass(frozen=True, slots=True, eq=False)
class Partial:
    """What one run of messages of one partition adds to the numbers, with the position it reaches."""

    partition: str
    """``<stream id>/<partition>``"""
    position: int | None
    """last position of the run, accepted or not; None where nothing was read and only lags are told"""
    position_digits: int
    max_event_time: int
    """of the accepted orders, ms; 0 without any"""
    last_broker_time: int
    """when the log took the last message, ms"""
    products: Cells
    categories: Cells
    countries: Cells
    minutes: Cells
    """per minute: by country (``GB``) and by country and category (``GB/Home``), in COUNTRY_COLUMNS"""
    product_names: dict[str, ProductName]
    counts: dict[str, int] = field(default_factory=dict)
    """accepted, duplicates, dead_letters, dead_letters:<reason>"""
    lags: dict[str, int | None] = field(default_factory=dict)
    """messages not yet read, by partition; None where that is not known"""


def group(keys: Int64s, values: Int64s) -> tuple[Int64s, Int64s]:
    """Distinct keys, ascending, and the sums of the rows of ``values`` (rows, columns) that share a key."""
    order = np.argsort(keys)
    ordered = keys[order]
    first = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1]))) if len(keys) else order
    return ordered[first], np.add.reduceat(values[order], first, axis=0) if len(keys) else values


def cells(names: list[str], panes: Int64s, codes: Int64s, values: Int64s) -> Cells:
    """Adds up the rows that share pane and code."""
    start = int(panes.min()) if len(panes) else 0
    keys, sums = group((panes - start) * len(names) + codes, values)
    width = max(len(names), 1)
    return Cells(names=names, panes=keys // width + start, codes=keys % width, sums=sums)


def encode_names(column: Sequence[str]) -> tuple[list[str], Int64s]:
    """A column of names to its distinct names and one code a row."""
    codes: dict[str, int] = {}
    rows = [codes.setdefault(name, len(codes)) for name in column]
    return list(codes), np.array(rows, dtype=np.int64)


def summarise(
    batch: Batch, *, partition: str, position: int | None, position_digits: int, last_broker_time: int
) -> Partial:
    """Sums one batch of accepted, deduplicated orders.

    Args:
        batch: accepted orders of one partition; may be empty.
        partition: ``<stream id>/<partition>``.
        position: the last position of the run that the batch was cut from.
        position_digits: how positions of this stream are written.
        last_broker_time: when the log took that last message, ms since 1970.
    """
    seconds = batch.event_times - batch.event_times % SECOND_MS
    minutes = batch.event_times - batch.event_times % MINUTE_MS
    order_sign = np.where(batch.is_return, -1, 1)
    line_sign = order_sign[batch.line_order]
    net = batch.net()
    ones = np.ones(len(net), dtype=np.int64)
    is_sale = (~batch.is_return).astype(np.int64)

    products, product_codes = encode_names(batch.product_ids)
    product_cells = cells(
        products,
        seconds[batch.line_order],
        product_codes,
        np.column_stack((ones, line_sign * batch.quantities, line_sign * net)),
    )

    # Orders are counted once for each thing they touch, however many of their lines do: so first one row for each
    # (order, category), then one for each (pane, category).
    categories, category_codes = encode_names(batch.categories)
    width = max(len(categories), 1)
    touched, in_category = group(
        batch.line_order * width + category_codes, np.column_stack((ones, batch.quantities, net))
    )
    order_of, category_of = touched // width, touched % width
    lines, quantity, amount = in_category[:, 0], in_category[:, 1], in_category[:, 2]
    sign, sale = order_sign[order_of], is_sale[order_of]
    category_cells = cells(
        categories, seconds[order_of], category_of, np.column_stack((lines, sign * quantity, sign * amount, sale))
    )

    countries, country_codes = encode_names(batch.countries)
    country_sums = _country_columns(is_sale, *_per_order(len(batch), batch.line_order, batch.quantities, net))
    country_cells = cells(countries, seconds, country_codes, country_sums)

    scopes = countries + [cell_scope(country, category) for country in countries for category in categories]
    scope_of = len(countries) + country_codes[order_of] * width + category_of
    minute_cells = cells(
        scopes,
        np.concatenate((minutes, minutes[order_of])),
        np.concatenate((country_codes, scope_of)),
        np.concatenate((country_sums, _country_columns(sale, quantity, amount))),
    )
    return Partial(
        partition=partition,
        position=position,
        position_digits=position_digits,
        max_event_time=int(batch.event_times.max()) if len(batch) else 0,
        last_broker_time=last_broker_time,
        products=product_cells,
        categories=category_cells,
        countries=country_cells,
        minutes=_used_names(minute_cells),
        product_names=_product_names(batch, partition),
    )


def _per_order(orders: int, line_order: Int64s, quantities: Int64s, net: Int64s) -> tuple[Int64s, Int64s]:
    quantity, amount = np.zeros(orders, dtype=np.int64), np.zeros(orders, dtype=np.int64)
    np.add.at(quantity, line_order, quantities)
    np.add.at(amount, line_order, net)
    return quantity, amount


def _country_columns(is_sale: Int64s, quantity: Int64s, amount: Int64s) -> Int64s:
    """Rows of COUNTRY_COLUMNS, one an event."""
    is_return = 1 - is_sale
    return np.column_stack(
        (
            np.ones_like(is_sale),
            (is_sale - is_return) * quantity,
            is_sale,
            is_return,
            is_sale * amount,
            is_return * amount,
        )
    )


def _used_names(cells_: Cells) -> Cells:
    """Without the names that no row uses (most pairs of country and category)."""
    used, codes = np.unique(cells_.codes, return_inverse=True)
    return Cells(
        names=[cells_.names[code] for code in used.tolist()], panes=cells_.panes, codes=codes, sums=cells_.sums
    )


def _product_names(batch: Batch, partition: str) -> dict[str, ProductName]:
    """Each product's latest name in the batch."""
    if not len(batch):
        return {}
    # Stable: among equal event times the order of positions stays, so the last one written to the dict wins.
    by_time = np.argsort(batch.event_times[batch.line_order], kind="stable").tolist()
    last_line = {batch.product_ids[line]: line for line in by_time}
    times, line_order = batch.event_times.tolist(), batch.line_order.tolist()
    return {
        product: ProductName(
            times[line_order[line]], batch.positions[line_order[line]], partition, batch.product_names[line]
        )
        for product, line in last_line.items()
    }
