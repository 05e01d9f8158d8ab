"""A group of sinks, each the real ``Delivery`` over the real ``Archive``: every position is stored exactly once, and
nothing is committed before, wherever any of them is lost, frozen, fenced or told to stop.

Each process stands still at every poll, every request to the store and every commit, until its fate is known::

    poll ─▶ claim: head, done, pin? ─▶ poll … ─▶ pin ─▶ object ─▶ … ─▶ done ─▶ head ─▶ commit ─▶ poll …

A process that stands still while the group gives its partition to another is a zombie as soon as it goes on.
"""

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from sales.countries import REGION_OF
from sales.streams import Checkpoints, StreamError
from sales.streams.memory import MemoryCheckpoints
from sales.streams.packed import Packed, pack
from sink.archive import Archive
from sink.delivery import Delivery, Limits
from sink.orders import orders_layout
from support.fates import FAULTS, CrashError, Fate, Fated, GatedStore, Log, a_log, chain_of, stored_positions
from support.sinking import RULES, STREAM, Inline, MemoryStore, a_chunk

DIGITS = 20
LAYOUT = orders_layout(RULES, REGION_OF, STREAM, DIGITS)
PARTITION = "0"

MOST_STEPS = 2_000
"""Within so many, with every answer given, a process comes to the end of the log: some tens for each extent."""


@pytest.fixture(autouse=True, scope="module")
def jobs_run_on_the_process_s_own_thread() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sink.delivery.ThreadPoolExecutor", lambda *_, **__: Inline())
        yield


class Group:
    """What the broker knows: who owns the partition, and how far it was committed."""

    def __init__(self) -> None:
        self.owner: Process | None = None
        self.committed: int | None = None

    def commit(self, process: "Process", position: int) -> bool:
        """False: it belongs to another by now."""
        if self.owner is not process:
            return False
        assert self.committed is None or position >= self.committed, "a commit went back"
        self.committed = position
        return True


class HandMember:
    """A process's membership of the group, as the port has it."""

    def __init__(
        self,
        process: "Process",
        on_assigned: Callable[[dict[str, int | None]], None],
        on_revoked: Callable[[list[str]], None],
    ) -> None:
        self._process = process
        self._on_assigned = on_assigned
        self._on_revoked = on_revoked
        self._holds = False
        self._revoking = False
        self._paused = False
        self._after: int | None = None
        self._before: int | None = None

    def poll(self, max_records: int, timeout: float) -> list[Packed]:  # noqa: ARG002 (the test moves the clock)
        fate = self._process.ask("poll")
        if fate == "crash after":
            raise CrashError
        self._process.now += 1
        if fate == "answered":  # else nothing is heard of the group, and what was fetched before is given out
            self._hear()
        if not self._holds or self._paused:
            return []
        limit = min(max_records, self._process.next_length())
        if fate == "lost answer":
            self._after = self._before  # the client hands out again what it gave the last time
        values, positions = self._process.log.between(self._after, None, limit)
        if not values:
            return []
        self._before, self._after = self._after, positions[-1]
        return [pack(a_chunk(values, positions=positions))]

    def _hear(self) -> None:
        process, group = self._process, self._process.group
        if self._holds and (group.owner is not process or process.released):
            self._give_up()
            if group.owner is process:
                group.owner = None
            process.released = False
        elif group.owner is process and not self._holds:
            self._holds, self._paused = True, False
            self._before = self._after = group.committed
            self._on_assigned({PARTITION: group.committed})

    def _give_up(self) -> None:
        self._revoking = True
        self._on_revoked([PARTITION])
        self._revoking = self._holds = False

    def commit(self, positions: Mapping[str, int]) -> None:
        fate = self._process.ask("commit")
        taken = fate != "lost request" and self._process.group.commit(self._process, positions[PARTITION])
        if fate == "crash after":
            raise CrashError
        if not self._revoking and (fate != "answered" or not taken):  # inside on_revoked it is only sent
            raise StreamError("not acknowledged")

    def pause(self, partition: str) -> None:  # noqa: ARG002 (there is one)
        self._paused = True

    def resume(self, partition: str) -> None:  # noqa: ARG002
        self._paused = False

    def seek(self, partition: str, after: int | None) -> None:  # noqa: ARG002
        self._before = self._after = after

    def lag(self) -> dict[str, int | None]:
        return {}

    def close(self) -> None:
        if self._process.crashed:
            return
        if self._holds:
            self._give_up()
        if self._process.group.owner is self._process:
            self._process.group.owner = None


