"""``tillstream export``: order lines as one CSV or Parquet file."""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

import typer

from sales.settings import RuleSettings, StoreSettings, load
from tillstream.catalogue import open_catalogue
from tillstream.database import Database
from tillstream.exporting import MEMORY, Format, export_scanned, export_stored
from tillstream.reading import reading
from tillstream.scanned import ScannedOrders
from tillstream.spans import From, Span, To

NAME = "exported_sales_data"

BAR = 30
"""Characters of a progress bar."""


class ExportSettings(StoreSettings, RuleSettings):
    """Where the orders are, and what their amounts are in."""


def export(
    since: From = "",
    until: To = "",
    source: Annotated[
        Literal["s3", "dynamodb"], typer.Option("--source", help="Where to read: s3 has everything.")
    ] = "s3",
    form: Annotated[Format, typer.Option("--format", help="Kind of file.")] = "csv",
    output: Annotated[
        str,
        typer.Option("--output", "-o", help=f"File to write, or - . Default: {NAME}.csv or .parquet", metavar="FILE"),
    ] = "",
) -> None:
    """Write order lines to a file that spreadsheets, Tableau and DuckDB open: each order once, a row a line.

    tillstream export --from 2026-11-01 --to 2026-12-01

    tillstream export --format parquet --output november.parquet

    tillstream export --source dynamodb --output - | wc -l

    The file appears when it is whole; a CSV's cells of text that a spreadsheet would take for formulas begin with '.

    Exit codes: 0 done, 2 a setting or argument is wrong, 3 S3 or DynamoDB can't be reached, 4 what is there can't be
    worked with or the file can't be written, 130 Ctrl-C.
    """
    span = Span.of(since, until)
    settings = load(ExportSettings)
    path = None if output == "-" else Path(output or f"{NAME}.{form}")
    omitted = 0
    with (
        reading("export") as say,
        tempfile.TemporaryDirectory(prefix="tillstream-export-") as folder,
        whole(path) as part,
    ):

        def tell(what: str, share: float) -> None:
            say(f"{what} {bar(share)}")

        if source == "s3":
            with open_catalogue(settings, span, Path(folder), say, "FROM orders") as catalogue:
                catalogue.database.execute(f"SET memory_limit = '{MEMORY}'")
                lines = export_stored(catalogue, span, part, form, settings.currency, tell)
        else:
            orders = ScannedOrders.of(settings, settings.currency, span)
            with Database.open(Path(folder)) as database:
                database.execute(f"SET memory_limit = '{MEMORY}'")
                lines = export_scanned(database, orders, span, part, form, settings.currency, tell)
            omitted = orders.omitted
    typer.echo(f"{lines:,} lines in {output if path is None else path}", err=path is None)
    if omitted:
        typer.echo(f"export: left out, as only S3 has the lines of very large orders: {omitted:,}", err=True)


@contextlib.contextmanager
def whole(path: Path | None) -> Iterator[Path]:
    """Where to write what is to be at ``path`` in the end: beside it, until it is whole; None: the standard output."""
    if path is None:
        yield Path("/dev/stdout")
        return
    part = path.with_name(f"{path.name}.part")
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def bar(share: float) -> str:
    """``━━━━━━━━━━──────────  50%``."""
    done = round(share * BAR)
    return f"{'━' * done}{'─' * (BAR - done)} {share:4.0%}"
