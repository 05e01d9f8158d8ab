"""What an order costs the processor as one thing grows, and all else stays.

    python -m benchmarks.growth products windows --orders 1000000 --json growth.json
    python -m benchmarks.growth all --orders 1000000 --json growth.json
    python -m benchmarks.plots growth.json docs/benchmarks

Each point is a run of ``python -m benchmarks.processor`` on a topic of its own: from an empty state to the end of the
topic, on a core of its own, all answers compared with the oracle's. Beside the one thing that a series changes, a topic
has ``--orders`` orders of 10,000 products in 4 partitions, spread over two hours, in order, and the processor its
default settings. Topics and answers are kept in ``--work``, so only the first time takes long.
"""

import argparse
import json
import os
import statistics
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from benchmarks import command, oracle, runs, topics
from benchmarks.lab import SERVERS_CORE, Lab, on_cores
from benchmarks.topics import Shape

from sales.countries import REGION_OF

MINUTE, HOUR = 60_000, 3_600_000
WINDOWS = {
    "24h": (24 * HOUR, 15 * MINUTE),
    "1m": (MINUTE, 1_000),
    "1h": (HOUR, MINUTE),
    "5m": (5 * MINUTE, 5_000),
    "15m": (15 * MINUTE, 15_000),
    "2m": (2 * MINUTE, 1_000),
    "10m": (10 * MINUTE, 5_000),
    "30m": (30 * MINUTE, 15_000),
    "3h": (3 * HOUR, MINUTE),
    "12h": (12 * HOUR, MINUTE),
}
"""Name to length and pane (ms), in the order in which the series takes them. The longest is always there, since it says
how long identities are remembered; the panes are the same however many others there are."""

DAY_SECONDS = 86_400
COUNTRIES = len(REGION_OF)


@dataclass(frozen=True, slots=True)
class Point:
    """One run of a series."""

    at: float
    """how much there is of what grows"""
    shape: Shape
    settings: Mapping[str, str] = field(default_factory=dict)
    question: oracle.Question = oracle.USUAL
    only: str = ""
    """regular expression of the keys to compare"""


@dataclass(frozen=True, slots=True)
class Series:
    """What grows."""

    axis: str
    """in words, with its unit"""
    points: Callable[[Shape], Iterable[Point]]
    """from the shape that all else has"""


def _windows(names: Iterable[str]) -> dict[str, Any]:
    """What a point with these windows differs in; the oracle answers for all of them at once."""
    return {
        "settings": {"WINDOWS": " ".join(names)},
        "question": oracle.Question(windows=WINDOWS),
        "only": f"(?:{'|'.join(names)}):.*",
    }


def _regions(base: Shape, regions: int) -> Point:
    """Every country there is, in so many regions."""
    region_of = {country: f"R{number % regions}" for number, country in enumerate(sorted(REGION_OF))}
    return Point(
        regions,
        replace(base, countries=COUNTRIES),
        {"REGION_OVERRIDES": json.dumps(region_of)},
        oracle.Question(region_of=region_of),
    )


