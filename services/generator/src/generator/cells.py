"""The cells of an order line, from text to values: one row's fate. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal, InvalidOperation
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo

from generator.mapping import CategoryRule, Mapping
from sales.countries import REGION_OF
from sales.money import exponent

_KNOWN_TEXTS = 65_536
"""How many different texts of a kind are remembered: files repeat themselves, memory is bounded."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Price:
    """A price in minor units."""

    minor: int
    sign: int
    """of the price as written: a tenth of a penny is above zero and yet 0 in minor units"""
    rounded: bool


@dataclass(frozen=True, slots=True)
class ReadLine:
    """A row that is a line of a sale or of a return."""

    line: dict[str, Any]
    """as in the order event"""
    rounded: bool
    """a price of it had more digits than the currency"""


class Cells:
    """Reads cells as one mapping says. Texts that come again are answered from memory."""

    def __init__(self, mapping: Mapping) -> None:
        zone = ZoneInfo(mapping.timezone)
        digits = exponent(mapping.currency)
        codes = {name.casefold(): code for name, code in mapping.countries.items()}
        self._no_products = {code.casefold() for code in mapping.no_products}

        remember = lru_cache(maxsize=_KNOWN_TEXTS)
        self.time = remember(lambda text: _time(text, mapping.time_format, zone))
        self.whole = remember(_whole)
        self._price = remember(lambda text: _price(text, digits))
        self._category = remember(lambda name: _category(name, mapping.categories))
        self._country = remember(lambda name: codes.get(name.casefold(), name.upper()))
        self._default_country = mapping.default_country

    def country(self, text: str | None) -> tuple[str, str | None]:
        """The ISO code, and the name if it is none that the mapping or ISO knows (the code is then the default)."""
        name = (text or "").strip()
        if not name:
            return self._default_country, None
        code = self._country(name)
        return (code, None) if code in REGION_OF else (self._default_country, name)

    def line(self, row: Sequence[str | None], *, in_return: bool) -> ReadLine | str:
        """One row as a line of the order event, or why it is none (a fate).

        Args:
            row: product id, quantity, unit price, product name, category, discount percent, unit cost.
            in_return: its order is a return.
        """
        product_text, quantity_text, price_text, name_text, category, percent_text, cost_text = row
        product_id = (product_text or "").strip()
        quantity = self.whole(quantity_text or "")
        price = self._price(price_text or "")
        if not product_id or quantity is None or price is None:
            field = "product_id" if not product_id else "quantity" if quantity is None else "unit_price"
            return f"unreadable:{field}"
        if quantity < 0 and not in_return:
            return "stock_correction"
        if price.sign < 0:
            return "negative_price"
        if price.sign == 0:
            return "no_price"
        if product_id.casefold() in self._no_products:
            return "no_product"
        if quantity == 0:
            return "no_quantity"
        if quantity > 0 and in_return:
            return "sale_in_return"

        name = (name_text or "").strip()
        line = {
            "product_id": product_id,
            "product_name": name,
            "category": (category or "").strip() or self._category(name),
            "quantity": abs(quantity),
            "unit_amount": price.minor,
        }
        rounded = price.rounded
        if percent_text:
            percent = self.whole(percent_text)
            if percent is None:
                return "unreadable:discount_percent"
            line["discount_percent"] = percent
        if cost_text:
            cost = self._price(cost_text)
            if cost is None or cost.sign < 0:
                return "unreadable:unit_cost"
            line["unit_cost"] = cost.minor
            rounded |= cost.rounded
        return ReadLine(line, rounded)


def _time(text: str, layout: str | None, zone: ZoneInfo) -> int | None:
    """Ms since 1970, or None."""
    try:
        time = datetime.fromisoformat(text.strip()) if layout is None else datetime.strptime(text.strip(), layout)  # noqa: DTZ007 (the zone follows)
        if time.tzinfo is None:
            time = time.replace(tzinfo=zone)
        return (time - _EPOCH) // timedelta(milliseconds=1)
    except (ValueError, OverflowError):
        return None


def _whole(text: str) -> int | None:
    """A whole number (``6``, ``-6``, ``6.0``), or None."""
    try:
        return int(text)
    except ValueError:
        number = _decimal(text)
        return int(number) if number is not None and number == number.to_integral_value() else None


def _price(text: str, digits: int) -> Price | None:
    """A decimal in major units, half up to minor ones, or None."""
    major = _decimal(text)
    if major is None:
        return None
    exact = major.scaleb(digits)
    minor = abs(exact).quantize(Decimal(1), ROUND_HALF_UP).copy_sign(exact)
    sign = (exact > 0) - (exact < 0)
    return Price(int(minor), sign, rounded=minor != exact)


_LARGEST = Decimal(10**15)
"""Beyond what any cell may hold; keeps a cell like 1e999999 from filling the memory."""


def _decimal(text: str) -> Decimal | None:
    try:
        number = Decimal(text)
    except InvalidOperation:
        return None
    return number if number.is_finite() and abs(number) < _LARGEST else None


def _category(name: str, rules: Sequence[CategoryRule]) -> str:
    words = f" {name.upper()}"
    for rule in rules:
        if any(f" {word.upper()}" in words for word in rule.words):
            return rule.name
    return "Uncategorised"
