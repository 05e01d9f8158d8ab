"""The synthetic shop: coherent, the same for the same seed, and counted exactly whatever goes wrong with it."""

import itertools
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from generator import catalog, shoppers
from generator.disturbances import Mix
from generator.manifest import ACCEPTED_KINDS, Kind, Parcel, Tally
from generator.pacing import Slice
from generator.synthetic import SyntheticShop
from sales.countries import REGION_OF
from sales.times import parse_time
from support.orders import read

START = parse_time("2026-11-20T08:00:00Z")
EVERYTHING = Mix(
    late=0.1, out_of_order=0.1, duplicates=0.1, conflicts=0.1, malformed=0.2, future=0.05, unknown_currency=0.05
)


def a_shop(**changes: Any) -> SyntheticShop:
    settings: dict[str, Any] = {
        "seed": 7,
        "products": 50,
        "customers": 200,
        "returns": 0.1,
        "mix": Mix(),
        "currency": "USD",
    }
    return SyntheticShop(**settings | changes)


def slices(count: int = 500, milliseconds: int = 1000) -> Iterator[Slice]:
    for number in itertools.count():
        yield Slice(START + number * milliseconds, START + (number + 1) * milliseconds, count)


def sent(shop: SyntheticShop, orders: int = 2000, **changes: Any) -> Parcel:
    """All that is sent, as one parcel."""
    arguments: dict[str, Any] = {"orders": orders, "until": None, "simulated": False}
    keys: list[bytes] = []
    values: list[bytes] = []
    tally = Tally()
    for parcel in shop.parcels(slices(), **arguments | changes):
        keys += parcel.keys
        values += parcel.values
        tally.add(parcel.tally)
    return Parcel(keys, values, tally)


@dataclass
class Recount:
    """What a reader makes of the records, in the order of sending, by the contract alone."""

    accepted: dict[tuple[bytes, int], dict[str, Any]] = field(default_factory=dict)
    duplicates: int = 0
    dead_letters: Counter[str] = field(default_factory=Counter)


def recount(parcel: Parcel) -> Recount:
    count = Recount()
    contents: dict[tuple[bytes, int], Any] = {}
    for key, value in zip(parcel.keys, parcel.values, strict=True):
        order = read(key, value, START + 60_000, "USD")
        if isinstance(order, str):
            count.dead_letters[order] += 1
            continue
        identity = (key, order.event_ms)
        if identity not in contents:
            contents[identity] = order.content
            count.accepted[identity] = order.document
        elif contents[identity] == order.content:
            count.duplicates += 1
        else:
            count.dead_letters["conflict"] += 1
    return count


def net(order: dict[str, Any]) -> int:
    total = 0
    for line in order["lines"]:
        gross = line["quantity"] * line["unit_amount"]
        total += gross - (gross * line["discount_percent"] + 50) // 100
    return total


def units(order: dict[str, Any]) -> int:
    return sum(line["quantity"] for line in order["lines"])


@pytest.mark.parametrize("mix", [Mix(), EVERYTHING], ids=["undisturbed", "disturbed"])
def test_the_count_of_what_was_sent_is_what_a_reader_counts(mix: Mix) -> None:
    parcel = sent(a_shop(mix=mix))
    reader, tally = recount(parcel), parcel.tally

    sales = [order for order in reader.accepted.values() if order["type"] == "sale"]
    returns = [order for order in reader.accepted.values() if order["type"] == "return"]
    assert tally.identities == len(reader.accepted) == 2000
    assert (tally.sales, tally.returns) == (len(sales), len(returns))
    assert tally.lines == sum(len(order["lines"]) for order in reader.accepted.values())
    assert tally.units == sum(map(units, sales)) - sum(map(units, returns))
    assert tally.sales_minor == sum(map(net, sales))
    assert tally.refunded_minor == sum(map(net, returns))
    assert tally.by_kind[Kind.DUPLICATE] == reader.duplicates
    assert tally.dead_letters == reader.dead_letters
    assert tally.records == len(parcel.keys)
    assert sum(tally.by_kind[kind] for kind in ACCEPTED_KINDS) == len(reader.accepted)
    times = [time for _, time in reader.accepted]
    assert (tally.first_event_time, tally.last_event_time) == (min(times), max(times))


