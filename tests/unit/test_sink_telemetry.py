"""What the sink tells of its lanes: counts and lags where they belong, health, and an alarm before anything is lost."""

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from prometheus_client import generate_latest

from sink.delivery import Counts, Lag, Standing
from sink.telemetry import LIVE_SECONDS, Telemetry

OPERATIONS = Path(__file__).parents[2] / "docs" / "operations.md"
NOON = 1_795_176_000.0
DAY = 86_400.0


@dataclass
class Lane:
    """A delivery, as it is seen from outside."""

    counts: Counts = field(default_factory=Counts)
    running: bool = True
    standing: Standing | None = field(default_factory=lambda: standing({}))
    still: float = 0.0

    def still_seconds(self) -> float:
        return self.still


@dataclass
class Table:
    throttled: int


def standing(lags: Mapping[str, Lag], *, unstarted: tuple[str, ...] = (), held: int = 0) -> Standing:
    return Standing(lags, unstarted, held)


def behind(seconds: float, *, messages: int | None = 1) -> Lag:
    return Lag(messages, NOON - seconds)


def watching(**lanes: Lane) -> Telemetry:
    telemetry = Telemetry(DAY, now=lambda: NOON)
    telemetry.watch({name.replace("_", "-"): lane for name, lane in lanes.items()}, {})
    return telemetry


def metrics(telemetry: Telemetry) -> list[str]:
    return generate_latest(telemetry.registry).decode().splitlines()


def test_what_lanes_count_is_told_lane_by_lane() -> None:
    counts = Counts(
        taken=12, read=10, rejected=2, objects=3, bytes=4096, items=5, duplicates=6, extents=7, retries=8, repeated=9
    )
    telemetry = Telemetry(DAY)
    telemetry.watch({"archive-orders": Lane(counts), "index-orders": Lane(running=False)}, {"SalesData": Table(11)})
    lines = metrics(telemetry)
    for name, number in {
        "messages": 12,
        "stored": 8,
        "rejected": 2,
        "objects": 3,
        "object_bytes": 4096,
        "items": 5,
        "duplicates": 6,
        "extents": 7,
        "retries": 8,
        "repeated_extents": 9,
    }.items():
        assert f'tillstream_sink_{name}_total{{lane="archive-orders"}} {number}.0' in lines
        assert f'tillstream_sink_{name}_total{{lane="index-orders"}} 0.0' in lines
    assert 'tillstream_sink_throttled_total{table="SalesData"} 11.0' in lines
    assert 'tillstream_sink_lane_up{lane="archive-orders"} 1.0' in lines
    assert 'tillstream_sink_lane_up{lane="index-orders"} 0.0' in lines


def test_a_lag_is_told_in_messages_in_seconds_and_as_a_share_of_the_retention() -> None:
    lags = {"0": behind(DAY / 4, messages=70), "1": behind(30, messages=0), "2": behind(60, messages=None)}
    lines = metrics(watching(archive_orders=Lane(standing=standing(lags, held=512))))
    told = dict(re.findall(r"^tillstream_sink_(\w+\{.*\}) (\S+)$", "\n".join(lines), re.MULTILINE))
    assert told['held_bytes{lane="archive-orders"}'] == "512.0"
    assert {name: told[f'lag_messages{{lane="archive-orders",partition="{name}"}}'] for name in lags} == {
        "0": "70.0",
        "1": "0.0",
        "2": "NaN",
    }
    assert {name: told[f'lag_seconds{{lane="archive-orders",partition="{name}"}}'] for name in lags} == {
        "0": "21600.0",
        "1": "0.0",
        "2": "60.0",
    }
    assert told['retention_used_ratio{lane="archive-orders",partition="0"}'] == "0.25"


def test_every_metric_is_documented() -> None:
    metrics = {
        family.name + ("_total" if family.type == "counter" else "") for family in Telemetry(DAY).registry.collect()
    }
    documented = set(re.findall(r"^\| `(tillstream_sink_\w+)` \|", OPERATIONS.read_text(), re.MULTILINE))
    assert documented == metrics


@pytest.mark.parametrize(
    ("share", "levels"), [(0.49, []), (0.5, ["WARNING"]), (0.79, ["WARNING"]), (0.8, ["ERROR"]), (1.5, ["ERROR"])]
)
def test_a_lag_that_comes_near_the_retention_is_said_with_what_to_do(
    share: float, levels: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    lags = {"0": behind(1), "1": behind(share * DAY), "2": behind(2)}
    watching(
        index_orders=Lane(standing=standing(lags)), archive_orders=Lane(), index_rollups=Lane(standing=None)
    ).alarm()
    assert [record.levelname for record in caplog.records] == levels
    for record in caplog.records:
        assert f"lane index-orders is {24 * share:.1f} h behind in partition 1" in record.message
        assert "RETENTION_HOURS" in record.message


def test_no_alarm_for_what_is_at_the_end_of_a_quiet_stream(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        watching(archive_orders=Lane(standing=standing({"0": behind(DAY, messages=0)}))).alarm()
    assert caplog.records == []


@pytest.mark.parametrize(
    ("lane", "why"),
    [
        (Lane(still=LIVE_SECONDS), None),
        (Lane(still=LIVE_SECONDS + 1), "lane index-orders has not moved for 121 s"),
        (Lane(still=LIVE_SECONDS + 1, running=False), None),  # it failed; a restart would find the same
    ],
)
def test_it_is_alive_while_every_lane_that_runs_takes_turns(lane: Lane, why: str | None) -> None:
    assert watching(archive_orders=Lane(), index_orders=lane).health().live() == why


@pytest.mark.parametrize(
    ("lane", "why"),
    [
        (Lane(), None),
        (Lane(running=False), "lane index-orders does not run"),
        (Lane(standing=None), "lane index-orders has no partitions yet"),
        (
            Lane(standing=standing({}, unstarted=("0", "3"))),
            "lane index-orders does not know yet where partitions begin: 0, 3",
        ),
    ],
)
def test_it_is_ready_when_every_lane_knows_where_to_begin(lane: Lane, why: str | None) -> None:
    assert watching(archive_orders=Lane(), index_orders=lane).health().ready() == why


def test_before_the_lanes_run_it_is_alive_and_not_ready() -> None:
    health = Telemetry(DAY).health()
    assert (health.live(), health.ready()) == (None, "the lanes don't run yet")
