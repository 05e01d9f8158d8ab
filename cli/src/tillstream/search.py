"""Where an order may be, and what is found there: DynamoDB, the stored orders, the streams' ends, the dead letters."""

import json
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import groupby
from pathlib import Path
from typing import Any

import duckdb
from boto3.dynamodb.types import TypeDeserializer

from sales.board import BoardReader, Keys, LiveNumbers, client_of
from sales.money import to_decimal
from sales.orders import decode
from sales.streams import format_position
from sales.times import INVALID_TIME, format_time, parse_time
from sink.aws import client
from sink.records import find_dead_letters
from tillstream.bounds import bounds
from tillstream.database import Database, Row
from tillstream.proving import VerifySettings
from tillstream.reading import REDIS_SECONDS, Say
from tillstream.stored import Store, hour_folders
from tillstream.tail import TailSettings, unstored

DEAD_LETTER_DAYS = 2
"""How many days of archived dead letters are looked through, by broker time: today's and yesterday's."""


class TraceSettings(VerifySettings, TailSettings):
    """Everywhere an order may be."""


@dataclass(frozen=True, slots=True)
class Sighting:
    """One message that carries the order id."""

    verdict: str
    """accepted, duplicate, conflict, rejected"""
    reason: str
    """why it was not accepted; a sentence for people"""
    stream: str
    partition: str
    position: str
    stored: str | None
    """key of the Parquet object that holds it, without S3_PREFIX; None: only in the stream yet"""
    type: str = ""
    event_time: str = ""
    country: str = ""
    net: str = ""
    """major units; negative for returns"""
    lines: int = 0
    applied: bool | None = None
    """are the live numbers past its position? None: they don't speak of its partition"""
    windows: tuple[str, ...] = ()
    """the live windows that hold it now"""


@dataclass(frozen=True, slots=True)
class Trace:
    """All that is known of one order id."""

    order_id: str
    sightings: list[Sighting]
    item: dict[str, Any] | None
    """the item in DynamoDB"""
    as_of: str
    """what time the live numbers speak of"""
    searched: list[str]
    """where was looked, in words"""

    @property
    def known(self) -> bool:
        """Was it found anywhere?"""
        return bool(self.sightings) or self.item is not None


def trace_order(
    settings: TraceSettings, order_id: str, *, everywhere: bool, timeout: float, say: Say = lambda _text: None
) -> Trace:
    """Looks in DynamoDB, in the stored orders, and, where those don't know it, in the streams' ends that are not stored
    yet and in the dead letters.

    Args:
        settings: where to look.
        order_id: what for.
        everywhere: in all that is stored.
        timeout: seconds for the streams.
        say: hears what goes on.

    Raises:
        StreamError, redis.RedisError, botocore.exceptions.BotoCoreError, ClientError: a part can't be reached.
        StoredError: a marker in S3 contradicts itself.
        BoardError: a number on the board is none.
        duckdb.Error, OSError: a stored object can't be read, or this machine lacks disk or memory.
        Interrupted: a signal came, inside `interrupts.raised`.
    """
    search = _Search(settings, order_id, everywhere, say)
    item = search.item()
    live = _live(settings)
    sightings = search.stored(live, item)
    if not sightings:
        sightings = search.waiting(timeout)
    if not sightings:
        sightings = search.dead_letters(timeout)
    return Trace(
        order_id=order_id,
        sightings=[_placed(sighting, live) for sighting in sightings],
        item=item,
        as_of=live.status.get("as_of", ""),
        searched=search.searched,
    )


