"""Orders and rollups become the DynamoDB items that the contract names."""

import json
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

import hypothesis.strategies as st
import pytest
from boto3.dynamodb.types import TypeDeserializer
from hypothesis import given

from sales import orders
from sales.countries import REGION_OF
from sales.orders import Batch
from sales.rollups import Rollup
from sales.rules import Rules
from sink.items import Lowest, OrderItems, rightest, size, trend
from support.sinking import EVENT_TIME, RULES, STREAM, a_chunk, a_line, an_order

MAKE = OrderItems(STREAM, 20, "USD", REGION_OF)


def batch_of(*values: bytes, positions: list[int] | None = None, rules: Rules = RULES) -> Batch:
    chunk = a_chunk(values, positions=positions)
    decoded = orders.decode(rules, chunk.keys, chunk.values, chunk.positions, chunk.broker_times)
    assert not decoded.rejected
    return decoded.accepted


def lowest_of(*values: bytes, **chunk: Any) -> Lowest:
    return MAKE.of("0", [batch_of(*values, **chunk)])


def item_of(value: bytes) -> dict[str, Any]:
    [item] = lowest_of(value).items
    return plain(item.attributes)


def plain(item: dict[str, Any]) -> dict[str, Any]:
    return {name: TypeDeserializer().deserialize(attribute) for name, attribute in item.items()}


def test_an_order_becomes_an_item_with_the_attributes_of_the_contract() -> None:
    assert item_of(an_order()) == {
        "order_id": "o-1",
        "type": "sale",
        "event_time": "2026-11-20T06:52:33.123Z",
        "order_date": "2026-11-20",
        "customer_id": 17850,
        "country": "GB",
        "region": "Europe",
        "product_id": "85123A",
        "product_name": "White hanging heart",
        "category": "Home",
        "sales": Decimal("15.30"),
        "discount": 10,
        "net": Decimal("13.77"),
        "profit": Decimal("5.37"),
        "currency": "USD",
        "stream": STREAM,
        "partition": "0",
        "position": "00000000000000000007",
        "lines": [
            {
                "line": 1,
                "product_id": "85123A",
                "product_name": "White hanging heart",
                "category": "Home",
                "quantity": 6,
                "unit_amount": Decimal("2.55"),
                "discount": 10,
                "sales": Decimal("15.30"),
                "net": Decimal("13.77"),
                "unit_cost": Decimal("1.40"),
                "profit": Decimal("5.37"),
            }
        ],
    }


def test_amounts_of_a_return_are_negative_and_its_discount_is_not() -> None:
    item = item_of(an_order(type="return", original_order_id="o-0"))
    assert (item["sales"], item["net"], item["profit"]) == (Decimal("-15.30"), Decimal("-13.77"), Decimal("-5.37"))
    assert (item["discount"], item["original_order_id"], item["lines"][0]["quantity"]) == (10, "o-0", -6)
    assert item["lines"][0]["unit_amount"] == Decimal("2.55")


def test_profit_is_left_out_when_a_line_has_no_cost() -> None:
    item = item_of(an_order(customer_id=None, lines=[a_line(), a_line(unit_cost=None)]))
    assert "profit" not in item
    assert "customer_id" not in item
    assert ["profit" in line for line in item["lines"]] == [True, False]


@pytest.mark.parametrize("kind", ["sale", "return"])
def test_product_and_category_are_those_of_the_largest_line_by_net_and_of_the_first_of_equals(kind: str) -> None:
    lines = [
        a_line(product_id="gross", unit_amount=900, discount_percent=90),
        a_line(product_id="net", unit_amount=300, discount_percent=0, category="Garden"),
        a_line(product_id="too", unit_amount=300, discount_percent=0, category="Toys"),
    ]
    item = item_of(an_order(type=kind, lines=lines))
    assert (item["product_id"], item["category"]) == ("net", "Garden")


def test_discount_is_the_effective_percentage_half_up_to_two_decimals() -> None:
    half_off = a_line(quantity=1, unit_amount=100, discount_percent=50)
    full = a_line(quantity=1, unit_amount=200, discount_percent=0)
    assert item_of(an_order(lines=[half_off, full]))["discount"] == Decimal("16.67")
    assert item_of(an_order(lines=[a_line(unit_amount=0)]))["discount"] == 0


def test_only_the_lowest_position_of_an_order_id_is_written_and_reused_ids_are_counted() -> None:
    values = [an_order("a"), an_order("b"), an_order("a", event_time=EVENT_TIME - 1), an_order("b", country="FR")]
    first, second = batch_of(*values, positions=[1, 4, 6, 9]), batch_of(an_order("a"), positions=[12])
    lowest = MAKE.of("0", [first, second])
    assert [(item.order_id, int(item.position)) for item in lowest.items] == [("a", 1), ("b", 4)]
    assert plain(lowest.items[1].attributes)["country"] == "GB"
    assert lowest.reused == 1


def test_an_order_too_large_for_an_item_keeps_its_lines_in_s3_only_and_says_so() -> None:
    many = [a_line(product_name="x" * 200) for _ in range(1_500)]
    item = item_of(an_order(lines=many))
    assert item["lines_omitted"] is True
    assert "lines" not in item
    assert item["sales"] == Decimal("15.30") * 1_500
    assert len(item_of(an_order(lines=many[:500]))["lines"]) == 500


