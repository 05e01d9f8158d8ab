"""Who buys in the synthetic shop, when, and what: orders as columns, a block at a time. Pure.

Countries have weights, and clocks of their own: at 03:00 UTC it is Asia that shops. Prices fall in promotions that
last a week; some of what was bought comes back.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt

from generator.catalog import Catalog

ANONYMOUS = -1
"""The customer id of a guest: null in the event."""

DISCOUNTS = (0, 5, 10, 15, 20, 25, 30, 50)
"""Percentages that a promotion may give."""

QUANTITIES = (1, 2, 3, 4, 6, 12, 24)
"""Pieces of one line; a dozen is how small traders buy."""

ORDER_ID_LENGTH = 36

_QUANTITY_DRAWS = np.repeat(np.array(QUANTITIES, dtype=np.int64), (62, 18, 7, 5, 4, 3, 1))
"""Quantities as often as they occur in a hundred lines."""
_EXTRA_LINES = 1.3
"""Mean of the Poisson draw beyond an order's first line: 2.3 lines in the mean."""
_GUESTS = 0.25
"""Share of orders without a customer id; the Online Retail data set has as many."""
_ON_PROMOTION = 0.1
"""Share of products with a discount in any one week."""
_REMEMBERED_SALES = 4096
"""Sales that may still come back. Bounded, since a shop that runs for ever must not grow."""
_WEEK_MS = 7 * 86_400_000

# Weight and time zone by country: a shop that began in America and Britain and sells on five continents.
_COUNTRIES = (
    ("US", 28.0, "America/New_York"),
    ("GB", 14.0, "Europe/London"),
    ("DE", 9.0, "Europe/Berlin"),
    ("FR", 7.0, "Europe/Paris"),
    ("CA", 5.0, "America/Toronto"),
    ("JP", 5.0, "Asia/Tokyo"),
    ("AU", 4.5, "Australia/Sydney"),
    ("IN", 4.0, "Asia/Kolkata"),
    ("BR", 3.5, "America/Sao_Paulo"),
    ("ES", 3.0, "Europe/Madrid"),
    ("IT", 3.0, "Europe/Rome"),
    ("NL", 2.5, "Europe/Amsterdam"),
    ("KR", 2.0, "Asia/Seoul"),
    ("MX", 2.0, "America/Mexico_City"),
    ("SE", 1.5, "Europe/Stockholm"),
    ("SG", 1.5, "Asia/Singapore"),
    ("ZA", 1.2, "Africa/Johannesburg"),
    ("NZ", 1.0, "Pacific/Auckland"),
    ("NG", 0.8, "Africa/Lagos"),
    ("EG", 0.7, "Africa/Cairo"),
)

# How busy each local hour and each weekday (Monday first) is, relative to the others.
_HOURS = np.array([4, 2, 1, 1, 1, 2, 5, 9, 14, 19, 23, 24, 26, 24, 22, 22, 23, 25, 28, 32, 34, 30, 20, 10], np.float64)
_DAYS = np.array([0.95, 0.95, 1.0, 1.0, 1.1, 1.05, 0.95])


@dataclass(frozen=True, slots=True, eq=False)
class Orders:
    """Orders as columns: one row an order, and one row a line, where ``line_order`` (ascending) names its order."""

    order_ids: npt.NDArray[np.bytes_]
    """UUIDs (version 7 by layout), 36 characters"""
    original_order_ids: npt.NDArray[np.bytes_]
    """empty for a sale"""
    event_times: npt.NDArray[np.int64]
    """ms since 1970"""
    is_return: npt.NDArray[np.bool_]
    customers: npt.NDArray[np.int64]
    """row of the customer in ``Customers``"""

    line_order: npt.NDArray[np.int64]
    products: npt.NDArray[np.int64]
    """row of the product in the catalogue"""
    quantities: npt.NDArray[np.int64]
    discounts: npt.NDArray[np.int64]
    """index into DISCOUNTS"""

    def __len__(self) -> int:
        return len(self.order_ids)


@dataclass(frozen=True, slots=True, eq=False)
class Customers:
    """All customers as columns, grouped by country; the last row of each country stands for its guests."""

    ids: npt.NDArray[np.int64]
    """ANONYMOUS for guests"""
    countries: list[str]
    first_row: npt.NDArray[np.int64]
    """per country: where its customers begin"""
    known: npt.NDArray[np.int64]
    """per country: how many have an id; its guests' row follows them"""


def invite(customers: int) -> Customers:
    """About ``customers`` >= 1 people, over the countries by weight, at least one in each."""
    weights = _weights()
    known = np.maximum((weights * customers).astype(np.int64), 1)
    first_row = np.concatenate([[0], np.cumsum(known + 1)[:-1]]).astype(np.int64)
    ids: list[int] = []
    countries: list[str] = []
    number = 10_000
    for (country, _, _), count in zip(_COUNTRIES, known.tolist(), strict=True):
        ids.extend(range(number, number + count))
        ids.append(ANONYMOUS)
        countries.extend([country] * (count + 1))
        number += count
    return Customers(ids=np.array(ids, dtype=np.int64), countries=countries, first_row=first_row, known=known)


