"""Record batches taken apart by compiled code: the same records as the client's own iterator gives, and from bytes
that are no batch an error."""

import ctypes
import mmap
import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import cramjam
import hypothesis.strategies as st
import numpy as np
import pytest
from crc32c import crc32c
from hypothesis import given, settings
from kafka import TopicPartition
from kafka import codec as codecs
from kafka.consumer.fetcher import Fetcher
from kafka.protocol.consumer import IsolationLevel
from kafka.record import MemoryRecords
from kafka.record.default_records import DefaultRecordBatchBuilder

from sales.memory import PADDING
from sales.streams import StreamError, kafka_batches, kafka_records
from sales.streams.kafka_batches import Answer, BatchesReader
from sales.streams.kafka_records import Memory, batches_of, take_apart, unpack
from sales.streams.kafka_watched import Watched
from sales.streams.packed import Packed

HERE = TopicPartition("orders", 3)
NONE, GZIP, SNAPPY, LZ4, ZSTD = range(5)


def snappy(plain: bytes) -> bytes:
    """As Java's clients do it: in blocks."""
    blocks = [bytes(cramjam.snappy.compress_raw(plain[at : at + 700])) for at in range(0, len(plain), 700)]
    return b"\x82SNAPPY\0" + struct.pack(">ii", 1, 1) + b"".join(struct.pack(">i", len(b)) + b for b in blocks)


def raw_snappy(plain: bytes) -> bytes:
    return bytes(cramjam.snappy.compress_raw(plain))


def zstd(plain: bytes) -> bytes:
    return bytes(cramjam.zstd.compress(plain))


ENCODERS: list[Callable[[bytes], bytes]] = [bytes, codecs.gzip_encode, snappy, codecs.lz4_encode, zstd, raw_snappy]
RAW_SNAPPY = 5
"""what else the number of snappy stands for"""


@dataclass(frozen=True)
class Kept:
    """A record of a batch, by its distance from the batch's base."""

    delta: int
    time: int = 0
    key: bytes | None = b"key"
    value: bytes | None = b"value"
    headers: tuple[tuple[str, bytes | None], ...] = ()


@dataclass(frozen=True)
class Made:
    """A batch to be made."""

    kept: tuple[Kept, ...]
    base: int = 0
    last_delta: int | None = None
    """larger than the last record's where compaction took the end away"""
    codec: int = NONE
    appended: int | None = None
    """the log's own time"""
    producer: int = -1
    transactional: bool = False
    control: bool = False

    def end(self) -> int:
        last = max((kept.delta for kept in self.kept), default=0)
        return self.base + max(last, self.last_delta or 0) + 1

    def build(self) -> bytes:
        builder = DefaultRecordBatchBuilder(2, NONE, self.transactional, self.producer, 0, 0, 1 << 30)
        for kept in self.kept:
            builder.append(kept.delta, kept.time, kept.key, kept.value, list(kept.headers))
        whole = bytearray(builder.build())
        whole[61:] = ENCODERS[self.codec](bytes(whole[61:]))
        attributes, _, first, latest = struct.unpack_from(">hiqq", whole, 21)
        if self.appended is not None:
            attributes, latest = attributes | 0x08, self.appended
        if self.control:
            attributes |= 0x20
        if not self.kept:
            first = latest = -1
        struct.pack_into(">qii", whole, 0, self.base, len(whole) - 12, 7)
        struct.pack_into(
            ">hiqq",
            whole,
            21,
            attributes | (SNAPPY if self.codec == RAW_SNAPPY else self.codec),
            self.end() - self.base - 1,
            first,
            latest,
        )
        return summed(whole)


def summed(whole: bytearray) -> bytes:
    """With the sum that belongs to it."""
    struct.pack_into(">I", whole, 17, crc32c(whole[21:]))
    return bytes(whole)


def end_of_transaction(base: int, producer: int, *, aborted: bool) -> Made:
    key = struct.pack(">hh", 0, 0 if aborted else 1)
    return Made((Kept(0, 5, key, bytes(6)),), base=base, producer=producer, transactional=True, control=True)


