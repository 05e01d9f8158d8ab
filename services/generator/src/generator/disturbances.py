"""What goes wrong in real streams, in set shares: pure, and drawn apart from the orders, so that the same seed gives
the same orders with and without it.

Two steps. ``backdate`` changes *when* some orders were placed, before they are encoded: they stay good. ``extras``
brings *further* records beside the good ones: copies of them, and records that must be refused. The good ones are
never touched, so their totals stay exact.
"""

import heapq
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any
from uuid import UUID

import msgspec
import numpy as np
import numpy.typing as npt

from generator.manifest import Kind
from sales.rules import FUTURE_ALLOWANCE_MS, MAX_AMOUNT, MAX_MESSAGE_BYTES, MAX_NAME, MAX_NESTING, MAX_TEXT
from sales.times import format_time, parse_time

_MINUTE_MS = 60_000
OUT_OF_ORDER_MS = 30_000
"""How far an order may be overtaken: what retries and slow tills do."""
LATE_FROM_MS, LATE_TO_MS = 2 * _MINUTE_MS, 20 * 60 * _MINUTE_MS
"""How late a late order is: its minute is closed for certain, and the 24 h window still covers it."""
FUTURE_FROM_MS, FUTURE_TO_MS = 2 * FUTURE_ALLOWANCE_MS, 180 * _MINUTE_MS
"""How far ahead: beyond what is allowed even when the broker's clock is minutes off."""
COPY_DELAY = 100_000
"""Orders that may pass before a copy follows its original: past caches of recent ids."""
MAX_WAITING = 10_000
"""Copies that may wait at a time; bounds the memory."""
OVERSIZE_SHARE = 0.002
"""Of the malformed records: each is a megabyte."""


@dataclass(frozen=True, slots=True)
class Mix:
    """Shares, relative to the number of good orders. ``late`` and ``out_of_order`` are good orders themselves; the
    others come beside them."""

    late: float = 0.0
    out_of_order: float = 0.0
    duplicates: float = 0.0
    conflicts: float = 0.0
    malformed: float = 0.0
    future: float = 0.0
    unknown_currency: float = 0.0

    def is_empty(self) -> bool:
        """Nothing goes wrong at all."""
        return not any(getattr(self, share.name) for share in fields(self))


@dataclass(frozen=True, slots=True, eq=False)
class Backdated:
    """When orders were placed, after some were dated back."""

    event_times: npt.NDArray[np.int64]
    late: npt.NDArray[np.bool_]
    out_of_order: npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Extra:
    """A record beside the good ones."""

    before: int
    """the row of the block that it is sent before; the block's length: after all of them"""
    key: bytes
    value: bytes
    kind: Kind
    reason: str | None
    """why it will be a dead letter; None for a duplicate, which is none"""