@dataclass(frozen=True, slots=True, eq=False)
class _Sales:
    """Sales that may come back, oldest first: one row a sale, and one row a line, those of one sale together."""

    order_ids: npt.NDArray[np.bytes_]
    customers: npt.NDArray[np.int64]
    sizes: npt.NDArray[np.int64]
    """lines of each"""
    products: npt.NDArray[np.int64]
    quantities: npt.NDArray[np.int64]
    discounts: npt.NDArray[np.int64]

    def take(self, rows: npt.NDArray[np.int64]) -> "_Sales":
        """These sales, in this order."""
        sizes = self.sizes[rows]
        first_line = (np.cumsum(self.sizes) - self.sizes)[rows]
        lines = np.repeat(first_line - (np.cumsum(sizes) - sizes), sizes) + np.arange(sizes.sum())
        return self._of(rows, sizes, lines, self.quantities[lines])

    def some(self, random: np.random.Generator) -> "_Sales":
        """What comes back of each: its first line and half of the others, of each line some of the pieces."""
        number = np.repeat(np.arange(len(self.sizes)), self.sizes)
        chosen = random.random(len(number)) < 0.5
        chosen[np.cumsum(self.sizes) - self.sizes] = True
        lines = np.flatnonzero(chosen)
        sizes = np.bincount(number[lines], minlength=len(self.sizes))
        pieces = 1 + (random.random(len(lines)) * self.quantities[lines]).astype(np.int64)
        return self._of(np.arange(len(self.sizes)), sizes, lines, pieces)

    def _of(
        self,
        rows: npt.NDArray[np.int64],
        sizes: npt.NDArray[np.int64],
        lines: npt.NDArray[np.int64],
        quantities: npt.NDArray[np.int64],
    ) -> "_Sales":
        return _Sales(
            order_ids=self.order_ids[rows],
            customers=self.customers[rows],
            sizes=sizes,
            products=self.products[lines],
            quantities=quantities,
            discounts=self.discounts[lines],
        )

    def followed_by(self, later: "_Sales") -> "_Sales":
        """These, then the others."""
        return _Sales(
            order_ids=np.concatenate([self.order_ids, later.order_ids]),
            customers=np.concatenate([self.customers, later.customers]),
            sizes=np.concatenate([self.sizes, later.sizes]),
            products=np.concatenate([self.products, later.products]),
            quantities=np.concatenate([self.quantities, later.quantities]),
            discounts=np.concatenate([self.discounts, later.discounts]),
        )


_NOTHING = np.zeros(0, dtype=np.int64)
_NO_SALES = _Sales(np.zeros(0, dtype=f"S{ORDER_ID_LENGTH}"), _NOTHING, _NOTHING, _NOTHING, _NOTHING, _NOTHING)