SERIES = {
    "products": Series(
        "products in the catalogue",
        lambda base: [Point(n, replace(base, products=n)) for n in (1_000, 10_000, 100_000, 300_000, 1_000_000)],
    ),
    "windows": Series(
        "rolling windows, the longest 24 h",
        lambda base: [Point(n, base, **_windows(list(WINDOWS)[:n])) for n in (1, 2, 3, 5, 7, 10)],
    ),
    "countries": Series(
        "countries", lambda base: [Point(n, replace(base, countries=n)) for n in (1, 5, 20, 100, COUNTRIES)]
    ),
    "regions": Series(
        f"regions of {COUNTRIES} countries", lambda base: [_regions(base, n) for n in (1, 5, 50, COUNTRIES)]
    ),
    "partitions": Series(
        "partitions of the topic",
        lambda base: [Point(n, replace(base, partitions=n)) for n in (1, 2, 4, 16, 64)],
    ),
    "late": Series(
        "share of orders up to 30 s behind others (their minute is still open)",
        lambda base: [Point(share, replace(base, out_of_order=share)) for share in (0.0, 0.01, 0.05, 0.2, 0.5)],
    ),
    "repair": Series(
        "share of orders 2 min to 20 h late (their minute's rollups are sent again)",
        lambda base: [Point(share, replace(base, late=share)) for share in (0.0, 0.001, 0.01, 0.05, 0.2)],
    ),
    "horizon": Series(
        "longest window, hours (identities are kept for half an hour more), of a topic that spans 24 h",
        lambda base: [
            Point(hours, replace(base, span_seconds=DAY_SECONDS), **_windows(["1m", name]))
            for hours, name in ((0.25, "15m"), (1, "1h"), (3, "3h"), (12, "12h"), (24, "24h"))
        ],
    ),
    "span": Series(
        "event time from the first order to the last, hours",
        lambda base: [
            Point(seconds / 3600, replace(base, span_seconds=seconds)) for seconds in (600, 3600, 7200, 21_600, 86_400)
        ],
    ),
}


def measure(lab: Lab, name: str, options: argparse.Namespace) -> list[dict[str, float]]:
    """The figures of each point of a series: medians of its runs, under ``at`` how much there was of what grows.

    Raises:
        BenchmarkError: a run failed, or its numbers are wrong.
    """
    settings = dict(options.set)
    found = []
    for point in SERIES[name].points(Shape(orders=options.orders)):
        loaded = topics.load(lab, point.shape)
        right = oracle.answer(lab, loaded, point.question)
        with on_cores(SERVERS_CORE):
            results = [
                runs.measure(
                    lab,
                    loaded,
                    right,
                    settings={**settings, **point.settings},
                    seconds=options.seconds,
                    name=f"{os.getpid()}-{number}",
                    only=point.only,
                )
                for number in range(options.runs)
            ]
        cpu = [result.figures["steady_cpu_seconds_per_million"] for result in results]
        found.append({"at": point.at, **runs.medians(results), "cpu_least": min(cpu), "cpu_most": max(cpu)})
        sys.stderr.write(f"{name} {point.at:g}: {statistics.median(cpu):.2f} CPU s/M, answers equal\n")
    return found


def table(found: dict[str, list[dict[str, float]]]) -> str:
    """For people."""
    lines = []
    for name, points in found.items():
        lines += ["", f"{name}: {SERIES[name].axis}"]
        lines.append("           at    steady/s  CPU s/M (least to most)   peak MB  others   load")
        lines += [
            f"{one['at']:>13,.10g} {one['steady_orders_per_second']:>11,.0f}"
            f" {one['steady_cpu_seconds_per_million']:>8.2f} ({one['cpu_least']:.2f} to {one['cpu_most']:.2f})"
            f" {one['peak_mb']:>10,.0f} {one['others']:>7.0%} {one['load']:>6.1f}"
            for one in points
        ]
    return "\n".join(lines)


def main() -> int:
    """Measures series after series and prints."""
    parser = command.parser(__doc__)
    parser.add_argument(
        "series",
        nargs="+",
        choices=["all", *SERIES],
        help="; ".join(f"{name}: {series.axis}" for name, series in SERIES.items()),
    )
    command.add_settings(parser)
    parser.add_argument("--orders", type=int, default=1_000_000, help="good orders of a topic; default %(default)s")
    parser.add_argument("--runs", type=int, default=1, help="of each point; default %(default)s")
    parser.add_argument("--seconds", type=float, default=900, help="a run may take; default %(default)s")
    return command.run(_work, parser.parse_args())


def _work(lab: Lab, options: argparse.Namespace) -> None:
    found = {}
    for name in SERIES if "all" in options.series else options.series:
        found[name] = measure(lab, name, options)
        command.keep(
            lab,
            options,
            {
                "orders": options.orders,
                "runs": options.runs,
                "axes": {one: SERIES[one].axis for one in found},
                "series": found,
            },
        )
    print(table(found))


if __name__ == "__main__":
    sys.exit(main())
