"""How the processor starts: what is not there yet is waited for, and then named."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from processor import __main__ as processor
from sales.streams.memory import MemoryWire


@pytest.fixture(autouse=True)
def signals_as_before() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("missing", ["orders", "sales-rollups", "orders-dead-letters"])
def test_a_stream_that_nobody_creates_is_given_up_on_and_named(
    missing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    wire = MemoryWire()
    for name in {"orders", "sales-rollups", "orders-dead-letters"} - {missing}:
        wire.create(name, partitions=1, retention_hours=24)
    monkeypatch.setattr(processor, "connect", lambda *_settings: wire)
    for name, value in {"STREAM": "kafka", "RECOVERY_DIR": str(tmp_path), "CONNECT_SECONDS": "0.3"}.items():
        monkeypatch.setenv(name, value)
    assert processor.main() == 3
    assert f"there is no stream '{missing}'" in caplog.records[-1].message
