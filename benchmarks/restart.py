"""How long after kill -9 the numbers are fresh again, with a day's orders as state and more coming in.

    python -m benchmarks.restart --orders 10000000 --kills 20 --rate 20000

A topic gets ``--orders`` orders whose event times end now, and the processor reads them all. Then orders dated with the
clock on the wall come at ``--rate``. Some seconds later, at a moment drawn at random, the stream's ends are noted, the
processor is killed and started again at once. What is measured runs from this start to

first      the first tick of the new process
fresh      the first tick whose ``sales:positions`` cover what the stream held at the kill

and beside it stands where the time went, as the new process's own log has it:

until ready   the interpreter, imports, connections, compiled code from its cache: until it says what it reads
numbers       reading the journal of the numbers back
identities    going over the journals of the identities, all slots
the rest      the engine's start, and catching up from the last snapshot

At the end the rest of the stream is read, and as many orders must have been accepted as the stream holds: nothing lost,
nothing twice. The processor has a core for itself; broker, Redis, generator and harness share the other.
"""

import argparse
import os
import random
import re
import signal
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime

import numpy as np
from benchmarks import command, paced, runs, topics
from benchmarks.lab import SERVERS_CORE, BenchmarkError, Lab, on_cores

from sales.streams import Stream
from sales.times import parse_time
from tillstream.local.nursery import Child

FIRST_SECONDS = 900.0
"""How long reading the whole stream may take."""
FRESH_SECONDS = 120.0
KILL_SECONDS = 10.0
SEED = 1
APART_SECONDS = (3.0, 6.0)
"""From a fresh tick to the next kill: three snapshots at least, at no fixed phase of them."""

_TOOK = re.compile(r"in (\d+\.\d+) s$")
_STAMP = len("2026-11-20 16:40:31,123")


@dataclass(frozen=True, slots=True)
class Restart:
    """One kill; seconds from the start of the new process."""

    first: float
    fresh: float
    until_ready: float
    numbers: float
    identities: float
    missed: int
    """messages that the stream held at the kill beyond the positions that Redis showed"""

    @property
    def rest(self) -> float:
        """Of ``fresh``, what no line of the log accounts for."""
        return self.fresh - self.until_ready - self.numbers - self.identities


def measure(lab: Lab, options: argparse.Namespace) -> list[Restart]:
    """All kills, on a topic that is deleted afterwards.

    Raises:
        BenchmarkError: the processor did not come back, or has lost or doubled something.
    """
    name = f"restart-{os.getpid()}"
    shape = command.shape(options)
    start = time.time_ns() // 1_000_000 - shape.span_seconds * 1000
    dice = random.Random(SEED)  # noqa: S311 (the same pauses each time)
    try:
        loaded = topics.send(lab, shape, name, start)
        stream = lab.wire.open(name)
        settings = dict(options.set)
        with (
            on_cores(SERVERS_CORE),
            runs.place(lab, name, partitions=shape.partitions, settings=settings, name=name) as place,
        ):
            child = place.start()
            _until(lab, child, loaded.stream_id, loaded.ends, FIRST_SECONDS)
            sys.stderr.write(f"{loaded.messages:,} messages are in the numbers\n")
            generator = paced.generate(lab, name, rate=options.rate, orders=0, products=options.products)
            found = []
            for number in range(options.kills):
                child.wait(dice.uniform(*APART_SECONDS))
                runs.check(child, float("inf"), "runs")
                paced.has_ended(generator)
                ends = _ends(stream)
                missed = sum(ends.values()) - sum(runs.applied(lab, stream.id, ends).values())
                child.signal(signal.SIGKILL)
                child.wait(KILL_SECONDS)
                child, restart = _restart(lab, place, stream.id, ends, missed)
                found.append(restart)
                sys.stderr.write(f"kill {number + 1} of {options.kills}: fresh after {restart.fresh:.2f} s\n")
            generator.stop()
            ends = _ends(stream)
            _until(lab, child, stream.id, ends, FIRST_SECONDS)
            accepted = int(lab.client.hget(f"{runs.PREFIX}status", "accepted") or 0)
            if accepted != sum(end + 1 for end in ends.values()):
                raise BenchmarkError(f"{accepted:,} orders of {sum(ends.values()) + len(ends):,} were accepted")
            place.stop(child)
            return found
    finally:
        lab.wire.delete(name)


