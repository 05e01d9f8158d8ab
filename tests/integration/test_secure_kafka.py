"""TLS and passwords, with a real broker: what is set is what is spoken, and what is wrong is a sentence."""

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sales.settings import AwsSettings, StreamSettings
from sales.streams import Chunk, Polled, StreamError, Wire
from sales.streams.connect import connect
from sales.streams.memory import MemoryCheckpoints
from sales.streams.packed import Packed
from support.secure_kafka import PASSWORD, USER, SecureKafka, start_secure
from support.waiting import eventually
from tillstream.local import kafka as local_kafka
from tillstream.local.nursery import Nursery

pytestmark = pytest.mark.kafka

CLIENTS = ("confluent", "kafka-python")


@pytest.fixture(scope="module")
def broker() -> Iterator[SecureKafka]:
    lacks = local_kafka.missing() or ("no openssl on the PATH" if shutil.which("openssl") is None else None)
    if lacks is not None:
        pytest.skip(lacks)
    with Nursery() as nursery:
        yield start_secure(nursery)


def wire(broker: SecureKafka, client: str, protocol: str, mechanism: str = "PLAIN", **changes: object) -> Wire:
    values: dict[str, object] = {
        "stream": "kafka",
        "kafka_client": client,
        "kafka_bootstrap_servers": broker.listeners[protocol],
        "kafka_security_protocol": protocol,
        "kafka_ssl_ca_file": str(broker.authority) if protocol.endswith("SSL") else "",
        "connect_seconds": 20,
    }
    if protocol.startswith("SASL"):
        values |= {
            "kafka_sasl_mechanism": mechanism,
            "kafka_sasl_username": USER,
            "kafka_sasl_password": PASSWORD,
        }
    return connect(StreamSettings.model_validate(values | changes), AwsSettings())


def values_of(reader: Polled[Chunk] | Polled[Packed], count: int) -> list[bytes]:
    got: list[bytes] = []

    def enough() -> bool:
        for run in reader.poll(100, 0.2):
            got.extend((run if isinstance(run, Chunk) else run.chunk()).values)
        return len(got) >= count

    eventually(enough)
    return sorted(got)


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize(
    ("protocol", "mechanism"),
    [
        ("SASL_SSL", "PLAIN"),
        ("SASL_SSL", "SCRAM-SHA-256"),
        ("SASL_SSL", "SCRAM-SHA-512"),
        ("SASL_PLAINTEXT", "SCRAM-SHA-512"),
        ("SSL", "PLAIN"),
    ],
)
def test_records_are_written_and_read_with_tls_and_password(
    broker: SecureKafka, new_name: Callable[[str], str], client: str, protocol: str, mechanism: str
) -> None:
    there = wire(broker, client, protocol, mechanism)
    name = new_name("secure")
    there.create(name, partitions=2, retention_hours=24)
    stream = there.open(name)
    sent = [b"%d" % number for number in range(100, 200)]
    with stream.writer() as writer:
        writer.write(sent, sent)

    reader = stream.reader(dict.fromkeys(stream.partitions()))
    assert values_of(reader, 100) == sent
    reader.close()
    packed = stream.packed_reader(dict.fromkeys(stream.partitions()))
    assert values_of(packed, 100) == sent
    packed.close()
    for join in (stream.member, stream.packed_member):
        member = join(new_name("group"), MemoryCheckpoints(), lambda _: None, lambda _: None)
        assert values_of(member, 100) == sent
        member.commit(dict.fromkeys(stream.partitions(), 0))
        member.close()
    assert sum(end is not None for end in stream.ends().values()) == 2
    there.close()


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-512"])
def test_a_wrong_password_is_said_at_once(broker: SecureKafka, client: str, mechanism: str) -> None:
    started = time.monotonic()
    with pytest.raises(StreamError, match="does not let us in") as told:
        wire(broker, client, "SASL_SSL", mechanism, kafka_sasl_password="open says me")
    assert time.monotonic() - started < 15
    assert "open says me" not in str(told.value)


@pytest.mark.parametrize("client", CLIENTS)
def test_a_broker_that_another_authority_vouches_for_is_not_trusted(broker: SecureKafka, client: str) -> None:
    with pytest.raises(StreamError, match=r"does not let us in.*certificate"):
        wire(broker, client, "SASL_SSL", kafka_ssl_ca_file=str(broker.stranger))


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("content", [None, "no certificate"])
def test_a_file_of_authorities_that_is_none_is_a_sentence(tmp_path: Path, client: str, content: str | None) -> None:
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_text(content)
    nobody = SecureKafka({"SSL": "127.0.0.1:1"}, file, file)
    with pytest.raises(StreamError, match=r"KAFKA_SSL_CA_FILE, .*ca\.pem"):
        wire(nobody, client, "SSL")
