"""How many order lines a second one core carries from a real Kafka to Parquet in S3, and what memory a backlog takes.

    python -m benchmarks.sink --orders 1000000
    python -m benchmarks.sink --orders 10000000 --runs 5 --hours 24
    python -m benchmarks.sink --orders 1000000 --peers plain-sink          # in turns with others, on the same core
    python -m benchmarks.sink --orders 200000 --set ROTATE_BYTES=4000000   # a small one: files have to be full

A topic is loaded once for each shape and kept in ``--work``; it is there whole before the sink starts, so the lag is
all of it. For each run ``python -m sink`` with ``LANES=archive`` starts on a core of its own with an empty bucket, and
its usual settings but for ROTATE_SECONDS. Broker, S3 (moto) and this harness share the other core.

A run ends when the done marks cover the topic's ends. Lines a second are counted from the first read (the group has a
member with partitions) to the last full file; the partitions' last pieces wait for the rotation's clock, which says
nothing of speed. Lines a second of processor time are counted from the first read to the end, for waiting takes none.
``with start`` is the same from the start of the process: the interpreter, its imports, compiling. The largest resident
set is the whole run's. ``servers`` is how busy the other core was: near
100 %, Kafka or moto was the limit. ``others`` is the share of the sink's core that somebody else used.

At the end every row of every object is compared with the topic's own messages: counts, sums, and a fingerprint of all
columns; in DuckDB, with nothing of the sink's code. A difference is an error. ``--peers`` are measured and compared
alike; what each leaves out is in ``benchmarks/peers/README.md``. Theirs are the messages that they have committed.
"""

import argparse
import json
import os
import shutil
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from benchmarks import command, stored, storing, topics
from benchmarks.lab import SERVERS_CORE, BenchmarkError, Lab, on_cores
from benchmarks.peers import sinks
from benchmarks.storing import BUCKET, Place, Run, Started

OURS = "sink"
ROTATE_SECONDS = "20"
"""How long the last pieces wait. Files should be cut by their size, and a run should end soon."""


class DoneMarks:
    """Follows each partition's chain of done marks, as they come.

    Args:
        place: whose bucket.
    """

    def __init__(self, place: Place) -> None:
        self._client = place.bucket.client
        self._stream = place.loaded.stream_id
        self._after = dict.fromkeys(place.loaded.ends, "origin")
        self.marks: list[dict[str, Any]] = []

    def progress(self) -> Mapping[str, int]:
        """See ``storing.Progress``."""
        for partition in self._after:
            while (mark := self._next(partition)) is not None:
                self.marks.append(mark)
                self._after[partition] = mark["end"]
        return {name: -1 if after == "origin" else int(after) for name, after in self._after.items()}

    def _next(self, partition: str) -> dict[str, Any] | None:
        key = f"_extents/{self._stream}/{partition}/{self._after[partition]}.done"
        try:
            found = self._client.get_object(Bucket=BUCKET, Key=key)["Body"].read()
        except self._client.exceptions.NoSuchKey:
            return None
        mark: dict[str, Any] = json.loads(found)
        return mark


def measure(place: Place, right: stored.Right, *, settings: Mapping[str, str], seconds: float) -> Run:
    """One run of the sink, with everything that it stored compared.

    Args:
        place: where.
        right: what has to be stored.
        settings: of the sink, beside those that the run needs.
        seconds: how long it may take.

    Raises:
        BenchmarkError: it ended, took too long, or stored something else.
    """
    lab, outputs = place.lab, {"ROLLUPS_STREAM": f"rollups-{place.name}", "DEAD_LETTERS_STREAM": f"dead-{place.name}"}
    for output in outputs.values():
        lab.wire.create(output, partitions=1, retention_hours=24)
    env = {
        **place.env,
        **outputs,
        "STREAM": "kafka",
        "KAFKA_BOOTSTRAP_SERVERS": lab.broker.address,
        "ORDERS_STREAM": place.loaded.shape.topic,
        "S3_BUCKET": BUCKET,
        "LANES": "archive",
        "SINK_GROUP": place.name,
        "ROTATE_SECONDS": ROTATE_SECONDS,
        **settings,
    }
    marks = DoneMarks(place)
    try:
        started = time.monotonic()
        child = lab.start(OURS, [sys.executable, "-m", "sink"], env, place.folder / "log")
        try:
            system = Started(child, f"{place.name}-archive-orders", marks.progress)
            run = storing.watch(place, system, right.totals.lines, started=started, seconds=seconds)
        except BaseException:
            child.stop()
            raise
        storing.stop(child)
    finally:
        for output in outputs.values():
            lab.wire.delete(output)
    rejected = sum(mark["rejected"] for mark in marks.marks)
    if rejected != right.malformed:
        raise BenchmarkError(f"the done marks count {rejected} malformed messages, the topic has {right.malformed}")
    found, sizes = storing.totals(place, stored.ARCHIVE, with_places=True)
    stored.compare(right.totals, found, OURS)
    return replace(run, objects=len(sizes), stored_mb=sum(sizes.values()) / 1e6)


