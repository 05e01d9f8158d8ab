"""``verify --everything`` and what is asked by key: a wrong item, index entry or minute makes it fail; one that is only
late does not."""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

import pytest

from sales.settings import AwsSettings
from sink import aws, tables
from support import world as small
from support.world import Event, Item, World, a_world
from tillstream import lookups
from tillstream.proving import VerifySettings, verify_board
from tillstream.report import Report


class Shop:
    """A small world, stored, published and looked up, that can be tampered with."""

    def __init__(self, world: World, settings: VerifySettings, redis: Any) -> None:
        self.world = world
        self.settings = settings
        self.s3 = aws.client("s3", settings, connections=1)
        self.dynamodb = aws.client("dynamodb", settings, connections=1)
        for definition in (tables.sales_table(settings), tables.trends_table(settings)):
            self.dynamodb.create_table(**definition)
        small.publish(world, redis)
        small.store(world, self.s3, settings.s3_bucket)
        self.put_all(settings.sales_table, items(world))
        self.put_all(settings.trends_table, list(map(trend, small.rollups(world))))

    def put_all(self, table: str, items: list[dict[str, Any]]) -> None:
        for start in range(0, len(items), 25):
            writes = [{"PutRequest": {"Item": item}} for item in items[start : start + 25]]
            assert not self.dynamodb.batch_write_item(RequestItems={table: writes})["UnprocessedItems"]

    def put(self, table: str, item: dict[str, Any]) -> None:
        self.put_all(table, [item])

    def change(self, order_id: str, **changes: Any) -> None:
        """Sets attributes of an item; None takes one away."""
        [item] = [item for item in items(self.world) if item["order_id"]["S"] == order_id]
        self.put(self.settings.sales_table, {k: v for k, v in (item | changes).items() if v is not None})

    def remove(self, order_id: str) -> None:
        self.dynamodb.delete_item(TableName=self.settings.sales_table, Key={"order_id": {"S": order_id}})

    def verify(self, timeout: float = 0) -> Report:
        return verify_board(self.settings, timeout=timeout, everything=True)

    def differences(self) -> set[tuple[str, str, str, str]]:
        return {(d.place, d.name, d.expected, d.found) for check in self.verify().checks for d in check.differences}

    def to_come(self) -> int:
        """Orders that are not in the table yet."""
        report = self.verify()
        assert report.equal
        return sum(check.to_come for check in report.checks if check.what == f"items of {self.settings.sales_table}")


