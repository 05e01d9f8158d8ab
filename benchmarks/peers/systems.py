"""The systems that are compared: how each is installed, started, and known to have the answer."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks import oracle, topics
from benchmarks.lab import BenchmarkError, Lab, Meter

from sales.countries import REGION_OF
from tillstream.local.nursery import Child

HERE = Path(__file__).parent
PREFIX = "peer:"
POLL_SECONDS = 0.1
"""The question is some 80 keys wide; more often it would take from the servers' core."""
METER_SECONDS = 0.5
SAY_SECONDS = 10.0
INSTALL_SECONDS = 1800.0

ALL = ""
SINCE_THE_START = r"24h:.*"
"""All that the topic holds: it is shorter than a day."""
WITHOUT_ORDERS_OF_CATEGORIES = r"(?!.*:category:orders$).*"


@dataclass(frozen=True, slots=True)
class Peer:
    """One system."""

    command: Callable[[Path], list[str]]
    """what runs on the core, from the folder that holds its packages"""
    most: int
    """good orders that it gets at most, so that a run ends within minutes"""
    answers: str
    """regular expression of the keys that it can answer"""
    install: Callable[[Path], list[list[str]]] = lambda _folder: []
    """commands that fill that folder"""
    helper: tuple[str, ...] = ()
    """runs beside it on the servers' core, and is not counted"""
    env: tuple[tuple[str, str], ...] = ()


def _venv(name: str) -> Callable[[Path], list[list[str]]]:
    def install(folder: Path) -> list[list[str]]:
        return [
            [sys.executable, "-m", "venv", str(folder / "venv")],
            [f"{folder}/venv/bin/pip", "install", "--quiet", "-r", str(HERE / name / "requirements.txt")],
        ]

    return install


def _jars(name: str) -> Callable[[Path], list[list[str]]]:
    def install(folder: Path) -> list[list[str]]:
        copy = ["mvn", "--batch-mode", "--quiet", "--file", str(HERE / name / "pom.xml")]
        return [[*copy, "dependency:copy-dependencies", "-DincludeScope=runtime", f"-DoutputDirectory={folder}/jars"]]

    return install


def _kafka_streams(folder: Path) -> list[list[str]]:
    source = str(HERE / "kafka_streams" / "Shop.java")
    return [
        *_jars("kafka_streams")(folder),
        ["javac", "-cp", f"{folder}/jars/*", "-d", f"{folder}/classes", source],
    ]


def _ours(path: str) -> Callable[[Path], list[str]]:
    return lambda _folder: [sys.executable, str(HERE / path)]


PEERS = {
    "naive": Peer(_ours("naive/loop.py"), 100_000, SINCE_THE_START, env=(("BATCH", "1"),)),
    "naive-batched": Peer(_ours("naive/loop.py"), 300_000, SINCE_THE_START, env=(("BATCH", "500"),)),
    "bytewax-windows": Peer(
        lambda _folder: [sys.executable, "-m", "bytewax.run", f"{HERE / 'bytewax_windows' / 'flow.py'}:flow"],
        20_000,
        ALL,
    ),
    "quix": Peer(
        lambda folder: [f"{folder}/venv/bin/python", str(HERE / "quix" / "app.py")],
        2_000,
        ALL,
        install=_venv("quix"),
    ),
    "faust": Peer(
        lambda folder: [f"{folder}/venv/bin/python", str(HERE / "faust" / "app.py"), "worker", "-l", "warn"],
        500,
        ALL,
        install=_venv("faust"),
    ),
    "flink": Peer(
        lambda folder: [f"{folder}/venv/bin/python", str(HERE / "flink" / "job.py")],
        1_000_000,
        WITHOUT_ORDERS_OF_CATEGORIES,
        install=lambda folder: [*_venv("flink")(folder), *_jars("flink")(folder)],
        helper=(sys.executable, str(HERE / "flink" / "bridge.py")),
    ),
    "spark": Peer(
        lambda folder: [f"{folder}/venv/bin/python", str(HERE / "spark" / "job.py")],
        5_000,
        ALL,
        install=lambda folder: [*_venv("spark")(folder), *_jars("spark")(folder)],
    ),
    "kafka-streams": Peer(
        lambda folder: ["java", "-Xmx2g", "-cp", f"{folder}/classes:{folder}/jars/*", "Shop"],
        100_000,
        ALL,
        install=_kafka_streams,
    ),
}


