"""Sends parcels and keeps the count; says how far it is."""

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

from generator.clock import SystemClock
from generator.manifest import Parcel, Tally
from generator.pacing import Clock
from generator.telemetry import Telemetry
from sales.events import Log, logs_json
from sales.settings import AwsSettings, StreamSettings
from sales.streams import Writer
from sales.streams.connect import connect
from sales.streams.reaching import open_stream
from sales.times import format_time

log = Log(__name__)

FLUSH_SECONDS = 25.0
"""How long the last acknowledgements may take; below the 30 s that Kubernetes gives a pod to stop."""

_PLAIN_SECONDS = 10.0
"""Between two lines of progress where nobody watches a terminal."""


class Listener(Protocol):
    """Hears how far the sending is; must not block."""

    def sending(self, parcel: Parcel) -> None:
        """Called before each parcel is written."""
        ...

    def sent(self, total: Tally) -> None:
        """Called when it is written; ``total`` is the same object each time."""
        ...


@dataclass(frozen=True, slots=True)
class Sent:
    """What was sent and acknowledged, and where to."""

    total: Tally
    stream_id: str


def send(
    parcels: Iterable[Parcel],
    streams: StreamSettings,
    aws: AwsSettings,
    clock: SystemClock,
    *,
    orders: int = 0,
    telemetry: Telemetry | None = None,
) -> Sent:
    """Connects, sends all parcels to the orders stream, waits until they are acknowledged. Blocks as long as they last.

    Args:
        parcels: what to send.
        streams: which wire, and the stream's name.
        aws: where AWS is.
        clock: a signal before the first parcel ends the process at once; from then on it only asks to stop.
        orders: how many there will be; 0 where that is not known.
        telemetry: tells others of it.

    Raises:
        AwayError: the far side, or the stream, is not there after CONNECT_SECONDS.
        StreamError: it refused us, or something was not acknowledged.
    """
    wire = connect(streams, aws)
    try:
        stream = open_stream(wire, streams.orders_stream, streams.connect_seconds)
        log.info("generator_running", "sending to {stream}", stream=stream.id)
        clock.finish_first()
        with stream.writer() as writer, progress(clock, orders) as listener:
            listeners: list[Listener] = [listener]
            if telemetry is not None:
                telemetry.watch(writer)
                listeners.append(telemetry)
            return Sent(deliver(parcels, writer, *listeners), stream.id)
    finally:
        wire.close()


def deliver(parcels: Iterable[Parcel], writer: Writer, *listeners: Listener) -> Tally:
    """Writes all parcels and waits until they are acknowledged; what was sent, counted.

    Blocks as long as the parcels last. The far side's slowness holds the parcels back.

    Raises:
        StreamError: something was not acknowledged; the count is then unknown.
    """
    total = Tally()
    for parcel in parcels:
        for listener in listeners:
            listener.sending(parcel)
        writer.write(parcel.keys, parcel.values)
        total.add(parcel.tally)
        for listener in listeners:
            listener.sent(total)
    writer.flush(FLUSH_SECONDS)
    return total


class _Progress:
    """Hears of what is sent, not of what is being sent."""

    def sending(self, parcel: Parcel) -> None:
        """Nothing to say yet."""


class _PlainLines(_Progress):
    """A line on the log now and then."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._said = clock.monotonic()
        self._records = 0

    def sent(self, total: Tally) -> None:
        now = self._clock.monotonic()
        passed = now - self._said
        if passed < _PLAIN_SECONDS:
            return
        log.info(
            "records_sent",
            "{records:,} records sent ({records_per_second:,.0f}/s), orders up to {last_event_time}",
            records=total.records,
            records_per_second=(total.records - self._records) / passed,
            last_event_time="none" if total.last_event_time is None else format_time(total.last_event_time),
        )
        self._said, self._records = now, total.records


class _Bar(_Progress):
    """A moving line on a terminal."""

    def __init__(self, progress: Progress, clock: Clock, orders: int) -> None:
        self._progress = progress
        self._clock = clock
        self._begun = clock.monotonic()
        self._task = progress.add_task("sending", total=orders or None)

    def sent(self, total: Tally) -> None:
        rate = total.records / max(self._clock.monotonic() - self._begun, 0.001)
        self._progress.update(self._task, completed=total.identities, description=_words(total, rate))


@contextmanager
def progress(clock: Clock, orders: int) -> Iterator[Listener]:
    """Progress on stderr: a moving line on a terminal, else a line on the log every ten seconds.

    Args:
        clock: for the rate.
        orders: how many there will be; 0 where that is not known.
    """
    if logs_json() or not sys.stderr.isatty():
        yield _PlainLines(clock)
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}"), *((BarColumn(),) if orders else ()))
    with Progress(*columns, console=Console(stderr=True)) as moving:
        yield _Bar(moving, clock, orders)


def _words(total: Tally, rate: float) -> str:
    last = "" if total.last_event_time is None else f", orders up to {format_time(total.last_event_time)}"
    return f"{total.records:,} records sent ({rate:,.0f}/s){last}"
