"""How fast the processor empties a topic: real Kafka, real Redis, every answer compared with DuckDB.

    python -m benchmarks.processor --orders 1000000
    python -m benchmarks.processor --orders 10000000 --products 100000 --partitions 16 --bad 0.001 --runs 5

A topic is loaded once for each shape and kept in ``--work``. Then, for each run, ``python -m processor`` starts on a
core of its own with an empty recovery directory, its memory of identities and its snapshots as always, and the clock
of the events. Broker, Redis and this harness share the other core. Three moments are noted:

start    the process is started
first    ``sales:positions`` is there: the first tick that speaks of orders was published
end      ``sales:positions`` covers the topic's ends: every message is in the numbers that Redis holds

``whole`` is start to end, everything included: the interpreter, its imports, compiling. ``steady`` is first to end, and
counts only messages that were not in the first tick: what it does for as long as it runs. At the end all five windows
are compared with the oracle, and a difference is an error. Processor time and the largest resident set are those of the
whole session of processes. "Others" is the share of the system's core that somebody else used: figures with more than
a few percent there belong to a busy machine.
"""

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks import oracle, topics
from benchmarks.lab import SERVERS_CORE, BenchmarkError, Lab, Meter, Usage, machine, on_cores, open_lab

from sales.streams import StreamError
from tillstream.interrupts import Interrupted
from tillstream.local.nursery import Child
from tillstream.local.server import ServerError

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
        """What is reported."""
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


@contextmanager
def running(
    lab: Lab, topic: str, *, partitions: int, settings: Mapping[str, str], name: str
) -> Iterator[tuple[Child, float]]:
    """A processor of that topic on its core, from an empty Redis and an empty recovery directory; stopped in order.
    Gives it, and when (monotonic seconds) it was started.

    Args:
        lab: the servers; their Redis is emptied.
        topic: of the orders.
        partitions: of the topics for its own output.
        settings: of the processor, beside those that the run needs.
        name: of the run, for those topics.

    Raises:
        BenchmarkError: it did not stop in order.
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
        started = time.monotonic()
        child = lab.start("processor", [sys.executable, "-m", "processor"], env, folder / "log")
        try:
            yield child, started
        finally:
            code = child.stop(STOP_SECONDS)
        if code != 0:
            raise BenchmarkError("\n".join([f"the processor ended with {code}; its last lines:", *child.last_lines()]))
    finally:
        for output in outputs.values():
            lab.wire.delete(output)


def applied(lab: Lab, stream_id: str, partitions: Iterable[str]) -> dict[str, int]:
    """The last position of each partition that is in the numbers that Redis holds; -1: none."""
    positions = lab.client.hgetall(f"{PREFIX}positions")
    return {name: int(positions.get(f"{stream_id}/{name}".encode(), -1)) for name in partitions}


def measure(
    lab: Lab,
    loaded: topics.Loaded,
    right: oracle.Answer,
    *,
    settings: Mapping[str, str],
    seconds: float,
    name: str,
) -> Run:
    """One run of the processor to the end of the topic, with its answers compared.

    Args:
        lab: the servers; their Redis is emptied.
        loaded: the topic.
        right: its answer.
        settings: of the processor, beside those that the run needs.
        seconds: how long it may take.
        name: of the run.

    Raises:
        BenchmarkError: it ended, took too long, or its numbers are wrong.
    """
    load = os.getloadavg()[0]
    settings = {"CLOCK": "event", **settings}
    shape = loaded.shape
    with running(lab, shape.topic, partitions=shape.partitions, settings=settings, name=name) as (child, started):
        run = _watch(lab, loaded, child, started=started, seconds=seconds, load=load)
        wrong = oracle.differences(right, lab.client, PREFIX)
    if wrong:
        shown = "\n  ".join(wrong[:SHOWN_DIFFERENCES])
        raise BenchmarkError(f"{len(wrong)} numbers are not those of the oracle, the first of them:\n  {shown}")
    return run


def _watch(lab: Lab, loaded: topics.Loaded, child: Child, *, started: float, seconds: float, load: float) -> Run:
    meter = Meter(child.pid)
    before = meter.read()
    first: tuple[float, int, Usage] | None = None
    metered = said = started
    while True:
        reached = sum(end + 1 for end in applied(lab, loaded.stream_id, loaded.ends).values())
        now = time.monotonic()
        if reached and first is None:
            first = (now, reached, meter.read())
        if reached == loaded.messages and first is not None:
            used = meter.read()
            busy = used.core_seconds - before.core_seconds
            return Run(
                whole_seconds=now - started,
                steady_seconds=now - first[0],
                messages=reached,
                steady_messages=reached - first[1],
                whole_cpu_seconds=used.cpu_seconds,
                steady_cpu_seconds=used.cpu_seconds - first[2].cpu_seconds,
                peak_mb=used.peak_mb,
                others=max(0.0, busy - used.cpu_seconds) / (now - started),
                load=load,
            )
        if child.exit_code() is not None:
            raise BenchmarkError("\n".join(["the processor ended; its last lines:", *child.last_lines()]))
        if now > started + seconds:
            raise BenchmarkError(f"{reached:,} of {loaded.messages:,} messages after {seconds:g} s: --seconds for more")
        if now > metered + METER_SECONDS:
            metered = now
            meter.read()
        if now > said + SAY_SECONDS:
            said = now
            sys.stderr.write(f"{reached:>12,} of {loaded.messages:,} after {now - started:.0f} s\n")
        time.sleep(POLL_SECONDS)


def medians(runs: list[Run]) -> dict[str, float]:
    """The median of each figure by itself."""
    return {name: statistics.median(run.figures[name] for run in runs) for name in runs[0].figures}


def table(runs: list[Run]) -> str:
    """The runs and their medians, for people."""
    head = "       steady/s     whole/s  CPU s/M steady  CPU s/M whole   first s   whole s   peak MB  others   load"

    def row(name: str, figures: dict[str, float]) -> str:
        return (
            f"{name:6} {figures['steady_orders_per_second']:>8,.0f} {figures['whole_orders_per_second']:>11,.0f}"
            f" {figures['steady_cpu_seconds_per_million']:>15.2f} {figures['whole_cpu_seconds_per_million']:>14.2f}"
            f" {figures['first_seconds']:>9.1f} {figures['whole_seconds']:>9.1f} {figures['peak_mb']:>9,.0f}"
            f" {figures['others']:>7.0%} {figures['load']:>6.1f}"
        )

    rows = [row(str(number), run.figures) for number, run in enumerate(runs, start=1)]
    return "\n".join([head, *rows, row("median", medians(runs))])


def document(lab: Lab, loaded: topics.Loaded, settings: dict[str, str], runs: list[Run]) -> dict[str, Any]:
    """Everything, for programs."""
    return {
        "machine": machine(lab),
        "shape": asdict(loaded.shape),
        "messages": loaded.messages,
        "settings": settings,
        "median": medians(runs),
        "runs": [run.figures for run in runs],
    }


def default_work() -> Path:
    """Where topics are kept unless ``--work`` says otherwise."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "tillstream" / "benchmarks"


