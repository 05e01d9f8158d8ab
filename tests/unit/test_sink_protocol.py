"""Every position is stored exactly once, whatever crashes, wakes up late or gets no answer.

Writers read one partition and store its extents through the real ``Archive``. Each runs until it asks the store for
something, and then waits for the test to say what becomes of that request.
"""

import contextlib
import io
import json
import threading
from collections import Counter
from collections.abc import Mapping
from functools import partial
from typing import Any

import pyarrow.parquet as pq
import pytest
import xxhash
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from sales.countries import REGION_OF
from sales.streams import AwayError
from sales.streams.packed import pack
from sink.archive import Archive, ArchiveError
from sink.lanes import AbandonedError, Extent, Pinned, Start, Stored
from sink.orders import orders_layout
from support.fates import FAULTS, CrashError, Fate, Fated, GatedStore, Log, a_log, chain_of, stored_positions
from support.sinking import RULES, STREAM, Inline, MemoryStore, a_chunk, an_order

DIGITS = 20
LAYOUT = orders_layout(RULES, REGION_OF, STREAM, DIGITS)


class Writer(Fated):
    """A process that stores the partition: starts from the chain, then extent after extent, each of the length that
    its clock happens to choose."""

    def __init__(self, shared: MemoryStore, log: Log, lengths: list[int]) -> None:
        self._log = log
        self._lengths = lengths
        self._archive = archive(GatedStore(shared, self))
        super().__init__()

    def live(self) -> None:
        start = persistently(partial(self._archive.start, "0", None))
        after, end = start.after, start.end
        while True:
            limit = None if end is not None else self._lengths[0]
            self._lengths.append(self._lengths.pop(0))
            values, positions = self._log.between(after, end, limit)
            if not values:
                break
            extent = extent_of(after, end or positions[-1], values, positions)
            match persistently(partial(self._archive.store, extent, threading.Event())):
                case Stored(stored):
                    after, end = stored, None
                case Pinned(pinned):
                    end = pinned


def persistently(act: Any) -> Any:
    """What ``Delivery`` does when the store is away."""
    while True:
        try:
            return act()
        except AwayError:
            continue


def archive(store: MemoryStore) -> Archive[Any]:
    return Archive("archive-orders", store, LAYOUT, stream=STREAM, digits=DIGITS, puts=Inline())


def extent_of(after: int | None, end: int, values: list[bytes], positions: list[int]) -> Extent[Any]:
    piece = LAYOUT.hold(pack(a_chunk(values, positions=positions)))
    return Extent("0", after, end, [piece.content], len(values), piece.rejected, sum(map(len, values)), 0)


def check_complete(store: MemoryStore, log: Log) -> None:
    """Everything in the log is stored once, and the chain says so."""
    assert stored_positions(store) == Counter(log.good())
    chain = chain_of(store)
    assert [done.after for done in chain] == [None, *(done.end for done in chain[:-1])][: len(chain)]
    assert len(chain) == len(store.keys(f"_extents/{STREAM}/0/")) // 2  # pins and done marks, and the head
    assert {stored.key for done in chain for stored in done.objects} == set(store.keys("orders/"))
    for done in chain:
        after = None if done.after is None else int(done.after)
        _, inside = log.between(after, int(done.end))
        assert done.read == len(inside) == done.stored + done.rejected
        assert done.rejected == len(log.malformed.intersection(inside))
        assert done.rejected_at == [f"{position:020d}" for position in inside if position in log.malformed]
        assert done.stored == sum(stored.orders for stored in done.objects)
    assert (chain[-1].end if chain else None) == (f"{log.positions[-1]:020d}" if log.positions else None)


LENGTHS = st.lists(st.integers(1, 6), min_size=1, max_size=5)


