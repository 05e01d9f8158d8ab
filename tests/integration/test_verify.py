"""``verify`` is believed only because every kind of wrong number makes it fail."""

import json
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pytest
import redis
import typer
from typer.testing import CliRunner, Result

from sales.settings import AwsSettings
from sales.times import format_time
from sink import aws
from support import world as small
from support.world import Event, Item, World, a_world
from tillstream.proving import VerifySettings, verify_board
from tillstream.report import Report
from tillstream.stored import NotCoveredError, NotYetError
from tillstream.verify import verify

PREFIX = "team-a/"


class Shop:
    """A small world, stored and published, that can be tampered with."""

    def __init__(self, world: World, settings: VerifySettings, client: Any) -> None:
        self.world = world
        self.settings = settings
        self.redis = client
        self.bucket = settings.s3_bucket
        self.s3 = aws.client("s3", settings, connections=1)

    def verify(self, *, timeout: float = 0, everything: bool = True) -> Report:
        return verify_board(self.settings, timeout=timeout, everything=everything, lookups=False)

    def keys(self, folder: str) -> list[str]:
        pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=PREFIX + folder)
        return [item["Key"].removeprefix(PREFIX) for page in pages for item in page.get("Contents", ())]

    def get(self, key: str) -> bytes:
        body: bytes = self.s3.get_object(Bucket=self.bucket, Key=PREFIX + key)["Body"].read()
        return body

    def put(self, key: str, body: bytes | str) -> None:
        self.s3.put_object(Bucket=self.bucket, Key=PREFIX + key, Body=body)

    def remove(self, key: str) -> None:
        self.s3.delete_object(Bucket=self.bucket, Key=PREFIX + key)

    def rewrite(self, key: str, change: Callable[[list[dict[str, Any]]], list[dict[str, Any]]]) -> None:
        """Replaces an object by one with other rows, and its checksum in the marker, as if both had been altered."""
        body = small.encode(small.table_of(change(small.lines_of(self.get(key)))))
        before, after = (small.checksum_of(each) for each in (self.get(key), body))
        self.put(key, body)
        [marker] = [
            name for name in self.keys("_extents/") if name.endswith(".done") and key in self.get(name).decode()
        ]
        self.put(marker, self.get(marker).decode().replace(before, after))


@pytest.fixture
def open_shop(
    redis_url: str, redis_client: "redis.Redis", aws_settings: AwsSettings, s3_bucket: str
) -> Callable[..., Shop]:
    """Stores and publishes a world."""

    def open_(**changes: Any) -> Shop:
        world = a_world(**changes)
        settings = VerifySettings(
            redis_url=redis_url,  # type: ignore[arg-type]  # pydantic makes a secret of it
            aws_endpoint_url=aws_settings.aws_endpoint_url,
            s3_bucket=s3_bucket,
            s3_prefix=PREFIX,
            windows=" ".join(world.windows),  # type: ignore[arg-type]  # parsed as the environment's text is
            top_k=world.top_k,
        )
        shop = Shop(world, settings, redis_client)
        small.publish(world, redis_client)
        small.store(world, shop.s3, s3_bucket, PREFIX)
        return shop

    return open_


def differences(report: Report) -> list[tuple[str, str, str, str]]:
    return [(d.place, d.name, d.expected, d.found) for check in report.checks for d in check.differences]


@pytest.mark.parametrize("seed", range(3))
def test_a_true_board_is_equal(open_shop: Callable[..., Shop], seed: int) -> None:
    report = open_shop(seed=seed).verify()
    assert differences(report) == []
    assert report.equal
    assert report.compared > 400


def test_reading_only_what_the_windows_need_comes_to_the_same(open_shop: Callable[..., Shop]) -> None:
    shop = open_shop()
    whole, needed = shop.verify(everything=True), shop.verify(everything=False)
    assert needed.equal
    assert needed.objects < whole.objects


@pytest.mark.parametrize("windows", [("1m",), ("5m", "1h"), ("15m",)])
def test_other_windows_are_recomputed_as_well(open_shop: Callable[..., Shop], windows: tuple[str, ...]) -> None:
    report = open_shop(windows=windows).verify()
    assert differences(report) == []


