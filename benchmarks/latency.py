"""How old an order is when it can be read in Redis, for every order of a paced stream.

    python -m benchmarks.latency --rates 10000 50000 100000 --seconds 30

``python -m generator --rate R/s`` dates each order with the clock on the wall and sends it to a new topic; the
processor runs as always (``CLOCK=wall``). A subscriber of ``sales:updates`` asks, at each message, for
``sales:positions``, and looks at the clock when the answer is there: whatever these positions cover can be read by
then. Afterwards the topic is read once for the event times. The latency of an order is the first such moment that
covers its position, less its event time: it holds the generator's own pause (it acts every 20 ms), the producer, the
broker, the processor, the wait for the tick (20 to 100 ms), Redis, and the answer. All on one machine and one clock.

Orders of the first ``--warm-up`` seconds don't count, all others do. Broker, Redis, generator and this subscriber share
the servers' core; the processor has its own.
"""

import argparse
import os
import sys
import time
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt
from benchmarks import command, oracle, paced, runs
from benchmarks.lab import SERVERS_CORE, Lab, Meter, on_cores

from sales.times import parse_time
from tillstream.local.nursery import Child

START_SECONDS = 60.0
DRAIN_SECONDS = 60.0
"""How long the processor may need for the rest when the generator has ended."""
_TIME = b'"event_time":"'
_TIME_LENGTH = len("2026-11-20T08:12:33.123Z")

Ticks = dict[str, list[tuple[int, int]]]
"""partition to (position, wall clock in ms when it could be read), ascending"""


@dataclass(frozen=True, slots=True)
class Latency:
    """One rate."""

    rate: int
    orders: int
    """that count"""
    sent_per_second: float
    """what the generator really managed"""
    p50_ms: float
    p99_ms: float
    max_ms: float
    behind: int
    """messages not yet readable when the generator had ended: much more than a tick's worth is a processor that did
    not keep up, and then a longer run would give other figures"""
    cpu_share: float
    """of the core, by the processor"""
    others: float


def measure(lab: Lab, rate: int, options: argparse.Namespace, *, name: str) -> Latency:
    """One rate, on a topic of its own that is deleted afterwards.

    Raises:
        BenchmarkError: a process ended, or the processor did not come to the end.
    """
    topic = f"latency-{name}"
    lab.wire.create(topic, partitions=options.partitions, retention_hours=24)
    try:
        stream_id = lab.wire.open(topic).id
        with runs.running(lab, topic, partitions=options.partitions, settings=dict(options.set), name=name) as (
            child,
            _,
        ):
            return _listen(lab, rate, child, options, topic=topic, stream_id=stream_id)
    finally:
        lab.wire.delete(topic)


