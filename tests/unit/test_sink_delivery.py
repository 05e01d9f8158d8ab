"""The loop between a stream and a lane: nothing lost, nothing committed before it is stored, memory bounded."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from sales.streams import AwayError, Checkpoint, Chunk, StreamError
from sales.streams.memory import MemoryCheckpoints, MemoryReader, MemoryStream, MemoryWire
from sales.streams.packed import Packed, PackingMember
from sink.archive import Archive
from sink.delivery import Delivery, Limits, Standing, _Open, _Partition
from sink.lanes import Extent, Pinned, Prepared, Start, Stored, Wrote
from sink.orders import orders_layout
from sink.store import StoreError
from support.sinking import EVENT_TIME, RULES, Inline, MemoryStore, an_order
from support.waiting import eventually

Rows = list[tuple[int, bytes]]

WHOLE = Limits(rotate_bytes=10**9, rotate_records=10**9, rotate_seconds=10**9, buffer_bytes=10**9)
"""Nothing is rotated by itself."""
AT_ONCE = replace(WHOLE, rotate_seconds=0)


class MemoryLane:
    """Stores in a list; can be told to be slow, away, or beaten by another writer."""

    name = "memory"

    def __init__(self) -> None:
        self.stored: list[Extent[Rows]] = []
        self.away = False
        self.fault: Exception | None = None
        self.answers: list[Stored | Pinned] = []
        """of the next stores, instead of storing"""
        self.first = Start(None)
        self.open = threading.Event()
        self.open.set()
        self.calls = 0
        self.weight = 1
        """bytes held for each of a message's"""

    def prepare(self, run: Packed) -> Prepared[Rows]:
        chunk = run.chunk()
        rows = list(zip(chunk.positions, chunk.values, strict=True))
        bad = [position for position, value in rows if value == b"bad"]
        return Prepared(rows, bad, self.weight * run.size())

    def start(self, partition: str, committed: int | None) -> Start:  # noqa: ARG002 (one partition)
        self._answer()
        return self.first if committed is None else Start(committed)

    def store(self, extent: Extent[Rows], abandoned: threading.Event) -> Stored | Pinned:  # noqa: ARG002
        self._answer()
        if self.answers:
            return self.answers.pop(0)
        self.stored.append(extent)
        return Stored(extent.end)

    def _answer(self) -> None:
        self.calls += 1
        self.open.wait(20)
        if self.away:
            raise AwayError("the store is away")
        if self.fault is not None:
            raise self.fault

    def values(self) -> list[bytes]:
        return [value for extent in self.stored for piece in extent.pieces for _, value in piece]


class Sink:
    """A delivery on a thread of its own, with a clock that the test moves."""

    def __init__(
        self, stream: MemoryStream, lane: Any, limits: Limits, checkpoints: MemoryCheckpoints, wall: float = 0.0
    ) -> None:
        self.now = 0.0
        self.wall = wall
        """seconds since 1970"""
        self.fault: BaseException | None = None
        self.stopping = threading.Event()
        self.delivery: Delivery[Any] = Delivery(
            stream,
            "sink",
            checkpoints,
            lane,
            limits,
            stop_seconds=5,
            clock=lambda: self.now,
            now=lambda: self.wall,
        )
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.delivery.run(self.stopping)
        except (StreamError, StoreError) as error:
            self.fault = error

    def partitions(self) -> list[Any]:
        """What the delivery holds; a copy, its thread goes on."""
        return list(self.delivery._partitions.values())

    def held(self) -> int:
        """Bytes in memory."""
        return sum(partition.held() for partition in self.partitions())

    def read(self) -> int:
        """Messages read, stored or not."""
        extents = [extent for partition in self.partitions() for extent in (partition.open, partition.sealed)]
        return int(self.delivery.counts.read + sum(extent.read for extent in extents if extent is not None))

    def standing(self) -> Standing:
        standing = self.delivery.standing
        return Standing({}, (), 0) if standing is None else standing

    def lag(self) -> tuple[int | None, float] | None:
        """Messages and seconds, of the only partition."""
        lags = list(self.standing().lags.values())
        return (lags[0].messages, lags[0].seconds(self.wall)) if lags else None

    def eventually(self, condition: Callable[[], bool]) -> None:
        """Waits for the condition while a second passes between two looks."""

        def later() -> bool:
            self.now += 1
            return condition()

        eventually(later)

    def await_read(self, messages: int) -> None:
        eventually(lambda: self.read() == messages)

    def stop(self) -> None:
        self.stopping.set()
        self.join()

    def join(self) -> None:
        self._thread.join(20)
        assert not self._thread.is_alive()


