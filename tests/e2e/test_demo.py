"""`make demo`, as a stranger runs it: real servers, services as processes, a terminal or none."""

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
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tillstream.local import kafka as local_kafka

REPOSITORY = Path(__file__).parents[2]
SECONDS = 240
"""For a whole demo on two busy cores."""

pytestmark = pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds processes by their environment in /proc")


@dataclass
class Demo:
    """A `make demo` that runs, and all that descends from it."""

    make: "subprocess.Popen[bytes]"
    output: Path
    marker: str
    terminal: int | None = None
    """our end of the terminal that it runs on"""

    def text(self) -> str:
        """All that it has said so far."""
        # EIO says that nobody has the terminal open any more.
        with contextlib.suppress(OSError), self.output.open("ab") as file:
            while self.terminal is not None:
                file.write(os.read(self.terminal, 65536))
        return self.output.read_text(errors="replace")

    def wait_for(self, condition: Callable[[str], object], seconds: float = SECONDS) -> None:
        deadline = time.monotonic() + seconds
        ended = False
        while not condition(self.text()):
            assert not ended, f"it ended before that: {self.text()}"
            assert time.monotonic() < deadline, self.text()
            ended = self.make.poll() is not None  # what it said last is read once more
            time.sleep(0.05)

    def end(self) -> int:
        self.wait_for(lambda _: self.make.poll() is not None)
        return self.make.returncode

    def processes(self) -> dict[int, str]:
        """Whatever was started by it, directly or not, and still runs: id and command."""
        found = {}
        for place in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if self.marker.encode() in (place / "environ").read_bytes():
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


@pytest.fixture
def start_demo(tmp_path: Path) -> Iterator[Callable[..., Demo]]:
    demos: list[Demo] = []

    def start(*, stream: str = "kinesis", seconds: float = 5, terminal: bool = False) -> Demo:
        marker = f"TILLSTREAM_TEST_RUN={uuid.uuid4().hex}"
        name, _, value = marker.partition("=")
        output = tmp_path / "output"
        output.touch()
        # What this test is started by has made the environment; `python` is the one that the recipe runs.
        command = ["make", "--no-print-directory", "-o", ".venv/.run", f"python={sys.executable}", "demo"]
        command += [f"STREAM={stream}", f"DEMO_SECONDS={seconds:g}"]
        env = {key: text for key, text in os.environ.items() if not key.startswith(("MAKE", "MFLAGS", "AWS_"))}
        ours, theirs = pty.openpty() if terminal else (None, None)
        screen = str(output) if theirs is None else os.ttyname(theirs)
        make = subprocess.Popen(
            # A new session's leader gets the first terminal that it opens as its own: Ctrl-C there is a signal.
            ["sh", "-c", f'exec "$@" <"{screen if terminal else os.devnull}" >"$0" 2>&1', screen, *command],
            cwd=REPOSITORY,
            env=env | {name: value, "TERM": "xterm-256color"},
            start_new_session=True,
        )
        if ours is not None:
            fcntl.ioctl(ours, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
            os.set_blocking(ours, False)
        demos.append(Demo(make, output, marker, ours))
        return demos[-1]

    yield start
    for demo in demos:
        for pid in demo.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        demo.make.wait(30)
        if demo.terminal is not None:
            os.close(demo.terminal)


@pytest.mark.parametrize("stream", ["kinesis", pytest.param("kafka", marks=pytest.mark.kafka)])
def test_every_number_of_a_demo_is_proved(start_demo: Callable[..., Demo], stream: str) -> None:
    if stream == "kafka" and (lacks := local_kafka.missing()):
        pytest.skip(lacks)
    demo = start_demo(stream=stream)
    assert demo.end() == 0, demo.text()
    assert "every number is equal" in demo.text()
    assert re.search(r"first numbers after \d", demo.text())
    assert re.search(r"redis-cli -p \d+ ZREVRANGE sales:1m:product:revenue 0 9 WITHSCORES", demo.text())
    assert re.search(r"1m: [\d,]+ orders, revenue [\d,.]+ USD", demo.text())
    assert "\x1b" not in demo.text(), "colours without a terminal"
    assert demo.leaves_nothing()


def test_on_a_terminal_keys_choose_and_ctrl_c_goes_on_to_the_proof(start_demo: Callable[..., Demo]) -> None:
    demo = start_demo(seconds=0, terminal=True)
    assert demo.terminal is not None
    chosen = "\x1b[1;30;46m {} \x1b"  # the window that is shown stands out
    demo.wait_for(lambda text: chosen.format("1m") in text)
    os.write(demo.terminal, b"3")
    demo.wait_for(lambda text: chosen.format("15m") in text)
    assert "events/s" in demo.text()
    os.write(demo.terminal, b"\x03")
    demo.end()
    assert "every number is equal" in demo.text()
    assert demo.leaves_nothing()


def test_kill_term_of_make_stops_all_in_order(start_demo: Callable[..., Demo]) -> None:
    demo = start_demo(seconds=0)
    demo.wait_for(lambda text: "1m:" in text)
    assert len(demo.processes()) >= 7, "make, tillstream, its warden, two servers, three services"
    demo.make.terminate()
    assert demo.end() != 0
    demo.wait_for(lambda text: "stopped by SIGTERM" in text, seconds=10)
    assert demo.leaves_nothing()


def test_a_service_that_dies_is_named_and_fails_the_demo(start_demo: Callable[..., Demo]) -> None:
    demo = start_demo(seconds=0)
    demo.wait_for(lambda text: "1m:" in text)
    os.kill(demo.process("-m processor"), signal.SIGKILL)
    assert demo.end() != 0
    assert "processor ended by itself (killed by signal 9); its last lines:" in demo.text()
    assert "reading orders-" in demo.text()
    assert demo.leaves_nothing()


def test_nothing_outlives_a_demo_that_is_killed(start_demo: Callable[..., Demo]) -> None:
    demo = start_demo(seconds=0)
    demo.wait_for(lambda text: "1m:" in text)
    os.kill(demo.process("-m tillstream demo --stream kinesis --seconds 0"), signal.SIGKILL)
    assert demo.end() != 0
    assert demo.leaves_nothing()
