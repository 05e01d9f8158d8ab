"""What the processor tells of itself over HTTP: every number where it belongs, and health that means something."""

import re
import time
from math import isnan
from pathlib import Path

import pytest

from processor.numbers import Standing
from processor.panes import Reading
from processor.telemetry import Telemetry
from sales.telemetry import served
from support.scraping import get, scrape

OPERATIONS = Path(__file__).parents[2] / "docs" / "operations.md"
NOON = 1_795_176_000_000


class Clock:
    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


def standing(*, lag: int | None = 0) -> Standing:
    return Standing(as_of=NOON, newest=NOON - 1500, late=3, lag=lag, products=42)


def a_reading(
    *, messages: int = 1, scanned: int = 1, broker_times: dict[str, int] | None = None, identities_bytes: int = 0
) -> Reading:
    return Reading("slot-0", messages, scanned, broker_times or {}, identities_bytes)


DAY = 86_400
ROOT = Path("/")
NOTHING = {"accepted": 0, "duplicates": 0, "dead_letters": 0}


def test_what_was_noted_is_scraped() -> None:
    telemetry = Telemetry(DAY, ROOT)
    counts = {"accepted": 7, "duplicates": 2, "dead_letters": 1, "dead_letters:json": 1}
    telemetry.took(counts, [a_reading(messages=10, scanned=8, identities_bytes=4096)], {})
    telemetry.stands(standing(lag=5))
    telemetry.saved(0.004, 1234)
    telemetry.retried()
    with served("127.0.0.1", 0, telemetry.registry, telemetry.health()) as port:
        status, text = get(port, "/metrics")
    assert status == 200
    for line in (
        'tillstream_processor_messages_total{tier="compiled"} 8.0',
        'tillstream_processor_messages_total{tier="plain"} 2.0',
        'tillstream_processor_events_total{outcome="duplicate"} 2.0',
        'tillstream_processor_dead_letters_total{reason="json"} 1.0',
        "tillstream_processor_lag_messages 5.0",
        "tillstream_processor_late_events 3.0",
        "tillstream_processor_products 42.0",
        "tillstream_processor_as_of_timestamp_seconds 1.795176e+09",
        "tillstream_processor_snapshot_bytes_total 1234.0",
        "tillstream_processor_retries_total 1.0",
        'tillstream_processor_identities_memory_bytes{slot="slot-0"} 4096.0',
    ):
        assert line in text.splitlines()


def test_every_metric_is_documented() -> None:
    families = Telemetry(DAY, ROOT).registry.collect()
    metrics = {family.name + ("_total" if family.type == "counter" else "") for family in families}
    documented = set(re.findall(r"^\| `(tillstream_processor_\w+)` \|", OPERATIONS.read_text(), re.MULTILINE))
    assert documented == metrics


def test_a_processor_is_ready_when_the_board_is_fresh_and_not_far_behind() -> None:
    wall, clock = Clock(), Clock()
    wall.seconds = NOON / 1000
    telemetry = Telemetry(DAY, ROOT, now=wall, ticking=clock)
    ready = telemetry.health().ready
    assert ready() == "nothing is on the board yet"
    telemetry.published(0.01, 0.005)
    assert ready() == "how far the board is behind the stream is not known"
    telemetry.took(NOTHING, [a_reading(broker_times={"o/0": NOON - 60_000})], {"o/0": 9})
    assert ready() == "the board is 60 s behind the stream"
    telemetry.took(NOTHING, [], {"o/0": 0})
    assert ready() is None  # the last message may be old when nobody buys
    clock.seconds += 31
    assert ready() == "the board was last written 31 s ago"


def test_the_lag_is_told_as_a_share_of_what_the_stream_keeps() -> None:
    wall = Clock()
    wall.seconds = NOON / 1000
    telemetry = Telemetry(DAY, ROOT, now=wall)
    telemetry.took(NOTHING, [a_reading(broker_times={"o/0": NOON - 43_200_000})], {"o/0": 9})
    assert telemetry.registry.get_sample_value("tillstream_processor_retention_used_ratio") == 0.5


def test_the_room_on_the_recovery_disk_is_told_and_not_a_number_where_there_is_none(tmp_path: Path) -> None:
    here, nowhere = Telemetry(DAY, tmp_path).registry, Telemetry(DAY, tmp_path / "gone").registry
    free, size = ("tillstream_processor_recovery_disk_free_bytes", "tillstream_processor_recovery_disk_bytes")
    assert 0 < (here.get_sample_value(free) or 0) <= (here.get_sample_value(size) or 0)
    assert isnan(nowhere.get_sample_value(free) or 0)