@pytest.mark.parametrize("top_k", [1, 3, 9])
def test_a_short_top_list_is_exact(open_shop: Callable[..., Shop], top_k: int) -> None:
    report = open_shop(top_k=top_k).verify()
    assert differences(report) == []


def test_an_empty_window_is_compared_too(open_shop: Callable[..., Shop]) -> None:
    quiet = [Event("one", position=100, event_ms=small.AS_OF - 4_000_000), Event("two", position=7, partition="1")]
    shop = open_shop(events=quiet, applied={"0": 100, "1": 6}, cuts={"0": [100], "1": [7]}, malformed={})
    assert differences(shop.verify()) == []
    assert shop.redis.hget("sales:1m:aov", "orders") == b"0"


# One number of every kind of key; tests/unit/test_verify_compare.py changes each single number of a board.

ZSETS = [
    "5m:product:units",
    "1h:product:revenue",
    *(f"15m:category:{measure}" for measure in ("units", "revenue", "orders")),
    *(f"24h:region:{measure}" for measure in ("units", "revenue", "orders")),
    *(f"1h:country:{measure}" for measure in ("units", "revenue", "orders")),
]


@pytest.mark.parametrize("key", ZSETS)
def test_a_wrong_score_is_found(open_shop: Callable[..., Shop], key: str) -> None:
    shop = open_shop()
    [(member, score)] = shop.redis.zrange(f"sales:{key}", 0, 0, withscores=True)
    shop.redis.zincrby(f"sales:{key}", 1, member)
    [difference] = differences(shop.verify(everything=False))
    assert difference == (f"sales:{key}", member.decode(), f"{score:.0f}", f"{score + 1:.0f}")


@pytest.mark.parametrize("measure", ["units", "revenue", "orders"])
@pytest.mark.parametrize("place", ["", "region:Europe:"])
def test_a_wrong_minute_of_a_trend_is_found(open_shop: Callable[..., Shop], place: str, measure: str) -> None:
    shop = open_shop()
    key = f"sales:trend:{place}{measure}"
    minute, value = next(iter(shop.redis.hgetall(key).items()))
    shop.redis.hincrby(key, minute, 1)
    [difference] = differences(shop.verify(everything=False))
    assert difference == (key, minute.decode(), value.decode(), str(int(value) + 1))


@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        ("orders", "1000"),
        ("sales_minor", "0"),
        ("aov_minor", "1"),
        ("returns", "1000"),
        ("refunded_minor", "1"),
        ("revenue_minor", "0"),
        ("units", "1000"),
        ("revenue", "12.345"),
        ("aov", "1"),
        ("window_start", "2026-11-20T07:47:34.000Z"),
        ("window_end", "2026-11-20T07:52:40.000Z"),
        ("as_of", "2026-11-20T07:52:33.122Z"),
        ("currency", "EUR"),
    ],
)
def test_a_wrong_total_is_found(open_shop: Callable[..., Shop], field: str, wrong: str) -> None:
    shop = open_shop()
    shop.redis.hset("sales:5m:aov", field, wrong)
    assert ("sales:5m:aov", field, wrong) in {(p, n, f) for p, n, _, f in differences(shop.verify(everything=False))}


def test_a_window_that_is_not_there_is_found(open_shop: Callable[..., Shop]) -> None:
    shop = open_shop()
    shop.redis.delete("sales:1h:aov")
    assert "sales:1h:aov" in {place for place, *_ in differences(shop.verify())}


def test_a_wrong_name_is_found(open_shop: Callable[..., Shop]) -> None:
    shop = open_shop()
    shop.redis.hset("sales:products", "P0", "Something else")
    assert differences(shop.verify()) == [("sales:products", "P0", "Product 0 (soon)", "Something else")]
    shop.redis.hdel("sales:products", "P0")
    shop.redis.hset("sales:products", "nobody", "Nobody")
    assert {name for _, name, *_ in differences(shop.verify())} == {"P0", "nobody"}


def called(name: str, *more: str) -> tuple[Item, ...]:
    """Lines of one product under these names."""
    return tuple(Item("A", 1, 100, each) for each in (name, *more))