@pytest.fixture
def stream() -> MemoryStream:
    wire = MemoryWire()
    wire.create("orders", partitions=1, retention_hours=24)
    return wire.open("orders")


@pytest.fixture
def checkpoints() -> MemoryCheckpoints:
    return MemoryCheckpoints()


@pytest.fixture
def run(stream: MemoryStream, checkpoints: MemoryCheckpoints) -> Iterator[Callable[..., Sink]]:
    """Starts sinks, and stops those that the test leaves running."""
    sinks: list[Sink] = []

    def run(lane: Any, limits: Limits = WHOLE, on: MemoryStream | None = None, wall: float = 0.0) -> Sink:
        sinks.append(Sink(on or stream, lane, limits, checkpoints, wall))
        return sinks[-1]

    yield run
    for sink in sinks:
        sink.stopping.set()
    for sink in sinks:
        sink.join()


def write(stream: MemoryStream, *values: bytes) -> None:
    with stream.writer() as writer:
        writer.write([b"k"] * len(values), values)


def numbered(start: int, stop: int) -> list[bytes]:
    return [b"%d" % number for number in range(start, stop)]


def committed(checkpoints: MemoryCheckpoints) -> list[int]:
    return [saved.position for saved in checkpoints.saved.values()]


def test_what_was_read_is_stored_and_committed_when_it_stops(
    stream: MemoryStream, checkpoints: MemoryCheckpoints, run: Callable[..., Sink]
) -> None:
    lane = MemoryLane()
    write(stream, b"0", b"bad", b"2")
    sink = run(lane)
    sink.await_read(3)
    sink.stop()
    [extent] = lane.stored
    assert (extent.after, extent.end, extent.read, extent.rejected, extent.bytes) == (None, 6, 3, [3], 5)
    assert (committed(checkpoints), sink.fault) == ([6], None)
    assert stream.groups["sink"] == []


def test_the_next_process_goes_on_where_the_last_one_stopped(stream: MemoryStream, run: Callable[..., Sink]) -> None:
    lane = MemoryLane()
    for start in range(0, 30, 10):
        write(stream, *numbered(start, start + 10))
        sink = run(lane, AT_ONCE)
        sink.await_read(10)
        sink.stop()
    assert lane.values() == numbered(0, 30)
    assert [extent.after for extent in lane.stored[1:]] == [extent.end for extent in lane.stored[:-1]]


def test_an_extent_rotates_by_time_also_when_nothing_follows(
    stream: MemoryStream, checkpoints: MemoryCheckpoints, run: Callable[..., Sink]
) -> None:
    lane = MemoryLane()
    sink = run(lane, replace(WHOLE, rotate_seconds=60))
    write(stream, b"0")
    sink.await_read(1)
    sink.now = 59
    write(stream, b"1")
    sink.await_read(2)
    assert lane.stored == []
    sink.now = 61
    eventually(lambda: committed(checkpoints) == [3])
    assert lane.values() == [b"0", b"1"]


@pytest.mark.parametrize("limits", [replace(WHOLE, rotate_records=10), replace(WHOLE, rotate_bytes=20)])
def test_an_extent_rotates_by_count_and_by_size(stream: MemoryStream, run: Callable[..., Sink], limits: Limits) -> None:
    lane = MemoryLane()
    run(lane, limits)
    write(stream, *numbered(10, 20))
    eventually(lambda: len(lane.stored) == 1)
    write(stream, b"99")
    write(stream, *numbered(20, 30))
    eventually(lambda: len(lane.stored) == 2)
    assert len(lane.values()) == 21


