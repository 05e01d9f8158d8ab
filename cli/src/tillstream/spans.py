"""``--from`` and ``--to``: a span of event time, by hours and days as S3 has it in folders, in UTC."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated

import typer

from sales.rules import EARLIEST_EVENT_TIME_MS
from sales.times import format_time
from sales.windows import DAY_MS, HOUR_MS

END_OF_TIME_MS = 253_402_300_799_999
"""The last moment of the year 9999, as far as texts of times reach; no order is as late."""

FEW_DAYS = 31
"""Days that are rather listed than looked up first: requests, half of them at a time."""

From = Annotated[
    str, typer.Option("--from", help="Earliest event time, in UTC: 2026-11-20 or 2026-11-20T08:00.", metavar="TIME")
]
To = Annotated[
    str, typer.Option("--to", help="The event time to end before, as --from. Both are open by default.", metavar="TIME")
]

_DAY = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)


@dataclass(frozen=True, slots=True)
class Span:
    """Event times in ``[start, end)``, ms since 1970."""

    start: int = EARLIEST_EVENT_TIME_MS
    end: int = END_OF_TIME_MS

    @classmethod
    def of(cls, since: str, until: str) -> "Span":
        """From the two options; empty: open.

        Raises:
            typer.BadParameter: one is no time, or there is nothing between them.
        """
        start = _moment("--from", since) if since else EARLIEST_EVENT_TIME_MS
        end = _moment("--to", until) if until else END_OF_TIME_MS
        if start >= end:
            raise typer.BadParameter(f"there is nothing from {format_time(start)} to before {format_time(end)}")
        return cls(start, end)

    @property
    def texts(self) -> dict[str, str]:
        """``first_day`` and ``last_day`` (dates), ``since`` and ``until`` (times, without zone), for SQL."""
        return {
            "first_day": format_time(self.start)[:10],
            "last_day": format_time(self.end - 1)[:10],
            "since": format_time(self.start)[:-1].replace("T", " "),
            "until": format_time(self.end)[:-1].replace("T", " "),
        }

    @property
    def days(self) -> list[str]:
        """Its days, if they are few enough to look for each; else none."""
        first, last = self.start // DAY_MS, (self.end - 1) // DAY_MS
        return [format_time(day * DAY_MS)[:10] for day in range(first, last + 1)] if last - first < FEW_DAYS else []

    def touches_day(self, day: str) -> bool:
        """Is something of this day (``2026-11-20``) inside?"""
        return _DAY.fullmatch(day) is not None and self._touches(_moment("dt", day), DAY_MS)

    def touches_hour(self, day: str, hour: int) -> bool:
        """Is something of an hour of a day inside?"""
        return _DAY.fullmatch(day) is not None and self._touches(_moment("dt", day) + hour * HOUR_MS, HOUR_MS)

    def _touches(self, start: int, length: int) -> bool:
        return start < self.end and start + length > self.start


def _moment(name: str, text: str) -> int:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(f"{name}: {text!r} is no time; allowed: 2026-11-20, 2026-11-20T08:00") from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return int(moment.timestamp() * 1000)
