"""Conditional writes to one DynamoDB table: what is throttled again later, and no faster than its capacity.

``insert`` carries 25 items a request, each written only where its key is not there yet: PartiQL's ``INSERT``, in the
one batch of DynamoDB's that keeps a condition for each item. ``write`` is one request an item, with any condition.
``look`` reads what stands under 100 keys a request: whether a conditional write is worth it.
"""

import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeVar

import msgspec
from botocore.exceptions import ClientError

from sales import aws_faults
from sales.events import Log
from sales.streams import AwayError
from sink import failpoints
from sink.items import Item
from sink.lanes import AbandonedError
from sink.pace import Pace
from sink.store import StoreError

log = Log(__name__)

BATCH_ITEMS = 25
"""DynamoDB takes no more statements in one request."""

LOOK_ITEMS = 100
"""DynamoDB looks up no more keys in one request."""

BATCH_UNITS = 2_000
"""2 MB of items to write, as JSON some times that, or 8 MB to read: DynamoDB takes and gives 16 MB in one request."""

LEAST_ROUND = 8
"""Items in a round at least, however hard the table throttles."""

MOST_ROUND = 200
"""Items in a round at most: a batch for each of 8 threads. After each one a stop is noticed, so that a slow table does
not hold it up."""

FIRST_PAUSE_SECONDS = 0.05
LONGEST_PAUSE_SECONDS = 5.0
"""Between two rounds of items that were throttled, with jitter: a table that has no more to give refuses a round many
times, and shorter pauses would only be refused more often."""

THROTTLE_LOG_SECONDS = 30.0

CAPACITY_SECONDS = 60.0
"""How often the table is asked for its capacity, which people and auto scaling change."""

AGAIN_CODES = frozenset(
    "ProvisionedThroughputExceeded RequestLimitExceeded ThrottlingError TransactionConflict".split()
)
"""Of one statement in a batch: it was not carried out, for the moment."""

PASSING_CODES = frozenset(("InternalServerError",))
"""Of one statement in a batch: nobody knows what became of it."""


class Job(Protocol):
    """One item's write, or read."""

    @property
    def units(self) -> int:
        """What it takes of the table's capacity."""
        ...


J = TypeVar("J", bound=Job)


@dataclass(frozen=True, slots=True)
class Insert:
    """An item for where its key is not there yet."""

    attributes: Item
    units: int
    """write units"""


@dataclass(frozen=True, slots=True)
class Look:
    """A question for what stands under a key; eventually consistent."""

    key: Item
    units: int
    """halves of a read unit"""


@dataclass(frozen=True, slots=True)
class Found:
    """What stands there."""

    item: Item | None
    """those of its attributes that were asked for; None: nothing"""