def test_what_the_process_takes_is_told_while_it_is_asked_and_as_often_as_it_is_served() -> None:
    telemetry = Telemetry(DAY, ROOT)
    for _ in range(2):
        with served("127.0.0.1", 0, telemetry.registry, telemetry.health()) as port:
            told = scrape(port)
        assert told["process_resident_memory_bytes"] > 1_000_000
        assert told["process_open_fds"] > 3
        assert told["process_start_time_seconds"] < time.time()


def behind(telemetry: Telemetry) -> float | None:
    return telemetry.registry.get_sample_value("tillstream_processor_lag_seconds")


def test_the_partition_that_is_furthest_behind_counts_whoever_reports_last() -> None:
    wall = Clock()
    wall.seconds = NOON / 1000
    telemetry = Telemetry(DAY, ROOT, now=wall)
    old = a_reading(broker_times={"o/0": NOON - 21_600_000, "o/4": NOON - 1000})
    telemetry.took(NOTHING, [old], {"o/0": 500, "o/4": 0})
    telemetry.took(NOTHING, [a_reading(broker_times={"o/1": NOON - 10})], {"o/1": 3})
    assert behind(telemetry) == 21_600
    telemetry.took(NOTHING, [a_reading(broker_times={"o/0": NOON - 2000})], {"o/0": 1})
    assert behind(telemetry) == 2
    telemetry.took(NOTHING, [], {"o/0": 0, "o/1": 0})
    assert behind(telemetry) == 0


def test_a_message_after_a_quiet_hour_is_no_lag_of_an_hour() -> None:
    wall = Clock()
    wall.seconds = NOON / 1000
    telemetry = Telemetry(DAY, ROOT, now=wall)
    telemetry.took(NOTHING, [a_reading(broker_times={"o/0": NOON - 3_600_000})], {"o/0": 0})
    wall.seconds += 1
    telemetry.took(NOTHING, [], {"o/0": 1})
    assert behind(telemetry) == 1


def test_a_stream_that_says_nothing_any_more_is_lag() -> None:
    wall = Clock()
    wall.seconds = NOON / 1000
    telemetry = Telemetry(DAY, ROOT, now=wall)
    ready = telemetry.health().ready
    telemetry.published(0.01, 0.005)
    telemetry.took(NOTHING, [], {"o/0": None})
    assert ready() == "how far the board is behind the stream is not known"
    telemetry.took(NOTHING, [], {"o/0": 0})
    assert ready() is None
    wall.seconds += 31
    telemetry.took(NOTHING, [], {"o/0": None})
    assert ready() == "the board is 31 s behind the stream"


def test_a_processor_is_alive_while_messages_are_looked_for() -> None:
    clock = Clock()
    telemetry = Telemetry(DAY, ROOT, ticking=clock)
    live = telemetry.health().live
    clock.seconds += 59
    assert live() is None
    clock.seconds += 2
    assert live() == "nobody has looked for messages for 61 s"
    telemetry.turn()
    assert live() is None


def test_a_processor_that_ticks_but_looks_for_no_messages_is_not_ready() -> None:
    clock = Clock()
    telemetry = Telemetry(DAY, ROOT, ticking=clock)
    telemetry.took(NOTHING, [], {"o/0": 0})
    clock.seconds += 31
    telemetry.published(0.01, 0.005)
    assert telemetry.health().ready() == "nobody has looked for messages for 31 s"
    telemetry.turn()
    assert telemetry.health().ready() is None


def test_an_engine_is_still_since_it_last_asked_or_last_ticked_whichever_was_earlier() -> None:
    clock = Clock()
    telemetry = Telemetry(DAY, ROOT, ticking=clock)
    clock.seconds += 20
    telemetry.turn()
    assert telemetry.still() == 0, "one that holds no numbers never ticks"
    telemetry.stands(standing())
    clock.seconds += 20
    telemetry.turn()
    assert telemetry.still() == 20
    telemetry.retried()
    assert telemetry.still() == 0


@pytest.mark.parametrize("path", ["/live", "/ready", "/nothing"])
def test_an_answer_is_a_status_and_a_line(path: str) -> None:
    telemetry = Telemetry(DAY, ROOT)
    with served("127.0.0.1", 0, telemetry.registry, telemetry.health()) as port:
        assert (
            get(port, path)
            == {
                "/live": (200, "ok\n"),
                "/ready": (503, "nothing is on the board yet\n"),
                "/nothing": (404, "there are /metrics, /live and /ready\n"),
            }[path]
        )