def add_shape(parser: argparse.ArgumentParser, *, orders: int) -> None:
    """The options that choose a topic, and where it is kept."""
    parser.add_argument("--orders", type=int, default=orders, help="good orders in the topic; default %(default)s")
    parser.add_argument("--products", type=int, default=10_000, help="default %(default)s")
    parser.add_argument("--partitions", type=int, default=4, help="default %(default)s")
    parser.add_argument("--bad", type=float, default=0.0, help="share of bad records, as 0.001; default none")
    parser.add_argument("--late", type=float, default=0.0, help="share of late orders; default none")
    parser.add_argument("--span", type=int, default=7200, help="seconds of event time; default %(default)s")
    parser.add_argument("--work", type=Path, default=default_work(), help="keeps topics; default %(default)s")
    parser.add_argument("--json", type=Path, help="write everything there as well")


def shape(options: argparse.Namespace) -> topics.Shape:
    """The shape that the options choose."""
    return topics.Shape(
        orders=options.orders,
        products=options.products,
        partitions=options.partitions,
        bad=options.bad,
        late=options.late,
        span_seconds=options.span,
    )


def setting(text: str) -> tuple[str, str]:
    """``NAME=VALUE`` as a pair."""
    name, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    return name, value


def main() -> int:
    """Loads, runs, compares, prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_shape(parser, orders=300_000)
    parser.add_argument("--runs", type=int, default=5, help="default %(default)s")
    parser.add_argument("--seconds", type=float, default=900, help="a run may take; default %(default)s")
    parser.add_argument("--set", type=setting, action="append", default=[], help="NAME=VALUE, of the processor")
    options = parser.parse_args()
    try:
        _run(options)
    except (BenchmarkError, ServerError, StreamError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except Interrupted as interrupted:
        return interrupted.exit_code
    return 0


def _run(options: argparse.Namespace) -> None:
    settings = dict(options.set)
    with open_lab(options.work) as lab:
        for name, value in machine(lab).items():
            print(f"{name}: {value}")
        loaded = topics.load(lab, shape(options))
        right = oracle.answer(lab, loaded)
        print(
            f"{loaded.shape.topic}: {loaded.messages:,} messages, {right.bad:,} of them bad; "
            f"{' '.join(f'{name}={value}' for name, value in settings.items()) or 'default settings'}"
        )
        runs = []
        with on_cores(SERVERS_CORE):
            for number in range(1, options.runs + 1):
                name = f"{os.getpid()}-{number}"
                run = measure(lab, loaded, right, settings=settings, seconds=options.seconds, name=name)
                runs.append(run)
                sys.stderr.write(f"run {number} of {options.runs}: {run.whole_seconds:.1f} s, answers equal\n")
        print(table(runs))
        if options.json is not None:
            options.json.write_text(json.dumps(document(lab, loaded, settings, runs), indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
