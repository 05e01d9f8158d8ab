"""``python -m generator``: settings from environment and options, an orderly end, a manifest that tells the truth."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import typer.main
from typer.testing import CliRunner, Result

from generator import delivery
from generator.__main__ import app
from generator.clock import SystemClock
from generator.manifest import Kind, Tally, write
from generator.settings import GeneratorSettings
from sales.streams import StreamError
from sales.streams.memory import MemoryStream, MemoryWire, MemoryWriter


@pytest.fixture(autouse=True)
def signals_as_before() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def stream(monkeypatch: pytest.MonkeyPatch) -> MemoryStream:
    """The orders stream that the service finds when it connects."""
    wire = MemoryWire()
    wire.create("orders", partitions=3, retention_hours=24)
    monkeypatch.setattr(delivery, "connect", lambda *_settings: wire)
    return wire.open("orders")


def run(*arguments: str, **environment: str) -> Result:
    return CliRunner().invoke(app, arguments, env={"STREAM": "kafka", "RATE": "max"} | environment)


def values(stream: MemoryStream) -> list[bytes]:
    return [value for log in stream.logs.values() for value in log.values]


def test_settings_come_from_the_environment_and_options_win(stream: MemoryStream) -> None:
    result = run("--orders", "30", ORDERS="10", PRODUCTS="5")
    assert result.exit_code == 0, result.stderr
    assert len(values(stream)) == 30
    assert len({line["product_id"] for value in values(stream) for line in json.loads(value)["lines"]}) == 5


def test_every_key_is_its_orders_id(stream: MemoryStream) -> None:
    run(ORDERS="100")
    for log in stream.logs.values():
        assert [json.loads(value)["order_id"].encode() for value in log.values] == log.keys


def test_the_manifest_counts_what_is_in_the_stream(stream: MemoryStream, tmp_path: Path) -> None:
    path = tmp_path / "sent.json"
    result = run(MANIFEST=str(path), ORDERS="500", DUPLICATES="0.5", MALFORMED="0.1", SEED="3", CURRENCY="EUR")
    assert result.exit_code == 0, result.stderr
    manifest = json.loads(path.read_text())
    assert manifest["records"] == len(values(stream)) > 700
    assert manifest["by_kind"]["order"] == manifest["accepted"]["identities"] == 500
    assert sum(manifest["by_kind"].values()) == manifest["records"]
    assert sum(manifest["dead_letters"].values()) == manifest["by_kind"]["malformed"]
    assert manifest["accepted"]["revenue_minor"] == (
        manifest["accepted"]["sales_minor"] - manifest["accepted"]["refunded_minor"]
    )
    assert (manifest["source"], manifest["seed"], manifest["currency"]) == ("synthetic", 3, "EUR")
    assert manifest["stream"] == stream.id
    assert manifest["started_at"] <= manifest["ended_at"]
    assert list(tmp_path.iterdir()) == [path]


def test_with_a_start_two_runs_send_the_same_bytes(stream: MemoryStream) -> None:
    day = {"START": "2026-11-20T00:00:00Z", "RATE": "100/s", "SPEED": "max", "ORDERS": "300", "FUTURE": "0.1"}
    assert run(**day).exit_code == 0
    first = values(stream)
    assert run(**day).exit_code == 0
    assert sorted(values(stream)) == sorted(first * 2)


class InterruptedWriter(MemoryWriter):
    """Gets a signal while it writes."""

    def __init__(self, stream: MemoryStream, number: signal.Signals) -> None:
        super().__init__(stream)
        self._number = number

    def write(self, keys: Sequence[bytes], values: Sequence[bytes]) -> None:
        super().write(keys, values)
        signal.raise_signal(self._number)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_in_order_with_all_that_was_sent_counted(
    stream: MemoryStream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    monkeypatch.setattr(MemoryStream, "writer", lambda self: InterruptedWriter(self, number))
    path = tmp_path / "sent.json"
    result = run(MANIFEST=str(path), DUPLICATES="0.2")
    assert result.exit_code == 0, result.stderr
    assert json.loads(path.read_text())["records"] == len(values(stream)) > 0


def test_a_refused_record_is_a_failure_and_leaves_no_manifest(
    stream: MemoryStream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(_self: MemoryWriter, _timeout: float) -> None:
        raise StreamError("orders did not acknowledge 7 records in 25 s")

    monkeypatch.setattr(MemoryWriter, "flush", refuse)
    result = run(MANIFEST=str(tmp_path / "sent.json"), ORDERS="10")
    assert result.exit_code == 1
    assert caplog.messages[-1] == "orders did not acknowledge 7 records in 25 s"
    assert "Traceback" not in result.output
    assert list(tmp_path.iterdir()) == []


def test_a_stream_that_nobody_creates_is_given_up_on_and_named(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(delivery, "connect", lambda *_settings: MemoryWire())
    result = run(CONNECT_SECONDS="0.3")
    assert result.exit_code == 3
    assert "there is no stream 'orders'; create it first" in caplog.messages[-1]


@pytest.mark.parametrize(
    ("environment", "complaint"),
    [
        ({"STREAM": ""}, "STREAM: is not set; allowed: kafka, kinesis"),
        ({"RATE": "fast"}, "RATE: 'fast' is no rate; allowed: a number above 0 with /s, /min or /h (500/s), or max"),
        ({"SPEED": "fast"}, "SPEED: 'fast' is no speed; allowed: a number above 0 with x (1x, 3600x), or max"),
        ({"START": "2026-11-20T00:00:00Z"}, "START: needs a RATE in orders a second (RATE is max)"),
        (
            {"UNTIL": "tomorrow"},
            "UNTIL: 'tomorrow' is no time; allowed: RFC 3339 with an offset (2026-11-20T08:00:00Z)",
        ),
        (
            {"LATE": "0.6", "OUT_OF_ORDER": "0.6"},
            "OUT_OF_ORDER: LATE and OUT_OF_ORDER together are more than 1",
        ),
        ({"SOURCE": "replay"}, "REPLAY_FILE: is not set; SOURCE=replay needs it"),
        ({"SOURCE": "kafka"}, "SOURCE: Input should be 'synthetic' or 'replay'; allowed: synthetic, replay"),
        ({"MANIFEST": "/nowhere/at/all.json"}, "MANIFEST: there is no folder /nowhere/at"),
        ({"PRODUCTS": "0"}, "PRODUCTS: Input should be greater than or equal to 1; allowed: a whole number"),
    ],
)
def test_a_wrong_setting_is_one_line_with_its_name(environment: dict[str, str], complaint: str) -> None:
    result = run(**environment)
    assert result.exit_code == 2
    assert result.stderr.splitlines() == [complaint]


def test_all_wrong_settings_are_told_at_once() -> None:
    result = run("--late", "2", STREAM="", RATE="fast")
    assert result.exit_code == 2
    assert [line.split(":")[0] for line in result.stderr.splitlines()] == ["STREAM", "RATE", "LATE"]


def test_every_option_is_a_setting_of_that_name() -> None:
    options = {parameter.name for parameter in typer.main.get_command(app).params} - {"help"}
    assert {"rate", "late", "shift_to_now"} <= options <= set(GeneratorSettings.model_fields)


def a_closed_port() -> str:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{held.getsockname()[1]}"


def service(**environment: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "generator"],
        env=os.environ | {"STREAM": "kafka", "KAFKA_BOOTSTRAP_SERVERS": a_closed_port()} | environment,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_broker_that_stays_away_is_named_and_given_up_on() -> None:
    with service(CONNECT_SECONDS="0.5") as process:
        _, said = process.communicate(timeout=60)
    assert process.returncode == 3
    assert "127.0.0.1:" in said.splitlines()[-1]
    assert "Traceback" not in said


def test_a_signal_while_the_broker_is_away_ends_it_at_once() -> None:
    with service(CONNECT_SECONDS="300") as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "is away" in line:
                break
        process.terminate()
        assert process.wait(timeout=30) == 0


def test_a_clock_that_is_told_to_stop_waits_no_longer() -> None:
    clock = SystemClock()
    clock.listen()
    clock.finish_first()
    assert not clock.stopping()
    signal.raise_signal(signal.SIGTERM)
    assert clock.stopping()
    begun = clock.monotonic()
    clock.wait(60)
    assert clock.monotonic() - begun < 5


def test_tallies_add_up() -> None:
    total = Tally()
    assert total.as_dict()["accepted"]["first_event_time"] is None
    total.add(Tally(sales=2, units=5, sales_minor=700, first_event_time=20, last_event_time=30))
    total.add(Tally(returns=1, units=-1, refunded_minor=100, first_event_time=10, last_event_time=25))
    total.add(Tally())
    total.add_dead_letter(Kind.MALFORMED, "json")
    assert (total.identities, total.units, total.records) == (3, 4, 1)
    assert (total.first_event_time, total.last_event_time) == (10, 30)
    assert total.as_dict()["accepted"]["revenue_minor"] == 600


def test_a_manifest_replaces_the_last_one_whole(tmp_path: Path) -> None:
    path = tmp_path / "sent.json"
    write(path, {"records": 1})
    write(path, {"records": 2})
    assert json.loads(path.read_text()) == {"records": 2}
    assert list(tmp_path.iterdir()) == [path]
