"""TLS, certificates and passwords, with a real broker: what is set is spoken, and what is wrong is a sentence."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trustme

from sales.settings import AwsSettings, StreamSettings
from sales.streams import AwayError, Chunk, Polled, StreamError, Wire
from sales.streams.connect import connect
from sales.streams.memory import MemoryCheckpoints
from sales.streams.packed import Packed
from support.secure_kafka import KEY_PASSWORD, PASSWORD, USER, SecureKafka, start_secure
from support.waiting import eventually
from tillstream.local import kafka as local_kafka
from tillstream.local.nursery import Nursery

pytestmark = pytest.mark.kafka

CLIENTS = ("confluent", "kafka-python")


@pytest.fixture(scope="module")
def broker() -> Iterator[SecureKafka]:
    if (lacks := local_kafka.missing()) is not None:
        pytest.skip(lacks)
    with Nursery() as nursery:
        yield start_secure(nursery)


def wire(broker: SecureKafka, client: str, protocol: str, mechanism: str = "PLAIN", **changes: object) -> Wire:
    values: dict[str, object] = {
        "stream": "kafka",
        "kafka_client": client,
        "kafka_bootstrap_servers": broker.listeners[protocol],
        "kafka_security_protocol": {"MUTUAL": "SSL", "ELSEWHERE": "SSL"}.get(protocol, protocol),
        "kafka_ssl_ca_file": "" if protocol.endswith("PLAINTEXT") else str(broker.authority),
        "connect_seconds": 20,
    }
    if protocol == "MUTUAL":
        values |= {
            "kafka_ssl_certificate_file": str(broker.certificate(USER)),
            "kafka_ssl_key_file": str(broker.certificate(USER)),
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
        ("MUTUAL", "PLAIN"),
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
def test_a_broker_with_the_certificate_of_another_host_is_not_trusted(broker: SecureKafka, client: str) -> None:
    with pytest.raises(StreamError, match=r"does not let us in.*certificate"):
        wire(broker, client, "ELSEWHERE")


@pytest.mark.parametrize("client", CLIENTS)
def test_a_mechanism_that_the_broker_does_not_offer_is_said_at_once(broker: SecureKafka, client: str) -> None:
    with pytest.raises(StreamError, match=r"does not let us in.*PLAIN"):
        wire(broker, client, "SASL_PLAINTEXT", "PLAIN")


@pytest.mark.parametrize("client", CLIENTS)
def test_who_has_no_certificate_is_refused_at_once(broker: SecureKafka, client: str) -> None:
    started = time.monotonic()
    with pytest.raises(StreamError, match=r"does not let us in.*certificate") as told:
        wire(broker, client, "MUTUAL", kafka_ssl_certificate_file="", kafka_ssl_key_file="")
    assert not isinstance(told.value, AwayError)
    assert time.monotonic() - started < 15


@pytest.mark.parametrize("client", CLIENTS)
def test_a_certificate_that_another_authority_signed_is_refused_at_once(broker: SecureKafka, client: str) -> None:
    impostor = str(broker.certificate("impostor"))
    started = time.monotonic()
    with pytest.raises(StreamError, match=r"does not let us in") as told:
        wire(broker, client, "MUTUAL", kafka_ssl_certificate_file=impostor, kafka_ssl_key_file=impostor)
    assert not isinstance(told.value, AwayError)
    assert time.monotonic() - started < 15


@pytest.mark.parametrize("client", CLIENTS)
def test_a_key_under_a_password_is_opened_with_it_and_with_no_other(broker: SecureKafka, client: str) -> None:
    locked = str(broker.certificate("generator.encrypted"))
    files = {"kafka_ssl_certificate_file": locked, "kafka_ssl_key_file": locked}
    wire(broker, client, "MUTUAL", kafka_ssl_key_password=KEY_PASSWORD, **files).close()
    for wrong in ("open says me", ""):
        with pytest.raises(StreamError, match="KAFKA_SSL_KEY_FILE") as told:
            wire(broker, client, "MUTUAL", kafka_ssl_key_password=wrong, **files)
        assert KEY_PASSWORD not in str(told.value)
        assert "open says me" not in str(told.value)


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize(("listener", "protocol"), [("SASL_SSL", "SASL_PLAINTEXT"), ("SASL_PLAINTEXT", "SASL_SSL")])
def test_who_speaks_plain_to_tls_or_tls_to_plain_is_told_within_connect_seconds(
    broker: SecureKafka, client: str, listener: str, protocol: str
) -> None:
    crossed = SecureKafka({protocol: broker.listeners[listener]}, broker.authority, broker.stranger)
    with pytest.raises(StreamError, match=r"PLAINTEXT"):
        wire(crossed, client, protocol, "SCRAM-SHA-512", connect_seconds=3)


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("setting", ["kafka_ssl_certificate_file", "kafka_ssl_key_file"])
def test_a_certificate_or_key_that_is_no_file_is_a_sentence(tmp_path: Path, client: str, setting: str) -> None:
    present = tmp_path / "ours.pem"
    trustme.CA().issue_cert("till.example").private_key_and_cert_chain_pem.write_to_path(str(present))
    nobody = SecureKafka({"MUTUAL": "127.0.0.1:1"}, present, present)
    files = {"kafka_ssl_certificate_file": str(present), "kafka_ssl_key_file": str(present), "kafka_ssl_ca_file": ""}
    with pytest.raises(StreamError, match=rf"{setting.upper()}, .*missing\.pem"):
        wire(nobody, client, "MUTUAL", **(files | {setting: str(tmp_path / "missing.pem")}))


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("content", [None, "no certificate"])
def test_a_file_of_authorities_that_is_none_is_a_sentence(tmp_path: Path, client: str, content: str | None) -> None:
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_text(content)
    nobody = SecureKafka({"SSL": "127.0.0.1:1"}, file, file)
    with pytest.raises(StreamError, match=r"KAFKA_SSL_CA_FILE, .*ca\.pem"):
        wire(nobody, client, "SSL")
