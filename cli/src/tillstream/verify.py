"""``tillstream verify``: the proof once, or again and again."""

import json
from typing import Annotated

import redis
import typer
from rich.console import Console

from sales.settings import load
from tillstream.interrupts import Interrupted
from tillstream.proving import VerifySettings, verify_board
from tillstream.reading import reading
from tillstream.report import show
from tillstream.watch import WatchSettings, publish, rounds

EXIT_DIFFERENT = 1


def verify(
    timeout: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="Seconds to wait until the tick's positions are stored; unset: ROTATE_SECONDS and a minute.",
            metavar="SECONDS",
        ),
    ] = None,
    everything: Annotated[
        bool,
        typer.Option(
            "--everything",
            help="Read all that is stored, not only what the windows need; also compare the counts in the status, the "
            "dead letters one by one, the closed minutes and the items in DynamoDB.",
        ),
    ] = False,
    lookups: Annotated[
        bool,
        typer.Option(
            "--lookups/--no-lookups",
            help="With --everything: scan the DynamoDB tables too. It takes their read units: at 5 a second a million "
            "orders take hours.",
        ),
    ] = True,
    watching: Annotated[
        bool,
        typer.Option(
            "--watch",
            help="Again and again until Ctrl-C, as the AUDIT_ settings say instead of the other options; the outcomes "
            "go to Redis, too.",
        ),
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the report as JSON; with --watch a line for each round.")
    ] = False,
) -> None:
    """Recompute every live number from S3 and compare it exactly.

    For example:

    tillstream verify

    tillstream verify --everything --no-lookups --json

    AUDIT_SECONDS=30 tillstream verify --watch

    Exit codes: 0 all equal, 1 something differs, 2 a setting is wrong, 3 nothing could be compared (no tick, not stored
    in time, Redis or S3 away), 4 what is there can't be worked with, 130 Ctrl-C.
    """
    if watching:
        _watch(as_json=as_json)
        return
    settings = load(VerifySettings)
    with reading("verify") as say:
        report = verify_board(
            settings,
            timeout=settings.stored_seconds if timeout is None else timeout,
            everything=everything,
            lookups=lookups,
            say=say,
        )
    if as_json:
        typer.echo(json.dumps(report.as_json(), indent=2))
    else:
        show(report, Console())
    if not report.equal:
        raise typer.Exit(EXIT_DIFFERENT)


def _watch(*, as_json: bool) -> None:
    """Rounds until a signal comes; EXIT_DIFFERENT if the last one that compared something found differences."""
    settings = load(WatchSettings)
    different = False
    with reading("verify --watch") as say:
        try:
            for found in rounds(settings, say):
                different = found.outcome == "different" or (different and found.report is None)
                told = found.fields()
                typer.echo(json.dumps(told) if as_json else "  ".join(f"{name} {text}" for name, text in told.items()))
                try:
                    publish(settings, found)
                except redis.RedisError as error:
                    typer.echo(f"verify --watch: the outcome is not in Redis: {error}", err=True)
        except Interrupted as stop:
            if not stop.by_keyboard:
                raise
    if different:
        raise typer.Exit(EXIT_DIFFERENT)