def test_shares_are_what_the_mix_says() -> None:
    tally = sent(a_shop(mix=EVERYTHING), orders=20_000).tally
    for kind, share in {
        Kind.LATE: EVERYTHING.late,
        Kind.OUT_OF_ORDER: EVERYTHING.out_of_order,
        Kind.DUPLICATE: EVERYTHING.duplicates,
        Kind.CONFLICT: EVERYTHING.conflicts,
        Kind.MALFORMED: EVERYTHING.malformed,
        Kind.FUTURE: EVERYTHING.future,
        Kind.UNKNOWN_CURRENCY: EVERYTHING.unknown_currency,
    }.items():
        assert tally.by_kind[kind] == pytest.approx(20_000 * share, rel=0.15), kind


def test_the_same_seed_gives_the_same_bytes() -> None:
    first, second = sent(a_shop(mix=EVERYTHING)), sent(a_shop(mix=EVERYTHING))
    assert first.keys == second.keys
    assert first.values == second.values


def test_another_seed_gives_another_shop() -> None:
    assert not set(sent(a_shop()).values) & set(sent(a_shop(seed=8)).values)


def test_disturbances_beside_the_orders_leave_the_orders_as_they_are() -> None:
    beside = Mix(duplicates=0.2, conflicts=0.2, malformed=0.2, future=0.1, unknown_currency=0.1)
    assert set(sent(a_shop()).values) <= set(sent(a_shop(mix=beside)).values)


def test_the_same_seed_at_another_time_gives_other_ids() -> None:
    shop = a_shop()
    one = {
        key
        for parcel in itertools.islice(shop.parcels(slices(), orders=0, until=None, simulated=False), 2)
        for key in parcel.keys
    }
    later = (Slice(slice_.start + 1, slice_.end + 1, slice_.count) for slice_ in slices())
    two = {
        key
        for parcel in itertools.islice(a_shop().parcels(later, orders=0, until=None, simulated=False), 2)
        for key in parcel.keys
    }
    assert len(one) == len(two) == 1000
    assert not one & two


def test_it_stops_at_the_wanted_number_of_orders() -> None:
    assert sent(a_shop(), orders=1234).tally.identities == 1234


def test_it_stops_at_an_instant_inclusively() -> None:
    parcel = sent(a_shop(), orders=0, until=START + 2500)
    times = [parse_time(json.loads(value)["event_time"]) for value in parcel.values]
    assert max(times) == START + 2500
    assert len(times) == 1250


def test_an_order_looks_like_the_contracts() -> None:
    order = json.loads(sent(a_shop(returns=0.0), orders=1).values[0])
    assert list(order) == [
        "schema",
        "type",
        "order_id",
        "event_time",
        "customer_id",
        "country",
        "currency",
        "lines",
    ]
    assert set(order["lines"][0]) >= {
        "product_id",
        "product_name",
        "category",
        "quantity",
        "unit_amount",
        "discount_percent",
    }


def test_baskets_have_two_lines_and_a_bit_and_some_guests_have_no_number() -> None:
    orders = [json.loads(value) for value in sent(a_shop(), orders=20_000).values]
    assert np.mean([len(order["lines"]) for order in orders if order["type"] == "sale"]) == pytest.approx(2.3, abs=0.05)
    assert np.mean([order["customer_id"] is None for order in orders]) == pytest.approx(0.25, abs=0.02)
    assert any("unit_cost" not in line for order in orders for line in order["lines"])
    assert any(line["discount_percent"] > 0 for order in orders for line in order["lines"])
    assert {REGION_OF[order["country"]] for order in orders} == {"Africa", "Americas", "Asia", "Europe", "Oceania"}