def through_ours(data: bytes, start: int, aborted: Iterable[Any] = ()) -> tuple[list[Any], int]:
    """What we make of an answer: records, and the offset to go on with."""
    answer = Answer(start, HERE, MemoryRecords(data), fetched={}, aborted_transactions=aborted, on_drain=lambda _: None)
    batches = answer.take(1)
    assert not answer
    return rows(unpack("3", batches, start, Memory())[0]), answer.next_fetch_offset


def rows(run: Packed) -> list[Any]:
    return [
        (int(run.positions[row]), run.key(row), run.value(row), int(run.broker_times[row])) for row in range(len(run))
    ]


def through_the_client(log: Iterable[Made], start: int, aborted: Iterable[Any] = ()) -> tuple[list[Any], int]:
    """What the client's own iterator makes of it, without any codec."""
    data = b"".join(replace(batch, codec=NONE).build() for batch in log)
    part = Fetcher.PartitionRecords(
        start,
        HERE,
        MemoryRecords(data),
        isolation_level=IsolationLevel.READ_COMMITTED,
        aborted_transactions=list(aborted),
    )
    found = [(record.offset, record.key, record.value or b"", record.timestamp) for record in part.take()]
    return found, part.next_fetch_offset


keys = st.none() | st.binary(max_size=40)
headers = st.lists(st.tuples(st.text(max_size=5), keys), max_size=3).map(tuple)
times = st.integers(0, 1 << 42)


@st.composite
def made(draw: st.DrawFn, base: int = 0) -> Made:
    gaps = draw(st.lists(st.integers(1, 4) | st.integers(1, 100_000), min_size=1, max_size=12))
    deltas = np.cumsum(gaps) - gaps[0] + draw(st.sampled_from([0, 0, 3]))
    kept = tuple(
        Kept(int(delta), draw(times), draw(keys), draw(keys | st.binary(min_size=120, max_size=300)), draw(headers))
        for delta in deltas
    )
    return Made(
        kept,
        base=base + draw(st.sampled_from([0, 0, 1, 1 << 40])),
        last_delta=draw(st.sampled_from([None, int(deltas[-1]) + 5])),
        codec=draw(st.sampled_from(range(len(ENCODERS)))),
        appended=draw(st.none() | times),
        producer=draw(st.sampled_from([-1, 1, 2])),
    )


@st.composite
def logs(draw: st.DrawFn) -> tuple[list[Made], list[Any]]:
    """Batches one behind the other, and which transactions of them were aborted, as a broker tells."""
    log: list[Made] = []
    aborted = []
    began: dict[int, int] = {}
    at = draw(st.integers(0, 1000))
    for _ in range(draw(st.integers(1, 8))):
        if draw(st.booleans()) and began:
            producer = draw(st.sampled_from(sorted(began)))
            abort = draw(st.booleans())
            log.append(end_of_transaction(at, producer, aborted=abort))
            first = began.pop(producer)
            if abort:
                aborted.append(SimpleNamespace(producer_id=producer, first_offset=first))
        else:
            batch = draw(made(at))
            if batch.producer >= 0 and (batch.producer in began or draw(st.booleans())):
                batch = replace(batch, transactional=True)
                began.setdefault(batch.producer, batch.base)
            log.append(batch)
        at = log[-1].end()
    return log, aborted


@settings(max_examples=150)
@given(made_log=logs(), data=st.data())
def test_an_answer_holds_the_records_that_the_clients_iterator_gives(
    made_log: tuple[list[Made], list[Any]], data: st.DataObject
) -> None:
    log, aborted = made_log
    places = [log[0].base, *(batch.base + kept.delta for batch in log for kept in batch.kept), log[-1].end() - 1]
    start = data.draw(st.sampled_from(places))
    broken_off = data.draw(st.sampled_from([b"", b"\0", bytes(11), Made((Kept(0),)).build()[:-1]]))
    log = [batch for batch in log if batch.end() > start]
    answer = b"".join(batch.build() for batch in log) + broken_off

    assert through_ours(answer, start, aborted) == through_the_client(log, start, aborted)