class Disturber:
    """Draws disturbances. The same seed and the same sequence of calls give the same ones."""

    def __init__(self, seed: np.random.SeedSequence, mix: Mix, currency: str) -> None:
        self._random = np.random.default_rng(seed)
        self._mix = mix
        self._foreign = [code for code in ("EUR", "GBP", "JPY", "USD", "XXX") if code != currency]
        self._passed = 0
        self._waiting: list[tuple[int, int, Extra]] = []
        self._numbered = 0

    def backdate(self, event_times: npt.NDArray[np.int64]) -> Backdated:
        """Dates some orders back."""
        count = len(event_times)
        drawn = self._random.random(count) if self._mix.late or self._mix.out_of_order else np.ones(count)
        late = drawn < self._mix.late
        out_of_order = ~late & (drawn < self._mix.late + self._mix.out_of_order)
        back = np.zeros(count, dtype=np.int64)
        back[late] = self._spread(LATE_FROM_MS, LATE_TO_MS, int(late.sum()))
        back[out_of_order] = self._random.integers(1, OUT_OF_ORDER_MS, size=int(out_of_order.sum()))
        return Backdated(event_times - back, late, out_of_order)

    def extras(self, keys: Sequence[bytes], values: Sequence[bytes], ahead_of: int) -> list[Extra]:
        """What is sent beside one block of good orders, in the order of sending.

        Args:
            keys: the block's keys.
            values: the block's messages.
            ahead_of: ms since 1970; a future event is ahead of this, so it must not be before the broker's clock.
        """
        count = len(keys)
        extras: list[Extra] = []
        for row in self._rows(self._mix.duplicates, count):
            self._copy_later(row, Extra(0, keys[row], self._again(values[row]), Kind.DUPLICATE, None))
        for row in self._rows(self._mix.conflicts, count):
            self._copy_later(row, Extra(0, keys[row], self._contradicted(values[row]), Kind.CONFLICT, "conflict"))
        for row in self._rows(self._mix.malformed, count):
            order = self._renamed(values[row])
            key = order["order_id"].encode()
            bad = spoil(self._random, order)
            extras.append(Extra(row, bad.key or key, bad.value, Kind.MALFORMED, bad.reason))
        for row in self._rows(self._mix.future, count):
            order = self._renamed(values[row])
            ahead = int(self._random.integers(FUTURE_FROM_MS, FUTURE_TO_MS))
            order["event_time"] = format_time(ahead_of + ahead)
            extras.append(Extra(row, order["order_id"].encode(), _encode(order), Kind.FUTURE, "future"))
        for row in self._rows(self._mix.unknown_currency, count):
            order = self._renamed(values[row])
            order["currency"] = self._foreign[int(self._random.integers(len(self._foreign)))]
            extras.append(Extra(row, order["order_id"].encode(), _encode(order), Kind.UNKNOWN_CURRENCY, "currency"))

        while self._waiting and (self._waiting[0][0] < self._passed + count or len(self._waiting) > MAX_WAITING):
            due, _, copy = heapq.heappop(self._waiting)
            extras.append(_placed(copy, min(due - self._passed, count)))
        self._passed += count
        extras.sort(key=lambda extra: extra.before)
        return extras

    def rest(self) -> list[Extra]:
        """The copies that still wait, when no more orders follow."""
        waiting = [copy for _, _, copy in sorted(self._waiting, key=lambda entry: entry[:2])]
        self._waiting.clear()
        return waiting

    def _rows(self, share: float, count: int) -> list[int]:
        return np.flatnonzero(self._random.random(count) < share).tolist() if share else []

    def _spread(self, low: int, high: int, count: int) -> npt.NDArray[np.int64]:
        """Between two bounds, small ones as often as large ones (log-uniform)."""
        return np.exp(self._random.uniform(np.log(low), np.log(high), size=count)).astype(np.int64)

    def _copy_later(self, row: int, copy: Extra) -> None:
        delay = int(self._spread(1, COPY_DELAY, 1)[0])
        self._numbered += 1
        heapq.heappush(self._waiting, (self._passed + row + delay, self._numbered, copy))

    def _again(self, value: bytes) -> bytes:
        """The same bytes, or the same content spelt differently; one in two."""
        return value if self._random.random() < 0.5 else respell(self._random, value)

    def _contradicted(self, value: bytes) -> bytes:
        """Other content under the same identity, well-formed."""
        order = _decode(value)
        line = order["lines"][int(self._random.integers(len(order["lines"])))]
        match int(self._random.integers(3)):
            case 0:
                line["quantity"] += 1
            case 1:
                line["unit_amount"] += 100
            case _:
                order["customer_id"] = (order["customer_id"] or 0) + 1
        return _encode(order)

    def _renamed(self, value: bytes) -> dict[str, Any]:
        """A good order under an id of its own, so that what is done to it hits nobody else."""
        order = _decode(value)
        order["order_id"] = str(UUID(bytes=self._random.bytes(16), version=4))
        return order


def respell(random: np.random.Generator, value: bytes) -> bytes:
    """The same identity and the same decoded content in other bytes: fields in another order, white space, the time
    with another offset and more digits, a field that this version doesn't know."""
    order = _decode(value)
    time = parse_time(order["event_time"])
    hours = int(random.integers(-11, 13))
    local = format_time(time + hours * 60 * _MINUTE_MS).removesuffix("Z")
    order["event_time"] = f"{local}789{'-' if hours < 0 else '+'}{abs(hours):02d}:00"
    order["sent_by"] = "a newer producer"
    order["lines"] = [_shuffled(random, line) for line in order["lines"]]
    return json.dumps(_shuffled(random, order), indent=1, ensure_ascii=True).encode()


def _shuffled(random: np.random.Generator, document: dict[str, Any]) -> dict[str, Any]:
    names = list(document)
    return {names[i]: document[names[i]] for i in random.permutation(len(names)).tolist()}


_MISSING = object()

