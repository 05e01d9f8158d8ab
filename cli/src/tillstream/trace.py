"""``tillstream trace``: where one order is, and why."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from sales.settings import load
from tillstream.reading import reading
from tillstream.search import Sighting, Trace, TraceSettings, trace_order

EXIT_UNKNOWN = 1


def trace(
    order_id: Annotated[str, typer.Argument(help="The order's id.")],
    everywhere: Annotated[
        bool,
        typer.Option(
            "--everywhere",
            help="Look through everything that is stored, not only the hour that DynamoDB names or the live windows'.",
        ),
    ] = False,
    timeout: Annotated[
        float, typer.Option(min=0, help="Seconds to read what is in the streams and not stored yet.", metavar="SECONDS")
    ] = 30,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was found as JSON.")] = False,
) -> None:
    """Say where an order is: position, accepted or why not, in which file, which item, which windows.

    Exit codes: 0 found, 1 unknown everywhere, 2 a setting is wrong, 3 a part can't be reached, 4 what is there can't be
    worked with, 130 Ctrl-C.
    """
    settings = load(TraceSettings)
    with reading("trace") as say:
        found = trace_order(settings, order_id, everywhere=everywhere, timeout=timeout, say=say)
    if as_json:
        typer.echo(json.dumps({"known": found.known, **asdict(found)}, indent=2, default=str))
    else:
        show(found, Console())
    if not found.known:
        raise typer.Exit(EXIT_UNKNOWN)


def show(found: Trace, console: Console) -> None:
    """The trace for people."""
    if not found.known:
        console.print(f"order {found.order_id} is unknown; looked in:", markup=False, highlight=False)
        for place in found.searched:
            console.print(f"  {place}", markup=False, highlight=False, soft_wrap=True)
        return
    table = Table(title=f"order {found.order_id}", title_justify="left", show_header=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for sighting in found.sightings:
        for name, text in _rows(sighting, found.as_of):
            table.add_row(name, text)
        table.add_section()
    table.add_row("item in DynamoDB", "none yet" if found.item is None else _item_text(found.item))
    console.print(table, highlight=False, markup=False)


def _rows(sighting: Sighting, as_of: str) -> Iterator[tuple[str, str]]:
    yield "verdict", sighting.verdict + (f": {sighting.reason}" if sighting.reason else "")
    yield "position", f"{sighting.stream}/{sighting.partition}/{sighting.position}"
    yield "file in S3", sighting.stored or "not stored yet"
    if sighting.event_time:
        yield "event", f"{sighting.type} of {sighting.event_time}, {sighting.country}"
        yield "amount", f"{sighting.net} net, {sighting.lines} line{'' if sighting.lines == 1 else 's'}"
    if sighting.verdict == "accepted":
        if sighting.applied is None:
            held = "there are no live numbers of its partition"
        elif not sighting.applied:
            held = f"not applied yet (as of {as_of})"
        else:
            held = f"{' '.join(sighting.windows) or 'none'} (as of {as_of})"
        yield "windows", held


def _item_text(item: Mapping[str, Any]) -> str:
    parts = ("type", "event_time", "category", "net", "currency", "position")
    return ", ".join(f"{name} {item[name]}" for name in parts if name in item)
