"""What the port for streams promises, asked of every wire: memory, Kafka with both clients, Kinesis."""

import contextlib
import os
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

import pytest
from confluent_kafka import Producer
from kafka import KafkaAdminClient, TopicPartition
from kafka.partitioner.default import murmur2

from sales.settings import AwsSettings, StreamSettings
from sales.streams import (
    Chunk,
    Member,
    Polled,
    PositionLostError,
    Reader,
    Stream,
    StreamError,
    Wire,
    Writer,
    format_position,
    kafka,
)
from sales.streams.connect import connect
from sales.streams.memory import MemoryCheckpoints, MemoryStream, MemoryWire
from sales.streams.packed import Packed, PackedMember, PackedReader
from support.waiting import eventually

PARTITIONS = 3
BOUND = 20.0
"""Seconds that any of this may take; nothing waits that long unless it fails."""

MEGABYTE = 1_000_000

Position = int | None
Opens = Callable[[Stream, Mapping[str, Position]], Reader]
Joins = Callable[..., Member[Chunk]]
"""A stream, and what its ``member`` takes."""
KAFKA = ("kafka", "kafka-python")


@dataclass
class Kind:
    """One wire, and what the tests need that the port does not offer."""

    name: str
    wire: Wire
    forget: Callable[[Stream, str, int], None] | None
    """removes a partition's records up to a position, as retention would"""
    grow: Callable[[Stream], None] | None
    """gives the stream one partition more"""


@pytest.fixture(
    scope="module",
    params=[
        "memory",
        pytest.param("kafka", marks=pytest.mark.kafka),
        pytest.param("kafka-python", marks=pytest.mark.kafka),
        "kinesis",
    ],
)
def kind(request: pytest.FixtureRequest) -> Iterator[Kind]:
    if request.param == "memory":
        yield Kind("memory", MemoryWire(), _forget_in_memory, _grow_in_memory)
    elif request.param == "kinesis":
        aws = AwsSettings(aws_endpoint_url=request.getfixturevalue("aws_endpoint"))
        wire = connect(StreamSettings(stream="kinesis"), aws)
        yield Kind("kinesis", wire, None, None)
        wire.close()
    else:
        bootstrap = request.getfixturevalue("kafka_bootstrap")
        wire = connect(_kafka_settings(bootstrap, request.param), AwsSettings())
        admin = KafkaAdminClient(bootstrap_servers=bootstrap)

        def forget(stream: Stream, partition: str, through: int) -> None:
            there = TopicPartition(stream.id.rpartition("-")[0], int(partition))
            admin.delete_records({there: through + 1})

        def grow(stream: Stream) -> None:
            admin.create_partitions({stream.id.rpartition("-")[0]: PARTITIONS + 1})

        yield Kind(request.param, wire, forget, grow)
        admin.close()
        wire.close()


def _kafka_settings(bootstrap: str, client: str) -> StreamSettings:
    return StreamSettings.model_validate(
        {
            "stream": "kafka",
            "kafka_bootstrap_servers": bootstrap,
            "kafka_client": "confluent" if client == "kafka" else client,
        }
    )


def _forget_in_memory(stream: Stream, partition: str, through: int) -> None:
    assert isinstance(stream, MemoryStream)
    stream.trim(partition, through)


def _grow_in_memory(stream: Stream) -> None:
    assert isinstance(stream, MemoryStream)
    stream.grow(PARTITIONS + 1)


@pytest.fixture
def stream(kind: Kind, new_name: Callable[[str], str]) -> Iterator[Stream]:
    name = new_name("contract")
    assert kind.wire.create(name, partitions=PARTITIONS, retention_hours=48)
    yield kind.wire.open(name)
    kind.wire.delete(name)


def records(count: int, keys: int = 20, start: int = 0) -> list[tuple[bytes, bytes]]:
    return [(b"order-%d" % (number % keys), b"value-%d" % number) for number in range(start, start + count)]


def write(stream: Stream, some: list[tuple[bytes, bytes]]) -> None:
    with stream.writer() as writer:
        writer.write([key for key, _ in some], [value for _, value in some])
        writer.flush(BOUND)


def read(reader: Polled[Chunk], count: int, max_records: int = 1000) -> list[Chunk]:
    """Polls until so many records came."""
    chunks: list[Chunk] = []

    def enough() -> bool:
        chunks.extend(reader.poll(max_records, 0.2))
        return sum(map(len, chunks)) >= count

    eventually(enough, f"{count} records")
    assert sum(map(len, chunks)) == count
    return chunks


def plain(stream: Stream, after: Mapping[str, Position]) -> Reader:
    return stream.reader(after)


def packed(stream: Stream, after: Mapping[str, Position]) -> Reader:
    return Unpacking(stream.packed_reader(after))


def plainly(stream: Stream, *joining: Any) -> Member[Chunk]:
    return stream.member(*joining)


def packedly(stream: Stream, *joining: Any) -> Member[Chunk]:
    return UnpackingMember(stream.packed_member(*joining))


class UnpackingMember:
    """A packed member that gives chunks again."""

    def __init__(self, member: PackedMember) -> None:
        self._member = member
        self.lag = member.lag
        self.commit = member.commit
        self.pause = member.pause
        self.resume = member.resume
        self.seek = member.seek
        self.close = member.close

    def poll(self, max_records: int, timeout: float) -> list[Chunk]:
        return [unpacked(run) for run in self._member.poll(max_records, timeout)]


