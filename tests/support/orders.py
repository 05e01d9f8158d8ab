"""What a reader makes of one message, by the contract alone: plain JSON, ``datetime`` and ``Decimal``.

Nothing of the pipeline has a part in it but the list of country codes. Where a message breaks several rules the first
in the contract's table is named.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

from sales.countries import REGION_OF

MOST = 10**12
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
DEFAULTS = {"product_name": "", "category": "Uncategorised", "discount_percent": 0, "unit_cost": None}


@dataclass(frozen=True)
class Order:
    """A message that is an order."""

    order_id: str
    event_ms: int
    is_return: bool
    document: dict[str, Any]
    content: tuple[Any, ...]
    """all that tells a conflict from a duplicate"""

    @property
    def net(self) -> int:
        """Minor units; negative for returns."""
        total = 0
        for line in self.document["lines"]:
            gross = line["quantity"] * line["unit_amount"]
            discount = (Decimal(gross * line.get("discount_percent", 0)) / 100).quantize(Decimal(1), ROUND_HALF_UP)
            total += gross - int(discount)
        return -total if self.is_return else total


def read(key: bytes | None, value: bytes, broker_ms: int, currency: str) -> Order | str:
    """The order, or the reason for which it is a dead letter."""
    if len(value) > 1_000_000:
        return "oversize"
    try:
        document = json.loads(value.decode("utf-8"), parse_constant=_refuse)
    except (ValueError, RecursionError):
        return "json"
    if not isinstance(document, dict) or _depth(document) > 100:
        return "json"
    if not _is_integer(document.get("schema"), 1, 1):
        return "schema"
    for field in _broken(document):
        return f"field:{field}"
    if key != document["order_id"].encode():
        return "key"
    if document["currency"] != currency:
        return "currency"
    event_ms = time_ms(document["event_time"])
    if event_ms > broker_ms + 5 * 60_000:
        return "future"
    return Order(
        order_id=document["order_id"],
        event_ms=event_ms,
        is_return=document["type"] == "return",
        document=document,
        content=(
            *(document.get(name) for name in ("type", "customer_id", "country", "currency", "original_order_id")),
            *({name: line.get(name, DEFAULTS.get(name)) for name in _LINE} for line in document["lines"]),
        ),
    )


_LINE = ("product_id", "product_name", "category", "quantity", "unit_amount", "discount_percent", "unit_cost")


def _broken(order: dict[str, Any]) -> Iterator[str]:
    """The fields that break their rules, in the order of the contract's table."""
    if order.get("type") not in ("sale", "return"):
        yield "type"
    if not _is_text(order.get("order_id"), 1, 64):
        yield "order_id"
    if order.get("original_order_id") is not None and not _is_text(order["original_order_id"], 1, 64):
        yield "original_order_id"
    if time_ms(order.get("event_time")) < time_ms("2000-01-01T00:00:00Z"):
        yield "event_time"
    if order.get("customer_id") is not None and not _is_integer(order["customer_id"], -(2**63), 2**63 - 1):
        yield "customer_id"
    if not isinstance(order.get("country"), str) or order["country"] not in REGION_OF:
        yield "country"
    if not isinstance(order.get("currency"), str):
        yield "currency"
    lines = order.get("lines")
    if not isinstance(lines, list) or not lines:
        yield "lines"
    else:
        for line in lines:
            yield from _broken_in_line(line)
        for field, amount in (("unit_amount", "unit_amount"), ("unit_cost", "unit_cost")):
            if sum(line["quantity"] * (line.get(amount) or 0) for line in lines) > MOST:
                yield field
        if sum(line["quantity"] for line in lines) > MOST:
            yield "quantity"


def _broken_in_line(line: dict[str, Any]) -> Iterator[str]:
    line = DEFAULTS | line
    if not _is_text(line.get("product_id"), 1, 256):
        yield "product_id"
    if not _is_text(line["product_name"], 0, 1024):
        yield "product_name"
    if not _is_text(line["category"], 0, 256):
        yield "category"
    if not _is_integer(line.get("quantity"), 1, MOST):
        yield "quantity"
    if not _is_integer(line.get("unit_amount"), 0, MOST):
        yield "unit_amount"
    if not _is_integer(line["discount_percent"], 0, 100):
        yield "discount_percent"
    if line["unit_cost"] is not None and not _is_integer(line["unit_cost"], 0, MOST):
        yield "unit_cost"


def _is_integer(value: object, least: int, most: int) -> bool:
    return type(value) is int and least <= value <= most


def _is_text(value: object, shortest: int, longest: int) -> bool:
    return isinstance(value, str) and shortest <= len(value) <= longest


def time_ms(value: object) -> int:
    """ms since 1970; far in the past where it is no time with an offset."""
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) and "T" in value else None
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        return -(2**63)
    return (moment - EPOCH) // timedelta(milliseconds=1)


def _depth(value: object) -> int:
    """How many arrays and objects are inside one another."""
    deepest, level = 0, [value]
    while level := [each for each in level if isinstance(each, (dict, list))]:
        deepest += 1
        level = [inner for each in level for inner in (each.values() if isinstance(each, dict) else each)]
    return deepest


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")