@pytest.mark.parametrize(
    "events",
    [
        pytest.param(
            [Event("a", 101, items=called("z")), Event("b", 100, small.AS_OF - 9_999, items=called("right"))],
            id="the latest event time",
        ),
        pytest.param(
            [Event("a", 100, items=called("z")), Event("b", 101, items=called("right"))], id="the highest position"
        ),
        pytest.param(
            [Event("a", 100, items=called("z")), Event("b", 100, partition="1", items=called("right"))],
            id="the last partition",
        ),
        pytest.param([Event("a", 100, items=called("z", "right"))], id="the last line"),
    ],
)
def test_of_several_names_of_a_product_one_is_right(open_shop: Callable[..., Shop], events: list[Event]) -> None:
    shop = open_shop(events=events, applied={"0": 101, "1": 101}, cuts={"0": [101], "1": [101]}, malformed={})
    assert shop.redis.hget("sales:products", "A") == b"right"
    assert differences(shop.verify()) == []
    shop.redis.hset("sales:products", "A", "z")
    assert differences(shop.verify()) == [("sales:products", "A", "right", "z")]


@pytest.mark.parametrize(
    "field",
    ["accepted", "duplicates", "dead_letters", "dead_letters:conflict", "dead_letters:json", "dead_letters:key"],
)
def test_a_wrong_count_is_found(open_shop: Callable[..., Shop], field: str) -> None:
    shop = open_shop()
    shop.redis.hincrby("sales:status", field, 1)
    assert "sales:status" in {place for place, *_ in differences(shop.verify())}


def test_a_duplicate_that_was_counted_as_a_conflict_is_found(open_shop: Callable[..., Shop]) -> None:
    events = [Event("o", 100), Event("o", 101), Event("o", 102, country="FR")]
    shop = open_shop(events=events, applied={"0": 102, "1": 0}, cuts={"0": [102], "1": [0]}, malformed={})
    assert shop.verify().equal
    shop.redis.hincrby("sales:status", "duplicates", -1)
    shop.redis.hincrby("sales:status", "dead_letters:conflict", 1)
    assert {"duplicates", "dead_letters:conflict"} <= {name for _, name, *_ in differences(shop.verify())}


@pytest.mark.parametrize(("seconds", "fits"), [(88_200, False), (88_201, True)])
def test_a_repetition_is_forgotten_half_an_hour_after_the_longest_window_and_no_sooner(
    open_shop: Callable[..., Shop], seconds: int, fits: bool
) -> None:
    newest = small.AS_OF - 10_000
    times = [newest, newest - seconds * 1000, newest - seconds * 1000]
    events = [Event("o", 100 + number, time) for number, time in enumerate(times)]
    shop = open_shop(events=events, applied={"0": 102, "1": 0}, cuts={"0": [102], "1": [0]}, malformed={})
    assert shop.verify().equal
    shop.redis.hset("sales:status", mapping={"duplicates": "0", "accepted": "3"})
    assert shop.verify().equal == fits


def test_a_wrong_latest_event_time_is_found(open_shop: Callable[..., Shop]) -> None:
    shop = open_shop()
    right = shop.redis.hget("sales:status", "max_event_time").decode()
    shop.redis.hset("sales:status", "max_event_time", "2026-11-20T07:52:33.123Z")
    found = [("sales:status", "max_event_time", right, "2026-11-20T07:52:33.123Z")]
    assert differences(shop.verify()) == found


def test_dead_letters_of_messages_behind_the_tick_are_not_counted(open_shop: Callable[..., Shop]) -> None:
    shop = open_shop()
    behind = [place for place in shop.world.malformed["0"] if place > shop.world.applied["0"]]
    assert behind
    assert shop.redis.hget("sales:status", "dead_letters:json") == b"1"
    assert shop.verify().equal


