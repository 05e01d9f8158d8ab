"""What the benchmarks stand on: a broker that keeps its topics, a Redis, a core for each side, and what a process used.

The servers (broker, Redis) and the harness share one core; the system under test has the other for itself.
"""

import contextlib
import fcntl
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import confluent_kafka
import redis

from sales.settings import StreamSettings
from sales.streams.kafka import KafkaWire
from tillstream import interrupts
from tillstream.local import kafka as local_kafka
from tillstream.local import redis as local_redis
from tillstream.local.nursery import Child, Nursery
from tillstream.local.server import Server

SERVERS_CORE, SYSTEM_CORE = 0, 1
HEAP_MB = 1024
"""Of the broker: records are in the page cache, and a gigabyte is what small brokers are given."""
BROKER_STOP_SECONDS = 120.0
"""An orderly stop writes everything to disk; without it the next start has to check every segment."""

_SCRATCH = "scratch"
_TICKS = os.sysconf("SC_CLK_TCK")


class BenchmarkError(Exception):
    """A benchmark can't go on; the message says why."""


@dataclass(frozen=True, slots=True)
class Lab:
    """Running servers, and where files are kept."""

    nursery: Nursery
    folder: Path
    """outlives the run: the broker's topics, and what was worked out from them"""
    broker: Server
    store: Server
    wire: KafkaWire
    client: "redis.Redis"
    system_cores: tuple[int, ...] = (SYSTEM_CORE,)

    def scratch(self, name: str) -> Path:
        """A new folder that goes with the run, on the disk that holds the rest; nobody else may enter it."""
        return Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self.folder / _SCRATCH))

    def start(self, name: str, command: Sequence[str], env: Mapping[str, str], log: Path) -> Child:
        """Starts a system under test on its cores; ``env`` is its whole environment."""
        with on_cores(*self.system_cores):
            return self.nursery.spawn(name, command, log=log, env=env)


@contextlib.contextmanager
def open_lab(folder: Path) -> Iterator[Lab]:
    """Starts the servers on their core, with the topics that ``folder`` keeps; stops them in order.

    Raises:
        BenchmarkError: the machine has one core only, or the folder is in use.
        ServerError: a server does not start.
    """
    if not {SERVERS_CORE, SYSTEM_CORE} <= os.sched_getaffinity(0):
        raise BenchmarkError(
            f"cores {SERVERS_CORE} and {SYSTEM_CORE} are needed; there are {sorted(os.sched_getaffinity(0))}"
        )
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BenchmarkError(f"another benchmark is using {folder}: wait for it, or give --work another") from error
        shutil.rmtree(folder / _SCRATCH, ignore_errors=True)  # of a run that was killed
        (folder / _SCRATCH).mkdir()
        with interrupts.raised(), contextlib.ExitStack() as stack:
            stack.callback(shutil.rmtree, folder / _SCRATCH, ignore_errors=True)
            nursery = stack.enter_context(Nursery())
            with on_cores(SERVERS_CORE):
                broker = local_kafka.start(nursery, data=folder / "broker", heap_mb=HEAP_MB)
                stack.callback(broker.child.stop, BROKER_STOP_SECONDS)
                store = local_redis.start(nursery)
            wire = KafkaWire.connect(StreamSettings(stream="kafka", kafka_bootstrap_servers=broker.address))
            stack.callback(wire.close)
            client = redis.Redis.from_url(store.address)
            stack.callback(client.close)
            yield Lab(nursery=nursery, folder=folder, broker=broker, store=store, wire=wire, client=client)


@contextlib.contextmanager
def on_cores(*cores: int) -> Iterator[None]:
    """Inside, this thread, and the threads and processes that it starts, run on these cores alone."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@dataclass(frozen=True, slots=True)
class Usage:
    """What a process and its children have used so far."""

    cpu_seconds: float
    peak_mb: float
    """sum over the processes of the largest resident set of each; memory that they share counts for each"""
    core_seconds: float
    """how long the system's core was busy since the machine started, for whomever"""


class Meter:
    """Watches all processes of one session: a child of the nursery and what it starts.

    `read` has to be called now and then: the peak of a process that has ended is what was seen before.
    """

    def __init__(self, session: int) -> None:
        self._session = session
        self._peaks: dict[int, float] = {}
        self._cpu = 0.0

    def read(self) -> Usage:
        """What was used until now."""
        cpu = 0.0
        for pid in [int(entry) for entry in os.listdir("/proc") if entry.isdigit()]:  # noqa: PTH208 (thousands a run)
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                if int(fields[3]) == self._session:
                    cpu += sum(map(int, fields[11:15])) / _TICKS  # its own, and of children that ended
                    self._peaks[pid] = max(self._peaks.get(pid, 0.0), _peak_mb(pid))
        self._cpu = max(self._cpu, cpu)
        return Usage(self._cpu, sum(self._peaks.values()), core_seconds(SYSTEM_CORE))


def _peak_mb(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    return 0.0  # a process that is just ending has no memory any more


def core_seconds(core: int) -> float:
    """How long a core was busy since the machine started, for whomever."""
    for line in Path("/proc/stat").read_text().splitlines():
        name, *ticks = line.split()
        if name == f"cpu{core}":
            user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, ticks[:8])
            return (user + nice + system + irq + softirq + steal) / _TICKS
    raise BenchmarkError(f"/proc/stat does not know core {core}")


def machine(lab: Lab) -> dict[str, str]:
    """What the figures belong to: the machine, and every version that matters."""
    models = [
        line.split(":", 1)[1].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    memory = int(Path("/proc/meminfo").read_text().split()[1]) / 1024**2
    return {
        "processor": f"{models[0] if models else platform.machine()}, {os.cpu_count()} cores, {memory:.0f} GB",
        "load": " ".join(f"{load:.1f}" for load in os.getloadavg()),
        "system": f"{platform.system()} {platform.release()}",
        "commit": _commit(),
        "Python": platform.python_version(),
        "servers": f"{lab.broker.name}, {lab.store.name}",
        "librdkafka": confluent_kafka.libversion()[0],
    } | {
        name: version(name) for name in ("bytewax", "confluent-kafka", "numpy", "msgspec", "pyarrow", "duckdb", "moto")
    }


def _commit() -> str:
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip() or "not known"