def test_nothing_is_committed_before_it_is_stored(
    stream: MemoryStream, checkpoints: MemoryCheckpoints, run: Callable[..., Sink]
) -> None:
    lane = MemoryLane()
    run(lane, AT_ONCE)
    eventually(lambda: lane.calls == 1)
    lane.open.clear()
    write(stream, b"0")
    eventually(lambda: lane.calls == 2)
    assert committed(checkpoints) == []
    lane.open.set()
    eventually(lambda: committed(checkpoints) == [0])


def test_a_store_that_is_away_pauses_the_reader_and_nothing_is_lost(
    stream: MemoryStream, checkpoints: MemoryCheckpoints, run: Callable[..., Sink]
) -> None:
    lane = MemoryLane()
    sink = run(lane, replace(AT_ONCE, rotate_records=10))
    eventually(lambda: lane.calls == 1)
    lane.away = True
    for start in range(0, 100, 10):
        write(stream, *numbered(start, start + 10))
        sink.await_read(min(start + 10, 20))  # one extent that is being stored, and a full one behind it
    sink.eventually(lambda: sink.delivery.counts.retries >= 3)
    assert sink.read() == 20
    assert committed(checkpoints) == []
    lane.away = False
    sink.eventually(lambda: committed(checkpoints) == [3 * 99])
    assert lane.values() == numbered(0, 100)


def test_a_store_that_was_away_for_days_is_tried_again(stream: MemoryStream, run: Callable[..., Sink]) -> None:
    lane = MemoryLane()
    lane.away = True
    sink = run(lane, AT_ONCE)
    sink.eventually(lambda: sink.delivery.counts.retries >= 1)
    [partition] = sink.partitions()
    partition.tries = 1_100  # a power of two with this exponent is no float any more
    write(stream, b"0")
    sink.eventually(lambda: partition.tries > 1_100)
    lane.away = False
    sink.eventually(lambda: lane.values() == [b"0"])


def test_orders_of_many_small_lines_are_bounded_by_the_memory_they_take(
    stream: MemoryStream, run: Callable[..., Sink]
) -> None:
    digits = stream.position_digits
    layout = orders_layout(RULES, dict.fromkeys(RULES.countries, "Europe"), stream.id, digits)
    store = MemoryStore()
    lane = Archive("archive-orders", store, layout, stream=stream.id, digits=digits, puts=Inline())
    sink = run(lane, replace(WHOLE, buffer_bytes=1_000_000))
    lines = [{"product_id": "1", "quantity": 1, "unit_amount": 1}] * 17_500
    for number in range(3):  # messages of 0.8 MB, which take 0.4
        with stream.writer() as writer:
            writer.write([b"k"], [an_order("k", event_time=EVENT_TIME + number, lines=lines)])
        sink.await_read(number + 1)
    eventually(lambda: len(store.keys("orders/")) == 1)
    eventually(lambda: sink.held() == 0)


def test_what_is_heavy_in_memory_is_written_early(run: Callable[..., Sink], stream: MemoryStream) -> None:
    lane = MemoryLane()
    lane.weight = 100
    run(lane, replace(WHOLE, buffer_bytes=1_000))
    write(stream, *[b"0123456789"] * 2)
    eventually(lambda: len(lane.values()) == 2)


def test_memory_is_bounded_while_the_store_is_slow_and_the_reader_is_far_behind(run: Callable[..., Sink]) -> None:
    wire = MemoryWire()
    wire.create("orders", partitions=4, retention_hours=24)
    stream = wire.open("orders")
    sent = [b"%06d" % number for number in range(100_000)]
    with stream.writer() as writer:
        writer.write([b"%d" % (number % 4) for number in range(len(sent))], sent)
    lane = MemoryLane()
    sink = run(lane, replace(WHOLE, buffer_bytes=100_000), on=stream)
    eventually(lambda: lane.calls >= 4)
    lane.open.clear()
    eventually(lambda: lane.calls > 4)
    # One poll beyond the bound: 10,000 records of 6 bytes. Waits until no poll adds to it any more.
    eventually(lambda: all(partition.paused for partition in sink.partitions()))
    assert sink.held() <= 160_000
    lane.open.set()
    eventually(lambda: sum(member.lag().get(p) or 0 for member in stream.groups["sink"] for p in "0123") == 0)
    sink.stop()
    assert sorted(lane.values()) == sent


