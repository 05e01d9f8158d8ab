"""The synthetic shop as a source of parcels: slices of time in, records and their exact counts out. Pure."""

from collections.abc import Iterable, Iterator

import numpy as np

from generator import catalog, shoppers
from generator.disturbances import Backdated, Disturber, Extra, Mix
from generator.manifest import Kind, Parcel, Tally
from generator.pacing import Slice
from generator.wire import Encoder
from sales.orders import discount_amount
from sales.times import parse_time

BEYOND_ANY_BROKER = parse_time("2100-01-01T00:00:00Z")
"""Future events of a simulated day are ahead of this: their bytes must not depend on the real clock."""


class SyntheticShop:
    """All that the seed decides: catalogue, customers, orders, disturbances."""

    def __init__(self, *, seed: int, products: int, customers: int, returns: float, mix: Mix, currency: str) -> None:
        for_catalog, for_shop, for_disturbances = np.random.SeedSequence(seed).spawn(3)
        self.catalog = catalog.build(for_catalog, products)
        people = shoppers.invite(customers)
        self._shop = shoppers.Shop(for_shop, self.catalog, people, returns)
        self._encoder = Encoder(self.catalog, people, currency)
        self._mix = mix
        self._disturber = Disturber(for_disturbances, mix, currency)

    def parcels(self, slices: Iterable[Slice], *, orders: int, until: int | None, simulated: bool) -> Iterator[Parcel]:
        """One parcel a slice; the copies that still wait go last, unless the slices were broken off.

        Args:
            slices: when orders are placed.
            orders: good orders in all; 0: as long as there are slices.
            until: the last time (ms since 1970) at which an order is placed.
            simulated: the slices' time is not the broker's.
        """
        left = orders or None
        for slice_ in slices:
            times = slice_.times()
            if until is not None:
                times = times[times <= until]
            if left is not None:
                times = times[:left]
                left -= len(times)
            if len(times):
                yield self._parcel(times, BEYOND_ANY_BROKER if simulated else slice_.end)
            if left == 0 or len(times) < slice_.count:
                yield _merged([], [], self._disturber.rest(), Tally())
                return

    def _parcel(self, times: np.typing.NDArray[np.int64], ahead_of: int) -> Parcel:
        backdated = self._disturber.backdate(times)
        orders = self._shop.orders(backdated.event_times, ~(backdated.late | backdated.out_of_order))
        keys: list[bytes] = orders.order_ids.tolist()
        values = self._encoder.encode(orders)
        tally = self._tally(orders, backdated)
        if self._mix.is_empty():
            return Parcel(keys, values, tally)
        return _merged(keys, values, self._disturber.extras(keys, values, ahead_of), tally)

    def _tally(self, orders: shoppers.Orders, backdated: Backdated) -> Tally:
        gross = orders.quantities * self.catalog.unit_amounts[orders.products]
        percent = np.array(shoppers.DISCOUNTS, dtype=np.int64)[orders.discounts]
        net = gross - discount_amount(gross, percent)
        returned = orders.is_return[orders.line_order]
        late, out_of_order = int(backdated.late.sum()), int(backdated.out_of_order.sum())
        tally = Tally(
            sales=int((~orders.is_return).sum()),
            returns=int(orders.is_return.sum()),
            lines=len(net),
            units=int(np.where(returned, -orders.quantities, orders.quantities).sum()),
            sales_minor=int(net[~returned].sum()),
            refunded_minor=int(net[returned].sum()),
            first_event_time=int(orders.event_times.min()),
            last_event_time=int(orders.event_times.max()),
        )
        tally.by_kind.update(
            {Kind.ORDER: len(orders) - late - out_of_order, Kind.LATE: late, Kind.OUT_OF_ORDER: out_of_order}
        )
        return tally


def _merged(keys: list[bytes], values: list[bytes], extras: list[Extra], tally: Tally) -> Parcel:
    """Good records and extras in the order of sending; the tally learns of the extras."""
    all_keys: list[bytes] = []
    all_values: list[bytes] = []
    sent = 0
    for extra in extras:
        upto = min(extra.before, len(keys))
        all_keys += keys[sent:upto]
        all_values += values[sent:upto]
        sent = upto
        all_keys.append(extra.key)
        all_values.append(extra.value)
        if extra.reason is None:
            tally.by_kind[extra.kind] += 1
        else:
            tally.add_dead_letter(extra.kind, extra.reason)
    return Parcel(all_keys + keys[sent:], all_values + values[sent:], tally)
