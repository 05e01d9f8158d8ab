"""Synthetic orders a second on one core: generated only, and sent into a real Kafka (all acknowledged).

    python -m benchmarks.generator
    python -m benchmarks.generator --bootstrap 127.0.0.1:9092

The process and all its threads are pinned to one core; the broker should have another one. Beside the rate by the
wall clock stands the rate per second of processor time, which says the same where nothing else wants the core.
"""

import argparse
import os
import platform
import statistics
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import confluent_kafka
import numpy as np

from generator import pacing
from generator.clock import SystemClock
from generator.delivery import deliver
from generator.disturbances import Mix
from generator.manifest import Parcel
from generator.synthetic import SyntheticShop
from sales.settings import StreamSettings
from sales.streams import Writer
from sales.streams.kafka import KafkaWire

RUNS = 5
DISTURBED = Mix(
    late=0.02, out_of_order=0.05, duplicates=0.02, conflicts=0.005, malformed=0.01, future=0.002, unknown_currency=0.002
)


def _shop(mix: Mix) -> SyntheticShop:
    return SyntheticShop(seed=1, products=500, customers=10_000, returns=0.04, mix=mix, currency="USD")


def _parcels(shop: SyntheticShop, orders: int) -> Iterator[Parcel]:
    slices = pacing.live(pacing.Rate(None), SystemClock(), lambda _instant: 1.0)
    return shop.parcels(slices, orders=orders, until=None, simulated=False)


@dataclass(frozen=True)
class _Rate:
    wall: float
    processor: float


def _timed(orders: int, work: Callable[[], object]) -> _Rate:
    wall, processor = time.perf_counter(), time.process_time()
    work()
    return _Rate(orders / (time.perf_counter() - wall), orders / (time.process_time() - processor))


def _generate(orders: int, mix: Mix) -> _Rate:
    parcels = _parcels(_shop(mix), orders)
    return _timed(orders, lambda: deque(parcels, maxlen=0))


def _send(writer: Writer, orders: int, mix: Mix) -> _Rate:
    parcels = _parcels(_shop(mix), orders)
    return _timed(orders, lambda: deliver(parcels, writer))


def _report(what: str, rates: list[_Rate]) -> None:
    wall = statistics.median(rate.wall for rate in rates)
    processor = statistics.median(rate.processor for rate in rates)
    runs = ", ".join(f"{rate.wall:,.0f}" for rate in rates)
    print(f"{what:55} {wall:>9,.0f}/s, {processor:>9,.0f} per processor second ({runs})")


def main() -> None:
    """Runs and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bootstrap", default=os.environ.get("KAFKA_BOOTSTRAP_SERVERS"), help="a real Kafka")
    parser.add_argument("--orders", type=int, default=500_000, help="in each run")
    parser.add_argument("--core", type=int, default=0, help="the core to run on")
    options = parser.parse_args()
    os.sched_setaffinity(0, {options.core})

    model = [
        line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line
    ]
    print(f"{model[0]}, core {options.core} of {os.cpu_count()}; {RUNS} runs of {options.orders:,} orders, medians")
    versions = {
        "Python": platform.python_version(),
        "numpy": np.__version__,
        "confluent-kafka": confluent_kafka.__version__,
        "librdkafka": confluent_kafka.libversion()[0],
    }
    print(", ".join(f"{name} {version}" for name, version in versions.items()))
    first = next(islice(_parcels(_shop(Mix()), 5000), 1))
    size, lines = statistics.mean(map(len, first.values)), first.tally.lines / len(first.keys)
    print(f"an order has {size:.0f} bytes and {lines:.2f} lines")

    for name, mix in (("no disturbances", Mix()), ("all disturbances", DISTURBED)):
        _report(f"generated, {name}", [_generate(options.orders, mix) for _ in range(RUNS)])
    if not options.bootstrap:
        return
    wire = KafkaWire.connect(StreamSettings(stream="kafka", kafka_bootstrap_servers=options.bootstrap))
    for name, mix in (("no disturbances", Mix()), ("all disturbances", DISTURBED)):
        topic = f"generator-benchmark-{os.getpid()}"
        wire.create(topic, partitions=4, retention_hours=24)
        try:
            with wire.open(topic).writer() as writer:
                _send(writer, 20_000, mix)
                _report(
                    f"sent to Kafka and acknowledged, {name}", [_send(writer, options.orders, mix) for _ in range(RUNS)]
                )
        finally:
            wire.delete(topic)
    wire.close()


if __name__ == "__main__":
    main()
