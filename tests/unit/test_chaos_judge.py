"""A judge who lets everything pass proves nothing: what is wrong has to be found."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from chaos.campaign import END, Outcome, rank, table
from chaos.judge import Judge
from chaos.topics import Message
from sales.board import Keys, LiveNumbers, WindowNumbers
from sales.times import format_time

STREAM = "orders-0badcafe"
NOON = 1_795_176_000_000
LATER = NOON + 130_000
"""The minute of noon is closed: 30 s have passed since its end."""
WINDOWS = {"1m": 1_000, "5m": 5_000, "15m": 15_000, "1h": 60_000, "24h": 900_000}
LENGTHS = {"1m": 60_000, "5m": 300_000, "15m": 900_000, "1h": 3_600_000, "24h": 86_400_000}


class Written:
    """A topic in memory."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.given = 0

    def write(self, value: dict[str, Any], key: str = "") -> None:
        self.messages.append(Message(0, len(self.messages), key.encode(), json.dumps(value).encode(), LATER))

    def until(self, ends: Mapping[int, int]) -> Iterator[Message]:
        for message in self.messages[self.given : ends.get(0, -1) + 1]:
            self.given += 1
            yield message

    def rest(self) -> Iterator[Message]:
        return self.until({0: len(self.messages) - 1})

    def has_given(self, partition: int, offset: int) -> bool:
        return partition == 0 and offset < self.given


class Shop:
    """Two orders of one product, one of them twice; something that is no order; and a board that says so."""

    def __init__(self) -> None:
        self.orders, self.letters, self.rollups = Written(), Written(), Written()
        for order_id in ("a", "b", "a"):
            self.orders.write(an_order(order_id), order_id)
        self.orders.write({"schema": 1})
        self.letters.write({"stream": STREAM, "partition": "0", "position": "3", "reason": "field:type"})
        minute = {"minute": format_time(NOON), "version": 2, "orders": 2, "returns": 0, "units": 4, "stale": False}
        self.minute = minute | {"sales_minor": 600, "refunded_minor": 0}
        for scope in ("all", "GB/Home"):
            self.rollups.write(self.minute | {"scope": scope, "version": 1, "orders": 1})
            self.rollups.write(self.minute | {"scope": scope})
        self.keys = Keys("sales:")
        self.judge = Judge(self.orders, self.letters, self.rollups, stream_id=STREAM, keys=self.keys, letters_seconds=0)
        trend = {"units": {format_time(NOON): 4}, "revenue": {format_time(NOON): 600}, "orders": {format_time(NOON): 2}}
        self.live = LiveNumbers(
            status={
                "as_of": format_time(LATER),
                "max_event_time": format_time(NOON),
                "accepted": "2",
                "duplicates": "1",
                "dead_letters": "1",
                "dead_letters:field:type": "1",
            },
            positions={f"{STREAM}/0": f"{3:020d}"},
            names={"p": "Pen"},
            windows={name: a_window(name) for name in WINDOWS},
            trends={"": trend, "Europe": trend},
        )


def an_order(order_id: str) -> dict[str, Any]:
    return {
        "schema": 1,
        "type": "sale",
        "order_id": order_id,
        "event_time": format_time(NOON),
        "country": "GB",
        "currency": "USD",
        "lines": [{"product_id": "p", "product_name": "Pen", "category": "Home", "quantity": 2, "unit_amount": 150}],
    }


def a_window(name: str) -> WindowNumbers:
    end = LATER - LATER % WINDOWS[name] + WINDOWS[name]
    start = end - LENGTHS[name]
    inside = start <= NOON
    measures = {"units": 4, "revenue": 600, "orders": 2}
    aov = {"orders": 0, "sales_minor": 0, "returns": 0, "refunded_minor": 0, "revenue_minor": 0, "units": 0}
    if inside:
        aov |= {"orders": 2, "sales_minor": 600, "revenue_minor": 600, "units": 4, "aov_minor": 300}
    texts = {name: str(value) for name, value in aov.items()}
    texts |= {"revenue": "6.00", "aov": "3.00"} if inside else {"revenue": "0.00"}
    times = {"window_start": format_time(start), "window_end": format_time(end), "as_of": format_time(LATER)}
    labels = {"category": "Home", "region": "Europe", "country": "GB"}
    return WindowNumbers(
        products={measure: [("p", measures[measure])] if inside else [] for measure in ("units", "revenue")},
        groups={
            group: {measure: {label: value} if inside else {} for measure, value in measures.items()}
            for group, label in labels.items()
        },
        aov=texts | times | {"currency": "USD"},
    )


