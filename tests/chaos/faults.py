"""What happens to the processor. Each fault is a generator: what it does before a ``yield`` is the fault; there it
waits until the shop has recovered and was judged; what follows undoes it, or is the next part.

A ``yield`` gives a `Step`: what it is called in the report, and how the processor may have ended for it.
"""

import json
import random
import re
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from confluent_kafka import Producer

from chaos import servers
from chaos.world import BROKER_SECONDS, END_SECONDS, Ending, UnexpectedError, World
from sales.times import format_time

FAKETIME = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)
"""Debian's package faketime; the library for programs with threads."""

AS_OF_SECONDS = 60.0
FLUSH_SECONDS = 60.0
BACKLOG = 20_000
"""Orders that one partition is behind the others."""
FEW = 500
OLDEST_MS = 6 * 3_600_000
MOST_PARTITIONS = 9


@dataclass(frozen=True)
class Ends:
    """A way to end."""

    code: int
    words: str = ""
    """a regular expression for its last line"""

    def fits(self, ending: Ending) -> bool:
        """Is it this way?"""
        return ending.code == self.code and bool(re.search(self.words, ending.lines[-1] if ending.lines else ""))


@dataclass(frozen=True)
class Step:
    """A fault has ended."""

    name: str
    ends: tuple[Ends, ...] = ()
    """how the processor may have ended; it must have, if there is one"""
    since: float | None = None
    """when recovery began, monotonic; None: now"""


Strike = Callable[[World, random.Random], Iterator[Step]]

KILLED = Ends(-signal.SIGKILL)
IN_ORDER = Ends(0, "stopped in order")
FENCED = Ends(1, "another processor writes sales:status")
FULL = Ends(1, "No space left on device|database or disk is full")
CLOCK_BACK = Ends(1, "the clock on the wall went back")
CLOCK_AHEAD = Ends(1, "the clock on the wall went ahead")


def kill(world: World, _: random.Random) -> Iterator[Step]:
    """Signal 9, at any moment."""
    world.processor.signal(signal.SIGKILL)
    world.until_ended()
    yield Step("kill -9", (KILLED,))


def kill_twice(world: World, dice: random.Random) -> Iterator[Step]:
    """Signal 9, and again while it comes back."""
    world.processor.signal(signal.SIGKILL)
    world.until_ended()
    world.until(lambda: world.processor.child is not None, END_SECONDS, "started again")
    world.let_pass(dice.uniform(0, 2))
    world.processor.signal(signal.SIGKILL)
    world.until_ended(2)
    yield Step("kill -9 while it starts", (KILLED,))


def stop(world: World, _: random.Random) -> Iterator[Step]:
    """SIGTERM: a final snapshot, exit code 0, and then exactly what is new."""
    began = time.monotonic()
    with world.down(signal.SIGTERM):
        at = world.answer(world.positions, END_SECONDS, "answered by Redis")
    yield Step("SIGTERM", (IN_ORDER,), since=began)
    with world.no_generator():
        world.until_fresh(END_SECONDS)
        read = world.answer(world.decoded, END_SECONDS, "told what was read")
        new = sum(end - at.get(number, -1) for number, end in world.ends().items())
    if read != new:
        raise UnexpectedError(f"after a stop in order {read} messages were read, and {new} were new")


def freeze(seconds: float) -> Strike:
    """SIGSTOP for so long, then SIGCONT: nobody took over, so it goes on."""

    def strike(world: World, _: random.Random) -> Iterator[Step]:
        world.processor.signal(signal.SIGSTOP)
        world.let_pass(seconds)
        world.processor.signal(signal.SIGCONT)
        yield Step("SIGSTOP, SIGCONT")

    return strike


def take_over(seconds: float) -> Strike:
    """SIGSTOP; another processor, which may not have the same directory, takes over with its own; after SIGCONT the
    first one's writes are refused."""

    def strike(world: World, _: random.Random) -> Iterator[Step]:
        world.processor.signal(signal.SIGSTOP)
        resumes = time.monotonic() + seconds
        _is_refused(world)
        world.homes += 1
        began = time.monotonic()
        zombie = world.processor.let_go()
        yield Step("SIGSTOP, another takes over", since=began)
        world.let_pass(resumes - time.monotonic())
        zombie.signal(signal.SIGCONT)
        ending = world.await_end(zombie)
        if not FENCED.fits(ending):
            raise UnexpectedError(f"the zombie was not refused: {ending}")
        yield Step("the zombie writes")

    return strike


def second(world: World, _: random.Random) -> Iterator[Step]:
    """Another processor on the same directory."""
    _is_refused(world)
    yield Step("second processor on the directory")


def _is_refused(world: World) -> None:
    ending = world.await_end(world.launch(world.home, log="refused"))
    if not Ends(1, "another processor is using RECOVERY_DIR").fits(ending):
        raise UnexpectedError(f"a second processor on the directory was not refused: {ending}")


def flush(world: World, _: random.Random) -> Iterator[Step]:
    """FLUSHALL, the token too."""
    world.redis.flushall()
    yield Step("Redis FLUSHALL")