def test_a_start_is_tried_again_until_the_store_answers(stream: MemoryStream, run: Callable[..., Sink]) -> None:
    lane = MemoryLane()
    lane.away = True
    write(stream, b"0")
    sink = run(lane, AT_ONCE)
    sink.eventually(lambda: sink.delivery.counts.retries >= 2)
    lane.away = False
    sink.eventually(lambda: lane.values() == [b"0"])


def test_a_pinned_extent_is_read_exactly_to_its_end(stream: MemoryStream, run: Callable[..., Sink]) -> None:
    lane = MemoryLane()
    lane.first = Start(after=6, end=15)
    write(stream, *numbered(0, 10))  # positions 0, 3, 6, ...
    sink = run(lane)
    eventually(lambda: len(lane.stored) == 1)
    assert (lane.stored[0].after, lane.stored[0].end, lane.values()) == (6, 15, numbered(3, 6))
    sink.await_read(7)
    sink.stop()
    assert lane.values() == numbered(3, 10)


def test_a_pinned_extent_waits_for_its_end_whatever_the_clock_says(
    stream: MemoryStream, run: Callable[..., Sink]
) -> None:
    lane = MemoryLane()
    lane.first = Start(None, end=27)
    write(stream, *numbered(0, 5))
    sink = run(lane, replace(WHOLE, rotate_seconds=60, rotate_records=3, buffer_bytes=1))
    sink.await_read(5)
    sink.now = 61
    write(stream, *numbered(5, 11))  # up to position 30
    sink.await_read(11)
    eventually(lambda: len(lane.stored) >= 1)
    assert (lane.stored[0].end, lane.stored[0].read) == (27, 10)


def test_who_leaves_does_not_write_a_pinned_extent_that_was_not_read_whole(
    stream: MemoryStream, checkpoints: MemoryCheckpoints, run: Callable[..., Sink]
) -> None:
    lane = MemoryLane()
    lane.first = Start(None, end=27)
    write(stream, *numbered(0, 5))
    sink = run(lane)
    sink.await_read(5)
    sink.stop()
    assert (lane.stored, committed(checkpoints)) == ([], [])


@pytest.mark.parametrize("end", [6, 27])
def test_an_extent_that_was_pinned_elsewhere_is_read_again_with_that_end(
    stream: MemoryStream, run: Callable[..., Sink], end: int
) -> None:
    lane = MemoryLane()
    lane.answers = [Pinned(end)]
    write(stream, *numbered(0, 5))
    sink = run(lane, replace(WHOLE, rotate_records=5))
    eventually(lambda: sink.delivery.counts.repeated == 1)
    write(stream, *numbered(5, 10))
    eventually(lambda: len(lane.stored) >= 1)
    assert (lane.stored[0].after, lane.stored[0].end) == (None, end)
    sink.await_read(10)
    sink.stop()
    assert lane.values() == numbered(0, 10)


def test_an_extent_that_was_stored_elsewhere_is_skipped(
    stream: MemoryStream, checkpoints: MemoryCheckpoints, run: Callable[..., Sink]
) -> None:
    lane = MemoryLane()
    lane.answers = [Stored(6)]
    write(stream, *numbered(0, 5))
    sink = run(lane, replace(WHOLE, rotate_records=5))
    eventually(lambda: committed(checkpoints) == [6])
    sink.await_read(2)
    sink.stop()
    assert (lane.stored[0].after, lane.values()) == (6, numbered(3, 5))


def test_a_fault_that_will_not_mend_ends_the_delivery_and_commits_nothing(
    stream: MemoryStream, checkpoints: MemoryCheckpoints, run: Callable[..., Sink]
) -> None:
    lane = MemoryLane()
    sink = run(lane, AT_ONCE)
    eventually(lambda: lane.calls == 1)
    lane.fault = StoreError("other rows")
    write(stream, b"0")
    sink.join()
    assert isinstance(sink.fault, StoreError)
    assert committed(checkpoints) == []
    assert stream.groups["sink"] == []