@pytest.mark.parametrize("codec", range(len(ENCODERS)))
def test_a_large_batch_of_every_codec_comes_back_whole(codec: int) -> None:
    batch = Made(tuple(Kept(n, n, b"key %d" % n, b"value %d " % n * 50) for n in range(3000)), codec=codec)

    found, end = through_ours(batch.build(), 0)

    assert found == [(kept.delta, kept.key, kept.value, kept.time) for kept in batch.kept]
    assert end == 3000


def test_an_empty_value_and_none_are_the_same_and_an_empty_key_is_not_none() -> None:
    batch = Made((Kept(0, 0, None, None), Kept(1, 0, b"", b"")))
    assert through_ours(batch.build(), 0)[0] == [(0, None, b"", 0), (1, b"", b"", 0)]


def test_a_batch_that_compaction_emptied_is_passed_by() -> None:
    empty = Made((), base=5, last_delta=4)
    after = Made((Kept(0),), base=10)
    assert through_ours(empty.build() + after.build(), 5) == ([(10, b"key", b"value", 0)], 11)
    assert through_ours(empty.build(), 5) == ([], 10)


def test_what_an_aborted_transaction_wrote_is_left_out() -> None:
    log = [
        Made((Kept(0, value=b"dropped"),), base=0, producer=1, transactional=True),
        Made((Kept(0, value=b"of another producer"),), base=1, producer=2, transactional=True),
        end_of_transaction(2, 1, aborted=True),
        Made((Kept(0, value=b"of the next transaction"),), base=3, producer=1, transactional=True),
        end_of_transaction(4, 1, aborted=False),
        end_of_transaction(5, 2, aborted=False),
    ]
    found, end = through_ours(
        b"".join(batch.build() for batch in log), 0, [SimpleNamespace(producer_id=1, first_offset=0)]
    )
    assert [value for _, _, value, _ in found] == [b"of another producer", b"of the next transaction"]
    assert end == 6


# What is no batch


def test_a_flipped_bit_is_an_error() -> None:
    whole = Made((Kept(0), Kept(1)), base=17).build()
    for at in range(21, len(whole)):
        broken = bytearray(whole)
        broken[at] ^= 0x10
        with pytest.raises(StreamError, match=r"orders/3.*offset 17.*CRC"):
            through_ours(bytes(broken), 17)


@settings(max_examples=300)
@given(batch=made(), changes=st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=6))
def test_bytes_that_are_wrong_but_summed_give_an_error_or_records_of_the_same_buffer(
    batch: Made, changes: list[tuple[int, int]]
) -> None:
    whole = bytearray(batch.build())
    for at, byte in changes:
        whole[21 + at % (len(whole) - 21)] = byte
    try:
        run, _ = unpack("3", list(batches_of(memoryview(summed(whole)))), 0, Memory())
    except StreamError:
        return
    end = len(run.data) - PADDING
    for starts, ends in ((run.key_starts, run.key_ends), (run.value_starts, run.value_ends)):
        assert ((starts >= -1) & (ends <= end) & (starts <= ends)).all()
    assert (np.diff(np.asarray(run.positions)) > 0).all()


@settings(max_examples=300)
@given(
    batch=made(),
    changes=st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), max_size=4),
    cut=st.integers(0, 400),
)
def test_nothing_behind_a_batch_is_read(batch: Made, changes: list[tuple[int, int]], cut: int) -> None:
    records = bytearray(replace(batch, codec=NONE).build()[61:])
    for at, byte in changes:
        records[at % len(records)] = byte
    records = records[: max(0, len(records) - cut)]
    columns = np.empty((6, len(batch.kept)), dtype=np.int64)
    with Fenced(bytes(records)) as address:
        lines = take_apart(
            address, 0, len(records), len(batch.kept), 0, 1 << 40, 0, 0, 1, columns.ctypes.data, columns.strides[0], 0
        )
    assert lines in (-1, len(batch.kept))
    if not changes and not cut:
        assert lines == len(batch.kept)


