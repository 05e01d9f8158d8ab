"""A table of provisioned capacity is written as fast as that, and no faster."""

import itertools

import hypothesis.strategies as st
import pytest
from hypothesis import given

from sink.pace import SAVED_SECONDS, Pace, half_read_units, write_units

START = 1_024.0


class Clock:
    """Stands still until it is told."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> float:
        return self.now


def a_pace(rate: int | None) -> tuple[Pace, Clock]:
    clock = Clock()
    pace = Pace(clock)
    pace.rate = rate
    return pace, clock


def test_on_demand_all_go_at_once() -> None:
    pace, _ = a_pace(None)
    assert (pace.ready_in([400] * 200), pace.take([400] * 200)) == (0, 200)


def test_it_begins_with_what_a_second_brings_and_lets_as_much_through_each_second() -> None:
    pace, clock = a_pace(4)
    waiting = [1] * 11
    sent = []
    while waiting:
        clock.now += pace.ready_in(waiting)
        count = pace.take(waiting)
        sent.append((clock.now - START, count))
        waiting = waiting[count:]
    assert sent == [(0, 4), (1, 4), (1.75, 3)]


def test_an_item_of_more_than_a_second_goes_and_is_paid_for_by_the_next() -> None:
    pace, clock = a_pace(5)
    assert (pace.ready_in([390, 1]), pace.take([390, 1])) == (0, 1)
    assert pace.ready_in([1]) == pytest.approx((390 - 5 + 1) / 5)
    clock.now += 387 / 5
    assert pace.ready_in([1]) == 0


def test_unused_units_are_kept_for_a_minute_and_not_longer() -> None:
    pace, clock = a_pace(5)
    clock.now += 86_400
    assert pace.take([1] * 1_000) == 5 * SAVED_SECONDS


def test_a_new_capacity_counts_from_then_on() -> None:
    pace, clock = a_pace(5)
    assert pace.take([1] * 5) == 5
    pace.rate = 100
    clock.now += 1
    assert pace.take([1] * 1_000) == 100
    pace.rate = None
    assert pace.take([1] * 1_000) == 1_000


@given(
    st.integers(1, 50),
    st.lists(st.integers(1, 400), min_size=1, max_size=60),
    st.lists(st.floats(0, 5), min_size=1, max_size=20),
)
def test_in_no_time_more_goes_than_it_brings_and_one_item_beyond(
    rate: int, units: list[int], delays: list[float]
) -> None:
    pace, clock = a_pace(rate)
    spent, waiting, late = 0, units, itertools.cycle(delays)
    while waiting:
        clock.now += pace.ready_in(waiting) + next(late)
        count = pace.take(waiting)
        assert count >= 1
        spent += sum(waiting[:count])
        assert spent <= rate * (1 + clock.now - START) + max(units) + 1e-6
        waiting = waiting[count:]


@pytest.mark.parametrize(("size", "units"), [(1, 1), (1_024, 1), (1_025, 2), (390_000, 381)])
def test_each_kilobyte_begun_is_a_unit(size: int, units: int) -> None:
    assert write_units(size) == units


@pytest.mark.parametrize(("size", "units"), [(1, 1), (4_096, 1), (4_097, 2), (390_000, 96)])
def test_a_look_at_each_four_kilobytes_begun_is_half_a_read_unit(size: int, units: int) -> None:
    assert half_read_units(size) == units
