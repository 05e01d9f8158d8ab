"""Reaching a broker: what is tried again, what is said, what each client is told of the settings."""

import logging
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from pydantic import SecretStr

from sales.settings import AwsSettings, StreamSettings
from sales.streams import AwayError, PositionLostError, StreamError, kafka
from sales.streams.connect import connect
from sales.streams.kafka import KafkaWire
from sales.streams.kafka_confluent import librdkafka_settings
from sales.streams.kafka_python import kafka_python_settings
from sales.streams.memory import MemoryStream, MemoryWire
from sales.streams.reaching import backoff, open_stream, reach
from sales.streams.seldom import SECONDS, Seldom
from support.waiting import eventually

NOBODY = "127.0.0.1:1"
"""A port that nothing listens on."""


def stream_settings(**difference: object) -> StreamSettings:
    return StreamSettings.model_validate(
        {"stream": "kafka", "kafka_bootstrap_servers": NOBODY, "connect_seconds": 0.5, **difference}
    )


def test_what_is_away_is_tried_again_until_it_answers(caplog: pytest.LogCaptureFixture) -> None:
    answers = [AwayError("not yet"), AwayError("nearly"), None]

    def attempt() -> str:
        fault = answers.pop(0)
        if fault is not None:
            raise fault
        return "there"

    with caplog.at_level(logging.WARNING):
        assert reach("Kafka", NOBODY, 10, (AwayError,), attempt) == "there"
    assert [record.message.split(";")[0] for record in caplog.records] == [
        f"Kafka at {NOBODY} is away (not yet)",
        f"Kafka at {NOBODY} is away (nearly)",
    ]


def test_what_stays_away_is_given_up_with_its_name_address_and_reason() -> None:
    def attempt() -> None:
        raise AwayError("connection refused")

    with pytest.raises(AwayError, match=f"Kafka at {NOBODY} can't be reached for 0 s: connection refused"):
        reach("Kafka", NOBODY, 0.3, (AwayError,), attempt)


def test_a_fault_that_no_retry_mends_ends_the_tries_at_once() -> None:
    tries = []

    def attempt() -> None:
        tries.append(1)
        raise StreamError("wrong password")

    with pytest.raises(StreamError, match="wrong password"):
        reach("Kafka", NOBODY, 10, (AwayError,), attempt)
    assert len(tries) == 1


class LateWire(MemoryWire):
    """Somebody creates the stream after the third look."""

    looks = 0

    def open(self, name: str) -> MemoryStream:
        self.looks += 1
        if self.looks == 3:
            self.create(name, partitions=1, retention_hours=24)
        return super().open(name)


def test_a_stream_that_is_not_there_yet_is_waited_for() -> None:
    assert open_stream(LateWire(), "orders", 10).id.startswith("orders-")


def test_a_stream_that_nobody_creates_is_given_up_on_and_named() -> None:
    with pytest.raises(AwayError, match=r"stream at orders can't be reached.*there is no stream 'orders'"):
        open_stream(MemoryWire(), "orders", 0.3)


@pytest.mark.parametrize(("tries", "least", "most"), [(0, 0.25, 0.5), (3, 2, 4), (7, 15, 30), (1_000_000, 15, 30)])
def test_the_pause_between_tries_doubles_up_to_the_longest_and_stays_there(
    tries: int, least: float, most: float
) -> None:
    assert least <= backoff(tries, 0.5, 30) <= most


@pytest.mark.parametrize("client", ["confluent", "kafka-python"])
def test_a_kafka_that_is_not_there_is_named(client: str) -> None:
    started = time.monotonic()
    with pytest.raises(AwayError, match=f"Kafka at {NOBODY} can't be reached.*refused"):
        connect(stream_settings(kafka_client=client), AwsSettings())
    assert time.monotonic() - started < 10


def test_a_kinesis_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "any")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "any")
    with pytest.raises(AwayError, match=f"Kinesis at http://{NOBODY} can't be reached"):
        connect(stream_settings(stream="kinesis"), AwsSettings(aws_endpoint_url=f"http://{NOBODY}"))


