"""How many orders a second of its processor time the index lane writes to DynamoDB, conditions kept.

    python -m benchmarks.lookups --orders 50000
    python -m benchmarks.lookups --again        # each extent twice: a restart that reads again, every order a duplicate
    python -m benchmarks.lookups --one-by-one   # a conditional put for each order, which is what decides in the end

Starts DynamoDB Local (Java 17 and Maven) on core 0, with a table on demand, and stores orders of the synthetic shop on
core 1 in extents of 1,000, as the service does: messages decoded, items made, items written. Seconds are this
process's, all of its threads; the server's are not in them. At the end every item is compared with the message it came
from.
"""

import argparse
import json
import os
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import chain
from typing import Any

from benchmarks.lab import SERVERS_CORE, SYSTEM_CORE, on_cores
from benchmarks.topics import SEED, START

from generator import pacing
from generator.clock import SystemClock
from generator.disturbances import Mix
from generator.synthetic import SyntheticShop
from sales.countries import REGION_OF
from sales.rules import Rules
from sales.service import collect_rarely
from sales.settings import StoreSettings
from sales.streams import Chunk
from sales.streams.packed import pack
from sink import aws, tables
from sink.index import OrdersIndex
from sink.items import OrderItems
from sink.lanes import Extent
from sink.writes import Found, Insert, Look, Table
from tillstream.local import aws as local_aws
from tillstream.local import dynamodb as local_dynamodb
from tillstream.local.nursery import Nursery

EXTENT_ORDERS = 1_000
"""The service's own limit."""

THREADS = 8
"""STORE_THREADS, as it is by default."""

PARTITION = "0"


class OneByOne(Table):
    """A table that refuses to insert and sees nothing: every order goes on to its conditional put."""

    def insert(self, inserts: Sequence[Insert], abandoned: threading.Event) -> list[bool]:  # noqa: ARG002 (as in Table)
        """Nothing."""
        return [False] * len(inserts)

    def look(self, looks: Sequence[Look], names: Sequence[str], abandoned: threading.Event) -> list[Found]:  # noqa: ARG002 (as in Table)
        """Nothing."""
        return [Found(None)] * len(looks)


def messages(orders: int) -> tuple[list[bytes], list[bytes]]:
    """Keys and values of that many orders of the synthetic shop."""
    shop = SyntheticShop(seed=SEED, products=10_000, customers=10_000, returns=0.04, mix=Mix(), currency="USD")
    slices = pacing.simulated(pacing.Rate(500), START, pacing.Speed(None), SystemClock(), lambda _instant: 1.0)
    parcels = list(shop.parcels(slices, orders=orders, until=None, simulated=True))
    return list(chain.from_iterable(p.keys for p in parcels)), list(chain.from_iterable(p.values for p in parcels))


def differences(client: Any, table: str, keys: list[bytes], values: list[bytes]) -> int:
    """Items that are missing, that nobody sent, or that say another position, customer or number of pieces."""
    wanted = {}
    for position, (key, value) in enumerate(zip(keys, values, strict=True)):
        order = json.loads(value)
        pieces = sum(line["quantity"] for line in order["lines"])
        wanted[key.decode()] = (position, order.get("customer_id"), pieces if order["type"] == "sale" else -pieces)
    found = {}
    for page in client.get_paginator("scan").paginate(TableName=table):
        for item in page["Items"]:
            customer = int(item["customer_id"]["N"]) if "customer_id" in item else None
            pieces = sum(int(line["M"]["quantity"]["N"]) for line in item["lines"]["L"])
            found[item["order_id"]["S"]] = (int(item["position"]["S"]), customer, pieces)
    return sum(wanted.get(key) != found.get(key) for key in wanted.keys() | found.keys())


def main() -> None:
    """Runs it once and prints a line for each part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--orders", type=int, default=20_000, help="default %(default)s")
    parser.add_argument("--again", action="store_true", help="store each extent a second time")
    parser.add_argument("--one-by-one", action="store_true", help="a conditional put for each order")
    options = parser.parse_args()
    keys, values = messages(options.orders)
    os.environ.update(local_aws.environment())
    with ExitStack() as stack:
        nursery = stack.enter_context(Nursery())
        with on_cores(SERVERS_CORE):
            server = local_dynamodb.start(nursery, heap_mb=2048)
        settings = StoreSettings(aws_endpoint_url=server.address, s3_bucket="none", dynamodb_billing="on-demand")
        client = aws.dynamodb(settings, connections=THREADS)
        client.create_table(**tables.sales_table(settings))
        stack.enter_context(on_cores(SYSTEM_CORE))
        threads = stack.enter_context(ThreadPoolExecutor(THREADS))
        table = (OneByOne if options.one_by_one else Table)(client, settings.sales_table, threads)
        rules = Rules(currency="USD", countries=REGION_OF.keys())
        make = OrderItems("orders-0badcafe", 20, "USD", REGION_OF)
        lane = OrdersIndex("index-orders", table, rules, make)
        collect_rarely()  # as the service
        decoding = making = storing = again = wall = 0.0
        for start in range(0, options.orders, EXTENT_ORDERS):
            rows = range(start, min(start + EXTENT_ORDERS, options.orders))
            cut = slice(rows.start, rows.stop)
            run = pack(Chunk(PARTITION, keys[cut], values[cut], list(rows), [START + 10**9] * len(rows)))
            began, cpu = time.perf_counter(), time.process_time()
            prepared = lane.prepare(run)
            decoded = time.process_time()
            make.of(PARTITION, [prepared.content])  # made once more by ``store``: its part of that, apart
            made = time.process_time()
            extent = Extent(PARTITION, None, rows[-1], [prepared.content], len(rows), prepared.rejected, 0, 0)
            lane.store(extent, threading.Event())
            stored = time.process_time()
            wall += time.perf_counter() - began
            if options.again:
                lane.store(extent, threading.Event())
                again += time.process_time() - stored
            storing += stored - made
            making += made - decoded
            decoding += decoded - cpu
        wrong = differences(client, settings.sales_table, keys, values)
    spent = decoding + storing
    sys.stdout.write(
        f"{options.orders} orders of {sum(map(len, values)) / options.orders:.0f} bytes into {server.name}, load "
        f"{os.getloadavg()[0]:.1f}: {options.orders / spent:,.0f} items per CPU second, "
        f"{options.orders / wall:,.0f}/s by the wall clock\n"
        f"microseconds of processor time an item: decoding {1e6 * decoding / options.orders:.1f}, making items "
        f"{1e6 * making / options.orders:.1f}, writing them {1e6 * (storing - making) / options.orders:.1f}\n"
        + (f"stored again: {1e6 * again / options.orders:.1f} microseconds an item\n" if options.again else "")
        + f"{wrong} items differ from what was sent\n"
    )
    if wrong:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
