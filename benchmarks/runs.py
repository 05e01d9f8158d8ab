"""A processor on its core: started with nothing, watched to the end of a topic, its answers compared."""

import os
import statistics
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks import oracle, topics
from benchmarks.lab import BenchmarkError, Lab, Meter, Usage

from tillstream.local.nursery import Child

POLL_SECONDS = 0.01
"""How exactly the moments are known."""
METER_SECONDS = 0.5
SAY_SECONDS = 5.0
STOP_SECONDS = 60.0
SHOWN_DIFFERENCES = 10
PREFIX = "sales:"


@dataclass(frozen=True, slots=True)
class Run:
    """One run from an empty state to the end of the topic."""

    whole_seconds: float
    steady_seconds: float
    messages: int
    steady_messages: int
    whole_cpu_seconds: float
    steady_cpu_seconds: float
    peak_mb: float
    others: float
    """share of the core's time that others took"""
    load: float
    """load average of a minute, at the start"""

    @property
    def figures(self) -> dict[str, float]:
        """What is reported.

        Raises:
            BenchmarkError: the first tick held everything.
        """
        if not self.steady_messages:
            raise BenchmarkError(
                f"the first tick held all {self.messages:,} messages: more --orders, for a steady rate"
            )
        return {
            "steady_orders_per_second": self.steady_messages / self.steady_seconds,
            "whole_orders_per_second": self.messages / self.whole_seconds,
            "steady_cpu_seconds_per_million": self.steady_cpu_seconds / self.steady_messages * 1e6,
            "whole_cpu_seconds_per_million": self.whole_cpu_seconds / self.messages * 1e6,
            "whole_seconds": self.whole_seconds,
            "first_seconds": self.whole_seconds - self.steady_seconds,
            "peak_mb": self.peak_mb,
            "others": self.others,
            "load": self.load,
        }


def medians(runs: list[Run]) -> dict[str, float]:
    """The median of each figure by itself."""
    return {name: statistics.median(run.figures[name] for run in runs) for name in runs[0].figures}


@dataclass(frozen=True, slots=True)
class Place:
    """Where one processor after another runs: a recovery directory, and topics for what it writes."""

    lab: Lab
    recovery: Path
    env: Mapping[str, str]
    log: Path
    """the processors' lines, one process after another"""

    def start(self) -> Child:
        """A processor, on its core."""
        return self.lab.start("processor", [sys.executable, "-m", "processor"], self.env, self.log)

    def stop(self, child: Child) -> None:
        """Stops it in order.

        Raises:
            BenchmarkError: it would not.
        """
        code = child.stop(STOP_SECONDS)
        if code != 0:
            raise BenchmarkError("\n".join([f"the processor ended with {code}; its last lines:", *child.last_lines()]))


@contextmanager
def place(lab: Lab, topic: str, *, partitions: int, settings: Mapping[str, str], name: str) -> Iterator[Place]:
    """An empty Redis, an empty recovery directory, and topics for the processor's own output, which go with it.

    Args:
        lab: the servers; their Redis is emptied.
        topic: of the orders.
        partitions: of the topics for its own output.
        settings: of the processor, beside those that the run needs.
        name: of the run, for those topics.
    """
    outputs = {"ROLLUPS_STREAM": f"rollups-{name}", "DEAD_LETTERS_STREAM": f"dead-letters-{name}"}
    for output in outputs.values():
        lab.wire.create(output, partitions=partitions, retention_hours=24)
    lab.client.flushall()
    folder = lab.scratch("processor")
    env = {
        **os.environ,
        **outputs,
        "STREAM": "kafka",
        "KAFKA_BOOTSTRAP_SERVERS": lab.broker.address,
        "ORDERS_STREAM": topic,
        "REDIS_URL": lab.store.address,
        "REDIS_PREFIX": PREFIX,
        "RECOVERY_DIR": str(folder / "recovery"),
        **settings,
    }
    try:
        yield Place(lab, folder / "recovery", env, folder / "log")
    finally:
        for output in outputs.values():
            lab.wire.delete(output)


