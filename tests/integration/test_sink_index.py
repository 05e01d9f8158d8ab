"""DynamoDB holds of every order the lowest position and of every rollup the highest version, whatever the order."""

import json
import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from typing import Any

import pytest
from boto3.dynamodb.types import TypeDeserializer

from sales.countries import REGION_OF
from sales.rollups import Rollup
from sales.settings import AwsSettings, StoreSettings
from sales.streams import AwayError
from sales.streams.memory import MemoryCheckpoints, MemoryWire
from sales.streams.packed import pack
from sink import aws, tables
from sink.delivery import Delivery, Limits
from sink.index import OrdersIndex, RollupsIndex
from sink.items import OrderItems, trend
from sink.lanes import AbandonedError, Extent
from sink.store import StoreError
from sink.writes import Found, Insert, Look, Table, cut
from support.sinking import EVENT_TIME, RULES, STREAM, a_chunk, a_line, an_order
from support.waiting import eventually

Item = dict[str, Any]


class Account:
    """Fresh tables on a server."""

    def __init__(self, client: Any, settings: StoreSettings, threads: ThreadPoolExecutor) -> None:
        self.client = client
        self.settings = settings
        self.sales = Table(client, settings.sales_table, threads)
        self.trends = Table(client, settings.trends_table, threads)

    def scan(self, table: str) -> list[Item]:
        pages = self.client.get_paginator("scan").paginate(TableName=table)
        return [plain(item) for page in pages for item in page["Items"]]

    def orders(self) -> dict[str, Item]:
        return {item["order_id"]: item for item in self.scan(self.settings.sales_table)}

    def orders_index(self, stream: str = STREAM) -> OrdersIndex:
        return OrdersIndex("index-orders", self.sales, RULES, OrderItems(stream, 20, "USD", REGION_OF))


def plain(item: Item) -> Item:
    return {name: TypeDeserializer().deserialize(attribute) for name, attribute in item.items()}


@pytest.fixture(params=["aws_endpoint", pytest.param("dynamodb_endpoint", marks=pytest.mark.dynamodb)])
def place(request: pytest.FixtureRequest, new_name: Callable[[str], str]) -> StoreSettings:
    """Where new tables can be made: on moto, then on DynamoDB Local."""
    return StoreSettings(
        aws_endpoint_url=request.getfixturevalue(request.param),
        s3_bucket="unused",
        sales_table=new_name("SalesData"),
        trends_table=new_name("SalesTrends"),
        dynamodb_billing="on-demand",
    )


@contextmanager
def opened(settings: StoreSettings) -> Iterator[Account]:
    client = aws.dynamodb(settings, connections=8)
    with ThreadPoolExecutor(8) as threads:
        account = Account(client, settings, threads)
        for definition in (tables.sales_table(settings), tables.trends_table(settings)):
            client.create_table(**definition)
        yield account
    client.close()


@pytest.fixture
def account(place: StoreSettings) -> Iterator[Account]:
    with opened(place) as account:
        yield account


def store(lane: OrdersIndex, values: list[bytes], positions: list[int]) -> None:
    prepared = lane.prepare(pack(a_chunk(values, positions=positions)))
    extent = Extent("0", None, positions[-1], [prepared.content], len(values), prepared.rejected, 0, 0)
    lane.store(extent, threading.Event())


def test_an_order_can_be_found_by_id_and_by_category(account: Account) -> None:
    account.sales.check()
    store(account.orders_index(), [an_order("a"), an_order("b", lines=[a_line(category="Toys")])], [1, 2])
    found = account.client.query(
        TableName=account.settings.sales_table,
        IndexName=tables.CATEGORY_INDEX,
        KeyConditionExpression="category = :c",
        ExpressionAttributeValues={":c": {"S": "Toys"}},
    )
    assert [plain(item) for item in found["Items"]] == [account.orders()["b"]]