def table(systems: Mapping[str, list[Run]]) -> str:
    """Each system's runs and their medians, for people."""
    head = (
        "                   messages     lines/s  with start  lines/CPU s  with start  peak MB  first s  steady s"
        "  whole s  objects  stored MB  servers  others   load"
    )

    def row(name: str, messages: int, figures: Mapping[str, float]) -> str:
        return (
            f"{name:17} {messages:>9,} {figures['lines_per_second']:>11,.0f}"
            f" {figures['lines_per_second_with_start']:>11,.0f} {figures['lines_per_cpu_second']:>12,.0f}"
            f" {figures['lines_per_cpu_second_with_start']:>11,.0f} {figures['peak_mb']:>8,.0f}"
            f" {figures['first_seconds']:>8.1f} {figures['steady_seconds']:>9.1f} {figures['whole_seconds']:>8.1f}"
            f" {figures['objects']:>8,.0f} {figures['stored_mb']:>10,.0f} {figures['servers']:>8.0%}"
            f" {figures['others']:>7.0%} {figures['load']:>6.1f}"
        )

    lines = [head]
    for name, runs in systems.items():
        lines += [row(f"{name} {number}", run.messages, run.figures) for number, run in enumerate(runs, start=1)]
        lines.append(row(f"{name} median", runs[0].messages, storing.medians(runs)))
    return "\n".join(lines)


def main() -> int:
    """Loads, runs, compares, prints."""
    parser = command.parser(__doc__)
    command.add_shape(parser, orders=1_000_000)
    parser.add_argument("--hours", dest="span", type=_hours, metavar="N", help="the same as --span, in hours")
    command.add_settings(parser)
    parser.add_argument(
        "--peers", nargs="*", choices=[*sinks.PEERS], default=[], help="other systems, in turns with ours"
    )
    parser.add_argument("--runs", type=int, default=5, help="default %(default)s")
    parser.add_argument("--seconds", type=float, default=900, help="a run may take; default %(default)s")
    return command.run(_work, parser.parse_args())


def _hours(text: str) -> int:
    return round(3600 * float(text))


def _work(lab: Lab, options: argparse.Namespace) -> None:
    settings = dict(options.set)
    shape = command.shape(options)
    systems: dict[str, list[Run]] = {OURS: [], **{name: [] for name in options.peers}}
    topics_of = {}
    for name in systems:
        most = shape.orders if name == OURS else min(shape.orders, sinks.PEERS[name].most)
        loaded = topics.load(lab, replace(shape, orders=most))
        topics_of[name] = (loaded, stored.right(lab, loaded))
    loaded, right = topics_of[OURS]
    print(
        f"{loaded.shape.topic}: {loaded.messages:,} messages, {right.malformed:,} of them bad, {right.totals.lines:,} "
        f"lines; {' '.join(f'{name}={value}' for name, value in settings.items()) or 'default settings'}"
    )
    failed = set()
    with on_cores(SERVERS_CORE):
        for number in range(1, options.runs + 1):
            for name in [name for name in systems if name not in failed]:
                try:
                    run = _run(lab, name, number, *topics_of[name], options)
                except BenchmarkError as error:
                    if name == OURS:
                        raise
                    failed.add(name)
                    sys.stderr.write(f"{error}\n")
                else:
                    systems[name].append(run)
                    sys.stderr.write(f"{name}: run {number} of {options.runs}: {run.whole_seconds:.1f} s\n")
    systems = {name: runs for name, runs in systems.items() if runs}
    print(table(systems))
    found = {
        "shape": asdict(shape),
        "settings": settings,
        "medians": {name: storing.medians(runs) for name, runs in systems.items()},
        "runs": {name: [asdict(run) | run.figures for run in runs] for name, runs in systems.items()},
    }
    command.keep(lab, options, found)
    if failed:
        raise BenchmarkError(f"failed: {' '.join(sorted(failed))}")


def _run(
    lab: Lab, name: str, number: int, loaded: topics.Loaded, right: stored.Right, options: argparse.Namespace
) -> Run:
    with storing.bucket(lab) as bucket:
        place = Place(lab, loaded, bucket, f"{name}-{os.getpid()}-{number}", lab.scratch(name))
        if name == OURS:
            run = measure(place, right, settings=dict(options.set), seconds=options.seconds)
        else:
            run = sinks.measure(place, name, right, seconds=options.seconds)
    shutil.rmtree(place.folder)  # a few hundred megabytes
    return run


if __name__ == "__main__":
    sys.exit(main())