def test_a_stop_does_not_wait_for_a_store_that_is_away(stream: MemoryStream, run: Callable[..., Sink]) -> None:
    lane = MemoryLane()
    sink = run(lane)
    write(stream, b"0")
    sink.await_read(1)
    lane.away = True
    sink.stop()
    assert (sink.fault, lane.calls) == (None, 2)


def test_a_stop_does_not_ask_a_store_again_that_was_away(
    stream: MemoryStream, run: Callable[..., Sink], monkeypatch: pytest.MonkeyPatch
) -> None:
    lane = MemoryLane()
    sink = run(lane, AT_ONCE)
    eventually(lambda: lane.calls == 1)
    lane.away = True
    write(stream, b"0")
    eventually(lambda: sink.delivery.counts.retries == 1)
    finish = sink.delivery._finish

    def finish_when_the_next_try_is_due(names: list[str]) -> None:
        sink.now += 3_600
        finish(names)

    monkeypatch.setattr(sink.delivery, "_finish", finish_when_the_next_try_is_due)
    sink.stop()
    assert (sink.fault, lane.calls) == (None, 2)


def test_a_stop_waits_for_a_store_under_way_no_longer_than_it_may(stream: MemoryStream) -> None:
    lane = MemoryLane()
    delivery: Delivery[Rows] = Delivery(stream, "sink", MemoryCheckpoints(), lane, AT_ONCE, stop_seconds=0.1)
    stop = threading.Event()
    thread = threading.Thread(target=delivery.run, args=(stop,), daemon=True)
    thread.start()
    eventually(lambda: lane.calls == 1)
    lane.open.clear()  # the store answers no more
    write(stream, b"0")
    eventually(lambda: lane.calls == 2)
    stop.set()
    thread.join(5)
    assert not thread.is_alive()
    assert stream.groups["sink"] == []
    lane.open.set()


def joined(one: Chunk, other: Chunk) -> Chunk:
    return Chunk(
        one.partition,
        one.keys + other.keys,
        one.values + other.values,
        one.positions + other.positions,
        one.broker_times + other.broker_times,
    )


def test_records_that_a_client_hands_out_again_are_left_out(
    stream: MemoryStream, run: Callable[..., Sink], monkeypatch: pytest.MonkeyPatch
) -> None:
    poll = MemoryReader.poll
    before: list[Chunk] = []

    def again(reader: MemoryReader, max_records: int, timeout: float) -> list[Chunk]:
        """Each chunk twice, and then once more in front of the next."""
        chunks = poll(reader, max_records, timeout)
        out = [joined(old, new) for old, new in zip(before[-1:], chunks, strict=False)] or chunks
        before.extend(chunks)
        return [*out, *chunks]

    monkeypatch.setattr(MemoryReader, "poll", again)
    lane = MemoryLane()
    sink = run(lane, replace(WHOLE, rotate_records=15))
    for start in range(0, 30, 10):
        write(stream, *numbered(start, start + 10))
        sink.await_read(start + 10)
    sink.stop()
    assert lane.values() == numbered(0, 30)
    assert sink.fault is None


def test_positions_are_pythons_integers_whatever_the_wire_counts_with(
    stream: MemoryStream, checkpoints: MemoryCheckpoints, run: Callable[..., Sink], monkeypatch: pytest.MonkeyPatch
) -> None:
    poll = PackingMember.poll

    def counted(member: PackingMember, max_records: int, timeout: float) -> list[Packed]:
        """As Kafka's compiled reader has them."""
        return [replace(run, positions=np.array(run.positions)) for run in poll(member, max_records, timeout)]

    monkeypatch.setattr(PackingMember, "poll", counted)
    lane = MemoryLane()
    lane.first = Start(after=None, end=6)
    write(stream, b"0", b"bad", b"2", b"3")
    sink = run(lane)
    eventually(lambda: len(lane.stored) == 1)
    sink.await_read(4)
    sink.stop()
    assert [(type(extent.end), extent.end) for extent in lane.stored] == [(int, 6), (int, 9)]
    assert {type(position) for position in committed(checkpoints)} == {int}
    assert [type(position) for extent in lane.stored for position in extent.rejected] == [int]


