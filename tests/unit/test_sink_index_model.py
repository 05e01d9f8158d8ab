"""Of every order id DynamoDB holds the event with the lowest position, whatever is throttled, lost, crashes or comes
again: the real lane and its real requests, over a table that does as each statement's fate says.
"""

import json
import threading
from collections.abc import Iterator
from typing import Any, Literal, get_args

import pytest
from botocore.exceptions import ClientError, ReadTimeoutError
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from sales.countries import REGION_OF
from sales.streams import AwayError
from sales.streams.packed import pack
from sink.index import OrdersIndex
from sink.items import OrderItems
from sink.lanes import Extent
from sink.store import StoreError
from sink.writes import MOST_ROUND, Table
from support.sinking import EVENT_TIME, RULES, STREAM, Inline, a_chunk, an_order

Item = dict[str, Any]
Fate = Literal["answered", "throttled", "unknown before", "unknown after", "lost request", "lost answer", "crash"]
"""Of one statement. ``unknown``: an error that does not tell whether it was carried out. ``lost``: the same for all of
the request which it is in. ``crash``: those before it are carried out, and nothing more of this process."""
FATES: tuple[Fate, ...] = get_args(Fate)


@pytest.fixture(autouse=True, scope="module")
def what_is_throttled_is_sent_again_at_once() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sink.writes.FIRST_PAUSE_SECONDS", 0.0)
        yield


class CrashError(BaseException):
    """The process ends here."""


class Connection:
    """One process's client of a table, as far as the lane uses one.

    Args:
        items: the table's, by key; shared by all.
        fates: of its statements, in turn; those that follow are answered.
    """

    class meta:  # noqa: N801 (boto3's name)
        endpoint_url = "nowhere"

    def __init__(self, items: dict[str, Item], fates: list[Fate]) -> None:
        self._items = items
        self._fates = fates
        self._crashed = False

    def describe_table(self, **_: object) -> dict[str, Any]:
        return {"Table": {"TableStatus": "ACTIVE"}}

    def batch_execute_statement(self, **request: bytes) -> dict[str, Any]:
        answers, lost = [], False
        for statement in json.loads(request["Body"])["Statements"]:
            fate = self._next()
            lost = lost or fate.startswith("lost")
            answers.append({} if fate == "lost request" else self._insert(statement, fate))
        if lost:
            raise ReadTimeoutError(endpoint_url="nowhere")
        return {"Responses": answers}

    def batch_get_item(self, **request: Any) -> dict[str, Any]:
        """As the real one does: what is throttled is left for another request."""
        [(table, asked)] = request["RequestItems"].items()
        names = asked["ExpressionAttributeNames"].values()
        found, unprocessed = [], []
        for key in asked["Keys"]:
            fate = self._next()
            if fate.startswith("lost"):
                raise ReadTimeoutError(endpoint_url="nowhere")
            if fate.startswith("unknown"):
                raise refusal("InternalServerError")
            if fate == "throttled":
                unprocessed.append(key)
            elif (item := self._items.get(key["order_id"]["S"])) is not None:
                found.append({name: item[name] for name in names if name in item})
        return {
            "Responses": {table: found},
            "UnprocessedKeys": {table: {"Keys": unprocessed}} if unprocessed else {},
        }

    def put_item(self, **request: Any) -> dict[str, Any]:
        fate = self._next()
        if fate == "lost request":
            raise ReadTimeoutError(endpoint_url="nowhere")
        if fate in ("throttled", "unknown before"):
            raise refusal("ThrottlingException" if fate == "throttled" else "InternalServerError")
        key = request["Item"]["order_id"]["S"]
        stood = self._items.get(key)
        held = stood is None or holds(request, stood)
        if held:
            self._items[key] = request["Item"]
        if fate == "lost answer":
            raise ReadTimeoutError(endpoint_url="nowhere")
        if fate == "unknown after":
            raise refusal("InternalServerError")
        if not held:
            raise refusal("ConditionalCheckFailedException", Item=stood)
        return {} if stood is None else {"Attributes": stood}

    def _insert(self, statement: dict[str, Any], fate: Fate) -> dict[str, Any]:
        """As the real one does: where the key is there already, nothing is written, and the code says so."""
        if fate == "throttled":
            return {"Error": {"Code": "ThrottlingError"}}
        code = ""
        if fate != "unknown before":
            text, parameters = statement["Statement"], statement["Parameters"]
            assert text.startswith('INSERT INTO "SalesData" VALUE {')
            names = [pair.strip().split("'")[1] for pair in text[text.index("{") + 1 : -1].split(",")]
            item = dict(zip(names, parameters, strict=True))
            code = "DuplicateItem" if item["order_id"]["S"] in self._items else ""
            self._items.setdefault(item["order_id"]["S"], item)
        if fate.startswith("unknown"):
            code = "InternalServerError"
        return {"Error": {"Code": code}} if code else {}

    def _next(self) -> Fate:
        fate: Fate = self._fates.pop(0) if self._fates else "answered"
        self._crashed = self._crashed or fate == "crash"
        if self._crashed:
            raise CrashError
        return fate


