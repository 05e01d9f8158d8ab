"""What the shop sells, for Prometheus: the windows of the last tick on the board, worked out when somebody asks.

The board holds integers in minor units; here money is in the currency's major unit, as people and dashboards expect,
and a float, as Prometheus has nothing else: exact answers are on the board. How many names there may be is bounded, as
each is a series of its own.
"""

from collections.abc import Iterator, Mapping, Sequence
from heapq import nlargest

from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from sales.board import MEASURES, PRODUCT_MEASURES, Keys, Tick
from sales.money import to_decimal
from sales.windows import Window

MOST_NAMES = 10
"""So many products, categories and regions of each window and measure, the largest: what five windows make is below 500
series. Who falls behind is no longer told of."""

_TOTALS = {
    "revenue": "Sales less what was refunded, in the currency's major unit.",
    "orders": "Sales.",
    "units": "Units sold less units brought back.",
    "returns": "Orders that brought something back.",
    "refunded": "What returns gave back, in the currency's major unit.",
    "average_order_value": "Revenue of a sale, returns left out; nothing in a window without a sale.",
}
_MONEY = {"revenue": "revenue_minor", "refunded": "refunded_minor", "average_order_value": "aov_minor"}
"""metric to field of the board"""

_GROUPS = {"region": "each region", "category": f"the {MOST_NAMES} largest categories"}
"""which of them are told, for people; there are fewer than MOST_NAMES regions"""


class SalesMetrics(Collector):
    """The windows as metrics ``tillstream_sales_…``. The engine's thread shows ticks, which costs it a pointer; the
    server's threads read the last one, whole.

    Args:
        keys: of the board.
        windows: those that are published.
        currency: the reporting currency, ISO 4217.
    """

    def __init__(self, keys: Keys, windows: Sequence[Window], currency: str) -> None:
        self._keys = keys
        self._windows = tuple(windows)
        self._currency = currency
        self._tick: Tick | None = None

    def show(self, tick: Tick) -> None:
        """This is on the board now. Nobody may change it any more."""
        self._tick = tick

    def collect(self) -> Iterator[Metric]:
        """Every metric as of one tick; without values before the first."""
        tick = self._tick or Tick(as_of="")
        yield from self._totals(tick)
        for group, which in _GROUPS.items():
            for measure in MEASURES:
                yield self._best_groups(tick, group, measure, which)
        for measure in PRODUCT_MEASURES:
            yield self._best_products(tick, measure)

    def _totals(self, tick: Tick) -> Iterator[Metric]:
        for name, text in _TOTALS.items():
            family = self._family(name, text, money=name in _MONEY)
            for window in self._windows:
                told = tick.hashes.get(self._keys.aov(window.name), {}).get(_MONEY.get(name, name))
                if told is not None:
                    self._add(family, [window.name], int(told), money=name in _MONEY)
            yield family

    def _best_groups(self, tick: Tick, group: str, measure: str, which: str) -> Metric:
        money = measure == "revenue"
        family = self._family(f"{group}_{measure}", f"{_TOTALS[measure]} Of {which}.", group, money=money)
        for window in self._windows:
            content = tick.zsets.get(self._keys.group(window.name, group, measure), {})
            for name, value in _largest(content):
                self._add(family, [window.name, name], value, money=money)
        return family

    def _best_products(self, tick: Tick, measure: str) -> Metric:
        money = measure == "revenue"
        text = f"{_TOTALS[measure]} Of the {MOST_NAMES} largest products."
        family = self._family(f"product_{measure}", text, "product_id", "product_name", money=money)
        names = tick.hashes.get(self._keys.products, {})
        for window in self._windows:
            content = tick.zsets.get(self._keys.product(window.name, measure), {})
            for product, value in _largest(content):
                self._add(family, [window.name, product, names.get(product, product)], value, money=money)
        return family

    def _family(self, name: str, text: str, *labels: str, money: bool) -> GaugeMetricFamily:
        currency = ["currency"] if money else []
        return GaugeMetricFamily(f"tillstream_sales_{name}", text, labels=["window", *labels, *currency])

    def _add(self, family: GaugeMetricFamily, labels: list[str], value: int, *, money: bool) -> None:
        if money:
            family.add_metric([*labels, self._currency], float(to_decimal(value, self._currency)))
        else:
            family.add_metric(labels, value)


def _largest(content: Mapping[str, int]) -> list[tuple[str, int]]:
    """The best first, ties as Redis orders them."""
    return nlargest(MOST_NAMES, content.items(), key=lambda item: (item[1], item[0]))