class Fenced:
    """Bytes in front of a page that no one may read: whoever does ends the process."""

    def __init__(self, data: bytes) -> None:
        self._size = -(-len(data) // mmap.PAGESIZE) * mmap.PAGESIZE
        self._map = mmap.mmap(-1, self._size + mmap.PAGESIZE)
        self._map[self._size - len(data) : self._size] = data
        self._view = ctypes.c_char.from_buffer(self._map)
        self._at = ctypes.addressof(self._view)
        self._data = self._at + self._size - len(data)

    def _protect(self, how: int) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        assert libc.mprotect(ctypes.c_void_p(self._at + self._size), ctypes.c_size_t(mmap.PAGESIZE), how) == 0

    def __enter__(self) -> int:
        self._protect(0)
        return self._data

    def __exit__(self, *_: object) -> None:
        self._protect(mmap.PROT_READ | mmap.PROT_WRITE)
        del self._view
        self._map.close()


@pytest.mark.parametrize(("at", "form", "value"), [(57, ">i", 1 << 30), (57, ">i", -1), (23, ">i", -2), (8, ">i", 4)])
def test_a_header_that_cannot_be_is_an_error(at: int, form: str, value: int) -> None:
    whole = bytearray(Made((Kept(0),), base=9).build())
    struct.pack_into(form, whole, at, value)
    with pytest.raises(StreamError, match="offset 9"):
        unpack("3", list(batches_of(memoryview(summed(whole)))), 0, Memory())


def test_a_format_of_before_kafka_0_11_is_refused_in_words() -> None:
    whole = bytearray(Made((Kept(0),)).build())
    whole[16] = 1
    with pytest.raises(StreamError, match=r"format 1.*0\.11"):
        through_ours(bytes(whole), 0)


def test_what_would_be_decompressed_without_end_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka_records, "BUFFER_BYTES", 1000)
    monkeypatch.setattr(kafka_records, "LARGEST_BYTES", 100_000)
    for codec in range(len(ENCODERS)):
        most = Made((Kept(0, value=bytes(70_000)),), codec=codec)
        assert [len(value) for _, _, value, _ in through_ours(most.build(), 0)[0]] == [70_000]
        with pytest.raises(StreamError, match=r"offset 5.*more than"):
            through_ours(Made((Kept(0, value=bytes(140_000)),), base=5, codec=codec).build(), 0)


def test_an_unknown_codec_is_an_error() -> None:
    whole = bytearray(Made((Kept(0),)).build())
    whole[22] |= 6
    with pytest.raises(StreamError, match="codec 6"):
        through_ours(summed(whole), 0)


# Memory


def test_a_buffer_is_used_again_when_nobody_looks_into_it_and_not_before() -> None:
    memory = Memory()
    first = memory.take()
    first[:5] = 1
    address = first.ctypes.data
    part = first[2:][:3]
    del first
    assert memory.take().ctypes.data != address
    assert part.tolist() == [1, 1, 1]
    look = part.data
    del part
    assert memory.take().ctypes.data != address
    del look
    assert memory.take().ctypes.data == address


@settings(max_examples=50)
@given(kept=st.lists(st.integers(0, 3), min_size=1, max_size=12))
def test_runs_that_are_kept_stay_as_they_are(kept: list[int]) -> None:
    memory = Memory()
    held: list[tuple[int, Packed]] = []
    for number, drop in enumerate(kept):
        batch = Made((Kept(0, value=b"%d" % number),), codec=LZ4)
        held.append((number, unpack("3", list(batches_of(memoryview(batch.build()))), 0, memory)[0]))
        del held[:drop]
        assert all(run.value(0) == b"%d" % at for at, run in held)


# Handing out


class Broker:
    """A client that has fetched these answers."""

    def __init__(self, *answers: dict[int, list[Made]]) -> None:
        self.answers = list(answers)
        self._fetcher = SimpleNamespace(_nodes_with_pending_fetch_requests=set(), _completed_fetches=[])
        self.calls = 0
        self.highs: dict[int, int] = {}

    def assign(self, _: object) -> None:
        """As the client's."""

    def seek(self, *_: object) -> None:
        """As the client's."""

    pause = resume = assign

    def highwater(self, partition: TopicPartition) -> int | None:
        return self.highs.get(partition.partition)

    def owe(self, *nodes: str) -> None:
        """From these brokers an answer is still to come."""
        self._fetcher._nodes_with_pending_fetch_requests = set(nodes)

    def poll(self, _timeout_ms: int, max_records: int) -> dict[TopicPartition, list[Any]]:
        self.calls += 1
        found = {}
        for number, log in (self.answers.pop(0) if self.answers else {}).items():
            answer = self._fetcher.PartitionRecords(
                log[0].base,
                TopicPartition("orders", number),
                MemoryRecords(b"".join(batch.build() for batch in log)),
                aborted_transactions=None,
                on_drain=lambda _: None,
            )
            self.highs[number] = log[-1].end()
            if batches := answer.take(max_records):
                found[TopicPartition("orders", number)] = batches
        return found