@pytest.mark.parametrize("seed", range(4))
def test_the_lowest_position_stands_whatever_the_order_of_arrival(account: Account, seed: int) -> None:
    dice = random.Random(seed)  # noqa: S311 (a seed makes the orders the same each time)
    sent = {
        position: an_order(f"o-{dice.randrange(8)}", event_time=EVENT_TIME - dice.randrange(3), customer_id=position)
        for position in range(1, 40)
    }
    some = [sorted(dice.sample(sorted(sent), dice.randrange(1, 20))) for _ in range(6)]
    lane = account.orders_index()
    for positions in (*some[:3], sorted(sent), *some[3:]):  # the last ones find lower positions there
        store(lane, [sent[position] for position in positions], positions)
    lowest: dict[str, int] = {}
    for position, value in sent.items():
        lowest.setdefault(json.loads(value)["order_id"], position)
    assert {order: int(item["position"]) for order, item in account.orders().items()} == lowest
    assert {order: item["customer_id"] for order, item in account.orders().items()} == lowest


def test_the_same_event_again_changes_nothing_and_a_reused_id_is_counted(account: Account) -> None:
    lane = account.orders_index()
    store(lane, [an_order("a")], [5])
    before = account.orders()
    store(lane, [an_order("a")], [5])
    store(lane, [an_order("a", country="FR")], [9])
    assert (account.orders(), lane.reused_ids) == (before, 0)
    store(lane, [an_order("a", event_time=EVENT_TIME - 1)], [11])
    assert (account.orders(), lane.reused_ids) == (before, 1)
    store(lane, [an_order("a", event_time=EVENT_TIME + 1)], [2])
    assert (account.orders()["a"]["position"], lane.reused_ids) == (f"{2:020d}", 2)


def test_what_stands_already_is_looked_at_and_not_put_again(account: Account) -> None:
    puts: list[object] = []
    account.client.meta.events.register("before-call.dynamodb.PutItem", lambda **_: puts.append(None))
    lane = account.orders_index()
    values = [an_order(f"o-{number}", customer_id=number) for number in range(120)]  # more than one look holds
    store(lane, values, list(range(200, 320)))
    before = account.orders()
    store(lane, values, list(range(200, 320)))
    store(lane, values, list(range(300, 420)))
    store(account.orders_index("orders-00000002"), values, list(range(120)))
    assert (account.orders(), puts) == (before, [])
    store(lane, [*values[:2], an_order("new")], [7, 8, 9])
    assert len(puts) == 2
    moved = {order: int(item["position"]) for order, item in account.orders().items() if before.get(order) != item}
    assert moved == {"o-0": 7, "o-1": 8, "new": 9}


