"""How many order lines a second one core carries from a stream's messages to Parquet objects in S3.

    S3_BUCKET=bench AWS_ENDPOINT_URL=http://127.0.0.1:5000 taskset -c 0 python -m benchmarks.sink

The bucket must exist. The stream is in memory, its orders are those of ``--hours`` hours; everything else is what the
service runs: the loop, decoding, rotation, encoding, digests, conditional PUTs, done marks.
"""

import argparse
import json
import random
import resource
import sys
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor

from sales.countries import REGION_OF
from sales.rules import Rules
from sales.settings import StoreSettings
from sales.streams.memory import MemoryCheckpoints, MemoryStream, MemoryWire
from sales.times import format_time
from sink import aws
from sink.archive import Archive
from sink.delivery import Delivery, Limits
from sink.layouts import orders_layout
from sink.store import S3Store

START_MS = 1_795_157_553_123


def fill(stream: MemoryStream, orders: int, hours: int) -> int:
    """Writes orders of 1 to 4 lines (2.3 on average); returns the number of lines."""
    dice = random.Random(1)  # noqa: S311 (the same orders each time)
    products = [(f"P{n}", f"A product of the shop, number {n}", f"Category {n % 9}") for n in range(4_000)]
    lines = 0
    with stream.writer() as writer:
        for _ in range(orders):
            order_id = str(uuid.UUID(int=dice.getrandbits(128)))
            chosen = [dice.choice(products) for _ in range(dice.choice((1, 1, 2, 2, 3, 3, 4)))]
            order = {
                "schema": 1,
                "type": "sale",
                "order_id": order_id,
                "event_time": format_time(START_MS - dice.randrange(hours * 3_600_000)),
                "customer_id": dice.randrange(100_000),
                "country": dice.choice(("GB", "US", "DE", "FR")),
                "currency": "USD",
                "lines": [
                    {
                        "product_id": product,
                        "product_name": name,
                        "category": category,
                        "quantity": dice.randrange(1, 9),
                        "unit_amount": dice.randrange(100, 5_000),
                        "discount_percent": dice.choice((0, 0, 10)),
                        "unit_cost": dice.randrange(50, 900),
                    }
                    for product, name, category in chosen
                ],
            }
            writer.write([order_id.encode()], [json.dumps(order, separators=(",", ":")).encode()])
            lines += len(chosen)
    return lines


def main() -> None:
    """Runs it once and prints a line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--orders", type=int, default=300_000)
    parser.add_argument("--hours", type=int, default=2)
    options = parser.parse_args()
    settings = StoreSettings()  # type: ignore[call-arg]  # the environment gives the bucket
    wire = MemoryWire(clock=lambda: START_MS)
    wire.create("orders", partitions=1, retention_hours=24)
    stream = wire.open("orders")
    lines = fill(stream, options.orders, options.hours)
    before_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    rules = Rules(currency="USD", countries=REGION_OF.keys())
    store = S3Store(aws.client("s3", settings, connections=16), settings.s3_bucket, f"bench-{uuid.uuid4().hex}/")
    layout = orders_layout(rules, REGION_OF, stream.id, stream.position_digits)
    limits = Limits(rotate_bytes=64_000_000, rotate_records=10**6, rotate_seconds=60, buffer_bytes=128_000_000)
    with ThreadPoolExecutor(8) as puts:
        lane = Archive("archive-orders", store, layout, stream=stream.id, digits=stream.position_digits, puts=puts)
        delivery = Delivery(stream, "bench", MemoryCheckpoints(), lane, limits, stop_seconds=60)
        stop = threading.Event()
        thread = threading.Thread(target=delivery.run, args=(stop,))
        wall, cpu = time.perf_counter(), time.process_time()
        thread.start()
        while not any(member.lag() and not any(member.lag().values()) for member in stream.groups["bench"]):
            stop.wait(0.01)
        stop.set()
        thread.join()
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    peak_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    sys.stdout.write(
        f"{delivery.counts.read} orders, {lines} lines, {delivery.counts.extents} extents: "
        f"{lines / wall:,.0f} lines/s, {lines / cpu:,.0f} lines per CPU second, "
        f"peak RSS {peak_kb // 1024} MB ({(peak_kb - before_kb) // 1024} MB more than with the stream alone)\n"
    )


if __name__ == "__main__":
    main()
