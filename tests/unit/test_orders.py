"""What is an order, what is none, and why: the rules of the event contract."""

import json
from collections.abc import Callable
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from sales import rejections
from sales.countries import REGION_OF
from sales.orders import Batch, Decoded, decode
from sales.rules import MAX_MESSAGE_BYTES, MAX_NAME, MAX_NESTING, MAX_TEXT, Rules

RULES = Rules(currency="USD", countries=REGION_OF.keys())
BROKER_TIME = 1_795_157_553_123  # the instant of A_TIME
A_TIME = "2026-11-20T06:52:33.123Z"


def a_line(**changes: Any) -> dict[str, Any]:
    line = {
        "product_id": "85123A",
        "product_name": "White hanging heart",
        "category": "Home",
        "quantity": 6,
        "unit_amount": 255,
        "discount_percent": 10,
        "unit_cost": 140,
    }
    return without_absent(line | changes)


FREE = {"product_id": "leaflet", "quantity": 10**12, "unit_amount": 0}


def an_order(**changes: Any) -> dict[str, Any]:
    order = {
        "schema": 1,
        "type": "sale",
        "order_id": "o-1",
        "event_time": A_TIME,
        "customer_id": 17850,
        "country": "GB",
        "currency": "USD",
        "lines": [a_line()],
    }
    return without_absent(order | changes)


ABSENT = object()


def without_absent(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not ABSENT}


def decode_one(message: bytes | dict[str, Any], key: bytes | None = b"o-1", broker_time: int = BROKER_TIME) -> Decoded:
    value = message if isinstance(message, bytes) else json.dumps(message).encode()
    return decode(RULES, [key], [value], [7], [broker_time])


def accepted(message: dict[str, Any]) -> Batch:
    decoded = decode_one(message, key=str(message["order_id"]).encode())
    assert not decoded.rejected, decoded.rejected[0].detail
    return decoded.accepted


def reason(message: bytes | dict[str, Any], **how: Any) -> str:
    decoded = decode_one(message, **how)
    assert len(decoded.accepted) == 0
    (rejection,) = decoded.rejected
    assert rejection.position == 7
    assert rejection.detail
    return rejection.reason


def test_an_order_becomes_columns() -> None:
    batch = accepted(an_order(lines=[a_line(), a_line(product_id="X", quantity=1, unit_cost=ABSENT)]))
    assert batch.order_ids == ["o-1"]
    assert batch.positions == [7]
    assert batch.event_times.tolist() == [1_795_157_553_123]
    assert batch.product_ids == ["85123A", "X"]
    assert batch.quantities.tolist() == [6, 1]
    assert batch.unit_costs.tolist() == [140, -1]
    assert batch.line_order.tolist() == [0, 0]
    assert batch.line_number.tolist() == [1, 2]


def test_amounts_are_gross_less_a_discount_rounded_half_up() -> None:
    lines = [
        a_line(quantity=1, unit_amount=amount, discount_percent=percent)
        for amount, percent in ((5, 10), (4, 10), (999, 33), (15, 100), (15, 0))
    ]
    batch = accepted(an_order(lines=lines))
    assert batch.gross().tolist() == [5, 4, 999, 15, 15]
    # 0.5 -> 1, 0.4 -> 0, 329.67 -> 330
    assert batch.net().tolist() == [4, 4, 669, 0, 15]


@pytest.mark.parametrize(
    "message",
    [
        pytest.param(an_order(customer_id=None), id="no customer"),
        pytest.param(an_order(customer_id=ABSENT), id="customer left out"),
        pytest.param(an_order(country="ZZ"), id="country unknown"),
        pytest.param(an_order(type="return", original_order_id="o-0"), id="return with its sale"),
        pytest.param(an_order(campaign={"id": 3}), id="field of a newer producer"),
        pytest.param(an_order(event_time="2026-11-20T07:52:33.123999+01:00"), id="offset and microseconds"),
        pytest.param(an_order(event_time="2026-11-20T06:57:33.123Z", order_id="é" * 64), id="64 characters"),
        pytest.param(an_order(lines=[a_line(quantity=10**6, unit_amount=10**6)]), id="the largest amount"),
        pytest.param(an_order(lines=[FREE]), id="the most pieces"),
        pytest.param(an_order(lines=[a_line(product_id="p", category=ABSENT, product_name=ABSENT)]), id="defaults"),
        pytest.param(
            an_order(
                lines=[a_line(product_id="🧺" * MAX_NAME, category="🧺" * MAX_NAME, product_name="🧺" * MAX_TEXT)]
            ),
            id="the longest texts, of characters and not of bytes",
        ),
    ],
)
def test_these_are_orders(message: dict[str, Any]) -> None:
    assert len(accepted(message)) == 1