def reading(broker: Broker, starts: Sequence[int], monkeypatch: pytest.MonkeyPatch) -> BatchesReader:
    monkeypatch.setattr("sales.streams.kafka_python.KafkaConsumer", lambda **_: broker)
    return BatchesReader({}, "orders", dict.fromkeys(starts, 0), watched=Watched([]), starts_of=lambda _: {})


def in_a_row(count: int, size: int) -> list[Made]:
    return [Made(tuple(map(Kept, range(size))), base=number * size) for number in range(count)]


def test_small_batches_are_joined_to_runs_and_none_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    reader = reading(Broker({0: in_a_row(100, 100)}), [0], monkeypatch)
    lengths = [len(run) for _ in range(3) for run in reader.poll(16_000, 0)]
    assert lengths == [4100, 4100, 1800]


def test_a_run_ends_where_records_are_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka_batches, "RUN_BYTES", 1500)
    reader = reading(Broker({0: in_a_row(10, 100)}), [0], monkeypatch)
    assert [len(run) for run in reader.poll(16_000, 0)] == [100]


def test_a_run_ends_where_its_batches_were_decompressed_to_much(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka_records, "FULL_BYTES", 2000)
    reader = reading(Broker({0: in_a_row(5, 100)}), [0], monkeypatch)
    runs = [run for _ in range(4) for run in reader.poll(16_000, 0)]
    assert [len(run) for run in runs] == [200, 200, 100]
    assert [int(position) for run in runs for position in run.positions] == list(range(500))


def test_batches_that_are_too_large_together_come_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka_records, "BUFFER_BYTES", 1000)
    monkeypatch.setattr(kafka_records, "LARGEST_BYTES", 100_000)
    monkeypatch.setattr(BatchesReader, "_memory", Memory())
    log = [Made((Kept(0, value=bytes(70_000)),), base=number, codec=LZ4) for number in range(3)]
    reader = reading(Broker({0: log}), [0], monkeypatch)
    assert [len(run) for _ in range(4) for run in reader.poll(16_000, 0)] == [1, 1, 1]


def test_a_batch_that_is_larger_than_asked_for_comes_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    reader = reading(Broker({0: in_a_row(2, 20_000)}), [0], monkeypatch)
    runs = [run for _ in range(5) for run in reader.poll(18_000, 0)]
    assert [len(run) for run in runs] == [16_384, 3_616, 16_384, 3_616]
    assert [int(position) for run in runs for position in run.positions] == list(range(40_000))


def test_a_busy_partition_starves_none(monkeypatch: pytest.MonkeyPatch) -> None:
    reader = reading(Broker({0: in_a_row(50, 100), 1: in_a_row(1, 10), 2: in_a_row(1, 10)}), [0, 1, 2], monkeypatch)
    polls = [[run.partition for run in reader.poll(40, 0)] for _ in range(4)]
    assert polls == [["0"], ["1", "2", "0"], ["0"], ["0"]]


def positions(runs: Iterable[Packed]) -> list[tuple[str, int]]:
    return [(run.partition, int(position)) for run in runs for position in run.positions]


