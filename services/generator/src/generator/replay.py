"""Real orders from a file of order lines: rows grouped into orders, by event time, every row accounted for.

An order's time is the earliest among its rows. Rows of one order, and rows out of order, may lie ``span_seconds``
apart; twice so much of the file is held in memory, and no more. Rows further apart under one order id are two orders.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np

from generator import table
from generator.cells import Cells
from generator.manifest import Kind, Parcel, Tally
from generator.mapping import Mapping, ReplayError
from generator.pacing import TICK_SECONDS, Clock, Speed, waiter
from sales.countries import REGION_OF
from sales.orders import decode
from sales.rules import SCHEMA_VERSION, Rules
from sales.times import format_time

PARCEL_ORDERS = 1000
"""At most in one parcel: some hundred kilobytes."""

SOLD, RETURNED, AFTER_UNTIL = "sold", "returned", "after_until"

FATES = {
    SOLD: "a line of a sale",
    RETURNED: "a line of a return",
    "stock_correction": "a negative quantity outside a return",
    "negative_price": "a price below zero",
    "no_price": "a price of zero",
    "no_product": "a fee, postage or correction, by its product id",
    "no_quantity": "a quantity of zero",
    "sale_in_return": "a positive quantity inside a return",
    AFTER_UNTIL: "of an order after the instant where the replay stops",
}
"""What may become of a row, in words. The reasons are tried in this order. Beside these: ``unreadable:<field>``, a cell
that is no number, time or id (``unreadable:row``: too few or too many cells); ``refused:<reason>``, a row of an order
that the order event's contract refuses."""


@dataclass(slots=True)
class Report:
    """What became of the rows read; grows while the orders are taken."""

    fates: Counter[str] = field(default_factory=Counter)
    """rows by fate; adds up to all rows read"""
    sales: int = 0
    returns: int = 0
    prices_rounded: int = 0
    """lines sold or returned with a price of more digits than the currency has"""
    orders_with_two_times: int = 0
    unknown_countries: Counter[str] = field(default_factory=Counter)
    """orders by a country name that the mapping doesn't know; their country is its default"""

    @property
    def rows(self) -> int:
        """All rows read."""
        return self.fates.total()

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "rows": self.rows,
            "fates": dict(self.fates.most_common()),
            "sales": self.sales,
            "returns": self.returns,
            "prices_rounded": self.prices_rounded,
            "orders_with_two_times": self.orders_with_two_times,
            "unknown_countries": dict(self.unknown_countries.most_common()),
        }


class ReplayedOrder(NamedTuple):
    """One order, ready to be sent."""

    event_time: int
    """ms since 1970, as in the message"""
    order_id: str
    key: bytes
    value: bytes
    is_return: bool
    lines: int
    units: int
    """pieces, positive"""
    net_minor: int
    """positive"""


def orders(
    path: Path, mapping: Mapping, report: Report | None = None, *, until: int | None = None, shift_ms: int = 0
) -> Iterator[ReplayedOrder]:
    """The file's orders by event time (those of one time as the file has them). Blocks on the disk.

    Args:
        path: CSV or Parquet, a row for each order line.
        mapping: how to read it.
        report: takes what became of each row; complete when the iterator is at its end.
        until: the last event time (the file's own, ms since 1970) that is given out; inclusive. Reading stops soon
            after it.
        shift_ms: added to every event time.

    Raises:
        ReplayError: the file can't be read, lacks a column, or its rows are out of time order by more than the
            mapping's span.
    """
    report = Report() if report is None else report
    assembly = _Assembly(mapping, report)
    names = {meaning: name for meaning, name in mapping.columns if name is not None}

    def left_out() -> None:
        report.fates["unreadable:row"] += 1

    def given(complete: list[_Open]) -> Iterator[ReplayedOrder]:
        return _encoded(complete, mapping, report, until, shift_ms)

    for batch in table.read(path, list(names.values()), mapping, left_out):
        assembly.take(dict(zip(names, batch, strict=True)))
        yield from given(assembly.complete())
        if until is not None and assembly.everything_is_after(until):
            break
    yield from given(assembly.rest())


def distance_to_now(path: Path, mapping: Mapping, speed: Speed, *, now: int, until: int | None = None) -> int:
    """By how much (ms) to shift a replay that is to end up in the present. At 1x its first order is now, so that each
    is sent when it is placed; at any other speed its last one (up to ``until``), since an order of the future would
    be refused: that reads the file once.

    Raises:
        ReplayError: as ``orders``; or there is no order.
    """
    there = orders(path, mapping, until=until)
    chosen = next(there, None)
    if chosen is None:
        raise ReplayError(f"{path} has no order to replay")
    if speed.factor != 1.0:
        for chosen in there:  # noqa: B007 (the last one is what we are after)
            pass
    return now - chosen.event_time


@dataclass(frozen=True, slots=True)
class Playback:
    """A replay that is ready to run."""

    parcels: Iterator[Parcel]
    report: Report
    """complete when the parcels are at their end"""