class Shop:
    """Draws orders. The same seed and the same sequence of calls give the same orders."""

    def __init__(self, seed: np.random.SeedSequence, catalog: Catalog, customers: Customers, returns: float) -> None:
        shopping, promotions = seed.spawn(2)
        self._random = np.random.default_rng(shopping)
        self._promotions_seed = promotions
        self._promotions_week = -1
        self._promotions = np.zeros(0, dtype=np.int64)
        self._catalog = catalog
        self._customers = customers
        self._returns = returns
        self._sold = _NO_SALES

    def orders(self, event_times: npt.NDArray[np.int64], returnable: npt.NDArray[np.bool_]) -> Orders:
        """One order for each event time.

        Args:
            event_times: when each is placed, ms since 1970; a block speaks of one moment of the day, that of its last.
            returnable: False where the order has to be a sale (a return that is dated back would come before its sale).
        """
        random, count = self._random, len(event_times)
        now = int(event_times[-1])
        order_ids = _order_ids(random, event_times)
        customers = self._draw_customers(count, now)
        sizes = 1 + random.poisson(_EXTRA_LINES, size=count)

        wanted = np.flatnonzero((random.random(count) < self._returns) & returnable)
        returned = self._take_back(len(wanted))
        back = wanted[: len(returned.sizes)]
        is_return = np.zeros(count, dtype=np.bool_)
        is_return[back] = True
        originals = np.zeros(count, dtype=f"S{ORDER_ID_LENGTH}")
        originals[back] = returned.order_ids
        customers[back] = returned.customers
        sizes[back] = returned.sizes

        line_order = np.repeat(np.arange(count, dtype=np.int64), sizes)
        products = self._catalog.draw(random, len(line_order))
        quantities = _QUANTITY_DRAWS[random.integers(len(_QUANTITY_DRAWS), size=len(line_order))]
        discounts = self._promotion(now)[products]
        line_returned = is_return[line_order]
        products[line_returned] = returned.products
        quantities[line_returned] = returned.quantities
        discounts[line_returned] = returned.discounts

        orders = Orders(
            order_ids=order_ids,
            original_order_ids=originals,
            event_times=event_times,
            is_return=is_return,
            customers=customers,
            line_order=line_order,
            products=products,
            quantities=quantities,
            discounts=discounts,
        )
        self._remember(orders, sizes)
        return orders

    def _draw_customers(self, count: int, now: int) -> npt.NDArray[np.int64]:
        random, people = self._random, self._customers
        odds = np.cumsum(_busyness(now))
        country = np.minimum(
            np.searchsorted(odds / odds[-1], random.random(count), side="right"), len(people.known) - 1
        )
        # The square makes some customers regulars: the first tenth of them place a third of the orders.
        within = (random.random(count) ** 2 * people.known[country]).astype(np.int64)
        guests = random.random(count) < _GUESTS
        drawn: npt.NDArray[np.int64] = people.first_row[country] + np.where(guests, people.known[country], within)
        return drawn

    def _promotion(self, now: int) -> npt.NDArray[np.int64]:
        """Per product, the index of this week's discount."""
        week = now // _WEEK_MS
        if week != self._promotions_week:
            seed = np.random.SeedSequence([*self._promotions_seed.generate_state(4).tolist(), week])
            random = np.random.default_rng(seed)
            chosen = random.random(len(self._catalog)) < _ON_PROMOTION
            self._promotions = np.where(chosen, random.integers(1, len(DISCOUNTS), size=len(self._catalog)), 0)
            self._promotions_week = week
        return self._promotions

    def _take_back(self, count: int) -> _Sales:
        """What comes back of ``count`` remembered sales, or of all that there are. They are forgotten: a sale comes
        back once, so that never more is returned than was sold."""
        remembered = len(self._sold.sizes)
        shuffled = self._random.permutation(remembered)
        chosen, kept = shuffled[:count], np.sort(shuffled[count:])
        returned = self._sold.take(chosen).some(self._random)
        self._sold = self._sold.take(kept)
        return returned

    def _remember(self, orders: Orders, sizes: npt.NDArray[np.int64]) -> None:
        """Keeps the block's first sales, twice as many as come back; the oldest make room."""
        enough = 1 + int(2 * self._returns * len(orders))
        sales = np.flatnonzero(~orders.is_return)[:enough]
        block = _Sales(orders.order_ids, orders.customers, sizes, orders.products, orders.quantities, orders.discounts)
        sold = self._sold.followed_by(block.take(sales))
        excess = len(sold.sizes) - _REMEMBERED_SALES
        self._sold = sold.take(np.arange(excess, len(sold.sizes))) if excess > 0 else sold


def rhythm(now: int) -> float:
    """How busy the whole shop is at that instant (ms since 1970); 1 is the mean of a week."""
    return float(_busyness(now).sum())


def _busyness(now: int) -> npt.NDArray[np.float64]:
    """Per country, its share of the shop's mean traffic at that instant."""
    moment = datetime.fromtimestamp(now / 1000, UTC)
    local = [moment.astimezone(zone) for zone in _ZONES]
    hours = _HOURS[[time.hour for time in local]] / _HOURS.mean()
    days = _DAYS[[time.weekday() for time in local]] / _DAYS.mean()
    busy: npt.NDArray[np.float64] = _weights() * hours * days
    return busy


def _weights() -> npt.NDArray[np.float64]:
    weights = np.array([weight for _, weight, _ in _COUNTRIES])
    shares: npt.NDArray[np.float64] = weights / weights.sum()
    return shares


_ZONES = [ZoneInfo(zone) for _, _, zone in _COUNTRIES]


def _order_ids(random: np.random.Generator, times: npt.NDArray[np.int64]) -> npt.NDArray[np.bytes_]:
    """UUIDs in the layout of version 7 (RFC 9562): 48 bits of time, then 74 bits that the seed decides. The time keeps
    two runs with one seed from using the same ids."""
    count = len(times)
    raw = np.frombuffer(random.bytes(16 * count), dtype=np.uint8).reshape(count, 16).copy()
    raw[:, :6] = times.astype(">i8").view(np.uint8).reshape(count, 8)[:, 2:]
    raw[:, 6] = (raw[:, 6] & 0x0F) | 0x70
    raw[:, 8] = (raw[:, 8] & 0x3F) | 0x80
    digits = np.frombuffer(raw.tobytes().hex().encode(), dtype=np.uint8).reshape(count, 32)
    text = np.full((count, ORDER_ID_LENGTH), ord("-"), dtype=np.uint8)
    for number, (start, end) in enumerate(((0, 8), (8, 12), (12, 16), (16, 20), (20, 32))):
        text[:, start + number : end + number] = digits[:, start:end]
    return text.view(f"S{ORDER_ID_LENGTH}").ravel()
