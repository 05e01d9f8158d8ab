"""Held orders as the rows of Parquet objects. Pure.

The same orders make the same rows in the same row groups, and in each the same dictionaries: texts are numbered anew,
in the order in which a row group first has them, whatever numbers the process gave them.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from sales.columnar import columns as c
from sales.columnar.countries import country_text
from sales.orders import discount_amount
from sales.streams import format_position
from sink.holding import Codes, Held, Integers
from sink.schemas import TIME

N = TypeVar("N", bound=np.generic)


@dataclass(frozen=True, slots=True)
class Assembly:
    """What all rows of one stream share."""

    currency: str
    regions: Mapping[str, str]
    """each country's"""
    stream: str
    """its id"""
    digits: int
    """how many positions are written with"""

    def row_group(self, held: Held, partition: str, first: int, behind: int) -> pa.Table:
        """The lines of the orders ``first`` to ``behind``, in the columns of ``schemas.ORDERS``; texts that repeat as
        dictionaries with int32 indices, each of what occurs, once."""
        orders = slice(first, behind)
        start = int(held.line_counts[:first].sum())
        counts = held.line_counts[orders]
        lines = slice(start, start + int(counts.sum()))
        rows = lines.stop - lines.start

        order_of = np.repeat(np.arange(behind - first), counts)

        def spread(column: npt.NDArray[N]) -> npt.NDArray[N]:
            """Each order's value, for each of its lines."""
            return column.take(order_of)

        def one_of(codes: Integers, text_of: Callable[[int], str]) -> pa.DictionaryArray:
            """A text for each order, of few."""
            found = pa.array(codes).dictionary_encode()
            texts = pa.array(list(map(text_of, found.dictionary.to_pylist())), pa.string())
            again = texts.dictionary_encode()  # two countries have one region
            indices = again.indices.to_numpy()[found.indices.to_numpy()]
            return pa.DictionaryArray.from_arrays(pa.array(spread(indices)), again.dictionary)

        def constant(text: str) -> pa.DictionaryArray:
            return pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int32)), pa.array([text]))

        def times(column: Integers) -> pa.Array:
            return pa.array(spread(column)).view(TIME)

        flags = held.flags[orders]
        is_return = flags & c.IS_RETURN
        sign = spread(1 - 2 * is_return.astype(np.int64))
        quantities, unit_amounts = held.quantities[lines].astype(np.int64), held.unit_amounts[lines].astype(np.int64)
        discounts, unit_costs = held.discounts[lines].astype(np.int64), held.unit_costs[lines].astype(np.int64)
        gross = quantities * unit_amounts
        discount = discount_amount(gross, discounts)
        net = gross - discount
        no_cost = unit_costs < 0
        countries = held.countries[orders]
        columns = {
            "order_id": held.ids[first:behind].take(pa.array(order_of)),
            "type": one_of(is_return, ("sale", "return").__getitem__),
            "event_time": times(held.event_times[orders]),
            "customer_id": _masked(
                spread(held.customers[orders].astype(np.int64)), spread(flags & c.HAS_CUSTOMER == 0)
            ),
            "country": one_of(countries, country_text),
            "region": one_of(countries, lambda code: self.regions[country_text(code)]),
            "currency": constant(self.currency),
            "original_order_id": held.originals[first:behind].take(pa.array(order_of)),
            "line": pa.array(_numbers(counts, order_of)),
            "product_id": _renumbered(held.products, lines),
            "product_name": _renumbered(held.names, lines),
            "category": _renumbered(held.categories, lines),
            "quantity": pa.array(quantities * sign),
            "unit_amount": pa.array(unit_amounts),
            "discount_percent": pa.array(discounts.astype(np.int32)),
            "unit_cost": _masked(unit_costs, no_cost),
            "gross_amount": pa.array(gross * sign),
            "discount_amount": pa.array(discount * sign),
            "net_amount": pa.array(net * sign),
            "profit_amount": _masked((net - quantities * unit_costs) * sign, no_cost),
            "stream": constant(self.stream),
            "partition": constant(partition),
            "position": position_texts(held.positions[orders], self.digits).take(pa.array(order_of)),
            "accepted_at": times(held.broker_times[orders]),
        }
        return pa.table(columns)


def row_groups(line_counts: npt.NDArray[np.int32], first: int, behind: int, most: int) -> Iterator[tuple[int, int]]:
    """Cuts orders where about ``most`` lines are together, never inside an order."""
    ends = np.cumsum(line_counts[first:behind], dtype=np.int64)
    start = 0
    while start < behind - first:
        done = int(ends[start - 1]) if start else 0
        end = min(int(np.searchsorted(ends, done + most)) + 1, behind - first)
        yield first + start, first + end
        start = end


def position_texts(positions: Integers, digits: int) -> pa.StringArray:
    """Positions as ``format_position`` writes them."""
    if positions.dtype == object:
        return pa.array([format_position(position, digits) for position in positions], pa.string())
    width = digits + -digits % 4
    quads = np.empty((len(positions), width // 4), dtype="V4")
    rest = positions
    for place in range(width // 4 - 1, -1, -1):
        # From some place on it is nearly always zeros for all.
        rest, quad = np.divmod(rest, 10_000) if len(rest) and rest.any() else (rest, rest)
        quads[:, place] = _QUADS[quad]
    text = np.ascontiguousarray(quads.view(np.uint8)[:, width - digits :])
    offsets = np.arange(0, digits * len(positions) + 1, digits, dtype=np.int32)
    return pa.Array.from_buffers(
        pa.string(), len(positions), [None, pa.py_buffer(offsets), pa.py_buffer(text)], null_count=0
    )


_QUADS = np.array([b"%04d" % number for number in range(10_000)], dtype="S4").view("V4")


def _numbers(counts: npt.NDArray[np.int32], order_of: npt.NDArray[np.intp]) -> npt.NDArray[np.int32]:
    """1, 2, … for each order's lines."""
    before = np.cumsum(counts, dtype=np.int32) - counts
    return np.arange(1, len(order_of) + 1, dtype=np.int32) - before.take(order_of)


def _renumbered(column: Codes, lines: slice) -> pa.DictionaryArray:
    found = pa.array(column.codes[lines]).dictionary_encode()
    places, data = column.dictionary.joined()
    known = pa.Array.from_buffers(
        pa.large_string(), len(places) - 1, [None, pa.py_buffer(places), pa.py_buffer(data)], null_count=0
    )
    return pa.DictionaryArray.from_arrays(found.indices, known.take(found.dictionary).cast(pa.string()))


def _masked(values: npt.NDArray[np.generic], missing: npt.NDArray[np.bool_]) -> pa.Array:
    return pa.array(values, mask=missing) if missing.any() else pa.array(values)
