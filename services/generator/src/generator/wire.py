"""Orders to the bytes of the order event, version 1. Pure.

The synthetic shop is encoded from fragments that were serialised once (per product, per customer, per discount): an
order is a join of some of them, and no JSON encoder runs for it.
"""

import json
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from generator.catalog import NO_COST, Catalog
from generator.shoppers import ANONYMOUS, DISCOUNTS, ORDER_ID_LENGTH, QUANTITIES, Customers, Orders

_TIME_LENGTH = len("2026-11-20T08:12:33.123Z")
_BLANK_ID = "-" * ORDER_ID_LENGTH
_BLANK_TIME = "-" * _TIME_LENGTH
_SALE = f'{{"schema":1,"type":"sale","order_id":"{_BLANK_ID}","event_time":"{_BLANK_TIME}","customer_id":'.encode()
_RETURN = (
    f'{{"schema":1,"type":"return","order_id":"{_BLANK_ID}","original_order_id":"{_BLANK_ID}",'
    f'"event_time":"{_BLANK_TIME}","customer_id":'
).encode()


class Encoder:
    """Encodes orders of one catalogue and one set of customers."""

    def __init__(self, catalog: Catalog, customers: Customers, currency: str) -> None:
        self._people = _fragments(
            f'{"null" if number == ANONYMOUS else number},"country":"{country}","currency":"{currency}","lines":['
            for number, country in zip(customers.ids.tolist(), customers.countries, strict=True)
        )
        # A line is a head (of the order's first line, or of a further one), its quantity, and a tail (of any line but
        # the last, or of the last one, which closes the order and ends with a line feed to cut at: JSON has none).
        heads = []
        for product_id, name, category in zip(catalog.product_ids, catalog.names, catalog.categories, strict=True):
            head = (
                f'{{"product_id":{json.dumps(product_id)},"product_name":{json.dumps(name)},'
                f'"category":{json.dumps(category)},"quantity":'
            )
            heads += [head, f",{head}"]
        self._heads = _fragments(heads)
        tails = []
        for amount, cost in zip(catalog.unit_amounts.tolist(), catalog.unit_costs.tolist(), strict=True):
            known_cost = "" if cost == NO_COST else f',"unit_cost":{cost}'
            for percent in DISCOUNTS:
                tail = f',"unit_amount":{amount},"discount_percent":{percent}{known_cost}}}'
                tails += [tail, f"{tail}]}}\n"]
        self._tails = _fragments(tails)
        self._quantities = _fragments(str(quantity) for quantity in range(max(QUANTITIES) + 1))

    def encode(self, orders: Orders) -> list[bytes]:
        """The message of each order."""
        count = len(orders)
        lines = np.bincount(orders.line_order, minlength=count)
        last_line = np.cumsum(lines) - 1
        further = np.ones(len(orders.line_order), dtype=np.int64)
        further[last_line - lines + 1] = 0
        closes = np.zeros(len(orders.line_order), dtype=np.int64)
        closes[last_line] = 1

        # The fragments of all orders in one row: for each order its beginning, its customer, and three of each line.
        begins = 2 * np.arange(count) + 3 * (last_line - lines + 1)
        line_begins = 2 * (orders.line_order + 1) + 3 * np.arange(len(orders.line_order))
        fragments = np.empty(2 * count + 3 * len(orders.line_order), dtype=np.object_)
        fragments[begins] = _beginnings(orders)
        fragments[begins + 1] = self._people[orders.customers]
        fragments[line_begins] = self._heads[2 * orders.products + further]
        fragments[line_begins + 1] = self._quantities[orders.quantities]
        fragments[line_begins + 2] = self._tails[2 * (len(DISCOUNTS) * orders.products + orders.discounts) + closes]
        messages = b"".join(fragments.tolist()).split(b"\n")
        messages.pop()  # what follows the last line feed: nothing
        return messages


def _beginnings(orders: Orders) -> npt.NDArray[np.object_]:
    """Each order up to its customer id. All sales have one length, and so have all returns."""
    times = format_times(orders.event_times)
    ids = orders.order_ids.view(np.uint8).reshape(-1, ORDER_ID_LENGTH)
    originals = orders.original_order_ids.view(np.uint8).reshape(-1, ORDER_ID_LENGTH)
    beginnings = np.empty(len(orders), dtype=np.object_)
    for template, rows in ((_SALE, ~orders.is_return), (_RETURN, orders.is_return)):
        cells = np.tile(np.frombuffer(template, dtype=np.uint8), (int(rows.sum()), 1))
        id_at = template.index(b'"order_id":"') + len('"order_id":"')
        cells[:, id_at : id_at + ORDER_ID_LENGTH] = ids[rows]
        if template is _RETURN:
            original_at = template.index(b'"original_order_id":"') + len('"original_order_id":"')
            cells[:, original_at : original_at + ORDER_ID_LENGTH] = originals[rows]
        time_at = template.index(b'"event_time":"') + len('"event_time":"')
        cells[:, time_at : time_at + _TIME_LENGTH] = times[rows]
        beginnings[rows] = cells.view(f"S{len(template)}").ravel()
    return beginnings


def _fragments(texts: Iterable[str]) -> npt.NDArray[np.object_]:
    encoded = [text.encode() for text in texts]
    fragments = np.empty(len(encoded), dtype=np.object_)
    fragments[:] = encoded
    return fragments


_TWO_DIGITS = np.frombuffer("".join(f"{i:02d}" for i in range(100)).encode(), dtype=np.uint8).reshape(100, 2)
_THREE_DIGITS = np.frombuffer("".join(f"{i:03d}" for i in range(1000)).encode(), dtype=np.uint8).reshape(1000, 3)
_DAY_MS = 86_400_000


def format_times(times: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
    """``sales.times.format_time`` of each (years 1000 to 9999), as one row of 24 characters each."""
    days, clock = np.divmod(times, _DAY_MS)
    known, which = np.unique(days, return_inverse=True)
    dates = np.datetime_as_string(known.astype("datetime64[D]")).astype("S10").view(np.uint8).reshape(-1, 10)
    text = np.empty((len(times), _TIME_LENGTH), dtype=np.uint8)
    text[:, 0:10] = dates[which]
    text[:, 10] = ord("T")
    text[:, 11:13] = _TWO_DIGITS[clock // 3_600_000]
    text[:, 13] = ord(":")
    text[:, 14:16] = _TWO_DIGITS[clock // 60_000 % 60]
    text[:, 16] = ord(":")
    text[:, 17:19] = _TWO_DIGITS[clock // 1000 % 60]
    text[:, 19] = ord(".")
    text[:, 20:23] = _THREE_DIGITS[clock % 1000]
    text[:, 23] = ord("Z")
    return text
