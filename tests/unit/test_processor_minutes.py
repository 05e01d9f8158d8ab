"""Minutes: when their rollups go out, how often, and what becomes of them across a restart."""

import numpy as np

from processor.cells import Cells, ListedNames
from processor.minutes import Minutes
from sales.rollups import Rollup
from sales.times import format_time

NOON = 1_795_176_000_000
MINUTE = 60_000
HOUR = 60 * MINUTE


def one_sale(minute: int = NOON, country: str = "GB", amount: int = 100) -> Cells:
    """Events, units, orders, returns, sales, refunded: for the country and for its only category."""
    row = [1, 1, 1, 0, amount, 0]
    return Cells(
        ListedNames([country, f"{country}/Home"]), np.array([minute] * 2), np.array([0, 1]), np.array([row, row])
    )


def minutes_at(as_of: int) -> Minutes:
    minutes = Minutes()
    minutes.advance(as_of, as_of - 24 * HOUR)
    return minutes


def sent(records: list[Rollup]) -> set[tuple[str, str, int]]:
    return {(record.minute, record.scope, record.version) for record in records}


def test_a_minute_goes_out_30_seconds_after_its_end() -> None:
    # 12:00       12:01        12:01:30
    #   |--sale-----|-----------|
    minutes = minutes_at(NOON)
    minutes.add(one_sale())
    minutes.advance(NOON + 89_999, NOON - 24 * HOUR)
    assert minutes.take_rollups(0) == []
    minutes.advance(NOON + 90_000, NOON - 24 * HOUR)
    assert sent(minutes.take_rollups(0)) == {(format_time(NOON), "all", 1), (format_time(NOON), "GB/Home", 1)}
    assert minutes.take_rollups(99_999_999) == []


def test_corrections_are_gathered_for_10_seconds() -> None:
    minutes = minutes_at(NOON)
    minutes.add(one_sale())
    minutes.advance(NOON + 2 * MINUTE, NOON - 24 * HOUR)
    minutes.take_rollups(0)
    minutes.add(one_sale(country="DE"))
    assert minutes.late == 1
    assert minutes.take_rollups(50_000) == []
    minutes.add(one_sale())
    assert minutes.take_rollups(59_999) == []
    records = minutes.take_rollups(60_000)
    assert sent(records) == {
        (format_time(NOON), "all", 3),
        (format_time(NOON), "GB/Home", 2),
        (format_time(NOON), "DE/Home", 1),
    }
    assert {record.sales_minor for record in records if record.scope == "all"} == {300}


def test_a_stop_sends_corrections_at_once() -> None:
    minutes = minutes_at(NOON)
    minutes.add(one_sale())
    minutes.advance(NOON + 2 * MINUTE, NOON - 24 * HOUR)
    minutes.take_rollups(0)
    minutes.add(one_sale())
    assert sent(minutes.take_rollups(1, flush=True)) == {
        (format_time(NOON), "all", 2),
        (format_time(NOON), "GB/Home", 2),
    }


def test_a_restart_sends_only_what_was_not_sent() -> None:
    minutes = minutes_at(NOON)
    minutes.add(one_sale())
    minutes.add(one_sale(NOON + MINUTE))
    minutes.advance(NOON + 2 * MINUTE, NOON - 24 * HOUR)
    minutes.take_rollups(0)
    again = minutes_at(NOON + 3 * MINUTE)
    again.add(minutes.dump(), restoring=True)
    again.mark_sent(minutes.sent())
    assert again.late == 0
    assert {record.minute for record in again.take_rollups(0)} == {format_time(NOON + MINUTE)}


def test_a_minute_that_leaves_between_two_ticks_goes_out_before_it_is_dropped() -> None:
    minutes = minutes_at(NOON)
    minutes.add(one_sale())
    minutes.advance(NOON + 48 * HOUR, NOON + 24 * HOUR)
    assert sent(minutes.take_rollups(0)) == {(format_time(NOON), "all", 1), (format_time(NOON), "GB/Home", 1)}


def test_an_event_for_a_minute_that_is_gone_makes_it_stale_and_gives_no_totals() -> None:
    minutes = minutes_at(NOON)
    minutes.add(one_sale(NOON - 25 * HOUR))
    records = minutes.take_rollups(0)
    assert {record.scope for record in records} == {"all", "GB/Home"}
    assert all(record.stale and record.orders == 0 for record in records)
    assert minutes.take_rollups(0) == []


def test_an_event_for_a_minute_that_was_never_known_says_nothing_of_it() -> None:
    minutes = minutes_at(NOON)
    minutes.known_from = NOON - 24 * HOUR
    minutes.add(one_sale(NOON - 24 * HOUR - MINUTE))
    assert minutes.take_rollups(0) == []
    minutes.advance(NOON + 2 * MINUTE, NOON - 24 * HOUR + MINUTE)
    minutes.add(one_sale(NOON - 24 * HOUR))
    assert {record.stale for record in minutes.take_rollups(0)} == {True}


def test_the_trend_shows_a_minute_once_as_of_has_reached_it() -> None:
    minutes = minutes_at(NOON)
    minutes.add(one_sale(NOON + MINUTE))
    assert minutes.take_trend() == ({}, set())
    minutes.advance(NOON + MINUTE, NOON - 24 * HOUR)
    changed, gone = minutes.take_trend()
    assert changed == {NOON + MINUTE: {"GB": [1, 1, 1, 0, 100, 0]}}
    assert gone == set()
    minutes.advance(NOON + 26 * HOUR, NOON + 2 * HOUR)
    assert minutes.take_trend() == ({}, {NOON + MINUTE})
