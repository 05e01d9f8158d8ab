"""What DynamoDB answers and what the rollups say, against what is stored: every item of ``SalesData`` and of its index,
every closed minute in S3 and in ``SalesTrends``.

All of it is written by lanes of the sink that have positions of their own and read on while we look. So a difference
counts only if it is still there when everything is read again, up to the deadline; and what a lane has not come to yet
is told apart, and is no difference.
"""

import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any, TypeVar

from botocore.exceptions import ClientError

from sales import aws_faults
from sales.money import exponent
from sales.times import format_time, parse_time
from sink.tables import CATEGORY_INDEX
from tillstream.compare import Check, Difference
from tillstream.database import Database, Row
from tillstream.reading import Say
from tillstream.recompute import Facts, Fault
from tillstream.stored import Extents, Store, StoredError

PAUSE_SECONDS = 2.0
"""Between two readings at least; a reading that took longer is followed by as long a pause."""

ROUND_SECONDS = 40.0
"""The index lane writes a round of items side by side, and tries what failed again for at most half a minute: after
this long all that lies before an item that was met is there, or missing."""

THROTTLED_SECONDS = 5.0
THROTTLED_TRIES = 120
"""A page of 1 MB takes 128 read units: with 5 a second there is one every 26 seconds."""

_INTEGER = re.compile(r"-?[0-9]{1,18}")

T = TypeVar("T")

_TEXTS = (
    "type event_time order_date customer_id country region currency original_order_id product_id product_name category"
).split()


@dataclass(frozen=True, slots=True)
class Due:
    """Which minutes must be there; all in ms since 1970."""

    since: int
    """where the longest window began, in event time"""
    settled: int
    """``as_of``, or what it was when rollups had time to arrive, where it follows the clock on the wall"""
    settled_by: int
    """in broker time: what came later may be on its way"""


@dataclass(frozen=True, slots=True)
class Lookups:
    """Compares with what one database holds of a tick.

    Every call blocks for as long as it reads, and raises ``botocore.exceptions.BotoCoreError`` or ``ClientError`` when
    DynamoDB or S3 stays away or refuses, ``duckdb.Error`` when a value can't be added up or this machine lacks memory.
    """

    database: Database
    """with `Facts.apply` done"""
    dynamodb: Any | None
    """boto3's client; None: what is in DynamoDB is not looked at"""
    currency: str
    """of all amounts"""
    deadline: float
    """until when, by ``time.monotonic()``, what differs is read again"""
    say: Say
    """hears what goes on"""

    def items(self, table: str) -> list[Check]:
        """Every item of ``SalesData``, in the table and in its index, against the orders up to the tick.

        What is missing can be judged only by how far the lane was before it was looked for: so where something is, all
        is read once more after the deadline, ROUND_SECONDS later.
        """
        self.database.run("due_items")
        self.database.run("lookup_tables")
        self.database.run("items_reached")
        differences, states = self._settle(
            lambda: self._read_items(table),
            lambda answer: not answer[0] and not any(state == "to come" for _, state in answer[1]),
            f"{table} to be as what is stored",
            once_more=ROUND_SECONDS,
        )
        places = {"table": table, "index": f"{table}/{CATEGORY_INDEX}"}
        checks = {
            source: Check(
                "",
                f"items of {place}",
                compared=states.get((source, "compared"), 0),
                to_come=states.get((source, "to come"), 0),
            )
            for source, place in places.items()
        }
        for source, order_id, name, expected, found in differences:
            checks[source].differences.append(Difference(places[source], f"order {order_id} {name}", expected, found))
        return list(checks.values())

    def minutes(self, facts: Facts, archive: Store, table: str, due: Due) -> tuple[list[Check], list[Fault]]:
        """Every closed minute, in S3 and in ``SalesTrends``, against the orders up to the tick.

        Args:
            facts: load the rollups of S3.
            archive: where those are.
            table: the name of ``SalesTrends``.
            due: which of them must be there.

        Returns:
            The checks, and what is wrong with objects that could not be loaded.

        Raises:
            StoredError: a marker in S3 contradicts itself.
        """
        partitions: dict[str, Extents] = {}
        unread: list[Fault] = []
        places = {"rollups": "rollups"} | ({} if self.dynamodb is None else {"trends": table})
        parameters = {"sources": list(places), "since": due.since, "settled": due.settled, "by": due.settled_by}
        self.database.run("rollup_tables")

        def read() -> list[Row]:
            for path in archive.partitions("rollups"):
                archive.extend(partitions.setdefault(path, Extents.of(path)))
            unread.extend(facts.load_rollups(archive, partitions.values(), lambda _done, _of: None))
            self.database.run("forget_trends")
            for page in self._pages(table):
                self.database.fill("rollups", [_minute(item, exponent(self.currency)) for item in page])
            return self.database.run("rollup_differences", parameters)

        rows = self._settle(
            read,
            lambda rows: all(expected == found for *_, expected, found in rows),
            "the rollups to be as what is stored",
        )
        checks = {source: Check("", f"closed minutes of {place}") for source, place in places.items()}
        for source, scope, minute, name, expected, found in rows:
            checks[source].equal(places[source], f"{format_time(minute)} {scope} {name}", expected, found)
        return list(checks.values()), unread

    def _read_items(self, table: str) -> tuple[list[Row], dict[tuple[str, str], int]]:
        """What differs, and how many pairs are in which state, by source."""
        self.database.run("lookup_tables")
        for source, scanned in (("table", {}), ("index", {"IndexName": CATEGORY_INDEX})):
            count = 0
            for page in self._pages(table, **scanned):
                self.database.fill("items", [_item(source, item, exponent(self.currency)) for item in page])
                count += len(page)
                self.say(f"reading {table} ({source}): {count:,} items")
        self.database.run("item_pairs")
        self.database.run("items_reached")
        states = {(source, state): count for source, state, count in self.database.run("item_states")}
        return self.database.run("item_differences"), states

    def _settle(self, read: Callable[[], T], good: Callable[[T], bool], what: str, once_more: float | None = None) -> T:
        """What is read, again and again until it is good or the deadline has come; then, perhaps, once more after so
        many seconds."""
        while True:
            began = time.monotonic()
            answer = read()
            ended = time.monotonic()
            if good(answer):
                return answer
            if ended >= self.deadline:
                break
            self.say(f"waiting for {what}")
            time.sleep(max(0.0, min(max(PAUSE_SECONDS, ended - began), self.deadline - ended)))
        if once_more is None:
            return answer
        self.say(f"waiting for {what}, for {once_more:.0f} s more")
        time.sleep(once_more)
        return read()

    def _pages(self, table: str, **scanned: str) -> Iterator[list[Mapping[str, Any]]]:
        """All items, at most 1 MB at one time; what is throttled is asked for again."""
        start: dict[str, Any] = {}
        tries = 0
        while self.dynamodb is not None:
            try:
                answer = self.dynamodb.scan(TableName=table, **scanned, **start)
            except ClientError as error:
                tries += 1
                if not aws_faults.throttled(error) or tries == THROTTLED_TRIES:
                    raise
                time.sleep(THROTTLED_SECONDS)
                continue
            tries = 0
            yield answer["Items"]
            if "LastEvaluatedKey" not in answer:
                return
            start = {"ExclusiveStartKey": answer["LastEvaluatedKey"]}