def test_a_return_brings_back_what_an_earlier_sale_sold_and_each_sale_comes_back_once() -> None:
    parcel = sent(a_shop(returns=0.3), orders=5000)
    sold: dict[str, dict[str, Any]] = {}
    brought_back: set[str] = set()
    for value in parcel.values:
        order = json.loads(value)
        if order["type"] == "sale":
            sold[order["order_id"]] = order
            continue
        original = sold[order["original_order_id"]]
        assert order["original_order_id"] not in brought_back
        brought_back.add(order["original_order_id"])
        assert order["event_time"] >= original["event_time"]
        assert (order["customer_id"], order["country"]) == (original["customer_id"], original["country"])
        bought = Counter({line["product_id"]: 0 for line in original["lines"]})
        for line in original["lines"]:
            bought[line["product_id"]] += line["quantity"]
        for line in order["lines"]:
            bought[line["product_id"]] -= line["quantity"]
            assert {k: line[k] for k in ("unit_amount", "discount_percent")} in [
                {k: each[k] for k in ("unit_amount", "discount_percent")}
                for each in original["lines"]
                if each["product_id"] == line["product_id"]
            ]
        assert min(bought.values()) >= 0
    assert len(brought_back) > 1000


def test_late_and_overtaken_orders_were_placed_in_the_past_and_the_others_just_now() -> None:
    parcel = sent(a_shop(mix=Mix(late=0.1, out_of_order=0.2)), orders=500)
    ages = [START + 1000 - parse_time(json.loads(value)["event_time"]) for value in parcel.values]
    assert sum(age > 120_000 for age in ages) == parcel.tally.by_kind[Kind.LATE]
    assert all(age <= 20 * 3_600_000 + 1000 for age in ages)
    assert sum(1000 < age <= 31_000 for age in ages) >= 0.9 * parcel.tally.by_kind[Kind.OUT_OF_ORDER]


def test_popularity_follows_zipf() -> None:
    goods = catalog.build(np.random.SeedSequence(3), 200)
    drawn = np.bincount(goods.draw(np.random.default_rng(3), 200_000), minlength=200)
    ranked = np.sort(drawn)[::-1]
    assert ranked[0] / ranked[9] == pytest.approx(10**1.05, rel=0.1)
    assert ranked.min() > 0


def test_the_catalogue_has_products_that_people_can_tell_apart() -> None:
    goods = catalog.build(np.random.SeedSequence(3), 5000)
    assert len(set(goods.product_ids)) == len(set(goods.names)) == 5000
    assert goods.unit_amounts.min() > 0
    known = goods.unit_costs >= 0
    assert (goods.unit_costs[known] < goods.unit_amounts[known]).all()
    assert set(goods.unit_costs[~known].tolist()) == {catalog.NO_COST}


def test_the_shop_sleeps_where_it_is_night() -> None:
    people = shoppers.invite(1000)
    goods = catalog.build(np.random.SeedSequence(3), 10)

    def countries(instant: str) -> Counter[str]:
        shop = shoppers.Shop(np.random.SeedSequence(3), goods, people, 0.0)
        times = np.full(20_000, parse_time(instant), dtype=np.int64)
        orders = shop.orders(times, np.ones(20_000, dtype=np.bool_))
        return Counter(people.countries[row] for row in orders.customers.tolist())

    in_asia_by_day, in_america_by_day = countries("2026-11-18T03:00:00Z"), countries("2026-11-18T18:00:00Z")
    assert in_asia_by_day["JP"] > 3 * in_america_by_day["JP"]
    assert in_america_by_day["GB"] > 5 * in_asia_by_day["GB"]


def test_the_rhythm_is_one_in_the_mean_of_a_week() -> None:
    monday = parse_time("2026-11-16T00:00:00Z")
    week = [shoppers.rhythm(monday + hour * 3_600_000) for hour in range(168)]
    assert np.mean(week) == pytest.approx(1.0, abs=0.02)
    assert max(week) > 1.3
    assert min(week) < 0.7


def test_promotions_last_a_week() -> None:
    goods = catalog.build(np.random.SeedSequence(3), 500)
    shop = shoppers.Shop(np.random.SeedSequence(3), goods, shoppers.invite(10), 0.0)

    def promoted(instant: str) -> set[int]:
        orders = shop.orders(np.full(5000, parse_time(instant), dtype=np.int64), np.ones(5000, dtype=np.bool_))
        return set(orders.products[orders.discounts > 0].tolist())

    monday, tuesday = promoted("2026-11-16T10:00:00Z"), promoted("2026-11-17T10:00:00Z")
    assert len(monday & tuesday) > 0.7 * len(monday)
    assert len(monday & promoted("2026-11-26T10:00:00Z")) < 0.4 * len(monday)