def play(
    path: Path,
    mapping: Mapping,
    *,
    currency: str,
    speed: Speed,
    until: int | None,
    shift_to_now: bool,
    clock: Clock,
) -> Playback:
    """Checks what can be checked before anything is sent, and sets up the replay.

    Args:
        path: CSV or Parquet.
        mapping: how to read it.
        currency: what the pipeline reports in.
        speed: how fast to play.
        until: as in ``orders``.
        shift_to_now: move all event times, see ``distance_to_now``.
        clock: what paces it, and what "now" is.

    Raises:
        ReplayError: as ``orders``; or the pipeline would refuse every order.
    """
    if mapping.currency != currency:
        raise ReplayError(
            f"the orders of {path} are in {mapping.currency}, but this pipeline reports in {currency} and would refuse "
            f"them all: set CURRENCY={mapping.currency} for every service"
        )
    next(orders(path, mapping), None)  # what is wrong with the file shows in its first rows, before anything is sent
    report = Report()

    def replayed() -> Iterator[ReplayedOrder]:
        # "Now" is when the first order is asked for: until then a broker may have been waited for.
        shift_ms = distance_to_now(path, mapping, speed, now=clock.now(), until=until) if shift_to_now else 0
        yield from orders(path, mapping, report, until=until, shift_ms=shift_ms)

    return Playback(parcels(replayed(), speed, clock), report)


def parcels(orders: Iterable[ReplayedOrder], speed: Speed, clock: Clock) -> Iterator[Parcel]:
    """Orders in parcels, each when it is due at that speed; until the clock says stop."""
    wait = waiter(speed, clock)
    for together in _together(orders, speed):
        wait(together[-1].event_time)
        if clock.stopping():
            return
        yield _parcel(together)


def _together(orders: Iterable[ReplayedOrder], speed: Speed) -> Iterator[list[ReplayedOrder]]:
    """Orders that are due in one tick, at most PARCEL_ORDERS of them."""
    tick_ms = float("inf") if speed.factor is None else 1000 * speed.factor * TICK_SECONDS
    together: list[ReplayedOrder] = []
    for order in orders:
        if together and (len(together) == PARCEL_ORDERS or order.event_time > together[0].event_time + tick_ms):
            yield together
            together = []
        together.append(order)
    if together:
        yield together


def _parcel(orders: list[ReplayedOrder]) -> Parcel:
    sales = [order for order in orders if not order.is_return]
    returns = [order for order in orders if order.is_return]
    tally = Tally(
        sales=len(sales),
        returns=len(returns),
        lines=sum(order.lines for order in orders),
        units=sum(order.units for order in sales) - sum(order.units for order in returns),
        sales_minor=sum(order.net_minor for order in sales),
        refunded_minor=sum(order.net_minor for order in returns),
        first_event_time=orders[0].event_time,
        last_event_time=orders[-1].event_time,
    )
    tally.by_kind[Kind.ORDER] = len(orders)
    return Parcel([order.key for order in orders], [order.value for order in orders], tally)


@dataclass(slots=True)
class _Open:
    """An order whose rows are still coming in."""

    order_id: str
    number: int
    """how many orders began before it in the file"""
    is_return: bool
    customer: int | None
    country: str
    unknown_country: str | None
    event_time: int
    """the earliest so far"""
    latest_time: int
    lines: list[dict[str, Any]] = field(default_factory=list)
    rounded: int = 0
    """lines whose price was rounded"""
    other_fates: list[str] = field(default_factory=list)
    """of its rows that are no line of it"""


_by_time = attrgetter("event_time", "number")


