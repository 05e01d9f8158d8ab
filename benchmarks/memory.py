"""What the processor has in memory, and what the identities behind deduplication take.

    python -m benchmarks.memory --orders 1000000 --products 100000
    python -m benchmarks.memory --parts dedup --identities 1000000 10000000

products  A processor that is *idle* (started, connected, an empty topic, a tick published) is compared with one that
          holds ``--orders`` orders of ``--products`` products in all its windows, and with one that holds as many
          orders of ``--few`` products. Of each: the largest resident set while it read the topic as fast as it could;
          the resident set when it was at the end; and the resident set of a process that was then started on what that
          one had left, which holds the same state and has read nothing. That last one, less the idle one and less the
          identities (by the processor's own metric), is what products and windows take. Private memory (RssAnon) stands
          beside it: what is mapped from files is shared with others.
dedup     ``processor.dedup.Dedup`` itself, one for each of the four slots, in a process of its own: ``--identities``
          identities over 24 hours of event time at an even rate, with a snapshot for every ``--apart`` seconds. Memory
          is how much more the process holds at the end than before; disk is the bytes in the identities' folders. The
          flush to the disk itself is left out: it changes no byte, and there are 86,400 snapshots in a day.
"""

import argparse
import gc
import os
import sys
import time
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from benchmarks import command, metrics, oracle, runs, topics
from benchmarks.lab import SERVERS_CORE, BenchmarkError, Lab, on_cores
from benchmarks.topics import Shape

from processor.dedup import Dedup, identities
from processor.journal import Journal
from processor.source import RESIDENT_BYTES
from sales.memory import keep_freed
from tillstream.local.nursery import Child
from tillstream.local.server import free_ports

MB = 1e6
WAIT_SECONDS = 900.0
PARTS = ("products", "dedup")
SLOTS = 4
DAY_SECONDS = 86_400
MARGIN_SECONDS = 1_800
"""Identities are kept this much longer than the longest window."""
FIRST_MS = 1_795_132_800_000
SEED = 1


@dataclass(frozen=True, slots=True)
class Resident:
    """A process at one moment, MB of 10^6 bytes."""

    whole: float
    private: float
    largest: float
    """the largest resident set so far"""


@dataclass(frozen=True, slots=True)
class Held:
    """A processor that has read a topic."""

    orders: int
    products: int
    """in the longest window, as it counts them"""
    at_end: Resident
    again: Resident
    """of the process that was started on what this one left"""
    identities_mb: float
    """in the memory of ``again``, by its own metric"""
    identities_disk_mb: float
    numbers_disk_mb: float


@dataclass(frozen=True, slots=True)
class Remembered:
    """The identities of 24 hours."""

    identities: int
    memory_mb: float
    tables_mb: float
    """of it, the hash tables, as they count themselves"""
    disk_mb: float
    seconds: float

    @property
    def millions(self) -> float:
        """To divide by."""
        return self.identities / 1e6


def idle(lab: Lab, options: argparse.Namespace) -> Resident:
    """A processor that has nothing to do."""
    topic = f"memory-idle-{os.getpid()}"
    lab.wire.create(topic, partitions=options.partitions, retention_hours=24)
    try:
        settings = dict(options.set)
        with runs.running(lab, topic, partitions=options.partitions, settings=settings, name=topic) as (child, started):
            while not lab.client.exists(f"{runs.PREFIX}status"):
                runs.check(child, started + WAIT_SECONDS, "has published nothing")
                time.sleep(runs.POLL_SECONDS)
            return _resident(child)
    finally:
        lab.wire.delete(topic)


def held(lab: Lab, shape: Shape, options: argparse.Namespace) -> Held:
    """A processor at the end of a topic, its answers compared, and the one after it.

    Raises:
        BenchmarkError: it failed, or its numbers are wrong.
    """
    loaded = topics.load(lab, shape)
    right = oracle.answer(lab, loaded)
    [port] = free_ports()
    settings = {**dict(options.set), "CLOCK": "event", "METRICS_PORT": str(port)}
    name = f"memory-{os.getpid()}"
    with runs.place(lab, shape.topic, partitions=shape.partitions, settings=settings, name=name) as place:
        child = place.start()
        _until_end(lab, loaded, child)
        runs.compare(lab, right)
        at_end = _resident(child)
        place.stop(child)
        lab.client.flushall()
        child = place.start()
        _until_end(lab, loaded, child)
        runs.compare(lab, right)
        deadline = time.monotonic() + WAIT_SECONDS
        while "identities_memory_bytes" not in (told := metrics.scrape(port)):  # told at a snapshot
            runs.check(child, deadline, "has taken no snapshot")
            time.sleep(runs.POLL_SECONDS)
        again = _resident(child)
        place.stop(child)
        return Held(
            orders=shape.orders,
            products=int(told["products"]),
            at_end=at_end,
            again=again,
            identities_mb=told["identities_memory_bytes"] / MB,
            identities_disk_mb=_disk_mb(place.recovery / "identities"),
            numbers_disk_mb=_disk_mb(place.recovery / "numbers"),
        )


def _until_end(lab: Lab, loaded: topics.Loaded, child: Child) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while runs.reached(lab, loaded) < loaded.messages:
        runs.check(child, deadline, "is not at the end of the topic")
        time.sleep(runs.POLL_SECONDS)