@pytest.fixture(autouse=True)
def no_round_to_wait_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody writes items here but the tests."""
    monkeypatch.setattr(lookups, "ROUND_SECONDS", 0.0)


@pytest.fixture
def open_shop(
    redis_url: str,
    redis_client: Any,
    aws_settings: AwsSettings,
    s3_bucket: str,
    new_name: Callable[[str], str],
) -> Callable[..., Shop]:
    """Makes a world known everywhere."""

    def open_(**changes: Any) -> Shop:
        world = a_world(**changes)
        settings = VerifySettings(
            redis_url=redis_url,  # type: ignore[arg-type]  # pydantic makes a secret of it
            aws_endpoint_url=aws_settings.aws_endpoint_url,
            s3_bucket=s3_bucket,
            sales_table=new_name("SalesData"),
            trends_table=new_name("SalesTrends"),
        )
        return Shop(world, settings, redis_client)

    return open_


# What should be there, by the contract alone.


def major(minor: int) -> dict[str, str]:
    return {"N": f"{Decimal(minor) / 100:f}"}


def text(value: str) -> dict[str, str]:
    return {"S": value}


def items(world: World) -> list[dict[str, Any]]:
    """Of each order id up to the tick the event at the lowest position."""
    lowest: dict[str, Event] = {}
    for event in sorted(world.until_tick(), key=lambda event: event.position):
        lowest.setdefault(event.order_id, event)
    return [item_of(event) for event in lowest.values()]


def item_of(event: Event) -> dict[str, Any]:
    largest = sorted(event.items, key=lambda item: -item.net)[0]
    gross = sum(item.gross for item in event.items)
    net = sum(item.net for item in event.items)
    percent = Decimal(100 * (gross - net)) / gross if gross else Decimal(0)
    item: dict[str, Any] = {
        "order_id": text(event.order_id),
        "type": text(event.type),
        "event_time": text(small.time_text(event.event_ms)),
        "order_date": text(small.time_text(event.event_ms)[:10]),
        "country": text(event.country),
        "region": text(small.REGION_OF[event.country]),
        "currency": text(small.CURRENCY),
        "product_id": text(largest.product_id),
        "product_name": text(largest.product_name),
        "category": text(largest.category),
        "sales": major(event.sign * gross),
        "net": major(event.sign * net),
        "discount": {"N": str(percent.quantize(Decimal("0.01"), ROUND_HALF_UP))},
        "stream": text(small.STREAM),
        "partition": text(event.partition),
        "position": text(small.position_text(event.position)),
        "lines": {"L": [{"M": line_of(event, number, each)} for number, each in enumerate(event.items, start=1)]},
    }
    if event.customer_id is not None:
        item["customer_id"] = {"N": str(event.customer_id)}
    costs = [each.quantity * each.unit_cost for each in event.items if each.unit_cost is not None]
    if len(costs) == len(event.items):
        item["profit"] = major(event.sign * (net - sum(costs)))
    return item


def line_of(event: Event, number: int, item: Item) -> dict[str, Any]:
    line = {
        "line": {"N": str(number)},
        "product_id": text(item.product_id),
        "product_name": text(item.product_name),
        "category": text(item.category),
        "quantity": {"N": str(event.sign * item.quantity)},
        "unit_amount": major(item.unit_amount),
        "discount": {"N": str(item.discount_percent)},
        "sales": major(event.sign * item.gross),
        "net": major(event.sign * item.net),
    }
    if item.unit_cost is not None:
        line["unit_cost"] = major(item.unit_cost)
        line["profit"] = major(event.sign * (item.net - item.quantity * item.unit_cost))
    return line


def trend(rollup: dict[str, Any]) -> dict[str, Any]:
    """A rollup as an item of SalesTrends."""
    return {
        "scope": text(rollup["scope"]),
        "minute": text(small.time_text(rollup["minute"])),
        **{name: {"N": str(rollup[name])} for name in ("version", "orders", "returns", "units")},
        "sales": major(rollup["sales_minor"]),
        "refunded": major(rollup["refunded_minor"]),
        "revenue": major(rollup["revenue_minor"]),
        "currency": text(small.CURRENCY),
        "stale": {"BOOL": rollup["stale"]},
    }


@pytest.mark.parametrize("seed", range(2))
def test_true_lookups_are_equal(open_shop: Callable[..., Shop], seed: int) -> None:
    shop = open_shop(seed=seed)
    assert shop.differences() == set()
    compared = {check.what: check.compared for check in shop.verify().checks}
    assert compared[f"items of {shop.settings.sales_table}"] == len(items(shop.world))
    assert compared[f"items of {shop.settings.sales_table}/CategoryIndex"] == len(items(shop.world))
    assert compared["closed minutes of rollups"] == len(small.rollups(shop.world))
    assert compared[f"closed minutes of {shop.settings.trends_table}"] == len(small.rollups(shop.world))


WRONG: list[tuple[str, dict[str, str] | None, str]] = [
    ("type", text("gift"), "gift"),
    ("event_time", text("2026-11-20T06:00:00.000Z"), "2026-11-20T06:00:00.000Z"),
    ("order_date", text("2026-11-01"), "2026-11-01"),
    ("customer_id", {"N": "1"}, "1"),
    ("country", text("XX"), "XX"),
    ("region", text("Oceania"), "Oceania"),
    ("currency", text("EUR"), "EUR"),
    ("original_order_id", text("o-0"), "o-0"),
    ("product_id", text("?"), "?"),
    ("product_name", text("?"), "?"),
    ("category", text("?"), "?"),
    ("sales", {"N": "0.005"}, "0.5"),
    ("discount", {"N": "99.99"}, "9999"),
    ("net", {"N": "12345678.9"}, "1234567890"),
    ("profit", {"N": "12345678.9"}, "1234567890"),
    ("partition", text("7"), "7"),
    ("position", text("00000000000000000000"), "00000000000000000000"),
    ("net", None, "absent"),
]


def test_a_wrong_attribute_is_found_in_the_table_and_in_the_index(open_shop: Callable[..., Shop]) -> None:
    shop = open_shop()
    for number, (name, value, _) in enumerate(WRONG):
        shop.change(f"o{number}", **{name: value})
    table = shop.settings.sales_table
    assert {(place, told, seen) for place, told, _, seen in shop.differences()} == {
        (place, f"order o{number} {name}", seen)
        for number, (name, _, seen) in enumerate(WRONG)
        for place in (table, f"{table}/CategoryIndex")
    }


def test_a_wrong_line_of_an_item_is_found(open_shop: Callable[..., Shop]) -> None:
    shop = open_shop()
    [item] = [item for item in items(shop.world) if item["order_id"]["S"] == "o3"]
    lines = json.loads(json.dumps(item["lines"]))
    lines["L"][0]["M"]["quantity"]["N"] = "999"
    shop.change("o3", lines=lines)
    assert {name for _, name, *_ in shop.differences()} == {"order o3 lines"}


def test_an_item_that_left_its_lines_out_and_says_so_is_right(open_shop: Callable[..., Shop]) -> None:
    shop = open_shop()
    shop.change("o3", lines=None, lines_omitted={"BOOL": True})
    assert shop.differences() == set()


def test_an_item_that_is_gone_is_found_and_one_behind_the_last_is_yet_to_come(open_shop: Callable[..., Shop]) -> None:
    shop = open_shop()
    mine = sorted(
        (item for item in items(shop.world) if item["partition"]["S"] == "1"), key=lambda i: i["position"]["S"]
    )
    shop.remove(mine[-1]["order_id"]["S"])
    assert shop.to_come() == 1
    gone = mine[3]["order_id"]["S"]
    shop.remove(gone)
    assert {(name, expected, found) for _, name, expected, found in shop.differences()} == {
        (f"order {gone} item", "there", "none")
    }


def test_an_item_that_nothing_stored_speaks_of_is_found(open_shop: Callable[..., Shop]) -> None:
    shop = open_shop()
    shop.put(shop.settings.sales_table, item_of(Event("nobody", position=101)))
    assert {(name, expected, found) for _, name, expected, found in shop.differences()} == {
        ("order nobody item", "none", "there")
    }


def test_items_of_another_stream_and_of_events_behind_the_tick_are_let_be(open_shop: Callable[..., Shop]) -> None:
    shop = open_shop()
    shop.change("o3", stream=text("orders-earlier"), net=major(1))
    shop.put(shop.settings.sales_table, item_of(Event("later", position=10**6)))
    assert shop.differences() == set()


def test_a_difference_counts_only_if_it_is_still_there_when_all_is_read_again(
    open_shop: Callable[..., Shop], monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = open_shop()
    shop.remove("o3")
    said: list[str] = []

    def say(told: str) -> None:
        said.append(told)
        if told.startswith("waiting for"):
            shop.change("o3")

    monkeypatch.setattr(lookups, "PAUSE_SECONDS", 0.0)
    assert verify_board(shop.settings, timeout=60, everything=True, say=say).equal
    assert sum(told.startswith("waiting for") for told in said) == 1


def test_items_that_are_written_behind_the_back_of_a_reading_are_not_missing(
    open_shop: Callable[..., Shop], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lane works on: each reading finds a late item and not the one before it, whose place it had passed."""
    shop = open_shop()
    mine = sorted(item["position"]["S"] for item in items(shop.world) if item["partition"]["S"] == "1")
    first, second = {*mine[:2], mine[3]}, {*mine[:5], mine[6]}
    shown = [first, first, second, second]  # the table and its index, twice
    real = lookups.Lookups._pages

    def pages(self: lookups.Lookups, table: str, **scanned: str) -> Iterator[list[Mapping[str, Any]]]:
        if table != shop.settings.sales_table:
            yield from real(self, table, **scanned)
            return
        there = shown.pop(0)
        for page in real(self, table, **scanned):
            yield [item for item in page if item["partition"]["S"] != "1" or item["position"]["S"] in there]

    monkeypatch.setattr(lookups.Lookups, "_pages", pages)
    report = shop.verify()
    assert not shown
    assert report.equal
    assert sum(check.to_come for check in report.checks) == 2 * len(mine[5:]) - 2


