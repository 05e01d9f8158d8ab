"""What `up` and `demo` know of the chain that they started."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from sales.board import Keys
from sales.streams.memory import MemoryWire
from support.ports import lasting_ports
from support.waiting import eventually
from tillstream import chain as chains
from tillstream.chain import Chain, ChainSettings, NoNumbersError
from tillstream.local.nursery import Nursery
from tillstream.local.server import Server
from tillstream.supervisor import Supervisor


@pytest.fixture
def bare_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ChainSettings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    for name, value in {"STREAM": "kafka", "S3_BUCKET": "bucket", "RECOVERY_DIR": str(tmp_path)}.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def wire() -> MemoryWire:
    """Its orders stream has three orders."""
    wire = MemoryWire()
    wire.create("orders", partitions=1, retention_hours=24)
    with wire.open("orders").writer() as writer:
        writer.write([b"a", b"b", b"c"], [b"1", b"2", b"3"])
    return wire


@pytest.fixture
def chain(
    redis_url: str,
    wire: MemoryWire,
    bare_environment: None,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> Iterator[Chain]:
    """A chain of one service that only says "here"."""
    monkeypatch.setattr(chains, "connect", lambda *_settings: wire)
    (tmp_path / "service.py").write_text("import time; print('here', flush=True); time.sleep(600)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("WINDOWS", "30s 2h")
    with Nursery() as nursery, Supervisor(nursery, tmp_path) as supervisor:
        child = supervisor.start("service")
        eventually(lambda: child.last_lines() == ["here"])
        server = Server("Redis", redis_url, 6379, child)
        yield Chain(supervisor, ChainSettings(), server, tmp_path / "env")  # type: ignore[call-arg]  # from the environment


def test_it_is_settled_once_the_board_has_applied_the_whole_stream(
    chain: Chain, wire: MemoryWire, redis_client: "redis.Redis"
) -> None:
    stream = wire.open("orders")
    [(partition, end)] = stream.ends().items()
    assert end is not None
    assert not chain.settle(0.5)
    redis_client.hset(Keys("sales:").positions, f"{stream.id}/{partition}", str(end - 1))
    assert not chain.settle(0.5)
    redis_client.hset(Keys("sales:").positions, f"{stream.id}/{partition}", str(end))
    assert chain.settle(20)


def test_without_numbers_in_time_the_services_last_lines_are_said(chain: Chain) -> None:
    with pytest.raises(NoNumbersError, match="no numbers in Redis after") as none:
        chain.wait_for_numbers(lambda: False, 0.3)
    assert str(none.value).splitlines()[1:] == ["service: its last lines:", "    here"]


def test_what_it_proposes_to_try_are_windows_that_there_are(chain: Chain) -> None:
    best, average, *_ = chain.notes()
    assert best.endswith(" ZREVRANGE sales:30s:product:revenue 0 9 WITHSCORES")
    assert average.endswith(" HGETALL sales:2h:aov")


def test_another_terminal_is_told_every_setting_but_no_secret(
    bare_environment: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {
        "REGION_OVERRIDES": '{"XK": "Europe"}',
        "SALES_TABLE": "Ours",
        "AWS_REGION": "eu-west-1",
        "KAFKA_SASL_PASSWORD": "hush",
    }.items():
        monkeypatch.setenv(name, value)
    lines = chains._for_a_shell({"REDIS_URL": "redis://127.0.0.1:1/0"}).splitlines()
    assert {
        """export REGION_OVERRIDES='{"XK": "Europe"}'""",
        "export SALES_TABLE=Ours",
        "export AWS_REGION=eu-west-1",
        "export STREAM=kafka",
        "export REDIS_URL=redis://127.0.0.1:1/0",
        "# KAFKA_SASL_PASSWORD is a secret: set it yourself",
    } <= set(lines)
    assert not any("hush" in line for line in lines)


def test_a_broker_that_is_gone_at_the_end_is_a_warning_and_replaces_no_other_error(
    bare_environment: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    [port] = lasting_ports()
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", f"127.0.0.1:{port}")
    monkeypatch.setattr(chains, "GIVE_BACK_SECONDS", 0.5)
    with caplog.at_level(logging.WARNING, "tillstream"):
        chains._give_back(["orders-1", "orders-2"])
    assert caplog.messages[-1].startswith(
        f"not removed, if they were made: orders-1, orders-2 (Kafka at 127.0.0.1:{port} can't be reached"
    )
