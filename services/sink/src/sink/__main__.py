"""``python -m sink``: puts the lanes together and runs them until it is told to stop, or one of them fails."""

import contextlib
import logging
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NoReturn

from sales.countries import region_table
from sales.service import EXIT_AWAY, EXIT_FAILED, Stop, leave_at_once, on_signals, start_logging
from sales.settings import load
from sales.streams import AwayError, Stream, StreamError
from sales.streams.connect import connect
from sales.streams.reaching import open_stream, reach
from sink import aws
from sink.archive import Archive
from sink.checkpoints import S3Checkpoints
from sink.delivery import Delivery, Lane, Limits
from sink.index import OrdersIndex, RollupsIndex, Table
from sink.items import OrderItems
from sink.layouts import Layout, dead_letters_layout, orders_layout, rollups_layout
from sink.settings import SinkSettings
from sink.store import S3Store, StoreError, probe

log = logging.getLogger("sink")

LOOK_SECONDS = 60.0
"""The main thread only waits to be told to stop."""

INDEX_LIMITS = Limits(rotate_bytes=1_000_000, rotate_records=1_000, rotate_seconds=0, buffer_bytes=8_000_000)
"""Items are written as they come; a batch is small, because items take many times their messages' memory, and so that
a slow table is waited for in small steps."""


def main() -> None:
    """Runs the service; ends the process with 0 after a stop in order, 1 after a failure, 2 for a wrong setting, 3 when
    a far side did not come up."""
    settings = load(SinkSettings)
    start_logging("sink")
    stop = Stop()
    # Before the lanes run there is nothing to finish.
    on_signals(leave_at_once)
    with contextlib.ExitStack() as opened:
        try:
            deliveries = _compose(settings, opened)
        except AwayError as error:
            _fail(error, EXIT_AWAY)
        except (StreamError, StoreError) as error:
            _fail(error, EXIT_FAILED)
        on_signals(stop.set)
        fault = _run(deliveries, stop)
    if isinstance(fault, StreamError | StoreError):
        _fail(fault, EXIT_FAILED)
    if fault is not None:
        raise fault


def _fail(error: Exception, code: int) -> NoReturn:
    sys.stderr.write(f"sink: {error}\n")
    raise SystemExit(code)


def _run(deliveries: dict[str, Delivery[Any]], stop: Stop) -> Exception | None:
    """Runs each delivery on a thread of its own until ``stop``; the first one's fault stops the others, in order."""
    faults: list[Exception] = []
    ending = threading.Event()

    def run(name: str, delivery: Delivery[Any]) -> None:
        try:
            delivery.run(ending)
        except Exception as error:  # noqa: BLE001 (handed to the main thread, which ends the process with it)
            log.error("lane %s failed: %s", name, error)  # noqa: TRY400 (the main thread tells the rest)
            faults.append(error)
            stop.set()

    threads = [threading.Thread(target=run, args=item, name=item[0]) for item in deliveries.items()]
    for thread in threads:
        thread.start()
    log.info("running: %s", ", ".join(deliveries))
    while not stop.wait(LOOK_SECONDS):
        pass
    ending.set()
    for thread in threads:
        thread.join()
    log.info("stopped")
    return faults[0] if faults else None


def _compose(settings: SinkSettings, opened: contextlib.ExitStack) -> dict[str, Delivery[Any]]:
    """Every lane, ready to run.

    Raises:
        AwayError: a far side, a stream, the bucket or a table is still missing after CONNECT_SECONDS.
        StreamError: a stream's far side refuses.
        StoreError: the store refuses, or can't keep what the archive needs.
    """

    def await_ready(what: str, where: str, attempt: Callable[[], Any]) -> Any:
        return reach(what, where, settings.connect_seconds, (StreamError,), attempt)

    s3 = aws.client("s3", settings, connections=4 * settings.store_threads)
    store = S3Store(s3, settings.s3_bucket, settings.s3_prefix)
    await_ready("S3", store.address, store.check)
    checkpoints = S3Checkpoints(store)

    wire = connect(settings, settings)
    opened.callback(wire.close)
    regions = region_table(settings.region_overrides)
    rules = settings.rules()
    deliveries: dict[str, Delivery[Any]] = {}

    def stream(name: str) -> Stream:
        return open_stream(wire, name, settings.connect_seconds)

    def add(lane: Lane[Any], source: Stream, limits: Limits) -> None:
        deliveries[lane.name] = Delivery(
            source, settings.group(lane.name), checkpoints, lane, limits, stop_seconds=settings.stop_seconds
        )

    if "archive" in settings.lanes:
        await_ready("S3", store.address, lambda: probe(store))
        limits = Limits(settings.rotate_bytes, settings.rotate_records, settings.rotate_seconds, settings.buffer_bytes)
        puts = opened.enter_context(ThreadPoolExecutor(settings.store_threads, "puts"))
        layouts: dict[str, tuple[str, Callable[[str, int], Layout]]] = {
            "orders": (settings.orders_stream, lambda name, digits: orders_layout(rules, regions, name, digits)),
            "rollups": (settings.rollups_stream, rollups_layout),
            "dead-letters": (settings.dead_letters_stream, dead_letters_layout),
        }
        for kind, (name, layout) in layouts.items():
            source = stream(name)
            of = layout(source.id, source.position_digits)
            lane = Archive(f"archive-{kind}", store, of, stream=source.id, digits=source.position_digits, puts=puts)
            add(lane, source, limits)

    if "index" in settings.lanes:
        dynamodb = aws.client("dynamodb", settings, connections=4 * settings.store_threads)
        requests = opened.enter_context(ThreadPoolExecutor(settings.store_threads, "requests"))
        sales = Table(dynamodb, settings.sales_table, requests)
        trends = Table(dynamodb, settings.trends_table, requests)
        for table in (sales, trends):
            await_ready("DynamoDB", table.address, table.check)
        source = stream(settings.orders_stream)
        make = OrderItems(source.id, source.position_digits, settings.currency, regions)
        add(OrdersIndex("index-orders", sales, rules, make), source, INDEX_LIMITS)
        add(RollupsIndex("index-rollups", trends, settings.currency), stream(settings.rollups_stream), INDEX_LIMITS)
    return deliveries


if __name__ == "__main__":
    main()
