"""The rules as the Prometheus operator takes them: the same groups, as an object of its kind."""

from pathlib import Path
from typing import Any

import yaml

RULES = Path(__file__).parents[1] / "rules" / "tillstream.yml"
MONITOR = Path(__file__).parents[1] / "podmonitor.yaml"


class _Readable(yaml.SafeDumper):
    """Expressions of several lines as blocks."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Readable.add_representer(str, _text)


def _labels() -> dict[str, str]:
    """Those that the rest of the component has."""
    return dict(yaml.safe_load(MONITOR.read_text())["metadata"]["labels"])


def prometheus_rule() -> str:
    """A PrometheusRule, as YAML."""
    groups: dict[str, Any] = yaml.safe_load(RULES.read_text())
    document = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {
            "name": "tillstream",
            "labels": _labels(),
        },
        "spec": groups,
    }
    heading = f"# Written by `python -m deploy.monitoring.dashboards` from rules/{RULES.name}: change that.\n"
    return heading + yaml.dump(document, Dumper=_Readable, sort_keys=False, width=120)
