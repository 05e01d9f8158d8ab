"""What the processor tells of itself: its metrics, each once, and whether it is alive and ready."""

import shutil
import time
from collections.abc import Callable, Iterable, Mapping
from math import inf, nan
from pathlib import Path
from typing import NamedTuple

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from processor.numbers import Standing
from processor.panes import Reading
from sales.telemetry import Health

LIVE_SECONDS = 60.0
"""Without a turn of the engine for so long the processor is stuck: it takes turns while idle, and says so while it
waits for something that is away."""

READY_SECONDS = 30.0
"""What the board shows may be so much older than what the stream holds."""

_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)


class Publish(NamedTuple):
    """What it took to write one tick to the board."""

    seconds: float
    worked: float
    """of processor time, seconds"""


class Telemetry:
    """Metrics of one processor. The engine's thread writes; the server's threads read."""

    def __init__(
        self,
        retention_seconds: float,
        recovery_dir: Path,
        now: Callable[[], float] = time.time,
        ticking: Callable[[], float] = time.monotonic,
    ) -> None:
        """All at nothing.

        Args:
            retention_seconds: how long the orders stream keeps records.
            recovery_dir: on the disk that must not become full.
            now: seconds since 1970.
            ticking: seconds of a clock that never goes back.
        """
        self._retention_seconds = retention_seconds
        self._recovery_dir = recovery_dir
        self._now = now
        self._ticking = ticking
        self._turned = ticking()
        self._ticked: float | None = None
        """the last tick of this process; None: it has had none, as one that holds no numbers"""
        self._published: float | None = None
        self.last_publish = Publish(0.0, 0.0)
        self._reached: dict[str, float] = {}
        """partition to a time (seconds since 1970) up to which everything was read, as far as is known"""
        self._behind: set[str] = set()
        """partitions that are not at their end, or of which that is not known"""
        self.registry = CollectorRegistry()

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"tillstream_processor_{name}", text, labels, registry=self.registry)

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"tillstream_processor_{name}", text, labels, registry=self.registry)

        def seconds(name: str, text: str) -> Histogram:
            return Histogram(f"tillstream_processor_{name}_seconds", text, buckets=_SECONDS, registry=self.registry)

        self._messages = counter("messages", "Messages decoded, by tier: compiled or plain.", "tier")
        self._events = counter("events", "What messages were: accepted, duplicate or dead_letter.", "outcome")
        self._dead_letters = counter("dead_letters", "Dead letters, by reason.", "reason")
        for tier in ("compiled", "plain"):  # at 0 from the start: what never comes can be noticed, too
            self._messages.labels(tier)
        for outcome in ("accepted", "duplicate", "dead_letter"):
            self._events.labels(outcome)
        self._late = gauge("late_events", "Events that came after their minute was closed, since the state began.")
        self._lag = gauge("lag_messages", "Messages not yet read; NaN where the wire does not count them.")
        self._lag_seconds = gauge(
            "lag_seconds", "Of the partition that is furthest behind: age of the last message read, 0 at the end."
        )
        self._as_of = gauge("as_of_timestamp_seconds", "The time that the numbers speak of.")
        self._newest = gauge("max_event_timestamp_seconds", "The latest event time that was accepted.")
        self._freshness = gauge("freshness_seconds", "Since the board was last written.")
        self._products = gauge("products", "Products in the longest window.")
        self._identities = gauge("identities_memory_bytes", "Memory of the tables that find duplicates.", "slot")
        self._publish = seconds("publish", "Time to write one tick to the board.")
        self._snapshot = seconds("snapshot", "Time to make the numbers' state durable, while nothing else is done.")
        self._snapshot_bytes = counter("snapshot_bytes", "Bytes of the numbers' state written.")
        self._retries = counter("retries", "Times that Redis or a stream was away and is tried again.")
        retention = gauge("retention_used_ratio", "lag_seconds as a share of RETENTION_HOURS; lost above 1.")
        free = gauge("recovery_disk_free_bytes", "Room on the disk of RECOVERY_DIR; NaN when it can't be asked.")
        size = gauge("recovery_disk_bytes", "Size of the disk of RECOVERY_DIR; NaN when it can't be asked.")
        retention.set_function(lambda: self._seconds_behind() / self._retention_seconds)
        free.set_function(lambda: self._disk()[0])
        size.set_function(lambda: self._disk()[1])
        self._lag_seconds.set_function(self._seconds_behind)
        self._freshness.set_function(self._since_published)

    def turn(self) -> None:
        """The engine asks a slot for messages. A tick is no turn: it does not show that the slots are not held up by
        another process of the cluster."""
        self._turned = self._ticking()

    def retried(self) -> None:
        """Something is away and will be tried again: who waits in order is alive. That is a turn, and stands for a
        tick."""
        self._retries.inc()
        self._turned = self._ticked = self._ticking()

    def still(self) -> float:
        """For how many seconds the engine has not asked for messages, or not ticked. Any thread."""
        now = self._ticking()
        return max(now - self._turned, 0.0 if self._ticked is None else now - self._ticked)

    def took(self, counts: Mapping[str, int], readings: Iterable[Reading], lags: Mapping[str, int | None]) -> None:
        """Some messages were decoded and judged, here or in another process: what a partial sum says of itself."""
        for outcome, name in (("accepted", "accepted"), ("duplicate", "duplicates"), ("dead_letter", "dead_letters")):
            self._events.labels(outcome).inc(counts[name])
        for name, count in counts.items():
            if name.startswith("dead_letters:"):
                self._dead_letters.labels(name.removeprefix("dead_letters:")).inc(count)
        for reading in readings:
            self._messages.labels("compiled").inc(reading.scanned)
            self._messages.labels("plain").inc(reading.messages - reading.scanned)
            self._identities.labels(reading.slot).set(reading.identities_bytes)
            for partition, broker_time in reading.broker_times.items():
                self._reached[partition] = max(self._reached.get(partition, 0.0), broker_time / 1000)
        for partition, lag in lags.items():
            if lag == 0:
                self._reached[partition] = self._now()
                self._behind.discard(partition)
            else:
                self._behind.add(partition)
                self._reached.setdefault(partition, -inf)

    def stands(self, standing: Standing) -> None:
        """Where the numbers stand at a tick."""
        self._ticked = self._ticking()
        self._as_of.set(standing.as_of / 1000)
        self._newest.set(standing.newest / 1000)
        self._late.set(standing.late)
        self._lag.set(float("nan") if standing.lag is None else standing.lag)
        self._products.set(standing.products)

    def published(self, seconds: float, worked: float) -> None:
        """A tick is on the board: after so long, and with so much processor time."""
        self._published = self._ticking()
        self.last_publish = Publish(seconds, worked)
        self._publish.observe(seconds)

    def saved(self, seconds: float, size: int) -> None:
        """The numbers' state is durable, with so many bytes more."""
        self._snapshot.observe(seconds)
        self._snapshot_bytes.inc(size)

    def health(self) -> Health:
        """Whether a restart would help, and whether the board is fresh."""
        return Health(live=self._not_live, ready=self._not_ready)

    def _not_live(self) -> str | None:
        still = self._ticking() - self._turned
        return f"nobody has looked for messages for {still:.0f} s" if still > LIVE_SECONDS else None

    def _not_ready(self) -> str | None:
        since = self._since_published()
        if since == inf:
            return "nothing is on the board yet"
        if since > READY_SECONDS:
            return f"the board was last written {since:.0f} s ago"
        if (unread := self._ticking() - self._turned) > READY_SECONDS:
            return f"nobody has looked for messages for {unread:.0f} s"
        behind = self._seconds_behind()
        if behind == inf:
            return "how far the board is behind the stream is not known"
        if behind > READY_SECONDS:
            return f"the board is {behind:.0f} s behind the stream"
        return None

    def _disk(self) -> tuple[float, float]:
        """Free and all bytes, as far as this user may take them."""
        try:
            usage = shutil.disk_usage(self._recovery_dir)
        except OSError:
            return nan, nan
        return usage.free, usage.total

    def _since_published(self) -> float:
        return inf if self._published is None else self._ticking() - self._published

    def _seconds_behind(self) -> float:
        """Of the partition that is furthest behind; 0 at the stream's end: what was read last may be old when nobody
        buys. Infinite before anything was heard of one."""
        if not self._reached:
            return inf
        return max((max(0.0, self._now() - self._reached[partition]) for partition in list(self._behind)), default=0.0)
