"""A state built from S3 is the one that a processor has which read all of the stream: days of orders, in real S3."""

import json
import os
import random
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis
from pydantic import SecretStr

from processor.__main__ import Streams, run
from processor.rebuilding import RebuildError
from processor.recovery import RecoveryError
from sales.board import BoardReader, Keys, LiveNumbers
from sales.countries import REGION_OF
from sales.service import Stop
from sales.settings import AwsSettings
from sales.streams.memory import MemoryStream, MemoryWire
from sales.times import format_time
from sink import aws
from sink.archive import Archive
from sink.lanes import Extent, Stored
from sink.layouts import Layout
from sink.messages import dead_letters_layout
from sink.orders import orders_layout
from sink.store import S3Store
from support.sinking import RULES, Inline, a_line
from support.waiting import eventually
from tillstream import interrupts
from tillstream.rebuild import RebuildSettings, Rebuilt, rebuild_directory

NOON = 1_795_176_000_000
MINUTE = 60_000
HOUR = 60 * MINUTE

Message = tuple[bytes, bytes]

EXTENT = 40
"""Messages."""


def an_order(order_id: str, event_time: int, **changes: Any) -> Message:
    order = {
        "schema": 1,
        "type": "sale",
        "order_id": order_id,
        "event_time": format_time(event_time),
        "country": "GB",
        "currency": "USD",
        "lines": [a_line()],
    }
    return order_id.encode(), json.dumps(order | changes).encode()


def three_days(dice: random.Random) -> list[Message]:
    """Orders in the order of time, repetitions and conflicts of recent ones, and what is no order."""
    sent: list[Message] = []
    for number in range(900):
        moment = NOON + number * 72 * HOUR // 900
        line = a_line(product_id=f"P{dice.randrange(30)}", quantity=dice.randint(1, 9), category=dice.choice("ABC"))
        kind, country = dice.choice(["sale", "sale", "return"]), dice.choice(["GB", "DE", "JP"])
        sent.append(an_order(f"o-{number}", moment, type=kind, country=country, lines=[line]))
        if number % 5 == 0:
            sent.append(sent[-dice.randint(1, min(len(sent), 200))])
        if number % 11 == 0:
            sent.append(an_order(f"o-{number}", moment, country="FR"))
        if number % 13 == 0:
            sent.append((b"torn", b'{"schema": 1, "ord'))
    return sent