def _item(source: str, item: Mapping[str, Any], digits: int) -> Row:
    """A row of ``items``."""

    def minor(name: str) -> str | None:
        return _shifted(_value(item, name), digits)

    lines: str | None
    if _value(item, "lines_omitted"):
        lines = "omitted"
    else:
        lines = "\n".join(_line(line.get("M", {}), digits) for line in item.get("lines", {}).get("L", ()))
    return (
        source,
        _value(item, "order_id"),
        *(_value(item, name) for name in _TEXTS),
        minor("sales"),
        _shifted(_value(item, "discount"), 2),
        minor("net"),
        minor("profit"),
        *(_value(item, name) for name in ("stream", "partition", "position")),
        lines,
    )


def _line(line: Mapping[str, Any], digits: int) -> str:
    """A line as the SQL writes it."""

    def minor(name: str, absent: str = "absent") -> str:
        return _shifted(_value(line, name), digits) or absent

    parts: Iterable[str] = (
        *(str(_value(line, name)) for name in ("line", "product_id", "product_name", "category", "quantity")),
        minor("unit_amount"),
        str(_value(line, "discount")),
        minor("sales"),
        minor("net"),
        minor("unit_cost", "no cost"),
        minor("profit", "no profit"),
    )
    return "|".join(parts)


def _minute(item: Mapping[str, Any], digits: int) -> Row:
    """A row of ``rollups``."""

    def whole(name: str, shift: int = 0) -> int:
        text = _shifted(_value(item, name) or "0", shift) or ""
        if not _INTEGER.fullmatch(text):
            raise StoredError(f"SalesTrends: {name} of {_value(item, 'scope')} at {_value(item, 'minute')} is {text!r}")
        return int(text)

    return (
        "trends",
        _value(item, "scope"),
        parse_time(_value(item, "minute") or ""),
        *(whole(name) for name in ("version", "orders", "returns", "units")),
        *(whole(name, digits) for name in ("sales", "refunded", "revenue")),
        bool(_value(item, "stale")),
    )


def _value(item: Mapping[str, Any], name: str) -> Any:
    """An attribute's plain value: text, a number's text, true or false; None: absent."""
    attribute = item.get(name)
    return None if attribute is None else next(iter(attribute.values()))


def _shifted(number: str | None, digits: int) -> str | None:
    """A number's text with its point moved to the right; as an integer where it is one. What is no number stays."""
    if number is None:
        return None
    try:
        shifted = Decimal(number).scaleb(digits)
    except InvalidOperation:
        return number
    return str(int(shifted)) if shifted == int(shifted) else f"{shifted:f}"
