"""What a record costs to read from Kafka: whole batches taken apart by compiled code, against librdkafka; as a reader,
packed, and as a member of a group, as the sink has them now and had them before.

    python -m benchmarks.kafka_readers --orders 2000000

The topic is that of `benchmarks.processor` (lz4, as our producer writes), kept in ``--work``. They read it by turns,
each time in a process of its own on a core of its own, with broker and harness on the other. Processor time is that of
polling alone, from the first records on, of all of the process's threads. Memory is the largest resident set, and how
much of it came with reading. At the end stands what the parts of a batch's way cost by themselves.
"""

import argparse
import mmap
import os
import statistics
import sys
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import cramjam
import numpy as np
from benchmarks import topics
from benchmarks.command import default_work
from benchmarks.lab import SYSTEM_CORE, BenchmarkError, machine, on_cores, open_lab
from crc32c import crc32c
from kafka import codec

from sales.memory import keep_freed
from sales.settings import StreamSettings
from sales.streams import Chunk, Polled
from sales.streams.kafka import KafkaStream, KafkaWire
from sales.streams.kafka_batches import BatchesReader
from sales.streams.kafka_records import Batch, Memory, unpack
from sales.streams.memory import MemoryCheckpoints
from sales.streams.packed import Packed, Packing

POLL_RECORDS = 16_000
BATCHES_A_RUN = 3
REPEATS = 20

READERS: dict[str, Callable[[KafkaStream], Polled[Packed] | Polled[Chunk]]] = {
    "batches": lambda stream: stream.packed_reader(dict.fromkeys(stream.partitions())),
    "librdkafka": lambda stream: Packing(stream.reader(dict.fromkeys(stream.partitions()))),
    "packed member": lambda stream: stream.packed_member(*_alone()),
    "member": lambda stream: stream.member(*_alone()),
}
"""A member's records are Python objects, not packed."""


@dataclass(frozen=True, slots=True)
class Run:
    """One reader, from a topic's beginning to its end; both times as if the first records had been counted too."""

    cpu_seconds: float
    wall_seconds: float
    peak_mb: float
    grown_mb: float
    runs: int


def _alone() -> tuple[str, MemoryCheckpoints, Callable[[object], None], Callable[[object], None]]:
    """What a member of a new group is made with; Kafka keeps the positions."""
    return f"bench-{uuid.uuid4()}", MemoryCheckpoints(), lambda _: None, lambda _: None


def read(address: str, topic: str, kind: str, records: int) -> Run:
    """Reads a whole topic, in a process that keeps what it frees, as the processor does."""
    keep_freed()
    wire = KafkaWire.connect(StreamSettings(stream="kafka", kafka_bootstrap_servers=address))
    reader = READERS[kind](wire.open(topic))
    before = _peak_mb()
    first = got = runs = 0
    while not got:  # what it takes to begin, for a member to join, is another matter
        first = got = sum(map(len, reader.poll(POLL_RECORDS, 1.0)))
    cpu, wall = time.process_time(), time.perf_counter()
    while got < records:
        for run in reader.poll(POLL_RECORDS, 1.0):
            got += len(run)
            runs += 1
    share = (records - first) / records
    done = Run(
        (time.process_time() - cpu) / share,
        (time.perf_counter() - wall) / share,
        _peak_mb(),
        _peak_mb() - before,
        runs,
    )
    reader.close()
    wire.close()
    return done


def _peak_mb() -> float:
    # Not getrusage: what it tells begins with what the parent had.
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) / 1024


def parts(address: str, topic: str) -> dict[str, float]:
    """Processor seconds for a million records of what is done with batches once they are here; the best of some."""
    wire = KafkaWire.connect(StreamSettings(stream="kafka", kafka_bootstrap_servers=address))
    reader = READERS["batches"](wire.open(topic))
    assert isinstance(reader, BatchesReader)
    while not reader._waiting:
        reader._fetch(1.0)
    batches: list[Batch] = next(iter(reader._waiting.values()))[:BATCHES_A_RUN]
    records, memory = sum(batch.count for batch in batches), Memory()
    start = batches[0].base_offset
    run, _ = unpack("0", batches, start, memory)
    size = int(run.value_ends[-1])
    target = np.empty(len(run.data), dtype=np.uint8)

    def cost(work: Callable[[], object]) -> float:
        times = []
        for _ in range(REPEATS):
            began = time.process_time()
            work()
            times.append(time.process_time() - began)
        return min(times) / records * 1e6

    found = {
        f"sums (CRC-32C) of {sum(len(batch.records) for batch in batches) / records:.0f} bytes a record": cost(
            lambda: [crc32c(batch.records) for batch in batches]
        ),
        f"decompressing to {size / records:.0f} bytes a record, and taking apart": cost(
            lambda: unpack("0", batches, start, memory)
        ),
        "decompressing alone": cost(lambda: [cramjam.lz4.decompress_into(batch.records, target) for batch in batches]),
        "decompressing alone, into memory fresh from the system": cost(
            lambda: [cramjam.lz4.decompress_into(batch.records, mmap.mmap(-1, len(target))) for batch in batches]
        ),
        "decompressing alone, by kafka-python's codec": cost(
            lambda: [codec.lz4_decode(batch.records.tobytes()) for batch in batches]
        ),
        "copying them once": cost(lambda: np.copyto(target, run.data)),
    }
    reader.close()
    wire.close()
    return found


def main() -> int:
    """Runs and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--orders", type=int, default=2_000_000)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--work", type=Path, default=default_work(), help="keeps topics; default %(default)s")
    options = parser.parse_args()
    try:
        with open_lab(options.work) as lab:
            loaded = topics.load(lab, topics.Shape(options.orders))
            print("\n".join(f"{name:15} {value}" for name, value in machine(lab).items()))
            where = (lab.broker.address, loaded.shape.topic)
            found: dict[str, list[Run]] = {kind: [] for kind in READERS}
            with (
                on_cores(SYSTEM_CORE),
                ProcessPoolExecutor(1, mp_context=get_context("spawn"), max_tasks_per_child=1) as child,
            ):
                for _ in range(options.pairs):
                    for kind, runs in found.items():
                        runs.append(child.submit(read, *where, kind, loaded.messages).result())
                costs = child.submit(parts, *where).result()
            load = os.getloadavg()[0]
            print(f"\n{loaded.messages:,} records, {options.pairs} pairs, load now {load:.1f}; medians (range)")
            for kind, runs in found.items():
                _report(kind, runs, loaded.messages)
            print("\nprocessor seconds for a million records")
            for name, seconds in costs.items():
                print(f"  {name:70} {seconds:.3f}")
    except BenchmarkError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _report(kind: str, runs: list[Run], records: int) -> None:
    cpu = [run.cpu_seconds / records * 1e6 for run in runs]
    wall = statistics.median(records / run.wall_seconds for run in runs)
    seconds = f"{statistics.median(cpu):.3f} ({min(cpu):.3f} to {max(cpu):.3f}) processor seconds for a million records"
    run_records = statistics.median(records / run.runs for run in runs)
    peak, grown = (statistics.median(sizes) for sizes in zip(*((r.peak_mb, r.grown_mb) for r in runs), strict=True))
    print(
        f"{kind:13} {seconds}, {wall:,.0f}/s by the wall clock, {run_records:,.0f} records a run, "
        f"peak {peak:.0f} MB, of which reading {grown:.0f} MB"
    )


if __name__ == "__main__":
    sys.exit(main())