def test_the_same_instant_written_differently_is_the_same_content() -> None:
    one = accepted(an_order(event_time="2026-11-20T06:52:33.123Z"))
    other = accepted(an_order(event_time="2026-11-20T08:52:33.1239+02:00", note="unknown fields are left out"))
    assert one.event_times.tolist() == other.event_times.tolist()
    assert one.contents == other.contents
    assert one.contents != accepted(an_order(customer_id=1)).contents


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        pytest.param(b"{", "json", id="torn"),
        pytest.param(b"", "json", id="empty"),
        pytest.param(b"[]", "json", id="no object"),
        pytest.param(b"\xff\xfe", "json", id="no UTF-8"),
        pytest.param(b'{"schema": 1, "x": NaN}', "json", id="NaN"),
        pytest.param(b"[" * 100_000, "json", id="nested without end"),
        pytest.param(json.dumps(an_order()).encode().replace(b'"GB"', b'"\\ud800"'), "json", id="lone surrogate"),
        pytest.param(an_order(schema=2), "schema", id="newer schema"),
        pytest.param(an_order(schema=True), "schema", id="schema true"),
        pytest.param(an_order(schema=ABSENT), "schema", id="no schema"),
        pytest.param(an_order(type="gift"), "field:type", id="type"),
        pytest.param(an_order(order_id=""), "field:order_id", id="empty id"),
        pytest.param(an_order(order_id="o" * 65), "field:order_id", id="long id"),
        pytest.param(an_order(order_id=5), "field:order_id", id="id a number"),
        pytest.param(an_order(event_time="yesterday"), "field:event_time", id="no time"),
        pytest.param(an_order(event_time="2026-11-20T06:52:33"), "field:event_time", id="no offset"),
        pytest.param(an_order(event_time="2026-02-30T06:52:33Z"), "field:event_time", id="30 February"),
        pytest.param(an_order(event_time="1999-12-31T23:59:59Z"), "field:event_time", id="before 2000"),
        pytest.param(an_order(event_time=1_795_162_353), "field:event_time", id="time a number"),
        pytest.param(an_order(country="UK"), "field:country", id="no ISO country"),
        pytest.param(an_order(country="gb"), "field:country", id="small letters"),
        pytest.param(an_order(customer_id="17850"), "field:customer_id", id="customer a text"),
        pytest.param(an_order(customer_id=2**63), "field:customer_id", id="customer beyond 64 bits"),
        pytest.param(an_order(lines=[]), "field:lines", id="no lines"),
        pytest.param(an_order(lines=[a_line(quantity=0)]), "field:quantity", id="quantity 0"),
        pytest.param(an_order(lines=[a_line(quantity="2")]), "field:quantity", id="quantity a text"),
        pytest.param(an_order(lines=[a_line(quantity=2.0)]), "field:quantity", id="quantity with a point"),
        pytest.param(an_order(lines=[a_line(quantity=True)]), "field:quantity", id="quantity true"),
        pytest.param(an_order(lines=[a_line(unit_amount=-1)]), "field:unit_amount", id="negative amount"),
        pytest.param(an_order(lines=[a_line(unit_amount=10**30)]), "field:unit_amount", id="beyond 64 bits"),
        pytest.param(an_order(lines=[a_line(unit_cost=-1)]), "field:unit_cost", id="negative cost"),
        pytest.param(an_order(lines=[a_line(discount_percent=101)]), "field:discount_percent", id="101 %"),
        pytest.param(an_order(lines=[a_line(product_id="")]), "field:product_id", id="no product"),
        pytest.param(an_order(lines=[a_line(product_id="x" * 257)]), "field:product_id", id="long product"),
        pytest.param(an_order(lines=[a_line(product_name="x" * 1025)]), "field:product_name", id="long name"),
        pytest.param(an_order(lines=[a_line(category="x" * 257)]), "field:category", id="long category"),
        pytest.param(
            an_order(lines=[a_line(quantity=10**6, unit_amount=10**6 + 1)]), "field:unit_amount", id="order too large"
        ),
        pytest.param(an_order(lines=[a_line(quantity=10**12, unit_amount=10**12)]), "field:unit_amount", id="1e24"),
        pytest.param(an_order(lines=[a_line(unit_amount=10**11)] * 2), "field:unit_amount", id="sum too large"),
        pytest.param(an_order(lines=[a_line(quantity=10**12, unit_amount=0)]), "field:unit_cost", id="cost too large"),
        pytest.param(an_order(lines=[FREE, a_line(quantity=1)]), "field:quantity", id="too many pieces"),
        pytest.param(an_order(currency="EUR"), "currency", id="currency"),
        pytest.param(an_order(order_id="o-2"), "key", id="key of another order"),
        pytest.param(an_order(event_time="2026-11-20T06:57:33.124Z"), "future", id="over 5 minutes ahead"),
    ],
)
def test_these_are_dead_letters_with_their_reason(message: bytes | dict[str, Any], expected: str) -> None:
    assert reason(message) == expected


