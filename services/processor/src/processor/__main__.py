"""``python -m processor``: reads the settings, connects everything, runs until SIGTERM or SIGINT."""

import contextlib
import os
import ssl
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass
from datetime import timedelta

import redis
from bytewax.dataflow import Dataflow
from bytewax.outputs import FixedPartitionedSink
from bytewax.run import cli_main

from processor import assembly
from processor.clock import leave_when_set
from processor.cluster import ARGUMENT, Alone, Causes, ClusterError, Company, First, Further, Seat, leave_broken
from processor.dataflow import NumbersLogic, Shown, SnapshotLog, build
from processor.journal import Journal, JournalError, Place
from processor.lost import WAY_OUT
from processor.patience import Patience, PatientWriter
from processor.publish import BoardSink, ElsewhereSink, RollupsSink
from processor.recovery import RecoveryDirectory, RecoveryError, store_fault
from processor.sales_metrics import SalesMetrics
from processor.settings import ProcessorSettings
from processor.sharing import SharedSource, epoch_seconds
from processor.snapshots import SnapshotError
from processor.source import OrdersSource, TooManyDeadLettersError
from processor.telemetry import Telemetry
from sales.board import BoardReader, BoardWriter, FencedError, Keys, Tick, client_of
from sales.events import Log
from sales.logs import start_logging
from sales.memory import keep_freed
from sales.rollups import Rollup
from sales.service import (
    EXIT_AWAY,
    EXIT_FAILED,
    Stop,
    cause_among,
    collect_rarely,
    leave_at_once,
    on_signals,
)
from sales.settings import load
from sales.streams import AwayError, PositionLostError, Stream, StreamError, Wire
from sales.streams.connect import connect
from sales.streams.reaching import open_stream, reach
from sales.telemetry import served
from sales.times import parse_time

log = Log("processor")

REDIS_TIMEOUT_SECONDS = 5.0

EXPECTED = (
    ClusterError,
    StreamError,
    RecoveryError,
    JournalError,
    SnapshotError,
    TooManyDeadLettersError,
    FencedError,
    redis.RedisError,
    OSError,
)
"""What ends the processor with one line instead of a traceback."""

AWAY = (AwayError, redis.ConnectionError, redis.TimeoutError)
"""Those that say that a far side does not answer."""


def main() -> int:
    """Runs the processor; the exit code."""
    start_logging("processor")
    keep_freed()
    # Set to anything, even to "false", this makes the engine open a web server.
    os.environ.pop("BYTEWAX_DATAFLOW_API_ENABLED", None)
    settings = load(ProcessorSettings)
    stopping = Stop()
    on_signals(leave_at_once)
    further = Further(stopping) if sys.argv[1:] == [ARGUMENT] else None
    try:
        wire = connect(settings, settings)
        streams = Streams.open(wire, settings)
        client = _redis(settings)
    except (StreamError, redis.RedisError) as error:
        code = EXIT_AWAY if isinstance(error, AWAY) else EXIT_FAILED
        log.error("service_failed", "{error}", error=error, exit_code=code)  # noqa: TRY400  # a traceback helps nobody
        return code
    on_signals(stopping.set)
    try:
        run(streams, client, settings, stopping, further)
    except Exception as error:
        cause = cause_among(error, EXPECTED) or store_fault(error, settings.recovery_dir)
        if cause is None:
            log.exception("processor_broke_down", "the processor broke down", exit_code=EXIT_FAILED)
        elif isinstance(cause, PositionLostError):
            log.error(  # noqa: TRY400  # as above
                "position_lost", "{error}: {way_out}", error=cause, way_out=WAY_OUT, exit_code=EXIT_FAILED
            )
        else:
            log.error("service_failed", "{error}", error=cause, exit_code=EXIT_FAILED)  # noqa: TRY400  # as above
        if settings.processes > 1:
            leave_broken()
        return EXIT_FAILED
    finally:
        wire.close()
    if further is None:
        log.info("service_stopped", "stopped in order")
    return 0


