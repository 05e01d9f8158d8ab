"""``tillstream replay``: real orders from a file into the orders stream, and what became of every row."""

import json
import logging
import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from pydantic import ValidationError
from pydantic_settings import SettingsError
from rich.console import Console
from rich.table import Table

from generator import mapping as mappings
from generator import replay as replays
from generator.clock import SystemClock
from generator.delivery import send
from generator.manifest import Tally
from generator.settings import GeneratorSettings, SourceSettings
from sales.money import to_decimal
from sales.service import EXIT_AWAY, EXIT_FAILED, EXIT_SETTINGS
from sales.settings import describe
from sales.streams import AwayError, StreamError


def replay(
    file: Annotated[Path, typer.Argument(help="CSV (also .gz, .bz2, .zst) or Parquet, a row for each order line")],
    *,
    mapping: Annotated[
        str, typer.Option(help=f"one that ships ({', '.join(mappings.shipped())}) or the path of a TOML file")
    ] = "online-retail",
    speed: Annotated[str, typer.Option(help="how fast event time runs: 1x, 3600x, max")] = "max",
    until: Annotated[
        str | None,
        typer.Option(help="the last event time that is sent, by the file's own times, RFC 3339", metavar="T"),
    ] = None,
    shift_to_now: Annotated[
        bool, typer.Option("--shift-to-now", help="move all times: at 1x the first order is now, else the last")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="send nothing, only say what would be sent")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print the report as JSON")] = False,
) -> None:
    """Sends the orders of a file to the orders stream, in the order of event time, and accounts for every row.

    The stream comes from the environment: STREAM, KAFKA_BOOTSTRAP_SERVERS or AWS_ENDPOINT_URL, CURRENCY.

    For example:

    tillstream replay online-retail.csv.gz

    tillstream replay online-retail.csv.gz --until 2011-06-30T12:00:00Z --json

    tillstream replay orders.parquet --mapping ./our-shop.toml --speed 3600x --shift-to-now

    tillstream replay orders.csv --mapping ./our-shop.toml --dry-run
    """
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(message)s")
    logging.getLogger("generator").setLevel(logging.INFO)  # progress, where stderr is no terminal
    given: dict[str, Any] = {"replay_mapping": mapping, "speed": speed, "until": until, "shift_to_now": shift_to_now}
    try:
        report, total, currency = _try_out(file, given) if dry_run else _send(file, given)
    except (ValidationError, SettingsError) as error:
        _end("\n".join(describe(GeneratorSettings, error)), EXIT_SETTINGS)
    except mappings.ReplayError as error:
        _end(error, EXIT_SETTINGS)
    except AwayError as error:
        _end(error, EXIT_AWAY)
    except (StreamError, OSError) as error:
        _end(error, EXIT_FAILED)
    if as_json:
        typer.echo(json.dumps({**report.as_dict(), "sent": total.as_dict(), "dry_run": dry_run}, indent=2))
    else:
        _show(report, total, currency, dry_run=dry_run)


def _end(error: object, code: int) -> NoReturn:
    typer.echo(str(error), err=True)
    raise typer.Exit(code) from None


def _send(file: Path, given: dict[str, Any]) -> tuple[replays.Report, Tally, str]:
    """Replays; the report, what was sent, and its currency."""
    settings = GeneratorSettings(**given)
    clock = SystemClock()
    clock.listen()
    playback = _play(file, settings, mappings.load(settings.replay_mapping), settings.currency, clock)
    return playback.report, send(playback.parcels, settings, settings, clock).total, settings.currency


def _try_out(file: Path, given: dict[str, Any]) -> tuple[replays.Report, Tally, str]:
    """The same without a stream, for a pipeline in the mapping's currency."""
    settings = SourceSettings(**given)
    mapping = mappings.load(settings.replay_mapping)
    playback = _play(file, settings, mapping, mapping.currency, SystemClock())
    total = Tally()
    for parcel in playback.parcels:
        total.add(parcel.tally)
    return playback.report, total, mapping.currency


def _play(
    file: Path, settings: SourceSettings, mapping: mappings.Mapping, currency: str, clock: SystemClock
) -> replays.Playback:
    return replays.play(
        file,
        mapping,
        currency=currency,
        speed=settings.speed,
        until=settings.until,
        shift_to_now=settings.shift_to_now,
        clock=clock,
    )


def _show(report: replays.Report, total: Tally, currency: str, *, dry_run: bool) -> None:
    table = Table("rows", "fate", "which is", title=f"{report.rows:,} rows read")
    table.columns[0].justify = "right"
    for fate, count in report.fates.most_common():
        table.add_row(f"{count:,}", fate, replays.FATES.get(fate, ""))
    console = Console()
    console.print(table)
    console.print(
        f"{report.sales:,} sales and {report.returns:,} returns {'would be sent' if dry_run else 'sent'}: "
        f"{to_decimal(total.sales_minor, currency):,} {currency} sold, "
        f"{to_decimal(total.refunded_minor, currency):,} {currency} refunded, {total.units:,} units net"
    )
    console.print(
        f"{report.prices_rounded:,} prices rounded to the {currency}'s smallest unit; "
        f"{report.orders_with_two_times:,} orders had two times, the earlier counts"
    )
    if report.unknown_countries:
        names = ", ".join(f"{name} ({count:,})" for name, count in report.unknown_countries.most_common())
        console.print(f"countries that the mapping doesn't know, by orders: {names}", markup=False)
