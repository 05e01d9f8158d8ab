"""A whole pipeline on one wire, with the services as the processes that they are in production."""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import redis

from sales.board import BoardReader, Keys, LiveNumbers
from sales.countries import REGION_OF
from sales.settings import StreamSettings
from sales.streams import Chunk, Stream, format_position
from sales.streams.connect import connect
from sink import aws
from tillstream.local.nursery import Child, Nursery
from tillstream.proving import VerifySettings, verify_board
from tillstream.report import Report
from tillstream.setup import SetupSettings, create_all
from tillstream.stored import Store, wait_until_covered

LOOK_SECONDS = 0.05
"""Between two looks at something that has to come; every wait has a bound of its own."""

START_SECONDS = 60.0
STOP_SECONDS = 60.0
"""Two busy cores start and stop a service in seconds; a hang is longer."""

READ_SECONDS = 120.0
"""A test's stream is read in seconds."""


WIRES = ("kafka", "kinesis")

OpenPipeline = Callable[..., "Pipeline"]
"""Makes a pipeline on a wire (its name), with settings that differ from the defaults (by their names in production)."""


class PipelineSettings(VerifySettings, StreamSettings):
    """Where everything is."""


class Pipeline:
    """Streams, a bucket, tables and a board of their own; services that come and go.

    Args:
        nursery: ends the services, whatever becomes of the test.
        folder: for logs and the processor's recovery.
        environment: what differs from the defaults; names as in production.
    """

    def __init__(self, nursery: Nursery, folder: Path, environment: dict[str, str]) -> None:
        self.environment = {"RECOVERY_DIR": str(folder / "recovery"), **environment}
        self.folder = folder
        self._nursery = nursery
        self._children: dict[str, Child] = {}
        given: dict[str, Any] = {name.lower(): text for name, text in environment.items()}
        # At 5 write units, the default, the index would be minutes behind.
        list(create_all(SetupSettings(**{"dynamodb_billing": "on-demand", **given})))
        self.settings = PipelineSettings(**given)
        self.wire = connect(self.settings, self.settings)
        self.orders = self.wire.open(self.settings.orders_stream)
        self.redis: Any = redis.Redis.from_url(self.settings.redis_url.get_secret_value())
        self.keys = Keys(self.settings.redis_prefix)
        self._reader = BoardReader(self.redis, self.keys, [window.name for window in self.settings.windows])
        self.regions = sorted(set(REGION_OF.values()))
        self._streams = [
            self.settings.orders_stream,
            self.settings.rollups_stream,
            self.settings.dead_letters_stream,
        ]

    def create_stream(self, name: str) -> str:
        """One more stream; its full name."""
        name = f"{self.settings.orders_stream}-{name}"
        self.wire.create(name, partitions=1, retention_hours=24)
        self._streams.append(name)
        return name

    def start(self, name: str, *arguments: str, **environment: str) -> Child:
        """Runs ``python -m <name>``."""
        child = self._nursery.spawn(
            name,
            [sys.executable, "-m", name, *arguments],
            log=self.folder / f"{name}.log",
            env=self.surroundings(**environment),
        )
        self._children[name] = child
        return child

    def surroundings(self, **environment: str) -> dict[str, str]:
        """The whole environment of a process of this pipeline."""
        return {**os.environ, **self.environment, **environment}

    def kill(self, name: str) -> None:
        """Kills it with signal 9: it gets no chance to finish anything."""
        child = self._children.pop(name)
        assert child.exit_code() is None, self._ended(child)
        child.signal(signal.SIGKILL)
        assert child.wait(STOP_SECONDS) == -signal.SIGKILL

    def stop(self, name: str) -> None:
        """Asks it to stop; it has to end in order."""
        child = self._children.pop(name)
        assert child.exit_code() is None, self._ended(child)
        assert child.stop(STOP_SECONDS) == 0, self._ended(child)

    def finish(self, name: str, seconds: float) -> None:
        """Waits until it has ended by itself, in order."""
        child = self._children.pop(name)
        code = child.wait(seconds)
        assert code == 0, self._ended(child)

    def ended(self, name: str, seconds: float) -> int | None:
        """Waits until it has ended by itself, as it may; its exit code, or None where it runs on."""
        return self._children.pop(name).wait(seconds)

    def until(self, condition: Callable[[], bool], seconds: float, what: str) -> None:
        """Waits for a condition while all services run; fails when it doesn't come within the bound."""
        deadline = time.monotonic() + seconds
        while not condition():
            for child in self._children.values():
                assert child.exit_code() is None, self._ended(child)
            assert time.monotonic() < deadline, f"after {seconds:g} s not {what}; {self.live().status}"
            time.sleep(LOOK_SECONDS)

    def live(self) -> LiveNumbers:
        """One tick, whole."""
        return self._reader.read(regions=self.regions)

    def board(self) -> dict[str, Any]:
        """What is in Redis, as bytes: every key of windows, trends and names, each with all that it holds."""
        left_out = {self.keys.status, self.keys.positions, self.keys.epoch}
        prefix = self.settings.redis_prefix
        keys = [key for key in self.redis.scan_iter(f"{prefix}*", count=1000) if key.decode() not in left_out]
        with self.redis.pipeline(transaction=True) as pipe:
            for key in keys:
                pipe.type(key)
            kinds = pipe.execute()
            for key, kind in zip(keys, kinds, strict=True):
                if kind == b"zset":
                    pipe.zrevrange(key, 0, -1, withscores=True)
                else:
                    pipe.hgetall(key)
            contents = pipe.execute()
        return {key.decode().removeprefix(prefix): content for key, content in zip(keys, contents, strict=True)}

    def settle(self, seconds: float) -> LiveNumbers:
        """The tick that has all that is in the orders stream, to which nobody may write any more."""
        ends = {f"{self.orders.id}/{name}": end for name, end in self.orders.ends().items() if end is not None}

        def applied() -> bool:
            positions = self.live().positions
            return all(int(positions.get(path, "-1")) >= end for path, end in ends.items())

        self.until(applied, seconds, f"applied up to {ends}")
        return self.live()

    def verify(self, seconds: float, *, everything: bool = True) -> Report:
        """The board recomputed from S3."""
        return verify_board(self.settings, timeout=seconds, everything=everything, lookups=False)

    def sent(self) -> Iterator[Chunk]:
        """All that is in the orders stream, read from its beginning."""
        return self.read(self.orders)

    @staticmethod
    def read(stream: Stream) -> Iterator[Chunk]:
        """All that is in a stream."""
        left = {name: end for name, end in stream.ends().items() if end is not None}
        reader = stream.reader(dict.fromkeys(left))
        deadline = time.monotonic() + READ_SECONDS
        try:
            while left:
                assert time.monotonic() < deadline, f"the end of {stream.id} does not come: {left}"
                for chunk in reader.poll(10_000, 1.0):
                    if chunk.positions[-1] >= left.get(chunk.partition, -1):
                        left.pop(chunk.partition, None)
                    yield chunk
        finally:
            reader.close()

    def await_stored(self, stream: Stream, seconds: float) -> None:
        """Waits until all that is in a stream is marked done in S3."""
        digits = stream.position_digits
        ends = {
            f"{stream.id}/{name}": format_position(end, digits)
            for name, end in stream.ends().items()
            if end is not None
        }
        wait_until_covered(Store.open(self.settings), ends, timeout=seconds)

    def items(self, attributes: Sequence[str]) -> list[dict[str, str]]:
        """All items of the table of orders, with some attributes (of type text or number)."""
        client = aws.client("dynamodb", self.settings, connections=1)
        names = {f"#{number}": name for number, name in enumerate(attributes)}
        pages = client.get_paginator("scan").paginate(
            TableName=self.settings.sales_table,
            ProjectionExpression=", ".join(names),
            ExpressionAttributeNames=names,
            ConsistentRead=True,
        )
        return [
            {name: next(iter(value.values())) for name, value in item.items()}
            for page in pages
            for item in page["Items"]
        ]

    def await_items(self, order_ids: Iterable[str], seconds: float) -> None:
        """Waits until the table of orders has these. Asks for one after the other: the local protocol server can't
        count, or give out, a table that is being written."""
        client = aws.client("dynamodb", self.settings, connections=1)
        table = self.settings.sales_table

        def there(order_id: str) -> bool:
            key = {"order_id": {"S": order_id}}
            # Its key alone: an order may have hundreds of lines, and the server that gives them out stores the rest.
            found = client.get_item(TableName=table, Key=key, ProjectionExpression="order_id", ConsistentRead=True)
            return "Item" in found

        deadline = time.monotonic() + seconds
        for order_id in order_ids:
            self.until(lambda: there(order_id), deadline - time.monotonic(), f"in DynamoDB: {order_id}")  # noqa: B023

    def download(self, start: str) -> list[str]:
        """Every Parquet object whose key begins so, whether a marker names it or not; the paths of local copies."""
        store = Store.open(self.settings)
        folder = self.folder / start.strip("/")
        folder.mkdir(parents=True, exist_ok=True)
        return [str(path) for path in store.download([key for key, _ in store.listing(start)], folder).values()]

    def close(self) -> None:
        """Kills what still runs and gives back the streams."""
        for name in list(self._children):
            self.kill(name)
        for name in self._streams:
            self.wire.delete(name)
        self.wire.close()
        self.redis.close()

    @staticmethod
    def _ended(child: Child) -> str:
        return "\n".join([f"{child.name} ended with {child.exit_code()}; its last lines:", *child.last_lines()])
