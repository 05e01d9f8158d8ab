"""When orders happen: rates are kept, far sides are not flooded, a simulated day doesn't depend on the clock."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import given

from generator import replay
from generator.pacing import BLOCK, BURST_SECONDS, TICK_SECONDS, Rate, Slice, Speed, live, simulated, waiter
from generator.replay import ReplayedOrder

NOON = 1_795_176_000_000


class ManualClock:
    """Moves when it is waited on, and a little whenever it is read; says stop after some seconds."""

    def __init__(self, seconds: float = 1e9, per_reading: float = 0.0001) -> None:
        self.passed = 0.0
        self._seconds = seconds
        self._per_reading = per_reading

    def now(self) -> int:
        return NOON + int(self.monotonic() * 1000)

    def monotonic(self) -> float:
        self.passed += self._per_reading
        return self.passed

    def wait(self, seconds: float) -> None:
        assert seconds >= 0
        self.passed += seconds

    def stopping(self) -> bool:
        return self.passed >= self._seconds


def steady(_instant: int) -> float:
    return 1.0


def test_rates_are_read() -> None:
    assert Rate.parse("500/s") == Rate(500.0)
    assert Rate.parse(" 30/min ") == Rate(0.5)
    assert Rate.parse("1800/h") == Rate(0.5)
    assert Rate.parse("max") == Rate(None)


@pytest.mark.parametrize("text", ["", "500", "0/s", "-1/s", "500/day", "fast", "1e3/s"])
def test_what_is_no_rate_is_refused_with_what_is_allowed(text: str) -> None:
    with pytest.raises(ValueError, match="allowed: a number above 0"):
        Rate.parse(text)


def test_speeds_are_read() -> None:
    assert Speed.parse("1x") == Speed(1.0)
    assert Speed.parse("3600x") == Speed(3600.0)
    assert Speed.parse("0.5x") == Speed(0.5)
    assert Speed.parse("max") == Speed(None)


@pytest.mark.parametrize("text", ["", "x", "0x", "-1x", "3600", "1 x faster"])
def test_what_is_no_speed_is_refused_with_what_is_allowed(text: str) -> None:
    with pytest.raises(ValueError, match="allowed: a number above 0"):
        Speed.parse(text)


@given(st.integers(0, 10**13), st.integers(0, 10**8), st.integers(1, 6000))
def test_a_slices_orders_lie_in_it_and_the_last_at_its_end(start: int, length: int, count: int) -> None:
    times = Slice(start, start + length, count).times().tolist()
    assert len(times) == count
    assert times == sorted(times)
    assert times[-1] == start + length
    assert times[0] >= start


@pytest.mark.parametrize("per_second", [0.5, 3.0, 500.0, 50_000.0])
def test_a_live_source_keeps_its_rate(per_second: float) -> None:
    clock = ManualClock(seconds=20.0)
    count = sum(slice_.count for slice_ in live(Rate(per_second), clock, steady))
    assert count == pytest.approx(20 * per_second, abs=max(2.0, per_second * 0.05))


def test_the_time_that_sending_takes_is_no_pause_on_top() -> None:
    clock = ManualClock(seconds=10.0)
    ends = []
    for slice_ in live(Rate(50_000.0), clock, steady):
        ends.append(slice_.end)
        clock.passed += 0.015  # making and sending the orders
    gaps = [later - earlier for earlier, later in itertools.pairwise(ends)]
    assert max(gaps) <= 1000 * TICK_SECONDS + 1


def test_a_live_source_gives_out_present_times_without_gaps() -> None:
    clock = ManualClock(seconds=2.0)
    slices = []
    for slice_ in live(Rate(500.0), clock, steady):
        assert slice_.end <= clock.now()
        slices.append(slice_)
    for earlier, later in itertools.pairwise(slices):
        assert later.start == earlier.end


def test_without_a_limit_blocks_are_full() -> None:
    slices = live(Rate(None), ManualClock(), steady)
    assert [slice_.count for slice_ in itertools.islice(slices, 3)] == [BLOCK] * 3


def test_a_far_side_that_was_away_is_not_flooded_with_what_it_missed() -> None:
    clock = ManualClock(seconds=1e9)
    slices = live(Rate(100.0), clock, steady)
    next(slices)
    clock.wait(60.0)
    caught_up = sum(slice_.count for slice_ in itertools.takewhile(lambda _: clock.passed < 61, slices))
    assert caught_up <= 100 * (BURST_SECONDS + 2)


def test_a_wall_clock_that_steps_back_gives_no_slice_that_runs_backwards() -> None:
    class SteppingClock(ManualClock):
        def now(self) -> int:
            return super().now() - (3_600_000 if self.passed > 1 else 0)

    for slice_ in live(Rate(100.0), SteppingClock(seconds=3.0), steady):
        assert slice_.start <= slice_.end


def test_the_rate_follows_the_rhythm() -> None:
    def doubled(_instant: int) -> float:
        return 2.0

    count = sum(slice_.count for slice_ in live(Rate(100.0), ManualClock(seconds=10.0), doubled))
    assert count == pytest.approx(2000, rel=0.05)


def test_a_simulated_day_is_the_same_on_any_clock() -> None:
    def day(clock: ManualClock) -> list[Slice]:
        return list(itertools.islice(simulated(Rate(250.0), NOON, Speed(60.0), clock, steady), 40))

    assert day(ManualClock()) == day(ManualClock(per_reading=0.01))


def test_a_simulated_day_has_its_rate_in_event_time() -> None:
    slices = list(itertools.islice(simulated(Rate(500.0), NOON, Speed(None), ManualClock(), steady), 10))
    assert slices[0].start == NOON
    assert slices[-1].end - NOON == 10 * BLOCK / 500 * 1000


@pytest.mark.parametrize(("speed", "seconds"), [(1.0, 3600.0), (3600.0, 1.0), (0.5, 7200.0)])
def test_an_hour_of_event_time_takes_as_long_as_the_speed_says(speed: float, seconds: float) -> None:
    clock = ManualClock()
    wait = waiter(Speed(speed), clock)
    wait(NOON)
    begun = clock.passed
    wait(NOON + 3_600_000)
    assert clock.passed - begun == pytest.approx(seconds, rel=0.01)


def test_without_pacing_nothing_waits() -> None:
    clock = ManualClock()
    wait = waiter(Speed(None), clock)
    wait(NOON)
    wait(NOON + 10**12)
    assert clock.passed == 0


def replayed(*seconds: int) -> Iterator[ReplayedOrder]:
    for number, second in enumerate(seconds):
        yield ReplayedOrder(NOON + second * 1000, f"o-{number}", b"k", b"v", False, 1, 2, 300)


def test_replayed_orders_come_when_they_are_due() -> None:
    clock = ManualClock()
    parcels = replay.parcels(replayed(0, 0, 60, 3600), Speed(60.0), clock)
    arrivals = [(len(parcel.keys), round(clock.passed)) for parcel in parcels]
    assert arrivals == [(2, 0), (1, 1), (1, 60)]


def test_replayed_orders_without_pacing_go_in_large_parcels() -> None:
    parcels = list(replay.parcels(replayed(*range(2500)), Speed(None), ManualClock()))
    assert [len(parcel.keys) for parcel in parcels] == [1000, 1000, 500]


def test_a_replay_that_is_told_to_stop_sends_nothing_more() -> None:
    clock = ManualClock(seconds=30.0)
    sent = sum(len(parcel.keys) for parcel in replay.parcels(replayed(0, 10, 20, 3600), Speed(1.0), clock))
    assert sent == 3


def test_a_shift_to_now_puts_the_first_order_or_the_last_at_the_present(tmp_path: Path) -> None:
    from generator import mapping

    file = tmp_path / "orders.csv"
    file.write_text(
        "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country\n"
        "1,A,a,1,2011-01-10 08:00:00,1.0,,France\n"
        "2,A,a,1,2011-01-10 09:00:00,1.0,,France\n"
        "3,A,a,1,2011-01-10 10:00:00,1.0,,France\n"
    )
    rules = mapping.load("online-retail")

    def times(speed: str, until: int | None = None) -> list[int]:
        shift = replay.distance_to_now(file, rules, Speed.parse(speed), now=NOON, until=until)
        return [order.event_time - NOON for order in replay.orders(file, rules, until=until, shift_ms=shift)]

    hour = 3_600_000
    assert times("1x") == [0, hour, 2 * hour]
    assert times("3600x") == times("max") == [-2 * hour, -hour, 0]
    assert times("max", until=1_294_651_800_000) == [-hour, 0]  # 09:30
