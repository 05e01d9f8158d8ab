"""``tillstream verify``: the proof."""

import json
from typing import Annotated

import typer
from rich.console import Console

from sales.settings import load
from tillstream.proving import VerifySettings, verify_board
from tillstream.reading import reading
from tillstream.report import show

EXIT_DIFFERENT = 1


def verify(
    timeout: Annotated[
        float, typer.Option(min=0, help="Seconds to wait until the tick's positions are stored.", metavar="SECONDS")
    ] = 120,
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
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Recompute every live number from S3 and compare it exactly.

    For example:

    tillstream verify

    tillstream verify --everything --no-lookups --json

    Exit codes: 0 all equal, 1 something differs, 2 a setting is wrong, 3 nothing could be compared (no tick, not stored
    in time, Redis or S3 away), 4 what is there can't be worked with, 130 Ctrl-C.
    """
    settings = load(VerifySettings)
    with reading("verify") as say:
        report = verify_board(settings, timeout=timeout, everything=everything, lookups=lookups, say=say)
    if as_json:
        typer.echo(json.dumps(report.as_json(), indent=2))
    else:
        show(report, Console())
    if not report.equal:
        raise typer.Exit(EXIT_DIFFERENT)
