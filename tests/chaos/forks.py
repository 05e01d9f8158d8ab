"""Sinks that are forked from a process which has imported all that a sink needs: so a start costs a tenth of the
processor time of a new interpreter's. What they do is what ``python -m sink`` does, but for some numbers of theirs.
"""

import multiprocessing
import os
import threading
from pathlib import Path

from sales.streams import kafka_confluent
from sink import __main__ as service
from sink import delivery, store

SESSION_SECONDS = 6.0
"""A group waits so long for a member that was killed or frozen; the least that a broker agrees to, 15 in production."""

SMALL_BYTES = 3_000
"""Pins and marks are below it, and objects above: those go in parts then."""

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload([service.__name__, kafka_confluent.__name__])
_lock = threading.Lock()
"""Asked by two threads at one time, ``multiprocessing`` gives the exit code to one of them alone."""


class Fork:
    """A sink; what is asked of it is named as in ``subprocess.Popen``.

    Args:
        environment: whole.
        log: where it goes.
        in_parts: its objects go in parts.
        poll_records: it reads so many at most at one time; a sink that reads more ends its extents elsewhere.
    """

    def __init__(
        self,
        environment: dict[str, str],
        log: Path,
        *,
        in_parts: bool = False,
        poll_records: int = delivery.POLL_RECORDS,
    ) -> None:
        log.touch()  # before somebody looks into it
        self._process = _context.Process(target=_live, args=(environment, log, in_parts, poll_records), daemon=True)
        with _lock:
            self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    def poll(self) -> int | None:
        """Its exit code; None: it is there."""
        with _lock:
            return self._process.exitcode

    def send_signal(self, number: int) -> None:
        """Nothing happens if it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """By signal 9."""
        with _lock:
            self._process.kill()

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code, once it has ended."""
        with _lock:
            self._process.join(timeout)
            assert self._process.exitcode is not None, f"still there after {timeout} s"
            return self._process.exitcode


def _live(environment: dict[str, str], log: Path, in_parts: bool, poll_records: int) -> None:
    """In the new process."""
    os.environ.clear()
    os.environ.update(environment)
    with log.open("wb") as file:
        os.dup2(file.fileno(), 2)
    kafka_confluent.SESSION_SECONDS = SESSION_SECONDS
    delivery.POLL_RECORDS = poll_records
    delivery.FIRST_POLL_RECORDS = min(poll_records, delivery.FIRST_POLL_RECORDS)
    if in_parts:
        store.WHOLE_BYTES = SMALL_BYTES
    service.main()
