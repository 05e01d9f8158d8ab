"""Panes and windows as arithmetic on time."""

from itertools import pairwise

import hypothesis.strategies as st
import pytest
from hypothesis import given

from sales.windows import DAY_MS, HOUR_MS, MINUTE_MS, PANE_LADDER_MS, SECOND_MS, parse_windows


def test_the_default_windows_have_the_panes_of_the_contract() -> None:
    assert [(window.name, window.length_ms, window.pane_ms) for window in parse_windows("1m 5m 15m 1h 24h")] == [
        ("1m", MINUTE_MS, SECOND_MS),
        ("5m", 5 * MINUTE_MS, 5 * SECOND_MS),
        ("15m", 15 * MINUTE_MS, 15 * SECOND_MS),
        ("1h", HOUR_MS, MINUTE_MS),
        ("24h", DAY_MS, 15 * MINUTE_MS),
    ]


def test_a_window_ends_with_the_pane_that_holds_as_of() -> None:
    # panes of 5 s:   |----|----| ... |----|
    #                 start        as_of ^ end
    (window,) = parse_windows("5m")
    assert window.bounds(1_000_000) == (1_005_000 - 300_000, 1_005_000)
    assert window.bounds(1_004_999) == (1_005_000 - 300_000, 1_005_000)
    assert window.bounds(1_005_000) == (1_010_000 - 300_000, 1_010_000)


@pytest.mark.parametrize("names", ["", "1", "m", "0m", "-1h", "1.5h", "1w", "1m 1m", "60s 1m"])
def test_what_is_no_window_is_refused_in_words(names: str) -> None:
    with pytest.raises(ValueError, match="window"):
        parse_windows(names)


LENGTHS = st.builds(lambda number, unit: f"{number}{unit}", st.integers(1, 400), st.sampled_from("smhd"))


SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


@given(st.lists(LENGTHS, min_size=1, max_size=6, unique_by=lambda name: int(name[:-1]) * SECONDS[name[-1]]))
def test_panes_nest_whatever_the_windows(names: list[str]) -> None:
    windows = parse_windows(" ".join(names))
    assert list(windows) == sorted(windows)
    for window in windows:
        assert window.pane_ms in PANE_LADDER_MS
        assert window.length_ms % window.pane_ms == 0
        assert window.length_ms >= 60 * window.pane_ms or window.pane_ms == SECOND_MS
    for shorter, longer in pairwise(windows):
        assert longer.pane_ms % shorter.pane_ms == 0
        assert longer.length_ms - shorter.length_ms >= longer.pane_ms
