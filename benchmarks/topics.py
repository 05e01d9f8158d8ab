"""Topics of the synthetic shop, loaded once for each shape and kept from run to run."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from itertools import cycle
from pathlib import Path

from benchmarks.lab import SYSTEM_CORE, Lab, on_cores

from generator import pacing
from generator.clock import SystemClock
from generator.delivery import deliver, progress
from generator.disturbances import Mix
from generator.manifest import Parcel
from generator.synthetic import SyntheticShop
from sales.countries import REGION_OF
from sales.times import parse_time

START = parse_time("2025-11-28T08:00:00Z")
"""When the shop's clock begins. In the past, so that nothing is ahead of the broker's; fixed, so that a shape is the
same messages each time."""
RETENTION_HOURS = 8760
SEED = 1
_COUNTRY = b'"country":"'


@dataclass(frozen=True, slots=True)
class Shape:
    """What decides a topic's messages."""

    orders: int
    """good ones"""
    products: int = 10_000
    partitions: int = 4
    bad: float = 0.0
    """messages that break the contract, for each good order"""
    late: float = 0.0
    """share of the orders that come 2 minutes to 20 hours late"""
    span_seconds: int = 7200
    """event time from the first order to the last, evenly"""
    out_of_order: float = 0.0
    """share of the orders that come up to 30 seconds behind others"""
    countries: int = 0
    """the orders' countries, all as often; 0: the shop's own twenty, by weight"""

    @property
    def topic(self) -> str:
        """A name for it."""
        rare = [(f"-{self.out_of_order:g}ooo", self.out_of_order), (f"-{self.countries}c", self.countries)]
        return (
            f"orders-{self.orders}-{self.products}p-{self.partitions}-{self.bad:g}bad-{self.late:g}late"
            f"-{self.span_seconds}s" + "".join(text for text, used in rare if used)
        )


@dataclass(frozen=True, slots=True)
class Loaded:
    """A topic that is complete."""

    shape: Shape
    stream_id: str
    ends: dict[str, int]
    """partition to the last position"""

    @property
    def messages(self) -> int:
        """Good and bad; positions begin at 0, and there is nothing but messages."""
        return sum(end + 1 for end in self.ends.values())


def load(lab: Lab, shape: Shape) -> Loaded:
    """The topic of this shape: the kept one, or loaded now by the generator as fast as it can; says how far it is.

    Raises:
        StreamError: the broker refused.
    """
    marker = lab.folder / f"{shape.topic}.loaded.json"
    kept = _kept(lab, shape, marker)
    if kept is not None:
        return kept
    lab.wire.delete(shape.topic)  # half of it, perhaps, from a run that was broken off
    loaded = send(lab, shape, shape.topic, START)
    marker.write_text(json.dumps({"shape": asdict(shape), "stream_id": loaded.stream_id, "ends": loaded.ends}))
    return loaded


def send(lab: Lab, shape: Shape, topic: str, start: int) -> Loaded:
    """A new topic with the orders of this shape, the first of them at ``start`` (ms since 1970); says how far it is.

    Raises:
        StreamError: the broker refused.
    """
    lab.wire.create(topic, partitions=shape.partitions, retention_hours=RETENTION_HOURS)
    shop = SyntheticShop(
        seed=SEED,
        products=shape.products,
        customers=10_000,
        returns=0.04,
        mix=Mix(malformed=shape.bad, late=shape.late, out_of_order=shape.out_of_order),
        currency="USD",
    )
    clock = SystemClock()
    rate = pacing.Rate(shape.orders / shape.span_seconds)
    slices = pacing.simulated(rate, start, pacing.Speed(None), clock, lambda _instant: 1.0)
    stream = lab.wire.open(topic)
    with on_cores(SYSTEM_CORE), stream.writer() as writer, progress(clock, shape.orders) as listener:
        parcels = shop.parcels(slices, orders=shape.orders, until=None, simulated=True)
        deliver(_spread(parcels, shape.countries) if shape.countries else parcels, writer, listener)
    ends = {name: -1 if end is None else end for name, end in stream.ends().items()}
    return Loaded(shape, stream.id, ends)


def _spread(parcels: Iterable[Parcel], countries: int) -> Iterator[Parcel]:
    """The parcels with other countries: the first so many of all, in turns."""
    codes = cycle([code.encode() for code in sorted(REGION_OF)[:countries]])
    for parcel in parcels:
        values = []
        for value in parcel.values:
            at = value.index(_COUNTRY) + len(_COUNTRY)
            values.append(value[:at] + next(codes) + value[at + 2 :])
        yield replace(parcel, values=values)


def _kept(lab: Lab, shape: Shape, marker: Path) -> Loaded | None:
    if not marker.exists() or lab.wire.describe(shape.topic) is None:
        return None
    known = json.loads(marker.read_text())
    if known["stream_id"] != lab.wire.open(shape.topic).id:
        return None
    return Loaded(shape, known["stream_id"], known["ends"])
