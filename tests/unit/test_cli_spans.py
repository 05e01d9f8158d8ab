"""``--from`` and ``--to`` choose whole hours and days of folders, and no more of them than they touch.

::

    folder   hour=07          hour=08          hour=09
             |----------------|----------------|----------------|
    span            [------------------------------)
                  07:30                         09:00
"""

import pytest
import typer

from tillstream.spans import Span

HALF_PAST_SEVEN_TO_NINE = Span.of("2026-11-20T07:30", "2026-11-20T09:00")


@pytest.mark.parametrize(("hour", "touched"), [(6, False), (7, True), (8, True), (9, False)])
def test_an_hour_is_read_when_a_moment_of_it_is_inside(hour: int, touched: bool) -> None:
    assert HALF_PAST_SEVEN_TO_NINE.touches_hour("2026-11-20", hour) is touched


@pytest.mark.parametrize(
    ("day", "touched"), [("2026-11-19", False), ("2026-11-20", True), ("2026-11-21", False), ("of-somebody", False)]
)
def test_a_day_is_listed_when_a_moment_of_it_is_inside(day: str, touched: bool) -> None:
    assert HALF_PAST_SEVEN_TO_NINE.touches_day(day) is touched


def test_a_whole_day_does_not_touch_the_next() -> None:
    day = Span.of("2026-11-20", "2026-11-21")
    assert day.texts == {
        "first_day": "2026-11-20",
        "last_day": "2026-11-20",
        "since": "2026-11-20 00:00:00.000",
        "until": "2026-11-21 00:00:00.000",
    }
    assert not day.touches_day("2026-11-21")


def test_without_options_it_is_all_that_can_be_stored() -> None:
    always = Span.of("", "")
    assert always == Span()
    assert always.touches_day("2000-01-01")
    assert always.touches_day("2999-12-31")


def test_an_offset_is_taken_into_account() -> None:
    assert Span.of("2026-11-20T08:30+01:00", "2026-11-20T10:00+01:00") == HALF_PAST_SEVEN_TO_NINE


@pytest.mark.parametrize(("since", "until"), [("soon", ""), ("", "2026-13-01"), ("2026-11-20", "2026-11-19")])
def test_what_is_no_span_is_refused(since: str, until: str) -> None:
    with pytest.raises(typer.BadParameter):
        Span.of(since, until)
