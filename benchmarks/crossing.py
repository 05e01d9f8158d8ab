"""What it costs a sum to get from one process to another: processor time of each step, for a batch of orders.

    python -m benchmarks.crossing --products 10000

Batches of the synthetic shop are decoded, summed and applied in this one process, once as they are and once by way of
bytes, as between two processes (see `processor.crossing`). The first batches are not counted.
"""

import argparse
import pickle
import sys
import time
from collections import defaultdict

from benchmarks.topics import START

from generator import pacing
from generator.clock import SystemClock
from generator.disturbances import Mix
from generator.synthetic import SyntheticShop
from processor.crossing import Arrivals, Departures
from processor.numbers import Numbers
from processor.panes import Origin
from processor.tiers import summarising
from sales.board import Keys
from sales.columnar.decoding import Decoder, Secrets
from sales.countries import region_table
from sales.settings import RuleSettings
from sales.streams import Chunk
from sales.streams.packed import Packed, pack
from sales.windows import parse_windows

Spent = defaultdict[str, float]

ORDERS = 16_000
BATCHES, WARM_UP = 24, 4
BATCHES_A_SNAPSHOT = 8
ORDERS_PER_SECOND = 4_000_000 / 7200
"""In the shop: what the processor's benchmark has."""


def main() -> int:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--products", type=int, default=10_000, help="default %(default)s")
    batches = list(_batches(parser.parse_args().products))
    print(f"ms for {ORDERS:,} orders   sum    send  receive   apply   delta   kB sent")
    for crossing in (False, True, False, True):
        spent = _play(batches, crossing=crossing)
        figures = [spent[step] / (BATCHES - WARM_UP) for step in ("sum", "send", "receive", "apply", "delta", "bytes")]
        print(f"{'crossing' if crossing else 'in place':<18}" + "".join(f"{figure * 1000:>8.2f}" for figure in figures))
    return 0


def _batches(products: int) -> list[Packed]:
    shop = SyntheticShop(seed=1, products=products, customers=10_000, returns=0.04, mix=Mix(), currency="USD")
    slices = pacing.simulated(
        pacing.Rate(ORDERS_PER_SECOND), START, pacing.Speed(None), SystemClock(), lambda _instant: 1.0
    )
    keys: list[bytes | None] = []
    values: list[bytes] = []
    for parcel in shop.parcels(slices, orders=ORDERS * BATCHES, until=None, simulated=True):
        keys += parcel.keys
        values += parcel.values
    cuts = [slice(first, first + ORDERS) for first in range(0, len(keys), ORDERS)]
    broker_times = [START + 86_400_000] * ORDERS
    return [pack(Chunk("0", keys[cut], values[cut], list(range(cut.start, cut.stop)), broker_times)) for cut in cuts]


def _play(batches: list[Packed], *, crossing: bool) -> Spent:
    """Seconds of processor time by step; bytes in millions of bytes, so that thousandths are kB."""
    decoder = Decoder(RuleSettings().rules(), Secrets.of(1))
    summarise = summarising(compiled=True)
    departures, arrivals = Departures(1), Arrivals()
    numbers = Numbers(
        windows=parse_windows("1m 5m 15m 1h 24h"),
        keys=Keys("sales:"),
        top_k=100,
        currency="USD",
        region_of=region_table({}),
        clock="event",
    )
    spent: Spent = defaultdict(float)
    for number, batch in enumerate(batches):
        if number == WARM_UP:
            spent.clear()
        begun = time.process_time()
        partial = summarise(
            decoder.decode([batch]).columns, decoder.dictionaries, [Origin("orders/0", batch.positions, 20)]
        )
        begun = _spend(spent, "sum", begun)
        if crossing:
            sent = pickle.dumps(departures.crossed(partial))  # the engine pickles what crosses
            spent["bytes"] += len(sent) / 1e6
            begun = _spend(spent, "send", begun)
            partial = arrivals.partial(pickle.loads(sent))  # noqa: S301  # our own bytes
            begun = _spend(spent, "receive", begun)
        numbers.apply(partial)
        begun = _spend(spent, "apply", begun)
        if number % BATCHES_A_SNAPSHOT == BATCHES_A_SNAPSHOT - 1:
            numbers.take_delta()
            _spend(spent, "delta", begun)
    return spent


def _spend(spent: Spent, step: str, begun: float) -> float:
    now = time.process_time()
    spent[step] += now - begun
    return now


if __name__ == "__main__":
    sys.exit(main())