def flush_and_kill(world: World, _: random.Random) -> Iterator[Step]:
    """FLUSHALL, and the processor dies before it has noticed: the next one finds nothing of what was shown."""
    with world.down(signal.SIGKILL):
        world.redis.flushall()
    yield Step("Redis FLUSHALL and kill -9", (KILLED,))


def store_restarts(world: World, dice: random.Random) -> Iterator[Step]:
    """Redis dies and comes back empty."""
    world.store.kill()
    world.let_pass(dice.uniform(0, 4))
    world.store.start()
    yield Step("Redis restarted, empty")


def store_freezes(world: World, dice: random.Random) -> Iterator[Step]:
    """Redis answers nobody for longer than its clients wait."""
    world.store.signal(signal.SIGSTOP)
    world.let_pass(dice.uniform(6, 9))
    world.store.signal(signal.SIGCONT)
    yield Step("Redis frozen")


def read_only(world: World, dice: random.Random) -> Iterator[Step]:
    """Redis becomes a replica for a while, as in a failover that went wrong."""
    with servers.ReadOnly(world.redis):
        world.let_pass(dice.uniform(0.5, 4))
    yield Step("Redis read-only")


def read_only_and_stop(world: World, dice: random.Random) -> Iterator[Step]:
    """Asked to stop while Redis takes nothing, the processor says so; and does not start before it does."""
    with servers.ReadOnly(world.redis):
        world.let_pass(dice.uniform(0.5, 2))
        world.processor.signal(signal.SIGTERM)
        world.until_ended()
    yield Step("Redis read-only, SIGTERM", (Ends(1, "read only replica"),))


def broker_stops(world: World, dice: random.Random) -> Iterator[Step]:
    """The broker stops in order and comes back."""
    world.broker.stop()
    yield _comes_back(world, dice, "broker restarted")


def broker_dies(world: World, dice: random.Random) -> Iterator[Step]:
    """The broker is killed and comes back."""
    world.broker.kill()
    yield _comes_back(world, dice, "broker kill -9")


def _comes_back(world: World, dice: random.Random, name: str) -> Step:
    """The broker is back when it has taken an order: that it answers is not enough, and how long a producer needs after
    that is the producer's."""
    world.let_pass(dice.uniform(0, 4))
    world.broker.start()
    before = world.ends()
    world.until(lambda: world.orders.ends() != before, BROKER_SECONDS, "in the stream: a new order")
    return Step(name)


def full(world: World, dice: random.Random) -> Iterator[Step]:
    """The recovery directory's disk has no page left; then there is room again."""
    world.disk.fill()
    try:
        world.until_ended()
        world.let_pass(dice.uniform(0, 4))
    finally:
        world.disk.make_room()
    yield Step("disk full", (FULL,))


def behind(world: World, dice: random.Random) -> Iterator[Step]:
    """One partition is thousands of orders, some hours old, behind the others."""
    began = time.monotonic()
    with world.down(signal.SIGKILL):
        _burst(world, dice, BACKLOG)
    yield Step("one partition far behind", (KILLED,), since=began)


def idle(world: World, dice: random.Random) -> Iterator[Step]:
    """Only one partition has anything new."""
    with world.no_generator():
        _burst(world, dice, FEW)
        yield Step("all partitions but one idle")


def grow(world: World, _: random.Random) -> Iterator[Step]:
    """The topic gets a partition more. The shop is closed meanwhile: repetitions of one order on two sides of the
    change are outside the contract."""
    with world.no_generator():
        new = servers.add_partition(world.broker.address, world.orders.name) - 1
    world.until(lambda: world.orders.ends().get(new, -1) >= 0, END_SECONDS, f"in partition {new}: an order")
    yield Step("new partition")


def clock_ahead(world: World, _: random.Random) -> Iterator[Step]:
    """The processor's clock goes an hour ahead, and back. When that comes while the engine computes how long to sleep,
    it ends the processor, and the clock is right again before the next start: the Kafka client does not start under a
    libfaketime that is ahead or behind. What was shown an hour ahead stays: as_of waits. So in the end the board and
    the directory are thrown away, and all is rebuilt from the stream."""
    with _clock(world) as set_to:
        yield Step("restart under a clock that can be set", (IN_ORDER,))
        with world.processor.held():
            set_to(3600)
            slept = not _goes_on(world, format_time(round(time.time() * 1000) + 3_590_000))
            if slept:
                set_to(0)
        if slept:
            shown = _as_of(world)
            yield Step("clock an hour ahead, at the wrong moment", (CLOCK_AHEAD,))
        else:
            yield Step("clock an hour ahead")
            shown = _as_of(world)
            set_to(0)
            world.until_ended()
            yield Step("clock an hour back, from ahead", (CLOCK_BACK,))
        _waits(world, shown)
    with world.down(signal.SIGTERM):
        world.homes += 1
        world.redis.flushall()
    yield Step("board and directory thrown away", (IN_ORDER,))