def test_a_paused_partition_that_waits_keeps_none_of_the_others_from_being_fetched(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    later = Made((Kept(0),), base=10)
    broker = Broker({0: in_a_row(2, 10), 1: in_a_row(1, 10)}, {1: [later]})
    reader = reading(broker, [0, 1], monkeypatch)
    assert positions(reader.poll(5, 0)) == [("0", at) for at in range(5)]
    reader.pause("0")
    assert positions(reader.poll(100, 0)) == [("1", at) for at in range(10)]
    assert positions(reader.poll(100, 0)) == [("1", 10)]
    assert reader.poll(100, 0) == []
    reader.resume("0")
    runs = [run for _ in range(2) for run in reader.poll(100, 0)]
    assert positions(runs) == [("0", at) for at in range(5, 20)]


def test_going_elsewhere_drops_what_was_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    again = Made(tuple(map(Kept, range(10))), base=50)
    broker = Broker({0: in_a_row(3, 10), 1: in_a_row(1, 10)}, {0: [again]})
    reader = reading(broker, [0, 1], monkeypatch)
    reader.poll(5, 0)  # the rest of a batch, and whole batches, wait
    reader.go_to(0, 53)
    assert (reader.lag()["0"], broker.highs[0]) == (0, 30)
    assert positions(reader.poll(100, 0)) == [("1", at) for at in range(10)]
    assert positions(reader.poll(100, 0)) == [("0", at) for at in range(53, 60)]


def test_a_partition_that_ended_gives_nothing_more_and_one_that_begins_again_is_read_from_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    broker = Broker({0: in_a_row(3, 10), 1: in_a_row(1, 10)}, {0: in_a_row(1, 10)})
    reader = reading(broker, [0, 1], monkeypatch)
    reader.poll(5, 0)
    reader.pause("0")
    reader.end([0])
    assert reader.lag() == {"1": 10}
    assert positions(reader.poll(100, 0)) == [("1", at) for at in range(10)]
    with pytest.raises(StreamError, match="not assigned"):
        reader.resume("0")
    reader.begin({0: 2})
    assert positions(reader.poll(100, 0)) == [("0", at) for at in range(2, 10)], "it is paused no more"
    assert reader.lag() == {"0": 0, "1": 0}


def calls(reader: BatchesReader, broker: Broker, timeout: float = 0) -> bool:
    before = broker.calls
    reader.poll(10, timeout)
    return broker.calls > before


def test_while_every_broker_owes_an_answer_the_client_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("sales.streams.kafka_batches.time.monotonic", lambda: now)
    broker = Broker()
    reader = reading(broker, [0], monkeypatch)
    assert calls(reader, broker)
    assert calls(reader, broker), "no broker was asked yet"
    broker.owe("a", "b")
    assert calls(reader, broker)
    assert not calls(reader, broker)
    broker.owe("b")
    assert calls(reader, broker), "a broker has answered, with nothing"
    assert not calls(reader, broker)
    broker._fetcher._completed_fetches.append(object())
    assert calls(reader, broker), "an answer is there"
    broker._fetcher._completed_fetches.clear()
    assert not calls(reader, broker)
    assert calls(reader, broker, timeout=1.0), "who waits is told at once"
    now += 0.051
    assert calls(reader, broker), "what is no answer shows too"


def test_the_ends_of_transactions_are_no_lag(monkeypatch: pytest.MonkeyPatch) -> None:
    log = [Made((Kept(0),), producer=1, transactional=True), end_of_transaction(1, 1, aborted=False)]
    broker = Broker({0: log})
    reader = reading(broker, [0, 1], monkeypatch)
    assert reader.lag() == {"0": None, "1": None}
    reader.poll(10, 0)
    assert reader.lag() == {"0": 0, "1": None}
    broker.highs[0] = 5
    assert reader.lag() == {"0": 3, "1": None}


def test_of_a_cluster_that_says_nothing_no_lag_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    reader = reading(Broker({0: in_a_row(1, 10)}), [0], monkeypatch)
    reader.poll(100, 0)
    assert reader.lag() == {"0": 0}
    reader._watched.heard -= 31
    assert reader.lag() == {"0": None}


def test_what_waits_to_be_handed_out_is_lag(monkeypatch: pytest.MonkeyPatch) -> None:
    reader = reading(Broker({0: in_a_row(2, 100)}), [0], monkeypatch)
    reader.poll(30, 0)
    assert reader.lag() == {"0": 170}


def test_after_an_error_a_reader_gives_nothing_more(monkeypatch: pytest.MonkeyPatch) -> None:
    reader = reading(Broker({0: [Made((Kept(0), Kept(0)))]}, {0: in_a_row(1, 1)}), [0], monkeypatch)
    for _ in range(2):
        with pytest.raises(StreamError, match="orders/0"):
            reader.poll(10, 0)
