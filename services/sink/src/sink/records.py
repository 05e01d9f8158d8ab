"""The processor's messages, rollups and dead letters; what is none is left out. Pure."""

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import msgspec

from sales import dead_letters, rollups
from sales.dead_letters import DeadLetter
from sales.rollups import Rollup
from sales.times import INVALID_TIME, parse_time

_INT64 = range(-(2**63), 2**63)

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Found(Generic[R]):
    """The messages that are what they should be; ``rows`` tells their places among all."""

    records: list[R]
    rows: list[int]

    def missing(self, positions: Sequence[int]) -> list[int]:
        """The positions of the others, out of those of all messages."""
        here = set(self.rows)
        return [position for row, position in enumerate(positions) if row not in here]


@dataclass(frozen=True, slots=True)
class Letter:
    """A dead letter with its bytes."""

    letter: DeadLetter
    raw: bytes
    key: bytes | None


def find_rollups(values: Sequence[bytes]) -> Found[Rollup]:
    """The rollups among messages."""
    found: Found[Rollup] = Found([], [])
    for row, value in enumerate(values):
        try:
            rollup = rollups.decode(value)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            continue
        numbers = msgspec.structs.astuple(rollup)
        if (
            rollup.scope
            and parse_time(rollup.minute) != INVALID_TIME
            and all(number in _INT64 for number in numbers if isinstance(number, int))
        ):
            found.records.append(rollup)
            found.rows.append(row)
    return found


def find_dead_letters(values: Sequence[bytes]) -> Found[Letter]:
    """The dead letters among messages."""
    found: Found[Letter] = Found([], [])
    for row, value in enumerate(values):
        try:
            letter = dead_letters.decode(value)
            raw = base64.b64decode(letter.raw, validate=True)
            key = None if letter.key is None else base64.b64decode(letter.key, validate=True)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, binascii.Error, ValueError):
            continue
        if parse_time(letter.broker_time) != INVALID_TIME and letter.raw_bytes in _INT64:
            found.records.append(Letter(letter, raw, key))
            found.rows.append(row)
    return found