@contextmanager
def running(
    lab: Lab, topic: str, *, partitions: int, settings: Mapping[str, str], name: str
) -> Iterator[tuple[Child, float]]:
    """A processor in a `place` of its own, stopped in order. Gives it, and when (monotonic seconds) it was started.

    Raises:
        BenchmarkError: it did not stop in order.
    """
    with place(lab, topic, partitions=partitions, settings=settings, name=name) as where:
        started = time.monotonic()
        child = where.start()
        try:
            yield child, started
        except BaseException:
            child.stop(STOP_SECONDS)
            raise
        where.stop(child)


def applied(lab: Lab, stream_id: str, partitions: Iterable[str]) -> dict[str, int]:
    """The last position of each partition that is in the numbers that Redis holds; -1: none."""
    positions = lab.client.hgetall(f"{PREFIX}positions")
    return {name: int(positions.get(f"{stream_id}/{name}".encode(), -1)) for name in partitions}


def check(child: Child, deadline: float, what: str) -> None:
    """Nothing while the processor runs and the deadline (monotonic seconds) has not passed.

    Raises:
        BenchmarkError: else; ``what`` completes "the processor …".
    """
    if child.exit_code() is not None:
        raise BenchmarkError("\n".join(["the processor ended; its last lines:", *child.last_lines()]))
    if time.monotonic() > deadline:
        raise BenchmarkError("\n".join([f"the processor {what} in time; its last lines:", *child.last_lines()]))


def measure(
    lab: Lab,
    loaded: topics.Loaded,
    right: oracle.Answer,
    *,
    settings: Mapping[str, str],
    seconds: float,
    name: str,
    only: str = "",
) -> Run:
    """One run of the processor to the end of the topic, with its answers compared.

    Args:
        lab: the servers; their Redis is emptied.
        loaded: the topic.
        right: its answer.
        settings: of the processor, beside those that the run needs.
        seconds: how long it may take.
        name: of the run.
        only: a regular expression of the keys to compare, where the processor keeps fewer windows than the oracle.

    Raises:
        BenchmarkError: it ended, took too long, or its numbers are wrong.
    """
    load = os.getloadavg()[0]
    settings = {"CLOCK": "event", **settings}
    shape = loaded.shape
    with running(lab, shape.topic, partitions=shape.partitions, settings=settings, name=name) as (child, started):
        run = _watch(lab, loaded, child, started=started, seconds=seconds, load=load)
        compare(lab, right, only=only)
    return run


def compare(lab: Lab, right: oracle.Answer, *, only: str = "") -> None:
    """Compares what Redis holds.

    Raises:
        BenchmarkError: it is not the oracle's answer.
    """
    wrong = oracle.differences(right, lab.client, PREFIX, only=only)
    if wrong:
        shown = "\n  ".join(wrong[:SHOWN_DIFFERENCES])
        raise BenchmarkError(f"{len(wrong)} numbers are not those of the oracle, the first of them:\n  {shown}")


def reached(lab: Lab, loaded: topics.Loaded) -> int:
    """How many of a topic's messages are in the numbers that Redis holds."""
    return sum(end + 1 for end in applied(lab, loaded.stream_id, loaded.ends).values())


def _watch(lab: Lab, loaded: topics.Loaded, child: Child, *, started: float, seconds: float, load: float) -> Run:
    meter = Meter(child.pid)
    before = meter.read()
    first: tuple[float, int, Usage] | None = None
    metered = said = started
    while True:
        so_far = reached(lab, loaded)
        now = time.monotonic()
        if so_far and first is None:
            first = (now, so_far, meter.read())
        if so_far == loaded.messages and first is not None:
            used = meter.read()
            busy = used.core_seconds - before.core_seconds
            return Run(
                whole_seconds=now - started,
                steady_seconds=now - first[0],
                messages=so_far,
                steady_messages=so_far - first[1],
                whole_cpu_seconds=used.cpu_seconds,
                steady_cpu_seconds=used.cpu_seconds - first[2].cpu_seconds,
                peak_mb=used.peak_mb,
                others=max(0.0, busy - used.cpu_seconds) / (now - started),
                load=load,
            )
        check(child, started + seconds, f"has applied {so_far:,} of {loaded.messages:,} messages, not all")
        if now > metered + METER_SECONDS:
            metered = now
            meter.read()
        if now > said + SAY_SECONDS:
            said = now
            sys.stderr.write(f"{so_far:>12,} of {loaded.messages:,} after {now - started:.0f} s\n")
        time.sleep(POLL_SECONDS)
