"""The figures of `benchmarks.growth` and `benchmarks.snapshots` as SVG, one file a series, for light and dark pages.

    python -m benchmarks.growth all --json growth.json
    python -m benchmarks.plots growth.json docs/benchmarks

It needs matplotlib (``pip install --require-hashes -r requirements/bench.txt``) and nothing else of the project.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

GREY, BLUE, ORANGE = "#808080", "#3d8bd4", "#d9822b"
"""Each has a contrast of 3 and more to white and to the dark of GitHub's pages."""
WIDE_RATIO = 20
"""From the least to the most: beyond this an axis is logarithmic."""

mpl.rcParams.update(
    {
        "svg.fonttype": "none",  # text stays text
        "svg.hashsalt": "tillstream",  # the same figures give the same file
        "font.family": "sans-serif",
        "font.size": 10,
        "text.color": GREY,
        "axes.edgecolor": GREY,
        "axes.labelcolor": GREY,
        "xtick.color": GREY,
        "ytick.color": GREY,
        "axes.spines.top": False,
        "axes.spines.right": False,
    }
)


def draw(path: Path, axis: str, at: Sequence[float], panels: Sequence[tuple[str, str, Sequence[float]]]) -> None:
    """One file: beside one another a panel for each figure, over the same axis.

    Args:
        path: to write.
        axis: what grows, in words.
        at: how much there was of it.
        panels: title, colour and values.
    """
    figure = Figure(figsize=(4.2 * len(panels), 3.2), layout="constrained")
    for place, (title, colour, values) in enumerate(panels, start=1):
        axes = figure.add_subplot(1, len(panels), place)
        axes.plot(at, values, color=colour, marker="o", linewidth=2)
        axes.set_title(title, fontsize=10, loc="left")
        axes.set_ylim(bottom=0, top=max(values) * 1.15 or 1)
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
        axes.grid(axis="y", color=GREY, alpha=0.25)
        _scale(axes, at)
    figure.supxlabel(axis, fontsize=10)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, transparent=True, metadata={"Date": None, "Creator": None})


def _scale(axes: Axes, at: Sequence[float]) -> None:
    least = min(value for value in at if value > 0)
    if max(at) / least > WIDE_RATIO:
        axes.set_xscale("symlog", linthresh=least) if min(at) == 0 else axes.set_xscale("log")
        axes.set_xlim(-0.2 * least if min(at) == 0 else least / 1.3, max(at) * 1.3)
        axes.minorticks_off()
    axes.set_xticks(at, [_short(value) for value in at])


def _short(value: float) -> str:
    if value >= 1e6:
        return f"{value / 1e6:g}M"
    return f"{value / 1e3:g}k" if value >= 1e3 else f"{value:g}"


def growth(document: dict[str, Any], folder: Path) -> list[Path]:
    """A file for each series."""
    written = []
    for name, points in document["series"].items():
        panels = [
            ("orders a second", BLUE, [point["steady_orders_per_second"] for point in points]),
            ("CPU seconds for a million orders", BLUE, [point["steady_cpu_seconds_per_million"] for point in points]),
            ("largest resident set, MB", ORANGE, [point["peak_mb"] for point in points]),
        ]
        written.append(folder / f"growth-{name}.svg")
        draw(written[-1], document["axes"][name], [point["at"] for point in points], panels)
    return written


def snapshots(document: dict[str, Any], folder: Path) -> list[Path]:
    """A file over what is kept, or over the rate, or both: whichever was measured at more than one place."""
    written = []
    for by, other, axis in (
        ("kept", "rate", "products kept, at {:,} orders a second of others"),
        ("rate", "kept", "orders a second, with {:,} products kept"),
    ):
        first = document["snapshots"][0][other]
        points = [one for one in document["snapshots"] if one[other] == first]
        if len({point[by] for point in points}) > 1:
            panels = [
                ("bytes of a snapshot, median", BLUE, [point["bytes_p50"] for point in points]),
                ("ms of a snapshot, 99th percentile", ORANGE, [point["p99_ms"] for point in points]),
            ]
            written.append(folder / f"snapshots-{by}.svg")
            draw(written[-1], axis.format(first), [point[by] for point in points], panels)
    return written


def main() -> int:
    """Draws what there is and says where."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("json", type=Path, nargs="+", help="written by --json")
    parser.add_argument("folder", type=Path, help="to write into")
    options = parser.parse_args()
    for path in options.json:
        document = json.loads(path.read_text())
        drawn = growth if "series" in document else snapshots
        for written in drawn(document, options.folder):
            print(written)
    return 0


if __name__ == "__main__":
    sys.exit(main())
