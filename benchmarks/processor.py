"""How fast the processor empties a topic: real Kafka, real Redis, every answer compared with DuckDB.

    python -m benchmarks.processor --orders 1000000
    python -m benchmarks.processor --orders 10000000 --products 100000 --partitions 16 --bad 0.001 --runs 5

A topic is loaded once for each shape and kept in ``--work``. Then, for each run, ``python -m processor`` starts on a
core of its own with an empty recovery directory, its memory of identities and its snapshots as always, and the clock
of the events. Broker, Redis and this harness share the other core. Three moments are noted:

start    the process is started
first    ``sales:positions`` is there: the first tick that speaks of orders was published
end      ``sales:positions`` covers the topic's ends: every message is in the numbers that Redis holds

``whole`` is start to end, everything included: the interpreter, its imports, compiling. ``steady`` is first to end, and
counts only messages that were not in the first tick: what it does for as long as it runs. At the end all five windows
are compared with the oracle, and a difference is an error. Processor time and the largest resident set are those of the
whole session of processes. "Others" is the share of the system's core that somebody else used: figures with more than
a few percent there belong to a busy machine.
"""

import argparse
import os
import sys
from dataclasses import asdict

from benchmarks import command, oracle, topics
from benchmarks.lab import SERVERS_CORE, Lab, on_cores
from benchmarks.runs import Run, measure, medians


def table(runs: list[Run]) -> str:
    """The runs and their medians, for people."""
    head = "       steady/s     whole/s  CPU s/M steady  CPU s/M whole   first s   whole s   peak MB  others   load"

    def row(name: str, figures: dict[str, float]) -> str:
        return (
            f"{name:6} {figures['steady_orders_per_second']:>8,.0f} {figures['whole_orders_per_second']:>11,.0f}"
            f" {figures['steady_cpu_seconds_per_million']:>15.2f} {figures['whole_cpu_seconds_per_million']:>14.2f}"
            f" {figures['first_seconds']:>9.1f} {figures['whole_seconds']:>9.1f} {figures['peak_mb']:>9,.0f}"
            f" {figures['others']:>7.0%} {figures['load']:>6.1f}"
        )

    rows = [row(str(number), run.figures) for number, run in enumerate(runs, start=1)]
    return "\n".join([head, *rows, row("median", medians(runs))])


def main() -> int:
    """Loads, runs, compares, prints."""
    parser = command.parser(__doc__)
    command.add_shape(parser, orders=300_000)
    command.add_settings(parser)
    parser.add_argument("--runs", type=int, default=5, help="default %(default)s")
    parser.add_argument("--seconds", type=float, default=900, help="a run may take; default %(default)s")
    return command.run(_work, parser.parse_args())


def _work(lab: Lab, options: argparse.Namespace) -> None:
    settings = dict(options.set)
    loaded = topics.load(lab, command.shape(options))
    right = oracle.answer(lab, loaded)
    print(
        f"{loaded.shape.topic}: {loaded.messages:,} messages, {right.bad:,} of them bad; "
        f"{' '.join(f'{name}={value}' for name, value in settings.items()) or 'default settings'}"
    )
    runs = []
    with on_cores(SERVERS_CORE):
        for number in range(1, options.runs + 1):
            name = f"{os.getpid()}-{number}"
            run = measure(lab, loaded, right, settings=settings, seconds=options.seconds, name=name)
            runs.append(run)
            sys.stderr.write(f"run {number} of {options.runs}: {run.whole_seconds:.1f} s, answers equal\n")
    print(table(runs))
    found = {
        "shape": asdict(loaded.shape),
        "messages": loaded.messages,
        "settings": settings,
        "median": medians(runs),
        "runs": [run.figures for run in runs],
    }
    command.keep(lab, options, found)


if __name__ == "__main__":
    sys.exit(main())