@dataclass(frozen=True, slots=True)
class Result:
    """One run of one system."""

    name: str
    messages: int
    seconds: float
    """from the start of the process until Redis holds the answer"""
    cpu_seconds: float
    peak_mb: float
    others: float


def _install(lab: Lab, name: str) -> Path:
    """The folder with a peer's packages, filled on the first use.

    Raises:
        BenchmarkError: they can't be installed; with what was said.
    """
    peer = PEERS[name]
    folder = lab.folder / "peers" / name
    done = folder / "installed"
    commands = peer.install(folder)
    if done.exists() or not commands:
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    for line in commands:
        sys.stderr.write(f"{name}: {' '.join(line[:3])} ...\n")
        ran = subprocess.run(line, capture_output=True, text=True, timeout=INSTALL_SECONDS, check=False)
        if ran.returncode != 0:
            lines = (ran.stdout + ran.stderr).splitlines()[-15:]
            raise BenchmarkError("\n".join([f"{name} can't be installed:", *lines]))
    done.touch()
    return folder


def measure(lab: Lab, name: str, loaded: topics.Loaded, right: oracle.Answer, *, seconds: float, run: str) -> Result:
    """One run of a peer, from an empty Redis until it holds the answer.

    Args:
        lab: the servers; their Redis is emptied.
        name: the peer's.
        loaded: the topic.
        right: its answer.
        seconds: how long it may take.
        run: a name for the run.

    Raises:
        BenchmarkError: it failed, or the answer was not there in time.
    """
    peer = PEERS[name]
    packages = _install(lab, name)
    folder = lab.scratch(name)
    output = f"{name}-{run}"
    lab.wire.create(output, partitions=1, retention_hours=24)
    lab.client.flushall()
    env = {
        **os.environ,
        "BOOTSTRAP": lab.broker.address,
        "TOPIC": loaded.shape.topic,
        "OUTPUT": output,
        "GROUP": output,
        "REDIS_URL": lab.store.address,
        "PREFIX": PREFIX,
        "AS_OF": str(right.as_of),
        "STATE": str(folder),
        "JARS": str(packages / "jars"),
        "REGIONS": ",".join(f"{country}={region}" for country, region in REGION_OF.items()),
        **dict(peer.env),
    }
    children: list[Child] = []
    try:
        if peer.helper:
            children.append(lab.nursery.spawn(f"{name} helper", peer.helper, log=folder / "helper.log", env=env))
        started = time.monotonic()
        children.append(lab.start(name, peer.command(packages), env, folder / "log"))
        return _watch(lab, name, loaded, right, children, started=started, seconds=seconds)
    finally:
        for child in reversed(children):
            child.stop()
        lab.wire.delete(output)


def _watch(
    lab: Lab,
    name: str,
    loaded: topics.Loaded,
    right: oracle.Answer,
    children: list[Child],
    *,
    started: float,
    seconds: float,
) -> Result:
    """Waits for the answer; the last of the children is what is measured."""
    meter = Meter(children[-1].pid)
    before = meter.read()
    said = metered = started
    while True:
        wrong = oracle.differences(right, lab.client, PREFIX, only=PEERS[name].answers, derived=False)
        now = time.monotonic()
        if not wrong:
            used = meter.read()
            busy = used.core_seconds - before.core_seconds
            others = max(0.0, busy - used.cpu_seconds) / (now - started)
            return Result(name, loaded.messages, now - started, used.cpu_seconds, used.peak_mb, others)
        failed = [child for child in children if child.exit_code()]
        if failed or now > started + seconds:
            lines = [f"{name}: {len(wrong):,} numbers are not there after {now - started:.0f} s, as:", *wrong[:5]]
            for child in failed or children:
                lines += [f"{child.name}, exit code {child.exit_code()}, its last lines:", *child.last_lines()]
            raise BenchmarkError("\n".join(lines))
        if now > metered + METER_SECONDS:
            metered = now
            meter.read()
        if now > said + SAY_SECONDS:
            said = now
            sys.stderr.write(f"{name}: {now - started:.0f} s, {len(wrong):,} numbers to come\n")
        time.sleep(POLL_SECONDS)
