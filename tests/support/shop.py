"""Streams, a bucket and tables of its own with sinks as processes, and the proof that each order was stored once."""

import contextlib
import io
import json
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import pyarrow.parquet as pq

from sales.settings import AwsService, AwsSettings, StoreSettings, StreamSettings
from sales.streams.connect import connect
from sink import aws, tables
from support.sinking import a_line, an_order, key_of
from support.waiting import eventually

START_SECONDS = 60
PARTITIONS = 2
STREAMS = ("orders", "rollups", "dead_letters")

Done = dict[str, Any]


class Process(Protocol):
    """A sink."""

    pid: int

    def poll(self) -> int | None: ...
    def send_signal(self, number: int, /) -> None: ...
    def kill(self) -> None: ...
    def wait(self, timeout: float | None = None) -> int: ...


Spawn = Callable[[dict[str, str], Path], Process]
"""Starts one: with its whole environment, and where its log goes."""


def a_new_one(environment: dict[str, str], log: Path) -> Process:
    """As in production: an interpreter of its own."""
    with log.open("wb") as file:
        return subprocess.Popen([sys.executable, "-m", "sink"], env=environment, stderr=file, stdin=subprocess.DEVNULL)


class Shop:
    """Streams, a bucket and tables of its own, and the sink as a process."""

    def __init__(
        self, environment: dict[str, str], streams: StreamSettings, store: StoreSettings, folder: Path
    ) -> None:
        self.environment = environment
        self.store = store
        self.folder = folder
        self.processes: list[Process] = []
        self.wire = connect(streams, store)
        self.names = {kind: getattr(streams, f"{kind}_stream") for kind in STREAMS}
        for name in self.names.values():
            self.wire.create(name, partitions=PARTITIONS, retention_hours=48)
        self.streams = {kind: self.wire.open(name) for kind, name in self.names.items()}
        self.orders = self.streams["orders"].writer()
        self.sent: list[bytes] = []
        self.marks: dict[str, Done] = {}
        """done marks by their keys, each read once while they are waited for"""
        self.s3 = self.client("s3")
        self.dynamodb = self.client("dynamodb")
        self.dynamodb.create_table(**tables.sales_table(store))
        self.dynamodb.create_table(**tables.trends_table(store))

    def client(self, service: AwsService) -> Any:
        return aws.client(service, self.store, connections=10)

    def start(self, spawn: Spawn = a_new_one, **environment: str) -> Process:
        """A sink; with settings that differ from the shop's."""
        process = spawn(self.environment | environment, self.log(len(self.processes)))
        self.processes.append(process)
        return process

    def stop(self, process: Process) -> None:
        """Ends a process in order, once it is there to be told."""
        log = self.log(self.processes.index(process))
        eventually(lambda: "running" in log.read_text(), seconds=START_SECONDS)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0

    def log(self, number: int) -> Path:
        return self.folder / f"sink-{number}.log"

    def send(self, *values: bytes) -> None:
        """Orders, which are in the stream when this returns."""
        self.orders.write([key_of(value) for value in values], values)
        self.orders.flush(30)
        self.sent += values

    def keys(self, folder: str) -> list[str]:
        prefix = self.store.s3_prefix
        pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket=self.store.s3_bucket, Prefix=prefix + folder)
        return [item["Key"].removeprefix(prefix) for page in pages for item in page.get("Contents", ())]

    def read(self, key: str) -> bytes:
        body: bytes = self.s3.get_object(Bucket=self.store.s3_bucket, Key=self.store.s3_prefix + key)["Body"].read()
        return body

    def objects(self, folder: str) -> dict[str, bytes]:
        return {key: self.read(key) for key in self.keys(folder)}

    def chains(self, kind: str) -> dict[str, list[Done]]:
        """Each partition's done marks, from its origin on."""
        stream = self.streams[kind].id
        there = [key for key in self.keys(f"_extents/{stream}/") if key.endswith(".done")]
        self.marks |= {key: json.loads(self.read(key)) for key in there if key not in self.marks}
        marks = {key: self.marks[key] for key in there}
        chains: dict[str, list[Done]] = {}
        for partition in self.streams[kind].partitions():
            chain, name = [], "origin"
            while (done := marks.pop(f"_extents/{stream}/{partition}/{name}.done", None)) is not None:
                chain.append(done)
                name = done["end"]
            chains[partition] = chain
        assert not marks, "done marks that no chain leads to"
        return chains

    def archived(self, kind: str = "orders") -> int:
        """Messages that are covered by done marks."""
        return sum(int(done["read"]) for chain in self.chains(kind).values() for done in chain)

    def rows(self, folder: str = "orders/") -> list[dict[str, Any]]:
        return [row for body in self.objects(folder).values() for row in pq.read_table(io.BytesIO(body)).to_pylist()]

    def order_ids(self) -> set[str]:
        """Of all that was sent."""
        return {json.loads(value)["order_id"] for value in self.sent if value != b"{"}

    def items(self, table: str) -> list[dict[str, Any]]:
        return [
            item for page in self.dynamodb.get_paginator("scan").paginate(TableName=table) for item in page["Items"]
        ]

    def close(self) -> None:
        self.end()
        self.wire.close()

    def end(self) -> None:
        """Kills what still runs."""
        for process in self.processes:
            process.kill()
            process.wait()
        self.orders.close()


