"""`demo` and `up`, as a stranger runs them: real servers, services as processes, a terminal or none."""

import contextlib
import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient

from support.ports import lasting_ports
from tillstream.local import kafka as local_kafka

REPOSITORY = Path(__file__).parents[2]
SECONDS = 240
ENV = re.compile(r": \. (\S+)\s")
"""What another terminal is told to source: the last of the notes."""
"""For a whole demo on two busy cores."""

pytestmark = pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds processes by their environment in /proc")


@dataclass
class Run:
    """A command that runs, and all that descends from it."""

    command: "subprocess.Popen[bytes]"
    folder: Path
    """for its output, and for all temporary folders"""
    marker: str
    terminal: int | None = None
    """our end of the terminal that it runs on"""

    def text(self) -> str:
        """All that it has said so far."""
        # EIO says that nobody has the terminal open any more.
        with contextlib.suppress(OSError), (self.folder / "output").open("ab") as file:
            while self.terminal is not None:
                file.write(os.read(self.terminal, 65536))
        return (self.folder / "output").read_text(errors="replace")

    def wait_for(self, condition: Callable[[str], object], seconds: float = SECONDS) -> None:
        deadline = time.monotonic() + seconds
        ended = False
        while not condition(self.text()):
            assert not ended, f"it ended before that: {self.text()}"
            assert time.monotonic() < deadline, self.text()
            ended = self.command.poll() is not None  # what it said last is read once more
            time.sleep(0.05)

    def end(self) -> int:
        self.wait_for(lambda _: self.command.poll() is not None)
        return self.command.returncode

    def close_terminal(self) -> None:
        assert self.terminal is not None
        os.close(self.terminal)
        self.terminal = None

    def processes(self) -> dict[int, str]:
        """Whatever was started by it, directly or not, and still runs: id and command. Redis writes its title over its
        environment, but works in its folder."""
        found = {}
        for place in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                there = (place / "cwd").readlink().is_relative_to(self.folder)
                if there or self.marker.encode() in (place / "environ").read_bytes():
                    found[int(place.name)] = (place / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        return found

    def process(self, command: str) -> int:
        [pid] = [pid for pid, line in self.processes().items() if line.rstrip().endswith(command)]
        return pid

    def leaves_nothing(self) -> bool:
        """Within a moment: the warden ends after what it watched over."""
        deadline = time.monotonic() + 10
        while self.processes() and time.monotonic() < deadline:
            time.sleep(0.05)
        return not self.processes()


StartRun = Callable[..., Run]
"""Runs a command, on a terminal or none, with changes of the environment."""


@pytest.fixture
def start(tmp_path: Path) -> Iterator[StartRun]:
    runs: list[Run] = []

    def start_(*command: str, terminal: bool = False, environment: Mapping[str, str] | None = None) -> Run:
        marker = f"TILLSTREAM_TEST_RUN={uuid.uuid4().hex}"
        name, _, value = marker.partition("=")
        folder = tmp_path / "run"
        folder.mkdir()
        output = folder / "output"
        output.touch()
        env = {key: text for key, text in os.environ.items() if not key.startswith(("MAKE", "MFLAGS", "AWS_"))}
        ours, theirs = pty.openpty() if terminal else (None, None)
        if ours is not None:
            fcntl.ioctl(ours, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
            os.set_blocking(ours, False)
        screen = str(output) if theirs is None else os.ttyname(theirs)
        process = subprocess.Popen(
            # A new session's leader gets the first terminal that it opens as its own: Ctrl-C there is a signal.
            ["sh", "-c", f'exec "$@" <"{screen if terminal else os.devnull}" >"$0" 2>&1', screen, *command],
            cwd=REPOSITORY,
            env=env | {name: value, "TERM": "xterm-256color", "TMPDIR": str(folder)} | dict(environment or {}),
            start_new_session=True,
        )
        if theirs is not None:
            os.close(theirs)
        runs.append(Run(process, folder, marker, ours))
        return runs[-1]

    yield start_
    for run in runs:
        for pid in run.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        run.command.wait(30)
        if run.terminal is not None:
            run.close_terminal()


def make_demo(*, stream: str = "kinesis", seconds: float = 0) -> list[str]:
    # What this test is started by has made the environment; `python` is the one that the recipe runs.
    make = ["make", "--no-print-directory", "-o", ".venv/.run", f"python={sys.executable}", "demo"]
    return [*make, f"STREAM={stream}", f"DEMO_SECONDS={seconds:g}"]


def tillstream(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "tillstream", *arguments]


@pytest.mark.parametrize("stream", ["kinesis", pytest.param("kafka", marks=pytest.mark.kafka)])
def test_every_number_of_a_demo_is_proved(start: StartRun, stream: str) -> None:
    if stream == "kafka" and (lacks := local_kafka.missing()):
        pytest.skip(lacks)
    demo = start(*make_demo(stream=stream, seconds=5))
    assert demo.end() == 0, demo.text()
    assert "every number is equal" in demo.text()
    assert re.search(r"first numbers after \d", demo.text())
    assert re.search(r"redis-cli -p \d+ ZREVRANGE sales:1m:product:revenue 0 9 WITHSCORES", demo.text())
    assert re.search(r"1m: [\d,]+ orders, revenue [\d,.]+ USD", demo.text())
    assert "\x1b" not in demo.text(), "colours without a terminal"
    assert demo.leaves_nothing()


def test_on_a_terminal_keys_choose_and_ctrl_c_goes_on_to_the_proof(start: StartRun) -> None:
    demo = start(*tillstream("demo", "--seconds", "0"), terminal=True)  # make would end by the Ctrl-C itself
    assert demo.terminal is not None
    chosen = "\x1b[1;30;46m {} \x1b"  # the window that is shown stands out
    demo.wait_for(lambda text: chosen.format("1m") in text)
    os.write(demo.terminal, b"3")
    demo.wait_for(lambda text: chosen.format("15m") in text)
    assert "events/s" in demo.text()
    os.write(demo.terminal, b"\x03")
    assert demo.end() == 0, demo.text()
    assert "every number is equal" in demo.text()
    assert demo.leaves_nothing()


def test_kill_term_of_make_ends_everything(start: StartRun) -> None:
    demo = start(*make_demo())
    demo.wait_for(lambda text: "1m:" in text)
    assert len(demo.processes()) == 8, "make, tillstream, its warden, two servers, three services"
    demo.command.terminate()
    assert demo.end() != 0
    demo.wait_for(lambda text: "stopped by SIGTERM" in text, seconds=10)
    assert demo.leaves_nothing()


def test_a_service_that_dies_is_named_and_fails_the_demo(start: StartRun) -> None:
    demo = start(*make_demo())
    demo.wait_for(lambda text: "1m:" in text)
    os.kill(demo.process("-m processor"), signal.SIGKILL)
    assert demo.end() != 0
    assert "processor ended by itself (killed by signal 9); its last lines:" in demo.text()
    assert "reading orders-" in demo.text()
    assert demo.leaves_nothing()


def test_nothing_outlives_a_demo_that_is_killed(start: StartRun) -> None:
    demo = start(*make_demo())
    demo.wait_for(lambda text: "1m:" in text)
    os.kill(demo.process("-m tillstream demo --stream kinesis --seconds 0"), signal.SIGKILL)
    assert demo.end() != 0
    assert demo.leaves_nothing()


@pytest.mark.parametrize(
    "setting", [{"RATE": "fast"}, {"LATE": "2"}, {"LANES": "tape"}, {"SNAPSHOT_MS": "soon"}], ids=str
)
def test_a_wrong_setting_is_a_line_before_anything_starts(start: StartRun, setting: dict[str, str]) -> None:
    demo = start(*tillstream("demo"), environment=setting)
    assert demo.end() == 2
    [line] = demo.text().splitlines()
    assert line.startswith(f"{next(iter(setting))}: ")


def test_a_server_that_dies_is_named_and_not_its_echo(start: StartRun) -> None:
    up = start(*tillstream("up", "--no-live", "--no-generator"))
    up.wait_for(lambda text: "sink runs" in text)
    [redis] = [pid for pid, line in up.processes().items() if "-server" in line]
    os.kill(redis, signal.SIGKILL)
    assert up.end() == 1
    assert "ended by itself (killed by signal 9); its last lines:" in up.text()
    assert up.leaves_nothing()


@pytest.mark.kafka
def test_somebody_elses_broker_is_left_as_it_was(start: StartRun, kafka_bootstrap: str, tmp_path: Path) -> None:
    def holds() -> tuple[set[str], set[str]]:
        groups = admin.list_consumer_groups(request_timeout=10).result().valid
        topics = {topic for topic in admin.list_topics(timeout=10).topics if not topic.startswith("__")}
        return topics, {group.group_id for group in groups}

    admin = AdminClient({"bootstrap.servers": kafka_bootstrap})
    before = holds()
    orders = f"orders-{uuid.uuid4().hex[:8]}"
    demo = start(
        *tillstream("demo", "--stream", "kafka", "--seconds", "0", "--logs", str(tmp_path)),
        environment={"KAFKA_BOOTSTRAP_SERVERS": kafka_bootstrap, "ORDERS_STREAM": orders},
    )
    demo.wait_for(lambda text: "1m:" in text)
    topics, _ = holds()
    assert len(topics - before[0]) == 3
    assert orders in topics
    demo.wait_for(ENV.search)
    [env] = ENV.findall(demo.text())
    assert {
        f"export KAFKA_BOOTSTRAP_SERVERS={kafka_bootstrap}",
        f"export ORDERS_STREAM={orders}",
        "export STREAM=kafka",
    } <= set(Path(env).read_text().splitlines())
    demo.command.send_signal(signal.SIGINT)
    assert demo.end() == 0, demo.text()
    assert "every number is equal" in demo.text()
    assert demo.leaves_nothing()
    topics, groups = holds()
    assert topics == before[0]
    ours = {re.sub(r"^(sink-[0-9a-f]{8})-(archive|index)-.*", r"\1", group) for group in groups - before[1]}
    assert len(ours) == 1, "groups of its own, which the broker forgets by itself, and none that somebody has"


@pytest.mark.kafka
def test_a_start_that_is_interrupted_leaves_nothing_on_somebody_elses_broker(
    start: StartRun, kafka_bootstrap: str
) -> None:
    admin = AdminClient({"bootstrap.servers": kafka_bootstrap})
    before = set(admin.list_topics(timeout=10).topics)
    demo = start(*tillstream("demo", "--stream", "kafka"), environment={"KAFKA_BOOTSTRAP_SERVERS": kafka_bootstrap})
    demo.wait_for(lambda text: re.search(r"^stream \S+ created", text, re.MULTILINE))
    demo.command.terminate()
    assert demo.end() == 128 + signal.SIGTERM, demo.text()
    assert "stopped by SIGTERM" in demo.text()
    assert demo.leaves_nothing()
    assert set(admin.list_topics(timeout=10).topics) == before


def test_somebody_elses_broker_that_is_away_is_named_and_given_up(start: StartRun) -> None:
    [port] = lasting_ports()
    away = {"KAFKA_BOOTSTRAP_SERVERS": f"127.0.0.1:{port}", "CONNECT_SECONDS": "1"}
    demo = start(*tillstream("demo", "--stream", "kafka"), environment=away)
    assert demo.end() == 3
    assert f"Kafka at 127.0.0.1:{port} can't be reached" in demo.text()
    assert "Traceback" not in demo.text()
    assert demo.leaves_nothing()


def test_what_is_up_can_be_asked_from_another_terminal_and_stops_in_order(start: StartRun, tmp_path: Path) -> None:
    up = start(*tillstream("up", "--no-live", "--logs", str(tmp_path)))
    up.wait_for(lambda text: "first numbers after" in text)
    up.wait_for(ENV.search)
    [env] = ENV.findall(up.text())
    asked = subprocess.run(
        ["sh", "-c", '. "$0"; exec "$@"', env, *tillstream("live", "--once")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert asked.returncode == 0, asked.stderr
    assert re.match(r"\d\d:\d\d:\d\d 1m: [\d,]+ orders", asked.stdout)
    # A sink that still starts has nothing to finish, and says nothing.
    up.wait_for(lambda _: "sink: running" in (tmp_path / "sink.log").read_text())
    up.command.terminate()
    assert up.end() == 0, up.text()
    assert up.leaves_nothing()
    # Each line of a service's log begins with its time.
    ends = [(tmp_path / f"{name}.log").read_text().splitlines()[-1] for name in ("generator", "processor", "sink")]
    assert ends == sorted(ends), "nothing is sent that nobody reads"
    assert "stopped in order" in ends[1]
    assert "stopped" in ends[2]


def test_a_closed_terminal_is_an_orderly_stop(start: StartRun, tmp_path: Path) -> None:
    up = start(*tillstream("up", "--logs", str(tmp_path)), terminal=True)
    up.wait_for(lambda text: "events/s" in text)
    up.close_terminal()
    assert up.end() == 0
    assert "stopped in order" in (tmp_path / "processor.log").read_text()
    assert up.leaves_nothing()
