"""Other systems on the same topic, with the same answers, on the same core.

    python -m benchmarks.peers tillstream naive naive-batched
    python -m benchmarks.peers tillstream flink --orders 1000000 --runs 3

Each runs as the only guest of its core until Redis holds the oracle's answer for everything that it can express, from
an empty state; what it can't express, and what it leaves out of a shop's duties, is in ``benchmarks/peers/README.md``.
A slow one runs on fewer orders, and the table says on how many. Each runs on a tenth of its orders as well: the
difference between the two is what a further order costs, without what starting costs. Packages are installed on demand
below ``--work``.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from benchmarks import command, oracle, runs, topics
from benchmarks.lab import SERVERS_CORE, BenchmarkError, Lab, Meter, on_cores

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
    "flink": Peer(
        lambda folder: [f"{folder}/venv/bin/python", str(HERE / "flink" / "job.py")],
        1_000_000,
        WITHOUT_ORDERS_OF_CATEGORIES,
        install=lambda folder: [*_venv("flink")(folder), *_jars("flink")(folder)],
        helper=(sys.executable, str(HERE / "flink" / "bridge.py")),
    ),
    "kafka-streams": Peer(
        lambda folder: ["java", "-Xmx2g", "-cp", f"{folder}/classes:{folder}/jars/*", "Shop"],
        100_000,
        ALL,
        install=_kafka_streams,
    ),
}
TILLSTREAM = "tillstream"


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


def _tillstream(lab: Lab, loaded: topics.Loaded, right: oracle.Answer, *, seconds: float, run: str) -> Result:
    ours = runs.measure(lab, loaded, right, settings={}, seconds=seconds, name=run)
    return Result(TILLSTREAM, ours.messages, ours.whole_seconds, ours.whole_cpu_seconds, ours.peak_mb, ours.others)


@dataclass(frozen=True, slots=True)
class Standing:
    """A system's runs on its topic, and on one with a tenth of the orders."""

    runs: list[Result]
    tenth: list[Result]

    def figures(self) -> dict[str, float]:
        """Medians; and what a further order costs, which is the difference of the two topics without the start."""
        whole, tenth = self.runs[0].messages, self.tenth[0].messages
        seconds = _median(self.runs, "seconds")
        cpu = _median(self.runs, "cpu_seconds")
        further = whole - tenth
        return {
            "messages": whole,
            "seconds": seconds,
            "orders_per_second": whole / seconds,
            "further_orders_per_second": further / max(seconds - _median(self.tenth, "seconds"), 1e-9),
            "cpu_seconds_per_million": cpu / whole * 1e6,
            "further_cpu_seconds_per_million": (cpu - _median(self.tenth, "cpu_seconds")) / further * 1e6,
            "peak_mb": _median(self.runs, "peak_mb"),
            "others": _median(self.runs, "others"),
        }


def _median(results: list[Result], name: str) -> float:
    return float(statistics.median(getattr(result, name) for result in results))


def table(standings: dict[str, Standing]) -> str:
    """For people."""
    lines = ["                                  whole run            each further order"]
    lines.append("system              messages    wall s  orders/s  CPU s/M  orders/s  CPU s/M  peak MB  others")
    for name, standing in standings.items():
        found = standing.figures()
        lines.append(
            f"{name:16} {found['messages']:>11,} {found['seconds']:>9.1f} {found['orders_per_second']:>9,.0f}"
            f" {found['cpu_seconds_per_million']:>8,.1f} {found['further_orders_per_second']:>9,.0f}"
            f" {found['further_cpu_seconds_per_million']:>8,.1f} {found['peak_mb']:>8,.0f} {found['others']:>7.0%}"
        )
    return "\n".join(lines)


def main() -> int:
    """Runs the systems one after another; a peer that fails is told of, and the others run."""
    parser = command.parser(__doc__)
    parser.add_argument("systems", nargs="+", choices=[TILLSTREAM, *PEERS])
    command.add_shape(parser, orders=100_000)
    parser.add_argument("--runs", type=int, default=3, help="default %(default)s")
    parser.add_argument("--seconds", type=float, default=900, help="a run may take; default %(default)s")
    return command.run(_work, parser.parse_args())


def _work(lab: Lab, options: argparse.Namespace) -> None:
    standings: dict[str, Standing] = {}
    failed = []
    for name in options.systems:
        try:
            standings[name] = _stand(lab, name, options)
        except BenchmarkError as error:
            failed.append(name)
            sys.stderr.write(f"{error}\n")
    print(table(standings))
    found = {
        "systems": {name: standing.figures() for name, standing in standings.items()},
        "runs": {name: asdict(standing) for name, standing in standings.items()},
    }
    command.keep(lab, options, found)
    if failed:
        raise BenchmarkError(f"without figures: {' '.join(failed)}")


def _stand(lab: Lab, name: str, options: argparse.Namespace) -> Standing:
    shape = command.shape(options)
    orders = shape.orders if name == TILLSTREAM else min(shape.orders, PEERS[name].most)
    found = {}
    for size in (orders // 10, orders):
        loaded = topics.load(lab, replace(shape, orders=size))
        right = oracle.answer(lab, loaded)
        found[size] = _runs(lab, name, loaded, right, options)
    return Standing(found[orders], found[orders // 10])


def _runs(
    lab: Lab, name: str, loaded: topics.Loaded, right: oracle.Answer, options: argparse.Namespace
) -> list[Result]:
    results = []
    with on_cores(SERVERS_CORE):
        for number in range(1, options.runs + 1):
            run = f"{os.getpid()}-{number}"
            if name == TILLSTREAM:
                result = _tillstream(lab, loaded, right, seconds=options.seconds, run=run)
            else:
                result = measure(lab, name, loaded, right, seconds=options.seconds, run=run)
            results.append(result)
            sys.stderr.write(
                f"{name}: run {number} of {options.runs}, {loaded.messages:,} messages: {result.seconds:.1f} s, "
                "answers equal\n"
            )
    return results


if __name__ == "__main__":
    sys.exit(main())
