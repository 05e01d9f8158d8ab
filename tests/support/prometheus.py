"""A real Prometheus and its promtool, and what rules and dashboards ask it.

Both programs are looked for in the folder that PROMETHEUS names, then on PATH (Debian: package `prometheus`).
"""

import json
import os
import re
import shutil
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

MONITORING = Path(__file__).parents[2] / "deploy" / "monitoring"
RULES = MONITORING / "rules" / "tillstream.yml"

SECONDS = 120.0
"""What promtool checks takes a second; a busy machine is slower."""


def program(name: str) -> str:
    """The path of ``prometheus`` or ``promtool``; skips the test where there is none."""
    path = shutil.which(name, path=os.environ.get("PROMETHEUS")) or shutil.which(name)
    if path is None:
        lacks = f"no {name}: PROMETHEUS names its folder, or Debian's package prometheus has it"
        if "prometheus" in os.environ.get("TILLSTREAM_REQUIRE", "").split(","):
            pytest.fail(f"TILLSTREAM_REQUIRE asks for prometheus: {lacks}")
        pytest.skip(lacks)
    return path


def promtool(*arguments: str | Path) -> tuple[int, str]:
    """Its exit code and all that it says."""
    done = subprocess.run(
        [program("promtool"), *map(str, arguments)], capture_output=True, text=True, timeout=SECONDS, check=False
    )
    return done.returncode, done.stdout + done.stderr


def rules() -> list[dict[str, Any]]:
    """Every rule of the file, in its order."""
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def alerts() -> list[dict[str, Any]]:
    """Every rule that is an alert."""
    return [rule for rule in rules() if "alert" in rule]


def dashboards() -> dict[str, dict[str, Any]]:
    """Each dashboard as Grafana reads it, by its file's name."""
    return {path.stem: json.loads(path.read_text()) for path in sorted((MONITORING / "grafana/dashboards").glob("*"))}


def panels(dashboard: dict[str, Any]) -> list[dict[str, Any]]:
    """Those that show something."""
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def expressions(dashboard: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """What a dashboard asks: of which panel or mark, and the expression as it is written."""
    for panel in panels(dashboard):
        for target in panel["targets"]:
            yield f"{panel['title']} {target['refId']}", target["expr"]
    for mark in dashboard["annotations"]["list"]:
        yield mark["name"], mark["expr"]


def filled_in(expression: str, **variables: str) -> str:
    """An expression with values for its variables, as Grafana sends it."""
    return re.sub(r"\$(\w+)", lambda found: variables[found[1]], expression)


class Prometheus:
    """A running server, asked over HTTP."""

    def __init__(self, address: str) -> None:
        self._address = address

    def ready(self) -> bool:
        """Whether it answers."""
        try:
            with urllib.request.urlopen(f"{self._address}/-/ready", timeout=5):  # noqa: S310 (our own)
                return True
        except OSError:
            return False

    def ask(self, expression: str) -> list[dict[str, Any]]:
        """The series that an expression has now."""
        return list(self._get("query", query=expression)["result"])

    def rules(self) -> dict[str, str]:
        """The last error of each rule, "" without one."""
        groups = self._get("rules")["groups"]
        return {rule["name"]: rule.get("lastError", "") for group in groups for rule in group["rules"]}

    def _get(self, what: str, **parameters: str) -> Any:
        query = urllib.parse.urlencode(parameters)
        with urllib.request.urlopen(f"{self._address}/api/v1/{what}?{query}", timeout=30) as answer:  # noqa: S310 (our own)
            return json.load(answer)["data"]
