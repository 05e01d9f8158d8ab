"""Times as text (RFC 3339) and as integers (ms since 1970-01-01T00:00:00Z). Pure."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import numpy as np
import numpy.typing as npt

INVALID_TIME = -(2**63)
"""What a text that is no time becomes; earlier than any time that is accepted."""

_EPOCH = datetime.fromisoformat("1970-01-01T00:00:00+00:00")
_RFC3339 = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d)(?:\.(\d+))?(?:[Zz]|([+-])([01]\d|2[0-3]):([0-5]\d))\Z", re.ASCII
)


def parse_time(text: str) -> int:
    """RFC 3339 with an offset to ms since 1970; digits beyond milliseconds are dropped. INVALID_TIME if it is none."""
    match = _RFC3339.match(text)
    if match is None:
        return INVALID_TIME
    date, clock, fraction, sign, hours, minutes = match.groups()
    try:
        seconds = int((datetime.fromisoformat(f"{date}T{clock}+00:00") - _EPOCH).total_seconds())
    except ValueError:
        return INVALID_TIME
    if sign is not None:
        offset = int(hours) * 3600 + int(minutes) * 60
        seconds += -offset if sign == "+" else offset
    return seconds * 1000 + (int(fraction[:3].ljust(3, "0")) if fraction else 0)


def format_time(ms: int) -> str:
    """``2026-11-20T08:12:33.123Z``."""
    return (_EPOCH + timedelta(milliseconds=ms)).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.") + f"{ms % 1000:03d}Z"


def format_times(times: npt.NDArray[np.int64]) -> list[str]:
    """``format_time`` of each, worked out in one piece."""
    texts: list[str] = np.datetime_as_string(times.view("datetime64[ms]"), timezone="UTC").tolist()
    return texts


_FIXED_LAYOUT = len("2026-11-20T08:12:33.123Z")


def parse_times(texts: Sequence[str]) -> npt.NDArray[np.int64]:
    """``parse_time`` of each; the common layout ``YYYY-MM-DDTHH:MM:SS.mmmZ`` is worked out in one piece."""
    joined = "".join(texts)
    if set(map(len, texts)) == {_FIXED_LAYOUT} and joined.isascii():
        cells = np.frombuffer(joined.encode(), dtype=np.uint8).reshape(-1, _FIXED_LAYOUT)
        times = _fixed_layout(cells)
        if times is not None:
            return times
    return np.fromiter((parse_time(text) for text in texts), dtype=np.int64, count=len(texts))


_SEPARATORS = ((4, "-"), (7, "-"), (10, "T"), (13, ":"), (16, ":"), (19, "."), (23, "Z"))
_DIGITS = [i for i in range(_FIXED_LAYOUT) if i not in {place for place, _ in _SEPARATORS}]


def _fixed_layout(cells: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64] | None:
    """The times, one a row of characters; None if one of them is no time of this layout.

    No use of numpy's own parser: on a 31 February among more than 500 texts it ends the process (numpy 2.4: it raises
    its ValueError without holding the interpreter's lock).
    """
    if any((cells[:, place] != ord(mark)).any() for place, mark in _SEPARATORS):
        return None
    digits = cells[:, _DIGITS].T.astype(np.int64) - ord("0")
    year, month, day, hour, minute, second, ms = map(_number, np.split(digits, (4, 6, 8, 10, 12, 14)))
    months = ((year - 1970) * 12 + month - 1).astype("datetime64[M]")
    dates = months.astype("datetime64[D]") + (day - 1)
    good = (digits >= 0) & (digits <= 9)
    good &= (year >= 1) & (month >= 1) & (month <= 12) & (dates.astype("datetime64[M]") == months)
    good &= (hour < 24) & (minute < 60) & (second < 60)
    if not good.all():
        return None
    return dates.astype("datetime64[ms]").astype(np.int64) + ((hour * 60 + minute) * 60 + second) * 1000 + ms


def _number(digits: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """What a column of digits, the highest first, says."""
    number: npt.NDArray[np.int64] = digits[0]
    for lower in digits[1:]:
        number = number * 10 + lower
    return number