# Each replaces one field by something that the contract refuses.
_ORDER_FAULTS: tuple[tuple[str, Any], ...] = (
    ("schema", 2),
    ("schema", "1"),
    ("schema", _MISSING),
    ("type", "refund"),
    ("type", _MISSING),
    ("order_id", ""),
    ("order_id", "x" * 65),
    ("order_id", 4711),
    ("event_time", "yesterday"),
    ("event_time", "1970-01-01T00:00:00.000Z"),
    ("event_time", "2026-02-30T08:00:00.000Z"),
    ("event_time", "2026-11-20T08:12:33"),
    ("event_time", 1_795_161_153),
    ("customer_id", "17850"),
    ("customer_id", 17850.0),
    ("country", "UK"),
    ("country", "de"),
    ("country", None),
    ("currency", 840),
    ("currency", _MISSING),
    ("original_order_id", ""),
    ("lines", []),
    ("lines", _MISSING),
)
_LINE_FAULTS: tuple[tuple[str, Any], ...] = (
    ("product_id", ""),
    ("product_id", _MISSING),
    ("product_id", "x" * (MAX_NAME + 1)),
    ("product_name", 7),
    ("product_name", "é" * (MAX_TEXT + 1)),
    ("category", None),
    ("category", "é" * (MAX_NAME + 1)),
    ("quantity", 0),
    ("quantity", -1),
    ("quantity", "2"),
    ("quantity", 2.0),
    ("quantity", True),
    ("quantity", MAX_AMOUNT + 1),
    ("unit_amount", -1),
    ("unit_amount", 2.55),
    ("unit_amount", MAX_AMOUNT),  # times a quantity of 2 or more, see below
    ("discount_percent", 101),
    ("discount_percent", -1),
    ("unit_cost", -1),
)


@dataclass(frozen=True, slots=True)
class Spoilt:
    """A message that breaks one rule."""

    reason: str
    """the reason that the contract gives for it"""
    value: bytes
    key: bytes | None = None
    """where the fault is the key's; None: the order id as it was"""


def _order_fault(field: str, replacement: Any) -> Callable[[dict[str, Any]], Spoilt]:
    def spoil_order(order: dict[str, Any]) -> Spoilt:
        _replace(order, field, replacement)
        return Spoilt("schema" if field == "schema" else f"field:{field}", _encode(order))

    return spoil_order


def _line_fault(field: str, replacement: Any) -> Callable[[dict[str, Any]], Spoilt]:
    def spoil_line(order: dict[str, Any]) -> Spoilt:
        line = order["lines"][-1]
        line["quantity"] = max(line["quantity"], 2)
        _replace(line, field, replacement)
        return Spoilt(f"field:{field}", _encode(order))

    return spoil_line


def _replace(document: dict[str, Any], field: str, replacement: Any) -> None:
    if replacement is _MISSING:
        document.pop(field, None)
    else:
        document[field] = replacement


def _other_key(order: dict[str, Any]) -> Spoilt:
    return Spoilt("key", _encode(order), key=b"another-" + order["order_id"].encode())


def _oversize(order: dict[str, Any]) -> Spoilt:
    """Just above the limit of the contract, and below what brokers take: it has to get through to be refused. Nothing
    else is wrong with it."""
    return Spoilt("oversize", _encode(order)[:-1] + b" " * MAX_MESSAGE_BYTES + b"}")


FAULTS: tuple[Callable[[dict[str, Any]], Spoilt], ...] = (
    lambda order: Spoilt("json", _encode(order)[:-1]),
    lambda order: Spoilt("json", _encode(order)[: len(_encode(order)) // 2]),
    lambda order: Spoilt("json", b"\xff\xfe" + _encode(order)),
    lambda order: Spoilt("json", _encode([order])),
    lambda order: Spoilt("json", json.dumps({**order, "customer_id": float("nan")}).encode()),
    lambda order: Spoilt("json", _encode({**order, "note": msgspec.Raw(b"[" * MAX_NESTING + b"]" * MAX_NESTING)})),
    lambda _order: Spoilt("json", b"hello"),
    _other_key,
    *(_order_fault(field, replacement) for field, replacement in _ORDER_FAULTS),
    *(_line_fault(field, replacement) for field, replacement in _LINE_FAULTS),
)
"""Every way to break the contract but ``oversize``, which is a megabyte each and rare."""


def spoil(random: np.random.Generator, order: dict[str, Any]) -> Spoilt:
    """Breaks one rule of the contract; ``order`` is used up."""
    if random.random() < OVERSIZE_SHARE:
        return _oversize(order)
    return FAULTS[int(random.integers(len(FAULTS)))](order)


def _placed(copy: Extra, before: int) -> Extra:
    return Extra(before, copy.key, copy.value, copy.kind, copy.reason)


_encode: Callable[[Any], bytes] = msgspec.json.Encoder().encode
_decode: Callable[[bytes], dict[str, Any]] = msgspec.json.Decoder(dict[str, Any]).decode
