"""Kinesis as AWS has it, and as no local server does: splits, expiry, throttling, records that retention took."""

import random
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from zlib import crc32

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError

from sales.streams import (
    AwayError,
    Checkpoint,
    Chunk,
    PositionLostError,
    Reader,
    StreamError,
    kinesis_reader,
    kinesis_writer,
)
from sales.streams.kinesis import KinesisStream, KinesisWire
from sales.streams.memory import MemoryCheckpoints
from support.waiting import eventually

BOUND = 10.0
PAUSE = 0.002
"""Seconds between two reads of a shard."""

CREATED = datetime(2026, 11, 20, tzinfo=UTC)
RETENTION_HOURS = 24

A, B, C, D = (f"shardId-{number:012d}" for number in range(4))


def fault(code: str, status: int = 400) -> ClientError:
    return ClientError({"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}, "Operation")


NO_NETWORK = EndpointConnectionError(endpoint_url="http://nowhere")


@dataclass
class FakeShard:
    """One shard; sequence numbers go up in uneven steps, as AWS's do."""

    parents: list[str] = field(default_factory=list)
    records: list[dict[str, Any]] = field(default_factory=list)
    trimmed: int = 0
    """how many of the oldest records retention took"""
    closed: bool = False


class FakeKinesis:
    """One stream, as much of boto3's client as is used."""

    def __init__(self, *shards: str, page: int = 7) -> None:
        self.shards = {name: FakeShard() for name in shards}
        self.page = page
        self.made = datetime(2026, 11, 20, tzinfo=UTC)
        """when records arrive"""
        self.changes: dict[str, Any] = {}
        """of what is said of the stream"""
        self.clock = time.time
        self.ends_closed_shards = True
        self.faults: dict[str, list[Exception]] = defaultdict(list)
        self.calls: Counter[str] = Counter()
        self.puts: list[list[tuple[str, bytes]]] = []
        self.refuse: Callable[[str], bool] = lambda _: False
        self._expired: set[str] = set()
        self._iterators: dict[str, tuple[str, int]] = {}
        self._sequence = 10**55

    def write(self, shard: str, key: str, value: bytes) -> int:
        self._sequence += 1 + self._sequence % 3
        self.shards[shard].records.append(
            {
                "SequenceNumber": str(self._sequence),
                "PartitionKey": key,
                "Data": value,
                "ApproximateArrivalTimestamp": self.made,
            }
        )
        return self._sequence

    def split(self, shard: str, *children: str) -> None:
        self.shards[shard].closed = True
        for child in children:
            self.shards[child] = FakeShard(parents=[shard])

    def expire_iterators(self) -> None:
        self._expired.update(self._iterators)

    def _called(self, operation: str) -> None:
        self.calls[operation] += 1
        if self.faults[operation]:
            raise self.faults[operation].pop(0)

    def describe_stream_summary(self, **_: Any) -> dict[str, Any]:
        self._called("describe_stream_summary")
        summary = {"StreamARN": "arn:s", "StreamCreationTimestamp": CREATED, "RetentionPeriodHours": RETENTION_HOURS}
        return {"StreamDescriptionSummary": summary | self.changes}

    def list_shards(self, NextToken: str = "0", **_: Any) -> dict[str, Any]:  # noqa: N803 (boto3's names)
        self._called("list_shards")
        at = int(NextToken)
        names = list(self.shards)[at : at + 2]
        found = []
        for name in names:
            shard = self.shards[name]
            listed: dict[str, Any] = {"ShardId": name, "SequenceNumberRange": {"StartingSequenceNumber": "0"}}
            listed.update(zip(("ParentShardId", "AdjacentParentShardId"), shard.parents, strict=False))
            if shard.closed:
                listed["SequenceNumberRange"]["EndingSequenceNumber"] = str(self._sequence)
            found.append(listed)
        more = {"NextToken": str(at + 2)} if at + 2 < len(self.shards) else {}
        return {"Shards": found, **more}

    def get_shard_iterator(self, *, ShardId: str, **start: Any) -> dict[str, str]:  # noqa: N803 (boto3's names)
        self._called("get_shard_iterator")
        shard = self.shards[ShardId]
        at = 0
        if start["ShardIteratorType"] == "AT_SEQUENCE_NUMBER":
            number = int(start["StartingSequenceNumber"])
            at = sum(int(record["SequenceNumber"]) < number for record in shard.records)
        elif start["ShardIteratorType"] == "AT_TIMESTAMP":
            if start["Timestamp"] > self.clock():
                raise fault("InvalidArgumentException")
            at = sum(record["ApproximateArrivalTimestamp"].timestamp() < start["Timestamp"] for record in shard.records)
        return {"ShardIterator": self._iterator(ShardId, max(at, shard.trimmed))}

    def _iterator(self, shard: str, at: int) -> str:
        name = f"iterator-{len(self._iterators)}"
        self._iterators[name] = (shard, at)
        return name

    def get_records(self, *, ShardIterator: str, **_: Any) -> dict[str, Any]:  # noqa: N803 (boto3's names)
        self._called("get_records")
        if ShardIterator in self._expired:
            raise fault("ExpiredIteratorException")
        name, at = self._iterators[ShardIterator]
        shard = self.shards[name]
        records = shard.records[at : at + self.page]
        at += len(records)
        behind = len(shard.records) - at
        answer: dict[str, Any] = {"Records": records, "MillisBehindLatest": behind * 1000}
        if behind or not shard.closed or not self.ends_closed_shards:
            answer["NextShardIterator"] = self._iterator(name, at)
        return answer

    def put_records(self, *, Records: list[dict[str, Any]], **_: Any) -> dict[str, Any]:  # noqa: N803 (boto3's names)
        self._called("put_records")
        self.puts.append([(record["PartitionKey"], record["Data"]) for record in Records])
        results = []
        for record in Records:
            if self.refuse(record["PartitionKey"]):
                results.append({"ErrorCode": "ProvisionedThroughputExceededException", "ErrorMessage": "hot"})
                continue
            names = list(self.shards)
            shard = names[crc32(record["PartitionKey"].encode()) % len(names)]
            results.append({"SequenceNumber": str(self.write(shard, record["PartitionKey"], record["Data"]))})
        return {"Records": results}


def open_stream(fake: FakeKinesis) -> KinesisStream:
    return KinesisWire(fake, "a fake", PAUSE).open("orders")


@pytest.fixture
def fake() -> FakeKinesis:
    return FakeKinesis(A)


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kinesis_reader, "IDLE_SECONDS", PAUSE)
    monkeypatch.setattr(kinesis_reader, "LIST_SECONDS", 5 * PAUSE)
    monkeypatch.setattr(kinesis_reader, "LONGEST_BACKOFF_SECONDS", 5 * PAUSE)
    monkeypatch.setattr(kinesis_writer, "FIRST_BACKOFF_SECONDS", PAUSE)
    monkeypatch.setattr(kinesis_writer, "LONGEST_BACKOFF_SECONDS", PAUSE)
    monkeypatch.setattr(kinesis_writer, "LINGER_SECONDS", PAUSE)


@pytest.fixture
def readers() -> Iterator[list[Reader]]:
    opened: list[Reader] = []
    yield opened
    for reader in opened:
        reader.close()


def read(reader: Reader, count: int, max_records: int = 5) -> list[tuple[str, bytes]]:
    """Polls until so many records came; shard and value of each."""
    got: list[tuple[str, bytes]] = []

    def enough() -> bool:
        got.extend(pairs(reader.poll(min(max_records, count - len(got)), 0.05)))
        return len(got) == count

    eventually(enough, f"{count} records")
    return got


def pairs(chunks: list[Chunk]) -> list[tuple[str, bytes]]:
    return [(chunk.partition, value) for chunk in chunks for value in chunk.values]


def fill(fake: FakeKinesis, shard: str, values: range) -> list[int]:
    return [fake.write(shard, "key", b"%d" % value) for value in values]


def numbers(got: list[tuple[str, bytes]]) -> list[int]:
    return [int(value) for _, value in got]


# Reading


@pytest.mark.parametrize("ends_closed_shards", [True, False])
def test_a_split_shard_is_read_to_its_end_before_its_children(
    fake: FakeKinesis, readers: list[Reader], ends_closed_shards: bool
) -> None:
    fake.ends_closed_shards = ends_closed_shards  # some servers go on handing out iterators
    fill(fake, A, range(50))
    fake.split(A, B, C)
    fill(fake, B, range(50, 80))
    fake.split(B, D)
    fill(fake, D, range(80, 90))
    stream = open_stream(fake)
    assert stream.partitions() == [A, B, C, D]
    reader = stream.reader(dict.fromkeys(stream.partitions()))
    readers.append(reader)

    assert numbers(read(reader, 90)) == list(range(90))


def test_merged_shards_are_both_read_before_their_child(readers: list[Reader]) -> None:
    fake = FakeKinesis(A, B)
    fill(fake, A, range(20))
    fill(fake, B, range(20, 60))
    fake.split(A, C)
    fake.shards[B].closed = True
    fake.shards[C].parents = [A, B]
    fill(fake, C, range(60, 70))
    stream = open_stream(fake)
    reader = stream.reader(dict.fromkeys(stream.partitions()))
    readers.append(reader)

    got = numbers(read(reader, 70))
    assert sorted(got[:60]) == list(range(60))
    assert got[60:] == list(range(60, 70))


def test_a_child_is_read_at_once_when_its_parent_belongs_to_another_reader(
    fake: FakeKinesis, readers: list[Reader]
) -> None:
    fill(fake, A, range(10))
    fake.split(A, B)
    fill(fake, B, range(10, 20))
    reader = open_stream(fake).reader({B: None})
    readers.append(reader)
    assert numbers(read(reader, 10)) == list(range(10, 20))


def test_a_child_that_is_added_to_a_running_reader_gives_nothing_before_its_parent_was_handed_out(
    fake: FakeKinesis, readers: list[Reader]
) -> None:
    fill(fake, A, range(30))
    reader = open_stream(fake).reader({A: None})
    readers.append(reader)
    got = read(reader, 5)
    fake.split(A, B, C)
    fill(fake, B, range(30, 40))
    eventually(lambda: reader.partitions() == [A, B, C], "the children are listed")
    reader.add({B: None, C: None})
    assert numbers(got + read(reader, 35)) == list(range(40))
    with pytest.raises(PositionLostError, match=D):
        reader.add({D: None})
    fill(fake, C, range(40, 45))
    assert numbers(read(reader, 5)) == list(range(40, 45))


def test_an_expired_iterator_costs_nothing(fake: FakeKinesis, readers: list[Reader]) -> None:
    fill(fake, A, range(100))
    reader = open_stream(fake).reader({A: None})
    readers.append(reader)
    got = read(reader, 30)
    fake.expire_iterators()
    fill(fake, A, range(100, 120))
    got += read(reader, 45)
    fake.expire_iterators()
    got += read(reader, 45)
    assert numbers(got) == list(range(120))


@pytest.mark.parametrize(
    "passing",
    [
        fault("ProvisionedThroughputExceededException"),
        fault("LimitExceededException"),
        fault("ExpiredTokenException"),
        fault("RequestExpired"),
        fault("Unheard of", status=429),
        fault("SomethingBroke", status=500),
        NO_NETWORK,
    ],
)
def test_faults_that_pass_are_tried_again(fake: FakeKinesis, readers: list[Reader], passing: Exception) -> None:
    fill(fake, A, range(20))
    fake.faults["get_records"] = [passing] * 5
    fake.faults["get_shard_iterator"] = [passing] * 3
    reader = open_stream(fake).reader({A: None})
    readers.append(reader)
    assert numbers(read(reader, 20)) == list(range(20))
    assert fake.faults["get_records"] == fake.faults["get_shard_iterator"] == []


def test_an_answer_that_does_not_come_holds_up_no_poll(
    fake: FakeKinesis, readers: list[Reader], monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(fake, A, range(20))
    asked, answer, came = threading.Event(), threading.Event(), list[bool]()
    get_records = fake.get_records

    def late(**named: Any) -> dict[str, Any]:
        asked.set()
        came.append(answer.wait(BOUND))
        return get_records(**named)

    monkeypatch.setattr(fake, "get_records", late)
    reader = open_stream(fake).reader({A: None})
    readers.append(reader)
    assert asked.wait(BOUND)
    assert reader.poll(10, 0) == []
    answer.set()
    assert numbers(read(reader, 20)) == list(range(20))
    assert all(came), "the poll came back before the answer"


def test_a_service_that_was_away_for_hours_is_read_on(
    fake: FakeKinesis, readers: list[Reader], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kinesis_reader, "LONGEST_BACKOFF_SECONDS", 0)
    fill(fake, A, range(20))
    fake.faults["get_records"] = [NO_NETWORK] * 1_100  # a power of two with this exponent is no float any more
    reader = open_stream(fake).reader({A: None})
    readers.append(reader)
    assert numbers(read(reader, 20)) == list(range(20))


def test_a_list_of_shards_that_fails_is_asked_for_again(fake: FakeKinesis, readers: list[Reader]) -> None:
    reader = open_stream(fake).reader({A: None})
    readers.append(reader)
    fake.faults["list_shards"] = [NO_NETWORK] * 2
    eventually(lambda: not fake.faults["list_shards"], "two faults")
    fill(fake, A, range(5))
    assert numbers(read(reader, 5)) == list(range(5))


def test_a_refusal_ends_the_reader(fake: FakeKinesis, readers: list[Reader]) -> None:
    fake.faults["get_records"] = [fault("AccessDeniedException")]
    reader = open_stream(fake).reader({A: None})
    readers.append(reader)
    with pytest.raises(StreamError, match="AccessDenied"):
        read(reader, 1)


def test_what_was_fetched_before_a_failure_is_still_handed_out(fake: FakeKinesis, readers: list[Reader]) -> None:
    fill(fake, A, range(7))
    reader = open_stream(fake).reader({A: None})
    readers.append(reader)
    eventually(lambda: fake.calls["get_records"] >= 1, "the first read")
    fake.faults["get_records"] = [fault("AccessDeniedException")]
    eventually(lambda: not fake.faults["get_records"], "the refusal")
    assert numbers(read(reader, 7)) == list(range(7))
    with pytest.raises(StreamError, match="AccessDenied"):
        read(reader, 1)


@pytest.mark.parametrize("written_later", [0, 30])
def test_a_position_that_retention_removed_is_lost(
    fake: FakeKinesis, readers: list[Reader], written_later: int
) -> None:
    positions = fill(fake, A, range(20))
    fill(fake, A, range(written_later))
    fake.shards[A].trimmed = 20
    reader = open_stream(fake).reader({A: positions[3]})
    readers.append(reader)
    with pytest.raises(PositionLostError, match=str(positions[3])):
        read(reader, 1)


def test_a_position_that_is_still_there_is_not_lost_however_much_went_before_it(
    fake: FakeKinesis, readers: list[Reader]
) -> None:
    positions = fill(fake, A, range(40))
    fake.shards[A].trimmed = 20
    reader = open_stream(fake).reader({A: positions[20]})
    readers.append(reader)
    assert numbers(read(reader, 19)) == list(range(21, 40))


def test_a_shard_that_expired_may_be_missing_where_another_position_proves_that_we_kept_up(
    fake: FakeKinesis, readers: list[Reader]
) -> None:
    positions = fill(fake, A, range(10))
    stream = open_stream(fake)
    reader = stream.reader({"shardId-of-old": 5, A: positions[4]})
    readers.append(reader)
    assert numbers(read(reader, 5)) == list(range(5, 10))
    with pytest.raises(PositionLostError, match="shardId-of-old"):
        stream.reader({"shardId-of-old": 5, A: None})


@pytest.mark.parametrize("code", ["ResourceNotFoundException", "InvalidArgumentException"])
def test_a_deleted_stream_ends_the_reader(fake: FakeKinesis, readers: list[Reader], code: str) -> None:
    reader = open_stream(fake).reader({A: None})
    readers.append(reader)
    fake.faults["get_records"] = [fault(code)]
    with pytest.raises(PositionLostError):
        read(reader, 1)


def test_a_stream_that_was_made_again_ends_the_reader_even_if_its_shards_answer(
    fake: FakeKinesis, readers: list[Reader]
) -> None:
    stream = open_stream(fake)
    reader = stream.reader({A: None})
    readers.append(reader)
    fake.changes = {"StreamCreationTimestamp": datetime(2026, 11, 21, tzinfo=UTC)}
    with pytest.raises(PositionLostError, match="deleted"):
        read(reader, 1)
    with pytest.raises(PositionLostError, match="deleted"):
        stream.reader({A: None})
    assert open_stream(fake).id != stream.id


def test_a_reader_fetches_only_so_far_ahead(fake: FakeKinesis, readers: list[Reader], monkeypatch: Any) -> None:
    monkeypatch.setattr(kinesis_reader, "AHEAD_RECORDS", 20)
    fill(fake, A, range(200))
    reader = open_stream(fake).reader({A: None})
    readers.append(reader)
    eventually(lambda: fake.calls["get_records"] >= 3, "three pages of seven")
    listed = fake.calls["list_shards"]
    eventually(lambda: fake.calls["list_shards"] >= listed + 3, "the thread goes round")
    assert fake.calls["get_records"] == 3
    assert numbers(read(reader, 200)) == list(range(200))


def test_an_idle_shard_is_asked_ever_less_often(fake: FakeKinesis, readers: list[Reader], monkeypatch: Any) -> None:
    monkeypatch.setattr(kinesis_reader, "IDLE_SECONDS", BOUND)
    reader = open_stream(fake).reader({A: None})
    readers.append(reader)
    listed = fake.calls["list_shards"]
    eventually(lambda: fake.calls["list_shards"] >= listed + 30, "a while")  # 30 times LIST_SECONDS: 300 ms
    assert fake.calls["get_records"] < 12


# A member


class Told:
    """A member and what it was told."""

    def __init__(self, fake: FakeKinesis, checkpoints: MemoryCheckpoints) -> None:
        self.events: list[tuple[str, Any]] = []
        self.done: dict[str, int] = {}
        self.commits = True
        self.member = open_stream(fake).member("sink", checkpoints, self._assigned, self._revoked)

    def _assigned(self, starts: dict[str, int | None]) -> None:
        self.events.append(("assigned", starts))

    def _revoked(self, shards: list[str]) -> None:
        self.events.append(("revoked", shards))

    def read(self, count: int) -> list[tuple[str, bytes]]:
        got: list[tuple[str, bytes]] = []

        def enough() -> bool:
            for chunk in self.member.poll(5, 0.05):
                self.done[chunk.partition] = chunk.positions[-1]
                got.extend((chunk.partition, value) for value in chunk.values)
                self.events.append(("read", chunk.partition))
            if self.commits:
                self.member.commit(self.done)
                self.done = {}
            return len(got) >= count

        eventually(enough, f"{count} records")
        return got


def test_a_member_takes_on_children_and_lets_go_of_a_parent_when_all_of_it_was_handed_out(fake: FakeKinesis) -> None:
    fill(fake, A, range(30))
    checkpoints = MemoryCheckpoints()
    told = Told(fake, checkpoints)
    told.read(30)
    fill(fake, A, range(30, 40))
    fake.split(A, B, C)
    fill(fake, B, range(40, 60))

    assert numbers(told.read(30)) == list(range(30, 60))

    revoked = told.events.index(("revoked", [A]))
    assigned = told.events.index(("assigned", {B: None, C: None}))
    assert max(at for at, event in enumerate(told.events) if event == ("read", A)) < revoked
    assert min(at for at, event in enumerate(told.events) if event == ("read", B)) > max(revoked, assigned)
    told.member.close()
    assert told.events[-1][0] == "revoked"
    assert set(told.events[-1][1]) == {B, C}

    stream = open_stream(fake).id
    last = {name: int(fake.shards[name].records[-1]["SequenceNumber"]) for name in (A, B)}
    assert {shard: saved.position for (_, _, shard), saved in checkpoints.saved.items()} == last
    assert {(group, name) for group, name, _ in checkpoints.saved} == {("sink", stream)}


def test_a_member_that_comes_back_goes_on_where_each_shard_was_committed(fake: FakeKinesis) -> None:
    fill(fake, A, range(30))
    fake.split(A, B)
    checkpoints = MemoryCheckpoints()
    first = Told(fake, checkpoints)
    first.read(30)
    first.member.close()
    fill(fake, B, range(30, 40))

    second = Told(fake, checkpoints)
    assert numbers(second.read(10)) == list(range(30, 40))
    second.member.close()


def test_a_shard_that_ended_can_no_longer_be_committed(fake: FakeKinesis) -> None:
    fill(fake, A, range(10))
    fake.split(A, B)
    told = Told(fake, MemoryCheckpoints())
    told.read(10)
    eventually(lambda: bool(told.member.poll(5, 0.01)) or ("revoked", [A]) in told.events, "the end of the parent")
    with pytest.raises(StreamError):
        told.member.commit({A: 1})
    told.member.close()


def keep_polling(told: Told, fake: FakeKinesis) -> None:
    """Polls while the shards are listed some more times; nothing comes."""
    enough = fake.calls["list_shards"] + 5

    def listed() -> bool:
        assert told.member.poll(5, 0.01) == []
        return fake.calls["list_shards"] >= enough

    eventually(listed, "some listings")


def test_a_shard_that_ended_is_kept_until_all_of_it_is_committed_and_can_be_read_again_till_then(
    fake: FakeKinesis,
) -> None:
    positions = fill(fake, A, range(10))
    fake.split(A, B)
    told = Told(fake, MemoryCheckpoints())
    told.commits = False
    told.read(10)
    keep_polling(told, fake)
    told.member.commit({A: positions[3]})
    keep_polling(told, fake)
    assert ("revoked", [A]) not in told.events
    told.member.seek(A, positions[3])
    told.member.pause(A)
    keep_polling(told, fake)
    told.member.resume(A)
    assert numbers(told.read(6)) == list(range(4, 10))
    told.member.commit({A: positions[-1]})
    eventually(lambda: bool(told.member.poll(5, 0.01)) or ("revoked", [A]) in told.events, "the end of the parent")
    told.member.close()


def test_a_shard_that_ended_before_its_caller_knows_where_to_start_is_kept(fake: FakeKinesis) -> None:
    fake.split(A, B)
    told = Told(fake, MemoryCheckpoints())
    assert told.member.poll(5, 0) == []
    told.member.pause(A)
    keep_polling(told, fake)
    assert ("revoked", [A]) not in told.events
    told.member.seek(A, None)
    told.member.resume(A)
    eventually(lambda: bool(told.member.poll(5, 0.01)) or ("revoked", [A]) in told.events, "the end of the parent")
    told.member.close()


class Away(MemoryCheckpoints):
    """Doesn't answer for some questions."""

    def __init__(self) -> None:
        super().__init__()
        self.missing = 2

    def load(self, group: str, stream: str, partition: str) -> Checkpoint | None:
        if self.missing:
            self.missing -= 1
            raise AwayError("the store is away")
        return super().load(group, stream, partition)


def test_checkpoints_that_are_away_at_the_start_or_at_a_split_are_asked_for_again(
    fake: FakeKinesis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kinesis_reader, "FIRST_LOAD_PAUSE_SECONDS", PAUSE)
    checkpoints = Away()
    fill(fake, A, range(10))
    told = Told(fake, checkpoints)
    assert numbers(told.read(10)) == list(range(10))
    checkpoints.missing = 3
    fake.split(A, B)
    fill(fake, B, range(10, 20))
    assert numbers(told.read(10)) == list(range(10, 20))
    assert checkpoints.missing == 0
    told.member.close()


def hours_ago(hours: float) -> datetime:
    return datetime.now(UTC) - timedelta(hours=hours)


def in_ms(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)


def a_quiet_shard(fake: FakeKinesis, tip: datetime | None) -> MemoryCheckpoints:
    """Ten records, done long ago and expired since; the shard was at its tip at some time after that."""
    fake.made = hours_ago(100)
    last = fill(fake, A, range(10))[-1]
    fake.shards[A].trimmed = 10
    checkpoints = MemoryCheckpoints()
    checkpoints.save("sink", open_stream(fake).id, A, Checkpoint(last, 0 if tip is None else in_ms(tip)))
    return checkpoints


@pytest.mark.parametrize("written", [0, 30])
def test_a_shard_that_was_quiet_for_longer_than_its_retention_is_read_on(fake: FakeKinesis, written: int) -> None:
    checkpoints = a_quiet_shard(fake, hours_ago(3))
    fake.made = hours_ago(2)
    fill(fake, A, range(10, 10 + written))
    told = Told(fake, checkpoints)
    assert numbers(told.read(written)) == list(range(10, 10 + written))
    fill(fake, A, range(50, 60))
    assert numbers(told.read(10)) == list(range(50, 60))
    told.member.close()


def test_what_is_met_again_when_a_shard_is_read_on_by_time_is_left_out(fake: FakeKinesis) -> None:
    fake.made = hours_ago(3.08)  # by another clock
    last = fill(fake, A, range(10))[-1]
    checkpoints = MemoryCheckpoints()
    checkpoints.save("sink", open_stream(fake).id, A, Checkpoint(last, in_ms(hours_ago(3))))
    fake.faults["get_shard_iterator"] = [fault("InvalidArgumentException")]  # the position alone is refused
    fake.made = hours_ago(1)
    fill(fake, A, range(10, 20))
    told = Told(fake, checkpoints)
    assert numbers(told.read(10)) == list(range(10, 20))
    told.member.close()


@pytest.mark.parametrize("tip", [None, hours_ago(23.9), hours_ago(99)])
def test_a_shard_that_nobody_saw_at_its_tip_within_its_retention_has_lost_its_position(
    fake: FakeKinesis, tip: datetime | None
) -> None:
    told = Told(fake, a_quiet_shard(fake, tip))
    with pytest.raises(PositionLostError, match="no longer holds"):
        told.read(1)
    told.member.close()


def test_a_reader_that_is_told_when_a_quiet_shard_was_at_its_tip_reads_it_on(fake: FakeKinesis) -> None:
    fake.made = datetime.now(UTC)
    last = fill(fake, A, range(10))[-1]
    first = open_stream(fake).packed_reader({A: None})

    def at_the_tip() -> bool:
        first.poll(5, 0.01)
        return A in first.tips()

    eventually(at_the_tip, "the tip")
    kept = first.tips()
    first.close()
    fake.shards[A].trimmed = 10
    fill(fake, A, range(10, 20))
    again = open_stream(fake).packed_reader({A: last}, kept)
    values: list[bytes] = []

    def read_on() -> bool:
        values.extend(run.value(row) for run in again.poll(100, 0.01) for row in range(len(run)))
        return len(values) >= 10

    eventually(read_on, "what came since")
    assert values == [b"%d" % value for value in range(10, 20)]
    again.close()


def test_a_reader_tells_no_tip_before_everything_up_to_it_was_handed_out(fake: FakeKinesis) -> None:
    fill(fake, A, range(10))
    reader = open_stream(fake).packed_reader({A: None})
    runs = reader.poll(4, BOUND)
    assert sum(map(len, runs)) == 4
    assert reader.tips() == {}
    reader.close()


def test_a_paused_shard_whose_iterator_expired_with_its_last_record_is_read_on(fake: FakeKinesis) -> None:
    fake.made = datetime.now(UTC)
    fill(fake, A, range(10))
    told = Told(fake, MemoryCheckpoints())
    told.read(10)
    eventually(lambda: bool(told.member.poll(5, 0.01)) or told.member.lag() == {A: 0}, "the tip")
    told.member.pause(A)
    keep_polling(told, fake)
    fake.expire_iterators()
    fake.shards[A].trimmed = 10
    fill(fake, A, range(10, 20))
    told.member.resume(A)
    assert numbers(told.read(10)) == list(range(10, 20))
    told.member.close()


def test_a_quiet_shard_is_told_to_be_at_its_tip_once_in_a_while(
    fake: FakeKinesis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kinesis_reader, "TIP_SECONDS", 0)
    last = fill(fake, A, range(10))[-1]
    checkpoints = MemoryCheckpoints()
    told = Told(fake, checkpoints)
    told.read(10)

    def told_after(moment: float) -> bool:
        told.member.poll(5, 0.01)
        [saved] = checkpoints.saved.values()
        return saved.position == last and saved.tip_ms > moment * 1000

    eventually(lambda: told_after(0), "the first time")
    later = time.time()
    eventually(lambda: told_after(later), "again")
    told.member.close()


# Writing


def written(fake: FakeKinesis) -> dict[str, list[bytes]]:
    found = defaultdict(list)
    for shard in fake.shards.values():
        for record in shard.records:
            found[record["PartitionKey"]].append(record["Data"])
    return dict(found)


def test_a_refused_record_is_sent_again_and_a_keys_records_keep_their_order() -> None:
    chance = random.Random(20261120)  # noqa: S311 (the same refusals in every run)
    fake = FakeKinesis(A, B, C)
    fake.refuse = lambda _: chance.random() < 0.3
    sent = [(b"key-%d" % chance.randrange(40), b"%d" % number) for number in range(3000)]
    with open_stream(fake).writer() as writer:
        for start in range(0, len(sent), 700):
            some = sent[start : start + 700]
            writer.write([key for key, _ in some], [value for _, value in some])
        writer.flush(BOUND)

    expected = defaultdict(list)
    for key, value in sent:
        expected[key.decode()].append(value)
    assert written(fake) == expected
    for call in fake.puts:
        assert len({key for key, _ in call}) == len(call)


def test_a_call_that_fails_is_sent_again_in_order(fake: FakeKinesis) -> None:
    fake.faults["put_records"] = [NO_NETWORK, fault("LimitExceededException"), fault("Broken", status=503)]
    with open_stream(fake).writer() as writer:
        writer.write([b"k"] * 3, [b"1", b"2", b"3"])
    assert written(fake) == {"k": [b"1", b"2", b"3"]}


def test_calls_stay_within_the_limits_of_the_service(fake: FakeKinesis) -> None:
    keys = [b"%d" % number for number in range(1200)]
    with open_stream(fake).writer() as writer:
        writer.write(keys, [b"x"] * 1200)
        writer.write(keys[:40], [bytes(400_000)] * 40)
    assert max(len(call) for call in fake.puts) == kinesis_writer.CALL_RECORDS
    assert all(sum(len(value) for _, value in call) <= kinesis_writer.CALL_BYTES for call in fake.puts)
    assert sum(map(len, fake.puts)) == 1240


def test_a_record_that_is_refused_too_often_fails_the_writer(
    fake: FakeKinesis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kinesis_writer, "ATTEMPTS", 4)
    fake.refuse = lambda key: key == "hot"
    writer = open_stream(fake).writer()
    writer.write([b"cold", b"hot"], [b"1", b"2"])
    with pytest.raises(StreamError, match="refused a record 4 times"):
        writer.flush(BOUND)
    with pytest.raises(StreamError):
        writer.write([b"cold"], [b"3"])
    with pytest.raises(StreamError):
        writer.close()
    assert written(fake) == {"cold": [b"1"]}


def test_a_refusal_by_the_service_fails_the_writer_at_once(fake: FakeKinesis) -> None:
    fake.faults["put_records"] = [fault("ResourceNotFoundException")]
    writer = open_stream(fake).writer()
    writer.write([b"k"], [b"1"])
    with pytest.raises(StreamError, match="ResourceNotFound"):
        writer.flush(BOUND)
    assert fake.calls["put_records"] == 1


def test_a_flush_that_does_not_end_in_time_says_how_much_is_open(
    fake: FakeKinesis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kinesis_writer, "ATTEMPTS", 10_000)
    fake.refuse = lambda _: True
    writer = open_stream(fake).writer()
    writer.write([b"a", b"b"], [b"1", b"2"])
    with pytest.raises(StreamError, match="2 records"):
        writer.flush(0.01)
    fake.refuse = lambda _: False
    writer.close()
    assert len(written(fake)) == 2


def test_writing_waits_while_the_queue_is_full(fake: FakeKinesis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kinesis_writer, "QUEUE_RECORDS", 10)
    with open_stream(fake).writer() as writer:
        writer.write([b"%d" % number for number in range(100)], [b"x"] * 100)
    assert len(written(fake)) == 100

    monkeypatch.setattr(kinesis_writer, "WRITE_SECONDS", 0.05)
    monkeypatch.setattr(kinesis_writer, "ATTEMPTS", 10_000)
    fake.refuse = lambda _: True
    stuck = open_stream(fake).writer()
    with pytest.raises(StreamError, match="wait for"):
        stuck.write([b"%d" % number for number in range(100)], [b"x"] * 100)
    fake.refuse = lambda _: False
    stuck.close()


@pytest.mark.parametrize("key", [b"", b"k" * 257, b"\xff\xfe"])
def test_a_key_that_kinesis_has_no_name_for_is_refused(fake: FakeKinesis, key: bytes) -> None:
    writer = open_stream(fake).writer()
    with pytest.raises(StreamError, match="key"):
        writer.write([key], [b"x"])


# Administration


@pytest.mark.parametrize("age", [5, 300, 10_000, 100_000])
def test_the_end_of_a_shard_is_found_however_long_ago_it_was_written(fake: FakeKinesis, age: int) -> None:
    fake.made = datetime.fromtimestamp(time.time() - age, UTC)
    fake.shards[B] = FakeShard()
    last = fill(fake, A, range(30))[-1]
    assert open_stream(fake).ends() == {A: last, B: None}


def test_the_end_of_a_shard_is_found_by_a_clock_that_runs_ahead_of_the_servers(fake: FakeKinesis) -> None:
    fake.clock = lambda: time.time() - 600
    fake.made = datetime.fromtimestamp(fake.clock() - 5, UTC)
    last = fill(fake, A, range(30))[-1]
    assert open_stream(fake).ends() == {A: last}


def test_looking_for_an_end_waits_while_the_service_throttles(fake: FakeKinesis) -> None:
    fake.made = datetime.fromtimestamp(time.time(), UTC)
    last = fill(fake, A, range(3))[-1]
    fake.faults["get_records"] = [fault("ProvisionedThroughputExceededException")] * 2
    assert open_stream(fake).ends() == {A: last}


def test_the_stream_id_tells_incarnations_apart_and_nothing_else(fake: FakeKinesis) -> None:
    first = open_stream(fake).id
    assert first == open_stream(fake).id
    assert len(first) == len("orders-") + 8


def test_an_error_says_what_was_asked_and_where(fake: FakeKinesis) -> None:
    fake.faults["describe_stream_summary"] = [NO_NETWORK]
    with pytest.raises(StreamError, match=r"a fake does not describe stream 'orders'.*nowhere"):
        open_stream(fake)