def test_a_member_that_leaves_hands_over_what_it_read(run: Callable[..., Sink]) -> None:
    wire = MemoryWire()
    wire.create("orders", partitions=2, retention_hours=24)
    stream = wire.open("orders")
    first, second = MemoryLane(), MemoryLane()
    one = run(first, on=stream)
    with stream.writer() as writer:
        writer.write([b"0", b"1"] * 10, numbered(0, 20))
    one.await_read(20)
    other = run(second, on=stream)
    eventually(lambda: len(first.values()) == 10)  # of the partition that it gives away
    with stream.writer() as writer:
        writer.write([b"0", b"1"] * 10, numbered(20, 40))
    other.await_read(10)
    other.stop()
    one.stop()
    assert sorted(first.values() + second.values()) == sorted(numbered(0, 40))


class Refusing(MemoryCheckpoints):
    """The first positions are not saved."""

    refusals = 2

    def save(self, group: str, stream: str, partition: str, checkpoint: Checkpoint) -> None:
        if self.refusals:
            self.refusals -= 1
            raise StreamError("not acknowledged")
        super().save(group, stream, partition, checkpoint)


def test_commits_are_some_seconds_apart(stream: MemoryStream, run: Callable[..., Sink]) -> None:
    saves = Counting()
    lane = MemoryLane()
    sink = Sink(stream, lane, AT_ONCE, saves)
    for number in range(20):
        write(stream, b"%d" % number)
        eventually(lambda number=number: len(lane.values()) == number + 1)  # type: ignore[misc]
    assert saves.count <= 1
    sink.now = 5
    eventually(lambda: committed(saves) == [3 * 19])
    sink.stop()
    assert saves.count == 2


class Counting(MemoryCheckpoints):
    count = 0

    def save(self, group: str, stream: str, partition: str, checkpoint: Checkpoint) -> None:
        self.count += 1
        super().save(group, stream, partition, checkpoint)


def test_a_commit_that_was_not_acknowledged_is_repeated(stream: MemoryStream) -> None:
    lane, checkpoints = MemoryLane(), Refusing()
    sink = Sink(stream, lane, AT_ONCE, checkpoints)
    write(stream, b"0")
    eventually(lambda: len(lane.stored) == 1)
    assert committed(checkpoints) == []
    sink.eventually(lambda: committed(checkpoints) == [0])
    sink.stop()
    assert lane.values() == [b"0"]


def test_a_partition_that_was_lost_is_committed_no_more(run: Callable[..., Sink]) -> None:
    wire = MemoryWire()
    wire.create("orders", partitions=2, retention_hours=24)
    stream = wire.open("orders")
    first, second, checkpoints = MemoryLane(), MemoryLane(), Refusing()
    checkpoints.refusals = 10**9
    one = Sink(stream, first, AT_ONCE, checkpoints)
    with stream.writer() as writer:
        writer.write([b"0", b"1"], numbered(0, 2))
    eventually(lambda: len(first.values()) == 2)
    other = Sink(stream, second, WHOLE, checkpoints)
    eventually(lambda: [len(sink.partitions()) for sink in (one, other)] == [1, 1])
    checkpoints.refusals = 0
    [kept] = [partition.name for partition in one.partitions()]
    one.eventually(lambda: bool(checkpoints.saved))
    assert [partition for _, _, partition in checkpoints.saved] == [kept]
    assert one.fault is None
    one.stop()
    other.stop()