class Process(Fated):
    """A sink of one lane: the real loop, until it crashes, fails or is told to stop.

    Args:
        store: what all share.
        log: the partition.
        group: the broker.
        limits: its rotation.
        lengths: how many records its polls bring, in turn.
    """

    def __init__(self, store: MemoryStore, log: Log, group: Group, limits: Limits, lengths: list[int]) -> None:
        self.shared = store
        self.log = log
        self.group = group
        self.now = 0.0
        self.released = False
        """the group wants the partition back, and waits for it"""
        self.stop = threading.Event()
        self._limits = limits
        self._lengths = lengths
        self._store = GatedStore(store, self)
        super().__init__()

    def live(self) -> None:
        lane = Archive("archive-orders", self._store, LAYOUT, stream=STREAM, digits=DIGITS, puts=Inline())
        checkpoints = MemoryCheckpoints()
        stream: Any = self
        Delivery(stream, "sink", checkpoints, lane, self._limits, stop_seconds=5, clock=lambda: self.now).run(self.stop)

    def packed_member(
        self,
        group: str,  # noqa: ARG002 (there is one)
        checkpoints: Checkpoints,  # noqa: ARG002 (the broker keeps them)
        on_assigned: Callable[[dict[str, int | None]], None],
        on_revoked: Callable[[list[str]], None],
    ) -> HandMember:
        """The part of a stream that a delivery uses."""
        return HandMember(self, on_assigned, on_revoked)

    def next_length(self) -> int:
        self._lengths.append(self._lengths.pop(0))
        return self._lengths[-1]


def some_limits(records: int, seconds: float, held: int = 10**9) -> Limits:
    return Limits(rotate_bytes=10**9, rotate_records=records, rotate_seconds=seconds, buffer_bytes=held)


def chain_end(store: MemoryStore) -> int | None:
    chain = chain_of(store)
    return int(chain[-1].end) if chain else None


def check_so_far(store: MemoryStore, group: Group) -> None:
    """What holds at every moment."""
    assert all(count == 1 for count in stored_positions(store).values()), "stored twice"
    chain = chain_of(store)
    objects = set(store.keys("orders/"))
    assert {stored.key for done in chain for stored in done.objects} <= objects, "marked done, and not there"
    end = chain_end(store)
    assert group.committed is None or (end is not None and group.committed <= end), "committed and not stored"


def check_complete(store: MemoryStore, log: Log, group: Group) -> None:
    """What holds when somebody has come to the end."""
    check_so_far(store, group)
    assert stored_positions(store) == Counter(log.good())
    assert sum(done.read for done in chain_of(store)) == len(log.positions)
    assert chain_end(store) == log.positions[-1]


def run_to_the_end(process: Process) -> None:
    """Gives it the partition and every answer, until all is stored; then it stops in order."""
    process.group.owner = process
    for _ in range(MOST_STEPS):
        if chain_end(process.shared) == process.log.positions[-1] and process.asked[-1] == "poll":
            break
        process.step("answered")
        assert process.alive, process.fault
    else:
        raise AssertionError(f"does not come to the end: {process.asked[-40:]}")
    let_stop(process)
    # Who finds all stored has nothing to commit: the last commit of the one before may be lost, and the chain knows.
    if "create done" in process.asked:
        assert process.group.committed == process.log.positions[-1]


def let_stop(process: Process) -> None:
    """Tells it to stop, with every answer given."""
    process.stop.set()
    for _ in range(MOST_STEPS):
        if not process.alive:
            break
        process.step("answered")
    assert not process.alive, f"does not stop: {process.asked[-40:]}"
    if process.fault is not None:
        raise process.fault


def wake_up(zombie: Process) -> None:
    """It goes on where it stands, hears that its partition went to another, and stops in order."""
    polls = zombie.asked.count("poll")
    for _ in range(MOST_STEPS):
        if not zombie.alive or zombie.asked.count("poll") > polls + 1:
            break
        zombie.step("answered")
    if zombie.alive:
        let_stop(zombie)
    elif zombie.fault is not None:
        raise zombie.fault


LIMITS = st.builds(some_limits, st.integers(1, 6), st.sampled_from([0.0, 2.0, 5.0]), st.sampled_from([10_000, 10**9]))
LENGTHS = st.lists(st.integers(1, 5), min_size=1, max_size=4)
HOURS = st.lists(st.one_of(st.none(), st.integers(0, 3)), min_size=1, max_size=8)
WHICH = st.integers(0, 2)


