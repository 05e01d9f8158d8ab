"""``python -m sink``: puts the lanes together and runs them until it is told to stop, or the archive fails."""

import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NoReturn, Protocol

from sales.countries import region_table
from sales.events import Log
from sales.logs import start_logging
from sales.memory import keep_freed
from sales.service import (
    EXIT_AWAY,
    EXIT_FAILED,
    EXIT_SETTINGS,
    Stop,
    collect_rarely,
    leave_at_once,
    on_signals,
)
from sales.settings import load
from sales.streams import AwayError, Stream, StreamError
from sales.streams.connect import connect
from sales.streams.reaching import open_stream, reach
from sales.telemetry import served
from sink import aws, failpoints
from sink.archive import Archive
from sink.checkpoints import S3Checkpoints
from sink.delivery import Delivery, Limits
from sink.index import OrdersIndex, RollupsIndex
from sink.items import OrderItems
from sink.lanes import Lane
from sink.layouts import Layout
from sink.messages import dead_letters_layout, rollups_layout
from sink.orders import orders_layout
from sink.settings import SinkSettings
from sink.store import S3Store, StoreError, probe
from sink.telemetry import Telemetry
from sink.writes import Table

log = Log("sink")

LOOK_SECONDS = 60.0
"""How often the main thread, which only waits to be told to stop, says that a lane has failed, or is far behind."""

LEAVE_SECONDS = 5.0
"""What a stop may take beyond STOP_SECONDS, to commit and to leave the groups."""

CHECKPOINT_SECONDS = 3.0
"""How long one answer to a lane that keeps its place in S3 may take. The index must not wait for an S3 that is away."""

INDEX_LIMITS = Limits(rotate_bytes=1_000_000, rotate_records=1_000, rotate_seconds=0, buffer_bytes=16_000_000)
"""Items are written as they come; a batch is small, because items take many times their messages' memory, and so that
a slow table is waited for in small steps."""


ARCHIVE = "archive-"
"""How the names of the archive's lanes begin."""


class Runs(Protocol):
    """A lane's ``Delivery``."""

    def run(self, stop: threading.Event) -> None:
        """Blocks until ``stop`` is set, and somewhat longer; raises what ended it before."""
        ...


def main() -> None:
    """Runs the service; ends the process with 0 after a stop in order, 1 after a failure, 2 for a wrong setting, 3 when
    a far side did not come up."""
    start_logging("sink")
    settings = load(SinkSettings)
    keep_freed()
    try:
        failpoints.arm(os.environ.get(failpoints.VARIABLE, ""))
    except ValueError as error:
        _fail(error, EXIT_SETTINGS)
    stop = Stop()
    # Before the lanes run there is nothing to finish.
    on_signals(leave_at_once)
    telemetry = Telemetry(3600 * settings.retention_hours)
    try:
        with _telling(telemetry, settings):
            deliveries = _compose(settings, telemetry)
            on_signals(stop.set)
            collect_rarely()
            faults = run_lanes(deliveries, stop, settings.stop_seconds + LEAVE_SECONDS, telemetry.alarm)
    except AwayError as error:
        _fail(error, EXIT_AWAY)
    except (StreamError, StoreError, OSError) as error:
        _fail(error, EXIT_FAILED)
    for name, fault in faults.items():
        log.error("service_failed", "{error}", error=f"lane {name} failed: {fault}", exit_code=EXIT_FAILED)
    # At once: Python would wait for each thread, and so for requests whose far side takes its time.
    logging.shutdown()
    sys.stderr.flush()
    os._exit(EXIT_FAILED if faults else 0)


def _telling(telemetry: Telemetry, settings: SinkSettings) -> AbstractContextManager[object]:
    """Raises OSError where METRICS_HOST and METRICS_PORT can't be used."""
    if not settings.metrics_port:
        return nullcontext()
    return served(settings.metrics_host, settings.metrics_port, telemetry.registry, telemetry.health())


def _fail(error: Exception, code: int) -> NoReturn:
    log.error("service_failed", "{error}", error=error, exit_code=code)
    raise SystemExit(code)