class _Assembly:
    """Takes rows, gives out orders that are complete."""

    def __init__(self, mapping: Mapping, report: Report) -> None:
        self._mapping = mapping
        self._report = report
        self._span = mapping.span_seconds * 1000
        self._cells = Cells(mapping)
        self._open: dict[str, _Open] = {}
        self._closed: list[_Open] = []
        """orders whose id another one has taken over, and that are not given out yet"""
        self._latest = -(2**63)
        self._begun = 0
        self._rows = 0

    def take(self, columns: dict[str, list[str | None]]) -> None:
        """A batch of rows, as one column for each meaning that the mapping knows."""
        absent: list[str | None] = [None] * len(columns["order_id"])
        line_cells = zip(*(columns.get(meaning, absent) for meaning in _LINE_CELLS), strict=True)
        for order_text, time_text, customer_text, country_text, row in zip(
            columns["order_id"],
            columns["event_time"],
            columns.get("customer_id", absent),
            columns.get("country", absent),
            line_cells,
            strict=True,
        ):
            self._rows += 1
            order_id = (order_text or "").strip()
            time = self._cells.time(time_text or "")
            if not order_id or time is None:
                self._report.fates["unreadable:event_time" if order_id else "unreadable:order_id"] += 1
                continue
            order = self._order(order_id, time)
            if order is None:
                order = self._begin(order_id, time, customer_text, country_text)
            if customer_text and self._cells.whole(customer_text) is None:
                order.other_fates.append("unreadable:customer_id")
                continue
            read = self._cells.line(row, in_return=order.is_return)
            if isinstance(read, str):
                order.other_fates.append(read)
            else:
                order.lines.append(read.line)
                order.rounded += read.rounded

    def complete(self) -> list[_Open]:
        """The orders that no further row can belong to, by time; all that are given out later are not earlier."""
        edge = self._edge()
        done = [order for order in (*self._open.values(), *self._closed) if order.event_time < edge]
        self._open = {order_id: order for order_id, order in self._open.items() if order.event_time >= edge}
        self._closed = [order for order in self._closed if order.event_time >= edge]
        return sorted(done, key=_by_time)

    def rest(self) -> list[_Open]:
        """All other orders, when there are no more rows."""
        done = [*self._open.values(), *self._closed]
        self._open, self._closed = {}, []
        return sorted(done, key=_by_time)

    def everything_is_after(self, time: int) -> bool:
        """Whatever is still to be given out is later than ``time``."""
        return self._edge() > time

    def _edge(self) -> int:
        """Orders before this time are complete: a row may come a span behind the latest one, and belong to an order
        that began a span before it."""
        return self._latest - 2 * self._span

    def _order(self, order_id: str, time: int) -> _Open | None:
        """The order that a row belongs to, if it has begun."""
        if time < self._latest - self._span:
            raise ReplayError(
                f"row {self._rows} ({format_time(time)}) comes more than {self._mapping.span_seconds} s after a row of "
                f"{format_time(self._latest)}: sort the file by time, or raise span_seconds in the mapping"
            )
        self._latest = max(self._latest, time)
        order = self._open.get(order_id)
        if order is not None and time - order.event_time > self._span:
            self._closed.append(self._open.pop(order_id))
            return None
        if order is not None:
            order.event_time = min(order.event_time, time)
            order.latest_time = max(order.latest_time, time)
        return order

    def _begin(self, order_id: str, time: int, customer_text: str | None, country_text: str | None) -> _Open:
        country, unknown_country = self._cells.country(country_text)
        prefix = self._mapping.return_prefix
        order = self._open[order_id] = _Open(
            order_id=order_id,
            number=self._begun,
            is_return=bool(prefix) and order_id.startswith(prefix),
            customer=self._cells.whole(customer_text or ""),
            country=country,
            unknown_country=unknown_country,
            event_time=time,
            latest_time=time,
        )
        self._begun += 1
        return order


_LINE_CELLS = ("product_id", "quantity", "unit_price", "product_name", "category", "discount_percent", "unit_cost")

_encode: Callable[[Any], bytes] = msgspec.json.Encoder().encode


def _encoded(
    complete: list[_Open], mapping: Mapping, report: Report, until: int | None, shift_ms: int
) -> Iterator[ReplayedOrder]:
    """Complete orders as messages that the contract accepts; the report learns what became of their rows."""
    ready: list[_Open] = []
    for order in complete:
        if until is not None and order.event_time > until:
            report.fates[AFTER_UNTIL] += len(order.lines) + len(order.other_fates)
            continue
        report.fates.update(order.other_fates)
        if order.lines:
            ready.append(order)

    keys = [order.order_id.encode() for order in ready]
    values = [_message(order, mapping.currency, shift_ms) for order in ready]
    times = [order.event_time + shift_ms for order in ready]
    rules = Rules(currency=mapping.currency, countries=REGION_OF.keys())
    decoded = decode(rules, keys, values, range(len(ready)), times)
    for rejection in decoded.rejected:
        report.fates[f"refused:{rejection.reason}"] += len(ready[rejection.position].lines)

    batch = decoded.accepted
    if not len(batch):
        return
    first_lines = np.flatnonzero(batch.line_number == 1)
    units = np.add.reduceat(batch.quantities, first_lines).tolist()
    net = np.add.reduceat(batch.net(), first_lines).tolist()
    for row, position in enumerate(batch.positions):
        order = ready[position]
        report.fates[RETURNED if order.is_return else SOLD] += len(order.lines)
        report.sales += not order.is_return
        report.returns += order.is_return
        report.prices_rounded += order.rounded
        report.orders_with_two_times += order.latest_time != order.event_time
        if order.unknown_country is not None:
            report.unknown_countries[order.unknown_country] += 1
        yield ReplayedOrder(
            event_time=times[position],
            order_id=order.order_id,
            key=keys[position],
            value=values[position],
            is_return=order.is_return,
            lines=len(order.lines),
            units=units[row],
            net_minor=net[row],
        )


def _message(order: _Open, currency: str, shift_ms: int) -> bytes:
    return _encode(
        {
            "schema": SCHEMA_VERSION,
            "type": "return" if order.is_return else "sale",
            "order_id": order.order_id,
            "event_time": format_time(order.event_time + shift_ms),
            "customer_id": order.customer,
            "country": order.country,
            "currency": currency,
            "lines": order.lines,
        }
    )
