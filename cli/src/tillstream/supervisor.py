"""The services as separate processes: starts them, notices when one ends, stops them in order."""

import signal
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from tillstream import interrupts
from tillstream.local.nursery import Child, Nursery

STOP_SECONDS = 60.0
"""A service finishes its batch, writes and commits, the sink for STOP_SECONDS of its own (20); past this it hangs."""
LAST_LINES = 15
ECHO_SECONDS = 1.0
"""A client may hear of a server's end before the system tells its parent."""
POLL_SECONDS = 0.05


class ChildEndedError(Exception):
    """A child ended that should run, or did not end in order; says which, how, and its last lines."""

    def __init__(self, child: Child, how: str) -> None:
        super().__init__(f"{child.name} {how}; {_last_words(child)}")


class Supervisor:
    """Watches over the children of one nursery. One thread at a time; nothing here waits but `stop`, and a ``with``
    block that ends by an error: where a child has ended, that is reported instead, as the error is likely its echo."""

    def __init__(self, nursery: Nursery, logs: Path) -> None:
        """Nothing starts yet.

        Args:
            nursery: ends every child in the end, whatever happens here.
            logs: an existing folder; each service writes ``<name>.log`` there.
        """
        self._nursery = nursery
        self._logs = logs
        self._children: dict[str, Child] = {}
        self._started: list[str] = []
        self._may_end: set[str] = set()

    def start(self, name: str, *, may_end: bool = False) -> Child:
        """Runs ``python -m <name>`` with this interpreter and this process's environment.

        Args:
            name: the service.
            may_end: it may come to its end in order, with exit code 0.
        """
        if may_end:
            self._may_end.add(name)
        child = self._nursery.spawn(name, [sys.executable, "-m", name], log=self._logs / f"{name}.log")
        self._children[name] = child
        self._started.append(name)
        return child

    def adopt(self, child: Child) -> None:
        """Watches a child that somebody else started (a server)."""
        self._children[child.name] = child

    def check(self) -> None:
        """Do all still run, and does nobody want this process to stop?

        Raises:
            Interrupted: somebody does.
            ChildEndedError: one does not; the first that was started, as the others may have ended for its sake.
        """
        interrupts.check()
        for child in self._children.values():
            code = child.exit_code()
            if code is not None and not self._is_its_end(child, code):
                raise ChildEndedError(child, f"ended by itself ({_how(code)})")

    def stop(self, name: str) -> None:
        """Stops one child in order and no longer watches it; waits for at most STOP_SECONDS.

        Raises:
            ChildEndedError: it had ended before, hung, or ended with an error.
        """
        child = self._children.pop(name)
        self._started.remove(name)
        before = child.exit_code()
        code = child.stop(STOP_SECONDS)
        if before is not None and not self._is_its_end(child, before):
            raise ChildEndedError(child, f"ended by itself ({_how(before)})")
        # A service that still imports its libraries knows of no signals, and has nothing to finish.
        if code not in (0, -signal.SIGTERM):
            raise ChildEndedError(child, f"was told to stop and did not end in order ({_how(code)})")

    def stop_all(self) -> None:
        """Stops every service in order, the one that was started last first. What was adopted goes on.

        Raises:
            ChildEndedError: as `stop` does, once all are stopped; for the first of them.
        """
        failed: list[ChildEndedError] = []
        for name in reversed(self._started.copy()):
            try:
                self.stop(name)
            except ChildEndedError as error:
                failed.append(error)
        if failed:
            raise failed[0]

    def last_words(self) -> str:
        """The end of each service's log, for people."""
        return "\n".join(f"{name}: {_last_words(self._children[name])}" for name in self._started)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        deadline = time.monotonic() + ECHO_SECONDS
        while isinstance(error, Exception) and time.monotonic() < deadline:
            self.check()
            time.sleep(POLL_SECONDS)

    def _is_its_end(self, child: Child, code: int) -> bool:
        return code == 0 and child.name in self._may_end


def _last_words(child: Child) -> str:
    lines = child.last_lines(LAST_LINES)
    return "\n".join(["its last lines:" if lines else "it wrote nothing", *(f"    {line}" for line in lines)])


def _how(code: int) -> str:
    return f"exit code {code}" if code >= 0 else f"killed by signal {-code}"
