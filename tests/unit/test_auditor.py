"""The auditor's rounds as others see them: in Redis' fields, in metrics, in health."""

import re
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import generate_latest

from auditor.telemetry import LIVE_SECONDS, READY_ROUNDS, Telemetry
from tillstream.compare import Check, Difference
from tillstream.report import Report
from tillstream.watch import Round

OPERATIONS = Path(__file__).parents[2] / "docs" / "operations.md"


def a_report(*differences: Difference, to_come: int = 0) -> Report:
    check = Check("1h", "totals", compared=40, differences=list(differences), to_come=to_come)
    return Report("2026-11-20T07:52:33.123Z", {}, objects=3, rows=200, seconds=1.5, numbers=[check], stored=[])


def a_round(**changes: Any) -> Round:
    given: dict[str, Any] = {
        "everything": False,
        "report": a_report(),
        "fault": "",
        "checked_at": "2026-11-20T07:53:00Z",
        "seconds": 2.25,
        "waiting_seconds": None,
    }
    return Round(**(given | changes))


WRONG = Difference("sales:1h:aov", "orders", "7", "8")
FAILED = a_round(report=None, fault="Redis is away")
WAITING = a_round(report=None, fault="2 of 4 are not stored", waiting_seconds=300)


def test_a_round_tells_what_was_compared_and_the_first_difference() -> None:
    assert a_round().fields() == {
        "outcome": "equal",
        "checked_at": "2026-11-20T07:53:00Z",
        "everything": "false",
        "seconds": "2.2",
        "as_of": "2026-11-20T07:52:33.123Z",
        "compared": "40",
        "differences": "0",
        "to_come": "0",
        "first": "",
    }
    told = a_round(report=a_report(WRONG, WRONG)).fields()
    assert (told["outcome"], told["differences"], told["first"]) == ("different", "2", "sales:1h:aov orders: 7, not 8")


def test_a_round_that_waits_is_neither_equal_nor_different_and_tells_for_how_long() -> None:
    telemetry = Telemetry(ticking=Clock())
    telemetry.took(a_round(report=a_report(WRONG)))
    telemetry.took(WAITING)
    told = WAITING.fields()
    assert (told["outcome"], told["waiting_seconds"], told["fault"]) == ("waiting", "300.0", "2 of 4 are not stored")
    assert not told.keys() & {"compared", "differences", "as_of"}
    lines = metrics(telemetry)
    assert 'tillstream_auditor_rounds_total{outcome="waiting"} 1.0' in lines
    assert "tillstream_auditor_waiting_seconds 300.0" in lines
    assert 'tillstream_auditor_differences{everything="false"} 1.0' in lines
    telemetry.took(a_round())
    assert "tillstream_auditor_waiting_seconds 0.0" in metrics(telemetry)


def test_a_round_that_compared_nothing_tells_why_and_claims_nothing() -> None:
    told = FAILED.fields()
    assert (told["outcome"], told["fault"]) == ("failed", "Redis is away")
    assert not told.keys() & {"compared", "differences", "as_of"}


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def metrics(telemetry: Telemetry) -> list[str]:
    return generate_latest(telemetry.registry).decode().splitlines()


def test_metrics_tell_rounds_of_windows_and_of_everything_apart() -> None:
    telemetry = Telemetry(now=lambda: 5.0, ticking=Clock())
    telemetry.took(a_round(report=a_report(WRONG)))
    telemetry.took(a_round(everything=True, report=a_report(to_come=9)))
    lines = metrics(telemetry)
    assert 'tillstream_auditor_differences{everything="false"} 1.0' in lines
    assert 'tillstream_auditor_differences{everything="true"} 0.0' in lines
    assert 'tillstream_auditor_to_come{everything="true"} 9.0' in lines
    assert 'tillstream_auditor_last_success_timestamp_seconds{everything="true"} 5.0' in lines
    assert 'tillstream_auditor_rounds_total{outcome="different"} 1.0' in lines


def test_every_metric_is_documented() -> None:
    metrics = {
        family.name + ("_total" if family.type == "counter" else "") for family in Telemetry().registry.collect()
    }
    documented = set(re.findall(r"^\| `(tillstream_auditor_\w+)` \|", OPERATIONS.read_text(), re.MULTILINE))
    assert documented == metrics


def test_a_failed_round_leaves_what_the_last_good_one_found() -> None:
    telemetry = Telemetry(now=lambda: 5.0, ticking=Clock())
    telemetry.took(a_round(report=a_report(WRONG)))
    telemetry.took(FAILED)
    lines = metrics(telemetry)
    assert 'tillstream_auditor_differences{everything="false"} 1.0' in lines
    assert 'tillstream_auditor_rounds_total{outcome="failed"} 1.0' in lines


@pytest.mark.parametrize("failures", [READY_ROUNDS - 1, READY_ROUNDS])
@pytest.mark.parametrize("nothing", [FAILED, WAITING], ids=["failed", "waiting"])
def test_it_is_ready_until_some_rounds_have_compared_nothing_one_after_the_other(failures: int, nothing: Round) -> None:
    telemetry = Telemetry(ticking=Clock())
    telemetry.took(a_round(report=a_report(WRONG)))
    for _ in range(failures):
        telemetry.took(nothing)
    wrong = telemetry.health().ready()
    assert (wrong is None) is (failures < READY_ROUNDS)
    assert wrong is None or nothing.fault in wrong
    telemetry.took(a_round())
    assert telemetry.health().ready() is None


def test_it_is_alive_while_a_round_is_heard_of() -> None:
    clock = Clock()
    telemetry = Telemetry(ticking=clock)
    clock.now += LIVE_SECONDS
    assert telemetry.health().live() is None
    clock.now += 1
    assert telemetry.health().live() is not None
    telemetry.hear()
    assert telemetry.health().live() is None