def test_it_waits_until_the_dead_letters_are_archived(open_shop: Callable[..., Shop]) -> None:
    shop = open_shop()
    key = f"_extents/{small.LETTERS}/0/origin.done"
    marker = shop.get(key)
    shop.remove(key)
    assert not shop.verify().equal

    def say(text: str) -> None:
        if "dead letters are archived" in text:
            shop.put(key, marker)

    assert verify_board(shop.settings, timeout=30, everything=True, lookups=False, say=say).equal


def test_dead_letters_that_may_be_on_their_way_are_no_difference(open_shop: Callable[..., Shop]) -> None:
    shop = open_shop()
    small.store_letters(shop.world.letters()[1:], shop.s3, shop.bucket, PREFIX)
    shop.redis.hset("sales:status", "published_at", format_time(time.time_ns() // 1_000_000))
    with pytest.raises(NotYetError, match=r"9 of 10 dead letters are archived, the others may take 120 s"):
        shop.verify()
    before = time.time_ns() // 1_000_000 - 121_000
    shop.redis.hset("sales:status", "published_at", format_time(before))
    assert "dead_letters" in {name for _, name, *_ in differences(shop.verify())}


def test_an_archived_dead_letter_with_another_reason_is_found(open_shop: Callable[..., Shop]) -> None:
    shop = open_shop()
    letters = [(partition, place, "schema") for partition, place, _ in shop.world.letters()]
    small.store_letters(letters, shop.s3, shop.bucket, PREFIX)
    assert {"dead_letters:schema", "dead_letters:json"} <= {name for _, name, *_ in differences(shop.verify())}


def test_a_malformed_message_without_a_dead_letter_is_found(open_shop: Callable[..., Shop]) -> None:
    shop = open_shop()
    [partition, place, _] = next(letter for letter in shop.world.letters() if letter[2] == "json")
    others = [letter for letter in shop.world.letters() if letter[:2] != (partition, place)]
    stood_in = (partition, place + 1, "json")  # the counts agree all the same
    small.store_letters([*others, stood_in], shop.s3, shop.bucket, PREFIX)
    at = f"{small.STREAM}/{partition}/{small.position_text(place)}"
    instead = f"{small.STREAM}/{partition}/{small.position_text(place + 1)}"
    assert differences(shop.verify()) == [
        (at, "malformed", "a dead letter", "none"),
        (instead, "malformed", "none", "a dead letter"),
    ]


def test_a_conflict_without_a_dead_letter_is_found(open_shop: Callable[..., Shop]) -> None:
    shop = open_shop()
    [partition, place, _] = next(letter for letter in shop.world.letters() if letter[2] == "conflict")
    others = [letter for letter in shop.world.letters() if letter[:2] != (partition, place)]
    accepted = next(event for event in shop.world.counted() if event.partition == partition)
    small.store_letters([*others, (partition, accepted.position, "conflict")], shop.s3, shop.bucket, PREFIX)
    at, instead = (f"{small.STREAM}/{partition}/{small.position_text(each)}" for each in (place, accepted.position))
    assert sorted(differences(shop.verify())) == sorted(
        [(at, "conflict", "a dead letter", "none"), (instead, "conflict", "none", "a dead letter")]
    )


@pytest.mark.parametrize(("seconds", "must"), [(88_200, True), (88_201, False)])
def test_a_conflict_with_an_identity_that_may_be_forgotten_may_or_may_not_have_a_dead_letter(
    open_shop: Callable[..., Shop], seconds: int, must: bool
) -> None:
    newest = small.AS_OF - 10_000
    old = Event("o", 101, newest - seconds * 1000)
    events = [Event("latest", 100, newest), old, replace(old, position=102, country="FR")]
    shop = open_shop(events=events, applied={"0": 102, "1": 0}, cuts={"0": [102], "1": [0]}, malformed={})
    assert shop.verify().equal
    small.store_letters([("1", 5, "conflict")], shop.s3, shop.bucket, PREFIX)  # behind the tick
    found = (f"{small.STREAM}/0/{small.position_text(102)}", "conflict", "a dead letter", "none")
    assert (found in differences(shop.verify())) is must


def test_markers_that_only_count_what_was_malformed_are_compared_by_their_counts(
    open_shop: Callable[..., Shop],
) -> None:
    shop = open_shop()
    for key in shop.keys(f"_extents/{small.STREAM}/"):
        if key.endswith(".done"):
            marker = json.loads(shop.get(key))
            del marker["rejected_at"]
            shop.put(key, json.dumps(marker))
    assert shop.verify().equal
    letters = [letter for letter in shop.world.letters() if letter[2] != "json"]
    small.store_letters(letters, shop.s3, shop.bucket, PREFIX)
    assert ("1 dead letters", "0 dead letters") in {
        (e, f) for _, name, e, f in differences(shop.verify()) if name == "malformed"
    }


def test_a_marker_that_names_other_malformed_messages_than_it_counts_is_found(open_shop: Callable[..., Shop]) -> None:
    shop = open_shop()
    event = next(event for event in shop.world.events if event.partition == "0")
    key = f"_extents/{small.STREAM}/0/origin.done"
    marker = json.loads(shop.get(key))
    shop.put(key, json.dumps(marker | {"rejected_at": [small.position_text(event.position)]}))
    assert {"a malformed message", "malformed"} <= {name for _, name, *_ in differences(shop.verify())}
    shop.put(key, json.dumps(marker | {"rejected_at": [small.position_text(10**9)] * marker["rejected"]}))
    assert {"rejected", "rejected_at"} <= {name.split()[-1] for _, name, *_ in differences(shop.verify())}


def test_refused_messages_are_counted_by_the_extents_when_the_tick_is_at_their_end(
    open_shop: Callable[..., Shop],
) -> None:
    world = a_world()
    shop = open_shop(applied={partition: ends[-1] for partition, ends in world.cuts.items()})
    assert shop.verify().equal
    shop.redis.hincrby("sales:status", "dead_letters", 1)
    assert ("sales:status", "dead letters without conflicts", "2", "3") in differences(shop.verify())


def test_of_products_that_tie_the_wrong_one_at_the_last_place_is_found(open_shop: Callable[..., Shop]) -> None:
    tied = tuple(Item(product, 2, 100, product) for product in ("A", "B", "É"))
    shop = open_shop(
        events=[Event("tied", position=100, items=tied)],
        applied={"0": 100, "1": 0},
        cuts={"0": [100], "1": [0]},
        malformed={},
        top_k=2,
    )
    assert shop.verify().equal
    assert shop.redis.zrevrange("sales:1m:product:units", 0, -1) == ["É".encode(), b"B"]
    shop.redis.zrem("sales:1m:product:units", "B")
    shop.redis.zadd("sales:1m:product:units", {"A": 2})
    assert {name for place, name, *_ in differences(shop.verify()) if place.startswith("sales:1m")} == {"A", "B"}


def test_a_tick_that_has_applied_less_than_it_says_is_found(open_shop: Callable[..., Shop]) -> None:
    shop = open_shop()
    shop.redis.hset("sales:positions", f"{small.STREAM}/0", small.position_text(shop.world.applied["0"] + 1))
    assert not shop.verify(everything=False).equal


# What is stored: every kind of damage.


def test_a_row_that_was_lost_is_found(open_shop: Callable[..., Shop]) -> None:
    shop = open_shop()
    key = shop.keys("orders/")[0]
    shop.rewrite(key, lambda lines: lines[:-1])
    assert "rows of an object" in {name for _, name, *_ in differences(shop.verify())}


def test_a_row_that_was_doubled_is_found(open_shop: Callable[..., Shop]) -> None:
    shop = open_shop()
    shop.rewrite(shop.keys("orders/")[-1], lambda lines: [*lines, lines[0]])
    found = {name for _, name, *_ in differences(shop.verify())}
    assert {"rows of an object", "lines of an order"} <= found


def test_a_row_that_was_exchanged_for_another_is_found(open_shop: Callable[..., Shop]) -> None:
    shop = open_shop()
    shop.rewrite(shop.keys("orders/")[-1], lambda lines: [*lines[1:], lines[-1]])
    assert "lines of an order" in {name for _, name, *_ in differences(shop.verify())}


@pytest.mark.parametrize("column", ["gross_amount", "discount_amount", "net_amount", "profit_amount"])
def test_a_stored_amount_that_does_not_follow_is_found(open_shop: Callable[..., Shop], column: str) -> None:
    shop = open_shop()
    shop.rewrite(shop.keys("orders/")[-1], lambda lines: [{**lines[0], column: 10_001}, *lines[1:]])
    assert [name for _, name, *_ in differences(shop.verify())] == ["amounts of a line"]


def test_a_stored_region_that_is_not_the_countrys_is_found_and_changes_no_number(
    open_shop: Callable[..., Shop],
) -> None:
    shop = open_shop()
    shop.rewrite(shop.keys("orders/")[-1], lambda lines: [{**line, "region": "Oceania"} for line in lines])
    assert {name for _, name, *_ in differences(shop.verify())} == {"region of a line"}


@pytest.mark.parametrize("column", ["quantity", "unit_amount"])
def test_a_stored_number_that_changes_the_sums_is_found_twice(open_shop: Callable[..., Shop], column: str) -> None:
    shop = open_shop()
    world = shop.world
    priced = (e for e in world.counted() if e.event_ms <= world.as_of and all(item.unit_amount for item in e.items))
    recent = max(priced, key=lambda event: event.event_ms)
    [key] = [
        key
        for key in shop.keys("orders/")
        if any(
            row["position"] == small.position_text(recent.position) and row["partition"] == recent.partition
            for row in small.lines_of(shop.get(key))
        )
    ]

    def change(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [
            {**line, column: line[column] + recent.sign} if line["order_id"] == recent.order_id else line
            for line in lines
        ]

    shop.rewrite(key, change)
    places = {place.split("/")[0] for place, *_ in differences(shop.verify())}
    assert any(place.startswith("sales:") for place in places)
    assert small.STREAM in places


def test_a_row_that_is_not_of_its_extent_or_hour_is_found(open_shop: Callable[..., Shop]) -> None:
    shop = open_shop()
    shop.rewrite(
        shop.keys("orders/")[-1], lambda lines: [{**line, "position": small.position_text(10**9)} for line in lines]
    )
    assert "a row outside its extent" in {name for _, name, *_ in differences(shop.verify())}
    shop.rewrite(
        shop.keys("orders/")[0],
        lambda lines: [{**line, "event_time": line["event_time"].replace(year=2024)} for line in lines],
    )
    assert "a row in the wrong hour" in {name for _, name, *_ in differences(shop.verify())}


def test_an_order_in_two_partitions_is_found(open_shop: Callable[..., Shop]) -> None:
    events = [Event("twin", position=100), Event("twin", position=101, partition="1")]
    shop = open_shop(events=events, applied={"0": 100, "1": 101}, cuts={"0": [100], "1": [101]}, malformed={})
    found = differences(shop.verify())
    assert (
        "order twin",
        "partitions of an identity",
        "one partition",
        f"[{small.STREAM}/0, {small.STREAM}/1]",
    ) in found


def test_an_object_that_is_gone_is_found(open_shop: Callable[..., Shop]) -> None:
    shop = open_shop()
    key = shop.keys("orders/")[-1]
    shop.remove(key)
    assert (key, "object", "there", "missing") in differences(shop.verify())


def test_an_object_that_was_cut_short_is_found_and_the_others_are_still_read(open_shop: Callable[..., Shop]) -> None:
    shop = open_shop()
    key = shop.keys("orders/")[0]
    shop.put(key, shop.get(key)[:-100])
    report = shop.verify()
    found = {name: found for place, name, _, found in differences(report) if place == key}
    assert found["object"].startswith("Invalid Input Error")
    assert found["checksum"] == small.checksum_of(shop.get(key))
    assert report.objects == len(shop.keys("orders/")) - 1


def test_a_value_that_was_altered_outside_all_windows_is_found_by_the_checksum(open_shop: Callable[..., Shop]) -> None:
    shop = open_shop()
    key = shop.keys("orders/")[0]
    assert shop.verify(everything=False).objects < len(shop.keys("orders/"))
    was = shop.get(key)
    lines = small.lines_of(was)
    altered = small.encode(small.table_of([{**line, "country": "FR", "region": "Europe"} for line in lines]))
    shop.put(key, altered)
    assert differences(shop.verify()) == [(key, "checksum", small.checksum_of(was), small.checksum_of(altered))]


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda table: table.append_column("paid", pa.array([True] * len(table))), id="one more"),
        pytest.param(lambda table: table.drop_columns(["quantity"]), id="one less"),
        pytest.param(
            lambda table: table.set_column(12, "quantity", pa.array(["many"] * len(table))), id="another type"
        ),
    ],
)
@pytest.mark.parametrize("place", [0, -1])
def test_an_object_with_other_columns_is_found(
    open_shop: Callable[..., Shop], change: Callable[["pa.Table"], "pa.Table"], place: int
) -> None:
    shop = open_shop()
    key = shop.keys("orders/")[place]
    shop.put(key, small.encode(change(small.table_of(small.lines_of(shop.get(key))))))
    found = differences(shop.verify())
    assert (key, "checksum") in {(place, name) for place, name, *_ in found}