class Unpacking:
    """A packed reader that gives chunks again."""

    def __init__(self, reader: PackedReader) -> None:
        self._reader = reader
        self.partitions = reader.partitions
        self.add = reader.add
        self.lag = reader.lag
        self.close = reader.close

    def poll(self, max_records: int, timeout: float) -> list[Chunk]:
        return [unpacked(run) for run in self._reader.poll(max_records, timeout)]


def unpacked(run: Packed) -> Chunk:
    rows = range(len(run))
    return Chunk(
        run.partition,
        [run.key(row) for row in rows],
        [run.value(row) for row in rows],
        [int(position) for position in run.positions],
        run.broker_times.tolist(),
    )


@pytest.fixture(params=[plain, packed], ids=["plain", "packed"])
def opens(request: pytest.FixtureRequest) -> Opens:
    """How a test opens readers: each that has one runs for both kinds."""
    how: Opens = request.param
    return how


@pytest.fixture(params=[plainly, packedly], ids=["plain", "packed"])
def joins(request: pytest.FixtureRequest) -> Joins:
    """How a test joins groups: each that has one runs for both kinds of members."""
    how: Joins = request.param
    return how


def read_all(stream: Stream, count: int, after: dict[str, Position] | None = None, opens: Opens = plain) -> list[Chunk]:
    reader = opens(stream, dict.fromkeys(stream.partitions()) if after is None else after)
    try:
        return read(reader, count)
    finally:
        reader.close()


def by_partition(chunks: list[Chunk]) -> dict[str, list[tuple[bytes | None, bytes]]]:
    found: dict[str, list[tuple[bytes | None, bytes]]] = defaultdict(list)
    for chunk in chunks:
        found[chunk.partition].extend(zip(chunk.keys, chunk.values, strict=True))
    return dict(found)


def by_key(chunks: list[Chunk]) -> dict[bytes | None, list[bytes]]:
    found = defaultdict(list)
    for chunk in chunks:
        for key, value in zip(chunk.keys, chunk.values, strict=True):
            found[key].append(value)
    return dict(found)


def positions(chunks: list[Chunk]) -> dict[str, list[int]]:
    found = defaultdict(list)
    for chunk in chunks:
        found[chunk.partition].extend(chunk.positions)
    return dict(found)


def grouped(some: list[tuple[bytes, bytes]]) -> dict[bytes, list[bytes]]:
    found = defaultdict(list)
    for key, value in some:
        found[key].append(value)
    return dict(found)


# Reading


def test_a_keys_records_come_back_in_order_each_once_in_one_partition(stream: Stream, opens: Opens) -> None:
    sent = records(3000)
    write(stream, sent)

    chunks = read_all(stream, len(sent), opens=opens)

    assert by_key(chunks) == grouped(sent)
    homes = defaultdict(set)
    for chunk in chunks:
        for key in chunk.keys:
            homes[key].add(chunk.partition)
    assert all(len(partitions) == 1 for partitions in homes.values())
    assert set(positions(chunks)) == set(stream.partitions())  # so many keys reach every partition


def test_columns_have_equal_length_and_positions_ascend(stream: Stream, opens: Opens) -> None:
    write(stream, records(500))

    chunks = read_all(stream, 500, opens=opens)

    for chunk in chunks:
        assert len(chunk.keys) == len(chunk.values) == len(chunk.positions) == len(chunk.broker_times) > 0
    for column in positions(chunks).values():
        assert column == sorted(set(column))
        texts = [format_position(position, stream.position_digits) for position in column]
        assert texts == sorted(texts)
        assert {len(text) for text in texts} == {stream.position_digits}


def test_reading_resumes_after_any_position(stream: Stream, opens: Opens) -> None:
    write(stream, records(300, keys=7))
    chunks = read_all(stream, 300, opens=opens)
    everything, places = by_partition(chunks), positions(chunks)

    for share in (0.0, 0.3, 0.99):
        cut = {name: int(share * len(column)) for name, column in places.items()}
        after: dict[str, Position] = {name: places[name][at] for name, at in cut.items()}
        rest = {name: everything[name][at + 1 :] for name, at in cut.items()}
        count = sum(map(len, rest.values()))
        again = by_partition(read_all(stream, count, after, opens=opens))
        assert again == {name: column for name, column in rest.items() if column}


def test_a_reader_at_the_end_gets_only_what_is_written_later(stream: Stream, opens: Opens) -> None:
    write(stream, records(100))
    reader = opens(stream, stream.ends())
    write(stream, records(50, start=100))

    assert by_key(read(reader, 50)) == grouped(records(50, start=100))
    reader.close()


def test_a_reader_reads_exactly_the_partitions_it_was_given(stream: Stream, opens: Opens) -> None:
    write(stream, records(300))
    one = stream.partitions()[1]
    expected = len(positions(read_all(stream, 300, opens=opens))[one])

    reader = opens(stream, {one: None})
    assert {chunk.partition for chunk in read(reader, expected)} == {one}
    assert reader.poll(10, 0.3) == []
    reader.close()


