"""What was sent, counted exactly: the sender's side of every later comparison."""

import json
import os
from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from sales.times import format_time


class Kind(StrEnum):
    """What a record is; every record is of exactly one kind."""

    ORDER = "order"
    """a sale or a return, placed just now"""
    OUT_OF_ORDER = "out_of_order"
    """an order that was overtaken by others, by some seconds"""
    LATE = "late"
    """an order that comes minutes or hours after it was placed"""
    DUPLICATE = "duplicate"
    """an order again: the same bytes, or the same content in another spelling"""
    CONFLICT = "conflict"
    """the identity of an order with other content"""
    MALFORMED = "malformed"
    """breaks a rule of the order event"""
    FUTURE = "future"
    """placed more than five minutes ahead of the broker's clock"""
    UNKNOWN_CURRENCY = "unknown_currency"
    """well-formed, in a currency that the pipeline doesn't report in"""


ACCEPTED_KINDS = (Kind.ORDER, Kind.OUT_OF_ORDER, Kind.LATE)
"""Those whose amounts count, each once."""


@dataclass(slots=True)
class Tally:
    """Counts and exact sums over records; amounts in minor units. Sums are over ACCEPTED_KINDS."""

    by_kind: Counter[str] = field(default_factory=Counter)
    dead_letters: Counter[str] = field(default_factory=Counter)
    """by the reason that the pipeline must give"""
    sales: int = 0
    returns: int = 0
    lines: int = 0
    units: int = 0
    """sold less returned"""
    sales_minor: int = 0
    """net revenue of sales"""
    refunded_minor: int = 0
    """net amount of returns, positive"""
    first_event_time: int | None = None
    """ms since 1970"""
    last_event_time: int | None = None

    @property
    def records(self) -> int:
        """All that was sent."""
        return self.by_kind.total()

    @property
    def identities(self) -> int:
        """Distinct identities (order id, event time) among accepted orders: a source never gives one out twice, and
        a duplicate or conflict brings none of its own."""
        return self.sales + self.returns

    def add(self, other: "Tally") -> None:
        """Adds another tally to this one."""
        self.by_kind.update(other.by_kind)
        self.dead_letters.update(other.dead_letters)
        self.sales += other.sales
        self.returns += other.returns
        self.lines += other.lines
        self.units += other.units
        self.sales_minor += other.sales_minor
        self.refunded_minor += other.refunded_minor
        times = [
            time
            for tally in (self, other)
            for time in (tally.first_event_time, tally.last_event_time)
            if time is not None
        ]
        if times:
            self.first_event_time, self.last_event_time = min(times), max(times)

    def add_dead_letter(self, kind: Kind, reason: str) -> None:
        """Counts one record that can't be accepted."""
        self.by_kind[kind] += 1
        self.dead_letters[reason] += 1

    def as_dict(self) -> dict[str, Any]:
        """For JSON; times in RFC 3339."""
        return {
            "records": self.records,
            "by_kind": {kind.value: self.by_kind[kind] for kind in Kind},
            "dead_letters": dict(sorted(self.dead_letters.items())),
            "accepted": {
                "orders": self.identities,
                "sales": self.sales,
                "returns": self.returns,
                "lines": self.lines,
                "units": self.units,
                "sales_minor": self.sales_minor,
                "refunded_minor": self.refunded_minor,
                "revenue_minor": self.sales_minor - self.refunded_minor,
                "identities": self.identities,
                "first_event_time": _text(self.first_event_time),
                "last_event_time": _text(self.last_event_time),
            },
        }


def _text(time: int | None) -> str | None:
    return None if time is None else format_time(time)


@dataclass(frozen=True, slots=True, eq=False)
class Parcel:
    """Records to send together, and what they are."""

    keys: list[bytes]
    values: list[bytes]
    tally: Tally


def write(path: Path, document: dict[str, Any]) -> None:
    """Writes the manifest so that a reader finds the whole of it or none; blocks until it is on disk.

    Raises:
        OSError: the folder is not there or can't be written.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    with draft.open("w", encoding="utf-8") as file:
        json.dump(document, file, indent=2)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