def test_amounts_beyond_any_order_are_a_difference(open_shop: Callable[..., Shop]) -> None:
    shop = open_shop()
    huge = {"quantity": 10**12, "unit_amount": 10**12, "unit_cost": 10**12, "discount_percent": 33}
    for key in shop.keys("orders/"):
        shop.rewrite(key, lambda lines: [{**line, **huge} for line in lines])
    found = differences(shop.verify())
    assert "amounts of a line" in {name for _, name, *_ in found}
    assert "sales:1h:aov" in {place for place, *_ in found}


def test_an_object_that_no_marker_names_is_found(open_shop: Callable[..., Shop]) -> None:
    shop = open_shop()
    key = shop.keys("orders/")[-1]
    stray = f"{key.rpartition('+')[0]}+{small.position_text(shop.world.cuts['1'][0] - 1)}.parquet"
    shop.put(stray, shop.get(key))
    assert differences(shop.verify(everything=False)) == [(stray, "marker", "named by one", "named by none")]


def test_an_object_that_is_being_written_is_none_of_that(open_shop: Callable[..., Shop]) -> None:
    shop = open_shop()
    key = next(key for key in shop.keys("orders/") if "+1+" in key)
    shop.put(f"{key.rpartition('+')[0]}+{small.position_text(10**6)}.parquet", b"half of it")
    assert shop.verify().equal