@dataclass(slots=True)
class _Search:
    settings: TraceSettings
    order_id: str
    everywhere: bool
    say: Say
    searched: list[str] = field(default_factory=list)

    def item(self) -> dict[str, Any] | None:
        """The item in DynamoDB; one request."""
        table = self.settings.sales_table
        self.say(f"asking DynamoDB table {table}")
        dynamodb = client("dynamodb", self.settings, connections=1)
        answer = dynamodb.get_item(TableName=table, Key={"order_id": {"S": self.order_id}}, ConsistentRead=True)
        dynamodb.close()
        self.searched.append(f"DynamoDB table {table}")
        deserialize = TypeDeserializer().deserialize
        attributes = answer.get("Item")
        return None if attributes is None else {name: deserialize(value) for name, value in attributes.items()}

    def stored(self, live: LiveNumbers, item: Mapping[str, Any] | None) -> list[Sighting]:
        """The events in S3. Where the item tells the event time only that hour is read: repetitions are there too."""
        archive = Store.open(self.settings)
        if self.everywhere:
            folders, where = archive.day_folders("orders"), "all stored orders"
        elif item is not None and (moment := parse_time(item.get("event_time", ""))) != INVALID_TIME:
            folders = hour_folders(moment, moment + 1)
            where = f"the stored orders of {folders[0]}"
        else:
            edges = [edge for window in _edges(live).values() for edge in window]
            folders = hour_folders(min(edges), max(edges) + 3_600_000) if edges else []
            where = "the stored orders of the live windows' hours"
        self.searched.append(where)
        rows, keys = self._ask(archive, "trace", folders, {"order_id": self.order_id})
        return list(_judged(rows, keys))

    def waiting(self, timeout: float) -> list[Sighting]:
        """The messages in the orders stream that are not stored yet."""
        name = self.settings.orders_stream
        rules = self.settings.rules()
        key, quoted = self.order_id.encode(), _quoted(self.order_id)
        sightings: list[Sighting] = []
        judge = _Judge()
        for stream, chunk in unstored(self.settings, name, timeout, self.say, self.searched):
            rows = [i for i in range(len(chunk)) if chunk.keys[i] == key or quoted in chunk.values[i]]
            if not rows:
                continue
            decoded = decode(
                rules,
                [chunk.keys[i] for i in rows],
                [chunk.values[i] for i in rows],
                [chunk.positions[i] for i in rows],
                [chunk.broker_times[i] for i in rows],
            )
            batch, net = decoded.accepted, decoded.accepted.net()
            for row, order_id in enumerate(batch.order_ids):
                if order_id != self.order_id:
                    continue  # it only mentions the id
                mine = batch.line_order == row
                event_time = format_time(int(batch.event_times[row]))
                minor = int(net[mine].sum()) * (-1 if batch.is_return[row] else 1)
                position = format_position(batch.positions[row], stream.position_digits)
                verdict, reason = judge(event_time, position, batch.contents[row])
                sightings.append(
                    Sighting(
                        verdict=verdict,
                        reason=reason,
                        stream=stream.id,
                        partition=chunk.partition,
                        position=position,
                        stored=None,
                        type="return" if batch.is_return[row] else "sale",
                        event_time=event_time,
                        country=batch.countries[row],
                        net=str(to_decimal(minor, self.settings.currency)),
                        lines=int(mine.sum()),
                    )
                )
            sightings += [
                Sighting(
                    verdict="rejected",
                    reason=f"{rejection.reason}: {rejection.detail}",
                    stream=stream.id,
                    partition=chunk.partition,
                    position=format_position(rejection.position, stream.position_digits),
                    stored=None,
                )
                for rejection in decoded.rejected
                if self._is_mine(rejection.key, rejection.value)
            ]
        return sightings

    def dead_letters(self, timeout: float) -> list[Sighting]:
        """The dead letters that carry the id: archived ones, then those in their stream."""
        archive = Store.open(self.settings)
        if self.everywhere:
            dates, where = archive.day_folders("dead-letters"), "all archived dead letters"
        else:
            today = datetime.now(UTC)
            days = [today - timedelta(days=back) for back in range(DEAD_LETTER_DAYS - 1, -1, -1)]
            dates = [f"dead-letters/dt={day:%Y-%m-%d}/" for day in days]
            where = f"the archived dead letters of {DEAD_LETTER_DAYS} days"
        self.searched.append(where)
        rows, keys = self._ask(
            archive, "trace_dead_letters", dates, {"order_id": self.order_id, "quoted": _quoted(self.order_id).decode()}
        )
        sightings = [
            Sighting("rejected", f"{reason}: {detail}", stream, partition, position, keys[number])
            for stream, partition, position, number, reason, detail, key, raw in rows
            if self._is_mine(key, raw)
        ]
        known = {(sighting.stream, sighting.partition, sighting.position) for sighting in sightings}
        for _, chunk in unstored(self.settings, self.settings.dead_letters_stream, timeout, self.say, self.searched):
            for found in find_dead_letters(chunk.values).records:
                letter = found.letter
                place = (letter.stream, letter.partition, letter.position)
                if place not in known and self._is_mine(found.key, found.raw):
                    sightings.append(Sighting("rejected", f"{letter.reason}: {letter.detail}", *place, None))
        return sightings

    def _is_mine(self, key: bytes | None, value: bytes) -> bool:
        """Is a message that was refused, and may be no JSON, one of the order, and no other that mentions its id?"""
        field = rb'"order_id"\s*:\s*' + re.escape(_quoted(self.order_id))
        return key == self.order_id.encode() or re.search(field, value) is not None

    def _ask(
        self, archive: Store, query: str, folders: Iterable[str], parameters: Mapping[str, str]
    ) -> tuple[list[Row], list[str]]:
        """The rows of a query over all objects in the folders, and the objects' keys by number."""
        keys = [key for folder in folders for key, _ in archive.listing(folder) if archive.place(key) is not None]
        if not keys:
            return [], keys
        with tempfile.TemporaryDirectory(prefix="tillstream-trace-") as folder:
            progress = "reading what is stored: {} of {} objects".format
            there = archive.download(keys, Path(folder), lambda done, of: self.say(progress(done, of)))
            if not there:
                return [], keys
            with Database.open(Path(folder)) as database:

                def ask(*paths: Path) -> list[Row]:
                    return database.run(query, {"files": [str(path) for path in paths], **parameters})

                try:
                    return ask(*there.values()), keys
                except duckdb.Error:
                    rows = []
                    for key, path in there.items():
                        try:
                            rows += ask(path)
                        except duckdb.Error:
                            self.searched.append(f"but not {key}, which can't be read")
                    return sorted(rows, key=lambda row: row[:3]), keys


