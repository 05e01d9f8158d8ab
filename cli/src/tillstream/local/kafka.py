"""A real Apache Kafka broker: one Java process, KRaft, broker and controller in one, from Maven's artifacts.

The first orderly stop leaves an archive of loaded classes beside the jars, with which the next start takes about half
the time.
"""

import contextlib
import hashlib
import re
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Sequence
from pathlib import Path

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from tillstream.local.java import Program
from tillstream.local.java import run as run_java
from tillstream.local.nursery import Nursery
from tillstream.local.server import LOOPBACK, Server, connects, version
from tillstream.local.server import start as start_server

START_SECONDS = 120.0
"""A few seconds are usual; two busy cores and a cold disk take longer."""
FORMAT_SECONDS = 60.0

KAFKA = Program("kafka", "a Kafka broker", "; or set KAFKA_BOOTSTRAP_SERVERS to a broker that runs")

_JAVA_OPTIONS = ("-Xms256m", "-XX:+UseSerialGC", "-Xss512k")
"""Two cores and one user: the serial collector and a small heap start soonest and leave the most to others."""
HEAP_MB = 512
"""At most. Records are in the system's page cache and not here."""


def start(nursery: Nursery, *, data: Path | None = None, heap_mb: int = HEAP_MB, at: Sequence[int] = ()) -> Server:
    """A broker on a free loopback port; its address is ``host:port``.

    The first start on a machine downloads the jars.

    Args:
        nursery: holds the process.
        data: where topics are kept, from one broker to the next; None: they go with the nursery.
        heap_mb: what Java's heap may grow to.
        at: its two ports (broker, controller), where it has to come back to them.

    Raises:
        ServerError: Java or Maven is missing, the jars can't be had, or it does not start.
    """
    java, jars = KAFKA.java(), KAFKA.jars(nursery)
    archive = _class_archive(java, jars)
    kept = None if data is None else _cluster_of(data)
    cluster = kept or urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")

    def command(ports: list[int], folder: Path) -> Sequence[str]:
        properties = folder / "server.properties"
        logs = folder / "data" if data is None else data
        properties.write_text(_properties(ports, logs))
        run = [java, *_JAVA_OPTIONS, f"-Xmx{heap_mb}m", "-cp", f"{jars}/*"]
        if _cluster_of(logs) is None:
            run_java(
                nursery,
                "storage",
                [
                    *(*run, "-XX:TieredStopAtLevel=1", "-Xshare:auto", "kafka.tools.StorageTool", "format"),
                    # One word: an id may begin with a dash, as one of 64 does.
                    *("--standalone", f"--cluster-id={cluster}", "--config", str(properties)),
                ],
                "Kafka's storage could not be formatted",
                FORMAT_SECONDS,
            )
        return [*run, *archive, "-Dlog4j2.level=WARN", "kafka.Kafka", str(properties)]

    return start_server(
        nursery,
        f"Kafka {KAFKA.version}",
        command=command,
        address=lambda port: f"{LOOPBACK}:{port}",
        answers=lambda address, _: _answers(address, cluster),
        seconds=START_SECONDS,
        ports=2,
        at=at,
    )


def missing() -> str | None:
    """A sentence on what this machine lacks to run a broker; None when nothing is."""
    return KAFKA.missing()


def _answers(address: str, cluster: str) -> bool:
    """Does it name itself as a broker of this cluster? It listens a little before it takes part."""
    if not connects(int(address.rpartition(":")[2])):
        return False
    try:
        found = AdminClient({"bootstrap.servers": address, "log_level": 0}).list_topics(timeout=2)
    except KafkaException:
        return False
    return bool(found.brokers) and found.cluster_id == cluster


def _cluster_of(data: Path) -> str | None:
    """The id of the cluster whose topics the folder keeps; None: no cluster's yet."""
    with contextlib.suppress(FileNotFoundError):
        found = re.search(r"^cluster\.id=(.+)$", (data / "meta.properties").read_text(), re.MULTILINE)
        return None if found is None else found[1].strip()
    return None


def _class_archive(java: str, jars: Path) -> list[str]:
    """Options that use the archive of loaded classes, or else write one at exit; an archive fits one Java only."""
    key = hashlib.sha256(version(java, "-version").encode()).hexdigest()[:12]
    archive = jars.parent / f"{jars.name}-{key}.jsa"
    if archive.exists() and any(archive.open("rb").read(4)):  # Java writes the head last: zeros are half an archive
        return [f"-XX:SharedArchiveFile={archive}", "-Xshare:auto"]
    return [f"-XX:ArchiveClassesAtExit={archive}", "-Xshare:auto"]


def _properties(ports: list[int], data: Path) -> str:
    broker, controller = ports
    return f"""\
process.roles=broker,controller
node.id=1
listeners=PLAINTEXT://{LOOPBACK}:{broker},CONTROLLER://{LOOPBACK}:{controller}
advertised.listeners=PLAINTEXT://{LOOPBACK}:{broker},CONTROLLER://{LOOPBACK}:{controller}
controller.listener.names=CONTROLLER
controller.quorum.bootstrap.servers={LOOPBACK}:{controller}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs={data}
auto.create.topics.enable=false
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
num.network.threads=2
num.io.threads=2
"""
