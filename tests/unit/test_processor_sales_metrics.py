"""The board as metrics: one tick, whole, in major units, with as many names as are bounded and no more."""

import re
from pathlib import Path

from prometheus_client import CollectorRegistry

from processor.sales_metrics import MOST_NAMES, SalesMetrics
from sales.board import Keys, Tick
from sales.windows import parse_windows

OPERATIONS = Path(__file__).parents[2] / "docs" / "operations.md"


def shown(*ticks: Tick, currency: str = "USD") -> CollectorRegistry:
    registry = CollectorRegistry()
    metrics = SalesMetrics(Keys("sales:"), parse_windows("1m 1h"), currency)
    registry.register(metrics)
    for tick in ticks:
        metrics.show(tick)
    return registry


def a_tick(**products: int) -> Tick:
    """An hour of three orders and a return; the last minute of the same without any order."""
    tick = Tick(as_of="2026-11-20T08:00:00.000Z")
    fields = {"orders": "3", "returns": "1", "units": "7", "revenue_minor": "-1005", "refunded_minor": "2500"}
    tick.hashes["sales:1m:aov"] = {**fields, "orders": "0"}
    tick.hashes["sales:1h:aov"] = {**fields, "aov_minor": "498"}
    tick.hashes["sales:products"] = {name: f"The {name}" for name in products}
    tick.zsets["sales:1h:product:revenue"] = products
    tick.zsets["sales:1h:product:units"] = dict.fromkeys(products, 1)
    tick.zsets["sales:1h:category:revenue"] = {"Home": -1005}
    tick.zsets["sales:1h:region:orders"] = {"Europe": 2, "Asia": 1}
    return tick


def samples(registry: CollectorRegistry, name: str) -> dict[tuple[str, ...], float]:
    """Of one metric: the labels' values, in the labels' order, to the value."""
    return {
        tuple(sample.labels.values()): sample.value
        for family in registry.collect()
        for sample in family.samples
        if sample.name == name
    }


def test_amounts_are_in_the_major_unit_and_tell_their_currency() -> None:
    told = shown(a_tick())
    assert samples(told, "tillstream_sales_revenue") == {("1m", "USD"): -10.05, ("1h", "USD"): -10.05}
    assert samples(told, "tillstream_sales_refunded")[("1h", "USD")] == 25.0
    assert samples(told, "tillstream_sales_category_revenue") == {("1h", "Home", "USD"): -10.05}
    yen = shown(a_tick(), currency="JPY")
    assert samples(yen, "tillstream_sales_refunded")[("1h", "JPY")] == 2500.0


def test_counts_are_counts() -> None:
    told = shown(a_tick())
    assert samples(told, "tillstream_sales_orders") == {("1m",): 0, ("1h",): 3}
    assert samples(told, "tillstream_sales_units")[("1h",)] == 7
    assert samples(told, "tillstream_sales_region_orders") == {("1h", "Europe"): 2, ("1h", "Asia"): 1}


def test_a_window_without_a_sale_has_no_average() -> None:
    assert samples(shown(a_tick()), "tillstream_sales_average_order_value") == {("1h", "USD"): 4.98}


def test_of_many_products_the_largest_are_told_with_their_names() -> None:
    products = {f"p{number:02}": 100 * number for number in range(MOST_NAMES + 5)}
    told = samples(shown(a_tick(**products)), "tillstream_sales_product_revenue")
    assert len(told) == MOST_NAMES
    assert told[("1h", "p14", "The p14", "USD")] == 14.0
    assert min(told.values()) == 5.0


def test_a_product_that_is_no_longer_on_the_board_is_no_longer_told() -> None:
    told = shown(a_tick(mug=500, pen=100), a_tick(pen=200))
    assert samples(told, "tillstream_sales_product_revenue") == {("1h", "pen", "The pen", "USD"): 2.0}


def test_before_the_first_tick_nothing_has_a_value() -> None:
    assert not [sample for family in shown().collect() for sample in family.samples]


def test_every_metric_is_documented() -> None:
    metrics = {family.name for family in shown().collect()}
    documented = set(re.findall(r"^\| `(tillstream_sales_\w+)` \|", OPERATIONS.read_text(), re.MULTILINE))
    assert documented == metrics
