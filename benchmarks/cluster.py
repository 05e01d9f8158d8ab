"""What a second process of the processor brings, and what an uneven load does to two.

    python -m benchmarks.cluster rate --orders 4000000 --runs 3
    python -m benchmarks.cluster uneven --hot 20000 --cold 1000 --seconds 60

The system has both cores here, and shares core 0 with the broker, Redis and this harness: so what is measured is a
machine of two cores that does everything, and one process is measured in the same way beside two.

``rate`` empties a topic with one process and with two, by turns, answers compared with the oracle (see
`benchmarks.processor`). ``uneven`` sends to partition 0 much more than to each of the others, and asks how old orders
are when Redis shows them: the time from handing a message to the producer until ``sales:positions`` covers it, for the
hot partition and for the others, in the second half of the time.
"""

import argparse
import os
import statistics
import sys
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import replace

import confluent_kafka
import msgspec
import numpy as np
from benchmarks import command, oracle, runs, topics
from benchmarks.lab import SERVERS_CORE, SYSTEM_CORE, Lab, Meter, on_cores

from sales.times import format_time

STEP_SECONDS = 0.01
START_SECONDS = 120.0
SLOTS = 4


def main() -> int:
    """Measures and prints."""
    parser = command.parser(__doc__)
    kinds = parser.add_subparsers(dest="kind", required=True)
    rate = kinds.add_parser("rate", help="one process and two, to the end of a topic")
    command.add_shape(rate, orders=2_000_000)
    rate.add_argument("--runs", type=int, default=3, help="of each; default %(default)s")
    rate.add_argument("--seconds", type=float, default=900, help="a run may take; default %(default)s")
    uneven = kinds.add_parser("uneven", help="a hot partition beside cold ones")
    uneven.add_argument("--hot", type=int, default=20_000, help="orders a second to partition 0; default %(default)s")
    uneven.add_argument("--cold", type=int, default=1_000, help="to each of the others; default %(default)s")
    uneven.add_argument("--seconds", type=float, default=60, help="default %(default)s")
    for kind in (rate, uneven):
        kind.add_argument("--processes", type=int, nargs="+", default=[1, 2], help="default 1 2")
        command.add_settings(kind)
    return command.run(_work, parser.parse_args())


def _work(lab: Lab, options: argparse.Namespace) -> None:
    both = replace(lab, system_cores=(SERVERS_CORE, SYSTEM_CORE))
    (_rate if options.kind == "rate" else _uneven)(both, options)


def _rate(lab: Lab, options: argparse.Namespace) -> None:
    loaded = topics.load(lab, command.shape(options))
    right = oracle.answer(lab, loaded)
    found: dict[int, list[runs.Run]] = {processes: [] for processes in options.processes}
    with on_cores(SERVERS_CORE):
        for number in range(options.runs):
            for processes, done in found.items():
                settings = {**dict(options.set), "PROCESSES": str(processes)}
                name = f"{os.getpid()}-{processes}-{number}"
                done.append(runs.measure(lab, loaded, right, settings=settings, seconds=options.seconds, name=name))
    print("processes   steady/s (from to)            CPU s/M steady   whole/s    first s   peak MB   load")
    for processes, done in found.items():
        rates = [run.figures["steady_orders_per_second"] for run in done]
        figures = runs.medians(done)
        print(
            f"{processes:>9} {statistics.median(rates):>10,.0f} ({min(rates):,.0f} to {max(rates):,.0f})"
            f" {figures['steady_cpu_seconds_per_million']:>12.2f} {figures['whole_orders_per_second']:>12,.0f}"
            f" {figures['first_seconds']:>8.1f} {figures['peak_mb']:>9,.0f} {figures['load']:>6.1f}"
        )
    command.keep(lab, options, {str(n): [run.figures for run in done] for n, done in found.items()})


