"""``python -m generator``: sends orders until it is told to stop, or has sent them all."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from pydantic import ValidationError
from pydantic_settings import SettingsError

from generator import manifest, mapping, pacing, replay, shoppers
from generator.clock import SystemClock
from generator.delivery import send
from generator.manifest import Parcel
from generator.pacing import Speed
from generator.settings import GeneratorSettings
from generator.synthetic import SyntheticShop
from generator.telemetry import Telemetry
from sales.events import Log
from sales.logs import start_logging
from sales.service import EXIT_AWAY, EXIT_FAILED, EXIT_SETTINGS
from sales.settings import describe, refuse
from sales.streams import AwayError, StreamError
from sales.telemetry import served
from sales.times import format_time

log = Log("generator")

app = typer.Typer(add_completion=False, rich_markup_mode="markdown", pretty_exceptions_enable=False)

_DISTURBANCES = "What goes wrong (shares of the good orders, 0 to 1)"
_REPLAY = "Replay"
_SHOP = "Synthetic shop"


def _option(name: str, text: str, panel: str | None = None) -> Any:
    """An option whose default is the environment's variable of the same name."""
    variable = name.removeprefix("--").upper().replace("-", "_")
    return typer.Option(name, help=f"{text} [{variable}]", rich_help_panel=panel, show_default=False)


@app.command()
def main(
    *,
    source: Annotated[str | None, _option("--source", "synthetic (default) or replay")] = None,
    manifest: Annotated[Path | None, _option("--manifest", "where to write what was sent, counted, as JSON")] = None,
    speed: Annotated[
        str | None, _option("--speed", "how fast event time runs, with --start or a replay: 1x (default), 3600x, max")
    ] = None,
    until: Annotated[
        str | None, _option("--until", "the last event time to send, RFC 3339; of a replay: the file's own time")
    ] = None,
    seed: Annotated[int | None, _option("--seed", "decides everything random; default 1", _SHOP)] = None,
    rate: Annotated[str | None, _option("--rate", "good orders: 500/s (default), 30/min, max", _SHOP)] = None,
    orders: Annotated[int | None, _option("--orders", "good orders in all; 0 (default): endless", _SHOP)] = None,
    products: Annotated[int | None, _option("--products", "products in the catalogue; default 500", _SHOP)] = None,
    customers: Annotated[int | None, _option("--customers", "customers with an id; default 10000", _SHOP)] = None,
    returns: Annotated[
        float | None, _option("--returns", "share of orders that bring back an earlier one; default 0.04", _SHOP)
    ] = None,
    rhythm: Annotated[
        str | None,
        _option("--rhythm", "steady (default): the rate holds; shop: it follows the hours of day and week", _SHOP),
    ] = None,
    start: Annotated[
        str | None,
        _option("--start", "when the shop's clock begins, RFC 3339: same seed, same bytes; default: real time", _SHOP),
    ] = None,
    late: Annotated[float | None, _option("--late", "2 minutes to 20 hours old", _DISTURBANCES)] = None,
    out_of_order: Annotated[
        float | None, _option("--out-of-order", "overtaken by up to 30 seconds", _DISTURBANCES)
    ] = None,
    duplicates: Annotated[float | None, _option("--duplicates", "sent again, now or later", _DISTURBANCES)] = None,
    conflicts: Annotated[
        float | None, _option("--conflicts", "the identity again, with other content", _DISTURBANCES)
    ] = None,
    malformed: Annotated[float | None, _option("--malformed", "against the contract", _DISTURBANCES)] = None,
    future: Annotated[
        float | None, _option("--future", "more than 5 minutes ahead of the broker", _DISTURBANCES)
    ] = None,
    unknown_currency: Annotated[
        float | None, _option("--unknown-currency", "in a currency that is not the pipeline's", _DISTURBANCES)
    ] = None,
    replay_file: Annotated[
        Path | None, _option("--replay-file", "CSV (also .gz) or Parquet, a row for each order line", _REPLAY)
    ] = None,
    replay_mapping: Annotated[
        str | None,
        _option("--replay-mapping", "a mapping that ships (online-retail, the default) or a TOML file", _REPLAY),
    ] = None,
    shift_to_now: Annotated[
        bool | None,
        typer.Option(
            "--shift-to-now/--keep-times",
            help="move all times by one distance: at 1x the first order is now, else the last [SHIFT_TO_NOW]",
            rich_help_panel=_REPLAY,
            show_default=False,
        ),
    ] = None,
) -> None:
    """Sends orders to the orders stream: a synthetic shop's, or real ones from a file.

    Every option can be set in the environment instead (the name in brackets). The stream comes from the environment
    alone: STREAM (kafka or kinesis), KAFKA_BOOTSTRAP_SERVERS, AWS_ENDPOINT_URL, ORDERS_STREAM, CURRENCY.

    For example:

    - `STREAM=kafka python -m generator --rate 500/s`
    - `STREAM=kafka python -m generator --rate max --orders 1000000 --manifest sent.json`
    - `STREAM=kinesis python -m generator --late 0.02 --duplicates 0.05 --malformed 0.01`
    - `STREAM=kafka python -m generator --start 2026-11-20T00:00:00Z --speed max --orders 100000`
    - `STREAM=kafka CURRENCY=GBP python -m generator --source replay --replay-file orders.csv.gz --speed 3600x`
    """
    given = {name: value for name, value in locals().items() if value is not None}
    start_logging("generator")
    try:
        _run(GeneratorSettings(**given))
    except (ValidationError, SettingsError) as error:
        refuse(describe(GeneratorSettings, error))
    except mapping.ReplayError as error:
        _end(error, EXIT_SETTINGS)
    except AwayError as error:
        _end(error, EXIT_AWAY)
    except (StreamError, OSError) as error:
        _end(error, EXIT_FAILED)