@dataclass(frozen=True, slots=True)
class Streams:
    """What the processor reads and writes."""

    orders: Stream
    dead_letters: Stream
    rollups: Stream

    @classmethod
    def open(cls, wire: Wire, settings: ProcessorSettings) -> "Streams":
        """All three, waited for.

        Raises:
            AwayError: one of them is not there after CONNECT_SECONDS.
        """
        names = (settings.orders_stream, settings.dead_letters_stream, settings.rollups_stream)
        return cls(*(open_stream(wire, name, settings.connect_seconds) for name in names))


def run(
    streams: Streams,
    client: "redis.Redis",
    settings: ProcessorSettings,
    stopping: Stop,
    further: Further | None = None,
) -> None:
    """Puts the processor together and runs it until ``stopping``, with more processes if they are asked for.

    Args:
        streams: what is read and written.
        client: of Redis.
        settings: the same in all processes.
        stopping: asked all the time.
        further: where this is one of the processes that another one has started.

    Raises:
        Exception: one of EXPECTED, perhaps as the cause of the engine's own error.
    """
    orders = streams.orders
    recovery = RecoveryDirectory(
        settings.recovery_dir,
        stream=orders.id,
        slots=settings.source_slots,
        lock=None if further is None else further.seat.lock,
    )
    with closing(recovery):
        if further is not None:
            _work(streams, client, settings, stopping, recovery, further)
            return
        SnapshotLog.check(Journal(recovery.numbers()))
        if settings.processes == 1:
            _work(streams, client, settings, stopping, recovery, Alone())
        else:
            with First(settings.processes, recovery.lock, settings.connect_seconds, stopping) as first:
                _work(streams, client, settings, stopping, recovery, first)


def _work(
    streams: Streams,
    client: "redis.Redis",
    settings: ProcessorSettings,
    stopping: Stop,
    recovery: RecoveryDirectory,
    company: Company,
) -> None:
    telemetry = Telemetry(3600 * settings.retention_hours, settings.recovery_dir)
    causes, seat = Causes(), company.seat
    flow = _dataflow(streams, client, settings, stopping, recovery, telemetry, seat, causes)
    collect_rarely()
    if not company.meet():
        return
    if seat.index == 0:
        windows = " ".join(window.name for window in settings.windows)
        log.info(
            "processor_running",
            "reading {stream} with {processes} processes; windows {windows}",
            stream=streams.orders.id,
            processes=seat.processes,
            windows=windows,
        )
    leave_when_set(telemetry.still)
    with _telling(telemetry, settings, seat), _explained(causes, company):
        cli_main(  # type: ignore[no-untyped-call]  # the engine's stubs say nothing
            flow,
            epoch_interval=timedelta(seconds=epoch_seconds(settings.snapshot_ms / 1000, seat)),
            recovery_config=recovery.engine,
            **seat.engine(),
        )


@contextlib.contextmanager
def _explained(causes: Causes, company: Company) -> Iterator[None]:
    """What broke the engine, in place of what the engine says about it."""
    try:
        yield
    except BaseException as error:  # the engine's panics are no Exceptions
        if causes.first is not None:
            raise causes.first from None
        if (lost := company.lost()) is not None:
            raise ClusterError(lost) from error
        raise


def _telling(telemetry: Telemetry, settings: ProcessorSettings, seat: Seat) -> AbstractContextManager[object]:
    if not settings.metrics_port or seat.index:
        return nullcontext()
    return served(settings.metrics_host, settings.metrics_port, telemetry.registry, telemetry.health())