class Schedules(RuleBasedStateMachine):
    """Up to three writers of one partition at one time: the owner, and zombies that do not know it yet."""

    @initialize(hours=st.lists(st.one_of(st.none(), st.integers(0, 3)), min_size=1, max_size=12))
    def begin(self, hours: list[int | None]) -> None:
        self.store = MemoryStore()
        self.log = Log()
        self.writers: list[Writer] = []
        self.append(hours)

    @rule(hours=st.lists(st.one_of(st.none(), st.integers(0, 3)), min_size=1, max_size=6))
    def append(self, hours: list[int | None]) -> None:
        for hour in hours:
            self.log.append(hour)

    @precondition(lambda self: len(self.writers) < 3)
    @rule(lengths=LENGTHS)
    def start(self, lengths: list[int]) -> None:
        self.writers.append(Writer(self.store, self.log, lengths))
        self._sweep()

    @precondition(lambda self: self.writers)
    @rule(which=st.integers(0, 2), steps=st.integers(1, 12))
    def go_on(self, which: int, steps: int) -> None:
        writer = self.writers[which % len(self.writers)]
        for _ in range(steps):
            if writer.alive:
                writer.step("answered")
        self._sweep()

    @precondition(lambda self: self.writers)
    @rule(which=st.integers(0, 2), fate=st.sampled_from(FAULTS))
    def go_wrong(self, which: int, fate: Fate) -> None:
        self.writers[which % len(self.writers)].step(fate)
        self._sweep()

    @invariant()
    def nothing_is_stored_twice(self) -> None:
        if hasattr(self, "store"):
            assert all(count == 1 for count in stored_positions(self.store).values())

    def teardown(self) -> None:
        if not hasattr(self, "store"):
            return
        # One comes to the end of the log; the zombies that wake up after that change nothing, nor does who follows.
        for writer in (Writer(self.store, self.log, [4]), *self.writers, Writer(self.store, self.log, [3])):
            finish(writer)
        check_complete(self.store, self.log)

    def _sweep(self) -> None:
        for writer in self.writers:
            assert writer.fault is None or isinstance(writer.fault, CrashError), writer.fault
        self.writers = [writer for writer in self.writers if writer.alive]