def test_a_marker_whose_counts_do_not_add_up_is_found(open_shop: Callable[..., Shop]) -> None:
    shop = open_shop()
    key = f"_extents/{small.STREAM}/0/origin.done"
    marker = json.loads(shop.get(key))
    shop.put(key, json.dumps({**marker, "read": marker["read"] + 1}))
    assert [name.split()[-1] for _, name, *_ in differences(shop.verify())] == ["read"]


# Coverage: what is not stored yet is not compared.


@pytest.mark.parametrize("place", ["origin", "middle", "last"])
def test_a_missing_marker_means_not_covered(open_shop: Callable[..., Shop], place: str) -> None:
    shop = open_shop()
    ends = shop.world.cuts["0"]
    name = {"origin": "origin", "middle": small.position_text(ends[0]), "last": small.position_text(ends[1])}[place]
    shop.remove(f"_extents/{small.STREAM}/0/{name}.done")
    covered = {"origin": "nothing", "middle": small.position_text(ends[0]), "last": small.position_text(ends[1])}[place]
    with pytest.raises(NotCoveredError, match=rf"1 of 2 partitions .* {small.STREAM}/0 is marked done up to {covered}"):
        shop.verify()
    with pytest.raises(NotCoveredError):
        shop.verify(everything=False)


def test_a_pin_and_marker_that_are_both_gone_leave_a_gap(open_shop: Callable[..., Shop]) -> None:
    shop = open_shop()
    for kind in ("json", "done"):
        name = small.position_text(shop.world.cuts["0"][0])
        shop.remove(f"_extents/{small.STREAM}/0/{name}.{kind}")
    with pytest.raises(NotCoveredError):
        shop.verify()