@dataclass(frozen=True, slots=True)
class Write:
    """A conditional write of one item."""

    key: Item
    operation: Literal["put_item", "update_item"]
    request: Mapping[str, Any]
    """what the operation takes beside the table's name"""
    units: int
    """write units"""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a write."""

    written: bool
    other: Item | None
    """what stood there: replaced, or kept instead"""


R = TypeVar("R")


class Table:
    """Conditional writes to one DynamoDB table; any thread may call.

    Args:
        client: boto3's, for ``dynamodb``; see ``sink.aws.dynamodb``.
        name: the table's name.
        threads: run the requests.
    """

    def __init__(self, client: Any, name: str, threads: Executor) -> None:
        self._client = client
        self._name = name
        self._threads = threads
        self._writing = Pace()
        self._reading = Pace()
        self._ask_at = time.monotonic()
        self._statements: dict[tuple[str, ...], str] = {}
        self._throttled = 0
        self._counting = threading.Lock()
        self.address = f"DynamoDB table {name} at {client.meta.endpoint_url}"

    @property
    def rate(self) -> int | None:
        """Write units a second that the table was last heard to have; None: on demand, or not yet asked."""
        return self._writing.rate

    @property
    def throttled(self) -> int:
        """Writes that the table put off so far, each time that it did."""
        return self._throttled

    def insert(self, inserts: Sequence[Insert], abandoned: threading.Event) -> list[bool]:
        """Writes each item whose key is not there yet; blocks until all are answered, as ``write`` does. False: the key
        was there.

        Args:
            inserts: of different keys.
            abandoned: ends the waiting.

        Raises:
            AwayError, StoreError, AbandonedError: as ``write``.
        """
        return self._carry(inserts, BATCH_ITEMS, self._insert, self._writing, abandoned)

    def look(self, looks: Sequence[Look], names: Sequence[str], abandoned: threading.Event) -> list[Found]:
        """What stands under each key, as it was a moment ago; blocks until all are answered, as ``write`` does.

        Args:
            looks: of different keys.
            names: the attributes that are shown; the key's are among them.
            abandoned: ends the waiting.

        Raises:
            AwayError, StoreError, AbandonedError: as ``write``, but nothing is written.
        """
        return self._carry(looks, LOOK_ITEMS, lambda batch: self._look(batch, names), self._reading, abandoned)

    def write(self, writes: Sequence[Write], abandoned: threading.Event) -> list[Outcome]:
        """Writes each item whose condition holds; blocks until all are answered. What is throttled is tried again,
        after a pause that grows while nothing gets through, for as long as it takes.

        Args:
            writes: of different keys.
            abandoned: ends the waiting.

        Raises:
            AwayError: no answer; any of them may be written.
            StoreError: refused for good.
            AbandonedError: ``abandoned`` was set.
        """
        return self._carry(writes, 1, self._write, self._writing, abandoned)

    def check(self) -> None:
        """One request that shows that the table can be written, and how fast.

        Raises:
            AwayError: no answer, or the table is missing or not ready (somebody may be about to create it).
            StoreError: refused for good.
        """
        self._ask_at = time.monotonic() + CAPACITY_SECONDS
        try:
            table = self._client.describe_table(TableName=self._name)["Table"]
        except (ClientError, *aws_faults.TRANSPORT_FAULTS) as error:
            if isinstance(error, ClientError) and aws_faults.code(error) == "ResourceNotFoundException":
                raise AwayError(f"{self.address} does not exist; `tillstream setup` creates it") from error
            raise self._explain(error, "describe") from error
        if table["TableStatus"] not in ("ACTIVE", "UPDATING"):
            raise AwayError(f"{self.address} is {table['TableStatus']}")
        rate = _write_rate(table)
        if rate != self._writing.rate:
            self._writing.rate = rate
            if rate is None:
                log.info("table_unbounded", "{table} is written without a bound (on-demand)", table=self.address)
            else:
                log.info(
                    "table_bounded",
                    "{table} is written at {write_units_per_second} write units a second, its capacity",
                    table=self.address,
                    write_units_per_second=rate,
                )
        self._reading.rate = _half_read_rate(table)

    def _carry(
        self,
        jobs: Sequence[J],
        at_once: int,
        send: Callable[[Sequence[J]], Sequence[R | None]],
        pace: Pace,
        abandoned: threading.Event,
    ) -> list[R]:
        """Sends jobs in rounds, up to ``at_once`` in a request, those that ``send`` has None for again."""
        outcomes: list[R | None] = [None] * len(jobs)
        waiting = list(range(len(jobs)))
        width, pause = MOST_ROUND, FIRST_PAUSE_SECONDS
        say_at = time.monotonic() + THROTTLE_LOG_SECONDS
        while waiting:
            if abandoned.is_set():
                raise AbandonedError(f"{self.address}: {len(waiting)} items were given up")
            self._ask_for_capacity()
            units = [jobs[place].units for place in waiting[:width]]
            if (ready_in := pace.ready_in(units)) > 0:
                abandoned.wait(min(ready_in, CAPACITY_SECONDS))
                continue
            count = pace.take(units)
            tried, waiting = waiting[:count], waiting[count:]
            batches = list(cut([jobs[place] for place in tried], at_once))
            failpoints.passed("items-before")
            answers = [answer for batch in self._threads.map(send, batches) for answer in batch]
            failpoints.passed("items-after")
            for place, answer in zip(tried, answers, strict=True):
                outcomes[place] = answer
            throttled = [place for place in tried if outcomes[place] is None]
            if not throttled:
                width, pause = min(MOST_ROUND, 2 * width), FIRST_PAUSE_SECONDS
                continue
            with self._counting:
                self._throttled += len(throttled)
            written = len(tried) - len(throttled)
            width = min(MOST_ROUND, max(LEAST_ROUND, 2 * written))
            pause = FIRST_PAUSE_SECONDS if written else min(LONGEST_PAUSE_SECONDS, 2 * pause)
            waiting = throttled + waiting
            if time.monotonic() >= say_at:
                say_at = time.monotonic() + THROTTLE_LOG_SECONDS
                log.warning(
                    "table_throttled",
                    "{table} is throttled; {items} items wait, none is lost",
                    table=self.address,
                    items=len(waiting),
                )
            abandoned.wait(pause * random.uniform(0.5, 1))  # noqa: S311 (jitter)
        return [outcome for outcome in outcomes if outcome is not None]

    def _ask_for_capacity(self) -> None:
        """Now and then; while it is not answered, the rate stays."""
        if time.monotonic() < self._ask_at:
            return
        try:
            self.check()
        except (AwayError, StoreError) as error:
            log.warning("table_capacity_unknown", "the capacity stays as it was: {error}", error=error)

    def _insert(self, inserts: Sequence[Insert]) -> list[bool | None]:
        """One request; None: throttled."""
        statements = [
            {"Statement": self._statement(tuple(insert.attributes)), "Parameters": list(insert.attributes.values())}
            for insert in inserts
        ]
        body = msgspec.json.encode({"Statements": statements})
        try:
            answer = self._client.batch_execute_statement(Body=body)
        except (ClientError, *aws_faults.TRANSPORT_FAULTS) as error:
            if isinstance(error, ClientError) and aws_faults.throttled(error):
                return [None] * len(inserts)
            raise self._explain(error, "inserts") from error
        return [self._inserted(response.get("Error")) for response in answer["Responses"]]

    def _inserted(self, error: Mapping[str, Any] | None) -> bool | None:
        if error is None:
            return True
        code = error.get("Code", "")
        if code == "DuplicateItem":
            return False
        if code in AGAIN_CODES:
            return None
        message = f"{self.address}: insert: {code}: {error.get('Message', '')}"
        raise AwayError(message) if code in PASSING_CODES else StoreError(message)

    def _statement(self, names: tuple[str, ...]) -> str:
        """Inserts an item with these attributes; optional ones make some few of them."""
        if names not in self._statements:
            pairs = ", ".join(f"'{name}': ?" for name in names)
            self._statements[names] = f'INSERT INTO "{self._name}" VALUE {{{pairs}}}'
        return self._statements[names]

    def _look(self, looks: Sequence[Look], names: Sequence[str]) -> list[Found | None]:
        """One request; None: throttled, or more than fits into one answer."""
        shown = {f"#{number}": name for number, name in enumerate(names)}
        request = {
            "Keys": [look.key for look in looks],
            "ProjectionExpression": ", ".join(shown),
            "ExpressionAttributeNames": shown,
        }
        try:
            answer = self._client.batch_get_item(RequestItems={self._name: request})
        except (ClientError, *aws_faults.TRANSPORT_FAULTS) as error:
            if isinstance(error, ClientError) and aws_faults.throttled(error):
                return [None] * len(looks)
            raise self._explain(error, "look-ups") from error
        [*wanted] = looks[0].key

        def key_of(item: Item) -> tuple[str, ...]:
            return tuple(value for name in wanted for value in item[name].values())

        found = {key_of(item): Found(item) for item in answer["Responses"].get(self._name, ())}
        unread = {key_of(key) for key in answer["UnprocessedKeys"].get(self._name, {}).get("Keys", ())}
        keys = [key_of(look.key) for look in looks]
        return [None if key in unread else found.get(key, Found(None)) for key in keys]

    def _write(self, writes: Sequence[Write]) -> list[Outcome | None]:
        """One request, for one write; None: throttled."""
        [write] = writes
        try:
            answer = getattr(self._client, write.operation)(
                TableName=self._name,
                **write.request,
                ReturnValues="ALL_OLD",
                ReturnValuesOnConditionCheckFailure="ALL_OLD",
            )
        except (ClientError, *aws_faults.TRANSPORT_FAULTS) as error:
            if isinstance(error, ClientError):
                if aws_faults.code(error) == "ConditionalCheckFailedException":
                    return [Outcome(written=False, other=error.response.get("Item"))]
                if aws_faults.throttled(error):
                    return [None]
            raise self._explain(error, f"{write.operation} {write.key}") from error
        return [Outcome(written=True, other=answer.get("Attributes"))]

    def _explain(self, error: Exception, what: str) -> Exception:
        message = f"{self.address}: {what}: {error}"
        if not isinstance(error, ClientError) or aws_faults.passes(error):
            return AwayError(message)
        return StoreError(message)


def cut(jobs: Sequence[J], at_once: int) -> Iterator[list[J]]:
    """Batches of at most that many, and of at most BATCH_UNITS unless one alone has more."""
    batch: list[J] = []
    units = 0
    for job in jobs:
        if batch and (len(batch) == at_once or units + job.units > BATCH_UNITS):
            yield batch
            batch, units = [], 0
        batch.append(job)
        units += job.units
    if batch:
        yield batch


def _write_rate(table: Mapping[str, Any]) -> int | None:
    """Write units a second of the table or, if that has fewer, of an index: each write goes to all of them. None:
    on-demand, where DynamoDB says 0."""
    provisioned = [table, *table.get("GlobalSecondaryIndexes", ())]
    return min(each.get("ProvisionedThroughput", {}).get("WriteCapacityUnits", 0) for each in provisioned) or None


def _half_read_rate(table: Mapping[str, Any]) -> int | None:
    """Halves of a read unit a second of the table, where items are looked up by key; None: on-demand."""
    return 2 * int(table.get("ProvisionedThroughput", {}).get("ReadCapacityUnits", 0)) or None