def test_a_message_without_a_key_is_a_dead_letter() -> None:
    assert reason(an_order(), key=None) == "key"


def test_a_message_of_more_than_1_mb_is_a_dead_letter() -> None:
    assert reason(json.dumps(an_order(note="x" * MAX_MESSAGE_BYTES)).encode()) == "oversize"


def test_exactly_five_minutes_ahead_is_no_future() -> None:
    ahead = decode_one(an_order(), broker_time=1_795_157_553_123 - 300_000)
    assert not ahead.rejected
    assert reason(an_order(), broker_time=1_795_157_553_123 - 300_001) == "future"


def test_neighbours_of_bad_messages_are_accepted() -> None:
    good = [json.dumps(an_order(order_id=f"o-{number}")).encode() for number in range(6)]
    values = [good[0], b"{", good[1], json.dumps(an_order(currency="EUR")).encode(), good[2]]
    keys: list[bytes | None] = [b"o-0", b"o-9", b"o-1", b"o-1", b"o-2"]
    decoded = decode(RULES, keys, values, [10, 20, 30, 40, 50], [BROKER_TIME] * 5)
    assert decoded.accepted.order_ids == ["o-0", "o-1", "o-2"]
    assert decoded.accepted.positions == [10, 30, 50]
    assert [(rejection.position, rejection.reason) for rejection in decoded.rejected] == [
        (20, "json"),
        (40, "currency"),
    ]


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=500)
@given(
    field=st.sampled_from([*an_order(), "original_order_id"]),
    line_field=st.sampled_from([None, *a_line()]),
    value=JSON_VALUES
    | st.sampled_from([1, "sale", "USD", "GB", "o-1", A_TIME, 0, 100, 10**12])
    | st.sampled_from([64, 65, 256, 257, 1024, 1025]).map(lambda length: "é" * length),
)
def test_the_fast_decoder_and_the_careful_rules_agree(field: str, line_field: str | None, value: Any) -> None:
    """A message that the decoder refuses always has a reason by the careful rules, and one only."""
    message = an_order(lines=[a_line(**{line_field: value})]) if line_field else an_order(**{field: value})
    decoded = decode_one(message)
    assert len(decoded.accepted) + len(decoded.rejected) == 1
    for rejection in decoded.rejected:
        assert not rejection.detail.startswith("the message could not be decoded"), rejection


def nested(depth: int, shape: str) -> bytes:
    """A field with so many arrays or objects inside one another, the message's own object counted."""
    inside = {"[": (b"[", b"]"), "{": (b'{"a":', b"}"), "[{": (b'[{"]":', b"}]")}[shape]
    half = (depth - 1) // len(shape)
    return inside[0] * half + b"0" + inside[1] * half


