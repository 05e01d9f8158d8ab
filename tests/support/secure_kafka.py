"""A real broker that lets in who has the password and speaks TLS: Kafka from Maven, certificates from openssl."""

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tillstream.local import kafka as local_kafka
from tillstream.local.nursery import Nursery
from tillstream.local.server import LOOPBACK, connects, start

USER, PASSWORD = "till", "open sesame"
CLUSTER = "c2VjdXJlLXRpbGxzdHJlYQ"


@dataclass(frozen=True)
class SecureKafka:
    """Where its listeners are, and whom to trust."""

    listeners: dict[str, str]
    """KAFKA_SECURITY_PROTOCOL to host:port"""
    authority: Path
    """PEM: signed the broker's certificate"""
    stranger: Path
    """PEM: another authority"""


def start_secure(nursery: Nursery) -> SecureKafka:
    """Starts one; ServerError where Java, Maven or openssl is missing."""
    keys = nursery.folder("certificates")
    authority, _ = _authority(keys, "authority")
    stranger, _ = _authority(keys, "stranger")
    store = _certificate(keys)
    java, jars = local_kafka.KAFKA.java(), local_kafka.KAFKA.jars(nursery)
    places: list[int] = []

    def command(ports: list[int], folder: Path) -> Sequence[str]:
        places[:] = ports
        properties = folder / "server.properties"
        properties.write_text(
            local_kafka._properties(ports[:2], folder / "data") + _secured(ports, store)  # the later line counts
        )
        run = [java, "-Xmx384m", "-XX:+UseSerialGC", "-cp", f"{jars}/*"]
        users = [f"{kind}=[name={USER},password={PASSWORD}]" for kind in ("SCRAM-SHA-256", "SCRAM-SHA-512")]
        subprocess.run(
            [
                *(*run, "kafka.tools.StorageTool", "format", "--standalone", "--cluster-id", CLUSTER),
                *("--config", str(properties), "--add-scram", users[0], "--add-scram", users[1]),
            ],
            check=True,
            capture_output=True,
            timeout=60,
        )
        return [*run, "-Dlog4j2.level=WARN", "kafka.Kafka", str(properties)]

    start(
        nursery,
        "Kafka with TLS",
        command=command,
        address=lambda port: f"{LOOPBACK}:{port}",
        answers=lambda address, _: local_kafka._answers(address, CLUSTER) and all(map(connects, places)),
        seconds=local_kafka.START_SECONDS,
        ports=5,
    )
    names = ("SASL_SSL", "SSL", "SASL_PLAINTEXT")
    return SecureKafka(
        {name: f"{LOOPBACK}:{port}" for name, port in zip(names, places[2:], strict=True)}, authority, stranger
    )


def _secured(ports: list[int], store: Path) -> str:
    broker, controller, sasl_ssl, ssl, sasl = ports
    listeners = (
        f"PLAINTEXT://{LOOPBACK}:{broker},CONTROLLER://{LOOPBACK}:{controller},SASL_SSL://{LOOPBACK}:{sasl_ssl},"
        f"SSL://{LOOPBACK}:{ssl},SASL_PLAINTEXT://{LOOPBACK}:{sasl}"
    )
    lines = [
        f"listeners={listeners}",
        f"advertised.listeners={listeners}",
        "listener.security.protocol.map="
        + ",".join(f"{name}:{name}" for name in ("PLAINTEXT", "SASL_SSL", "SSL", "SASL_PLAINTEXT"))
        + ",CONTROLLER:PLAINTEXT",
        "sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512",
        "ssl.keystore.type=PEM",
        f"ssl.keystore.location={store}",
    ]
    security = "org.apache.kafka.common.security"
    for listener in ("sasl_ssl", "sasl_plaintext"):
        at = f"listener.name.{listener}"
        lines.append(
            f"{at}.plain.sasl.jaas.config={security}.plain.PlainLoginModule required "
            f'username="broker" password="broker" user_{USER}="{PASSWORD}";'
        )
        lines += [
            f"{at}.{kind}.sasl.jaas.config={security}.scram.ScramLoginModule required;"
            for kind in ("scram-sha-256", "scram-sha-512")
        ]
    return "\n".join([*lines, ""])


def _authority(keys: Path, name: str) -> tuple[Path, Path]:
    certificate, key = keys / f"{name}.pem", keys / f"{name}.key"
    _openssl(
        *("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={name}"),
        *("-keyout", str(key), "-out", str(certificate)),
    )
    return certificate, key


def _certificate(keys: Path) -> Path:
    """The broker's key and certificate in one file, as it wants them."""
    key, request, certificate, names = (keys / f"broker.{kind}" for kind in ("key", "csr", "pem", "ext"))
    names.write_text(f"subjectAltName=IP:{LOOPBACK}")
    _openssl("req", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=broker", "-keyout", str(key), "-out", str(request))
    _openssl(
        *("x509", "-req", "-in", str(request), "-CA", str(keys / "authority.pem"), "-CAcreateserial"),
        *("-CAkey", str(keys / "authority.key"), "-days", "2", "-extfile", str(names), "-out", str(certificate)),
    )
    store = keys / "broker.store.pem"
    store.write_text(key.read_text() + certificate.read_text())
    return store


def _openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True, timeout=60)
