"""Topics of the synthetic shop, loaded once for each shape and kept from run to run."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.lab import SYSTEM_CORE, Lab, on_cores

from generator import pacing
from generator.clock import SystemClock
from generator.delivery import deliver, progress
from generator.disturbances import Mix
from generator.synthetic import SyntheticShop
from sales.times import parse_time

START = parse_time("2025-11-28T08:00:00Z")
"""When the shop's clock begins. In the past, so that nothing is ahead of the broker's; fixed, so that a shape is the
same messages each time."""
RETENTION_HOURS = 8760
SEED = 1


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

    @property
    def topic(self) -> str:
        """A name for it."""
        return (
            f"orders-{self.orders}-{self.products}p-{self.partitions}-{self.bad:g}bad-{self.late:g}late"
            f"-{self.span_seconds}s"
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
    lab.wire.create(shape.topic, partitions=shape.partitions, retention_hours=RETENTION_HOURS)
    shop = SyntheticShop(
        seed=SEED,
        products=shape.products,
        customers=10_000,
        returns=0.04,
        mix=Mix(malformed=shape.bad, late=shape.late),
        currency="USD",
    )
    clock = SystemClock()
    rate = pacing.Rate(shape.orders / shape.span_seconds)
    slices = pacing.simulated(rate, START, pacing.Speed(None), clock, lambda _instant: 1.0)
    stream = lab.wire.open(shape.topic)
    with on_cores(SYSTEM_CORE), stream.writer() as writer, progress(clock, shape.orders) as listener:
        deliver(shop.parcels(slices, orders=shape.orders, until=None, simulated=True), writer, listener)
    ends = {name: -1 if end is None else end for name, end in stream.ends().items()}
    marker.write_text(json.dumps({"shape": asdict(shape), "stream_id": stream.id, "ends": ends}))
    return Loaded(shape, stream.id, ends)


def _kept(lab: Lab, shape: Shape, marker: Path) -> Loaded | None:
    if not marker.exists() or lab.wire.describe(shape.topic) is None:
        return None
    known = json.loads(marker.read_text())
    if known["stream_id"] != lab.wire.open(shape.topic).id:
        return None
    return Loaded(shape, known["stream_id"], known["ends"])