def open_shop(values: dict[str, str], folder: Path) -> Shop:
    """A shop with these settings."""
    environment = os.environ | {name.upper(): value for name, value in values.items()}
    settings = {name: value for name, value in values.items() if name in StreamSettings.model_fields}
    store = {name: value for name, value in values.items() if name in StoreSettings.model_fields}
    return Shop(environment, StreamSettings.model_validate(settings), StoreSettings.model_validate(store), folder)


@contextlib.contextmanager
def opened(values: dict[str, str], folder: Path) -> Iterator[Shop]:
    """A shop that is closed at the end of the block, and then tells what its sinks said."""
    shop = open_shop(values, folder)
    yield shop
    shop.close()
    for number in range(len(shop.processes)):
        sys.stdout.write(f"--- process {number}\n{shop.log(number).read_text()}")


def new_names(aws_settings: AwsSettings, s3_bucket: str, new_name: Callable[[str], str]) -> dict[str, str]:
    """Settings of a shop that shares nothing with any other, but for its wire; it stores soon."""
    return {
        "aws_region": aws_settings.aws_region,
        "aws_endpoint_url": aws_settings.aws_endpoint_url or "",
        "s3_bucket": s3_bucket,
        "s3_prefix": "team-a/",
        "sales_table": new_name("SalesData"),
        "trends_table": new_name("SalesTrends"),
        "orders_stream": new_name("orders"),
        "rollups_stream": new_name("rollups"),
        "dead_letters_stream": new_name("dead-letters"),
        "dynamodb_billing": "on-demand",  # at 5/5 the index would take minutes
        "sink_group": new_name("sink"),
        "rotate_seconds": "0.5",
        "connect_seconds": "30",
    }


def check_stored_once(shop: Shop) -> None:
    """S3 holds every well-formed event once a position, the ledger adds up, DynamoDB holds the lowest position."""
    rows = check_archived_once(shop)
    lowest: dict[str, tuple[str, int]] = {}
    for row in sorted(rows, key=lambda row: str(row["position"])):
        lowest.setdefault(row["order_id"], (row["position"], row["customer_id"]))
    items = {
        item["order_id"]["S"]: (item["position"]["S"], int(item["customer_id"]["N"]))
        for item in shop.items(shop.store.sales_table)
    }
    assert items == lowest


def check_archived_once(shop: Shop) -> list[dict[str, Any]]:
    """S3 holds every well-formed event once a position, and the ledger adds up; the rows."""
    shop.marks.clear()  # what stands there in the end counts
    chains = shop.chains("orders")
    done = [mark for chain in chains.values() for mark in chain]
    good = [json.loads(value) for value in shop.sent if value != b"{"]
    assert sum(mark["read"] for mark in done) == len(shop.sent)
    assert sum(mark["rejected"] for mark in done) == shop.sent.count(b"{")
    assert all(mark["read"] == mark["stored"] + mark["rejected"] for mark in done)
    assert {stored["key"] for mark in done for stored in mark["objects"]} == set(shop.keys("orders/"))
    rows = shop.rows()
    places = {(row["partition"], row["position"], row["line"]) for row in rows}
    assert len(places) == len(rows)
    assert Counter((row["order_id"], row["customer_id"]) for row in rows if row["line"] == 1) == Counter(
        (order["order_id"], order["customer_id"]) for order in good
    )
    return rows


def some_orders(dice: random.Random, count: int) -> list[bytes]:
    """Some ids come again, as duplicates or conflicts; some messages are malformed; some orders are of other hours."""
    return [
        b"{"
        if dice.random() < 0.05
        else an_order(
            f"o-{dice.randrange(count * 3)}",
            event_time=1_795_157_553_123 - dice.randrange(3) * 3_600_000,
            customer_id=dice.randrange(3),
            lines=[a_line() for _ in range(dice.randrange(1, 4))],
        )
        for _ in range(count)
    ]
