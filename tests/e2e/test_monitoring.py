"""A whole chain with a real Prometheus beside it: every panel, every mark and every rule finds something to say."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from support.ports import lasting_ports
from support.prometheus import MONITORING, RULES, Prometheus, alerts, dashboards, expressions, filled_in, program, rules
from support.services import OpenPipeline, Pipeline
from support.waiting import eventually
from tillstream.local import server
from tillstream.local.nursery import Nursery

SERVICES = ("generator", "processor", "sink", "auditor")
CHOSEN = {"window": "1h", "lane": ".*", "service": ".*", "__rate_interval": "1m"}
"""What somebody has chosen above the panels."""

MINUTES = 5 * 60.0
"""A chain that starts on a busy machine, and the auditor's first rounds."""

EMPTY_WHEN_ALL_IS_WELL = {
    "Starts",
    "Critical alerts",
    "Behind the stream A",  # Kinesis does not count messages
    "Memory, as a share of what it may take A",  # where there is no limit
    "MemoryNearLimit",
}


@pytest.fixture(scope="module")
def ports() -> dict[str, int]:
    """Where each service tells of itself."""
    return dict(zip(SERVICES, lasting_ports(len(SERVICES)), strict=True))


@pytest.fixture(scope="module")
def shop(open_pipeline: OpenPipeline, ports: dict[str, int]) -> Pipeline:
    """All services, and most of what can go wrong with orders."""
    program("prometheus")  # before anything is started
    shop = open_pipeline("kinesis", RATE="50/s", DUPLICATES="0.05", MALFORMED="0.02", LATE="0.02", ROTATE_SECONDS="1")
    rounds = {"AUDIT_SECONDS": "1", "AUDIT_LOOKUPS": "false", "AUDIT_WAIT_SECONDS": "60"}
    for name, port in ports.items():
        shop.start(name, METRICS_PORT=str(port), **(rounds if name == "auditor" else {}))
    return shop


@pytest.fixture(scope="module")
def prometheus(shop: Pipeline, ports: dict[str, int], nursery: Nursery) -> Iterator[Prometheus]:
    """It scrapes the shop each second."""
    started = server.start(
        nursery,
        "Prometheus",
        command=lambda numbers, folder: command(numbers[0], folder, ports),
        address=lambda port: f"http://127.0.0.1:{port}",
        answers=lambda address, _: Prometheus(address).ready(),
        seconds=60,
    )
    yield Prometheus(started.address)
    started.stop()


def command(port: int, folder: Path, ports: dict[str, int]) -> list[str]:
    """How it is run: with the rules as they are, and settings that differ in where services are, and in haste."""
    settings = yaml.safe_load((MONITORING / "prometheus.yml").read_text())
    settings["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    settings["rule_files"] = [str(RULES)]
    [job] = settings["scrape_configs"]
    del job["dns_sd_configs"]
    job["static_configs"] = [
        {"targets": [f"127.0.0.1:{at}"], "labels": {"service": service}} for service, at in ports.items()
    ]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(settings))
    return [
        program("prometheus"),
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]


def asked() -> dict[str, str]:
    """Everything that is asked: panels and marks as they are, alerts without what they compare with."""
    queries: dict[str, str] = {}
    for dashboard in dashboards().values():
        queries |= {name: filled_in(text, **CHOSEN) for name, text in expressions(dashboard)}
    for rule in rules():
        if "record" in rule:
            queries[rule["record"]] = rule["expr"]
    for alert in alerts():
        for number, part in enumerate(re.split(r"\s+(?:or|and)\s+", alert["expr"])):
            if not part.startswith("absent("):
                queries[alert["alert"] + " again" * number] = re.sub(r" (>|>=|<|==) [\d.]+\s*$", "", part)
    return queries


def test_every_panel_and_every_rule_has_something_to_say(prometheus: Prometheus) -> None:
    queries = asked()
    silent: set[str] = set()

    def all_speak() -> bool:
        silent.clear()
        silent.update(name for name, query in queries.items() if not prometheus.ask(query))
        return silent <= EMPTY_WHEN_ALL_IS_WELL

    try:
        eventually(all_speak, seconds=MINUTES)
    finally:
        said = "".join(f"\n{name}: {queries[name]}" for name in sorted(silent - EMPTY_WHEN_ALL_IS_WELL))
        assert not said, f"nothing answers to{said}"


def test_the_dashboards_can_be_chosen_from_what_there_is(prometheus: Prometheus) -> None:
    def found(label: str, query: str) -> set[str]:
        return {series["metric"][label] for series in prometheus.ask(query)}

    # Of a service that needed longer than a second for its answer, nothing is there until the next one.
    eventually(lambda: found("window", "tillstream_sales_orders") == {"1m", "5m", "15m", "1h", "24h"})
    eventually(lambda: found("service", 'up{job="tillstream"} == 1') == set(SERVICES))


def test_what_is_shown_adds_up(prometheus: Prometheus) -> None:
    def numbers(expression: str) -> list[float]:
        return [float(series["value"][1]) for series in prometheus.ask(expression)]

    def adds_up() -> bool:
        return numbers(
            'sum(tillstream_sales_region_orders{window="24h"}) - scalar(tillstream_sales_orders{window="24h"})'
        ) == [pytest.approx(0)]

    eventually(adds_up, seconds=60)
    eventually(lambda: numbers('count(tillstream_sales_product_revenue{window="24h"})') == [10])


def test_rules_are_worked_out_without_an_error_and_nothing_fires(prometheus: Prometheus) -> None:
    eventually(lambda: set(prometheus.rules()) == {rule.get("record", rule.get("alert")) for rule in rules()})
    assert {name: error for name, error in prometheus.rules().items() if error} == {}
    assert [series["metric"] for series in prometheus.ask('ALERTS{alertstate="firing"}')] == []


def test_a_service_that_begins_anew_is_marked(prometheus: Prometheus, shop: Pipeline, ports: dict[str, int]) -> None:
    marks = {name: text for board in dashboards().values() for name, text in expressions(board)}
    shop.kill("generator")
    shop.start("generator", METRICS_PORT=str(ports["generator"]))
    eventually(lambda: prometheus.ask(marks["Starts"]), seconds=60)
    assert {series["metric"]["service"] for series in prometheus.ask(marks["Starts"])} == {"generator"}


def test_a_processor_that_is_gone_is_noticed_and_its_return_too(
    prometheus: Prometheus, shop: Pipeline, ports: dict[str, int]
) -> None:
    def noticed() -> bool:
        return bool(prometheus.ask('ALERTS{alertname="BoardStale", alertstate="pending"}'))

    shop.kill("processor")
    eventually(noticed, seconds=60)
    shop.start("processor", METRICS_PORT=str(ports["processor"]))
    eventually(lambda: not noticed(), seconds=MINUTES)
    eventually(lambda: prometheus.ask("tillstream_processor_freshness_seconds < 30"))