@pytest.fixture
def shop() -> Shop:
    return Shop()


def test_what_is_right_passes(shop: Shop) -> None:
    assert shop.judge.differences(shop.live) == []
    assert shop.judge.rollup_differences(shop.live) == []


def test_a_number_that_is_one_off_is_told(shop: Shop) -> None:
    shop.live.windows["1h"].aov["units"] = "5"
    assert shop.judge.differences(shop.live) == ["sales:1h:aov units: 4 expected, 5 found"]


def test_an_order_that_was_counted_twice_is_told(shop: Shop) -> None:
    shop.live.status.update(accepted="3", duplicates="0")
    assert shop.judge.differences(shop.live) == [
        "sales:status accepted: 2 expected, 3 found",
        "sales:status duplicates: 1 expected, 0 found",
    ]


def test_a_dead_letter_that_was_not_sent_is_told(shop: Shop) -> None:
    shop.letters.messages.clear()
    assert shop.judge.differences(shop.live) == ["(0, 3) was refused (field:type) and is no dead letter"]


def test_a_dead_letter_that_was_sent_twice_is_one(shop: Shop) -> None:
    shop.letters.write({"stream": STREAM, "partition": "0", "position": "3", "reason": "field:type"})
    assert shop.judge.differences(shop.live) == []


def test_a_dead_letter_of_an_accepted_order_is_told(shop: Shop) -> None:
    shop.letters.write({"stream": STREAM, "partition": "0", "position": "0", "reason": "conflict"})
    assert shop.judge.differences(shop.live) == ["dead letter of (0, 0): None expected, conflict found"]


def test_a_closed_minute_that_was_not_corrected_is_told(shop: Shop) -> None:
    assert shop.judge.differences(shop.live) == []
    del shop.rollups.messages[1]
    [told] = shop.judge.rollup_differences(shop.live)
    assert told.startswith(f"minute ('{format_time(NOON)}', 'all'): (2, 2, 0, 4, 600, 0) expected, (1, 1,")


def test_a_minute_that_was_never_sent_is_told(shop: Shop) -> None:
    assert shop.judge.differences(shop.live) == []
    shop.rollups.messages.clear()
    assert len(shop.judge.rollup_differences(shop.live)) == 2


def test_a_scope_that_no_order_has_is_told(shop: Shop) -> None:
    assert shop.judge.differences(shop.live) == []
    shop.rollups.write(shop.minute | {"scope": "GB/Garden"})
    [told] = shop.judge.rollup_differences(shop.live)
    assert "'GB/Garden'): None expected" in told


def test_a_minute_that_a_window_covers_must_not_be_stale(shop: Shop) -> None:
    assert shop.judge.differences(shop.live) == []
    shop.rollups.write(shop.minute | {"scope": "all", "version": 0, "stale": True})
    assert "marked stale" in shop.judge.rollup_differences(shop.live)[0]


def test_percentiles_are_values_that_were_measured() -> None:
    assert [rank([1.0, 2.0, 3.0, 4.0], share) for share in (0.5, 0.95, 1.0)] == [2.0, 4.0, 4.0]
    assert rank([7.0], 0.5) == 7.0


def test_the_table_counts_what_came_behind_the_last_fault_apart() -> None:
    outcomes = [
        Outcome(1, "kill", "kill -9", 2.0, ()),
        Outcome(2, "kill", "kill -9", 4.0, ("one number is off",)),
        Outcome(3, END, "verify from S3", 60.0, ()),
    ]
    assert [line.split() for line in table(outcomes)[1:]] == [
        ["kill", "-9", "2", "2.0", "4.0", "4.0", "1"],
        ["verify", "from", "S3", "1", "60.0", "60.0", "60.0", "0"],
        ["all", "but", "the", "end", "2", "2.0", "4.0", "4.0", "1"],
    ]
