"""Ticks come as often as other work leaves time for them."""

import pytest

from processor.ticking import LEAST_SECONDS, SHARE, seconds_to_next


def test_an_idle_processor_gives_ticks_their_share_of_its_time() -> None:
    assert seconds_to_next(longest=0.1, tick=0.008, other=0.0) == pytest.approx(0.008 / SHARE)


def test_the_busier_it_is_the_rarer_ticks_are() -> None:
    waits = [seconds_to_next(longest=10.0, tick=0.01, other=other) for other in (0.0, 0.3, 0.6, 0.9)]
    assert waits == sorted(waits)
    assert waits[3] == pytest.approx(10 * waits[0])


@pytest.mark.parametrize(("tick", "other"), [(0.005, 1.0), (0.005, 0.9), (0.04, 0.0), (50.0, 0.0)])
def test_none_waits_longer_than_the_longest_time(tick: float, other: float) -> None:
    assert seconds_to_next(longest=0.1, tick=tick, other=other) == 0.1


def test_they_are_never_closer_than_somebody_can_look() -> None:
    assert seconds_to_next(longest=0.1, tick=0.0001, other=0.0) == LEAST_SECONDS
