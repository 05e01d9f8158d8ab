"""The live numbers of one tick against what they should be, name by name."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sales.board import Keys, LiveNumbers
from sales.money import exponent
from sales.times import format_time
from tillstream.recompute import Expected


@dataclass(frozen=True, slots=True)
class Difference:
    """One number that is not what it should be."""

    place: str
    """a Redis key, or a place in S3"""
    name: str
    expected: str
    found: str


@dataclass(slots=True)
class Check:
    """One kind of number in one window (or, with an empty window, of the whole board)."""

    window: str
    what: str
    compared: int = 0
    differences: list[Difference] = field(default_factory=list)
    to_come: int = 0
    """what could not be compared, because its writer has not come to it yet"""

    def match(self, place: str, expected: Mapping[str, Any], found: Mapping[str, Any]) -> None:
        """Compares two mappings name by name; a name on one side only is a difference."""
        for name in sorted(expected.keys() | found.keys()):
            self.equal(place, name, expected.get(name), found.get(name))

    def equal(self, place: str, name: str, expected: Any, found: Any) -> None:
        """Compares two values; None is *absent*."""
        self.compared += 1
        if expected != found:
            self.differences.append(Difference(place, name, _shown(expected), _shown(found)))


def compare(live: LiveNumbers, expected: Expected, keys: Keys, currency: str) -> list[Check]:
    """Every number of one tick against what was recomputed for it: all windows, then the trends and the names."""
    checks = []
    for name, window in live.windows.items():
        checks.append(_totals(name, live, expected, keys, currency))
        for measure, ranking in window.products.items():
            place = keys.product(name, measure)
            checks.append(_ranking(name, measure, place, expected.products.get((name, measure), []), ranking))
        for group, measures in window.groups.items():
            check = Check(name, group)
            for measure, members in measures.items():
                check.match(keys.group(name, group, measure), expected.groups.get((name, group, measure), {}), members)
            checks.append(check)
    return [*checks, *_trends(live, expected, keys), _names(live, expected, keys)]


def _totals(name: str, live: LiveNumbers, expected: Expected, keys: Keys, currency: str) -> Check:
    check = Check(name, "totals")
    totals = expected.totals[name]
    start, end = expected.bounds[name]
    fields = {measure: str(value) for measure, value in totals.items()}
    orders, sales = totals["orders"], totals["sales_minor"]
    if orders:
        average = (2 * sales + orders) // (2 * orders)
        fields |= {"aov_minor": str(average), "aov": decimal(average, currency)}
    fields |= {"revenue": decimal(totals["revenue_minor"], currency), "currency": currency}
    fields |= {"window_start": format_time(start), "window_end": format_time(end), "as_of": live.status["as_of"]}
    check.match(keys.aov(name), fields, live.windows[name].aov)
    return check


def _ranking(
    name: str, measure: str, place: str, expected: Sequence[tuple[str, int]], found: Sequence[tuple[str, int]]
) -> Check:
    check = Check(name, f"product {measure}")
    check.match(place, dict(expected), dict(found))
    if not check.differences:
        for rank, (ours, theirs) in enumerate(zip(expected, found, strict=True), start=1):
            if ours != theirs:
                check.differences.append(Difference(place, f"place {rank}", ours[0], theirs[0]))
    return check


def _trends(live: LiveNumbers, expected: Expected, keys: Keys) -> list[Check]:
    whole, by_region = Check("", "trend"), Check("", "trend by region")
    shown = {(region, measure) for region, measures in live.trends.items() for measure in measures}
    for region, measure in sorted(shown | expected.trends.keys()):
        check = by_region if region else whole
        found = live.trends.get(region, {}).get(measure, {})
        check.match(keys.trend(measure, region or None), expected.trends.get((region, measure), {}), found)
    return [whole, by_region]


def _names(live: LiveNumbers, expected: Expected, keys: Keys) -> Check:
    """The board names the products that it shows, and no other."""
    shown = {product for window in live.windows.values() for best in window.products.values() for product, _ in best}
    check = Check("", "product names")
    for product in sorted(shown | live.names.keys()):
        name = expected.names.get(product) if product in shown else None
        check.equal(keys.products, product, name, live.names.get(product))
    return check


def decimal(minor: int, currency: str) -> str:
    """Minor units as people write them, by integer arithmetic: 1234 USD is 12.34."""
    digits = exponent(currency)
    whole, rest = divmod(abs(minor), 10**digits)
    sign = "-" if minor < 0 else ""
    return f"{sign}{whole}.{rest:0{digits}d}" if digits else f"{sign}{whole}"


def _shown(value: Any) -> str:
    return "absent" if value is None else str(value)
