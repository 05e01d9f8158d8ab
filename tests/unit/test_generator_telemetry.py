"""What the generator tells of itself over HTTP: what it sent, whether it arrives, and how far a replay is."""

import re
import threading
import urllib.error
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
from prometheus_client import generate_latest

from generator import delivery
from generator.__main__ import main
from generator.delivery import deliver
from generator.manifest import Kind, Parcel, Tally
from generator.replay import Report
from generator.telemetry import LIVE_SECONDS, READY_SECONDS, Telemetry
from sales.streams.memory import MemoryStream, MemoryWire, MemoryWriter
from sales.telemetry import served
from support.ports import lasting_ports
from support.scraping import get, scrape
from support.waiting import eventually

OPERATIONS = Path(__file__).parents[2] / "docs" / "operations.md"
NOON = 1_795_176_000_000


class Clock:
    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


class SlowWriter(MemoryWriter):
    """Acknowledges when the test says so."""

    def __init__(self) -> None:
        wire = MemoryWire()
        wire.create("orders", partitions=1, retention_hours=24)
        super().__init__(wire.open("orders"))
        self.waiting = 0

    def write(self, keys: Sequence[bytes], _values: Sequence[bytes]) -> None:
        self.waiting += len(keys)

    def unacknowledged(self) -> int:
        return self.waiting


def a_parcel(**kinds: int) -> Parcel:
    tally = Tally(by_kind=Counter(kinds), last_event_time=NOON)
    tally.first_event_time = NOON
    return Parcel([b"key"] * tally.records, [b"message"] * tally.records, tally)


def metrics(telemetry: Telemetry) -> list[str]:
    return generate_latest(telemetry.registry).decode().splitlines()


def test_what_was_sent_is_scraped_by_kind() -> None:
    telemetry = Telemetry(asked=500.0)
    writer = SlowWriter()
    telemetry.watch(writer)
    deliver([a_parcel(order=7, late=2, duplicate=1), a_parcel(order=3)], writer, telemetry)
    with served("127.0.0.1", 0, telemetry.registry, telemetry.health()) as port:
        told = {name: value for name, value in scrape(port).items() if name.startswith("tillstream_generator_")}
    assert told == {
        **{f'tillstream_generator_records_total{{kind="{kind}"}}': 0.0 for kind in Kind},
        'tillstream_generator_records_total{kind="order"}': 10.0,
        'tillstream_generator_records_total{kind="late"}': 2.0,
        'tillstream_generator_records_total{kind="duplicate"}': 1.0,
        "tillstream_generator_sent_bytes_total": 13.0 * len(b"message"),
        "tillstream_generator_max_event_timestamp_seconds": NOON / 1000,
        "tillstream_generator_unacknowledged_records": 13.0,
        "tillstream_generator_unacknowledged_seconds": told["tillstream_generator_unacknowledged_seconds"],
        "tillstream_generator_asked_orders_per_second": 500.0,
    }


def test_nothing_sent_yet_has_no_newest_event_time() -> None:
    assert "tillstream_generator_max_event_timestamp_seconds NaN" in metrics(Telemetry())


def test_a_replay_tells_what_became_of_the_rows() -> None:
    report = Report()
    lines = metrics(Telemetry(report=report))
    assert not any("asked_orders_per_second" in line for line in lines)
    report.fates.update({"sold": 4, "no_price": 1})
    told = {line for line in metrics(Telemetry(report=report)) if line.startswith("tillstream_generator_replay_rows")}
    assert told == {
        'tillstream_generator_replay_rows_total{fate="sold"} 4.0',
        'tillstream_generator_replay_rows_total{fate="no_price"} 1.0',
    }


def test_every_metric_is_documented() -> None:
    families = Telemetry(asked=1.0, report=Report()).registry.collect()
    told = {family.name + ("_total" if family.type == "counter" else "") for family in families}
    documented = set(re.findall(r"^\| `(tillstream_generator_\w+)` \|", OPERATIONS.read_text(), re.MULTILINE))
    assert documented == told


def test_it_is_ready_once_the_stream_is_open() -> None:
    telemetry = Telemetry()
    assert telemetry.health().ready() == "the stream is not open yet"
    telemetry.watch(SlowWriter())
    assert telemetry.health().ready() is None