def run_lanes(
    deliveries: Mapping[str, Runs], stop: Stop, stop_seconds: float, look: Callable[[], None] = lambda: None
) -> dict[str, Exception]:
    """Runs each delivery on a thread of its own until ``stop``, and for at most ``stop_seconds`` more; calls ``look``
    every LOOK_SECONDS. The faults, by lane.

    A lane of the archive that fails stops all, in order. One of the index ends alone, and says so again and again: what
    can't be looked up must not keep orders from being stored.
    """
    faults: dict[str, Exception] = {}
    ending = threading.Event()

    def run(name: str, delivery: Runs) -> None:
        try:
            delivery.run(ending)
        except Exception as error:  # handed to the main thread, which ends the process with it
            unexpected = not isinstance(error, StreamError | StoreError)
            log.log(
                logging.ERROR, "lane_failed", "lane {lane} failed: {error}", lane=name, error=error, exc_info=unexpected
            )
            faults[name] = error
            if name.startswith(ARCHIVE) or faults.keys() == deliveries.keys():
                stop.set()

    threads = [threading.Thread(target=run, args=item, name=item[0], daemon=True) for item in deliveries.items()]
    for thread in threads:
        thread.start()
    log.info("sink_running", "running: {lanes}", lanes=", ".join(deliveries))
    while not stop.wait(LOOK_SECONDS):
        for name, fault in faults.copy().items():
            log.error(
                "lane_down", "lane {lane} does not run, the others go on; it failed: {error}", lane=name, error=fault
            )
        look()
    ending.set()
    deadline = time.monotonic() + stop_seconds
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    late = [thread.name for thread in threads if thread.is_alive()]
    if late:
        log.warning(
            "lanes_not_stopped",
            "not done in {stop_seconds:.0f} s: {lanes}; what is not stored will be read again",
            stop_seconds=stop_seconds,
            lanes=", ".join(late),
        )
    log.info("service_stopped", "stopped in order")
    return faults


def _compose(settings: SinkSettings, telemetry: Telemetry) -> dict[str, Delivery[Any]]:
    """Every lane, ready to run, and watched.

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
    lanes = len(settings.lanes)
    quick = aws.client("s3", settings, connections=4 * lanes, answer_seconds=CHECKPOINT_SECONDS, attempts=1)
    checkpoints = S3Checkpoints(S3Store(quick, settings.s3_bucket, settings.s3_prefix))

    wire = connect(settings, settings)
    regions = region_table(settings.region_overrides)
    rules = settings.rules()
    deliveries: dict[str, Delivery[Any]] = {}
    tables: dict[str, Table] = {}

    reads = settings.reads()

    def stream(lane: str) -> Stream:
        return open_stream(wire, reads[lane], settings.connect_seconds)

    def add(lane: Lane[Any], source: Stream, limits: Limits) -> None:
        deliveries[lane.name] = Delivery(
            source, settings.group(lane.name), checkpoints, lane, limits, stop_seconds=settings.stop_seconds
        )

    if "archive" in settings.lanes:
        await_ready("S3", store.address, lambda: probe(store))
        limits = Limits(settings.rotate_bytes, settings.rotate_records, settings.rotate_seconds, settings.buffer_bytes)
        puts = ThreadPoolExecutor(settings.store_threads, "puts")
        layouts: dict[str, Callable[[str, int], Layout[Any]]] = {
            f"{ARCHIVE}orders": lambda name, digits: orders_layout(rules, regions, name, digits),
            f"{ARCHIVE}rollups": rollups_layout,
            f"{ARCHIVE}dead-letters": dead_letters_layout,
        }
        for name, layout in layouts.items():
            source = stream(name)
            of = layout(source.id, source.position_digits)
            store.abort_leftovers(f"{of.folder}/")
            lane = Archive(name, store, of, stream=source.id, digits=source.position_digits, puts=puts)
            add(lane, source, limits)

    if "index" in settings.lanes:
        dynamodb = aws.dynamodb(settings, connections=4 * settings.store_threads)
        requests = ThreadPoolExecutor(settings.store_threads, "requests")
        sales = Table(dynamodb, settings.sales_table, requests)
        trends = Table(dynamodb, settings.trends_table, requests)
        tables = {settings.sales_table: sales, settings.trends_table: trends}
        for table in tables.values():
            await_ready("DynamoDB", table.address, table.check)
        source = stream("index-orders")
        make = OrderItems(source.id, source.position_digits, settings.currency, regions)
        add(OrdersIndex("index-orders", sales, rules, make), source, INDEX_LIMITS)
        add(RollupsIndex("index-rollups", trends, settings.currency), stream("index-rollups"), INDEX_LIMITS)
    telemetry.watch(deliveries, tables)
    return deliveries


if __name__ == "__main__":
    main()