def _end(error: Exception, code: int) -> NoReturn:
    log.error("service_failed", "{error}", error=error, exit_code=code)
    raise typer.Exit(code) from None


@dataclass(frozen=True, slots=True)
class _Source:
    parcels: Iterator[Parcel]
    orders: int
    """how many there will be; 0: not known"""
    asked: float | None
    """good orders a second; infinite: as many as can be made; None: not known"""
    report: replay.Report | None = None


def _run(settings: GeneratorSettings) -> None:
    clock = SystemClock()
    clock.listen()
    path = settings.replay_file if settings.source == "replay" else None
    source = _synthetic(settings, clock) if path is None else _replay(path, settings, clock)
    telemetry = Telemetry(source.asked, source.report) if settings.metrics_port else None
    started = clock.now()
    with _telling(telemetry, settings):
        sent = send(source.parcels, settings, settings, clock, orders=source.orders, telemetry=telemetry)
    ended = clock.now()

    log.info("records_acknowledged", "all {records:,} records are acknowledged", records=sent.total.records)
    if source.report is not None:
        fates = dict(source.report.fates.most_common())
        log.info("replay_read", "rows read: {rows:,}, of them {fates}", rows=source.report.rows, fates=fates)
    if settings.manifest is not None:
        document = {
            "source": settings.source,
            "stream": sent.stream_id,
            "currency": settings.currency,
            "seed": settings.seed if settings.source == "synthetic" else None,
            "started_at": format_time(started),
            "ended_at": format_time(ended),
            **sent.total.as_dict(),
            "replay": None if source.report is None else source.report.as_dict(),
        }
        manifest.write(settings.manifest, document)


def _telling(telemetry: Telemetry | None, settings: GeneratorSettings) -> AbstractContextManager[object]:
    """Raises OSError where METRICS_HOST and METRICS_PORT can't be used."""
    if telemetry is None:
        return nullcontext()
    return served(settings.metrics_host, settings.metrics_port, telemetry.registry, telemetry.health())


def _synthetic(settings: GeneratorSettings, clock: SystemClock) -> _Source:
    shop = SyntheticShop(
        seed=settings.seed,
        products=settings.products,
        customers=settings.customers,
        returns=settings.returns,
        mix=settings.mix(),
        currency=settings.currency,
    )
    rhythm = shoppers.rhythm if settings.rhythm == "shop" else lambda _instant: 1.0
    if settings.start is None:
        slices = pacing.live(settings.rate, clock, rhythm)
    else:
        slices = pacing.simulated(settings.rate, settings.start, settings.speed, clock, rhythm)
    parcels = shop.parcels(slices, orders=settings.orders, until=settings.until, simulated=settings.start is not None)
    return _Source(parcels, settings.orders, _asked(settings))


def _asked(settings: GeneratorSettings) -> float:
    speed = Speed(1.0) if settings.start is None else settings.speed
    if settings.rate.per_second is None or speed.factor is None:
        return inf
    return settings.rate.per_second * speed.factor


def _replay(path: Path, settings: GeneratorSettings, clock: SystemClock) -> _Source:
    playback = replay.play(
        path,
        mapping.load(settings.replay_mapping),
        currency=settings.currency,
        speed=settings.speed,
        until=settings.until,
        shift_to_now=settings.shift_to_now,
        clock=clock,
    )
    return _Source(playback.parcels, 0, None, playback.report)


if __name__ == "__main__":
    app()