Schedules.TestCase.settings = settings(
    max_examples=60,
    stateful_step_count=40,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
test_every_position_is_stored_exactly_once_under_any_schedule = Schedules.TestCase


def finish(writer: Writer) -> None:
    while writer.alive:
        writer.step("answered")
    if writer.fault is not None:
        raise writer.fault


def store_all(store: MemoryStore, log: Log, *, lengths: list[int]) -> None:
    finish(Writer(store, log, lengths))


REQUESTS = 12
"""More than an extent over two hours takes: head, done and pin read, then pin, two objects, done, head, and again."""


@pytest.mark.parametrize("fate", FAULTS)
@pytest.mark.parametrize("arrow", range(REQUESTS))
def test_a_fault_at_any_arrow_is_finished_by_the_next_writer_with_another_clock(arrow: int, fate: Fate) -> None:
    store, log = MemoryStore(), a_log(0, 1, None, 0, 1, 2)
    first = Writer(store, log, [3])
    for _ in range(arrow):
        first.step("answered")
    first.step(fate)
    while first.alive:
        first.step("answered")
    store_all(store, log, lengths=[5, 1])
    check_complete(store, log)


@pytest.mark.parametrize("arrow", range(REQUESTS))
def test_a_zombie_that_wakes_up_anywhere_changes_nothing(arrow: int) -> None:
    store, log = MemoryStore(), a_log(0, 1, None, 0, 1, 2)
    zombie = Writer(store, log, [3])
    for _ in range(arrow):
        zombie.step("answered")
    store_all(store, log, lengths=[2, 4])
    check_complete(store, log)
    before = dict(store.objects)
    finish(zombie)
    before.pop(f"_extents/{STREAM}/0/head")
    assert {key: value for key, value in store.objects.items() if not key.endswith("/head")} == before
    log.append(0)
    store_all(store, log, lengths=[9])  # starts from the head that the zombie left
    check_complete(store, log)


def test_an_extent_of_malformed_messages_has_a_pin_and_a_done_mark_and_no_object() -> None:
    store, log = MemoryStore(), a_log(None, None)
    store_all(store, log, lengths=[2])
    assert store.keys("orders/") == []
    [done] = chain_of(store)
    assert (done.read, done.stored, done.rejected, done.objects) == (2, 0, 2, [])


def test_the_chain_decides_where_a_partition_starts_not_what_was_committed() -> None:
    store, log = MemoryStore(), a_log(0, 0, 0)
    store_all(store, log, lengths=[2])
    end = log.positions[-1]
    for committed in (None, log.positions[0], end, end + 1_000):
        assert archive(store).start("0", committed) == Start(end)
    assert archive(MemoryStore()).start("0", end) == Start(None)


def test_an_extent_that_was_pinned_and_not_finished_is_the_first_to_be_read_exactly() -> None:
    store, log = MemoryStore(), a_log(0, 1, 0, 0)
    first = Writer(store, log, [2])
    for _ in range(4):
        first.step("answered")
    first.step("crash after")  # one of two objects is there
    assert len(store.keys("orders/")) == 1
    assert archive(store).start("0", None) == Start(None, log.positions[1])


def test_a_lost_or_an_old_head_costs_requests_only() -> None:
    store, log = MemoryStore(), a_log(0, 0, 0, 0)
    store_all(store, log, lengths=[1])
    head = f"_extents/{STREAM}/0/head"
    store.overwrite(head, b'{"end":"00000000000000000005"}')
    assert archive(store).start("0", None) == Start(log.positions[-1])
    del store.objects[head]
    assert archive(store).start("0", None) == Start(log.positions[-1])


def test_an_object_with_other_rows_under_our_name_is_an_alarm() -> None:
    store, log = MemoryStore(), a_log(0, 1)
    other = MemoryStore()
    foreign = a_log(0, 1)
    foreign.values[0] = an_order("somebody-else")
    store_all(other, foreign, lengths=[9])
    [key] = [key for key in other.keys("orders/") if key.endswith("05.parquet")]
    store.objects[key] = other.objects[key]
    with pytest.raises(ArchiveError, match="holds other rows"):
        store_all(store, log, lengths=[9])
    assert chain_of(store) == []


def test_an_object_of_the_same_rows_that_another_version_wrote_is_taken_as_it_is() -> None:
    store, log, other = MemoryStore(), a_log(0, 1), MemoryStore()
    store_all(other, log, lengths=[9])
    [key] = [key for key in other.keys("orders/") if key.endswith("05.parquet")]
    file = io.BytesIO()
    pq.write_table(pq.read_table(io.BytesIO(other.objects[key][0])), file, compression="snappy")
    store.objects[key] = (file.getvalue(), {"digest": "of its rows"})
    store_all(store, log, lengths=[9])
    check_complete(store, log)
    assert store.objects[key][0] == file.getvalue()
    [stored] = [stored for done in chain_of(store) for stored in done.objects if stored.key == key]
    assert (stored.bytes, stored.checksum) == (len(file.getvalue()), xxhash.xxh3_128_hexdigest(file.getvalue()))


@pytest.mark.parametrize(
    ("changes", "agreed"),
    [
        pytest.param({}, True, id="the same"),
        pytest.param({"checksum": ""}, True, id="a mark of before"),
        pytest.param({"checksum": "0" * 32}, False, id="another checksum"),
        pytest.param({"rows": 2}, False, id="other rows"),
        pytest.param({"key": "orders/x.parquet"}, False, id="another object"),
    ],
)
def test_writers_of_one_extent_agree_on_its_objects(changes: dict[str, Any], agreed: bool) -> None:
    store, log = MemoryStore(), a_log(0)
    store_all(store, log, lengths=[1])
    key = f"_extents/{STREAM}/0/origin.done"
    mark = json.loads(store.objects[key][0])
    mark["objects"][0] |= changes
    store.overwrite(key, json.dumps(mark).encode())
    extent = extent_of(None, log.positions[0], log.values, log.positions)
    with contextlib.nullcontext() if agreed else pytest.raises(ArchiveError, match="speaks of other rows"):
        archive(store).store(extent, threading.Event())


def test_an_extent_that_lost_records_to_retention_since_it_was_pinned_is_an_alarm() -> None:
    store, log = MemoryStore(), a_log(0, 1, 0)
    first = Writer(store, log, [3])
    for _ in range(3):
        first.step("answered")
    first.step("crash after")  # the pin is there
    assert len(store.keys("_extents/")) == 1
    del log.values[0], log.positions[0]
    with pytest.raises(ArchiveError, match="pinned with 3 messages"):
        store_all(store, log, lengths=[9])
    assert store.keys("orders/") == []


def test_a_done_mark_that_speaks_of_other_rows_is_an_alarm() -> None:
    store, log = MemoryStore(), a_log(0, 1)
    writer = Writer(store, log, [2])
    for _ in range(6):
        writer.step("answered")  # up to the done mark
    other = a_log(0)
    elsewhere = MemoryStore()
    store_all(elsewhere, other, lengths=[1])
    key = f"_extents/{STREAM}/0/origin.done"
    store.objects[key] = elsewhere.objects[key]
    writer.step("answered")
    while writer.alive:
        writer.step("answered")
    assert isinstance(writer.fault, ArchiveError)
    assert "other rows" in str(writer.fault)


@pytest.mark.parametrize(
    ("told", "agreed"),
    [
        pytest.param({"rejected_at": ["00000000000000000007"]}, True, id="the same"),
        pytest.param({"rejected_at": None}, True, id="null"),
        pytest.param({}, True, id="a mark of before"),
        pytest.param({"rejected_at": ["00000000000000000005"]}, False, id="another"),
    ],
)
def test_writers_of_one_extent_agree_on_the_messages_that_are_malformed(told: dict[str, Any], agreed: bool) -> None:
    store, log = MemoryStore(), a_log(0, None)
    writer = Writer(store, log, [2])
    for _ in range(5):
        writer.step("answered")  # up to the done mark
    key = f"_extents/{STREAM}/0/origin.done"
    assert key not in store.objects
    elsewhere = MemoryStore()
    store_all(elsewhere, log, lengths=[2])
    mark = json.loads(elsewhere.objects[key][0])
    del mark["rejected_at"]
    store.overwrite(key, json.dumps(mark | told).encode())
    while writer.alive:
        writer.step("answered")
    assert isinstance(writer.fault, ArchiveError) is not agreed


def test_a_pin_that_is_gone_again_is_an_alarm() -> None:
    store, log = MemoryStore(), a_log(0, 1)
    store_all(store, a_log(0), lengths=[1])
    late = Writer(store, log, [2])
    while late.asked[-1] != "create pin":
        late.step("answered")
    store.create(f"_extents/{STREAM}/0/{log.positions[0]:020d}.json", b"of somebody who was faster")
    late.step("answered")
    store.objects.clear()  # what nobody may do
    while late.alive:
        late.step("answered")
    assert isinstance(late.fault, ArchiveError)
    assert "was there and is gone" in str(late.fault)


def test_who_lost_his_partition_writes_no_further_object() -> None:
    log, abandoned = a_log(0, 1, 2), threading.Event()

    class Losing(MemoryStore):
        """The partition goes to another while the first object is written."""

        def create(self, key: str, body: bytes, metadata: Mapping[str, str] | None = None) -> bool:
            if key.endswith(".parquet"):
                abandoned.set()
            return super().create(key, body, metadata)

    store = Losing()
    extent = extent_of(None, log.positions[-1], log.values, log.positions)
    with pytest.raises(AbandonedError, match="belongs to another by now"):
        archive(store).store(extent, abandoned)
    assert (len(store.keys("orders/")), chain_of(store)) == (1, [])


def test_an_extent_begun_with_other_columns_is_refused() -> None:
    store, log = MemoryStore(), a_log(0)
    store_all(store, log, lengths=[1])
    pin = f"_extents/{STREAM}/0/origin.json"
    body = store.objects[pin][0].replace(b'"schema":1', b'"schema":0')
    fresh = MemoryStore()
    fresh.objects[pin] = (body, {})
    with pytest.raises(ArchiveError, match="version 0"):
        store_all(fresh, log, lengths=[1])


def test_a_mark_that_is_no_mark_is_an_alarm() -> None:
    store, log = MemoryStore(), a_log(0)
    store.overwrite(f"_extents/{STREAM}/0/origin.json", b"not ours")
    with pytest.raises(ArchiveError, match="can't be understood"):
        store_all(store, log, lengths=[1])
