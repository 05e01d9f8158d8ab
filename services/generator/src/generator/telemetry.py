"""What the generator tells of itself: its metrics, each once, and whether it is alive and ready."""

import time
from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from generator.manifest import Kind, Parcel, Tally
from generator.replay import Report
from sales.streams import Writer
from sales.telemetry import Health

LIVE_SECONDS = 120.0
"""Writing a parcel may take 60 s while the writer's queue is full, and ends with an error then. One that takes twice as
long never ends."""

READY_SECONDS = 30.0
"""Acknowledgements come within milliseconds, and within seconds when a broker's leader moves."""


class Telemetry(Collector):
    """Metrics of one generator, worked out when somebody asks. The sending thread tells; the server's threads ask.

    Args:
        asked: good orders a second that are to be sent, infinite for as many as can be made; None: not known, as in a
            replay.
        report: of a replay.
        ticking: seconds of a clock that never goes back.
    """

    def __init__(
        self,
        asked: float | None = None,
        report: Report | None = None,
        ticking: Callable[[], float] = time.monotonic,
    ) -> None:
        self._asked = asked
        self._report = report
        self._ticking = ticking
        self._writer: Writer | None = None
        self._total = Tally()
        self._bytes = 0
        self._writing_since: float | None = None
        self._acknowledged = 0
        self._moved = ticking()
        """when a record was acknowledged last, or nothing waited"""
        self.registry = CollectorRegistry()
        self.registry.register(self)

    def watch(self, writer: Writer) -> None:
        """Tells of what this one sends, from now on."""
        self._writer = writer

    def sending(self, parcel: Parcel) -> None:
        """A parcel is about to be written."""
        self._bytes += sum(map(len, parcel.values))
        self._look()
        self._writing_since = self._ticking()

    def sent(self, total: Tally) -> None:
        """It is written, which is not yet acknowledged; ``total`` counts it too, and goes on growing."""
        self._total = total
        self._writing_since = None

    def collect(self) -> Iterator[Metric]:
        """Every metric as it is now."""
        total = self._total
        records = CounterMetricFamily(
            "tillstream_generator_records", "Records handed to the stream, by kind.", labels=["kind"]
        )
        for kind in Kind:
            records.add_metric([kind], total.by_kind[kind])
        yield records
        yield CounterMetricFamily("tillstream_generator_sent_bytes", "Bytes of their messages.", value=self._bytes)
        newest = total.last_event_time
        yield _gauge(
            "max_event_timestamp_seconds",
            "The latest event time of a good order; NaN before the first.",
            float("nan") if newest is None else newest / 1000,
        )
        yield _gauge("unacknowledged_records", "Records that wait for the stream to have them.", self._look())
        yield _gauge(
            "unacknowledged_seconds",
            "Since the stream acknowledged one while records wait; 0 while none waits.",
            self._silent(),
        )
        if self._asked is not None:
            yield _gauge("asked_orders_per_second", "Good orders a second that RATE asks for; +Inf: max.", self._asked)
        if self._report is not None:
            rows = CounterMetricFamily(
                "tillstream_generator_replay_rows", "Rows of the file that were read, by what became of them.",
                labels=["fate"],
            )  # fmt: skip
            for fate, count in list(self._report.fates.items()):
                rows.add_metric([fate], count)
            yield rows

    def health(self) -> Health:
        """Whether a restart would help, and whether what is sent arrives."""
        return Health(live=self._not_live, ready=self._not_ready)

    def _not_live(self) -> str | None:
        since = self._writing_since
        still = 0.0 if since is None else self._ticking() - since
        return f"a parcel has been being written for {still:.0f} s" if still > LIVE_SECONDS else None

    def _not_ready(self) -> str | None:
        if self._writer is None:
            return "the stream is not open yet"
        waiting = self._look()
        silent = self._silent()
        return f"{waiting} records wait, none was acknowledged for {silent:.0f} s" if silent > READY_SECONDS else None

    def _look(self) -> int:
        """Records that wait. What was written before, and waits no more, is acknowledged."""
        if self._writer is None:
            return 0
        waiting = self._writer.unacknowledged()
        acknowledged = self._total.records - waiting
        if waiting == 0 or acknowledged > self._acknowledged:
            self._moved = self._ticking()
        self._acknowledged = max(self._acknowledged, acknowledged)
        return waiting

    def _silent(self) -> float:
        return 0.0 if self._writer is None else self._ticking() - self._moved


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"tillstream_generator_{name}", text, value=value)
