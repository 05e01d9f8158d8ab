"""A shop on this machine: a broker, a Redis, a generator with everything in it that goes wrong with orders, and a
processor that is started again whenever it ends, as a container's runtime would."""

import os
import signal
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import redis

from chaos import servers
from chaos.disk import Disk
from chaos.topics import Topic, TopicError
from sales.board import BoardReader, Keys, LiveNumbers
from sales.countries import REGION_OF
from sales.settings import AwsSettings, StreamSettings
from sales.streams.connect import connect
from support.ports import lasting_ports
from tillstream import interrupts
from tillstream.local.nursery import Child, Nursery

LOOK_SECONDS = 0.02
"""Between two looks at something that has to come; every wait has a bound of its own."""
BROKER_SECONDS = 180.0
"""After kill -9 the broker is let in again when its session has run out (9 s); its clients try again, with pauses."""
END_SECONDS = 60.0
"""A processor that has to end does so within seconds."""
SETTLED_SECONDS = 5.0
RESTART_SECONDS = 1.0
"""Who ended within SETTLED_SECONDS of its start is started again after a pause, else at once."""
REDIS_SECONDS = 2.0

MIX = {
    "LATE": "0.02",
    "OUT_OF_ORDER": "0.1",
    "DUPLICATES": "0.05",
    "CONFLICTS": "0.02",
    "MALFORMED": "0.03",
    "FUTURE": "0.01",
    "UNKNOWN_CURRENCY": "0.01",
}
PARTITIONS = 4
RETENTION_HOURS = 72
WINDOWS = ("1m", "5m", "15m", "1h", "24h")
PREFIX = "sales:"

T = TypeVar("T")


class NotInTimeError(Exception):
    """Something that had to come did not; with what the processor wrote last."""


class UnexpectedError(Exception):
    """Something happened that must not."""


@dataclass(frozen=True)
class Ending:
    """How a process ended."""

    code: int
    lines: tuple[str, ...]
    """its last ones"""

    def __str__(self) -> str:
        return f"exit code {self.code}: {self.lines[-1] if self.lines else 'without a word'}"


