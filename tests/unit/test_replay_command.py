"""``tillstream replay``: sends a file's orders and says what became of every row."""

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from generator import delivery
from sales.streams.memory import MemoryStream, MemoryWire
from tillstream.replay import replay

FILE = """InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country
536365,85123A,WHITE HANGING HEART,6,2010-12-01 08:26:00,2.55,17850.0,United Kingdom
536365,POST,POSTAGE,1,2010-12-01 08:26:00,18.0,17850.0,United Kingdom
536370,22728,ALARM CLOCK,24,2010-12-01 08:45:00,3.755,12583.0,[/Atlantis]
C536379,22728,ALARM CLOCK,-1,2010-12-01 09:41:00,3.75,,EIRE
"""


@pytest.fixture(autouse=True)
def signals_as_before() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def stream(monkeypatch: pytest.MonkeyPatch) -> MemoryStream:
    wire = MemoryWire()
    wire.create("orders", partitions=1, retention_hours=24)
    monkeypatch.setattr(delivery, "connect", lambda *_settings: wire)
    return wire.open("orders")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "orders.csv"
    path.write_text(FILE)
    return path


def run(*arguments: str | Path, **environment: str) -> Result:
    app = typer.Typer()
    app.command()(replay)
    return CliRunner().invoke(
        app, [str(a) for a in arguments], env={"STREAM": "kafka", "CURRENCY": "GBP", "COLUMNS": "120"} | environment
    )


def sent(stream: MemoryStream) -> list[str]:
    return [json.loads(value)["order_id"] for value in stream.logs["0"].values]


def test_it_sends_the_orders_in_time_order_and_shows_the_fates(stream: MemoryStream, file: Path) -> None:
    result = run(file)
    assert result.exit_code == 0, result.output
    assert sent(stream) == ["536365", "536370", "C536379"]
    assert "4 rows read" in result.stdout
    assert "no_product" in result.stdout
    assert "2 sales and 1 returns sent: 105.54 GBP sold, 3.75 GBP refunded, 29 units net" in result.stdout
    assert "1 prices rounded" in result.stdout
    assert "[/Atlantis] (1)" in result.stdout


def test_the_report_as_json(stream: MemoryStream, file: Path) -> None:
    result = run(file, "--json", "--until", "2010-12-01T09:00:00Z")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report["rows"] == 4
    assert report["fates"] == {"sold": 2, "no_product": 1, "after_until": 1}
    assert report["sent"]["accepted"]["sales_minor"] == 6 * 255 + 24 * 376
    assert sent(stream) == ["536365", "536370"]


def test_a_dry_run_needs_no_stream_and_sends_nothing(stream: MemoryStream, file: Path) -> None:
    result = run(file, "--dry-run", STREAM="", CURRENCY="")
    assert result.exit_code == 0, result.output
    assert "2 sales and 1 returns would be sent" in result.stdout
    assert sent(stream) == []


def test_a_shift_to_now_ends_in_the_present(stream: MemoryStream, file: Path) -> None:
    assert run(file, "--shift-to-now").exit_code == 0
    [*_, last] = [json.loads(value)["event_time"] for value in stream.logs["0"].values]
    assert not last.startswith("2010")


@pytest.mark.parametrize(
    ("arguments", "environment", "complaint"),
    [
        (["--mapping", "nothing"], {}, "there is no mapping 'nothing'; those that ship: online-retail; or give a path"),
        (["--speed", "fast"], {}, "SPEED: 'fast' is no speed; allowed: a number above 0 with x (1x, 3600x), or max"),
        (["--until", "noon"], {}, "UNTIL: 'noon' is no time; allowed: RFC 3339 with an offset (2026-11-20T08:00:00Z)"),
        ([], {"STREAM": ""}, "STREAM: is not set; allowed: kafka, kinesis"),
    ],
)
def test_a_users_mistake_is_one_line_and_exit_code_two(
    file: Path, arguments: list[str], environment: dict[str, str], complaint: str
) -> None:
    result = run(file, *arguments, **environment)
    assert result.exit_code == 2
    assert result.stderr.splitlines() == [complaint]


def test_a_pipeline_in_another_currency_is_told_before_anything_is_sent(stream: MemoryStream, file: Path) -> None:
    result = run(file, CURRENCY="USD")
    assert result.exit_code == 2
    assert "set CURRENCY=GBP for every service" in result.stderr
    assert sent(stream) == []


def test_a_missing_file_is_told_before_anything_is_sent(stream: MemoryStream, tmp_path: Path) -> None:
    result = run(tmp_path / "none.csv")
    assert result.exit_code == 2
    assert result.stderr.splitlines() == [f"{tmp_path / 'none.csv'} can't be read: No such file or directory"]