def test_a_poll_hands_out_at_most_what_was_asked_for_and_one_chunk_a_partition(stream: Stream, opens: Opens) -> None:
    write(stream, records(400))
    reader = opens(stream, dict.fromkeys(stream.partitions()))
    seen: list[Chunk] = []

    def drained() -> bool:
        chunks = reader.poll(37, 0.2)
        assert sum(map(len, chunks)) <= 37
        assert len({chunk.partition for chunk in chunks}) == len(chunks)
        seen.extend(chunks)
        return sum(map(len, seen)) == 400

    eventually(drained, "400 records")
    assert by_key(seen) == grouped(records(400))
    reader.close()


def test_an_empty_stream_keeps_a_poll_no_longer_than_its_timeout(stream: Stream, opens: Opens) -> None:
    reader = opens(stream, dict.fromkeys(stream.partitions()))
    reader.poll(10, 2)  # connections are made

    for timeout in (0.0, 0.5):
        started = time.monotonic()
        assert reader.poll(10, timeout) == []
        assert time.monotonic() - started < timeout + BOUND / 4
    reader.close()


def test_a_waiting_poll_returns_as_soon_as_something_comes(stream: Stream, opens: Opens) -> None:
    reader = opens(stream, dict.fromkeys(stream.partitions()))
    reader.poll(10, 2)  # connections are made
    writing = threading.Timer(0.5, write, (stream, records(1)))
    writing.start()

    started = time.monotonic()
    assert sum(map(len, reader.poll(10, BOUND))) == 1
    assert time.monotonic() - started < BOUND / 2
    writing.join()
    reader.close()


def test_nothing_is_lost_or_doubled_over_closing_and_opening_again(stream: Stream, opens: Opens) -> None:
    sent = records(1000)
    write(stream, sent)
    done: dict[str, Position] = dict.fromkeys(stream.partitions())
    seen: list[Chunk] = []

    def a_bit_more() -> bool:
        reader = opens(stream, done)
        chunks = reader.poll(173, BOUND)
        reader.close()
        for chunk in chunks:
            done[chunk.partition] = chunk.positions[-1]
        seen.extend(chunks)
        return sum(map(len, seen)) >= len(sent)

    eventually(a_bit_more, "all records in small bites")
    assert by_key(seen) == grouped(sent)


def test_reading_while_somebody_writes_gets_all_of_it(stream: Stream, opens: Opens) -> None:
    reader = opens(stream, dict.fromkeys(stream.partitions()))
    seen: list[Chunk] = []
    sent = records(5000, keys=500)
    with stream.writer() as writer:
        for start in range(0, len(sent), 250):
            some = sent[start : start + 250]
            writer.write([key for key, _ in some], [value for _, value in some])
            seen.extend(reader.poll(400, 0))
    seen.extend(read(reader, len(sent) - sum(map(len, seen))))
    assert by_key(seen) == grouped(sent)
    reader.close()


def test_lag_goes_down_to_zero(stream: Stream, opens: Opens) -> None:
    write(stream, records(300))
    reader = opens(stream, dict.fromkeys(stream.partitions()))
    read(reader, 300)

    def at_the_tip() -> bool:
        reader.poll(10, 0.1)
        return reader.lag() == dict.fromkeys(stream.partitions(), 0)

    eventually(at_the_tip, "no lag")
    reader.close()


def test_lag_tells_that_records_wait(stream: Stream, opens: Opens) -> None:
    write(stream, records(300))
    reader = opens(stream, dict.fromkeys(stream.partitions()))
    eventually(lambda: bool(reader.poll(1, 0.2)), "the first record")
    assert reader.lag() != dict.fromkeys(stream.partitions(), 0)
    reader.close()