def _uneven(lab: Lab, options: argparse.Namespace) -> None:
    print("processes             p50 ms  p99 ms  max ms   CPU share  load")
    rates = {partition: options.cold if partition else options.hot for partition in range(SLOTS)}
    found = {}
    for processes in options.processes:
        name = f"uneven-{os.getpid()}-{processes}"
        lab.wire.create(name, partitions=SLOTS, retention_hours=24)
        try:
            settings = {**dict(options.set), "PROCESSES": str(processes)}
            with (
                on_cores(SERVERS_CORE),
                runs.running(lab, name, partitions=SLOTS, settings=settings, name=name) as (child, _),
            ):
                meter = Meter(child.pid)
                load = os.getloadavg()[0]
                delays = _delays(lab, name, rates, options.seconds)
                share = meter.read().cpu_seconds / options.seconds
        finally:
            lab.wire.delete(name)
        for which, partitions in (("hot", [0]), ("cold", [*rates][1:])):
            of_these = np.concatenate([delays[partition] for partition in partitions]) * 1000
            p50, p99 = np.percentile(of_these, [50, 99])
            most = float(of_these.max())
            print(f"{processes:>9} {which:>8} {p50:>10,.0f} {p99:>7,.0f} {most:>7,.0f} {share:>11.0%} {load:>5.1f}")
            found[f"{processes} {which}"] = {"p50_ms": p50, "p99_ms": p99, "max_ms": most}
    command.keep(lab, options, found)


def _delays(lab: Lab, topic: str, rates: Mapping[int, int], seconds: float) -> dict[int, np.ndarray]:
    """Per partition, of what was sent in the second half of the time: seconds from the producer to Redis."""
    producer = confluent_kafka.Producer({"bootstrap.servers": lab.broker.address, "linger.ms": 5})
    stream_id = lab.wire.open(topic).id
    waiting: dict[int, deque[tuple[int, float]]] = {partition: deque() for partition in rates}
    sent = dict.fromkeys(rates, 0)
    delays: dict[int, list[float]] = {partition: [] for partition in rates}
    _send(producer, topic, 0, sent, 1)  # the start is not measured: the first order is waited for
    began = time.monotonic()
    while runs.applied(lab, stream_id, ["0"])["0"] < 0 and time.monotonic() < began + START_SECONDS:
        time.sleep(STEP_SECONDS)
    began = time.monotonic()
    while (now := time.monotonic()) < began + seconds or (any(waiting.values()) and now < began + 2 * seconds):
        if now < began + seconds:
            for partition, rate in rates.items():
                due = int(rate * (now - began)) - sent[partition]
                if due > 0:
                    _send(producer, topic, partition, sent, due)
                    waiting[partition].append((sent[partition] - 1, now))
            producer.poll(0)
        positions = runs.applied(lab, stream_id, map(str, rates))
        now = time.monotonic()
        for partition, queue in waiting.items():
            while queue and queue[0][0] <= positions[str(partition)]:
                at = queue.popleft()[1]
                if at > began + seconds / 2:
                    delays[partition].append(now - at)
        time.sleep(STEP_SECONDS)
    for partition, queue in waiting.items():  # what never came is as old as it is now
        delays[partition] += [time.monotonic() - at for _, at in queue]
    producer.flush(10)
    return {partition: np.array(ages) for partition, ages in delays.items()}


def _send(producer: confluent_kafka.Producer, topic: str, partition: int, sent: dict[int, int], count: int) -> None:
    event_time = format_time(time.time_ns() // 1_000_000)
    for number in range(sent[partition], sent[partition] + count):
        order_id = f"{partition}-{number}"
        producer.produce(topic, key=order_id, value=_order(order_id, number, event_time), partition=partition)
    sent[partition] += count


def _order(order_id: str, number: int, event_time: str) -> bytes:
    line = {"product_id": f"p{number % 5000}", "product_name": "A thing", "category": "Home", "quantity": 1}
    order = {
        "schema": 1,
        "type": "sale",
        "order_id": order_id,
        "event_time": event_time,
        "country": "GB",
        "currency": "USD",
        "lines": [{**line, "unit_amount": 250}],
    }
    return msgspec.json.encode(order)


if __name__ == "__main__":
    sys.exit(main())
