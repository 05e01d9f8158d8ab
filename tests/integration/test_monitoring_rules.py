"""Prometheus' own tool has the word on settings and rules, and on when each alert fires."""

import re
from pathlib import Path

import pytest
import yaml

from support.prometheus import MONITORING, RULES, alerts, promtool

OPERATIONS = Path(__file__).parents[2] / "docs" / "operations.md"
TESTS = RULES.parent / "tests"


def test_the_settings_and_the_rules_they_load_are_right() -> None:
    code, said = promtool("check", "config", MONITORING / "prometheus.yml")
    assert code == 0, said
    assert "rules found" in said


def test_the_relabelling_that_is_documented_is_right(tmp_path: Path) -> None:
    section = OPERATIONS.read_text().split("\n## Monitoring\n")[1]
    [block] = re.findall(r"```yaml\n(relabel_configs:.*?)```", section, re.DOTALL)
    job = {"job_name": "pods", **yaml.safe_load(block)}  # how pods are found, not every build of promtool knows
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump({"scrape_configs": [job]}))
    code, said = promtool("check", "config", tmp_path / "prometheus.yml")
    assert code == 0, said


@pytest.mark.parametrize("path", sorted(TESTS.glob("*.yml")), ids=lambda path: path.stem)
def test_alerts_fire_in_their_case_and_are_silent_on_an_ordinary_day(path: Path) -> None:
    code, said = promtool("test", "rules", path)
    assert code == 0, said


def test_each_alert_has_a_case_in_which_it_fires() -> None:
    cases = yaml.safe_load((TESTS / "alerts.yml").read_text())["tests"]
    asked = [
        sample["labels"] for case in cases for ask in case.get("promql_expr_test", []) for sample in ask["exp_samples"]
    ]
    fired = [labels for labels in asked if 'alertstate="firing"' in labels]
    assert {name for labels in fired for name in re.findall(r'alertname="(\w+)"', labels)} == {
        alert["alert"] for alert in alerts()
    }


def test_the_ordinary_day_has_every_series_that_a_rule_asks_for() -> None:
    [day] = yaml.safe_load((TESTS / "ordinary.yml").read_text())["tests"]
    given = {re.split(r"[{ ]", series["series"])[0] for series in day["input_series"]}
    asked = {
        name
        for alert in alerts()
        for name in re.findall(r"\b(?:tillstream_|process_)\w+|\bup\b", re.sub(r'"[^"]*"', "", alert["expr"]))
    }
    assert asked - given == set()