def _listen(lab: Lab, rate: int, child: Child, options: argparse.Namespace, *, topic: str, stream_id: str) -> Latency:
    partitions = lab.wire.open(topic).partitions()
    updates = lab.client.pubsub(ignore_subscribe_messages=True)  # type: ignore[no-untyped-call]  # its stubs say nothing
    updates.subscribe(f"{runs.PREFIX}updates")
    try:
        deadline = time.monotonic() + START_SECONDS
        while updates.get_message(timeout=1.0) is None:
            runs.check(child, deadline, "has published nothing")
        orders = round(rate * (options.warm_up + options.seconds))
        generator = paced.generate(lab, topic, rate=rate, orders=orders, products=options.products)
        meter = Meter(child.pid)
        before, started = meter.read(), time.monotonic()
        ticks: Ticks = {partition: [(-1, 0)] for partition in partitions}
        ends: dict[str, int] | None = None
        deadline, behind = started + 3 * (options.warm_up + options.seconds) + START_SECONDS, 0
        while ends is None or any(ticks[partition][-1][0] < end for partition, end in ends.items()):
            if updates.get_message(timeout=0.5) is not None:
                positions = runs.applied(lab, stream_id, partitions)
                now_ms = time.time_ns() // 1_000_000
                for partition, position in positions.items():
                    if position > ticks[partition][-1][0]:
                        ticks[partition].append((position, now_ms))
            runs.check(child, deadline, "is not at the end of the topic")
            if ends is None and paced.has_ended(generator):
                found = lab.wire.open(topic).ends()
                ends = {name: -1 if end is None else end for name, end in found.items()}
                behind = sum(end - ticks[partition][-1][0] for partition, end in ends.items())
                deadline = time.monotonic() + DRAIN_SECONDS
        used, seconds = meter.read(), time.monotonic() - started
    finally:
        updates.close()
    event_times = _event_times(lab, topic, ends)
    first_ms = min(int(times.min()) for times in event_times.values())
    last_ms = max(int(times.max()) for times in event_times.values())
    latencies = _latencies(ticks, event_times, from_ms=first_ms + round(options.warm_up * 1000))
    cpu = used.cpu_seconds - before.cpu_seconds
    sent = sum(len(times) for times in event_times.values())
    return Latency(
        rate=rate,
        orders=len(latencies),
        sent_per_second=sent / (last_ms - first_ms) * 1000,
        p50_ms=float(np.percentile(latencies, 50)),
        p99_ms=float(np.percentile(latencies, 99)),
        max_ms=float(latencies.max()),
        behind=behind,
        cpu_share=cpu / seconds,
        others=max(0.0, used.core_seconds - before.core_seconds - cpu) / seconds,
    )


def _event_times(lab: Lab, topic: str, ends: dict[str, int]) -> dict[str, npt.NDArray[np.int64]]:
    """Per partition the event time (ms) of each position."""
    times = {partition: np.zeros(end + 1, dtype=np.int64) for partition, end in ends.items()}
    for message in oracle.messages(lab.broker.address, topic, ends):
        value = message.value() or b""
        at = value.index(_TIME) + len(_TIME)
        times[str(message.partition())][message.offset()] = parse_time(value[at : at + _TIME_LENGTH].decode())
    return times


def _latencies(ticks: Ticks, event_times: dict[str, npt.NDArray[np.int64]], *, from_ms: int) -> npt.NDArray[np.int64]:
    parts = []
    for partition, times in event_times.items():
        positions, moments = np.array(ticks[partition], dtype=np.int64).T
        readable = moments[np.searchsorted(positions, np.arange(len(times)))]
        parts.append((readable - times)[times >= from_ms])
    return np.concatenate(parts)


def table(found: list[Latency]) -> str:
    """For people."""
    lines = ["  rate/s     sent/s      orders  p50 ms  p99 ms  max ms    behind   CPU  others"]
    lines += [
        f"{one.rate:>8,} {one.sent_per_second:>10,.0f} {one.orders:>11,} {one.p50_ms:>7,.0f} {one.p99_ms:>7,.0f}"
        f" {one.max_ms:>7,.0f} {one.behind:>9,} {one.cpu_share:>5.0%} {one.others:>7.0%}"
        for one in found
    ]
    return "\n".join(lines)


def main() -> int:
    """Measures each rate and prints."""
    parser = command.parser(__doc__)
    command.add_settings(parser)
    parser.add_argument("--rates", type=int, nargs="+", default=[10_000, 50_000, 100_000], help="orders a second")
    parser.add_argument("--seconds", type=float, default=30, help="that count; default %(default)s")
    parser.add_argument("--warm-up", type=float, default=10, help="seconds before them; default %(default)s")
    parser.add_argument("--products", type=int, default=10_000, help="default %(default)s")
    parser.add_argument("--partitions", type=int, default=4, help="default %(default)s")
    return command.run(_work, parser.parse_args())


def _work(lab: Lab, options: argparse.Namespace) -> None:
    found = []
    with on_cores(SERVERS_CORE):
        for rate in options.rates:
            found.append(measure(lab, rate, options, name=f"{os.getpid()}-{rate}"))
            sys.stderr.write(f"{rate:,} orders a second: done\n")
    print(table(found))
    command.keep(lab, options, {"latency": [asdict(one) for one in found]})


if __name__ == "__main__":
    sys.exit(main())
