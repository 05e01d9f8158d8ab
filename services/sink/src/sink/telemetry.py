"""What the sink tells of itself: its metrics, each once, whether it is alive and ready, and the alarm for its lag."""

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Protocol

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from sales.events import Log
from sales.telemetry import Health
from sink.delivery import Counts, Standing

log = Log(__name__)

LIVE_SECONDS = 120.0
"""A lane that has not taken a turn for so long is stuck. The longest turn is one in which partitions are assigned while
the store does not answer: three tries of 30 s for the first of them, then they wait for it beside the turns."""

WARN_SHARE = 0.5
ALARM_SHARE = 0.8
"""Of the stream's retention: what is not stored before it has passed is lost."""

_COUNTERS: tuple[tuple[str, str, Callable[[Counts], int]], ...] = (
    ("messages", "Messages read; what was given up is read, and counted, again.", lambda counts: counts.taken),
    ("stored", "Orders, rollups or dead letters stored.", lambda counts: counts.read - counts.rejected),
    ("rejected", "Messages in stored extents that can't be decoded.", lambda counts: counts.rejected),
    ("extents", "Extents stored: pieces of a partition, each as one.", lambda counts: counts.extents),
    ("repeated_extents", "Extents that another writer had pinned or stored.", lambda counts: counts.repeated),
    ("retries", "Times that a store was away and is tried again.", lambda counts: counts.retries),
    ("objects", "Objects of stored extents in S3.", lambda counts: counts.objects),
    ("object_bytes", "Their bytes.", lambda counts: counts.bytes),
    ("items", "Items written to DynamoDB that were not there before.", lambda counts: counts.items),
    ("duplicates", "Items whose key was in DynamoDB before: the right one stands.", lambda counts: counts.duplicates),
)

_PLACE = ("lane", "partition")


class Watched(Protocol):
    """A lane's ``Delivery``, as it is watched from other threads."""

    counts: Counts
    running: bool
    standing: Standing | None

    def still_seconds(self) -> float:
        """Since its last turn."""
        ...


class Throttled(Protocol):
    """A table."""

    @property
    def throttled(self) -> int:
        """Writes that it put off so far."""
        ...


class Telemetry(Collector):
    """Metrics of one sink, taken from its lanes when somebody asks; asked from the server's threads.

    Args:
        retention_seconds: how long the streams keep records.
        now: seconds since 1970.
    """

    def __init__(self, retention_seconds: float, now: Callable[[], float] = time.time) -> None:
        self._retention_seconds = retention_seconds
        self._now = now
        self._lanes: Mapping[str, Watched] = {}
        self._tables: Mapping[str, Throttled] = {}
        self.registry = CollectorRegistry()
        self.registry.register(self)

    def watch(self, lanes: Mapping[str, Watched], tables: Mapping[str, Throttled]) -> None:
        """Tells of these, by name, from now on."""
        self._lanes, self._tables = lanes, tables

    def collect(self) -> Iterator[Metric]:
        """Every metric as it is now."""
        for name, text, count in _COUNTERS:
            counter = CounterMetricFamily(f"tillstream_sink_{name}", text, labels=["lane"])
            for lane, watched in self._lanes.items():
                counter.add_metric([lane], count(watched.counts))
            yield counter
        throttled = CounterMetricFamily(
            "tillstream_sink_throttled", "Writes and look-ups that DynamoDB put off.", labels=["table"]
        )
        for name, table in self._tables.items():
            throttled.add_metric([name], table.throttled)
        yield throttled
        up = _gauge("lane_up", "Does the lane run? 1 or 0.", "lane")
        held = _gauge("held_bytes", "Memory that messages take which are not stored.", "lane")
        messages = _gauge("lag_messages", "Messages not stored; NaN where the wire does not count them.", *_PLACE)
        seconds = _gauge("lag_seconds", "Age of the oldest message that is not stored, 0 without one.", *_PLACE)
        share = _gauge("retention_used_ratio", "That age as a share of RETENTION_HOURS; lost above 1.", *_PLACE)
        now = self._now()
        for lane, watched in self._lanes.items():
            up.add_metric([lane], watched.running)
            standing = watched.standing
            if standing is None:
                continue
            held.add_metric([lane], standing.held)
            for partition, lag in standing.lags.items():
                place = [lane, partition]
                messages.add_metric(place, float("nan") if lag.messages is None else lag.messages)
                seconds.add_metric(place, lag.seconds(now))
                share.add_metric(place, lag.seconds(now) / self._retention_seconds)
        yield from (up, held, messages, seconds, share)

    def alarm(self) -> None:
        """Says on the log which lanes may lose records to the stream's retention; a line a lane."""
        now = self._now()
        for lane, watched in self._lanes.items():
            lags = {} if watched.standing is None else watched.standing.lags
            seconds, partition = max(((lag.seconds(now), name) for name, lag in lags.items()), default=(0.0, ""))
            share = seconds / self._retention_seconds
            if share < WARN_SHARE:
                continue
            log.log(
                logging.ERROR if share >= ALARM_SHARE else logging.WARNING,
                "retention_near",
                "lane {lane} is {behind_hours:.1f} h behind in partition {partition}, {used_ratio:.0%} of the "
                "{retention_hours:.0f} h that RETENTION_HOURS says its stream keeps; what is older is lost. Look above "
                "for what it waits for, give it more of that, or have the stream keep its records for longer",
                lane=lane,
                partition=partition,
                behind_hours=seconds / 3600,
                used_ratio=share,
                retention_hours=self._retention_seconds / 3600,
            )

    def health(self) -> Health:
        """Whether a restart would help, and whether everything that arrives is being stored."""
        return Health(live=self._not_live, ready=self._not_ready)

    def _not_live(self) -> str | None:
        for lane, watched in self._lanes.items():
            if watched.running and (still := watched.still_seconds()) > LIVE_SECONDS:
                return f"lane {lane} has not moved for {still:.0f} s"
        return None

    def _not_ready(self) -> str | None:
        if not self._lanes:
            return "the lanes don't run yet"
        for lane, watched in self._lanes.items():
            if not watched.running:
                return f"lane {lane} does not run"
            if watched.standing is None:
                return f"lane {lane} has no partitions yet"
            if watched.standing.unstarted:
                names = ", ".join(watched.standing.unstarted)
                return f"lane {lane} does not know yet where partitions begin: {names}"
        return None


def _gauge(name: str, text: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"tillstream_sink_{name}", text, labels=labels)