MEASURES = ("orders", "returns", "units", "sales_minor", "refunded_minor", "revenue_minor")


def test_a_wrong_total_of_a_minute_is_found(open_shop: Callable[..., Shop]) -> None:
    shop = open_shop()
    stored = small.rollups(shop.world)
    wrong = [stored[row] | {name: stored[row][name] + 1} for row, name in enumerate(MEASURES)]
    small.store_rollups([*wrong, *stored[len(wrong) :]], shop.s3, shop.settings.s3_bucket)
    shop.put_all(shop.settings.trends_table, list(map(trend, wrong[:3])))
    assert Counter(place for place, *_ in shop.differences()) == {"rollups": 6, shop.settings.trends_table: 3}


def test_a_minute_that_is_missing_or_lacks_an_event_is_found(open_shop: Callable[..., Shop]) -> None:
    shop = open_shop()
    *others, last = small.rollups(shop.world)
    small.store_rollups(others, shop.s3, shop.settings.s3_bucket)
    shop.put(shop.settings.trends_table, trend(last | {"version": 0}))
    name = f"{small.time_text(last['minute'])} {last['scope']} version"
    assert shop.differences() == {
        ("rollups", name, str(last["version"]), "none"),
        (shop.settings.trends_table, name, str(last["version"]), "0"),
    }


def test_the_highest_version_counts_and_stale_or_newer_minutes_are_not_compared(open_shop: Callable[..., Shop]) -> None:
    shop = open_shop()
    stored = small.rollups(shop.world)
    before = stored[-1] | {"version": 0, "units": 77}
    newer = stored[-2] | {"version": stored[-2]["version"] + 1, "units": 77}
    stale = stored[-3] | {"version": 0, "stale": True}
    wrong = stored[-3] | {"units": 77}
    rows = [before, *stored[:-3], wrong, stale, stored[-2], stored[-1], newer]
    small.store_rollups(rows, shop.s3, shop.settings.s3_bucket)
    assert shop.differences() == set()


def test_a_minute_whose_rollup_may_be_on_its_way_is_not_missed(open_shop: Callable[..., Shop]) -> None:
    shop = open_shop()
    small.store_rollups(small.rollups(shop.world)[:1], shop.s3, shop.settings.s3_bucket)
    assert {place for place, *_ in shop.differences()} == {"rollups"}
    shop.settings = shop.settings.model_copy(update={"rotate_seconds": 10.0**9})
    assert shop.differences() == set()