def test_a_look_that_came_too_early_costs_a_put_and_changes_nothing(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    lane = account.orders_index()
    store(lane, [an_order("a"), an_order("b")], [5, 6])
    before = account.orders()
    monkeypatch.setattr(account.sales, "look", lambda looks, *_: [Found(None)] * len(looks))
    store(lane, [an_order("a", country="FR"), an_order("b", country="FR")], [7, 8])
    assert account.orders() == before


def test_an_item_of_another_incarnation_of_the_stream_stays_as_it_is(account: Account) -> None:
    store(account.orders_index("orders-00000001"), [an_order("a")], [50])
    store(account.orders_index("orders-00000002"), [an_order("a", country="FR")], [3])
    assert account.orders()["a"]["stream"] == "orders-00000001"


def test_malformed_messages_are_counted_and_their_neighbours_stand(account: Account) -> None:
    run = pack(a_chunk([an_order("a"), b"{", an_order("b", currency="EUR"), an_order("c")]))
    prepared = account.orders_index().prepare(run)
    assert (prepared.content.order_ids, prepared.rejected) == (["a", "c"], [10, 13])


def test_the_largest_orders_that_a_stream_takes_fit_in_items(account: Account) -> None:
    many = [a_line(product_name="x" * 300) for _ in range(1_900)]
    edge = [a_line(product_id=f"p{number}", product_name="é" * 20) for number in range(1_700)]
    long = [a_line(product_id="🧺" * 256, product_name="🧺" * 1024, category="🧺" * 256)]
    store(
        account.orders_index(),
        [an_order("a", lines=many), an_order("b", lines=edge), an_order("c", lines=long)],
        [1, 2, 3],
    )
    orders = account.orders()
    assert [orders[order].get("lines_omitted") for order in "abc"] == [True, None, None]
    assert orders["c"]["category"] == "🧺" * 256
    assert len(orders["b"]["lines"]) == 1_700


@pytest.mark.parametrize("seed", range(4))
def test_of_rollups_the_highest_version_stands_and_a_stale_one_only_marks_it(account: Account, seed: int) -> None:
    minute = "2026-11-20T06:00:00.000Z"
    versions = {
        scope: [
            Rollup(minute=minute, scope=scope, country="GB", category="Home", version=version, orders=version, units=7)
            for version in range(1, 6)
        ]
        for scope in ("GB/never stale", "GB/stale", "GB/stale alone")
    }
    marks = [
        Rollup(minute=minute, scope=scope, country="GB", category="Home", version=0, stale=True)
        for scope in ("GB/stale", "GB/stale alone")
    ]
    records = [*versions["GB/never stale"], *versions["GB/stale"], *marks] * 2
    random.Random(seed).shuffle(records)  # noqa: S311 (a seed makes the order the same each time)
    lane = RollupsIndex("index-rollups", account.trends, "USD")
    account.trends.check()
    for start in range(0, len(records), 5):
        extent = Extent("0", None, 1, [records[start : start + 5]], 5, [], 0, 0)
        lane.store(extent, threading.Event())
    assert {item["scope"]: item for item in account.scan(account.settings.trends_table)} == {
        "GB/never stale": plain(trend(versions["GB/never stale"][-1], "USD")),
        "GB/stale": plain(trend(versions["GB/stale"][-1], "USD")) | {"stale": True},
        "GB/stale alone": plain(trend(marks[1], "USD")),
    }


def test_the_lane_keeps_every_order_through_restarts(account: Account) -> None:
    wire = MemoryWire(clock=lambda: EVENT_TIME)
    wire.create("orders", partitions=2, retention_hours=24)
    stream = wire.open("orders")
    dice = random.Random(1)  # noqa: S311 (a seed makes the orders the same each time)
    checkpoints = MemoryCheckpoints()
    sent: dict[str, bytes] = {}
    limits = Limits(rotate_bytes=10**6, rotate_records=20, rotate_seconds=0, buffer_bytes=10**7)
    for _ in range(3):
        lane = account.orders_index(stream.id)
        delivery = Delivery(stream, "index", checkpoints, lane, limits, stop_seconds=20)
        stop = threading.Event()
        thread = threading.Thread(target=delivery.run, args=(stop,))
        thread.start()
        with stream.writer() as writer:
            for _ in range(50):
                order_id = f"o-{dice.randrange(100)}"
                value = an_order(order_id, customer_id=dice.randrange(1_000))
                sent.setdefault(order_id, value)
                writer.write([order_id.encode()], [value])
        eventually(lambda delivery=delivery: delivery.counts.read == 50)  # type: ignore[misc]  # a default in a lambda
        stop.set()
        thread.join(30)
    assert {order: item["customer_id"] for order, item in account.orders().items()} == {
        order: json.loads(value)["customer_id"] for order, value in sent.items()
    }


Script = Callable[[int], str]
"""From the count of questions before this one to the code of an error, or to nothing: it is taken."""


def takes_all(_: int) -> str:
    return ""


@contextmanager
def scripted(
    *, requests: Script = takes_all, statements: Script = takes_all
) -> Iterator[tuple[OrdersIndex, list[str]]]:
    """A lane whose server takes requests, and in them single statements, when the scripts say so; and what it took.
    Every key that it is asked for stands already, but it answers for no more than seven at a time."""
    taken: list[str] = []
    asked, seen = count(), count()
    lock = threading.Lock()

    def take(statement: dict[str, Any]) -> dict[str, Any]:
        if code := statements(next(seen)):
            return {"Error": {"Code": code, "Message": "as told"}}
        taken.append(statement["Parameters"][0]["S"])
        return {"TableName": "SalesData"}

    def looked_at(keys: list[Item]) -> dict[str, Any]:
        assert 1 <= len(keys) <= 100
        stands = {"event_time": {"S": "another"}, "stream": {"S": STREAM}, "position": {"S": f"{0:020d}"}}
        left = {"SalesData": {"Keys": keys[7:]}} if keys[7:] else {}
        return {"Responses": {"SalesData": [key | stands for key in keys[:7]]}, "UnprocessedKeys": left}

    def answer(action: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        if action == "DescribeTable":
            return 200, {"Table": {"TableStatus": "ACTIVE"}}
        if action == "BatchGetItem":
            return 200, looked_at(body["RequestItems"]["SalesData"]["Keys"])
        assert action == "BatchExecuteStatement"
        if code := requests(next(asked)):
            return 400, {"__type": f"com.amazonaws#{code}", "message": "as told"}
        assert 1 <= len(body["Statements"]) <= 25
        return 200, {"Responses": [take(statement) for statement in body["Statements"]]}

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                status, said = answer(self.headers["X-Amz-Target"].rpartition(".")[2], request)
            body = json.dumps(said).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    settings = AwsSettings(aws_endpoint_url=f"http://127.0.0.1:{server.server_port}")
    try:
        with ThreadPoolExecutor(4) as threads:
            table = Table(aws.dynamodb(settings, connections=4), "SalesData", threads)
            yield OrdersIndex("index-orders", table, RULES, OrderItems(STREAM, 20, "USD", REGION_OF)), taken
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch, aws_credentials: None) -> None:
    """Pauses that a test can wait for."""
    monkeypatch.setattr("sink.writes.LONGEST_PAUSE_SECONDS", 0.1)
    monkeypatch.setattr("sink.aws.ATTEMPTS", 1)


def extent_of(lane: OrdersIndex, orders: int) -> Extent[Any]:
    prepared = lane.prepare(pack(a_chunk([an_order(f"o-{number}") for number in range(orders)])))
    return Extent("0", None, 1, [prepared.content], orders, [], 0, 0)


@pytest.mark.parametrize(
    "code", ["ProvisionedThroughputExceeded", "RequestLimitExceeded", "ThrottlingError", "TransactionConflict"]
)
def test_single_throttled_items_are_written_later_each_once_and_none_is_lost(impatient: None, code: str) -> None:
    with scripted(statements=lambda before: code if before % 3 else "") as (lane, taken):
        lane.store(extent_of(lane, 60), threading.Event())
    assert sorted(taken) == sorted(f"o-{number}" for number in range(60))


def test_throttled_requests_are_sent_later_and_none_is_lost(impatient: None) -> None:
    throttled = "ProvisionedThroughputExceededException"
    with scripted(requests=lambda before: throttled if before % 3 else "") as (lane, taken):
        lane.store(extent_of(lane, 60), threading.Event())
    assert sorted(taken) == sorted(f"o-{number}" for number in range(60))


def test_keys_that_a_look_leaves_out_are_looked_at_later(impatient: None) -> None:
    with scripted(statements=lambda _: "DuplicateItem") as (lane, taken):
        lane.store(extent_of(lane, 60), threading.Event())
    assert (taken, lane.reused_ids) == ([], 60)


def test_a_throttled_lane_gives_up_when_nobody_waits_for_it(impatient: None) -> None:
    abandoned = threading.Event()

    def nobody_waits_any_more(before: int) -> str:
        abandoned.set()
        return "ThrottlingError" if before < 50 else ""

    with scripted(statements=nobody_waits_any_more) as (lane, taken), pytest.raises(AbandonedError):
        lane.store(extent_of(lane, 5), abandoned)
    assert taken == []


@pytest.mark.parametrize(
    ("code", "kind"),
    [("ExpiredTokenException", AwayError), ("InternalServerError", AwayError), ("AccessDeniedException", StoreError)],
)
def test_other_faults_are_waited_for_or_told(impatient: None, code: str, kind: type[Exception]) -> None:
    with scripted(requests=lambda _: code) as (lane, _), pytest.raises(kind, match=code):
        lane.store(extent_of(lane, 2), threading.Event())


@pytest.mark.parametrize(
    ("code", "kind"),
    [("InternalServerError", AwayError), ("AccessDenied", StoreError), ("ItemCollectionSizeLimitExceeded", StoreError)],
)
def test_other_faults_of_one_item_are_too(impatient: None, code: str, kind: type[Exception]) -> None:
    def refuses_the_second(before: int) -> str:
        return code if before == 1 else ""

    told = pytest.raises(kind, match=f"SalesData.*: {code}: as told")
    with scripted(statements=refuses_the_second) as (lane, _), told:
        lane.store(extent_of(lane, 3), threading.Event())


def test_large_items_go_in_smaller_batches() -> None:
    small, large = [Insert({}, units=1)] * 30, [Insert({}, units=390)] * 7
    sizes = [len(batch) for batch in cut(small + large, 25)]
    assert sizes == [25, 10, 2]


def test_a_missing_table_is_waited_for_at_the_start(account: Account) -> None:
    with ThreadPoolExecutor(1) as threads, pytest.raises(AwayError, match="tillstream setup"):
        Table(account.client, "NoSuchTable", threads).check()


def test_a_table_of_five_units_is_written_as_fast_as_that(place: StoreSettings) -> None:
    provisioned = place.model_copy(update={"dynamodb_billing": "provisioned"})
    with opened(provisioned) as account:
        for table, indexes in ((provisioned.sales_table, 1), (provisioned.trends_table, 0)):
            made = account.client.describe_table(TableName=table)["Table"]
            found = [made, *made.get("GlobalSecondaryIndexes", ())]
            assert [each["ProvisionedThroughput"]["WriteCapacityUnits"] for each in found] == [5] * (1 + indexes)
        began = time.monotonic()
        store(account.orders_index(), [an_order(f"o-{number}") for number in range(11)], list(range(11)))
        # Five at once, of what a second brings; the others when they are paid for.
        assert time.monotonic() - began >= 6 / 5
        assert len(account.orders()) == 11


def test_a_table_of_five_units_is_looked_at_as_fast_as_that(place: StoreSettings) -> None:
    looks = [Look({"order_id": {"S": f"o-{number}"}}, units=1) for number in range(15)]
    with opened(place.model_copy(update={"dynamodb_billing": "provisioned"})) as account:
        began = time.monotonic()
        account.sales.check()
        # Ten at once, of what a second brings: each takes half a unit.
        assert account.sales.look(looks, ["order_id"], threading.Event()) == [Found(None)] * 15
        assert time.monotonic() - began >= 5 / 10


@pytest.mark.parametrize(("table_units", "index_units", "rate"), [(10, 5, 5), (5, 10, 5), (0, 0, None)])
def test_the_least_capacity_of_a_table_and_its_indexes_counts(
    aws_credentials: None, table_units: int, index_units: int, rate: int | None
) -> None:
    class Described:
        """A client of a table of that capacity."""

        meta = aws.dynamodb(AwsSettings(), connections=1).meta

        def describe_table(self, **_: object) -> dict[str, Any]:
            def units(write: int) -> dict[str, Any]:
                return {"ProvisionedThroughput": {"WriteCapacityUnits": write, "ReadCapacityUnits": 5}}

            indexes = [units(index_units)] if index_units else []
            return {"Table": {"TableStatus": "ACTIVE", **units(table_units), "GlobalSecondaryIndexes": indexes}}

    with ThreadPoolExecutor(1) as threads:
        table = Table(Described(), "SalesData", threads)
        table.check()
    assert table.rate == rate


def test_a_table_on_demand_is_written_without_a_bound(account: Account) -> None:
    made = account.client.describe_table(TableName=account.settings.sales_table)["Table"]
    assert made["ProvisionedThroughput"]["WriteCapacityUnits"] == 0
    account.sales.check()
    assert account.sales.rate is None
