"""Why a message is no order: the slow, careful path that only bad messages take. Pure.

It states the rules of an order a second time, in pydantic, because its answers are for people: which field, what is
wrong. A test holds the two against each other.
"""

from dataclasses import dataclass
from typing import Any, Literal

import msgspec
import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sales.rules import (
    EARLIEST_EVENT_TIME_MS,
    FUTURE_ALLOWANCE_MS,
    MAX_AMOUNT,
    MAX_MESSAGE_BYTES,
    MAX_NAME,
    MAX_NESTING,
    MAX_TEXT,
    SCHEMA_VERSION,
    Rules,
)
from sales.times import parse_time


@dataclass(frozen=True, slots=True)
class Rejection:
    """A message that can never be accepted: its place, its bytes, and why."""

    position: int
    broker_time: int
    """ms since 1970"""
    key: bytes | None
    value: bytes
    reason: str
    """json, schema, key, field:<name>, future, currency, oversize; conflict is given by the processor"""
    detail: str
    """a sentence for people"""


class _LineRules(BaseModel):
    model_config = ConfigDict(strict=True)
    product_id: str = Field(min_length=1, max_length=MAX_NAME)
    quantity: int = Field(ge=1, le=MAX_AMOUNT)
    unit_amount: int = Field(ge=0, le=MAX_AMOUNT)
    product_name: str = Field(default="", max_length=MAX_TEXT)
    category: str = Field(default="Uncategorised", max_length=MAX_NAME)
    discount_percent: int = Field(default=0, ge=0, le=100)
    unit_cost: int | None = Field(default=None, ge=0, le=MAX_AMOUNT)


class _OrderRules(BaseModel):
    model_config = ConfigDict(strict=True)
    type: Literal["sale", "return"]
    order_id: str = Field(min_length=1, max_length=64)
    event_time: str
    country: str
    currency: str
    lines: list[_LineRules] = Field(min_length=1)
    customer_id: int | None = Field(default=None, ge=-(2**63), le=2**63 - 1)
    original_order_id: str | None = Field(default=None, min_length=1, max_length=64)


def explain(
    rules: Rules, key: bytes | None, value: bytes, position: int, broker_time: int, *, cause: str = ""
) -> Rejection:
    """The reason for one message that was not accepted.

    Args:
        rules: the pipeline's currency and countries.
        key: the message's key.
        value: its bytes.
        position: its place in its partition.
        broker_time: when the log took it, ms since 1970.
        cause: what the decoder said, for the case that the rules here find no fault.
    """
    try:
        reason, detail = _reason(rules, key, value, broker_time, cause)
    except (RecursionError, ValueError) as error:  # the stack's end, a number with thousands of digits
        reason, detail = "json", f"the message can't be looked at: {error}"
    return Rejection(position=position, broker_time=broker_time, key=key, value=value, reason=reason, detail=detail)


def _reason(rules: Rules, key: bytes | None, value: bytes, broker_time: int, cause: str) -> tuple[str, str]:
    if len(value) > MAX_MESSAGE_BYTES:
        return "oversize", f"the message has {len(value)} bytes; at most {MAX_MESSAGE_BYTES} are taken"
    if is_nested_too_deep(value):
        return "json", f"the message has more than {MAX_NESTING} arrays and objects inside one another"
    try:
        document = msgspec.json.decode(value)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        return "json", f"the message is no JSON: {error}"
    if not isinstance(document, dict):
        return "json", f"the message is JSON, but a {type(document).__name__} and no object"
    schema = document.get("schema")
    if type(schema) is not int or schema != SCHEMA_VERSION:
        return "schema", f"schema is {_short(schema)}; this version reads schema {SCHEMA_VERSION}"
    try:
        order = _OrderRules.model_validate(document)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        # A list index says where, and is no part of the field's name: reasons are counted.
        field = [str(part) for part in first["loc"] if isinstance(part, str)][-1]
        return f"field:{field}", f"{place}: {first['msg']} (found {_short(first['input'])})"
    event_time = parse_time(order.event_time)
    if event_time < EARLIEST_EVENT_TIME_MS:
        return "field:event_time", f"event_time: {_short(order.event_time)} is no RFC 3339 time from 2000 on"
    if order.country not in rules.countries:
        return "field:country", f"country: {_short(order.country)} is no ISO 3166-1 alpha-2 code (ZZ where unknown)"
    if sum(line.quantity for line in order.lines) > MAX_AMOUNT:
        return "field:quantity", f"lines: the order's quantities add up to more than {MAX_AMOUNT}"
    for amount, of in (("unit_amount", "amounts"), ("unit_cost", "costs")):
        if sum(line.quantity * (getattr(line, amount) or 0) for line in order.lines) > MAX_AMOUNT:
            return f"field:{amount}", f"lines: the order's {of} add up to more than {MAX_AMOUNT} minor units"
    if key != order.order_id.encode():
        shown = "no key" if key is None else f"the key {_short(key.decode(errors='replace'))}"
        return "key", f"the message has {shown}, but order_id {_short(order.order_id)}"
    if order.currency != rules.currency:
        return "currency", f"the order is in {_short(order.currency)}; this pipeline reports in {rules.currency}"
    if event_time > broker_time + FUTURE_ALLOWANCE_MS:
        ahead = (event_time - broker_time) // 1000
        return "future", f"event_time is {ahead} s ahead of broker time; {FUTURE_ALLOWANCE_MS // 1000} s are allowed"
    return "json", f"the message could not be decoded: {cause or 'no rule names the fault'}"


_STEPS = np.zeros(256, dtype=np.int8)
_STEPS[[*b"{["]] = 1
_STEPS[[*b"}]"]] = -1
_NO_MARKS = bytes(set(range(256)) - set(b'{}[]"'))


def is_nested_too_deep(value: bytes) -> bool:
    """Whether JSON has more than MAX_NESTING arrays and objects inside one another; of other bytes, anything."""
    if value.count(b"{") + value.count(b"[") <= MAX_NESTING:
        return False
    without_escapes = value.replace(rb"\\", b"").replace(rb"\"", b"")
    marks = without_escapes.translate(None, _NO_MARKS).replace(b'""', b"")  # what is left of most texts is two quotes
    outside_of_texts = np.frombuffer(b"".join(marks.split(b'"')[::2]), dtype=np.uint8)
    return int(_STEPS[outside_of_texts].cumsum(dtype=np.int64).max(initial=0)) > MAX_NESTING


def _short(value: Any, limit: int = 80) -> str:
    text = repr(value)
    return text if len(text) <= limit else f"{text[: limit - 1]}…"