def _resident(child: Child) -> Resident:
    found = _status(child.pid)
    return Resident(found["VmRSS"], found["RssAnon"], found["VmHWM"])


def _status(pid: int) -> dict[str, float]:
    """The lines of ``/proc/PID/status`` that are sizes, MB."""
    rows = (line.split() for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return {row[0].rstrip(":"): int(row[1]) * 1024 / MB for row in rows if row[-1] == "kB"}


def _disk_mb(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / MB


def remember(identities_a_day: int, apart: int, folder: Path) -> Remembered:
    """Drives the memory of identities through 24 hours; in a process that does nothing else."""
    keep_freed()
    os.fdatasync = lambda _file: None
    slots = [
        Dedup(
            Journal(folder / str(slot)),
            horizon_ms=(DAY_SECONDS + MARGIN_SECONDS) * 1000,
            resident_bytes=RESIDENT_BYTES // SLOTS,
        )
        for slot in range(SLOTS)
    ]
    dice = np.random.default_rng(SEED)
    gc.collect()
    before, started = _status(os.getpid())["RssAnon"], time.monotonic()
    ends = np.linspace(0, identities_a_day, DAY_SECONDS // apart + 1).astype(np.int64)
    for snapshot, count in enumerate(np.diff(ends).tolist()):
        times = np.full(count, FIRST_MS + snapshot * apart * 1000, dtype=np.int64)
        hashes = dice.integers(0, 2**64, size=(3, count), dtype=np.uint64)
        entries = identities(hashes[0], hashes[1], times, hashes[2], np.arange(count, dtype=np.uint64))
        for slot, dedup in enumerate(slots):
            verdicts = dedup.admit(times[slot::SLOTS], entries[slot::SLOTS])
            if verdicts.any():
                raise BenchmarkError("an identity that is new was taken for one that is known")
            dedup.sync()
    gc.collect()
    return Remembered(
        identities=identities_a_day,
        memory_mb=_status(os.getpid())["RssAnon"] - before,
        tables_mb=sum(dedup.resident_bytes() for dedup in slots) / MB,
        disk_mb=_disk_mb(folder),
        seconds=time.monotonic() - started,
    )


def dedup(lab: Lab, sizes: Iterable[int], apart: int) -> list[Remembered]:
    """Each number of identities in a process of its own."""
    found = []
    for size in sizes:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            found.append(pool.submit(remember, size, apart, lab.scratch("dedup")).result())
        sys.stderr.write(f"{size:,} identities: {found[-1].seconds:.0f} s\n")
    return found


def main() -> int:
    """Measures and prints."""
    parser = command.parser(__doc__)
    command.add_shape(parser, orders=1_000_000)
    parser.set_defaults(products=100_000)
    command.add_settings(parser)
    parser.add_argument("--few", type=int, default=1_000, help="products to compare with; default %(default)s")
    parser.add_argument(
        "--identities", type=int, nargs="+", default=[1_000_000, 10_000_000], help="in 24 hours; default %(default)s"
    )
    parser.add_argument("--apart", type=int, default=1, help="seconds between snapshots; default %(default)s")
    parser.add_argument("--parts", choices=PARTS, nargs="+", default=PARTS, help="default: both")
    return command.run(_work, parser.parse_args())


def _work(lab: Lab, options: argparse.Namespace) -> None:
    found: dict[str, object] = {}
    if "products" in options.parts:
        shape = command.shape(options)
        fewer = command.shape(argparse.Namespace(**{**vars(options), "products": options.few}))
        for each in (shape, fewer):  # loaded first: what comes then has the servers' core
            oracle.answer(lab, topics.load(lab, each))
        with on_cores(SERVERS_CORE):
            nothing = idle(lab, options)
            both = [held(lab, each, options) for each in (shape, fewer)]
        print(_products_table(nothing, both))
        found |= {"idle": asdict(nothing), "held": [asdict(one) for one in both]}
    if "dedup" in options.parts:
        remembered = dedup(lab, options.identities, options.apart)
        print(_dedup_table(remembered))
        found["dedup"] = [asdict(one) for one in remembered]
    command.keep(lab, options, found)


def _products_table(nothing: Resident, both: list[Held]) -> str:
    lines = ["MB (10^6 bytes)               resident   private   largest"]

    def row(name: str, one: Resident) -> str:
        return f"{name:28} {one.whole:>9,.1f} {one.private:>9,.1f} {one.largest:>9,.1f}"

    lines.append(row("idle", nothing))
    for one in both:
        apart = one.again.whole - nothing.whole - one.identities_mb
        lines += [
            f"{one.orders:,} orders, {one.products:,} products",
            row("  at the end of the topic", one.at_end),
            row("  started on what it left", one.again),
            f"  identities: {one.identities_mb:.1f} in memory, {one.identities_disk_mb:.1f} on disk",
            f"  numbers: {one.numbers_disk_mb:.1f} on disk",
            f"  above idle, identities apart: {apart:.1f}",
        ]
    return "\n".join(lines)


def _dedup_table(found: list[Remembered]) -> str:
    lines = ["identities in 24 h  memory MB  of it tables  disk MB   for a million: memory   disk"]
    lines += [
        f"{one.identities:>18,} {one.memory_mb:>10,.1f} {one.tables_mb:>13,.1f} {one.disk_mb:>8,.1f}"
        f" {one.memory_mb / one.millions:>23,.1f} {one.disk_mb / one.millions:>6,.1f}"
        for one in found
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