class Service:
    """A process that is started again whenever it ends."""

    def __init__(self, launch: Callable[[], Child]) -> None:
        self._launch = launch
        self.child: Child | None = None
        self.endings: list[Ending] = []
        self._started = 0.0
        self._start_at = 0.0
        self._held = False

    def tend(self) -> None:
        """To be called again and again: notes an end, and starts it where it should run."""
        now = time.monotonic()
        if self.child is not None and (code := self.child.exit_code()) is not None:
            self.endings.append(Ending(code, tuple(self.child.last_lines(6))))
            self.child = None
            self._start_at = now + (RESTART_SECONDS if now < self._started + SETTLED_SECONDS else 0)
        if self.child is None and now >= self._start_at and not self._held:
            self.child = self._launch()
            self._started = now

    def signal(self, number: signal.Signals) -> None:
        """To its process, which must run."""
        assert self.child is not None
        self.child.signal(number)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Inside, it is not started again."""
        self._held = True
        try:
            yield
        finally:
            self._held = False

    def let_go(self) -> Child:
        """Tends its process no longer, and starts another; the one that was let go."""
        assert self.child is not None
        before, self.child, self._start_at = self.child, None, 0.0
        return before

    def start_as(self, launch: Callable[[], Child]) -> Callable[[], Child]:
        """How it is started from the next time on; how it was until now."""
        before, self._launch = self._launch, launch
        return before


class World:
    """The shop. One thread; whatever waits here tends the services meanwhile."""

    def __init__(self, nursery: Nursery, *, rate: str, seed: int) -> None:
        """Starts everything.

        Args:
            nursery: ends it all.
            rate: of good orders, as the generator takes it.
            seed: of the first generator; each later one has another.
        """
        self.nursery = nursery
        self.folder = nursery.folder("chaos")
        self._rate, self._seed = rate, seed
        self.disk = Disk(self.folder / "disk")
        try:
            self.broker = servers.broker(nursery, self.folder / "topics")
            self.store = servers.store(nursery)
            self.stream_id = self._create_topics()
        except BaseException:
            self.disk.close()  # a mount does not go with the nursery
            raise
        self.orders = Topic(self.broker.address, "orders")
        self.redis: Any = redis.Redis.from_url(
            self.store.address, socket_timeout=REDIS_SECONDS, socket_connect_timeout=REDIS_SECONDS
        )
        self.keys = Keys(PREFIX)
        self._reader = BoardReader(self.redis, self.keys, WINDOWS)
        self.homes = 0
        """recovery directories so far; the last one is in use"""
        self._metrics: dict[Path, int] = {}
        self.processor = Service(lambda: self.launch(self.home))
        self.generator: Service | None = Service(self._launch_generator)

    @property
    def home(self) -> Path:
        """The recovery directory in use."""
        return self.disk.folder / f"recovery-{self.homes}"

    # ------------------------------------------------------------------------------------------------------ processes

    def launch(self, home: Path, *, log: str = "", **environment: str) -> Child:
        """A processor on a recovery directory, with a log by the name of that or another."""
        if home not in self._metrics:
            [self._metrics[home]] = lasting_ports()
        given = {
            "RECOVERY_DIR": str(home),
            "REDIS_URL": self.store.address,
            "METRICS_PORT": str(self._metrics[home]),
            **environment,
        }
        return self.spawn(
            "processor", [sys.executable, "-m", "processor"], log=log or f"processor-{home.name}", **given
        )

    def _launch_generator(self) -> Child:
        self._seed += 1
        return self.spawn(
            "generator", [sys.executable, "-m", "generator"], **MIX, RATE=self._rate, SEED=str(self._seed)
        )

    def spawn(self, name: str, command: Sequence[str], *, log: str = "", **environment: str) -> Child:
        """A process that knows where the topics are, with a log by its name or another."""
        given = {
            **os.environ,
            "STREAM": "kafka",
            "KAFKA_BOOTSTRAP_SERVERS": self.broker.address,
            "PARTITIONS": str(PARTITIONS),
            **environment,
        }
        return self.nursery.spawn(name, command, log=self.folder / f"{log or name}.log", env=given)

    @contextmanager
    def no_generator(self) -> Iterator[None]:
        """Inside, nobody buys; after it a shop with another seed opens."""
        assert self.generator is not None
        service, self.generator = self.generator, None
        assert service.child is None or service.child.stop(END_SECONDS) is not None
        yield
        self.generator = service

    def tend(self) -> None:
        """Starts what has ended.

        Raises:
            Interrupted: somebody wants this process to stop.
        """
        interrupts.check()
        self.processor.tend()
        if self.generator is not None:
            self.generator.tend()

    # --------------------------------------------------------------------------------------------------------- waiting

    def until(self, condition: Callable[[], bool], seconds: float, what: str) -> None:
        """Waits for a condition; a Redis or a broker that is away means: not yet.

        Raises:
            NotInTimeError: it does not come.
        """
        deadline = time.monotonic() + seconds
        while True:
            self.tend()
            try:
                if condition():
                    return
            except (redis.RedisError, TopicError, OSError):
                pass
            if time.monotonic() > deadline:
                raise NotInTimeError("\n".join([f"after {seconds:g} s not {what}", *self._last_words()]))
            time.sleep(LOOK_SECONDS)

    def let_pass(self, seconds: float) -> None:
        """Time that is itself the fault, or the random moment before it; nothing is waited for."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self.tend()
            time.sleep(min(left, LOOK_SECONDS))

    def until_ended(self, count: int = 1) -> None:
        """Waits until the processor has ended so often since it was last judged.

        Raises:
            NotInTimeError: it does not end.
        """
        self.until(lambda: len(self.processor.endings) >= count, END_SECONDS, "ended")

    @contextmanager
    def down(self, number: signal.Signals) -> Iterator[None]:
        """The processor is ended by a signal, and started again after the block."""
        with self.processor.held():
            self.processor.signal(number)
            self.until_ended()
            yield

    def await_end(self, child: Child) -> Ending:
        """How a process ends that nobody starts again.

        Raises:
            NotInTimeError: it does not.
        """
        self.until(lambda: child.exit_code() is not None, END_SECONDS, f"ended: {child.name}, which has to")
        code = child.exit_code()
        assert code is not None
        return Ending(code, tuple(child.last_lines(6)))

    def until_fresh(self, seconds: float) -> None:
        """Waits for a new tick that covers all that is in the stream now.

        Raises:
            NotInTimeError: it does not come.
        """
        ends, before = self.ends(), self.answer(self._tick, seconds, "answered by Redis")
        self.until(lambda: self._tick() != before and self.covers(ends), seconds, f"on the board: {ends}")

    def ends(self) -> dict[int, int]:
        """Partition to its last offset, as soon as the broker tells: one that has just started does not at once.

        Raises:
            NotInTimeError: it never does.
        """
        return self.answer(self.orders.ends, BROKER_SECONDS, "told where the stream ends")

    def answer(self, question: Callable[[], T], seconds: float, what: str) -> T:
        """The answer to a question, once whoever is asked is there.

        Raises:
            NotInTimeError: it does not come.
        """
        answers: list[T] = []

        def ask() -> bool:
            answers.append(question())
            return True

        self.until(ask, seconds, what)
        return answers[0]

    def _tick(self) -> bytes | None:
        """Differs from one tick to the next."""
        found: bytes | None = self.redis.hget(self.keys.status, "published_at")
        return found

    def covers(self, ends: dict[int, int]) -> bool:
        """Does the board show everything up to these offsets?"""
        shown = self.positions()
        return all(shown.get(number, -1) >= end for number, end in ends.items())

    # --------------------------------------------------------------------------------------------------------- looking

    def positions(self) -> dict[int, int]:
        """Partition to the last offset on the board."""
        found = self.redis.hgetall(self.keys.positions)
        return {int(path.decode().rpartition("/")[2]): int(position) for path, position in found.items()}

    def as_of(self) -> str:
        """What the board speaks of; RFC 3339."""
        return str((self.redis.hget(self.keys.status, "as_of") or b"").decode())

    def board(self) -> LiveNumbers:
        """One tick, whole."""
        return self._reader.read(regions=sorted(set(REGION_OF.values())))

    def decoded(self) -> int:
        """Messages that the running processor has read since its start."""
        url = f"http://127.0.0.1:{self._metrics[self.home]}/metrics"
        with urllib.request.urlopen(url, timeout=REDIS_SECONDS) as answer:
            lines = answer.read().decode().splitlines()
        return sum(
            int(float(line.split()[-1])) for line in lines if line.startswith("tillstream_processor_messages_total")
        )

    def _last_words(self) -> list[str]:
        children = [service.child for service in (self.processor, self.generator) if service and service.child]
        said = [f"{child.name}: {line}" for child in children for line in child.last_lines(12)]
        return [*map(str, self.processor.endings[-3:]), *said]

    def _create_topics(self) -> str:
        """The id of the orders' stream."""
        wire = connect(StreamSettings(stream="kafka", kafka_bootstrap_servers=self.broker.address), AwsSettings())
        for name in ("orders", "sales-rollups", "orders-dead-letters"):
            wire.create(name, partitions=PARTITIONS, retention_hours=RETENTION_HOURS)
        stream_id = wire.open("orders").id
        wire.close()
        return stream_id

    def close(self) -> None:
        """Stops the services and lets the disk go; the servers go with the nursery."""
        for service in (self.generator, self.processor):
            if service is not None and service.child is not None:
                service.child.stop(END_SECONDS)
        self.disk.close()
        self.orders.close()
        self.redis.close()