def test_aws_without_credentials_is_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    with pytest.raises(StreamError, match="no AWS credentials"):
        connect(stream_settings(stream="kinesis"), AwsSettings(aws_endpoint_url=f"http://{NOBODY}"))


def test_both_kafka_clients_get_the_same_credentials_and_authorities() -> None:
    settings = stream_settings(
        kafka_bootstrap_servers="a:1,b:2",
        kafka_security_protocol="SASL_SSL",
        kafka_sasl_mechanism="PLAIN",
        kafka_sasl_username="till",
        kafka_sasl_password=SecretStr("open sesame"),
        kafka_ssl_ca_file="/etc/ca.pem",
    )
    native = librdkafka_settings(settings)
    pure = kafka_python_settings(settings)
    assert native["bootstrap.servers"].split(",") == pure["bootstrap_servers"] == ["a:1", "b:2"]
    for native_name, pure_name, value in (
        ("security.protocol", "security_protocol", "SASL_SSL"),
        ("sasl.mechanism", "sasl_mechanism", "PLAIN"),
        ("sasl.username", "sasl_plain_username", "till"),
        ("sasl.password", "sasl_plain_password", "open sesame"),
        ("ssl.ca.location", "ssl_cafile", "/etc/ca.pem"),
    ):
        assert native[native_name] == pure[pure_name] == value


def test_without_security_no_credentials_are_sent() -> None:
    for told in (librdkafka_settings(stream_settings()), kafka_python_settings(stream_settings())):
        assert not [name for name in told if "sasl" in name or "ssl" in name]


def test_a_fault_that_lasts_is_said_once_in_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("sales.streams.seldom.time.monotonic", lambda: now)
    seldom = Seldom()
    assert seldom.due("away")
    assert not seldom.due("away")
    assert seldom.due("something else")
    now += SECONDS
    assert seldom.due("away")


class Topics:
    """As much of a client for questions as a watch asks; answers with a topic of ever more partitions."""

    def __init__(self) -> None:
        self.faults: list[Exception] = []
        self.partitions = 0
        self.topic_id = "one"

    def describe_topics(self, _: list[str]) -> list[dict[str, Any]]:
        self.partitions += 1
        if self.faults:
            raise self.faults.pop(0)
        numbers = [{"partition_index": number} for number in range(self.partitions)]
        return [{"error_code": 0, "topic_id": self.topic_id, "partitions": numbers}]

    def close(self) -> None:
        pass


def watches() -> int:
    return sum(thread.name == "kafka-watch" for thread in threading.enumerate())


def test_a_topic_is_watched_by_one_thread_that_no_unexpected_answer_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka, "WATCH_SECONDS", 0.01)
    topics = Topics()
    wire = KafkaWire(stream_settings(), topics)
    before = watches()
    with ThreadPoolExecutor(8) as threads:
        watched = list(threads.map(lambda _: wire.watch("orders", "one"), range(8)))
    assert watches() == before + 1
    topics.faults = [KeyError("an answer without topics"), ValueError("half an answer")]
    eventually(lambda: not topics.faults)
    first = len(watched[0].partitions())
    eventually(lambda: len(watched[0].partitions()) > first + 2)
    topics.topic_id = "another"

    def gone() -> bool:
        try:
            watched[-1].partitions()
        except PositionLostError:
            return True
        return False

    eventually(gone)
    wire.close()
    assert watches() == before


def loaded(program: str) -> str:
    """What a fresh interpreter prints at the end of a program."""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    return done.stdout.strip()


def test_a_service_on_kinesis_loads_no_client_of_kafka() -> None:
    program = (
        "import sys, sink.__main__, processor.__main__, generator.__main__\n"
        "import sales.streams.kinesis\n"
        "print([name for name in ('confluent_kafka', 'kafka') if name in sys.modules])"
    )
    assert loaded(program) == "[]"


def test_the_sink_takes_arrows_memory_from_the_system_below_python_too() -> None:
    program = (
        "import sink.__main__, pyarrow as pa, pyarrow.parquet as pq, os\n"
        "assert os.environ['ARROW_DEFAULT_MEMORY_POOL'] == 'system'\n"
        "print(pa.default_memory_pool().backend_name)"
    )
    assert loaded(program) == "system"
