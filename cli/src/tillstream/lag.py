"""``tillstream lag``: how far each of the sink's lanes is, asked of its stream from outside."""

import json
import logging
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from sales.settings import load
from sales.streams import Stream, format_position
from sales.streams.connect import connect
from sink.aws import client
from sink.checkpoints import S3Checkpoints
from sink.settings import SinkSettings
from sink.store import S3Store
from tillstream.reading import Say, reading

EXIT_BEHIND = 1
EXIT_UNKNOWN = 3

CONNECTIONS = 4


@dataclass(frozen=True, slots=True)
class Place:
    """How far a lane is in one partition."""

    lane: str
    stream: str
    """its id"""
    partition: str
    committed: str | None
    """everything up to this position is stored; None: nothing was stored yet"""
    messages: int | None
    """in the stream behind it; None: some, Kinesis does not count them"""


def lag(
    most: Annotated[
        int | None,
        typer.Option(min=0, help="Exit with 1 when a lane is further behind than so many messages.", metavar="N"),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
) -> None:
    """Show how far the sink's lanes are behind their streams: messages that are not stored, or stored and not yet
    committed, which takes some seconds.

    Asked of Kafka, or of Kinesis and the checkpoints in S3; the sink need not run. The settings are the sink's. Kinesis
    does not count: there a partition is at its end, or behind.

    For example:

    tillstream lag

    tillstream lag --most 100000 --json

    Exit codes: 0 shown, 1 a lane is further behind than --most says, 2 a setting is wrong, 3 the stream or S3 is away,
    or --most can't be judged because nobody counts, 4 what is there can't be worked with, 130 Ctrl-C.
    """
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    settings = load(SinkSettings)
    with reading("lag") as say:
        places = list(_places(settings, say))
    totals = _totals(places)
    if as_json:
        typer.echo(json.dumps(_as_json(places, totals), indent=2))
    else:
        _show(places, Console())
    if most is not None:
        _judge(totals, most)


def _judge(totals: dict[str, int | None], most: int) -> None:
    """Ends the command where a lane is further behind, or where that can't be said: some messages are more than none.

    Raises:
        typer.Exit: EXIT_BEHIND or EXIT_UNKNOWN.
    """
    if any((1 if messages is None else messages) > most for messages in totals.values()):
        raise typer.Exit(EXIT_BEHIND)
    unknown = ", ".join(lane for lane, messages in totals.items() if messages is None)
    if unknown:
        typer.echo(f"lag: nobody counts by how many messages these are behind: {unknown}", err=True)
        raise typer.Exit(EXIT_UNKNOWN)


def _places(settings: SinkSettings, say: Say) -> Iterator[Place]:
    """Of every lane, partition by partition.

    Raises:
        StreamError: a stream, or S3 on Kinesis, is away or refuses.
    """
    with (
        closing(client("s3", settings, connections=CONNECTIONS)) as s3,
        closing(connect(settings, settings)) as wire,
    ):
        checkpoints = S3Checkpoints(S3Store(s3, settings.s3_bucket, settings.s3_prefix))
        streams: dict[str, Stream] = {}
        for lane, name in settings.reads().items():
            say(f"asking how far {lane} is")
            stream = streams[name] = streams.get(name) or wire.open(name)
            committed = stream.committed(settings.group(lane), checkpoints)
            behind = stream.behind(committed)
            for partition, position in committed.items():
                told = None if position is None else format_position(position, stream.position_digits)
                yield Place(lane, stream.id, partition, told, behind[partition])


def _totals(places: list[Place]) -> dict[str, int | None]:
    """Messages by lane."""
    totals: dict[str, int | None] = {}
    for place in places:
        before = totals.get(place.lane, 0)
        totals[place.lane] = None if before is None or place.messages is None else before + place.messages
    return totals


def _as_json(places: list[Place], totals: dict[str, int | None]) -> object:
    return [
        {
            "lane": lane,
            "messages": messages,
            "partitions": [
                {
                    "stream": place.stream,
                    "partition": place.partition,
                    "committed": place.committed,
                    "messages": place.messages,
                }
                for place in places
                if place.lane == lane
            ],
        }
        for lane, messages in totals.items()
    ]


def _show(places: list[Place], console: Console) -> None:
    table = Table()
    for heading in ("lane", "partition", "committed"):
        table.add_column(heading, overflow="fold")
    table.add_column("behind", justify="right")
    for place in places:
        behind = "some" if place.messages is None else f"{place.messages:,}"
        table.add_row(place.lane, f"{place.stream}/{place.partition}", place.committed or "nothing yet", behind)
    console.print(table)