def called_from(depth: int, act: Callable[[], Decoded]) -> Decoded:
    """What ``act`` gives that many calls further down."""
    return act() if depth == 0 else called_from(depth - 1, act)


@settings(max_examples=300)
@given(
    depth=st.integers(1, 120) | st.integers(850, 1_100) | st.sampled_from([10_000, 400_000]),
    shape=st.sampled_from(["[", "{", "[{"]),
    field=st.sampled_from([*an_order(), "unknown"]),
    calls=st.integers(0, 700),
)
def test_what_becomes_of_a_nested_message_is_the_same_wherever_it_is_decoded(
    depth: int, shape: str, field: str, calls: int
) -> None:
    text = nested(depth, shape)
    message = (
        json.dumps(an_order(**{field: 0})).encode().replace(f'"{field}": 0'.encode(), f'"{field}": '.encode() + text)
    )
    here, there = decode_one(message), called_from(calls, lambda: decode_one(message))
    assert [rejection.reason for rejection in here.rejected] == [rejection.reason for rejection in there.rejected]
    assert here.accepted.contents == there.accepted.contents
    if 1 + (depth - 1) // len(shape) * len(shape) > MAX_NESTING:
        assert here.rejected[0].reason in ("json", "oversize")
    elif field == "unknown":
        assert not here.rejected


def depth_of(value: Any) -> int:
    """Arrays and objects inside one another."""
    if not isinstance(value, list | dict):
        return 0
    return 1 + max(map(depth_of, value.values() if isinstance(value, dict) else value), default=0)


@given(
    value=st.recursive(
        st.text('[]{}"\\\n'),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text('[{"\\', max_size=3), inner, max_size=4),
    ),
    limit=st.integers(0, 5),
)
def test_the_depth_is_that_of_the_document_whatever_its_texts_hold(value: Any, limit: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rejections, "MAX_NESTING", limit)
        assert rejections.is_nested_too_deep(json.dumps(value).encode()) == (depth_of(value) > limit)


def test_a_message_that_ends_the_stack_is_a_dead_letter_and_no_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rejections, "MAX_NESTING", 10**6)
    for depth in range(900, 1_000):
        assert reason(b'{"schema":' + b"[" * depth + b"]" * depth + b"}") in ("schema", "json")


def test_brackets_in_texts_nest_nothing() -> None:
    assert not decode_one(an_order(note="[{" * 500 + '\\"[' * 500)).rejected
    assert not decode_one(an_order(notes=[["[", "]"]] * 500)).rejected


NUMBERS = st.sampled_from([1, 2, 10**6, 5 * 10**11, 10**12])


@given(st.lists(st.tuples(NUMBERS, NUMBERS | st.just(0), NUMBERS | st.just(0)), min_size=1, max_size=4))
def test_the_fast_decoder_and_the_careful_rules_add_up_alike(lines: list[tuple[int, int, int]]) -> None:
    decoded = decode_one(an_order(lines=[a_line(quantity=q, unit_amount=a, unit_cost=c) for q, a, c in lines]))
    pieces, gross, cost = sum(q for q, _, _ in lines), sum(q * a for q, a, _ in lines), sum(q * c for q, _, c in lines)
    expected = {"field:quantity": pieces, "field:unit_amount": gross, "field:unit_cost": cost}
    too_large = [reason for reason, total in expected.items() if total > 10**12]
    assert [rejection.reason for rejection in decoded.rejected] == too_large[:1]


def test_take_keeps_the_lines_of_the_orders_it_keeps() -> None:
    values = [
        json.dumps(an_order(order_id=f"o-{number}", lines=[a_line(product_id=f"p{number}")] * (number + 1))).encode()
        for number in range(3)
    ]
    batch = decode(RULES, [b"o-0", b"o-1", b"o-2"], values, [1, 2, 3], [BROKER_TIME] * 3).accepted
    kept = batch.take(np.array([True, False, True]))
    assert kept.order_ids == ["o-0", "o-2"]
    assert kept.product_ids == ["p0", "p2", "p2", "p2"]
    assert kept.line_order.tolist() == [0, 1, 1, 1]
    assert kept.line_number.tolist() == [1, 1, 2, 3]