def test_an_empty_category_which_an_index_would_refuse_is_mended_at_the_top_only() -> None:
    item = item_of(an_order(lines=[a_line(category="")]))
    assert (item["category"], item["lines"][0]["category"]) == ("Uncategorised", "")


def test_the_size_is_estimated_from_above() -> None:
    [item] = lowest_of(an_order(lines=[a_line(product_name="é" * 500) for _ in range(100)])).items
    assert 100_000 < size(item.attributes) < 140_000
    assert item.size == size(item.attributes)


def test_an_item_without_its_lines_is_as_small_as_it_says() -> None:
    [item] = lowest_of(an_order(lines=[a_line(product_name="x" * 200) for _ in range(1_500)])).items
    assert item.size == size(item.attributes) < 2_000


PLACES = {"USD": 2, "JPY": 0, "KWD": 3}
LINES = st.fixed_dictionaries(
    {
        "product_id": st.text(min_size=1, max_size=3),
        "product_name": st.text(max_size=5),
        "category": st.text(max_size=2),
        "quantity": st.integers(1, 2_000),
        "unit_amount": st.integers(0, 300_000),
        "discount_percent": st.integers(0, 100),
        "unit_cost": st.none() | st.integers(0, 300_000),
    }
)


@given(
    st.lists(LINES, min_size=1, max_size=4),
    st.sampled_from(["sale", "return"]),
    st.sampled_from(sorted(PLACES)),
    st.none() | st.integers(-(2**63), 2**63 - 1),
)
def test_every_amount_is_what_decimals_make_of_the_message(
    lines: list[dict[str, Any]], kind: str, currency: str, customer: int | None
) -> None:
    value = an_order(type=kind, currency=currency, customer_id=customer, lines=lines)
    batch = batch_of(value, rules=Rules(currency=currency, countries=REGION_OF.keys()))
    [made] = OrderItems(STREAM, 20, currency, REGION_OF).of("0", [batch]).items
    assert {name: plain(made.attributes).get(name) for name in AMOUNTS} == amounts_of(json.loads(value))
    assert [{name: line.get(name) for name in LINE_AMOUNTS} for line in plain(made.attributes)["lines"]] == [
        line_amounts_of(line, kind, currency) for line in lines
    ]
    texts = [made.attributes["net"]["N"], made.attributes["lines"]["L"][0]["M"]["unit_amount"]["N"]]
    assert all(Decimal(text).as_tuple().exponent == -PLACES[currency] for text in texts)


AMOUNTS = ("sales", "net", "profit", "discount", "customer_id")
LINE_AMOUNTS = ("quantity", "unit_amount", "discount", "sales", "net", "unit_cost", "profit")


def line_amounts_of(line: dict[str, Any], kind: str, currency: str) -> dict[str, Any]:
    sign, minor = (-1 if kind == "return" else 1), Decimal(1).scaleb(-PLACES[currency])
    gross = line["quantity"] * line["unit_amount"] * minor
    net = gross - (gross * line["discount_percent"] / 100).quantize(minor, ROUND_HALF_UP)
    cost = line["unit_cost"]
    return {
        "quantity": sign * line["quantity"],
        "unit_amount": line["unit_amount"] * minor,
        "discount": line["discount_percent"],
        "sales": sign * gross,
        "net": sign * net,
        "unit_cost": None if cost is None else cost * minor,
        "profit": None if cost is None else sign * (net - line["quantity"] * cost * minor),
    }


def amounts_of(order: dict[str, Any]) -> dict[str, Any]:
    lines = [line_amounts_of(line, order["type"], order["currency"]) for line in order["lines"]]
    gross, net = sum(line["sales"] for line in lines), sum(line["net"] for line in lines)
    percent = (100 * (gross - net) / gross).quantize(Decimal("0.01"), ROUND_HALF_UP) if gross else 0
    costs_known = all(line["profit"] is not None for line in lines)
    return {
        "sales": gross,
        "net": net,
        "profit": sum(line["profit"] for line in lines) if costs_known else None,
        "discount": percent,
        "customer_id": order["customer_id"],
    }


def a_rollup(**changes: Any) -> Rollup:
    fields: dict[str, Any] = {"minute": "2026-11-20T06:52:00.000Z", "scope": "GB/Home", "country": "GB"}
    return Rollup(**(fields | {"category": "Home", "version": 3, "orders": 2} | changes))


def test_a_rollup_becomes_an_item_with_decimal_amounts() -> None:
    item = plain(trend(a_rollup(units=5, returns=1, sales_minor=1000, refunded_minor=99, revenue_minor=901), "USD"))
    assert item == {
        "scope": "GB/Home",
        "minute": "2026-11-20T06:52:00.000Z",
        "country": "GB",
        "category": "Home",
        "version": 3,
        "orders": 2,
        "returns": 1,
        "units": 5,
        "sales": Decimal("10.00"),
        "refunded": Decimal("0.99"),
        "revenue": Decimal("9.01"),
        "currency": "USD",
        "stale": False,
    }


def test_of_one_scope_and_minute_the_highest_version_is_right_and_a_stale_one_goes_beside_it() -> None:
    old, new, stale = a_rollup(version=1), a_rollup(version=5), a_rollup(version=0, stale=True)
    other = a_rollup(scope="all")
    assert rightest([new, old, other]) == [new, other]
    assert rightest([stale, new, old, stale]) == [stale, new]
