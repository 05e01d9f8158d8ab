"""``python -m deploy.monitoring.dashboards``: writes the dashboards and the operator's rules, or says what is old."""

import argparse
import sys
from pathlib import Path

from deploy.monitoring.dashboards.business import business
from deploy.monitoring.dashboards.panels import RUNBOOK
from deploy.monitoring.dashboards.pipeline import pipeline
from deploy.monitoring.dashboards.resources import resources
from deploy.monitoring.dashboards.rule import prometheus_rule
from grafana_foundation_sdk.builders.dashboard import Dashboard
from grafana_foundation_sdk.cog.encoder import JSONEncoder

HERE = Path(__file__).parents[1]


def files(currency: str, docs: str = RUNBOOK) -> dict[Path, str]:
    """Every file that is written, with what it holds.

    Args:
        currency: of the dashboards' amounts, ISO 4217.
        docs: where the runbook is to be read.
    """
    boards = {"business": business(currency), "pipeline": pipeline(), "resources": resources()}
    folder = HERE / "grafana" / "dashboards"
    texts = {folder / f"{name}.json": _as_json(board) for name, board in boards.items()}
    texts[HERE / "prometheusrule.yaml"] = prometheus_rule()
    return {path: text.replace(f"{RUNBOOK}#", f"{docs}#") for path, text in texts.items()}


def _as_json(board: Dashboard) -> str:
    built = board.build()
    for number, panel in enumerate(built.panels or [], start=1):
        panel.id_val = number  # addresses of panels have it; Grafana would number them anew
    return JSONEncoder(sort_keys=True, indent=2).encode(built) + "\n"


def main() -> int:
    """Writes, or with ``--check`` only compares; the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m deploy.monitoring.dashboards",
        description="Writes grafana/dashboards/*.json and prometheusrule.yaml from this folder and rules/.",
        epilog="for a shop in pounds, with links that lead somewhere: python -m deploy.monitoring.dashboards "
        "--currency GBP --docs https://git.example.com/tillstream/docs/operations.md",
    )
    parser.add_argument("--currency", default="USD", help="of the amounts, as CURRENCY has it (default: USD)")
    parser.add_argument(
        "--docs", default=RUNBOOK, help="address of the runbook, in alerts and panels (default: %(default)s)"
    )
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 when a file is old")
    arguments = parser.parse_args()
    texts = files(arguments.currency, arguments.docs)
    old = [path for path, text in texts.items() if not path.is_file() or path.read_text() != text]
    for path in old:
        if not arguments.check:
            path.write_text(texts[path])
        sys.stdout.write(f"{'old' if arguments.check else 'written'}: {path.relative_to(HERE.parents[1])}\n")
    return int(arguments.check and bool(old))


if __name__ == "__main__":
    sys.exit(main())
