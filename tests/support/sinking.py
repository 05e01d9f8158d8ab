"""What the sink's tests share: orders as messages, a store in memory, an executor without threads, waiting."""

import json
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, Future
from typing import Any

from sales.countries import REGION_OF
from sales.rules import Rules
from sales.streams import Chunk
from sales.times import format_time
from sink.store import ObjectFacts

RULES = Rules(currency="USD", countries=REGION_OF.keys())
EVENT_TIME = 1_795_157_553_123
"""2026-11-20T06:52:33.123Z"""
HOUR_MS = 3_600_000
STREAM = "orders-0badcafe"


def a_line(**changes: Any) -> dict[str, Any]:
    line: dict[str, Any] = {
        "product_id": "85123A",
        "product_name": "White hanging heart",
        "category": "Home",
        "quantity": 6,
        "unit_amount": 255,
        "discount_percent": 10,
        "unit_cost": 140,
    }
    return line | changes


def an_order(order_id: str = "o-1", *, event_time: int = EVENT_TIME, **changes: Any) -> bytes:
    order: dict[str, Any] = {
        "schema": 1,
        "type": "sale",
        "order_id": order_id,
        "event_time": format_time(event_time),
        "customer_id": 17850,
        "country": "GB",
        "currency": "USD",
        "lines": [a_line()],
    }
    return json.dumps(order | changes).encode()


def a_chunk(
    values: Sequence[bytes],
    *,
    positions: Sequence[int] | None = None,
    partition: str = "0",
    broker_time: int = EVENT_TIME,
) -> Chunk:
    """Messages with the keys that their order ids ask for."""
    places = list(positions) if positions is not None else [7 + 3 * row for row in range(len(values))]
    return Chunk(partition, [key_of(value) for value in values], list(values), places, [broker_time] * len(values))


def key_of(value: bytes) -> bytes:
    try:
        return str(json.loads(value)["order_id"]).encode()
    except (ValueError, KeyError, TypeError):
        return b"none"


class MemoryStore:
    """A store in memory with the promises of S3 that the archive needs; several threads may use it."""

    address = "a store in memory"

    def __init__(self) -> None:
        self.objects: dict[str, tuple[bytes, dict[str, str]]] = {}
        self._lock = threading.Lock()

    def create(self, key: str, body: bytes, metadata: Mapping[str, str] | None = None) -> bool:
        with self._lock:
            if key in self.objects:
                return False
            self.objects[key] = (body, dict(metadata or {}))
            return True

    def overwrite(self, key: str, body: bytes) -> None:
        with self._lock:
            self.objects[key] = (body, {})

    def read(self, key: str) -> bytes | None:
        with self._lock:
            found = self.objects.get(key)
        return None if found is None else found[0]

    def facts(self, key: str) -> ObjectFacts | None:
        with self._lock:
            found = self.objects.get(key)
        return None if found is None else ObjectFacts(len(found[0]), found[1])

    def keys(self, folder: str) -> list[str]:
        with self._lock:
            return sorted(key for key in self.objects if key.startswith(folder))


class Inline(Executor):
    """Runs what it is given at once, on the thread that gives it."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> "Future[Any]":
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except BaseException as error:  # noqa: BLE001 (whoever asks for the result gets it, as from a thread)
            future.set_exception(error)
        return future
