"""The processor as a whole, on the real engine and a real Redis, with streams in memory that a test can look into."""

import json
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis
from pydantic import SecretStr

from processor import __main__ as processor
from processor.__main__ import Streams, run
from processor.settings import ProcessorSettings
from sales import dead_letters, rollups
from sales.board import BoardReader, Keys, LiveNumbers
from sales.service import Stop
from sales.streams import StreamError
from sales.streams.memory import MemoryWire, MemoryWriter
from sales.times import format_time

NOON = 1_795_176_000_000
MINUTE = 60_000
WAIT_SECONDS = 30.0


def an_order(order_id: str, event_time: int = NOON, **changes: Any) -> tuple[bytes, bytes]:
    order = {
        "schema": 1,
        "type": "sale",
        "order_id": order_id,
        "event_time": format_time(event_time),
        "country": "GB",
        "currency": "USD",
        "lines": [{"product_id": "p", "product_name": "Pen", "category": "Home", "quantity": 2, "unit_amount": 150}],
    }
    return order_id.encode(), json.dumps(order | changes).encode()


class World:
    """A shop with streams in memory, and processors that come and go."""

    def __init__(self, folder: Path, client: "redis.Redis", redis_url: str) -> None:
        self.wire = MemoryWire(clock=lambda: NOON + 24 * 60 * MINUTE)
        for name in ("orders", "sales-rollups", "orders-dead-letters"):
            self.wire.create(name, partitions=4, retention_hours=48)
        self.orders = self.wire.open("orders")
        self.client = client
        self.board = BoardReader(client, Keys("sales:"), ["1m", "1h", "24h"])
        self.folder = folder
        self.redis_url = redis_url
        self.errors: list[BaseException] = []

    def send(self, *messages: tuple[bytes, bytes]) -> None:
        with self.orders.writer() as writer:
            writer.write([key for key, _ in messages], [value for _, value in messages])

    def settings(self, **changes: Any) -> ProcessorSettings:
        defaults: dict[str, Any] = {
            "stream": "kafka",
            "redis_url": SecretStr(self.redis_url),
            "recovery_dir": self.folder / "recovery",
            "clock": "event",
            "tick_ms": 20,
            "snapshot_ms": 100,
            "away_seconds": 10,
        }
        return ProcessorSettings(**(defaults | changes))

    @contextmanager
    def processor(self, **changes: Any) -> Iterator[threading.Thread]:
        stopping = Stop()

        def work() -> None:
            try:
                settings = self.settings(**changes)
                run(Streams.open(self.wire, settings), redis.Redis.from_url(self.redis_url), settings, stopping)
            except BaseException as error:  # noqa: BLE001 (a test looks at it)
                self.errors.append(error)

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        try:
            yield thread
        finally:
            stopping.set()
            thread.join(WAIT_SECONDS)
            assert not thread.is_alive()

    def caught_up(self) -> LiveNumbers:
        """The board once it has every message that was sent."""
        ends = {f"{self.orders.id}/{name}": end for name, end in self.orders.ends().items() if end is not None}

        def reached(live: LiveNumbers) -> bool:
            return all(int(live.positions.get(name, "-1")) >= end for name, end in ends.items())

        return self.wait(reached)

    def wait(self, condition: Callable[[LiveNumbers], bool]) -> LiveNumbers:
        deadline = time.monotonic() + WAIT_SECONDS
        while True:
            live = self.board.read()
            if condition(live):
                return live
            assert not self.errors, self.errors
            assert time.monotonic() < deadline, live
            threading.Event().wait(0.01)

    def stored(self, name: str) -> list[bytes]:
        return [value for log in self.wire.open(name).logs.values() for value in log.values]


@pytest.fixture
def world(tmp_path: Path, redis_client: "redis.Redis", redis_url: str) -> World:
    return World(tmp_path, redis_client, redis_url)


