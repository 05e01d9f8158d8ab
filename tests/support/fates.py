"""Processes that stand still at each thing they ask of the world, until the test says what becomes of it.

So every arrow of a protocol can be the last one, several processes can be anywhere in it at one time, and a schedule
can be repeated.
"""

import io
import queue
import threading
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal

import pyarrow.parquet as pq

from sales.streams import AwayError
from sink import extents
from sink.extents import Done
from sink.store import ObjectFacts
from support.sinking import EVENT_TIME, HOUR_MS, STREAM, MemoryStore, an_order

STEP_SECONDS = 30
"""A step takes milliseconds; a hang is longer."""

Fate = Literal["answered", "lost request", "lost answer", "crash before", "crash after"]
FAULTS: tuple[Fate, ...] = ("lost request", "lost answer", "crash before", "crash after")


class CrashError(BaseException):
    """The process ends here."""


class Fated(ABC):
    """A process: runs on a thread of its own, up to the next thing it asks for, or its end."""

    def __init__(self) -> None:
        self.alive = True
        self.crashed = False
        self.fault: BaseException | None = None
        self.asked: list[str] = []
        """what for, the last of which waits"""
        self._fates: queue.Queue[Fate] = queue.Queue()
        self._events: queue.Queue[str] = queue.Queue()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        self._await()

    @abstractmethod
    def live(self) -> None:
        """What it does; on its own thread."""

    def ask(self, what: str) -> Fate:
        """From its own thread: waits for the fate of what it is about to do."""
        if self.crashed:
            raise CrashError  # what else the same process was doing
        self.asked.append(what)
        self._events.put("asks")
        fate = self._fates.get(timeout=STEP_SECONDS)
        self.crashed = fate.startswith("crash")
        if fate == "crash before":
            raise CrashError
        return fate

    def step(self, fate: Fate) -> None:
        """Decides on what waits, and lets it run up to the next."""
        self._fates.put(fate)
        self._await()

    def _await(self) -> None:
        if self._events.get(timeout=STEP_SECONDS) == "ends":
            self._thread.join(STEP_SECONDS)
            self.alive = False

    def _run(self) -> None:
        try:
            self.live()
        except BaseException as error:  # noqa: BLE001 (the test's thread looks at it)
            self.fault = error
        self._events.put("ends")


class GatedStore(MemoryStore):
    """One process's connection to the shared store: every request waits for its fate."""

    def __init__(self, shared: MemoryStore, process: Fated) -> None:
        super().__init__()
        self._shared = shared
        self._process = process

    def _request(self, what: str, act: Any) -> Any:
        fate = self._process.ask(what)
        if fate == "lost request":
            raise AwayError("no answer")
        result = act()
        if fate == "crash after":
            raise CrashError
        if fate == "lost answer":
            raise AwayError("no answer")
        return result

    def create(self, key: str, body: bytes, metadata: Mapping[str, str] | None = None) -> bool:
        return bool(self._request(f"create {kind_of(key)}", lambda: self._shared.create(key, body, metadata)))

    def overwrite(self, key: str, body: bytes) -> None:
        self._request(f"overwrite {kind_of(key)}", lambda: self._shared.overwrite(key, body))

    def read(self, key: str) -> bytes | None:
        body: bytes | None = self._request(f"read {kind_of(key)}", lambda: self._shared.read(key))
        return body

    def facts(self, key: str) -> ObjectFacts | None:
        facts: ObjectFacts | None = self._request(f"facts {kind_of(key)}", lambda: self._shared.facts(key))
        return facts


def kind_of(key: str) -> str:
    """``pin``, ``done``, ``head`` or ``object``."""
    return {"json": "pin", "done": "done", "parquet": "object"}.get(key.rpartition(".")[2], "head")


@dataclass
class Log:
    """One partition, longer with every append; positions have gaps."""

    values: list[bytes] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    malformed: set[int] = field(default_factory=set)

    def append(self, hour: int | None) -> None:
        """An order of that hour; None: something malformed."""
        position = self.positions[-1] + 1 + len(self.positions) % 3 if self.positions else 5
        self.positions.append(position)
        if hour is None:
            self.malformed.add(position)
            self.values.append(b"{")
        else:
            self.values.append(an_order(f"o-{position}", event_time=EVENT_TIME - hour * HOUR_MS))

    def between(self, after: int | None, end: int | None, limit: int | None = None) -> tuple[list[bytes], list[int]]:
        places = [
            place
            for place, position in enumerate(self.positions)
            if (after is None or position > after) and (end is None or position <= end)
        ][:limit]
        return [self.values[place] for place in places], [self.positions[place] for place in places]

    def good(self) -> list[int]:
        """Positions of orders."""
        return [position for position in self.positions if position not in self.malformed]


def a_log(*hours: int | None) -> Log:
    log = Log()
    for hour in hours:
        log.append(hour)
    return log


def stored_positions(store: MemoryStore) -> Counter[int]:
    """How many objects hold each position."""
    return Counter(position for key in store.keys("orders/") for position in positions_in(store.objects[key][0]))


@lru_cache(maxsize=1_000)
def positions_in(body: bytes) -> list[int]:
    """An object's positions; these orders have one line each."""
    return [int(position) for position in pq.read_table(io.BytesIO(body), columns=["position"])["position"].to_pylist()]


def chain_of(store: MemoryStore) -> list[Done]:
    """The done marks from the origin on."""
    chain: list[Done] = []
    name = "origin"
    while (body := store.read(f"_extents/{STREAM}/0/{name}.done")) is not None:
        chain.append(extents.decode(body, Done))
        name = chain[-1].end
    return chain