class Groups(RuleBasedStateMachine):
    """Up to three processes at one time: the owner, zombies that do not know it yet, and some that wait."""

    @initialize(hours=HOURS)
    def begin(self, hours: list[int | None]) -> None:
        self.store = MemoryStore()
        self.log = Log()
        self.group = Group()
        self.processes: list[Process] = []
        self.append(hours)

    @rule(hours=HOURS)
    def append(self, hours: list[int | None]) -> None:
        for hour in hours:
            self.log.append(hour)

    @precondition(lambda self: len(self.processes) < 3)
    @rule(limits=LIMITS, lengths=LENGTHS)
    def start(self, limits: Limits, lengths: list[int]) -> None:
        self.processes.append(Process(self.store, self.log, self.group, limits, lengths))
        self.claim(len(self.processes) - 1)

    @precondition(lambda self: self.processes)
    @rule(which=WHICH)
    def claim(self, which: int) -> None:
        """The group gives the partition to this one; who had it may not have heard."""
        self.group.owner = self.processes[which % len(self.processes)]

    @precondition(lambda self: self.group.owner is not None)
    @rule()
    def release(self) -> None:
        """The group asks for the partition back, and waits for it."""
        assert self.group.owner is not None
        self.group.owner.released = True

    @precondition(lambda self: self.processes)
    @rule(which=WHICH, steps=st.integers(1, 30))
    def go_on(self, which: int, steps: int) -> None:
        process = self.processes[which % len(self.processes)]
        for _ in range(steps):
            if process.alive:
                process.step("answered")
        self._sweep()

    @precondition(lambda self: self.processes)
    @rule(which=WHICH, fate=st.sampled_from(FAULTS))
    def go_wrong(self, which: int, fate: Fate) -> None:
        self.processes[which % len(self.processes)].step(fate)
        self._sweep()

    @precondition(lambda self: self.processes)
    @rule(which=WHICH)
    def tell_to_stop(self, which: int) -> None:
        self.processes[which % len(self.processes)].stop.set()

    @invariant()
    def nothing_is_doubled_nor_committed_before_it_is_stored(self) -> None:
        if hasattr(self, "store"):
            check_so_far(self.store, self.group)

    def teardown(self) -> None:
        if not hasattr(self, "store"):
            return
        run_to_the_end(self._another())
        for zombie in self.processes:
            wake_up(zombie)
        check_complete(self.store, self.log, self.group)
        self.append([0, None, 1])
        run_to_the_end(self._another())
        check_complete(self.store, self.log, self.group)

    def _another(self) -> Process:
        return Process(self.store, self.log, self.group, some_limits(3, 1), [4, 1])

    def _sweep(self) -> None:
        for process in self.processes:
            assert process.fault is None or isinstance(process.fault, CrashError), repr(process.fault)
            if not process.alive and self.group.owner is process:
                self.group.owner = None
        self.processes = [process for process in self.processes if process.alive]


Groups.TestCase.settings = settings(
    max_examples=60,
    stateful_step_count=40,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
test_every_position_is_stored_exactly_once_whatever_becomes_of_the_group = Groups.TestCase


def a_first(store: MemoryStore, log: Log, group: Group) -> Process:
    return Process(store, log, group, some_limits(3, 2), [2, 3])


def a_next(store: MemoryStore, log: Log, group: Group) -> Process:
    """Whose extents would end elsewhere."""
    return Process(store, log, group, some_limits(2, 2), [4, 3])


HOURS_OF_A_LOG = (0, 1, None, 0, 1, 2)


def steps_of_one_process() -> list[str]:
    """What a process asks for, in turn, from its first poll to its end in order."""
    process = a_first(MemoryStore(), a_log(*HOURS_OF_A_LOG), Group())
    run_to_the_end(process)
    return process.asked


def test_a_process_asks_for_each_arrow_of_the_protocol() -> None:
    assert set(steps_of_one_process()) == {
        "poll",
        "read head",
        "read done",
        "read pin",
        "create pin",
        "create object",
        "create done",
        "overwrite head",
        "commit",
    }


@pytest.mark.parametrize("fate", FAULTS)
def test_a_fault_at_any_step_is_finished_by_the_next_process(fate: Fate) -> None:
    for step in range(len(steps_of_one_process())):
        store, log, group = MemoryStore(), a_log(*HOURS_OF_A_LOG), Group()
        process = group.owner = a_first(store, log, group)
        for _ in range(step):
            process.step("answered")
        process.step(fate)
        check_so_far(store, group)
        run_to_the_end(a_next(store, log, group))
        if process.alive:
            wake_up(process)
        check_complete(store, log, group)


@pytest.mark.parametrize("fate", ["lost request", "lost answer"])
def test_a_process_goes_on_after_a_fault_at_any_step(fate: Fate) -> None:
    for step in range(len(steps_of_one_process())):
        store, log, group = MemoryStore(), a_log(*HOURS_OF_A_LOG), Group()
        process = group.owner = a_first(store, log, group)
        for _ in range(step):
            process.step("answered")
        process.step(fate)
        for _ in range(20):
            process.step("answered")
            check_so_far(store, group)
        run_to_the_end(process)
        check_complete(store, log, group)


def test_a_zombie_that_wakes_up_at_any_step_changes_nothing() -> None:
    for step in range(len(steps_of_one_process())):
        store, log, group = MemoryStore(), a_log(*HOURS_OF_A_LOG), Group()
        zombie = group.owner = a_first(store, log, group)
        for _ in range(step):
            zombie.step("answered")
        run_to_the_end(a_next(store, log, group))
        before = {key: value for key, value in store.objects.items() if not key.endswith("/head")}
        if zombie.alive:
            wake_up(zombie)
        after = {key: value for key, value in store.objects.items() if not key.endswith("/head")}
        assert after == before
        check_complete(store, log, group)