def test_the_archive_stores_a_stream_once_through_restarts_with_every_batch_cut_differently(
    stream: MemoryStream, run: Callable[..., Sink]
) -> None:
    store = MemoryStore()
    digits = stream.position_digits
    layout = orders_layout(RULES, dict.fromkeys(RULES.countries, "Europe"), stream.id, digits)
    for start in range(0, 60, 20):
        lane = Archive("archive-orders", store, layout, stream=stream.id, digits=digits, puts=Inline())
        sink = run(lane, replace(WHOLE, rotate_records=7))
        for number in range(start, start + 20, 5):
            orders = [an_order(f"o-{n}") for n in range(number, number + 5)]
            with stream.writer() as writer:
                writer.write([b"o-%d" % n for n in range(number, number + 5)], orders)
            sink.await_read(number + 5 - start)
        sink.stop()
        assert sink.fault is None
    assert len(store.keys("orders/")) == len(store.keys("_extents/")) // 2
    assert store.read(f"_extents/{stream.id}/0/head") == b'{"end":"%020d"}' % (3 * 59)


def test_a_lag_is_what_is_not_stored_and_how_old_the_oldest_of_it_is(run: Callable[..., Sink]) -> None:
    broker = [1_000]  # seconds
    wire = MemoryWire(clock=lambda: broker[0] * 1000)
    wire.create("orders", partitions=1, retention_hours=24)
    stream = wire.open("orders")
    write(stream, b"0", b"1")
    lane = MemoryLane()
    lane.away = True
    sink = run(lane, replace(WHOLE, rotate_records=3), on=stream, wall=1_010)
    eventually(lambda: bool(sink.partitions()))
    sink.wall = 1_500
    sink.eventually(lambda: sink.lag() == (None, 490))  # nobody knows what there is, but we stored nothing since then
    lane.away = False
    sink.eventually(lambda: sink.lag() == (2, 500))
    broker[0] = 1_500
    write(stream, b"2")
    sink.eventually(lambda: sink.lag() == (0, 0))
    sink.wall = broker[0] = 9_000
    sink.eventually(lambda: sink.standing().lags["0"].reached == 9_000)
    lane.open.clear()
    write(stream, *numbered(3, 6))
    sink.wall = 9_001
    sink.eventually(lambda: sink.lag() == (3, 1))  # after two quiet hours
    broker[0] = 9_060
    write(stream, *numbered(6, 8))  # too few to be stored before the stop
    sink.wall = 12_600
    sink.eventually(lambda: sink.lag() == (5, 3_600))
    lane.open.set()
    sink.eventually(lambda: sink.lag() == (2, 3_540))
    sink.stop()
    assert lane.values() == numbered(0, 8)


def test_what_the_store_wrote_is_counted(stream: MemoryStream, run: Callable[..., Sink]) -> None:
    lane = MemoryLane()
    lane.answers = [Stored(3, Wrote(objects=2, bytes=100)), Stored(9, Wrote(items=1, duplicates=1))]
    sink = run(lane, replace(WHOLE, rotate_records=2))
    for start in (0, 2):
        write(stream, *numbered(start, start + 2))
        sink.await_read(start + 2)
    sink.stop()
    counts = sink.delivery.counts
    assert (counts.objects, counts.bytes, counts.items, counts.duplicates) == (2, 100, 1, 1)


def test_it_stands_still_while_its_lane_holds_up_the_reading_thread(
    stream: MemoryStream, run: Callable[..., Sink]
) -> None:
    lane = MemoryLane()
    lane.open.clear()  # where partitions begin is asked on that thread
    sink = run(lane)
    eventually(lambda: lane.calls == 1)
    assert sink.delivery.running
    assert sink.delivery.standing is None
    sink.now = 100
    assert sink.delivery.still_seconds() == 100
    lane.open.set()
    eventually(lambda: sink.delivery.standing is not None)
    assert sink.delivery.still_seconds() == 0
    sink.stop()
    assert not sink.delivery.running


def test_of_a_paused_partition_nobody_claims_that_nothing_is_behind_it(
    stream: MemoryStream, run: Callable[..., Sink]
) -> None:
    delivery = run(MemoryLane(), WHOLE).delivery
    partition = _Partition[bytes]("0", None, reached=1_000, open=_Open(after=7), paused=True)
    lag = delivery._lag(partition, 0)  # what was heard before the pause
    assert (lag.messages, lag.seconds(4_600)) == (None, 3_600)
