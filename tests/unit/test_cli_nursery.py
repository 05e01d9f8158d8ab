"""Nothing outlives the process that started it, however it ends."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.waiting import eventually
from tillstream.local.nursery import Nursery

SLEEPER = [sys.executable, "-c", "import time; print('here', flush=True); time.sleep(600)"]
STUBBORN = [
    *(sys.executable, "-c"),
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('here', flush=True); time.sleep(600)",
]
WITH_GRANDCHILD = [
    *(sys.executable, "-c"),
    """
import subprocess, sys
child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])
print(child.pid, flush=True)
child.wait()
    """,
]

HOLDER = """
import sys, time
from tillstream.interrupts import Interrupted, raised
from tillstream.local.nursery import Nursery
try:
    with raised(), Nursery() as nursery:
        folder = nursery.folder("test")
        child = nursery.spawn("sleeper", [sys.executable, "-c", "import time; time.sleep(600)"], log=folder / "log")
        print(child.pid, folder, flush=True)
        time.sleep(600)
except Interrupted as stop:
    sys.exit(stop.exit_code)
"""


def is_running(pid: int) -> bool:
    """Zombies don't run; their parent, a container's first process perhaps, may never fetch them."""
    if Path("/proc/self/stat").exists():
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
        except (FileNotFoundError, ProcessLookupError):
            return False
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout
    return bool(state.strip()) and not state.startswith("Z")


@pytest.fixture
def nursery() -> Iterator[Nursery]:
    with Nursery() as nursery:
        yield nursery


def test_a_child_is_stopped_in_order(nursery: Nursery, tmp_path: Path) -> None:
    child = nursery.spawn("sleeper", SLEEPER, log=tmp_path / "log")
    eventually(lambda: child.last_lines() == ["here"])
    assert child.exit_code() is None
    assert child.stop() == -signal.SIGTERM
    assert child.stop() == -signal.SIGTERM


def test_a_child_that_ignores_the_wish_to_stop_is_killed(nursery: Nursery, tmp_path: Path) -> None:
    child = nursery.spawn("stubborn", STUBBORN, log=tmp_path / "log")
    eventually(lambda: child.last_lines() == ["here"])
    assert child.stop(grace_seconds=0.2) == -signal.SIGKILL


def test_a_child_takes_its_own_children_with_it(nursery: Nursery, tmp_path: Path) -> None:
    child = nursery.spawn("parent", WITH_GRANDCHILD, log=tmp_path / "log")
    eventually(lambda: bool(child.last_lines()))
    grandchild = int(child.last_lines()[0])
    assert is_running(grandchild)
    child.stop()
    eventually(lambda: not is_running(grandchild))


def test_nobody_signals_the_id_of_a_child_that_has_ended(
    nursery: Nursery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    child = nursery.spawn("short", [sys.executable, "-c", ""], log=tmp_path / "log")
    assert child.wait(15) == 0
    signalled: list[int] = []
    monkeypatch.setattr(os, "kill", lambda pid, _: signalled.append(pid))
    monkeypatch.setattr(os, "killpg", lambda pid, _: signalled.append(pid))
    child.signal(signal.SIGTERM)
    assert child.stop() == 0
    nursery.close()
    assert signalled == []


def test_what_a_child_leaves_in_its_group_ends_when_its_end_is_noticed(nursery: Nursery, tmp_path: Path) -> None:
    child = nursery.spawn("parent", WITH_GRANDCHILD, log=tmp_path / "log")
    eventually(lambda: bool(child.last_lines()))
    grandchild = int(child.last_lines()[0])
    child.signal(signal.SIGKILL)
    assert child.wait(15) == -signal.SIGKILL
    eventually(lambda: not is_running(grandchild))


def test_the_end_of_a_nursery_ends_children_and_removes_folders(tmp_path: Path) -> None:
    with Nursery() as nursery:
        folder = nursery.folder("test")
        child = nursery.spawn("sleeper", SLEEPER, log=folder / "log")
        assert is_running(child.pid)
        assert folder.is_dir()
    assert not is_running(child.pid)
    assert not folder.exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL], ids=lambda n: n.name)
def test_whatever_ends_the_holder_nothing_is_left(number: signal.Signals) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLDER], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    pid, _, folder = holder.stdout.readline().strip().partition(" ")
    assert is_running(int(pid))
    holder.send_signal(number)
    expected = -number if number == signal.SIGKILL else 128 + number
    assert holder.wait(timeout=20) == expected
    holder.stdout.close()
    eventually(lambda: not is_running(int(pid)))
    eventually(lambda: not Path(folder).exists())


def test_under_nohup_a_closed_terminal_ends_nothing() -> None:
    ignoring = ["sh", "-c", """trap '' HUP; exec "$0" "$@" """, sys.executable, "-c", HOLDER]
    holder = subprocess.Popen(ignoring, stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline()
    holder.send_signal(signal.SIGHUP)
    holder.send_signal(signal.SIGTERM)
    assert holder.wait(timeout=20) == 128 + signal.SIGTERM
    holder.stdout.close()