class Shop:
    """Streams in memory, their archive in S3, and processors that come and go."""

    def __init__(self, folder: Path, redis_url: str, bucket: str, endpoint: str) -> None:
        self.wire = MemoryWire(clock=lambda: NOON + 100 * HOUR)
        for name in ("orders", "sales-rollups", "orders-dead-letters"):
            self.wire.create(name, partitions=3, retention_hours=48)
        self.orders = self.wire.open("orders")
        self.folder = folder
        self.redis_url = redis_url
        self.given = {"s3_bucket": bucket, "aws_endpoint_url": endpoint}
        client = aws.client("s3", AwsSettings(aws_endpoint_url=endpoint), connections=2)
        self.store = S3Store(client, bucket)
        self._stored: dict[tuple[str, str], int | None] = {}
        self.errors: list[BaseException] = []

    def send(self, messages: list[Message]) -> None:
        with self.orders.writer() as writer:
            writer.write([key for key, _ in messages], [value for _, value in messages])

    def archive(self) -> None:
        """What the sink does with all that is there."""
        self._archive("orders", orders_layout(RULES, REGION_OF, self.orders.id, 20))
        letters = self.wire.open("orders-dead-letters")
        self._archive("orders-dead-letters", dead_letters_layout(letters.id, 20))

    def _archive(self, name: str, layout: Layout[Any]) -> None:
        stream = self.wire.open(name)
        archive = Archive(name, self.store, layout, stream=stream.id, digits=20, puts=Inline())
        for partition in stream.partitions():
            after = self._stored.get((name, partition))
            runs = stream.packed_reader({partition: after}).poll(100_000, 0)
            while runs and len(runs[0]):
                some, runs[0] = runs[0].cut(EXTENT)
                piece = archive.prepare(some)
                extent = Extent(
                    partition, after, some.positions[-1], [piece.content], len(some), piece.rejected, some.size(), 1
                )
                assert archive.store(extent, threading.Event()) == Stored(extent.end)
                after = self._stored[name, partition] = extent.end

    def trim(self, share: float) -> None:
        """The stream forgets so much of each partition."""
        for name, log in self.orders.logs.items():
            self.orders.trim(name, log.positions[int(len(log.positions) * share)])

    def settings(self, directory: str, **changes: Any) -> RebuildSettings:
        given: dict[str, Any] = {
            "stream": "kafka",
            "redis_url": SecretStr(self.redis_url),
            "redis_prefix": f"{directory}:",
            "recovery_dir": self.folder / directory,
            "clock": "event",
            "tick_ms": 20,
            "snapshot_ms": 100,
            "slots": 2,
            "poll_records": 20,  # little at a time, so that a repetition comes while its order is remembered
            **self.given,
        }
        return RebuildSettings(**(given | changes))

    def rebuild(self, directory: str, *, force: bool = False, **changes: Any) -> Rebuilt:
        return rebuild_directory(self.orders, self.settings(directory, **changes), force=force)

    @contextmanager
    def processor(self, directory: str, **changes: Any) -> Iterator[BoardReader]:
        stopping = Stop()
        settings = self.settings(directory, **changes)
        client = redis.Redis.from_url(self.redis_url)

        def work() -> None:
            try:
                run(Streams.open(self.wire, settings), client, settings, stopping)
            except BaseException as error:  # noqa: BLE001 (a test looks at it)
                self.errors.append(error)

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        try:
            yield BoardReader(client, Keys(settings.redis_prefix), [window.name for window in settings.windows])
        finally:
            stopping.set()
            thread.join(30)
            assert not thread.is_alive()
            assert not self.errors

    def board(self, directory: str, **changes: Any) -> LiveNumbers:
        """What a processor shows that has read all there is."""
        ends = {f"{self.orders.id}/{name}": end for name, end in self.orders.ends().items() if end is not None}
        with self.processor(directory, **changes) as board:
            eventually(
                lambda: (
                    self.errors or all(int(board.read().positions.get(name, "-1")) >= end for name, end in ends.items())
                ),
                "all applied",
                seconds=60,
            )
            return board.read(regions=sorted(set(REGION_OF.values())))


@pytest.fixture
def shop(tmp_path: Path, redis_client: "redis.Redis", redis_url: str, s3_bucket: str, aws_endpoint: str) -> Shop:
    return Shop(tmp_path, redis_url, s3_bucket, aws_endpoint)


def equal_but_for(live: LiveNumbers, *left_out: str) -> dict[str, Any]:
    return {
        "windows": live.windows,
        "trends": live.trends,
        "names": live.names,
        "positions": live.positions,
        "status": {name: text for name, text in live.status.items() if name not in left_out},
    }


NOT_PROVED = ("published_at", "late", "lag")
"""When something came or was written."""