def refusal(code: str, **more: Any) -> ClientError:
    status = 500 if code == "InternalServerError" else 400
    answer: Any = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}, **more}
    return ClientError(answer, "PutItem")


def holds(request: dict[str, Any], item: Item) -> bool:
    """Its condition: alternatives of terms that all must hold, ``attribute_not_exists(a) OR (#b = :c AND …)``."""

    def value(word: str) -> str:
        if word.startswith(":"):
            return str(request["ExpressionAttributeValues"][word]["S"])
        return str(item[request["ExpressionAttributeNames"][word]]["S"])

    def term(text: str) -> bool:
        if text.startswith("attribute_not_exists("):
            return text.removeprefix("attribute_not_exists(") not in item
        left, operator, right = text.split()
        return {"=": value(left) == value(right), ">": value(left) > value(right)}[operator]

    alternatives = request["ConditionExpression"].split(" OR ")
    return any(all(map(term, each.strip("()").split(" AND "))) for each in alternatives)


def carry(items: dict[str, Item], partition: str, events: dict[int, bytes], fates: list[Fate]) -> bool:
    """A process that stores these events as one extent, again while it is not answered, as ``Delivery`` does. False: it
    crashed."""
    table = Table(Connection(items, fates), "SalesData", Inline())
    lane = OrdersIndex("index-orders", table, RULES, OrderItems(STREAM, 20, "USD", REGION_OF))
    run = pack(a_chunk(list(events.values()), positions=list(events), partition=partition))
    pieces = [lane.prepare(part).content for part in run.cut(len(run) // 2) if len(part)]
    extent = Extent(partition, None, max(events), pieces, len(events), [], 0, 0)
    while True:
        try:
            lane.store(extent, threading.Event())
        except AwayError:
            continue
        except CrashError:
            return False
        return True


IDS = ("a", "b", "c", "d")


class Arrivals(RuleBasedStateMachine):
    """Two partitions of one stream; any stretch of either may be stored at any time, and again."""

    @initialize()
    def begin(self) -> None:
        self.items: dict[str, Item] = {}
        self.logs: list[dict[int, bytes]] = [{}, {}]
        self.done: list[set[int]] = [set(), set()]
        self.before: dict[str, int] = {}

    @rule(which=st.integers(0, 1), ids=st.lists(st.sampled_from(IDS), min_size=1, max_size=6), gap=st.integers(1, 9))
    def append(self, which: int, ids: list[str], gap: int) -> None:
        log = self.logs[which]
        for order_id in ids:
            place = 2 * (max(log, default=0) // 2 + gap) + which  # no position is in both
            log[place] = an_order(order_id, event_time=EVENT_TIME + place % 3, customer_id=place)

    @precondition(lambda self: any(self.logs))
    @rule(
        which=st.integers(0, 1),
        start=st.integers(0, 12),
        count=st.integers(1, 8),
        fates=st.lists(st.sampled_from(FATES), max_size=12),
    )
    def store(self, which: int, start: int, count: int, fates: list[Fate]) -> None:
        places = list(self.logs[which])[start : start + count]
        if places and carry(self.items, str(which), {place: self.logs[which][place] for place in places}, fates):
            self.done[which].update(places)

    @invariant()
    def what_was_answered_stands_at_the_lowest_position_or_a_lower_one(self) -> None:
        if not hasattr(self, "items"):
            return
        stands = {order_id: int(item["position"]["S"]) for order_id, item in self.items.items()}
        for order_id, lowest in lowest_of({p: v for i in (0, 1) for p, v in self.logs[i].items() if p in self.done[i]}):
            assert stands[order_id] <= lowest
        assert all(stands[order_id] <= earlier for order_id, earlier in self.before.items()), "a position went up"
        assert all(int(item["customer_id"]["N"]) == stands[order_id] for order_id, item in self.items.items())
        self.before = stands

    def teardown(self) -> None:
        if not hasattr(self, "items"):
            return
        for which, log in enumerate(self.logs):
            left = {place: value for place, value in log.items() if place not in self.done[which]}
            assert not left or carry(self.items, str(which), left, [])
        everything = dict(lowest_of(self.logs[0] | self.logs[1]))
        assert {order_id: int(item["position"]["S"]) for order_id, item in self.items.items()} == everything


def lowest_of(log: dict[int, bytes]) -> Iterator[tuple[str, int]]:
    """Each id with its lowest position."""
    found: dict[str, int] = {}
    for place in sorted(log, reverse=True):
        found[json.loads(log[place])["order_id"]] = place
    return iter(found.items())


Arrivals.TestCase.settings = settings(max_examples=60, stateful_step_count=30)
test_the_lowest_position_of_each_id_stands_under_any_schedule = Arrivals.TestCase


@pytest.mark.parametrize("fate", FATES)
@pytest.mark.parametrize("statement", range(7))
def test_a_fault_at_any_statement_is_mended_by_storing_again(statement: int, fate: Fate) -> None:
    first = {place: an_order(order_id, customer_id=place) for place, order_id in zip((11, 13, 15), "abc", strict=True)}
    earlier = {place: an_order(order_id, customer_id=place) for place, order_id in zip((2, 4), "ab", strict=True)}
    items: dict[str, Item] = {}
    fates: list[Fate] = ["answered" for _ in range(statement)]
    fates.append(fate)
    for events, partition in ((first, "1"), (earlier, "0")):
        if not carry(items, partition, events, fates):
            assert carry(items, partition, events, [])
    stands = {order_id: (int(item["position"]["S"]), item["partition"]["S"]) for order_id, item in items.items()}
    assert stands == {"a": (2, "0"), "b": (4, "0"), "c": (15, "1")}


def test_an_item_that_no_sink_wrote_is_named_and_stays() -> None:
    theirs: Item = {"order_id": {"S": "a"}, "note": {"S": "mine"}}
    items = {"a": theirs}
    with pytest.raises(StoreError, match=r"has no event_time and no position and no stream.*'S': 'a'"):
        carry(items, "0", {7: an_order("a")}, [])
    assert items == {"a": theirs}


def test_a_round_has_its_bound_however_much_of_it_is_throttled(monkeypatch: pytest.MonkeyPatch) -> None:
    rounds: list[int] = []

    class Threads(Inline):
        """Notes how many statements a round has."""

        def map(self, fn: Any, *batches: Any, **options: Any) -> Any:
            [several] = batches
            rounds.append(sum(map(len, several)))
            return super().map(fn, several, **options)

    fates: list[Fate] = ["throttled", *["answered"] * 60] * 40  # type: ignore[list-item]
    table = Table(Connection({}, fates), "SalesData", Threads())
    lane = OrdersIndex("index-orders", table, RULES, OrderItems(STREAM, 20, "USD", REGION_OF))
    events = {number: an_order(f"o-{number}") for number in range(1, 900)}
    run = pack(a_chunk(list(events.values()), positions=list(events)))
    extent = Extent("0", None, 899, [lane.prepare(run).content], 899, [], 0, 0)
    lane.store(extent, threading.Event())
    assert max(rounds) == MOST_ROUND
    assert sum(rounds) > len(events)  # some were sent again
