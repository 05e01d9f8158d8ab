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


_FIXED_LAYOUT = len("2026-11-20T08:12:33.123Z")


def parse_times(texts: Sequence[str]) -> npt.NDArray[np.int64]:
    """``parse_time`` of each; the common layout ``YYYY-MM-DDTHH:MM:SS.mmmZ`` goes through numpy in one piece."""
    joined = "".join(texts)
    if set(map(len, texts)) == {_FIXED_LAYOUT} and joined.isascii():
        cells = np.frombuffer(joined.encode(), dtype=np.uint8).reshape(-1, _FIXED_LAYOUT)
        if _is_fixed_layout(cells):
            try:
                trimmed = np.ascontiguousarray(cells[:, :-1]).view(f"S{_FIXED_LAYOUT - 1}").ravel()
                return trimmed.astype("datetime64[ms]").astype(np.int64)
            except ValueError:  # a 31 February among them: find it one by one
                pass
    return np.fromiter((parse_time(text) for text in texts), dtype=np.int64, count=len(texts))


_SEPARATORS = ((4, "-"), (7, "-"), (10, "T"), (13, ":"), (16, ":"), (19, "."), (23, "Z"))
_DIGITS = [i for i in range(_FIXED_LAYOUT) if i not in {place for place, _ in _SEPARATORS}]


def _is_fixed_layout(cells: npt.NDArray[np.uint8]) -> bool:
    if any((cells[:, place] != ord(mark)).any() for place, mark in _SEPARATORS):
        return False
    if (cells[:, 0] == ord("0")).any():  # numpy knows a year 0
        return False
    digits = cells[:, _DIGITS]
    return bool(((digits >= ord("0")) & (digits <= ord("9"))).all())
