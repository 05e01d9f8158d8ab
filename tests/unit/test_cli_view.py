"""What is shown of the live numbers: it fits, and says what is on the board."""

import io
from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console

from sales.board import GROUPS, MEASURES, LiveNumbers, WindowNumbers
from sales.times import format_time, parse_time
from tillstream.live import _chosen
from tillstream.view import ASCII, Frame, Rate, line, nothing_yet, render

WINDOWS = ("1m", "5m", "15m", "1h", "24h")
NOW = parse_time("2026-11-20T08:12:33.123Z")


def some_numbers(**status: str) -> LiveNumbers:
    products = [(f"P{number:04}", 900_000 - number) for number in range(100)]
    places = {f"[/b]Place [{number}]": 5_000_000_000 // (number + 1) for number in range(20)}
    window = WindowNumbers(
        products={"revenue": products, "units": [(product, value // 100) for product, value in products]},
        groups={group: dict.fromkeys(MEASURES, places) for group in GROUPS},
        aov={
            "orders": "24690",
            "revenue_minor": "240913578",
            "aov_minor": "4123",
            "units": "91356",
            "returns": "460",
            "refunded_minor": "4691356",
            "currency": "USD",
            "window_start": "2026-11-20T08:11:34.000Z",
        },
    )
    given = {"as_of": format_time(NOW), "published_at": format_time(NOW), "accepted": "1234567", "lag": "7"}
    return LiveNumbers(
        status=given | {"dead_letters": "99", "duplicates": "5"} | status,
        positions={},
        names={product: f"A product [/x] with quite a long name, {product}" for product, _ in products},
        windows=dict.fromkeys(WINDOWS, window),
        trends={},
    )


def a_frame(**difference: Any) -> Frame:
    frame = Frame(some_numbers(), "5m", Rate(), NOW + 100, ("redis-cli -p 40123 ZREVRANGE a 0 9", "second", "third"))
    return replace(frame, **difference)


def drawn(frame: Frame, width: int, height: int) -> list[str]:
    console = Console(width=width, height=height, file=io.StringIO(), force_terminal=False)
    return ["".join(part.text for part in parts) for parts in console.render_lines(render(frame, width, height))]


@pytest.mark.parametrize(("width", "height"), [(80, 24), (100, 30), (120, 40), (200, 60), (80, 20)])
def test_a_frame_fills_its_terminal_and_no_more(width: int, height: int) -> None:
    lines = drawn(a_frame(), width, height)
    assert len(lines) == height
    assert max(map(len, lines)) <= width


@pytest.mark.parametrize(("width", "height"), [(80, 24), (120, 40)])
def test_a_frame_says_the_numbers(width: int, height: int) -> None:
    text = "\n".join(drawn(a_frame(), width, height))
    for part in (
        "24,690",
        "2,409,135.78",
        "41.23",
        "0.1 s old",
        "A product [/x]",
        "[/b]Place [1]",
        "regions",
        "categories",
        "redis-cli",
    ):
        assert part in text


def test_without_utf_8_a_frame_is_ascii() -> None:
    rate = Rate()
    for second in range(9):
        rate.add(some_numbers(published_at=format_time(NOW + second * 1000), accepted=str(second**3)))
    frame = a_frame(numbers=some_numbers(published_at=format_time(NOW + 8000)), rate=rate, glyphs=ASCII)
    file = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    Console(width=200, height=60, file=file, force_terminal=False).print(render(frame, 200, 60))  # or this raises


def test_conflicts_are_counted_among_the_dead_letters() -> None:
    frame = a_frame(numbers=some_numbers(**{"dead_letters:conflict": "12"}))
    assert "dead letters 99  conflicts 12" in "\n".join(drawn(frame, 120, 40))


def test_before_the_first_tick_a_frame_says_so() -> None:
    lines = drawn(a_frame(numbers=nothing_yet(WINDOWS)), 80, 24)
    assert len(lines) == 24
    assert "no numbers yet" in lines[1]


def test_a_redis_that_is_away_is_named_beside_the_last_numbers() -> None:
    text = "\n".join(drawn(a_frame(away="Redis at 127.0.0.1:1 does not answer"), 80, 24))
    assert "Redis at 127.0.0.1:1 does not answer" in text
    assert "24,690" in text


def test_a_line_says_the_most_important_of_it() -> None:
    assert line(a_frame()) == (
        "08:12:33 5m: 24,690 orders, revenue 2,409,135.78 USD, AOV 41.23; 0 events/s, 0.1 s old, lag 7; "
        "accepted 1,234,567, dead letters 99; best A product [/x] with quite a long name, P0000"
    )


def test_the_rate_is_what_was_accepted_between_ticks() -> None:
    rate = Rate()
    for second, accepted in ((0, 1000), (1, 1500), (1, 1500), (2, 2000)):
        rate.add(some_numbers(published_at=format_time(NOW + second * 1000), accepted=str(accepted)))
    assert rate.per_second == 500


def test_the_rate_falls_to_nothing_when_nothing_comes() -> None:
    rate = Rate()
    for second in range(10):
        rate.add(some_numbers(published_at=format_time(NOW + second * 1000), accepted=str(min(second, 2) * 500)))
    assert rate.per_second == 0


@pytest.mark.parametrize(
    ("key", "window"),
    [("1", "1m"), ("5", "24h"), ("9", "5m"), ("0", "5m"), ("right", "15m"), ("left", "1m"), ("x", "5m"), (None, "5m")],
)
def test_keys_choose_a_window(key: str | None, window: str) -> None:
    assert _chosen(WINDOWS, "5m", key) == window