def test_a_running_reader_hears_of_new_partitions_and_takes_them_on(
    kind: Kind, stream: Stream, opens: Opens, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kind.grow is None:
        pytest.skip("moto goes on writing into a shard that was split: tests/unit/test_streams_kinesis.py asks a fake")
    monkeypatch.setattr(kafka, "WATCH_SECONDS", 0.2)
    old = stream.partitions()
    write(stream, records(300))
    reader = opens(stream, dict.fromkeys(old))
    assert reader.partitions() == old
    got = reader.poll(50, BOUND)  # the others are fetched ahead
    kind.grow(stream)

    eventually(lambda: len(reader.partitions()) > len(old), "the new partition")
    new = [name for name in reader.partitions() if name not in old]
    eventually(lambda: stream.partitions() == [*old, *new], "everybody knows of it")
    reader.add(dict.fromkeys([*new, old[0]]))  # the last one is read already
    write(stream, records(300, start=300))

    got += read(reader, 600 - sum(map(len, got)))
    assert sorted(value for chunk in got for value in chunk.values) == sorted(value for _, value in records(600))
    assert {chunk.partition for chunk in got} > set(old)
    assert positions(got) == {name: sorted(set(column)) for name, column in positions(got).items()}
    with pytest.raises(StreamError):
        reader.add({"no such partition" if kind.name not in KAFKA else "1000": None})
    assert reader.poll(10, 0) == []
    reader.close()


def test_a_reader_is_closed_once_or_twice_and_gives_nothing_after(stream: Stream, opens: Opens) -> None:
    reader = opens(stream, dict.fromkeys(stream.partitions()))
    reader.close()
    reader.close()
    with pytest.raises(StreamError):
        reader.poll(1, 0)


# Records


@pytest.mark.parametrize("value", [b"", b"\x00\xff\x00", '{"name": "Käse"}'.encode(), os.urandom(MEGABYTE)])
def test_bytes_come_back_as_they_were(stream: Stream, opens: Opens, value: bytes) -> None:
    write(stream, [("Bestellung-ä".encode(), value)])
    (chunk,) = read_all(stream, 1, opens=opens)
    assert chunk.keys == ["Bestellung-ä".encode()]
    assert chunk.values == [value]


def test_many_records_of_a_megabyte_pass_through_bounded_queues(stream: Stream, opens: Opens) -> None:
    body = os.urandom(MEGABYTE - 8)
    sent = [(b"key-%d" % (number % 2), b"%08d" % number + body) for number in range(30)]
    write(stream, sent)
    assert by_key(read_all(stream, 30, opens=opens)) == grouped(sent)


def test_broker_times_are_the_moment_of_writing(stream: Stream, opens: Opens) -> None:
    before = time.time_ns() // 1_000_000
    write(stream, records(100))
    after = time.time_ns() // 1_000_000
    for chunk in read_all(stream, 100, opens=opens):
        assert all(before - 1000 <= moment <= after + 1000 for moment in chunk.broker_times)


def test_a_record_that_is_too_large_is_an_error_that_stays(stream: Stream) -> None:
    writer = stream.writer()
    with pytest.raises(StreamError):
        _write_too_large(writer)
    with pytest.raises(StreamError):
        writer.write([b"a"], [b"small"])
    with pytest.raises(StreamError):
        writer.flush(BOUND)
    with pytest.raises(StreamError):
        writer.close()
    writer.close()


def test_a_with_block_keeps_its_own_error(stream: Stream) -> None:
    def fail() -> None:
        with stream.writer() as writer:
            with contextlib.suppress(StreamError):
                _write_too_large(writer)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()


def _write_too_large(writer: Writer) -> None:
    writer.write([b"a", b"b"], [b"small", os.urandom(3 * MEGABYTE)])
    writer.flush(BOUND)


def test_a_with_block_leaves_everything_written(stream: Stream) -> None:
    with stream.writer() as writer:
        writer.write([b"a"], [b"1"])
    assert by_key(read_all(stream, 1)) == {b"a": [b"1"]}


def test_a_record_reaches_the_stream_without_a_flush(stream: Stream) -> None:
    writer = stream.writer()
    writer.write([b"a"], [b"1"])
    assert by_key(read_all(stream, 1)) == {b"a": [b"1"]}
    writer.close()


def test_what_is_written_counts_as_unacknowledged_until_it_is_there_also_when_nobody_asks_for_it(
    stream: Stream,
) -> None:
    writer = stream.writer()
    assert writer.unacknowledged() == 0
    writer.write([b"a", b"b"], [b"1", b"2"])
    eventually(lambda: writer.unacknowledged() == 0, "acknowledged", seconds=BOUND)
    assert by_key(read_all(stream, 2)) == {b"a": [b"1"], b"b": [b"2"]}
    writer.close()
    assert writer.unacknowledged() == 0


def test_flushing_twice_and_flushing_nothing_is_fine(stream: Stream) -> None:
    writer = stream.writer()
    writer.flush(BOUND)
    writer.write([b"a"], [b"1"])
    writer.flush(BOUND)
    writer.flush(BOUND)
    writer.close()
    writer.close()
    with pytest.raises(StreamError):
        writer.write([b"a"], [b"2"])


# Streams


def test_a_stream_is_created_once(kind: Kind, stream: Stream) -> None:
    name = stream.id.rpartition("-")[0]
    assert kind.wire.create(name, partitions=PARTITIONS, retention_hours=48) is False
    assert kind.wire.open(name).id == stream.id
    assert len(stream.partitions()) == PARTITIONS


def test_an_unknown_stream_is_an_error_that_names_it(kind: Kind) -> None:
    with pytest.raises(StreamError, match="no-such-stream"):
        kind.wire.open("no-such-stream")
    kind.wire.delete("no-such-stream")


def test_ends_are_the_last_records(stream: Stream) -> None:
    assert stream.ends() == dict.fromkeys(stream.partitions())
    write(stream, [(b"one", b"1")])
    (only,) = positions(read_all(stream, 1)).items()
    assert stream.ends() == dict.fromkeys(stream.partitions()) | {only[0]: only[1][-1]}
    write(stream, records(500))
    last = {name: column[-1] for name, column in positions(read_all(stream, 501)).items()}
    assert stream.ends() == last


def test_a_stream_made_again_is_another(kind: Kind, new_name: Callable[[str], str], opens: Opens) -> None:
    name = new_name("again")
    kind.wire.create(name, partitions=1, retention_hours=48)
    first = kind.wire.open(name)
    write(first, records(10))
    kind.wire.delete(name)
    kind.wire.create(name, partitions=1, retention_hours=48)
    second = kind.wire.open(name)
    try:
        assert first.id != second.id
        assert first.id.rpartition("-")[0] == second.id.rpartition("-")[0] == name
        assert len(first.id) == len(name) + 9
        assert second.ends() == dict.fromkeys(second.partitions())
        with pytest.raises(StreamError):
            opens(first, dict.fromkeys(first.partitions())).poll(1, 1)
    finally:
        kind.wire.delete(name)


def test_a_position_that_retention_removed_is_lost(kind: Kind, stream: Stream, opens: Opens) -> None:
    if kind.forget is None:
        pytest.skip("moto keeps everything: tests/unit/test_streams_kinesis.py asks a fake that forgets")
    write(stream, records(300))
    everything = positions(read_all(stream, 300, opens=opens))
    name, column = next(iter(everything.items()))
    kind.forget(stream, name, column[20])

    with pytest.raises(PositionLostError):
        opens(stream, {name: column[10]}).poll(1, BOUND)
    read_all(stream, len(column) - 21, {name: column[20]}, opens=opens)
    rest = read_all(stream, len(column) - 21, {name: None}, opens=opens)
    assert positions(rest)[name] == column[21:]


def test_a_position_past_the_end_is_lost(kind: Kind, stream: Stream, opens: Opens) -> None:
    if kind.name not in KAFKA:
        pytest.skip("only Kafka's positions can be compared with the end without reading")
    write(stream, [(b"a", b"1")])
    with pytest.raises(PositionLostError):
        opens(stream, {"0": 1000, "1": 1000, "2": 1000})


@pytest.mark.kafka
@pytest.mark.parametrize("client", KAFKA)
def test_a_key_goes_to_the_partition_that_javas_clients_choose(
    kafka_bootstrap: str, new_name: Callable[[str], str], client: str
) -> None:
    wire = connect(_kafka_settings(kafka_bootstrap, client), AwsSettings())
    name = new_name("murmur2")
    wire.create(name, partitions=7, retention_hours=48)
    keys = [os.urandom(size) for size in range(1, 65) for _ in range(4)]
    stream = wire.open(name)
    write(stream, [(key, b"") for key in keys])

    homes = {key: chunk.partition for chunk in read_all(stream, len(keys)) for key in chunk.keys}

    assert homes == {key: str((murmur2(key) & 0x7FFFFFFF) % 7) for key in keys}
    wire.delete(name)
    wire.close()


def test_what_is_no_record_or_was_never_committed_is_not_read(
    kind: Kind, stream: Stream, opens: Opens, request: pytest.FixtureRequest
) -> None:
    if kind.name not in KAFKA:
        pytest.skip("only Kafka has transactions")
    topic = stream.id.rpartition("-")[0]
    producer = Producer(
        {
            "bootstrap.servers": request.getfixturevalue("kafka_bootstrap"),
            "transactional.id": f"{topic}-{kind.name}",
        }
    )
    producer.init_transactions(BOUND)
    for number, commit in enumerate([True, False, True, False, False]):
        producer.begin_transaction()
        for part in range(PARTITIONS):
            producer.produce(topic, b"%d" % number, b"key", partition=part)
        producer.flush(BOUND)
        producer.commit_transaction() if commit else producer.abort_transaction()

    found = read_all(stream, 2 * PARTITIONS, opens=opens)

    assert {chunk.partition: chunk.values for chunk in found} == {name: [b"0", b"2"] for name in stream.partitions()}
    assert stream.ends() == {chunk.partition: chunk.positions[-1] for chunk in found}
    assert {chunk.partition: chunk.positions for chunk in found} == {name: [0, 4] for name in stream.partitions()}


# Members of a group


class Group:
    """The members of one group, what they were told, and what they read."""

    def __init__(self, stream: Stream, name: str, joins: Joins) -> None:
        self.stream = stream
        self.name = name
        self.joins = joins
        self.checkpoints = MemoryCheckpoints()

    def join(self, commit_when_revoked: bool = True, joins: Joins | None = None) -> "Joined":
        return Joined(self, commit_when_revoked, joins or self.joins)


class Joined:
    """One member that commits what it read when partitions leave it."""

    def __init__(self, group: Group, commit_when_revoked: bool, joins: Joins) -> None:
        self.held: dict[str, Position] = {}
        self.assigned: list[dict[str, Position]] = []
        self.revoked: list[list[str]] = []
        self.chunks: list[Chunk] = []
        self.commit_when_revoked = commit_when_revoked
        self.seek_when_assigned: dict[str, Position] = {}
        self.member = joins(group.stream, group.name, group.checkpoints, self._on_assigned, self._on_revoked)

    def _on_assigned(self, starts: dict[str, Position]) -> None:
        self.assigned.append(starts)
        self.held.update(starts)
        for partition, after in self.seek_when_assigned.items():
            if partition in starts:
                self.member.seek(partition, after)

    def _on_revoked(self, partitions: list[str]) -> None:
        self.revoked.append(partitions)
        done = {name: position for name in partitions if (position := self.held.pop(name)) is not None}
        if self.commit_when_revoked:
            self.member.commit(done)

    def poll(self, timeout: float = 0.1, max_records: int = 500) -> list[Chunk]:
        chunks = self.member.poll(max_records, timeout)
        for chunk in chunks:
            assert chunk.partition in self.held  # nothing comes of a partition that was given back
            self.held[chunk.partition] = chunk.positions[-1]
        self.chunks.extend(chunks)
        return chunks

    @property
    def count(self) -> int:
        return sum(map(len, self.chunks))

    def read(self, count: int) -> None:
        def enough() -> bool:
            self.poll()
            return self.count >= count

        eventually(enough, f"{count} records")
        assert self.count == count

    def commit(self) -> None:
        self.member.commit({name: position for name, position in self.held.items() if position is not None})


class AtWork:
    """A member that reads in a thread, as the members of a group do in processes of their own."""

    def __init__(self, joined: Joined) -> None:
        self.joined = joined
        self._stop = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                self.joined.poll()
            self.joined.member.close()
        except BaseException as error:
            self._error = error
            raise

    @property
    def held(self) -> list[str]:
        assert self._error is None, repr(self._error)
        return list(self.joined.held)

    def leave(self) -> None:
        self._stop.set()
        self._thread.join(BOUND)
        assert not self._thread.is_alive()
        assert self._error is None


def shared(members: list[AtWork], partitions: list[str]) -> bool:
    """Whether each member has some of the partitions, and each partition one member."""
    time.sleep(0.01)
    held = [member.held for member in members]
    return all(held) and sorted(chain.from_iterable(held)) == partitions


@pytest.fixture
def group(stream: Stream, new_name: Callable[[str], str], joins: Joins) -> Group:
    return Group(stream, new_name("group"), joins)


def test_a_member_alone_reads_everything_and_the_next_goes_on_where_it_committed(group: Group) -> None:
    write(group.stream, records(300))
    first = group.join(commit_when_revoked=False)
    first.read(300)
    assert first.assigned == [dict.fromkeys(group.stream.partitions())]
    first.commit()
    write(group.stream, records(30, start=300))
    first.read(330)  # read, but not committed
    first.member.close()
    assert sorted(chain.from_iterable(first.revoked)) == group.stream.partitions()

    second = group.join()
    second.read(30)
    committed = {name: column[-1] for name, column in positions(read_all(group.stream, 330)).items()}
    assert second.held == committed
    assert by_key(second.chunks) == grouped(records(30, start=300))
    assert {name for told in second.assigned for name in told} == set(group.stream.partitions())
    assert all(position is not None for told in second.assigned for position in told.values())
    second.member.close()
    second.member.close()


def test_how_far_a_group_is_can_be_asked_from_outside(group: Group) -> None:
    stream = group.stream
    nothing = dict.fromkeys(stream.partitions())

    def told() -> dict[str, Position]:
        return stream.committed(group.name, group.checkpoints)

    assert told() == nothing
    write(stream, records(300))
    member = group.join(commit_when_revoked=False)
    member.read(300)
    assert told() == nothing  # read, but not committed
    member.commit()
    done = dict(member.held)
    assert told() == done
    write(stream, records(30, start=300))
    assert told() == done
    member.member.close()
    assert told() == done
    assert stream.committed(f"{group.name}-other", group.checkpoints) == nothing


def test_what_is_behind_a_position_is_counted_where_the_wire_counts(kind: Kind, stream: Stream) -> None:
    nowhere = dict.fromkeys(stream.partitions())
    assert stream.behind(nowhere) == dict.fromkeys(nowhere, 0)
    write(stream, records(300))
    ends = stream.ends()
    assert stream.behind(ends) == dict.fromkeys(nowhere, 0)
    columns = positions(read_all(stream, 300))
    counts: dict[str, int | None] = {name: len(column) for name, column in columns.items()}
    rest: dict[str, int | None] = {name: len(column) - 3 for name, column in columns.items()}
    if kind.name == "kinesis":
        counts = rest = nowhere
    assert stream.behind(nowhere) == counts
    assert stream.behind({name: column[2] for name, column in columns.items()}) == rest


def test_what_is_committed_while_partitions_are_given_back_counts(group: Group) -> None:
    write(group.stream, records(100))
    first = group.join()
    first.read(100)
    first.member.close()

    write(group.stream, records(10, start=100))
    second = group.join()
    second.read(10)
    assert by_key(second.chunks) == grouped(records(10, start=100))
    second.member.close()


def test_each_group_reads_everything(stream: Stream, new_name: Callable[[str], str], joins: Joins) -> None:
    write(stream, records(100))
    for _ in range(2):
        joined = Group(stream, new_name("group"), joins).join()
        joined.read(100)
        assert by_key(joined.chunks) == grouped(records(100))
        joined.member.close()


def test_two_members_share_the_partitions_and_hand_them_over(kind: Kind, group: Group) -> None:
    if kind.name == "kinesis":
        pytest.skip("one process reads a Kinesis stream at first")
    write(group.stream, records(300))
    partitions = group.stream.partitions()
    first = AtWork(group.join())
    eventually(lambda: first.joined.count == 300, "300 records")
    second = AtWork(group.join())
    eventually(lambda: shared([first, second], partitions), "both have partitions")
    assert all(position is not None for position in second.joined.held.values())  # what the first one committed

    write(group.stream, records(300, start=300))
    eventually(lambda: first.joined.count + second.joined.count >= 600, "the rest, by both")
    first.leave()
    write(group.stream, records(60, start=600))
    eventually(lambda: first.joined.count + second.joined.count >= 660, "all by the second")

    assert sorted(second.held) == partitions
    assert second.joined.count > 60
    assert by_key(first.joined.chunks + second.joined.chunks) == grouped(records(660))
    second.leave()


def test_members_that_come_and_go_while_records_stream_in_lose_nothing_and_read_nothing_twice(
    kind: Kind, group: Group
) -> None:
    if kind.name == "kinesis":
        pytest.skip("one process reads a Kinesis stream at first")
    partitions = group.stream.partitions()
    sent: list[tuple[bytes, bytes]] = []
    here = [AtWork(group.join())]
    everybody = list(here)
    writer = group.stream.writer()

    def shared_meanwhile() -> bool:
        some = records(50, keys=1000, start=len(sent))
        writer.write([key for key, _ in some], [value for _, value in some])
        sent.extend(some)
        return shared(here, partitions)

    eventually(shared_meanwhile, "one reads all")
    for _ in range(2):
        everybody.append(AtWork(group.join()))
        here.append(everybody[-1])
        eventually(shared_meanwhile, "the newcomer has its share")
    here.pop(0).leave()
    eventually(shared_meanwhile, "the others have the share of the one that left")
    writer.close()
    eventually(lambda: sum(member.joined.count for member in everybody) >= len(sent), "the rest")
    while here:  # a commit beside another's leaving would be of a generation that is over
        here.pop(0).leave()
        eventually(lambda: not here or shared(here, partitions), "the rest have the share of the one that left")

    found = chain.from_iterable(member.joined.chunks for member in everybody)
    assert sorted(value for chunk in found for value in chunk.values) == sorted(value for _, value in sent)


def test_members_of_both_kinds_share_a_group_and_replace_each_other_while_records_stream_in(
    kind: Kind, stream: Stream, new_name: Callable[[str], str]
) -> None:
    if kind.name == "kinesis":
        pytest.skip("one process reads a Kinesis stream at first")
    group = Group(stream, new_name("group"), plainly)
    partitions = stream.partitions()
    sent: list[tuple[bytes, bytes]] = []
    here: list[AtWork] = []
    everybody: list[AtWork] = []
    writer = stream.writer()

    def shared_meanwhile() -> bool:
        some = records(50, keys=1000, start=len(sent))
        writer.write([key for key, _ in some], [value for _, value in some])
        sent.extend(some)
        return shared(here, partitions)

    def comes(joins: Joins) -> None:
        here.append(AtWork(group.join(joins=joins)))
        everybody.append(here[-1])
        eventually(lambda: shared_meanwhile() and here[-1].joined.count, "the newcomer has its share and reads it")

    comes(plainly)
    comes(packedly)
    comes(plainly)
    here.pop(0).leave()
    comes(packedly)
    here.pop(1).leave()
    eventually(shared_meanwhile, "packed ones alone")
    comes(plainly)  # and back again
    writer.close()
    eventually(lambda: sum(member.joined.count for member in everybody) >= len(sent), "the rest")
    while here:  # a commit beside another's leaving would be of a generation that is over
        here.pop(0).leave()
        eventually(lambda: not here or shared(here, partitions), "the rest have the share of the one that left")

    found = chain.from_iterable(member.joined.chunks for member in everybody)
    assert sorted(value for chunk in found for value in chunk.values) == sorted(value for _, value in sent)
    assert all(member.joined.count for member in everybody)


def test_a_partition_that_is_paused_in_the_middle_keeps_none_of_the_others_waiting(group: Group) -> None:
    write(group.stream, records(900))
    joined = group.join()
    one = group.stream.partitions()[0]
    eventually(lambda: one in {chunk.partition for chunk in joined.poll(max_records=5)}, "some of the first")
    joined.member.pause(one)  # the rest of it is fetched and waits

    for start in (900, 1800):
        write(group.stream, records(900, start=start))
        everything = by_partition(read_all(group.stream, start + 900))
        read_others(joined, one, sum(len(column) for name, column in everything.items() if name != one))
    joined.member.resume(one)
    joined.read(2700)
    assert by_partition(joined.chunks) == everything
    joined.member.close()


def read_others(joined: "Joined", one: str, count: int) -> None:
    def others() -> int:
        joined.poll()
        return sum(len(chunk) for chunk in joined.chunks if chunk.partition != one)

    before = sum(len(chunk) for chunk in joined.chunks if chunk.partition == one)
    eventually(lambda: others() == count, f"{count} records of the others")
    assert sum(len(chunk) for chunk in joined.chunks if chunk.partition == one) == before


def test_a_paused_partition_gives_nothing_until_it_is_resumed(group: Group) -> None:
    joined = group.join()
    eventually(lambda: bool(joined.poll() or joined.held), "an assignment")
    one, *others = group.stream.partitions()
    joined.member.pause(one)
    write(group.stream, records(300))
    everything = by_partition(read_all(group.stream, 300))

    joined.read(sum(len(everything[name]) for name in others))
    joined.poll(0.5)
    assert {chunk.partition for chunk in joined.chunks} == set(others)
    joined.member.resume(one)
    joined.read(300)
    assert by_partition(joined.chunks) == everything
    joined.member.close()


def test_pausing_in_the_middle_loses_and_doubles_nothing(group: Group) -> None:
    write(group.stream, records(2000))
    joined = group.join()
    one = group.stream.partitions()[0]
    turn = 0

    def drained() -> bool:
        nonlocal turn
        for chunk in joined.member.poll(50, 0.1):
            joined.chunks.append(chunk)
        if one in joined.held:
            if turn % 5 == 0:
                joined.member.pause(one)
            if turn % 5 == 1:
                joined.member.resume(one)
            turn += 1
        return joined.count >= 2000

    eventually(drained, "2000 records")
    assert by_key(joined.chunks) == grouped(records(2000))
    joined.member.close()


def test_what_retention_takes_from_under_a_reader_is_lost_and_never_skipped(kind: Kind, group: Group) -> None:
    if kind.forget is None:
        pytest.skip("moto keeps everything: tests/unit/test_streams_kinesis.py asks a fake that forgets")
    write(group.stream, records(300))
    joined = group.join()
    joined.read(300)
    one = group.stream.partitions()[0]
    joined.member.pause(one)
    write(group.stream, records(300, start=300))
    joined.poll(0.5)  # whatever was on its way before the pause is here
    last = group.stream.ends()[one]
    assert last is not None
    kind.forget(group.stream, one, last)
    write(group.stream, records(300, start=600))
    joined.member.resume(one)

    def poll_until_it_raises() -> None:
        def got_past_the_gap() -> bool:
            joined.poll()
            held = joined.held[one]
            return held is not None and held > last

        eventually(got_past_the_gap, "an error")

    with pytest.raises(PositionLostError):
        poll_until_it_raises()
    joined.commit_when_revoked = False
    joined.member.close()


def test_seeking_goes_to_any_position_and_back(group: Group) -> None:
    write(group.stream, records(900))
    everything = read_all(group.stream, 900)
    joined = group.join()
    joined.read(900)
    for name, column in positions(everything).items():
        values = [value for _, value in by_partition(everything)[name]]
        for at in (None, 5, len(column) - 2, 0):
            expected = values if at is None else values[at + 1 :]
            joined.member.seek(name, None if at is None else column[at])
            again = read(joined.member, len(expected))
            assert [value for chunk in again for value in chunk.values] == expected
            assert {chunk.partition for chunk in again} == {name}
    joined.member.close()


def test_seeking_while_records_stream_in_leaves_no_gap(group: Group) -> None:
    write(group.stream, records(3000))
    everything = by_partition(read_all(group.stream, 3000))
    name = group.stream.partitions()[0]
    joined = group.join()
    eventually(lambda: name in {chunk.partition for chunk in joined.member.poll(40, 0.2)}, "the first records")

    joined.member.seek(name, None)  # much is fetched ahead already

    got: list[bytes] = []

    def again() -> bool:
        got.extend(value for chunk in joined.member.poll(100, 0.2) if chunk.partition == name for value in chunk.values)
        return len(got) >= len(everything[name])

    eventually(again, "the partition from its beginning")
    assert got == [value for _, value in everything[name]]
    joined.member.close()


def test_a_member_may_seek_when_it_is_assigned_partitions(group: Group) -> None:
    write(group.stream, records(300))
    ends = group.stream.ends()
    name = group.stream.partitions()[0]
    joined = group.join()
    joined.seek_when_assigned = {name: ends[name]}
    others = sum(len(column) for other, column in positions(read_all(group.stream, 300)).items() if other != name)
    joined.read(others)
    assert name not in {chunk.partition for chunk in joined.chunks}
    joined.member.close()


def test_a_partition_of_somebody_else_can_be_neither_committed_nor_paused_nor_sought(group: Group) -> None:
    joined = group.join()
    name = group.stream.partitions()[0]
    with pytest.raises(StreamError):
        joined.member.commit({name: 1})
    with pytest.raises(StreamError):
        joined.member.pause(name)
    with pytest.raises(StreamError):
        joined.member.seek(name, None)
    joined.member.close()


def test_what_a_callback_raises_comes_out_of_poll(group: Group) -> None:
    def refuse(_: dict[str, Position]) -> None:
        raise ZeroDivisionError

    member = group.joins(group.stream, group.name, group.checkpoints, refuse, lambda _: None)

    def poll_until_it_raises() -> None:
        eventually(lambda: bool(member.poll(1, 0.1)), "the callback's error")

    with pytest.raises(ZeroDivisionError):
        poll_until_it_raises()
    member.close()


def test_a_committed_position_that_retention_removed_is_lost(kind: Kind, group: Group) -> None:
    if kind.forget is None:
        pytest.skip("moto keeps everything: tests/unit/test_streams_kinesis.py asks a fake that forgets")
    write(group.stream, records(300))
    first = group.join()
    first.member.poll(1, BOUND)
    name, column = next(iter(positions(read_all(group.stream, 300)).items()))
    eventually(lambda: bool(first.poll() or first.held), "an assignment")
    first.member.commit({name: column[3]})
    first.commit_when_revoked = False
    first.member.close()
    kind.forget(group.stream, name, column[10])

    second = group.join(commit_when_revoked=False)
    with pytest.raises(PositionLostError):
        eventually(lambda: bool(second.poll()) and False, "the lost position")
    second.member.close()
