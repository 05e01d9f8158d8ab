"""Child processes and temporary folders that never outlive this process."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tillstream.interrupts import shielded
from tillstream.local import warden

KILL_SECONDS = 10.0
"""How long a killed process may take to be gone; only one stuck in the kernel takes longer."""


class Child:
    """One child process, leader of a session of its own: a Ctrl-C at the terminal reaches its parent alone, which then
    stops its children in order. Standard output and error go to the log file."""

    def __init__(
        self, nursery: "Nursery", name: str, process: "subprocess.Popen[bytes]", log: Path, log_begin: int
    ) -> None:
        self.name = name
        self.log = log
        self.pid = process.pid
        self._nursery = nursery
        self._process = process
        self._log_begin = log_begin

    def exit_code(self) -> int | None:
        """None while it runs; negative: the signal that ended it. What it leaves in its group is killed."""
        code = self._process.poll()
        if code is not None:
            self._nursery.forget(self)
        return code

    def wait(self, seconds: float) -> int | None:
        """Its exit code, or None when it still runs after that time."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)
        return self.exit_code()

    def last_lines(self, count: int = 20) -> list[str]:
        """The end of its log; nothing that was there before it began."""
        with contextlib.suppress(FileNotFoundError), self.log.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(self._log_begin, size - count * 400))
            return file.read().decode(errors="replace").splitlines()[-count:]
        return []

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal to it alone; nothing happens if it has ended."""
        if self.exit_code() is None:
            self._process.send_signal(number)

    def stop(self, grace_seconds: float = 10.0) -> int:
        """SIGTERM, up to that time to end in order, then SIGKILL to its whole group. Returns its exit code; twice is
        once."""
        self.signal(signal.SIGTERM)
        code = self.wait(grace_seconds)
        if code is None:
            self.kill_group()
            code = self._process.wait(KILL_SECONDS)
            self._nursery.forget(self)
        return code

    def kill_group(self) -> None:
        """Kills it and all that it started, as far as they are in its group; nothing happens if nobody is left."""
        with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS says EPERM for a group of zombies
            os.killpg(self.pid, signal.SIGKILL)


class Nursery:
    """Holds children and folders, and ends them with itself: ``close`` stops what still runs, youngest first. A warden
    (a process of its own) does the same, without grace, if this process dies before. One thread at a time."""

    def __init__(self) -> None:
        self._children: list[Child] = []
        self._folders: list[Path] = []
        self._warden = subprocess.Popen(  # noqa: S603 (our own interpreter and file)
            [sys.executable, "-I", "-S", warden.__file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
            cwd="/",
        )

    def folder(self, name: str) -> Path:
        """A new temporary folder that goes with the nursery."""
        with shielded():
            path = Path(tempfile.mkdtemp(prefix=f"tillstream-{name}-"))
            self._folders.append(path)
            self._tell(folder=str(path))
        return path

    def spawn(self, name: str, command: Sequence[str], *, log: Path, env: Mapping[str, str] | None = None) -> Child:
        """Starts a child; its output is appended to ``log``. ``env`` is its whole environment (None: ours)."""
        # Between starting a child and telling the warden of it nothing may interrupt.
        with shielded(), log.open("ab") as output:
            log_begin = output.tell()
            process = subprocess.Popen(  # noqa: S603 (commands come from this package, never from input)
                list(command),
                env=None if env is None else dict(env),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            self._tell(watch=process.pid)
            child = Child(self, name, process, log, log_begin)
            self._children.append(child)
        return child

    def forget(self, child: Child) -> None:
        """It has ended and was waited for: its id may soon be somebody else's, so this is the last time that anybody
        signals it. Called by the child itself; twice is once."""
        if child in self._children:
            with shielded():
                child.kill_group()
                self._children.remove(child)
                self._tell(forget=child.pid)

    def close(self) -> None:
        """Stops every child, youngest first, and removes the folders. Twice is once."""
        with shielded():
            for child in reversed(self._children.copy()):
                child.stop()
            for folder in self._folders:
                shutil.rmtree(folder, ignore_errors=True)
            if self._warden.stdin is not None and not self._warden.stdin.closed:
                self._warden.stdin.close()
                self._warden.wait(KILL_SECONDS)

    def _tell(self, **message: Any) -> None:
        if self._warden.stdin is not None:
            with contextlib.suppress(BrokenPipeError):  # a warden that was killed: close() still stops everything
                self._warden.stdin.write(json.dumps(message).encode() + b"\n")
                self._warden.stdin.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