def _live(settings: TraceSettings) -> LiveNumbers:
    """The tick of this moment."""
    with client_of(settings.redis_url.get_secret_value(), REDIS_SECONDS) as client:
        return BoardReader(client, Keys(settings.redis_prefix), [window.name for window in settings.windows]).read()


def _edges(live: LiveNumbers) -> dict[str, tuple[int, int]]:
    """Window to its start and end, ms since 1970; empty where there is no tick."""
    as_of = parse_time(live.status.get("as_of", ""))
    return {} if as_of == INVALID_TIME else bounds(as_of, live.windows)


def _placed(sighting: Sighting, live: LiveNumbers) -> Sighting:
    """With what the live numbers make of it."""
    position = live.positions.get(f"{sighting.stream}/{sighting.partition}")
    applied = None if position is None else sighting.position <= position
    moment = parse_time(sighting.event_time)
    held = tuple(name for name, (start, end) in _edges(live).items() if start <= moment < end)
    return replace(sighting, applied=applied, windows=held if applied and sighting.verdict == "accepted" else ())


class _Judge:
    """Tells repetitions: asked about the events of one order id, in the order of their positions."""

    def __init__(self) -> None:
        self._standing: dict[str, tuple[str, Any]] = {}

    def __call__(self, event_time: str, position: str, content: Any) -> tuple[str, str]:
        """The verdict and its reason."""
        standing, its_content = self._standing.setdefault(event_time, (position, content))
        if standing == position:
            return "accepted", ""
        if its_content == content:
            return "duplicate", f"the same as the event at position {standing}"
        return "conflict", f"other content than the event at position {standing}, which stands"


def _judged(rows: Sequence[tuple[Any, ...]], keys: Sequence[str]) -> Iterator[Sighting]:
    """Stored lines as events."""
    judge = _Judge()
    for (stream, partition, position), group in groupby(rows, key=lambda row: row[:3]):
        lines = list(group)
        _, _, _, number, type_, event_ms, country, currency, *_ = lines[0]
        event_time = format_time(event_ms)
        verdict, reason = judge(event_time, position, [line[-1] for line in lines])
        yield Sighting(
            verdict=verdict,
            reason=reason,
            stream=stream,
            partition=partition,
            position=position,
            stored=keys[number],
            type=type_,
            event_time=event_time,
            country=country,
            net=str(to_decimal(sum(line[8] for line in lines), currency)),
            lines=len(lines),
        )


def _quoted(order_id: str) -> bytes:
    """As it stands in a message."""
    return json.dumps(order_id, ensure_ascii=False).encode()
