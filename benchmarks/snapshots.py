"""What a snapshot writes and how long it holds everything up, while orders come in at a rate.

    python -m benchmarks.snapshots --kept 1000 100000 1000000 --rates 5000
    python -m benchmarks.snapshots --kept 100000 --rates 1000 5000 20000 50000 --seconds 60

First the topic gets orders that hold every one of the ``--kept`` products once, so that the longest window keeps
exactly these. Then ``python -m generator`` sends ``--rates`` orders a second of ``--sold`` other products, dated with
the clock on the wall. So over ``--kept`` what changes between two snapshots is the same, and only what is kept differs;
over ``--rates`` it is the other way round.

bytes      of the numbers' journal, for each snapshot: from the processor's metrics, read five times a second
seconds    in which a snapshot is made durable and nothing else is done, from the same place
gap        the longest time between two messages on ``sales:updates``, which is what a reader sees of a stall; it holds
           the engine's own part, the identities' journals, and whatever else took the machine

Nothing of the first ``--warm-up`` seconds counts. The processor has a core for itself, everybody else shares the other.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field

import numpy as np
from benchmarks import command, metrics, paced, runs
from benchmarks.lab import SERVERS_CORE, BenchmarkError, Lab, on_cores

from sales.times import format_time
from tillstream.local.server import free_ports

START_SECONDS = 120.0
SCRAPE_SECONDS = 0.2
LINES = 40
"""Of the orders that hold the kept products."""
BATCH = 1_000
TICK_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Snapshots:
    """One number of kept products at one rate."""

    kept: int
    """products in the longest window at the end, as the processor counts them"""
    rate: int
    """orders a second"""
    count: int
    """snapshots that count"""
    bytes_p50: float
    bytes_max: float
    p50_ms: float
    p99_ms: float
    max_ms: float
    gap_ms: float
    """the longest time between two ticks; they are 20 to 100 ms apart"""
    gap_p99_ms: float


@dataclass(slots=True)
class _Seen:
    """What was seen between two looks at the metrics and two ticks."""

    snapshots: list[tuple[float, float]] = field(default_factory=list)
    """seconds and bytes of each; two between two looks count twice as their mean"""
    ticks: list[float] = field(default_factory=list)
    """monotonic seconds"""
    _then: tuple[float, float, float] | None = None

    def look(self, port: int) -> None:
        found = metrics.scrape(port)
        now = (found["snapshot_seconds_count"], found["snapshot_seconds_sum"], found["snapshot_bytes_total"])
        if self._then is not None:
            count, seconds, size = (a - b for a, b in zip(now, self._then, strict=True))
            if count:
                self.snapshots += [(seconds / count, size / count)] * int(count)
        self._then = now


def measure(lab: Lab, kept: int, rate: int, options: argparse.Namespace, *, name: str) -> Snapshots:
    """One point, on a topic of its own that is deleted afterwards.

    Raises:
        BenchmarkError: a process ended, or does not get on.
    """
    topic = f"snapshots-{name}"
    [port] = free_ports()
    lab.wire.create(topic, partitions=options.partitions, retention_hours=24)
    try:
        stream = lab.wire.open(topic)
        with stream.writer() as writer:
            for keys, values in _orders(kept):
                writer.write(keys, values)
        ends = {partition: -1 if end is None else end for partition, end in stream.ends().items()}
        settings = {**dict(options.set), "METRICS_PORT": str(port)}
        with runs.running(lab, topic, partitions=options.partitions, settings=settings, name=name) as (child, started):
            while any(runs.applied(lab, stream.id, ends)[partition] < end for partition, end in ends.items()):
                runs.check(child, started + START_SECONDS, "has not applied the products to keep")
                time.sleep(runs.POLL_SECONDS)
            taken = metrics.scrape(port)["snapshot_seconds_count"]
            while metrics.scrape(port)["snapshot_seconds_count"] < taken + 2:  # they are written, each once
                runs.check(child, started + START_SECONDS, "takes no snapshots")
                time.sleep(SCRAPE_SECONDS)
            generator = paced.generate(lab, topic, rate=rate, orders=0, products=options.sold)
            while runs.applied(lab, stream.id, ends) == ends:
                runs.check(child, started + START_SECONDS, "gets no orders")
                time.sleep(runs.POLL_SECONDS)
            updates = lab.client.pubsub(ignore_subscribe_messages=True)
            updates.subscribe(f"{runs.PREFIX}updates")
            seen, begin = _Seen(), time.monotonic() + options.warm_up
            look_at, end_at = begin, begin + options.seconds
            try:
                while (now := time.monotonic()) < end_at:
                    if updates.get_message(timeout=TICK_SECONDS) is not None and now >= begin:
                        seen.ticks.append(time.monotonic())
                    if now >= look_at:
                        look_at = now + SCRAPE_SECONDS
                        seen.look(port)
                    runs.check(child, end_at + START_SECONDS, "does not answer")
                    paced.has_ended(generator)
            finally:
                updates.close()
                generator.stop()
            return _result(seen, int(metrics.scrape(port)["products"]), rate)
    finally:
        lab.wire.delete(topic)


def _result(seen: _Seen, kept: int, rate: int) -> Snapshots:
    if not seen.snapshots or len(seen.ticks) < 2:
        raise BenchmarkError(f"{len(seen.snapshots)} snapshots and {len(seen.ticks)} ticks were seen: more --seconds")
    seconds, sizes = np.array(seen.snapshots, dtype=np.float64).reshape(-1, 2).T
    gaps = np.diff(seen.ticks) * 1000
    return Snapshots(
        kept=kept,
        rate=rate,
        count=len(seconds),
        bytes_p50=float(np.percentile(sizes, 50)),
        bytes_max=float(sizes.max()),
        p50_ms=float(np.percentile(seconds, 50)) * 1000,
        p99_ms=float(np.percentile(seconds, 99)) * 1000,
        max_ms=float(seconds.max()) * 1000,
        gap_ms=float(gaps.max()),
        gap_p99_ms=float(np.percentile(gaps, 99)),
    )


def _orders(products: int) -> Iterator[tuple[list[bytes], list[bytes]]]:
    """Keys and messages of orders that hold each of some products once, dated now."""
    at = format_time(time.time_ns() // 1_000_000)
    keys: list[bytes] = []
    values: list[bytes] = []
    for first in range(0, products, LINES):
        order = {
            "schema": 1,
            "type": "sale",
            "order_id": f"kept-{first}",
            "event_time": at,
            "customer_id": None,
            "country": "GB",
            "currency": "USD",
            "lines": [
                {
                    "product_id": f"K{number}",
                    "product_name": f"A product that is kept, number {number}",
                    "category": f"Category {number % 9}",
                    "quantity": 1,
                    "unit_amount": 100,
                }
                for number in range(first, min(first + LINES, products))
            ],
        }
        keys.append(f"kept-{first}".encode())
        values.append(json.dumps(order).encode())
        if len(keys) == BATCH:
            yield keys, values
            keys, values = [], []
    yield keys, values


def table(found: list[Snapshots]) -> str:
    """For people."""
    lines = ["                            bytes of a snapshot        milliseconds          ms between ticks"]
    lines.append("     kept  orders/s count          p50       max     p50     p99     max      p99     max")
    lines += [
        f"{one.kept:>9,} {one.rate:>9,} {one.count:>5} {one.bytes_p50:>12,.0f} {one.bytes_max:>9,.0f}"
        f" {one.p50_ms:>7.1f} {one.p99_ms:>7.1f} {one.max_ms:>7.1f} {one.gap_p99_ms:>8.0f} {one.gap_ms:>7.0f}"
        for one in found
    ]
    return "\n".join(lines)


def main() -> int:
    """Measures each number of products at each rate and prints."""
    parser = command.parser(__doc__)
    command.add_settings(parser)
    parser.add_argument("--kept", type=int, nargs="+", default=[1_000, 10_000, 100_000, 1_000_000], help="products")
    parser.add_argument("--rates", type=int, nargs="+", default=[5_000], help="orders a second; default %(default)s")
    parser.add_argument("--sold", type=int, default=1_000, help="products that are sold meanwhile; default %(default)s")
    parser.add_argument("--seconds", type=float, default=30, help="that count; default %(default)s")
    parser.add_argument("--warm-up", type=float, default=5, help="seconds before them; default %(default)s")
    parser.add_argument("--partitions", type=int, default=4, help="default %(default)s")
    return command.run(_work, parser.parse_args())


def _work(lab: Lab, options: argparse.Namespace) -> None:
    found = []
    with on_cores(SERVERS_CORE):
        for kept in options.kept:
            for rate in options.rates:
                found.append(measure(lab, kept, rate, options, name=f"{os.getpid()}-{len(found)}"))
                sys.stderr.write(f"{kept:,} products kept, {rate:,} orders a second: done\n")
    print(table(found))
    command.keep(lab, options, {"snapshots": [asdict(one) for one in found]})


if __name__ == "__main__":
    sys.exit(main())