def test_a_rebuilt_processor_shows_what_one_shows_that_read_everything(shop: Shop) -> None:
    messages = three_days(random.Random(20261120))  # noqa: S311 (the same shop in every run)
    shop.send(messages)
    lived = shop.board("lived")
    shop.archive()
    shop.trim(0.8)
    rebuilt = shop.rebuild("rebuilt")
    assert rebuilt.read < 900 // 2
    assert rebuilt.unreported == 0
    shop.send([*messages[-100::3], an_order("o-890", NOON + 890 * 72 * HOUR // 900, country="IT")])
    shop.send([an_order("next", NOON + 72 * HOUR)])
    lived, again = shop.board("lived"), shop.board("rebuilt")
    old = ("accepted", "duplicates")  # a repetition that no window covers is one or the other
    assert equal_but_for(again, *NOT_PROVED, *old) == equal_but_for(lived, *NOT_PROVED, *old)
    assert sum(int(again.status[name]) for name in old) == sum(int(lived.status[name]) for name in old)
    assert int(lived.status["duplicates"]) > int(again.status["duplicates"]) > 60
    assert int(lived.status["dead_letters:conflict"]) > 80
    assert int(lived.status["late"]) > int(again.status["late"])


def test_what_was_refused_and_never_reported_is_counted(shop: Shop) -> None:
    shop.send(three_days(random.Random(1)))  # noqa: S311 (as above)
    shop.archive()  # by a sink alone
    shop.trim(0.8)
    assert shop.rebuild("rebuilt").unreported > 0


def test_a_state_is_only_replaced_when_asked(shop: Shop) -> None:
    shop.send(three_days(random.Random(2)))  # noqa: S311 (as above)
    lived = shop.board("state")
    shop.archive()
    with pytest.raises(RecoveryError, match="holds a state"):
        shop.rebuild("state")
    rebuilt = shop.rebuild("state", force=True)
    assert rebuilt.kept is not None
    assert (Path(rebuilt.kept) / "owner.json").exists()
    assert shop.board("state").windows == lived.windows


def test_a_directory_in_use_is_left_alone(shop: Shop) -> None:
    shop.send([an_order("a", NOON)])
    with shop.processor("state") as board:
        eventually(lambda: board.read().positions, "a tick")
        with pytest.raises(RecoveryError, match="another processor is using"):
            shop.rebuild("state", force=True)


def test_a_rebuild_that_is_asked_to_stop_leaves_all_as_it_was(shop: Shop) -> None:
    shop.send(three_days(random.Random(7)))  # noqa: S311 (as above)
    lived = shop.board("state")
    shop.archive()
    shop.trim(0.8)

    def stop(text: str) -> None:
        if text.startswith("reading what is stored"):
            os.kill(os.getpid(), signal.SIGTERM)
            signal.signal(signal.SIGTERM, signal.SIG_IGN)

    with interrupts.raised(), pytest.raises(interrupts.Interrupted):
        rebuild_directory(shop.orders, shop.settings("state"), force=True, say=stop)
    assert not list((shop.folder / "state").glob("aside-*"))
    assert shop.board("state").windows == lived.windows


def test_records_that_neither_has_are_named(shop: Shop) -> None:
    shop.send(three_days(random.Random(3)))  # noqa: S311 (as above)
    shop.archive()
    shop.send(three_days(random.Random(4)))  # noqa: S311 (as above)
    shop.trim(0.8)
    with pytest.raises(RebuildError, match=r"S3 holds .* up to position .* was removed by retention"):
        shop.rebuild("state")
    assert not (shop.folder / "state" / "owner.json").exists()


def test_orders_that_are_none_by_these_settings_are_named(shop: Shop) -> None:
    shop.send(three_days(random.Random(5)))  # noqa: S311 (as above)
    shop.archive()
    shop.trim(0.8)
    with pytest.raises(RebuildError, match=r"is none \(currency: .*CURRENCY"):
        shop.rebuild("state", currency="EUR")


def test_a_stream_that_has_lost_everything_goes_on_where_s3_ends(shop: Shop) -> None:
    messages = three_days(random.Random(8))  # noqa: S311 (as above)
    shop.send(messages)
    lived = shop.board("lived")
    shop.archive()
    for name, log in shop.orders.logs.items():
        shop.orders.trim(name, log.positions[-1])
    rebuilt = shop.rebuild("rebuilt")
    assert {f"{rebuilt.stream}/{name}": position for name, position in rebuilt.positions.items()} == lived.positions
    shop.send([*messages[-30:], an_order("next", NOON + 72 * HOUR)])
    lived, again = shop.board("lived"), shop.board("rebuilt")
    assert (again.windows, again.trends, again.positions) == (lived.windows, lived.trends, lived.positions)


class Merged:
    """A stream whose last partition has ended and expired, as a shard does that was merged."""

    def __init__(self, stream: MemoryStream) -> None:
        self._stream = stream
        self.id = stream.id
        self.position_digits = stream.position_digits
        self.packed_reader = stream.packed_reader

    def partitions(self) -> list[str]:
        return self._stream.partitions()[:-1]


def test_a_partition_that_the_stream_no_longer_has_is_taken_whole(shop: Shop) -> None:
    shop.send(three_days(random.Random(9)))  # noqa: S311 (as above)
    lived = shop.board("lived")
    shop.archive()
    shop.trim(0.8)
    rebuilt = rebuild_directory(Merged(shop.orders), shop.settings("rebuilt"))
    assert rebuilt.positions["2"] == lived.positions[f"{shop.orders.id}/2"]
    assert rebuilt.orders > 700


def test_a_stream_that_has_everything_is_read_by_the_processor_alone(shop: Shop) -> None:
    shop.send(three_days(random.Random(6)))  # noqa: S311 (as above)
    lived = shop.board("lived")
    shop.archive()
    rebuilt = shop.rebuild("rebuilt")
    assert set(rebuilt.positions.values()) == {None}
    assert rebuilt.read == 0
    assert equal_but_for(shop.board("rebuilt"), *NOT_PROVED) == equal_but_for(lived, *NOT_PROVED)
