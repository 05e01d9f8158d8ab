"""A real broker that lets in who has the password or the certificate, and allows what is listed: Kafka from Maven."""

import shlex
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.resources.abc import Traversable
from pathlib import Path

import trustme
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from tillstream.local import kafka as local_kafka
from tillstream.local.java import Program
from tillstream.local.nursery import Nursery
from tillstream.local.server import LOOPBACK, connects, start

USER, PASSWORD = "till", "open sesame"
"""May do everything; the services' users may do what they are given."""
SERVICES = ("generator", "processor", "sink", "setup", "operator")
KEY_PASSWORD = "treacle"
CLUSTER = "c2VjdXJlLXRpbGxzdHJlYQ"
ACLS = Path(__file__).parents[2] / "deploy" / "kafka" / "acls"
LISTENERS = ("SASL_SSL", "SSL", "SASL_PLAINTEXT", "MUTUAL", "ELSEWHERE")
"""MUTUAL asks for a certificate; ELSEWHERE shows one for another host."""


def password_of(user: str) -> str:
    return PASSWORD if user == USER else f"{user} has a secret"


@dataclass(frozen=True)
class SecureKafka:
    """Where its listeners are, and whom to trust."""

    listeners: dict[str, str]
    """LISTENERS to host:port"""
    authority: Path
    """PEM: signed every certificate here but the stranger's"""
    stranger: Path
    """PEM: another authority"""
    decisions: Path = Path()
    """what the broker wrote of everything that it allowed or denied"""

    def certificate(self, user: str) -> Path:
        """PEM: a user's key and certificate in one."""
        return self.authority.parent / f"{user}.pem"

    def by_password(self, user: str, **changes: str) -> dict[str, str]:
        """A service's environment."""
        return {
            "KAFKA_BOOTSTRAP_SERVERS": self.listeners["SASL_SSL"],
            "KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
            "KAFKA_SASL_MECHANISM": "SCRAM-SHA-512",
            "KAFKA_SASL_USERNAME": user,
            "KAFKA_SASL_PASSWORD": password_of(user),
            "KAFKA_SSL_CA_FILE": str(self.authority),
            **changes,
        }

    def by_certificate(self, user: str, **changes: str) -> dict[str, str]:
        """A service's environment."""
        return {
            "KAFKA_BOOTSTRAP_SERVERS": self.listeners["MUTUAL"],
            "KAFKA_SECURITY_PROTOCOL": "SSL",
            "KAFKA_SSL_CA_FILE": str(self.authority),
            "KAFKA_SSL_CERTIFICATE_FILE": str(self.certificate(user)),
            "KAFKA_SSL_KEY_FILE": str(self.certificate(user)),
            **changes,
        }

    def allow(self, acls: Iterable[AclBinding]) -> None:
        """As the user who may do everything."""
        admin = AdminClient(
            {
                "bootstrap.servers": self.listeners["SASL_SSL"],
                "security.protocol": "SASL_SSL",
                "sasl.mechanism": "SCRAM-SHA-512",
                "sasl.username": USER,
                "sasl.password": PASSWORD,
                "ssl.ca.location": str(self.authority),
            }
        )
        for made in admin.create_acls(list(acls)).values():
            made.result(30)


def listed_acls() -> list[AclBinding]:
    """Those of the file, read as ``kafka-acls.sh`` reads its arguments."""
    found = []
    for line in ACLS.read_text().splitlines():
        words = shlex.split(line, comments=True)
        if not words:
            continue
        given = dict(zip(words[::2], words[1::2], strict=True))
        operation = "".join(f"_{letter}" if letter.isupper() else letter for letter in given.pop("--operation"))
        pattern = given.pop("--resource-pattern-type", "literal").upper()
        principal = given.pop("--allow-principal")
        [(kind, name)] = given.items()
        found.append(
            AclBinding(
                ResourceType[kind.removeprefix("--").upper()],
                name,
                ResourcePatternType[pattern],
                principal,
                "*",
                AclOperation[operation.removeprefix("_").upper()],
                AclPermissionType.ALLOW,
            )
        )
    return found


class _Log(Program):
    """What writes the broker's log."""

    @property
    def _pom(self) -> Traversable:
        return Path(__file__).with_name("slf4j.pom.xml")