def _goes_on(world: World, ahead: str) -> bool:
    """Whether the processor shows numbers as of then, and what came by then; False: it has ended."""

    def until(reached: Callable[[], bool], what: str) -> bool:
        world.until(lambda: bool(world.processor.endings) or reached(), AS_OF_SECONDS, what)
        return not world.processor.endings

    if not until(lambda: world.as_of() >= ahead, f"as of {ahead}"):
        return False
    ends = world.ends()
    return until(lambda: world.covers(ends), f"on the board: {ends}")


def clock_back(world: World, _: random.Random) -> Iterator[Step]:
    """The processor's clock goes an hour back, and is right again before the next start, as in `clock_ahead`, of which
    a start behind what was shown is a part."""
    with _clock(world) as set_to:
        yield Step("restart under a clock that can be set", (IN_ORDER,))
        shown = _as_of(world)
        with world.processor.held():
            set_to(-3600)
            world.until_ended()
            set_to(0)
        yield Step("clock an hour back", (CLOCK_BACK,))
        _waits(world, shown)
    with world.down(signal.SIGTERM):
        pass
    yield Step("SIGTERM", (IN_ORDER,))


def _waits(world: World, shown: str) -> None:
    now = _as_of(world)
    if now < shown:
        raise UnexpectedError(f"as_of went back from {shown} to {now}")


def _as_of(world: World) -> str:
    return world.answer(world.as_of, END_SECONDS, "answered by Redis")


@contextmanager
def _clock(world: World) -> Iterator[Callable[[int], None]]:
    """Inside, the processor runs under a clock that can be set to some seconds ahead, by libfaketime; what measures
    durations it leaves alone."""
    file = world.folder / "clock"

    def set_to(seconds: int) -> None:
        fresh = file.with_suffix(".new")
        fresh.write_text(f"{seconds:+d}")
        fresh.replace(file)

    set_to(0)
    given = {
        "LD_PRELOAD": str(FAKETIME),
        "FAKETIME_TIMESTAMP_FILE": str(file),
        "FAKETIME_CACHE_DURATION": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    usual = world.processor.start_as(lambda: world.launch(world.home, **given))
    with world.down(signal.SIGTERM):
        pass
    try:
        yield set_to
    finally:
        world.processor.start_as(usual)


def _burst(world: World, dice: random.Random, count: int) -> None:
    """Orders into one partition alone, placed within the last hours."""
    partition = dice.choice(sorted(world.ends()))
    producer = Producer({"bootstrap.servers": world.broker.address, "log_level": 0})
    now, name = round(time.time() * 1000), f"burst-{dice.getrandbits(64):016x}"
    for number in range(count):
        key = f"{name}-{number}"
        order = {
            "schema": 1,
            "type": "sale",
            "order_id": key,
            "event_time": format_time(now - dice.randrange(OLDEST_MS)),
            "country": dice.choice(("GB", "DE", "US", "JP")),
            "currency": "USD",
            "lines": [{"product_id": f"burst-{number % 50}", "quantity": 1, "unit_amount": dice.randrange(5000)}],
        }
        producer.produce(world.orders.name, json.dumps(order).encode(), key.encode(), partition)
        producer.poll(0)
    left = producer.flush(FLUSH_SECONDS)
    assert not left, f"{left} orders were not taken"


@dataclass(frozen=True)
class Fault:
    """One kind of fault."""

    name: str
    strike: Strike
    weight: int
    """how often it is drawn, against the others"""


def kinds(pause_seconds: float) -> tuple[Fault, ...]:
    """All there are.

    Args:
        pause_seconds: how long SIGSTOP lasts: longer than every timeout, in a run that has the time.
    """
    return (
        Fault("kill", kill, 40),
        Fault("kill-twice", kill_twice, 10),
        Fault("stop", stop, 30),
        Fault("freeze", freeze(pause_seconds), 2),
        Fault("take-over", take_over(pause_seconds), 3),
        Fault("second", second, 12),
        Fault("flush", flush, 16),
        Fault("flush-and-kill", flush_and_kill, 10),
        Fault("store-restarts", store_restarts, 14),
        Fault("store-freezes", store_freezes, 5),
        Fault("read-only", read_only, 10),
        Fault("read-only-and-stop", read_only_and_stop, 6),
        Fault("broker-stops", broker_stops, 8),
        Fault("broker-dies", broker_dies, 8),
        Fault("full", full, 12),
        Fault("behind", behind, 5),
        Fault("idle", idle, 4),
        Fault("grow", grow, 3),
        Fault("clock-ahead", clock_ahead, 2),
        Fault("clock-back", clock_back, 2),
    )


def refusal(fault: Fault, world: World) -> str | None:
    """Why this machine, or this world by now, can't have that fault; None: it can."""
    if fault.strike is full and world.disk.refusal:
        return f"no disk that can be full: {world.disk.refusal}"
    if fault.strike in (clock_ahead, clock_back) and FAKETIME is None:
        return "libfaketime is not installed (Debian: apt-get install faketime)"
    if fault.strike is grow and len(world.ends()) >= MOST_PARTITIONS:
        return f"the topic has {MOST_PARTITIONS} partitions by now"
    return None
