"""A real Apache Kafka broker: one Java process, KRaft, broker and controller in one, from Maven's artifacts.

The jars are copied once into a cache outside the project's tree (``$XDG_CACHE_HOME/tillstream``). The first orderly
stop leaves an archive of loaded classes beside them, with which the next start takes about half the time.
"""

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Iterator, Sequence
from importlib.resources import as_file, files
from pathlib import Path

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from tillstream.local.nursery import Nursery
from tillstream.local.server import LOOPBACK, Server, ServerError, connects, version
from tillstream.local.server import start as start_server

MIN_JAVA = 17
"""Kafka 4's broker needs it."""
START_SECONDS = 120.0
"""A few seconds are usual; two busy cores and a cold disk take longer."""
DOWNLOAD_SECONDS = 600.0
"""45 jars, about 110 MB."""
FORMAT_SECONDS = 60.0

_POM = files("tillstream.local") / "broker" / "pom.xml"

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
    java = find_java()
    jars = fetch_jars(nursery)
    archive = _class_archive(java, jars)
    kept = None if data is None else _cluster_of(data)
    cluster = kept or urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")

    def command(ports: list[int], folder: Path) -> Sequence[str]:
        properties = folder / "server.properties"
        logs = folder / "data" if data is None else data
        properties.write_text(_properties(ports, logs))
        run = [java, *_JAVA_OPTIONS, f"-Xmx{heap_mb}m", "-cp", f"{jars}/*"]
        if _cluster_of(logs) is None:
            _run(
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
        f"Kafka {kafka_version()}",
        command=command,
        address=lambda port: f"{LOOPBACK}:{port}",
        answers=lambda address, _: _answers(address, cluster),
        seconds=START_SECONDS,
        ports=2,
        at=at,
    )


def missing() -> str | None:
    """A sentence on what this machine lacks to run a broker; None when nothing is."""
    try:
        find_java()
        if not _cache().is_dir():
            _find_maven()
    except ServerError as error:
        return str(error)
    return None


def find_java() -> str:
    """Path of a Java of at least version 17: from ``JAVA_HOME``, else from the PATH.

    Raises:
        ServerError: there is none, or it is too old.
    """
    home = os.environ.get("JAVA_HOME")
    java = shutil.which("java", path=f"{home}/bin") if home else shutil.which("java")
    wanted = (
        f"a Kafka broker needs Java {MIN_JAVA} or later and Maven (on Debian: apt-get install openjdk-17-jre-headless "
        "maven); or set KAFKA_BOOTSTRAP_SERVERS to a broker that runs"
    )
    if java is None:
        raise ServerError(f"no java {f'in JAVA_HOME={home}' if home else 'on the PATH'}: {wanted}")
    said = version(java, "-version")
    major = re.search(r'version "(?:1\.)?(\d+)', said)
    if major is None or int(major[1]) < MIN_JAVA:
        raise ServerError(f"{java} is {said.splitlines()[0] if said else 'no Java'}: {wanted}")
    return java


def fetch_jars(nursery: Nursery) -> Path:
    """The folder with the broker's jars; copied by Maven when they are not there yet.

    Raises:
        ServerError: Maven is missing or fails; with what it said.
    """
    cache = _cache()
    if cache.is_dir():
        return cache
    maven = _find_maven()
    cache.parent.mkdir(parents=True, exist_ok=True)
    with _lock(cache.with_name(f"{cache.name}.lock")):
        if cache.is_dir():  # another process was faster
            return cache
        unfinished = cache.with_name(f"{cache.name}.{os.getpid()}")
        try:
            with as_file(_POM) as pom:
                _run(
                    nursery,
                    "maven",
                    [
                        *(maven, "--batch-mode", "--quiet", "--file", str(pom), "dependency:copy-dependencies"),
                        *("-DincludeScope=runtime", f"-DoutputDirectory={unfinished}"),
                    ],
                    f"Maven could not copy Kafka's jars to {cache}",
                    DOWNLOAD_SECONDS,
                )
            unfinished.rename(cache)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    return cache


def kafka_version() -> str:
    """The version that the pom names."""
    found = re.search(r"<kafka\.version>([^<]+)<", _POM.read_text())
    assert found is not None, "the pom names no kafka.version"  # noqa: S101 (a file of this package)
    return found[1]


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


def _cache() -> Path:
    """Where the jars are kept.

    Raises:
        ServerError: this user has no home.
    """
    root = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    try:
        return Path(root).expanduser() / "tillstream" / f"kafka-{kafka_version()}"
    except RuntimeError as error:
        raise ServerError(f"no place for Kafka's jars: {error} (set HOME or XDG_CACHE_HOME)") from error


def _find_maven() -> str:
    maven = shutil.which("mvn")
    if maven is None:
        raise ServerError(
            "no mvn on the PATH: Maven fetches Kafka's jars (on Debian: apt-get install maven); "
            "or set KAFKA_BOOTSTRAP_SERVERS to a broker that runs"
        )
    return maven


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    """One process at a time; the system gives the lock back when the process ends, in whatever way."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _run(nursery: Nursery, name: str, command: Sequence[str], failure: str, seconds: float) -> None:
    """Runs a program to its end."""
    child = nursery.spawn(name, command, log=nursery.folder(name) / "log")
    code = child.wait(seconds)
    child.stop()
    if code != 0:
        how = "" if code is not None else f" not done after {seconds:g} s"
        raise ServerError("\n".join([f"{failure}:{how}", *child.last_lines(15)]))


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
