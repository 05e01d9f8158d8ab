"""A clock on the wall that somebody sets."""

import pytest

from processor.clock import WallClock


class Clocks:
    """Two clocks that a test moves."""

    def __init__(self) -> None:
        self.wall, self.steady = 1_795_176_000.0, 7.0

    def pass_(self, wall: float, steady: float) -> None:
        self.wall += wall
        self.steady += steady


@pytest.fixture
def clocks() -> Clocks:
    return Clocks()


@pytest.fixture
def watched(clocks: Clocks) -> WallClock:
    return WallClock(lambda: clocks.wall, lambda: clocks.steady)


def test_an_hour_back_is_noticed_once(clocks: Clocks, watched: WallClock) -> None:
    clocks.pass_(wall=-3599, steady=1)
    assert watched.set_back() == pytest.approx(3600)
    clocks.pass_(wall=1, steady=1)
    assert watched.set_back() == pytest.approx(0)


def test_an_hour_ahead_is_no_step_back_and_the_way_back_is_one(clocks: Clocks, watched: WallClock) -> None:
    clocks.pass_(wall=3601, steady=1)
    assert watched.set_back() == 0
    clocks.pass_(wall=-3599, steady=1)
    assert watched.set_back() == pytest.approx(3600)


def test_a_clock_that_is_slowed_down_is_never_a_large_step(clocks: Clocks, watched: WallClock) -> None:
    for _ in range(100):
        clocks.pass_(wall=0.9995, steady=1)
        assert watched.set_back() < 0.001


def test_a_process_that_was_stopped_for_an_hour_has_met_no_step(clocks: Clocks, watched: WallClock) -> None:
    clocks.pass_(wall=3600, steady=3600)
    assert watched.set_back() == 0