def test_orders_become_numbers(world: World) -> None:
    world.send(an_order("a"), an_order("b", NOON + 1000, country="DE"), an_order("c", NOON - 10 * MINUTE))
    with world.processor():
        live = world.caught_up()
    assert live.status["as_of"] == format_time(NOON + 1000)
    assert live.status["accepted"] == "3"
    assert live.windows["1m"].aov["orders"] == "2"
    assert live.windows["1m"].aov["revenue"] == "6.00"
    assert live.windows["1h"].products == {"units": [("p", 6)], "revenue": [("p", 900)]}
    assert live.windows["1h"].groups["country"]["orders"] == {"GB": 2, "DE": 1}
    assert live.names == {"p": "Pen"}


def test_every_kind_of_bad_event_is_a_dead_letter_and_its_neighbours_are_counted(world: World) -> None:
    line = {"product_id": "p", "quantity": 0, "unit_amount": 1}
    world.send(
        an_order("good-1"),
        (b"torn", b'{"schema": 1, "order'),
        an_order("newer", schema=2),
        (b"another key", an_order("key")[1]),
        an_order("quantity", lines=[line]),
        an_order("ahead", NOON + 25 * 60 * MINUTE),
        an_order("euro", currency="EUR"),
        an_order("good-1"),
        an_order("good-1", country="DE"),
        an_order("good-2"),
    )
    with world.processor():
        live = world.caught_up()
    letters = [dead_letters.decode(value) for value in world.stored("orders-dead-letters")]
    expected = Counter(["json", "schema", "key", "field:quantity", "future", "currency", "conflict"])
    assert Counter(letter.reason for letter in letters) == expected
    assert {letter.stream for letter in letters} == {world.orders.id}
    assert len({letter.identity for letter in letters}) == len(letters)
    assert live.status["accepted"] == "2"
    assert live.status["duplicates"] == "1"
    assert live.status["dead_letters"] == "7"
    assert live.status["dead_letters:currency"] == "1"
    assert live.windows["1h"].groups["country"]["orders"] == {"GB": 2}


def test_closed_minutes_go_out_once_and_again_when_corrected(world: World) -> None:
    world.send(an_order("a"), an_order("b", NOON + 1))
    with world.processor():
        world.caught_up()
        world.send(an_order("later", NOON + 2 * MINUTE))
        world.caught_up()
    world.send(an_order("late", NOON + 2, type="return"))
    with world.processor():
        live = world.caught_up()
    records = [rollups.decode(value) for value in world.stored("sales-rollups")]
    noon = [record for record in records if record.minute == format_time(NOON)]
    assert {record.scope for record in noon} == {"all", "GB/Home"}
    assert live.status["late"] == "1"
    latest = max((record for record in noon if record.scope == "all"), key=lambda record: record.version)
    assert (latest.version, latest.orders, latest.returns, latest.units, latest.revenue_minor) == (3, 2, 1, 2, 300)
    assert {record.version for record in noon if record.scope == "all"} == {2, 3}


def test_an_order_older_than_every_window_makes_its_minute_stale(world: World) -> None:
    world.send(an_order("now"))
    with world.processor():
        world.caught_up()
        world.send(an_order("old", NOON - 48 * 60 * MINUTE))
        live = world.caught_up()
    stale = [record for record in map(rollups.decode, world.stored("sales-rollups")) if record.stale]
    assert {(record.scope, record.minute) for record in stale} == {
        ("all", format_time(NOON - 48 * 60 * MINUTE)),
        ("GB/Home", format_time(NOON - 48 * 60 * MINUTE)),
    }
    assert live.windows["24h"].aov["orders"] == "1"


def test_a_processor_that_stopped_goes_on_where_it_was(world: World) -> None:
    world.send(*[an_order(f"o{number}") for number in range(50)])
    with world.processor():
        before = world.caught_up()
    world.send(*[an_order(f"o{number}") for number in range(25, 75)])
    with world.processor():
        after = world.caught_up()
    assert before.status["accepted"] == "50"
    assert after.status["accepted"] == "75"
    assert after.status["duplicates"] == "25"
    assert after.windows["1h"].aov["units"] == "150"