def _restart(
    lab: Lab, place: runs.Place, stream_id: str, ends: Mapping[str, int], missed: int
) -> tuple[Child, Restart]:
    """Starts a processor and waits until it is fresh; what Redis shows so far is of the one before."""
    killed_ms = time.time_ns() // 1_000_000
    started, started_wall = time.monotonic(), time.time()
    child = place.start()
    first: float | None = None
    while True:
        at = lab.client.hget(f"{runs.PREFIX}status", "published_at")
        if first is None and at is not None and parse_time(at.decode()) > killed_ms:
            first = time.monotonic() - started
        if first is not None and _covers(lab, stream_id, ends):
            fresh = time.monotonic() - started
            break
        runs.check(child, started + FRESH_SECONDS, "is not fresh again")
        time.sleep(runs.POLL_SECONDS)
    ready, numbers, identities = _split(child.last_lines(), started_wall)
    return child, Restart(first, fresh, ready, numbers, identities, missed)


def _split(lines: list[str], started: float) -> tuple[float, float, float]:
    """From a process's log: seconds until it was ready to read, for the numbers, and for the identities."""
    [ready] = [line for line in lines if " processor: reading " in line]
    stamp = datetime.strptime(ready[:_STAMP], "%Y-%m-%d %H:%M:%S,%f").astimezone(UTC)

    def took(what: str) -> float:
        return sum(float(match[1]) for line in lines if what in line and (match := _TOOK.search(line)))

    return stamp.timestamp() - started, took("of numbers read back"), took("identities found")


def _until(lab: Lab, child: Child, stream_id: str, ends: Mapping[str, int], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not _covers(lab, stream_id, ends):
        runs.check(child, deadline, "is not at the end of the topic")
        time.sleep(runs.POLL_SECONDS)


def _covers(lab: Lab, stream_id: str, ends: Mapping[str, int]) -> bool:
    shown = runs.applied(lab, stream_id, ends)
    return all(shown[partition] >= end for partition, end in ends.items())


def _ends(stream: Stream) -> dict[str, int]:
    return {partition: -1 if end is None else end for partition, end in stream.ends().items()}


def summary(found: list[Restart]) -> dict[str, dict[str, float]]:
    """p50, p95 and the largest of each figure."""
    names = [*(each.name for each in fields(Restart)), "rest"]
    columns = {name: [getattr(one, name) for one in found] for name in names}
    return {
        name: {"p50": float(np.percentile(values, 50)), "p95": float(np.percentile(values, 95)), "max": max(values)}
        for name, values in columns.items()
    }


def table(found: list[Restart]) -> str:
    """For people."""
    lines = [f"{f'{len(found)} kills, seconds':20}       p50      p95      max"]
    lines += [
        f"{name.replace('_', ' '):20} {row['p50']:>9,.2f} {row['p95']:>8,.2f} {row['max']:>8,.2f}"
        for name, row in summary(found).items()
    ]
    return "\n".join(lines)


def main() -> int:
    """Loads, kills, prints."""
    parser = command.parser(__doc__)
    command.add_shape(parser, orders=1_000_000)
    command.add_settings(parser)
    parser.add_argument("--kills", type=int, default=5, help="default %(default)s")
    parser.add_argument("--rate", type=int, default=20_000, help="orders a second meanwhile; default %(default)s")
    return command.run(_work, parser.parse_args())


def _work(lab: Lab, options: argparse.Namespace) -> None:
    found = measure(lab, options)
    print(table(found))
    command.keep(
        lab,
        options,
        {"shape": asdict(command.shape(options)), "summary": summary(found), "kills": [asdict(one) for one in found]},
    )


if __name__ == "__main__":
    sys.exit(main())
