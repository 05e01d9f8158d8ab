"""``trace``: where an order is, wherever it may be."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pytest
import typer
from typer.testing import CliRunner, Result

from sales import dead_letters
from sales.rejections import Rejection
from sales.settings import AwsSettings
from sales.streams import Stream, Wire
from sales.streams.connect import connect
from sink import aws
from support import world as small
from support.world import Event, Item, World, a_world
from tillstream.search import Trace, TraceSettings, trace_order
from tillstream.setup import SetupSettings, create_all
from tillstream.trace import trace


@dataclass
class Place:
    """Streams, a bucket and tables of their own, and an empty board."""

    settings: TraceSettings
    wire: Wire
    redis: Any
    environment: dict[str, str]

    def trace(self, order_id: str, *, everywhere: bool = False, timeout: float = 20) -> Trace:
        return trace_order(self.settings, order_id, everywhere=everywhere, timeout=timeout)

    def stream(self, name: str) -> Stream:
        return self.wire.open(name)

    def send(self, name: str, *messages: tuple[str, bytes]) -> None:
        with self.stream(name).writer() as writer:
            writer.write([key.encode() for key, _ in messages], [value for _, value in messages])

    def send_orders(self, *messages: tuple[str, bytes]) -> None:
        self.send(self.settings.orders_stream, *messages)

    def store(self, world: World) -> None:
        small.store(world, aws.client("s3", self.settings, connections=1), self.settings.s3_bucket)
        small.publish(world, self.redis)

    def put_item(self, event: Event) -> None:
        item = {
            "order_id": event.order_id,
            "type": event.type,
            "event_time": small.time_text(event.event_ms),
            "category": event.items[0].category,
            "position": small.position_text(event.position),
        }
        aws.client("dynamodb", self.settings, connections=1).put_item(
            TableName=self.settings.sales_table, Item={name: {"S": text} for name, text in item.items()}
        )


@pytest.fixture
def open_place(
    request: pytest.FixtureRequest,
    redis_url: str,
    redis_client: Any,
    aws_settings: AwsSettings,
    new_name: Callable[[str], str],
) -> Iterator[Callable[[str], Place]]:
    """Sets everything up on one wire."""
    opened: list[Place] = []

    def open_(stream: str = "kinesis") -> Place:
        environment = {
            "STREAM": stream,
            "PARTITIONS": "2",
            "ORDERS_STREAM": new_name("orders"),
            "ROLLUPS_STREAM": new_name("rollups"),
            "DEAD_LETTERS_STREAM": new_name("letters"),
            "AWS_ENDPOINT_URL": aws_settings.aws_endpoint_url or "",
            "S3_BUCKET": new_name("bucket"),
            "SALES_TABLE": new_name("SalesData"),
            "TRENDS_TABLE": new_name("SalesTrends"),
            "REDIS_URL": redis_url,
        }
        if stream == "kafka":
            environment["KAFKA_BOOTSTRAP_SERVERS"] = request.getfixturevalue("kafka_bootstrap")
        with pytest.MonkeyPatch.context() as patch:
            for name, value in environment.items():
                patch.setenv(name, value)
            list(create_all(SetupSettings()))  # type: ignore[call-arg]  # from the environment
            settings = TraceSettings()  # type: ignore[call-arg]  # from the environment
        place = Place(settings, connect(settings, settings), redis_client, environment)
        opened.append(place)
        return place

    yield open_
    for place in opened:
        for name in (place.settings.orders_stream, place.settings.rollups_stream, place.settings.dead_letters_stream):
            place.wire.delete(name)
        place.wire.close()


def an_order(order_id: str, **changes: Any) -> tuple[str, bytes]:
    """One message: its key and its bytes."""
    order = {
        "schema": 1,
        "type": "sale",
        "order_id": order_id,
        "event_time": "2026-11-20T07:52:00.000Z",
        "customer_id": None,
        "country": "GB",
        "currency": "USD",
        "lines": [{"product_id": "85123A", "quantity": 6, "unit_amount": 255, "discount_percent": 10}],
    }
    return order_id, json.dumps(order | changes).encode()


# The world's orders are older than the machine's clock may say; the live windows of its board lead to them.


def test_a_counted_order_is_found_in_its_file_its_item_and_its_windows(open_place: Callable[..., Place]) -> None:
    place = open_place()
    item = Item(quantity=6, unit_amount=255, discount_percent=10)
    event = Event("o-1", position=100, event_ms=small.AS_OF - 400_000, items=(item, item), type="return")
    place.store(World([event], applied={"0": 100}, cuts={"0": [100]}))
    place.put_item(event)
    found = place.trace("o-1")
    [sighting] = found.sightings
    assert (sighting.verdict, sighting.type, sighting.net, sighting.lines) == ("accepted", "return", "-27.54", 2)
    assert (sighting.partition, sighting.position) == ("0", small.position_text(100))
    assert sighting.stored == f"orders/dt=2026-11-20/hour=07/{small.STREAM}+0+{small.position_text(100)}.parquet"
    assert (sighting.applied, sighting.windows) == (True, ("15m", "1h", "24h"))
    assert found.item is not None
    assert found.item["category"] == "Home"


def test_repetitions_are_told_from_the_event_that_counts(open_place: Callable[..., Place]) -> None:
    place = open_place()
    events = [
        Event("o-1", position=100),
        Event("o-1", position=101),
        Event("o-1", position=102, country="FR"),
        Event("o-1", position=103, event_ms=small.AS_OF - 11_000),
    ]
    place.store(World(events, applied={"0": 102}, cuts={"0": [103]}))
    sightings = place.trace("o-1").sightings
    assert [sighting.verdict for sighting in sightings] == ["accepted", "duplicate", "conflict", "accepted"]
    assert [bool(sighting.windows) for sighting in sightings] == [True, False, False, False]
    assert [sighting.applied for sighting in sightings] == [True, True, True, False]


def test_an_old_order_is_found_in_everything_and_where_its_item_leads(
    open_place: Callable[..., Place],
) -> None:
    place = open_place()
    old = Event("o-old", position=100, event_ms=small.AS_OF - 40 * 86_400_000)
    place.store(World([old], applied={"0": 100}, cuts={"0": [100]}))
    assert not place.trace("o-old").known
    [sighting] = place.trace("o-old", everywhere=True).sightings
    assert (sighting.applied, sighting.windows) == (True, ())
    place.put_item(old)
    assert place.trace("o-old").sightings == [sighting]


def test_a_stored_object_that_was_cut_short_does_not_hide_the_others(open_place: Callable[..., Place]) -> None:
    place = open_place()
    place.store(World([Event("o-1", position=100), Event("o-2", 101)], applied={"0": 101}, cuts={"0": [100, 101]}))
    cut = f"orders/dt=2026-11-20/hour=07/{small.STREAM}+0+{small.position_text(101)}.parquet"
    aws.client("s3", place.settings, connections=1).put_object(Bucket=place.settings.s3_bucket, Key=cut, Body=b"PAR1")
    found = place.trace("o-1")
    assert [sighting.verdict for sighting in found.sightings] == ["accepted"]
    assert f"but not {cut}, which can't be read" in found.searched


@pytest.mark.kafka
def test_a_partition_that_is_stored_up_to_its_first_message_is_not_read_again(open_place: Callable[..., Place]) -> None:
    place = open_place("kafka")
    place.send_orders(an_order("o-1"))
    stream = place.stream(place.settings.orders_stream)
    [partition] = [name for name, end in stream.ends().items() if end == 0]
    extent = {"stream": stream.id, "partition": partition, "after": None, "end": small.position_text(0)}
    counts = {"read": 1, "stored": 1, "rejected": 0, "objects": []}
    marker = f"_extents/{stream.id}/{partition}/origin.done"
    aws.client("s3", place.settings, connections=1).put_object(
        Bucket=place.settings.s3_bucket, Key=marker, Body=json.dumps(extent | counts)
    )
    assert f"stream {stream.id}, what is not stored yet" in place.trace("o-1", timeout=0).searched


@pytest.mark.parametrize("stream", ["kinesis", pytest.param("kafka", marks=pytest.mark.kafka)])
def test_an_order_that_is_not_stored_yet_is_found_in_the_stream(open_place: Callable[..., Place], stream: str) -> None:
    place = open_place(stream)
    others = [an_order(f"other-{number}") for number in range(50)]
    place.send_orders(*others, an_order("o-1"), an_order("o-1"), an_order("o-1", country="FR"), *others)
    found = place.trace("o-1")
    assert [s.verdict for s in found.sightings] == ["accepted", "duplicate", "conflict"]
    assert {(s.stored, s.net, s.applied) for s in found.sightings} == {(None, "13.77", None)}
    assert {s.stream for s in found.sightings} == {place.stream(place.settings.orders_stream).id}


def test_an_order_that_will_be_refused_is_found_with_the_reason(open_place: Callable[..., Place]) -> None:
    place = open_place()
    place.send_orders(an_order("o-1", currency="EUR"))
    [sighting] = place.trace("o-1").sightings
    assert (sighting.verdict, sighting.windows) == ("rejected", ())
    assert sighting.reason.startswith("currency: the order is in 'EUR'")


def test_a_refused_message_that_only_mentions_the_order_is_none_of_it(open_place: Callable[..., Place]) -> None:
    place = open_place()
    place.send_orders(an_order("o-2", currency="EUR", original_order_id="o-1"))
    identity, value = dead_letters.encode(a_letter("o-3", 7, original_order_id="o-1"))
    place.send(place.settings.dead_letters_stream, (identity.decode(), value))
    assert not place.trace("o-1").known
    assert place.trace("o-2").known
    assert place.trace("o-3").known


def a_letter(order_id: str, position: int, **changes: Any) -> dead_letters.DeadLetter:
    key, value = an_order(order_id, currency="EUR", **changes)
    rejection = Rejection(position, small.AS_OF, key.encode(), value, "currency", "the order is in EUR")
    return dead_letters.dead_letter(
        rejection, stream=small.STREAM, partition="0", position=small.position_text(position)
    )


def test_a_dead_letter_is_found_in_its_stream(open_place: Callable[..., Place]) -> None:
    place = open_place()
    identity, value = dead_letters.encode(a_letter("o-1", 7))
    place.send(place.settings.dead_letters_stream, (identity.decode(), value))
    [sighting] = place.trace("o-1").sightings
    assert (sighting.verdict, sighting.reason) == ("rejected", "currency: the order is in EUR")
    assert (sighting.position, sighting.stored) == (small.position_text(7), None)


@pytest.mark.parametrize("key", [b"o-1", b"something else", None])
def test_a_dead_letter_is_found_in_the_archive(open_place: Callable[..., Place], key: bytes | None) -> None:
    place = open_place()
    _, value = an_order("o-1", currency="EUR")
    row = {
        "stream": small.STREAM,
        "partition": "0",
        "position": small.position_text(7),
        "key": key,
        "reason": "currency",
        "detail": "the order is in EUR",
        "raw": value,
    }
    _, other = an_order("o-2", currency="EUR", original_order_id="o-1")
    body = small.encode(pa.Table.from_pylist([row, row | {"position": small.position_text(8), "raw": other}]))
    stored = f"dead-letters/dt={datetime.now(UTC):%Y-%m-%d}/letters-00000000+0+{small.position_text(1)}.parquet"
    aws.client("s3", place.settings, connections=1).put_object(Bucket=place.settings.s3_bucket, Key=stored, Body=body)
    sightings = place.trace("o-1").sightings
    assert (sightings[0].position, sightings[0].stored) == (small.position_text(7), stored)
    assert len(sightings) == (2 if key == b"o-1" else 1)


def test_an_unknown_order_is_unknown_and_the_places_are_named(open_place: Callable[..., Place]) -> None:
    place = open_place()
    place.store(a_world())
    found = place.trace("o-unknown")
    assert not found.known
    assert [place.split()[0] for place in found.searched] == ["DynamoDB", "the", "stream", "the", "stream"]


# The command.


@pytest.fixture
def run(open_place: Callable[..., Place]) -> Callable[..., Result]:
    """The command, with one order in the stream."""
    app = typer.Typer()
    app.command()(trace)
    place = open_place()
    place.send_orders(an_order("o-1"))

    def run_(*arguments: str, **environment: str) -> Result:
        return CliRunner().invoke(app, arguments, env={**place.environment, **environment})

    return run_


def test_the_command_shows_what_was_found(run: Callable[..., Result]) -> None:
    result = run("o-1")
    assert result.exit_code == 0, result.output
    assert "accepted" in result.output
    assert "not stored yet" in result.output
    as_json = json.loads(run("o-1", "--json").stdout)
    assert (as_json["known"], as_json["sightings"][0]["verdict"]) == (True, "accepted")


def test_the_command_ends_with_1_when_nobody_knows_the_order(run: Callable[..., Result]) -> None:
    result = run("o-2")
    assert result.exit_code == 1
    assert "order o-2 is unknown; looked in:" in result.output


def test_the_command_ends_with_3_when_a_part_is_away(run: Callable[..., Result]) -> None:
    result = run("o-1", SALES_TABLE="Nowhere")
    assert result.exit_code == 3
    assert "ResourceNotFound" in result.stderr