def sent(telemetry: Telemetry, writer: SlowWriter, records: int, total: Tally) -> None:
    parcel = a_parcel(order=records)
    telemetry.sending(parcel)
    writer.write(parcel.keys, parcel.values)
    total.add(parcel.tally)
    telemetry.sent(total)


def test_it_is_not_ready_while_nothing_is_acknowledged_and_ready_again_once_something_is() -> None:
    clock, writer, total = Clock(), SlowWriter(), Tally()
    telemetry = Telemetry(ticking=clock)
    telemetry.watch(writer)
    ready = telemetry.health().ready
    sent(telemetry, writer, 5, total)
    clock.seconds += READY_SECONDS
    sent(telemetry, writer, 5, total)
    assert ready() is None
    clock.seconds += 1
    assert ready() == "10 records wait, none was acknowledged for 31 s"
    assert "tillstream_generator_unacknowledged_seconds 31.0" in metrics(telemetry)
    writer.waiting = 9
    assert ready() is None


def test_a_shop_where_nobody_buys_for_long_is_ready() -> None:
    clock, writer, total = Clock(), SlowWriter(), Tally()
    telemetry = Telemetry(ticking=clock)
    telemetry.watch(writer)
    sent(telemetry, writer, 5, total)
    writer.waiting = 0
    clock.seconds += 10 * READY_SECONDS
    sent(telemetry, writer, 1, total)
    assert telemetry.health().ready() is None


def test_it_is_alive_unless_a_write_never_comes_back() -> None:
    clock, writer = Clock(), SlowWriter()
    telemetry = Telemetry(ticking=clock)
    live = telemetry.health().live
    clock.seconds += 10 * LIVE_SECONDS  # it waits for a broker, or reads a file
    assert live() is None
    telemetry.watch(writer)
    telemetry.sending(a_parcel(order=1))
    clock.seconds += LIVE_SECONDS
    assert live() is None
    clock.seconds += 1
    assert live() == "a parcel has been being written for 121 s"
    telemetry.sent(Tally())
    assert live() is None


@pytest.mark.parametrize(
    ("environment", "asked"),
    [
        ({"RATE": "6000/min"}, 100.0),
        ({"RATE": "max"}, float("inf")),
        ({"RATE": "100/s", "START": "2026-11-20T00:00:00Z", "SPEED": "60x"}, 6000.0),
        ({"RATE": "100/s", "START": "2026-11-20T00:00:00Z", "SPEED": "max"}, float("inf")),
        ({"RATE": "100/s", "SPEED": "60x"}, 100.0),  # without START time runs as it does
    ],
)
def test_the_service_serves_its_metrics_and_health_by_metrics_port(
    environment: dict[str, str], asked: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    wire = MemoryWire()
    wire.create("orders", partitions=1, retention_hours=24)
    held, go_on = threading.Event(), threading.Event()

    class HeldWriter(MemoryWriter):
        def flush(self, timeout: float) -> None:
            if timeout:
                held.set()
                assert go_on.wait(20)
            super().flush(timeout)

    monkeypatch.setattr(delivery, "connect", lambda *_settings: wire)
    monkeypatch.setattr(MemoryStream, "writer", lambda self, **_: HeldWriter(self))
    monkeypatch.setattr("sales.service.signal.signal", lambda *_: None)  # for main threads alone
    [port] = lasting_ports()
    for name, value in {"STREAM": "kafka", "ORDERS": "3", "METRICS_PORT": str(port), **environment}.items():
        monkeypatch.setenv(name, value)
    service = threading.Thread(target=main)
    service.start()
    try:
        eventually(held.is_set, "all orders written")
        told = scrape(port)
        assert told['tillstream_generator_records_total{kind="order"}'] == 3
        assert told["tillstream_generator_asked_orders_per_second"] == asked
        assert get(port, "/live") == (200, "ok\n")
        assert get(port, "/ready") == (200, "ok\n")
    finally:
        go_on.set()
        service.join(20)
    with pytest.raises(urllib.error.URLError):
        get(port, "/live")
