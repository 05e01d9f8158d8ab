"""``tillstream query``: a question to what is stored in S3, by a name or in SQL."""

import csv
import json
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Any, Literal

import duckdb
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from sales.service import EXIT_SETTINGS
from sales.settings import StoreSettings, load
from tillstream.catalogue import open_catalogue
from tillstream.database import Answer
from tillstream.named import named, names, title
from tillstream.reading import reading
from tillstream.spans import From, Span, To

WRONG_SQL = (duckdb.ParserException, duckdb.BinderException, duckdb.CatalogException, duckdb.ConversionException)
"""What only who asks can mend."""


Shape = Literal["table", "csv", "json"]


def query(
    question: Annotated[
        str, typer.Argument(help="A name, or a text of SQL. Nothing: the names that there are.", metavar="NAME|SQL")
    ] = "",
    since: From = "",
    until: To = "",
    shape: Annotated[Shape, typer.Option("--format", help="How to write the answer.")] = "table",
    printed: Annotated[bool, typer.Option("--print", help="Only print the SQL of a named query, for Athena.")] = False,
) -> None:
    """Ask what is stored in S3.

    The tables are orders (a row for each order line, repetitions too), rollups and dead_letters; the view sales has
    each order once. Conditions on dt, hour and columns are used to read less. --from and --to are put into a named
    query; of any other they choose the hours of orders that it sees.

    tillstream query top-products --from 2026-11-20T08:00 --to 2026-11-20T09:00

    tillstream query "SELECT country, sum(net_amount) FROM sales WHERE dt = '2026-11-20' GROUP BY country" --format csv

    Exit codes: 0 done, 2 the SQL or a setting is wrong, 3 S3 can't be reached, 4 what is there can't be worked with,
    130 Ctrl-C.
    """
    if not question:
        for name in names():
            typer.echo(f"{name:16}{title(name)}")
        return
    span = Span.of(since, until)
    is_named = question in names()
    if not is_named and len(question.split()) == 1:
        raise typer.BadParameter(f"no query is called {question!r}; allowed: {', '.join(names())}, or a text of SQL")
    text = named(question, span) if is_named else question
    if printed:
        typer.echo(text.rstrip())
        return
    settings = load(StoreSettings)
    with reading("query") as say, tempfile.TemporaryDirectory(prefix="tillstream-query-") as folder:
        try:
            with open_catalogue(settings, span, Path(folder), say, text) as catalogue:
                say("asking")
                answer = catalogue.database.execute(text)
        except WRONG_SQL as error:
            typer.echo(f"query: {error}", err=True)
            raise typer.Exit(EXIT_SETTINGS) from error
    _WRITERS[shape](answer)


def _table(answer: Answer) -> None:
    table = Table()
    columns = list(zip(*answer.rows, strict=True)) or [() for _ in answer.columns]
    for name, values in zip(answer.columns, columns, strict=True):
        numbers = any(isinstance(value, int | float) for value in values)
        table.add_column(name, justify="right" if numbers else "left", overflow="fold")
    for row in answer.rows:
        table.add_row(*map(_cell, row))
    Console().print(table)


def _csv(answer: Answer) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(answer.columns)
    writer.writerows(answer.rows)


def _json(answer: Answer) -> None:
    rows = [dict(zip(answer.columns, row, strict=True)) for row in answer.rows]
    typer.echo(json.dumps(rows, indent=2, default=str))


_WRITERS = {"table": _table, "csv": _csv, "json": _json}


def _cell(value: Any) -> Text:
    if value is None:
        return Text("")
    return Text(f"{value:.2f}" if isinstance(value, float) else str(value))
