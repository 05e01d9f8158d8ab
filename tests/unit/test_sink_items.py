"""Orders and rollups become the DynamoDB items that the contract names."""

from decimal import Decimal
from typing import Any

import pytest
from boto3.dynamodb.types import TypeDeserializer

from sales import orders
from sales.countries import REGION_OF
from sales.orders import Batch
from sales.rollups import Rollup
from sink.items import Lowest, OrderItems, rightest, size, trend
from support.sinking import EVENT_TIME, RULES, STREAM, a_chunk, a_line, an_order

MAKE = OrderItems(STREAM, 20, "USD", REGION_OF)


def batch_of(*values: bytes, positions: list[int] | None = None) -> Batch:
    chunk = a_chunk(values, positions=positions)
    decoded = orders.decode(RULES, chunk.keys, chunk.values, chunk.positions, chunk.broker_times)
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
    item = lowest_of(an_order(lines=[a_line(product_name="x" * 1_000) for _ in range(100)])).items[0].attributes
    assert 100_000 < size(item) < 140_000


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
