"""``tillstream export``: order lines as one CSV or Parquet file."""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from sales.settings import RuleSettings, StoreSettings, load
from tillstream.catalogue import open_catalogue
from tillstream.exporting import MEMORY, Format, export_stored
from tillstream.reading import reading
from tillstream.spans import From, Span, To

NAME = "exported_sales_data"

BAR = 30
"""Characters of a progress bar."""


class ExportSettings(StoreSettings, RuleSettings):
    """Where the orders are, and what their amounts are in."""


def export(
    since: From = "",
    until: To = "",
    form: Annotated[Format, typer.Option("--format", help="Kind of file.")] = "csv",
    output: Annotated[
        str,
        typer.Option("--output", "-o", help=f"File to write, or - . Default: {NAME}.csv or .parquet", metavar="FILE"),
    ] = "",
) -> None:
    """Write order lines to a file that spreadsheets, Tableau and DuckDB open: each order once, a row a line.

    tillstream export --from 2026-11-01 --to 2026-12-01

    tillstream export --format parquet --output november.parquet

    The file appears when it is whole; a CSV's cells of text that a spreadsheet would take for formulas begin with '.

    Exit codes: 0 done, 2 a setting or argument is wrong, 3 S3 can't be reached, 4 what is there can't be worked with or
    the file can't be written, 130 Ctrl-C.
    """
    span = Span.of(since, until)
    settings = load(ExportSettings)
    path = None if output == "-" else Path(output or f"{NAME}.{form}")
    with (
        reading("export") as say,
        tempfile.TemporaryDirectory(prefix="tillstream-export-") as folder,
        open_catalogue(settings, span, Path(folder), say) as catalogue,
        whole(path) as part,
    ):
        catalogue.database.execute(f"SET memory_limit = '{MEMORY}'")
        lines = export_stored(
            catalogue, span, part, form, settings.currency, lambda what, share: say(f"{what} {bar(share)}")
        )
    typer.echo(f"{lines:,} lines in {output if path is None else path}", err=path is None)


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
