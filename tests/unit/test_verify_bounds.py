"""Where windows lie, by the contract; and the processor puts them at the same place, whatever the windows."""

import hypothesis.strategies as st
import pytest
from hypothesis import given

from sales.times import parse_time
from sales.windows import parse_windows
from tillstream.bounds import bounds

DEFAULT = ("1m", "5m", "15m", "1h", "24h")


@pytest.mark.parametrize(
    ("name", "start", "end"),
    [
        ("1m", "2026-11-20T07:51:34Z", "2026-11-20T07:52:34Z"),
        ("5m", "2026-11-20T07:47:35Z", "2026-11-20T07:52:35Z"),
        ("15m", "2026-11-20T07:37:45Z", "2026-11-20T07:52:45Z"),
        ("1h", "2026-11-20T06:53:00Z", "2026-11-20T07:53:00Z"),
        ("24h", "2026-11-19T08:00:00Z", "2026-11-20T08:00:00Z"),
    ],
)
def test_the_default_windows_lie_as_the_contract_says(name: str, start: str, end: str) -> None:
    as_of = parse_time("2026-11-20T07:52:33.123Z")
    assert bounds(as_of, DEFAULT)[name] == (parse_time(start), parse_time(end))


def test_as_of_at_the_edge_of_a_pane_belongs_to_the_next() -> None:
    as_of = parse_time("2026-11-20T07:52:35Z")
    assert bounds(as_of, ["5m"])["5m"][1] == parse_time("2026-11-20T07:52:40Z")


def test_a_window_just_longer_than_another_has_the_pane_that_its_neighbour_leaves_it() -> None:
    as_of = parse_time("2026-11-20T07:52:33.123Z")
    assert bounds(as_of, ["1h", "3601s"])["1h"][1] == parse_time("2026-11-20T07:52:34Z")


SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
NAMES = st.builds(lambda number, unit: f"{number}{unit}", st.integers(1, 400), st.sampled_from("smhd"))


@given(
    st.lists(NAMES, min_size=1, max_size=6, unique_by=lambda name: int(name[:-1]) * SECONDS[name[-1]]),
    st.integers(10**12, 2 * 10**12),
)
def test_the_processor_goes_by_the_same_bounds(names: list[str], as_of: int) -> None:
    windows = parse_windows(" ".join(names))
    assert bounds(as_of, names) == {window.name: window.bounds(as_of) for window in windows}