def _dataflow(
    streams: Streams,
    client: "redis.Redis",
    settings: ProcessorSettings,
    stopping: Stop,
    recovery: RecoveryDirectory,
    telemetry: Telemetry,
    seat: Seat,
    causes: Causes,
) -> Dataflow:
    keys = Keys(settings.redis_prefix)
    shown = _shown(client, keys, streams.orders)
    if shown is not None and not recovery.owner.committed and seat.index == 0:
        log.warning(
            "recovery_directory_new",
            "RECOVERY_DIR {directory} is new, but the board shows that {stream} was read before: its state is built "
            "again from the oldest order in the stream. If that is younger than the longest window, stop, and "
            "`tillstream rebuild`",
            directory=settings.recovery_dir,
            stream=streams.orders.id,
        )
    writer = BoardWriter(client, keys, settings.live_ttl_seconds)

    def wait(seconds: float) -> bool:
        telemetry.retried()
        return stopping.wait(seconds)

    patience = Patience(settings.away_seconds, wait)
    if seat.index == 0:
        recovery.hold(writer.claim(max(recovery.owner.token, _now_ms())))

    def numbers_logic(resume_state: Place | None) -> NumbersLogic:
        return NumbersLogic(
            numbers=assembly.numbers(settings),
            journal=Journal(recovery.numbers()),
            recovery=recovery,
            resume_state=resume_state,
            clock=settings.clock,
            now_ms=_now_ms,
            tick_ms=settings.tick_ms,
            shown=shown,
            telemetry=telemetry,
        )

    source = OrdersSource(
        stream=streams.orders,
        slots=settings.source_slots,
        decoder=assembly.decoder(settings, recovery.owner.seed),
        recovery=recovery,
        dead_letters_writer=lambda: PatientWriter(streams.dead_letters, patience),
        horizon_ms=settings.horizon_ms,
        poll_records=settings.poll_records,
        dead_letter_share=settings.dead_letter_share,
        stopping=stopping.is_set,
        telemetry=telemetry,
    )
    board: FixedPartitionedSink[Tick, None] = ElsewhereSink()
    rollups: FixedPartitionedSink[Rollup, None] = ElsewhereSink()
    if seat.index == 0:
        sales_metrics = SalesMetrics(keys, settings.windows, settings.currency)
        telemetry.registry.register(sales_metrics)
        board = BoardSink(writer, patience, telemetry, sales_metrics)
        rollups = RollupsSink(PatientWriter(streams.rollups, patience))
    if seat.processes == 1:
        return build(orders=source, numbers=numbers_logic, board=board, rollups=rollups)
    shared = SharedSource(source, seat, settings.snapshot_ms / 1000)
    for step in (shared, board, rollups):
        causes.watch(step)
    return build(orders=shared, numbers=causes.noting(numbers_logic), board=board, rollups=rollups)


def _redis(settings: ProcessorSettings) -> "redis.Redis":
    """A client that has reached Redis once.

    Raises:
        AwayError: away for CONNECT_SECONDS.
        redis.RedisError: it refused us.
    """
    client = client_of(settings.redis_url.get_secret_value(), REDIS_TIMEOUT_SECONDS)
    options = client.connection_pool.connection_kwargs
    where = f"{options.get('host')}:{options.get('port')}"

    def ping() -> None:
        try:
            client.ping()
        except redis.AuthenticationError as refusal:  # to redis-py a lost connection, which might mend itself
            raise redis.ResponseError(f"Redis at {where} refuses us: {refusal}") from refusal
        except redis.ConnectionError as fault:
            if isinstance(cause := cause_among(fault, (ssl.SSLError,)), ssl.SSLCertVerificationError):
                raise redis.ResponseError(f"Redis at {where} is not trusted: {cause.verify_message}") from fault
            raise

    reach("Redis", where, settings.connect_seconds, AWAY, ping)
    log.info("redis_reached", "Redis answers at {where}", where=where)
    return client


def _shown(client: "redis.Redis", keys: Keys, orders: Stream) -> Shown | None:
    """What the board shows of this stream already."""
    live = BoardReader(client, keys, ()).read()
    positions = {name: text for name, text in live.positions.items() if name.startswith(f"{orders.id}/")}
    return Shown(as_of=parse_time(live.status["as_of"]), positions=positions) if positions else None


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


if __name__ == "__main__":
    sys.exit(main())
