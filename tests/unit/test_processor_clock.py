"""A clock on the wall that somebody sets."""

import pytest

from processor.clock import JUDGED_AFTER_SECONDS, ClockWatch


class Machine:
    """Two clocks that a test moves, and an engine that it puts to sleep."""

    def __init__(self) -> None:
        self.wall, self.steady = 1_795_176_000.0, 7.0
        self.turned = self.steady
        self.sleeps = False

    def pass_(self, wall: float, steady: float) -> None:
        self.wall += wall
        self.steady += steady
        if not self.sleeps:
            self.turned = self.steady

    def still(self) -> float:
        return self.steady - self.turned


@pytest.fixture
def machine() -> Machine:
    return Machine()


@pytest.fixture
def watch(machine: Machine) -> ClockWatch:
    return ClockWatch(machine.still, lambda: machine.wall, lambda: machine.steady)


def seconds(machine: Machine, watch: ClockWatch, count: int) -> list[str]:
    """What the watch says while so many ordinary seconds pass."""
    said = []
    for _ in range(count):
        machine.pass_(wall=1, steady=1)
        said.append(watch.look())
    return [line for line in said if line is not None]


def test_an_hour_back_ends_the_process(machine: Machine, watch: ClockWatch) -> None:
    machine.pass_(wall=-3599, steady=1)
    assert watch.look() == "back by 3600 s, and the engine would wait until it is there again"


def test_a_few_seconds_back_are_borne(machine: Machine, watch: ClockWatch) -> None:
    machine.pass_(wall=-3, steady=1)
    assert watch.look() is None
    assert seconds(machine, watch, 60) == []


def test_an_hour_ahead_is_borne_by_an_engine_that_goes_on(machine: Machine, watch: ClockWatch) -> None:
    machine.pass_(wall=3601, steady=1)
    assert watch.look() is None
    assert seconds(machine, watch, 60) == []


def test_an_engine_that_sleeps_since_the_clock_went_ahead_ends_the_process(machine: Machine, watch: ClockWatch) -> None:
    machine.sleeps = True
    machine.pass_(wall=3601, steady=1)
    assert watch.look() is None
    assert seconds(machine, watch, round(JUDGED_AFTER_SECONDS)) == []
    assert seconds(machine, watch, 1) == [
        "ahead by 3600 s while the engine looked at it, and it would sleep for as long"
    ]


def test_an_engine_that_took_one_more_turn_and_sleeps_since_then_ends_the_process(
    machine: Machine, watch: ClockWatch
) -> None:
    machine.pass_(wall=3601, steady=1)
    assert watch.look() is None
    machine.pass_(wall=0.5, steady=0.5)
    machine.sleeps = True
    assert len(seconds(machine, watch, round(JUDGED_AFTER_SECONDS) + 1)) == 1


def test_an_engine_that_sleeps_for_another_reason_is_not_this_ones_affair(machine: Machine, watch: ClockWatch) -> None:
    machine.sleeps = True
    assert seconds(machine, watch, 600) == []


def test_the_way_back_from_an_hour_ahead_is_an_hour_back(machine: Machine, watch: ClockWatch) -> None:
    machine.pass_(wall=3601, steady=1)
    assert watch.look() is None
    machine.pass_(wall=-3599, steady=1)
    assert (watch.look() or "").startswith("back by 3600 s")


def test_a_clock_that_is_slowed_down_is_never_a_large_step(machine: Machine, watch: ClockWatch) -> None:
    for _ in range(20_000):
        machine.pass_(wall=0.9995, steady=1)
        assert watch.look() is None


def test_a_process_that_was_stopped_for_an_hour_has_met_no_step(machine: Machine, watch: ClockWatch) -> None:
    machine.pass_(wall=3600, steady=3600)
    assert watch.look() is None
    assert seconds(machine, watch, 60) == []
