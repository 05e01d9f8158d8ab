"""Other systems on the same topic, with the same answers, on the same core.

    python -m benchmarks.peers tillstream naive naive-batched
    python -m benchmarks.peers tillstream flink --orders 1000000 --runs 3

Each runs as the only guest of its core until Redis holds the oracle's answer for everything that it can express, from
an empty state; what it can't express, and what it leaves out of a shop's duties, is in ``benchmarks/peers/README.md``.
A slow one runs on fewer orders, and the table says on how many. Each runs on a tenth of its orders as well: the
difference between the two is what a further order costs, without what starting costs. Packages are installed on demand
below ``--work``.
"""

import argparse
import os
import statistics
import sys
from dataclasses import asdict, dataclass, replace

from benchmarks import command, oracle, runs, topics
from benchmarks.lab import SERVERS_CORE, BenchmarkError, Lab, on_cores
from benchmarks.peers import systems
from benchmarks.peers.systems import Result

TILLSTREAM = "tillstream"


def _tillstream(lab: Lab, loaded: topics.Loaded, right: oracle.Answer, *, seconds: float, run: str) -> Result:
    ours = runs.measure(lab, loaded, right, settings={}, seconds=seconds, name=run)
    return Result(TILLSTREAM, ours.messages, ours.whole_seconds, ours.whole_cpu_seconds, ours.peak_mb, ours.others)


@dataclass(frozen=True, slots=True)
class Standing:
    """A system's runs on its topic, and on one with a tenth of the orders."""

    runs: list[Result]
    tenth: list[Result]

    def figures(self) -> dict[str, float]:
        """Medians; and what a further order costs, which is the difference of the two topics without the start."""
        whole, tenth = self.runs[0].messages, self.tenth[0].messages
        seconds = _median(self.runs, "seconds")
        cpu = _median(self.runs, "cpu_seconds")
        further = whole - tenth
        return {
            "messages": whole,
            "seconds": seconds,
            "orders_per_second": whole / seconds,
            "further_orders_per_second": further / max(seconds - _median(self.tenth, "seconds"), 1e-9),
            "cpu_seconds_per_million": cpu / whole * 1e6,
            "further_cpu_seconds_per_million": (cpu - _median(self.tenth, "cpu_seconds")) / further * 1e6,
            "peak_mb": _median(self.runs, "peak_mb"),
            "others": _median(self.runs, "others"),
        }


def _median(results: list[Result], name: str) -> float:
    return float(statistics.median(getattr(result, name) for result in results))


def table(standings: dict[str, Standing]) -> str:
    """For people."""
    lines = ["                                  whole run            each further order"]
    lines.append("system              messages    wall s  orders/s  CPU s/M  orders/s  CPU s/M  peak MB  others")
    for name, standing in standings.items():
        found = standing.figures()
        lines.append(
            f"{name:16} {found['messages']:>11,} {found['seconds']:>9.1f} {found['orders_per_second']:>9,.0f}"
            f" {found['cpu_seconds_per_million']:>8,.1f} {found['further_orders_per_second']:>9,.0f}"
            f" {found['further_cpu_seconds_per_million']:>8,.1f} {found['peak_mb']:>8,.0f} {found['others']:>7.0%}"
        )
    return "\n".join(lines)


def main() -> int:
    """Runs the systems one after another; a peer that fails is told of, and the others run."""
    parser = command.parser(__doc__)
    parser.add_argument("systems", nargs="+", choices=[TILLSTREAM, *systems.PEERS])
    command.add_shape(parser, orders=100_000)
    parser.add_argument("--runs", type=int, default=3, help="default %(default)s")
    parser.add_argument("--seconds", type=float, default=900, help="a run may take; default %(default)s")
    return command.run(_work, parser.parse_args())


def _work(lab: Lab, options: argparse.Namespace) -> None:
    standings: dict[str, Standing] = {}
    failed = []
    for name in options.systems:
        try:
            standings[name] = _stand(lab, name, options)
        except BenchmarkError as error:
            failed.append(name)
            sys.stderr.write(f"{error}\n")
    print(table(standings))
    found = {
        "systems": {name: standing.figures() for name, standing in standings.items()},
        "runs": {name: asdict(standing) for name, standing in standings.items()},
    }
    command.keep(lab, options, found)
    if failed:
        raise BenchmarkError(f"without figures: {' '.join(failed)}")


def _stand(lab: Lab, name: str, options: argparse.Namespace) -> Standing:
    shape = command.shape(options)
    orders = shape.orders if name == TILLSTREAM else min(shape.orders, systems.PEERS[name].most)
    found = {}
    for size in (orders // 10, orders):
        loaded = topics.load(lab, replace(shape, orders=size))
        right = oracle.answer(lab, loaded)
        found[size] = _runs(lab, name, loaded, right, options)
    return Standing(found[orders], found[orders // 10])


def _runs(
    lab: Lab, name: str, loaded: topics.Loaded, right: oracle.Answer, options: argparse.Namespace
) -> list[Result]:
    results = []
    with on_cores(SERVERS_CORE):
        for number in range(1, options.runs + 1):
            run = f"{os.getpid()}-{loaded.shape.orders}-{number}"  # its group, and so its state: never another's
            if name == TILLSTREAM:
                result = _tillstream(lab, loaded, right, seconds=options.seconds, run=run)
            else:
                result = systems.measure(lab, name, loaded, right, seconds=options.seconds, run=run)
            results.append(result)
            sys.stderr.write(
                f"{name}: run {number} of {options.runs}, {loaded.messages:,} messages: {result.seconds:.1f} s, "
                "answers equal\n"
            )
    return results


if __name__ == "__main__":
    sys.exit(main())