def test_it_waits_until_the_marker_comes(open_shop: Callable[..., Shop]) -> None:
    shop = open_shop()
    key = f"_extents/{small.STREAM}/0/{small.position_text(shop.world.cuts['0'][1])}.done"
    marker = shop.get(key)
    shop.remove(key)
    said: list[str] = []

    def say(text: str) -> None:
        said.append(text)
        if text.startswith("waiting for the sink"):
            shop.put(key, marker)

    report = verify_board(shop.settings, timeout=30, everything=True, lookups=False, say=say)
    assert report.equal
    assert any(text.startswith("waiting for the sink: 1 of 2 partitions") for text in said)


def test_without_a_tick_there_is_nothing_to_compare(open_shop: Callable[..., Shop]) -> None:
    shop = open_shop()
    shop.redis.flushdb()
    with pytest.raises(NotCoveredError, match="Redis holds no tick"):
        shop.verify()


# The command.


@pytest.fixture
def run(open_shop: Callable[..., Shop], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """The command on a world, configured by the environment."""
    app = typer.Typer()
    app.command()(verify)

    def run_(*arguments: str, **environment: str) -> Result:
        return CliRunner().invoke(app, arguments, env=environment)

    shop = open_shop()
    monkeypatch.setenv("REDIS_URL", shop.settings.redis_url.get_secret_value())
    monkeypatch.setenv("AWS_ENDPOINT_URL", shop.settings.aws_endpoint_url or "")
    monkeypatch.setenv("S3_BUCKET", shop.bucket)
    monkeypatch.setenv("S3_PREFIX", PREFIX)
    return run_


def test_the_command_ends_with_0_when_all_is_equal(run: Callable[..., Result]) -> None:
    result = run("--everything", "--no-lookups")
    assert result.exit_code == 0, result.output
    assert "every number is equal" in result.output


def test_the_command_ends_with_1_and_names_the_first_differences(
    run: Callable[..., Result], redis_client: "redis.Redis"
) -> None:
    redis_client.hincrby("sales:1h:aov", "orders", 1)
    result = run()
    assert result.exit_code == 1
    assert "sales:1h:aov orders: expected" in result.output
    as_json = run("--json")
    assert as_json.exit_code == 1
    report = json.loads(as_json.stdout)
    assert (report["equal"], report["different"]) == (False, 1)


def test_the_command_ends_with_2_and_a_line_for_each_wrong_setting(run: Callable[..., Result]) -> None:
    result = run(TOP_K="many", WINDOWS="1x")
    assert result.exit_code == 2
    assert {line.split(":")[0] for line in result.stderr.splitlines()} == {"TOP_K", "WINDOWS"}


def test_the_command_ends_with_3_when_the_tick_is_not_stored(
    run: Callable[..., Result], redis_client: "redis.Redis"
) -> None:
    redis_client.hset("sales:positions", f"{small.STREAM}/1", small.position_text(10**6))
    result = run("--timeout", "0")
    assert result.exit_code == 3
    assert "is the sink running?" in result.stderr


def test_the_command_ends_with_4_when_a_number_on_the_board_is_none(
    run: Callable[..., Result], redis_client: "redis.Redis"
) -> None:
    redis_client.zincrby("sales:1h:product:units", 0.5, "P0")
    result = run()
    assert result.exit_code == 4
    assert result.stderr.splitlines()[-1].startswith("verify: sales:1h:product:units: the score of")


def test_the_command_ends_with_4_when_a_marker_is_none(
    run: Callable[..., Result], aws_settings: AwsSettings, s3_bucket: str
) -> None:
    key = f"{PREFIX}_extents/{small.STREAM}/0/origin.done"
    aws.client("s3", aws_settings, connections=1).put_object(Bucket=s3_bucket, Key=key, Body=b"{")
    result = run("--everything", "--no-lookups")
    assert result.exit_code == 4
    assert "origin.done is no marker" in result.stderr


def test_the_command_ends_with_3_when_redis_is_away(run: Callable[..., Result]) -> None:
    result = run(REDIS_URL="redis://:secret@127.0.0.1:1/0")
    assert result.exit_code == 3
    assert "127.0.0.1:1" in result.stderr
    assert "secret" not in result.output