def test_streams_that_go_away_for_a_while_are_outlasted(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.send(an_order("a"), (b"torn", b"{"), an_order("b", NOON + 3 * MINUTE))
    refusals = [StreamError("the broker is away")] * 6
    flush = MemoryWriter.flush

    acknowledged = threading.Event()

    def refuse_at_first(writer: MemoryWriter, timeout: float) -> None:
        if refusals:
            raise refusals.pop()
        flush(writer, timeout)
        acknowledged.set()

    monkeypatch.setattr(MemoryWriter, "flush", refuse_at_first)
    with world.processor():
        world.caught_up()
        assert acknowledged.wait(WAIT_SECONDS)
    assert {dead_letters.decode(value).key for value in world.stored("orders-dead-letters")} == {"dG9ybg=="}
    assert format_time(NOON) in {rollups.decode(value).minute for value in world.stored("sales-rollups")}


def test_a_stop_while_a_stream_is_away_is_an_error_and_no_abort(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.send(an_order("a"), (b"torn", b"{"), an_order("b", NOON + 3 * MINUTE))
    refused = threading.Event()

    def refuse(_writer: MemoryWriter, _timeout: float) -> None:
        refused.set()
        raise StreamError("the broker is away")

    monkeypatch.setattr(MemoryWriter, "flush", refuse)
    with world.processor():
        assert refused.wait(WAIT_SECONDS)
    assert "the broker is away" in causes(world.errors.pop())


def test_after_flushall_the_board_is_whole_again(world: World) -> None:
    world.send(an_order("a"))
    with world.processor():
        before = world.caught_up()
        world.client.flushall()
        after = world.caught_up()
    assert after.windows == before.windows
    assert after.trends == before.trends


def test_a_second_processor_takes_over_and_the_first_ends(world: World) -> None:
    world.send(an_order("a"))
    with world.processor() as first:
        world.caught_up()
        with world.processor(recovery_dir=world.folder / "other"):
            first.join(WAIT_SECONDS)
            assert not first.is_alive()
            assert "another processor writes" in causes(world.errors.pop())
            world.send(an_order("b"))
            assert world.caught_up().status["accepted"] == "2"


def test_a_stream_made_again_is_not_taken_for_the_old_one(world: World) -> None:
    world.send(an_order("a"))
    with world.processor():
        world.caught_up()
    world.wire.delete("orders")
    world.wire.create("orders", partitions=4, retention_hours=48)
    with world.processor() as processor:
        processor.join(WAIT_SECONDS)
    assert "holds the state of stream orders-00000001" in causes(world.errors.pop())


def test_when_most_messages_are_bad_the_processor_stops_instead_of_binning_them(world: World) -> None:
    world.send(*[(f"o{number}".encode(), b"rubbish") for number in range(40_000)])
    with world.processor() as processor:
        processor.join(WAIT_SECONDS)
    assert "could not be accepted" in causes(world.errors.pop())


def causes(error: BaseException | None) -> str:
    texts = []
    while error is not None:
        texts.append(str(error))
        error = error.__cause__ or error.__context__
    return "\n".join(texts)


def test_a_redis_that_refuses_us_ends_the_start_at_once_and_is_named(
    redis_client: "redis.Redis",
    redis_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    redis_client.acl_setuser("shop", enabled=True, passwords=["+right"], keys=["*"], categories=["+@all"])
    wire = MemoryWire()
    for name in ("orders", "sales-rollups", "orders-dead-letters"):
        wire.create(name, partitions=1, retention_hours=24)
    monkeypatch.setattr(processor, "connect", lambda *_settings: wire)
    where = redis_url.removeprefix("redis://")
    settings = {"STREAM": "kafka", "RECOVERY_DIR": str(tmp_path), "REDIS_URL": f"redis://shop:guessed@{where}"}
    for name, value in (settings | {"CONNECT_SECONDS": "5"}).items():
        monkeypatch.setenv(name, value)
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        assert processor.main() == 1
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        redis_client.acl_deluser("shop")
    assert f"Redis at {where.partition('/')[0]} refuses us" in caplog.records[-1].message
    assert "guessed" not in caplog.text
