"""Other systems that carry a topic into a bucket: how each is started, and what its rows are."""

import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks import stored, storing
from benchmarks.storing import BUCKET, Place, Run, Started, committed

HERE = Path(__file__).parent

_LINES = """
    SELECT
        order_id, epoch_ms(event_time) AS event_ms, type = 'return' AS is_return, country, customer_id,
        original_order_id, line::BIGINT AS line, product_id, product_name, category,
        if(is_return, -1, 1) AS sign, sign * p.quantity AS quantity, unit_amount,
        discount_percent::BIGINT AS discount_percent, unit_cost, sign * p.quantity * unit_amount AS gross,
        sign * (p.quantity * unit_amount - (p.quantity * unit_amount * discount_percent::BIGINT + 50) // 100) AS net,
        net - sign * p.quantity * unit_cost AS profit
    FROM read_parquet('{folder}/orders/**/*.parquet') AS p
"""
"""Of files with a row a line: the amounts, which they leave to who reads them, are worked out here."""


@dataclass(frozen=True, slots=True)
class Peer:
    """One system."""

    command: Callable[[], list[str]]
    """what runs on the core"""
    most: int
    """good orders that it gets at most, so that a run ends within minutes"""
    rows: str
    """the query that gives its rows; see ``stored.totals``"""


PEERS = {
    "plain-sink": Peer(lambda: [sys.executable, str(HERE / "plain_sink" / "loop.py")], 1_000_000, _LINES),
}


def measure(place: Place, name: str, right: stored.Right, *, seconds: float) -> Run:
    """One run of a peer, from an empty bucket until it has committed the topic's ends; what it stored is compared.

    Args:
        place: where.
        name: the peer's.
        right: what has to be stored.
        seconds: how long it may take.

    Raises:
        BenchmarkError: it ended, took too long, or stored something else.
    """
    peer, lab = PEERS[name], place.lab
    env = {
        **os.environ,
        **place.bucket.env,
        "BOOTSTRAP": lab.broker.address,
        "TOPIC": place.loaded.shape.topic,
        "GROUP": place.name,
        "BUCKET": BUCKET,
    }
    started = time.monotonic()
    child = lab.start(name, peer.command(), env, place.folder / "log")
    try:
        system = Started(child, place.name, committed(place, place.name))
        run = storing.watch(place, system, right.totals.lines, started=started, seconds=seconds)
    finally:
        child.stop()
    found, sizes = storing.totals(place, peer.rows, with_places=False)
    stored.compare(right.totals, found, name)
    return replace(run, objects=len(sizes), stored_mb=sum(sizes.values()) / 1e6)
