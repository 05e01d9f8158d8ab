"""Times as text and as integers."""

from datetime import UTC, datetime

import hypothesis.strategies as st
import pytest
from hypothesis import given

from sales.times import INVALID_TIME, format_time, format_times, parse_time, parse_times

INSTANTS = st.datetimes(datetime(1970, 1, 1), datetime(2100, 1, 1))  # noqa: DTZ001 (hypothesis adds the zone)


@given(INSTANTS, st.integers(-23, 23), st.sampled_from([0, 30, 45]))
def test_any_offset_gives_the_same_instant(moment: datetime, hours: int, minutes: int) -> None:
    utc = moment.replace(tzinfo=UTC)
    sign = "-" if hours < 0 else "+"
    ms = int((utc - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds()) * 1000 + moment.microsecond // 1000
    local = f"{moment.isoformat(timespec='microseconds')}{sign}{abs(hours):02d}:{minutes:02d}"
    shift = (abs(hours) * 60 + minutes) * 60_000 * (-1 if hours < 0 else 1)
    assert parse_time(local) == ms - shift


@given(st.lists(INSTANTS, max_size=5))
def test_many_at_once_are_the_same_as_one_by_one(moments: list[datetime]) -> None:
    texts = [moment.isoformat(timespec="milliseconds") + "Z" for moment in moments]
    assert parse_times(texts).tolist() == [parse_time(text) for text in texts]
    assert [format_time(ms) for ms in parse_times(texts).tolist()] == texts
    assert format_times(parse_times(texts)) == texts


def test_one_odd_text_among_fixed_ones_is_found() -> None:
    good = "2026-11-20T08:12:33.123Z"
    for odd in ("2026-02-30T08:12:33.123Z", "2026-11-20T25:12:33.123Z", "2026-11-20T08:12:33.12/Z", "x" * 24):
        assert parse_times([good, odd, good]).tolist() == [parse_time(good), INVALID_TIME, parse_time(good)]


def test_a_date_that_is_none_among_many_is_found() -> None:
    good, none = "2026-11-20T08:12:33.123Z", "2026-02-30T08:12:33.123Z"
    assert parse_times([good] * 2000 + [none]).tolist() == [parse_time(good)] * 2000 + [INVALID_TIME]


PIECES = ["2026-11-20", "2026-02-30", "0000-01-01", "T", "t", " ", "08:12:33", "24:00:00", "08:12:60", ".123", ".1",
          ".", "Z", "z", "+00:00", "-23:59", "\n", "\0", "\u0662"]  # fmt: skip


@given(
    st.lists(
        st.sampled_from(["2026-11-20T08:12:33.123Z", "2026-11-20T08:12:33.123", "Z2026-11-20T08:12:33.123Z"])
        | st.sampled_from(["0000-01-01T08:12:33.123Z", "0001-01-01T08:12:33.123Z", "2026-02-30T08:12:33.123Z"])
        | st.lists(st.sampled_from(PIECES), max_size=8).map("".join)
        | st.text(max_size=25),
        max_size=4,
    )
)
def test_whether_a_text_is_a_time_does_not_depend_on_its_neighbours(texts: list[str]) -> None:
    assert parse_times(texts).tolist() == [parse_time(text) for text in texts]


@pytest.mark.parametrize(
    "text",
    ["", "2026-11-20", "2026-11-20T08:12:33", "2026-11-20T08:12Z", "2026-11-20T08:12:60Z", "20261120T081233Z",
     "2026-11-20T08:12:33,5Z", "2026-11-20T08:12:33+1:00", "2026-11-20T08:12:33+24:00", "\uff12026-11-20T08:12:33Z",
     "2026-11-20T08:12:33Z\n", "2026-11-20T08:12:33.123Z\n"],
)  # fmt: skip
def test_these_are_no_times(text: str) -> None:
    assert parse_time(text) == INVALID_TIME


def test_digits_beyond_milliseconds_are_dropped() -> None:
    assert parse_time("1970-01-01T00:00:00.0019999Z") == 1
    assert parse_time("1970-01-01t00:00:00.5z") == 500