def start_secure(nursery: Nursery) -> SecureKafka:
    """Starts one; ServerError where Java or Maven is missing."""
    keys = nursery.folder("certificates")
    authority, stranger = trustme.CA(), trustme.CA()
    authority.cert_pem.write_to_path(keys / "authority.pem")
    stranger.cert_pem.write_to_path(keys / "stranger.pem")
    for user in (USER, *SERVICES):
        authority.issue_cert(f"{user}.example", common_name=user).private_key_and_cert_chain_pem.write_to_path(
            keys / f"{user}.pem"
        )
    _encrypt(keys / "generator.pem", keys / "generator.encrypted.pem")
    stranger.issue_cert("generator.example", common_name="generator").private_key_and_cert_chain_pem.write_to_path(
        keys / "impostor.pem"
    )
    for name, host in (("broker", LOOPBACK), ("elsewhere", "elsewhere.example")):
        _store(authority.issue_cert(host, common_name="broker"), keys / f"{name}.store.pem")
    java, jars = local_kafka.KAFKA.java(), local_kafka.KAFKA.jars(nursery)
    log_jars = _Log("slf4j", "a broker's log").jars(nursery)
    places: list[int] = []
    decisions: list[Path] = []

    def command(ports: list[int], folder: Path) -> Sequence[str]:
        places[:], decisions[:] = ports, [folder / "decisions.log"]
        properties = folder / "server.properties"
        properties.write_text(
            local_kafka._properties(ports[:2], folder / "data") + _secured(ports, keys)  # the later line counts
        )
        run = [java, "-Xmx384m", "-XX:+UseSerialGC", "-cp", f"{jars}/*:{log_jars}/*"]
        users = [
            f"{kind}=[name={user},password={password_of(user)}]"
            for kind in ("SCRAM-SHA-256", "SCRAM-SHA-512")
            for user in (USER, *SERVICES)
        ]
        subprocess.run(
            [
                *(*run, "kafka.tools.StorageTool", "format", "--standalone", "--cluster-id", CLUSTER),
                *("--config", str(properties)),
                *(word for user in users for word in ("--add-scram", user)),
            ],
            check=True,
            capture_output=True,
            timeout=60,
        )
        said = {"defaultLogLevel": "warn", "log.kafka.authorizer.logger": "trace", "logFile": str(decisions[0])}
        told = [f"-Dorg.slf4j.simpleLogger.{name}={value}" for name, value in said.items()]
        return [*run, *told, "kafka.Kafka", str(properties)]

    start(
        nursery,
        "Kafka with TLS",
        command=command,
        address=lambda port: f"{LOOPBACK}:{port}",
        answers=lambda address, _: local_kafka._answers(address, CLUSTER) and all(map(connects, places)),
        seconds=local_kafka.START_SECONDS,
        ports=2 + len(LISTENERS),
    )
    addresses = {name: f"{LOOPBACK}:{port}" for name, port in zip(LISTENERS, places[2:], strict=True)}
    return SecureKafka(addresses, keys / "authority.pem", keys / "stranger.pem", decisions[0])


def _secured(ports: list[int], keys: Path) -> str:
    names = ("PLAINTEXT", "CONTROLLER", *LISTENERS)
    speaks = {"CONTROLLER": "PLAINTEXT", "MUTUAL": "SSL", "ELSEWHERE": "SSL"}
    listeners = ",".join(f"{name}://{LOOPBACK}:{port}" for name, port in zip(names, ports, strict=True))
    protocols = ",".join(f"{name}:{speaks.get(name, name)}" for name in names)
    lines = [
        f"listeners={listeners}",
        f"advertised.listeners={listeners}",
        f"listener.security.protocol.map={protocols}",
        "sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512",
        "listener.name.sasl_plaintext.sasl.enabled.mechanisms=SCRAM-SHA-256,SCRAM-SHA-512",
        "ssl.keystore.type=PEM",
        f"ssl.keystore.location={keys}/broker.store.pem",
        f"listener.name.elsewhere.ssl.keystore.location={keys}/elsewhere.store.pem",
        "listener.name.mutual.ssl.client.auth=required",
        "listener.name.mutual.ssl.truststore.type=PEM",
        f"listener.name.mutual.ssl.truststore.location={keys}/authority.pem",
        "ssl.principal.mapping.rules=RULE:^.*CN=([^,]+).*$/$1/,DEFAULT",
        "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        # The broker speaks to itself without a name, on a port that only this machine reaches.
        f"super.users=User:ANONYMOUS;User:{USER}",
    ]
    security = "org.apache.kafka.common.security"
    passwords = " ".join(f'user_{user}="{password_of(user)}"' for user in (USER, *SERVICES))
    for listener in ("sasl_ssl", "sasl_plaintext"):
        at = f"listener.name.{listener}"
        lines.append(
            f"{at}.plain.sasl.jaas.config={security}.plain.PlainLoginModule required "
            f'username="broker" password="broker" {passwords};'
        )
        lines += [
            f"{at}.{kind}.sasl.jaas.config={security}.scram.ScramLoginModule required;"
            for kind in ("scram-sha-256", "scram-sha-512")
        ]
    return "\n".join([*lines, ""])


def _store(certificate: trustme.LeafCert, path: Path) -> None:
    """Key and certificate in one file, the key in the form that a broker takes."""
    key = load_pem_private_key(certificate.private_key_pem.bytes(), None)
    chain = b"".join(blob.bytes() for blob in certificate.cert_chain_pems)
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()) + chain)


def _encrypt(plain: Path, encrypted: Path) -> None:
    """The same key and certificate, the key under KEY_PASSWORD."""
    content = plain.read_bytes()
    key = load_pem_private_key(content, None)
    locked = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(KEY_PASSWORD.encode()))
    encrypted.write_bytes(locked + content[content.index(b"-----BEGIN CERTIFICATE") :])
