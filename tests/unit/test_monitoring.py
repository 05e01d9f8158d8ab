"""Rules, runbook and dashboards: one source each, nothing without a description, nothing that nobody exports."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from deploy.monitoring.dashboards.__main__ import files

from support.prometheus import MONITORING, alerts, dashboards, expressions, panels, rules

DOCS = Path(__file__).parents[2] / "docs"
OPERATIONS = (DOCS / "operations.md").read_text()
RUNBOOK = re.compile(r"docs/operations\.md#([a-z]+)")

OTHERS = {"up", "process_start_time_seconds", "process_cpu_seconds_total", "ALERTS"}
"""What Prometheus itself and its clients name, as far as it is not in our table."""


def runbook() -> dict[str, str]:
    """Each entry's text by its name."""
    section = OPERATIONS.split("\n### Runbook\n")[1].split("\n## ")[0]
    entries = re.split(r"^#### (\w+)\n", section, flags=re.MULTILINE)
    return dict(zip(entries[1::2], entries[2::2], strict=True))


def metrics(expression: str) -> set[str]:
    """The names of series in an expression."""
    bare = re.sub(r'"[^"]*"|\[[^\]]*\]|\b(by|on) \([^)]*\)', "", expression)
    return set(re.findall(r"(?<![\w:])(?:tillstream|process)[\w:]+|\bup\b|\bALERTS\b", bare))


@pytest.mark.parametrize(("path", "text"), files("USD").items(), ids=lambda value: getattr(value, "name", ""))
def test_what_is_written_is_what_the_code_says(path: Path, text: str) -> None:
    assert path.read_text() == text, f"{path.name} is old: make monitoring"


def test_currency_and_links_can_be_others() -> None:
    written = {path.name: text for path, text in files("GBP", "https://docs.example.com/ops").items()}
    assert "currencyGBP" in written["business.json"]
    assert "currencyUSD" not in written["business.json"]
    assert "runbook_url: https://docs.example.com/ops#boardstale" in written["prometheusrule.yaml"]
    assert "Runbook: https://docs.example.com/ops#boardstale" in written["pipeline.json"]


def test_the_operators_rules_are_those_of_prometheus() -> None:
    rule = yaml.safe_load((MONITORING / "prometheusrule.yaml").read_text())
    assert rule["spec"] == yaml.safe_load((MONITORING / "rules" / "tillstream.yml").read_text())


def test_every_alert_has_an_entry_in_the_runbook_and_every_entry_an_alert() -> None:
    assert list(runbook()) != []
    assert set(runbook()) == {alert["alert"] for alert in alerts()}


@pytest.mark.parametrize("alert", alerts(), ids=lambda alert: alert["alert"])
def test_an_alert_says_how_bad_it_is_what_it_is_and_where_to_look(alert: dict[str, Any]) -> None:
    assert alert["labels"]["severity"] in {"critical", "warning"}
    assert set(alert["annotations"]) == {"summary", "description", "runbook_url"}
    assert alert["annotations"]["runbook_url"] == f"docs/operations.md#{alert['alert'].lower()}"


@pytest.mark.parametrize(("name", "text"), runbook().items())
def test_an_entry_says_what_to_look_at_and_what_to_do(name: str, text: str) -> None:
    assert "*Do*" in text or "*do*" in text
    assert set(re.findall(r"\(#([\w-]+)\)", text)) <= anchors()


def anchors() -> set[str]:
    """As GitHub makes them of headings."""
    headings = re.findall(r"^#+ (.*)$", OPERATIONS, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize(("name", "dashboard"), dashboards().items())
def test_a_dashboard_is_told_apart_and_explained(name: str, dashboard: dict[str, Any]) -> None:
    assert dashboard["uid"] == f"tillstream-{name}"
    assert f"| {dashboard['title']} |" in OPERATIONS
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(ids)) == len(ids)
    for panel in panels(dashboard):
        assert panel["description"], panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert panel["datasource"]["uid"] == "${datasource}"
    for row in [panel["gridPos"]["y"] for panel in panels(dashboard)]:
        width = sum(panel["gridPos"]["w"] for panel in panels(dashboard) if panel["gridPos"]["y"] == row)
        assert width == 24, f"a gap beside a panel of row {row}"


def test_every_entry_that_a_panel_names_is_in_the_runbook_and_every_entry_is_named_by_a_panel() -> None:
    named = {
        entry
        for dashboard in dashboards().values()
        for panel in panels(dashboard)
        for entry in RUNBOOK.findall(panel["description"])
    }
    assert named == {name.lower() for name in runbook()}


def test_rules_and_dashboards_ask_for_nothing_that_nobody_tells() -> None:
    documented = set(re.findall(r"`((?:tillstream|process)_\w+)`", OPERATIONS))
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    asked = {name for rule in rules() for name in metrics(rule["expr"])} | {
        name for dashboard in dashboards().values() for _, text in expressions(dashboard) for name in metrics(text)
    }
    assert {re.sub("_(bucket|count)$", "", name) for name in asked} <= documented | recorded | OTHERS


def test_every_metric_of_sales_is_shown() -> None:
    exported = set(re.findall(r"^\| `(tillstream_sales_\w+)`", OPERATIONS, re.MULTILINE))
    shown = {name for _, text in expressions(dashboards()["business"]) for name in metrics(text)}
    assert exported - shown <= {"tillstream_sales_category_units", "tillstream_sales_region_units"}


def test_the_component_brings_every_dashboard() -> None:
    component = yaml.safe_load((MONITORING / "kustomization.yaml").read_text())
    [generated] = component["configMapGenerator"]
    assert generated["files"] == [f"grafana/dashboards/{name}.json" for name in dashboards()]
    assert generated["options"]["labels"]["grafana_dashboard"] == "1"


def test_both_ways_to_scrape_ask_the_same_services_and_name_them_alike() -> None:
    [job] = yaml.safe_load((MONITORING / "prometheus.yml").read_text())["scrape_configs"]
    static = {each["labels"]["service"]: each["targets"] for each in job["static_configs"]}
    [found] = job["dns_sd_configs"]
    assert static == {name: [f"{name}:9464"] for name in static}
    monitor = yaml.safe_load((MONITORING / "podmonitor.yaml").read_text())["spec"]
    [services] = monitor["selector"]["matchExpressions"]
    assert set(services["values"]) == {*static, *found["names"]}
    assert (job["job_name"], found["port"]) == ("tillstream", 9464)
    [endpoint] = monitor["podMetricsEndpoints"]
    assert {"targetLabel": "job", "replacement": "tillstream"} in endpoint["relabelings"]
