"""Several processes that run one dataflow together, on one machine: the first one starts, watches and ends the others.

The engine connects them over loopback and lets none go on without the rest. What it leaves open is bounded here: a
process that is missing at the start, one that dies, one that does not end. The first process talks to each other one
over that one's standard input: a line that says which seat it has, ``go`` when all are there, ``stop`` to end in order.
The end of the input means that the first one is gone, in whatever way, and then the other goes too.

    first    start ──── all ready? ── go ── engine ───────────── stop ── wait for the others ──▶
    others     └▶ open everything ─ ready ──── engine ─────────────────────▶
"""

import contextlib
import json
import logging
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from types import TracebackType
from typing import IO, Any, Protocol, Self, cast

from sales.events import Log
from sales.service import EXIT_FAILED, Stop

log = Log(__name__)

ARGUMENT = "further"
"""``python -m processor further``: one of the others, started by the first one alone."""

START_SECONDS = 120.0
"""How long the others may take from their start until they are ready, beside CONNECT_SECONDS: compiling included."""

STOP_SECONDS = 20.0
"""How long an end in order may take, within the 30 seconds that Kubernetes leaves."""

BREAK_SECONDS = 5.0
"""How long the engine may take to notice that a process is gone: it takes a tenth of a second."""

LOOK_SECONDS = 0.05
"""How soon the first process sees that another has ended, or that it is asked to stop itself."""


class ClusterError(Exception):
    """A process of the cluster ended, or did not come."""


@dataclass(frozen=True, slots=True)
class Seat:
    """Which of the processes this is."""

    index: int = 0
    addresses: tuple[str, ...] = ()
    """of all, ``host:port``; none where there is one process alone"""
    lock: int | None = None
    """file descriptor of the recovery directory's lock, which all of them hold"""

    @property
    def processes(self) -> int:
        """How many there are."""
        return max(1, len(self.addresses))

    def engine(self) -> dict[str, Any]:
        """What the engine has to be told."""
        return {"addresses": list(self.addresses), "process_id": self.index} if self.addresses else {}


class Company(Protocol):
    """What a process is together with the others, if there are any."""

    seat: Seat

    def meet(self) -> bool:
        """Blocks until all are ready for the engine; False when they are asked to stop before.

        Raises:
            ClusterError: one of them ended, or did not come.
        """
        ...

    def lost(self) -> str | None:
        """Called when the engine has broken down: which process it was, in words; None where there is only one."""
        ...


class Alone:
    """One process, which is all there is."""

    seat = Seat()

    def meet(self) -> bool:
        """There is nobody to wait for."""
        return True

    def lost(self) -> str | None:
        """Nobody."""
        return None


class First:
    """The process that starts the others. A context: at its end the others have ended too, in order or killed."""

    def __init__(self, processes: int, lock: int, connect_seconds: float, stopping: Stop) -> None:
        """Starts the others, each with this process's environment.

        Args:
            processes: in all, 2 or more.
            lock: file descriptor of the recovery directory's lock. They hold it too: nobody may have the directory
                while one of them is still at work.
            connect_seconds: how long each may wait for broker and Redis.
            stopping: is told to the others.
        """
        self._places = _free_places(processes)
        addresses = tuple(f"127.0.0.1:{place.getsockname()[1]}" for place in self._places)
        self.seat = Seat(0, addresses, lock)
        self._stopping = stopping
        self._ready_until = time.monotonic() + connect_seconds + START_SECONDS
        self._others = [_Other(Seat(index, addresses, lock)) for index in range(1, processes)]
        self._lost: str | None = None
        self._over = threading.Event()
        self._watch = threading.Thread(target=self._watching, name="cluster", daemon=True)
        self._watch.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Waits for the others where all went well; else kills them: they have nothing that a start can't read again.

        Raises:
            ClusterError: all went well here, and one of the others did not end, or not in order.
        """
        give_up = time.monotonic() + (STOP_SECONDS if error is None else 0)
        codes = [other.wait(give_up) for other in self._others]
        self._over.set()
        self._watch.join()
        self._give_places_up()
        for other in self._others:
            other.kill()
        if error is None and self._lost is None and any(code != 0 for code in codes):
            raise ClusterError(f"a process of the cluster ended with {codes}")

    def meet(self) -> bool:
        """See `Company`."""
        for other in self._others:
            while not other.is_ready(LOOK_SECONDS):
                if self._lost is not None:
                    raise ClusterError(self._lost)
                if self._stopping.is_set():
                    return False
                if time.monotonic() > self._ready_until:
                    raise ClusterError(f"process {other.seat.index} of the cluster does not get ready")
        self._give_places_up()
        if self._stopping.is_set():
            return False
        for other in self._others:
            other.tell("go")
        return True

    def lost(self) -> str | None:
        """See `Company`."""
        give_up = time.monotonic() + BREAK_SECONDS
        while self._lost is None and time.monotonic() < give_up:
            self._over.wait(LOOK_SECONDS)
        return self._lost or "the engine broke down, though no process of the cluster did"

    def _give_places_up(self) -> None:
        for place in self._places:
            place.close()

    def _watching(self) -> None:
        """A thread of its own, because the engine may never return: it waits for a missing process for ever."""
        give_up = float("inf")
        told = False
        while not self._over.wait(LOOK_SECONDS):
            now = time.monotonic()
            if self._stopping.is_set() and not told:
                told, give_up = True, now + STOP_SECONDS
                for other in self._others:
                    other.tell("stop")
            for other in self._others:
                if self._lost is None and (how := other.fault()):
                    self._lost = f"process {other.seat.index} of the cluster {how}; the next start goes on from here"
                    give_up = now + BREAK_SECONDS
            if now > give_up:
                if self._lost is None:
                    log.error(
                        "cluster_not_stopped",
                        "the cluster has not stopped in {stop_seconds:.0f} s; it is ended",
                        stop_seconds=STOP_SECONDS,
                    )
                else:
                    log.error("cluster_process_lost", "{problem}", problem=self._lost)
                for other in self._others:
                    other.kill()
                os._exit(EXIT_FAILED)


class _Other:
    """One of the others, as the first process sees it."""

    def __init__(self, seat: Seat) -> None:
        self.seat = seat
        self._process = subprocess.Popen(  # noqa: S603  # our own code
            [sys.executable, "-m", "processor", ARGUMENT],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=[] if seat.lock is None else [seat.lock],
        )
        self._input = cast("IO[bytes]", self._process.stdin)
        self._output = cast("IO[bytes]", self._process.stdout)
        self.tell(json.dumps(asdict(seat)))

    def tell(self, line: str) -> None:
        """One line to its standard input; nothing happens if it is gone."""
        with contextlib.suppress(OSError):
            self._input.write(f"{line}\n".encode())
            self._input.flush()

    def is_ready(self, seconds: float) -> bool:
        """Whether it has said so, waiting for at most that long."""
        return bool(select.select([self._output], [], [], seconds)[0]) and bool(self._output.readline())

    def fault(self) -> str | None:
        """How it ended, in words, if it did and not in order."""
        code = self._process.poll()
        if not code:
            return None
        return f"ended by signal {-code}" if code < 0 else f"ended with exit code {code}"

    def wait(self, until: float) -> int | None:
        """Its exit code; None if it still runs at a moment of the monotonic clock."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self._process.wait(max(0.0, until - time.monotonic()))
        return None

    def kill(self) -> None:
        """Ends it, if it has not ended."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._input, self._output):
            with contextlib.suppress(OSError):
                pipe.close()


class Further:
    """A process that another one has started."""

    def __init__(self, stopping: Stop) -> None:
        """Reads its seat, and follows the first process from now on, in a thread of its own.

        Signals are ignored: a Ctrl-C reaches all processes of a terminal, and one that ended alone would be waited for
        by the others for ever.
        """
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        seat = json.loads(sys.stdin.readline())
        self.seat = Seat(seat["index"], tuple(seat["addresses"]), seat["lock"])
        self._go = threading.Event()
        self._stopping = stopping
        threading.Thread(target=self._following, args=(sys.stdin,), name="cluster", daemon=True).start()

    def meet(self) -> bool:
        """See `Company`."""
        print("ready", flush=True)  # noqa: T201  # the first process reads it
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what else is printed, nobody would read
        self._go.wait()  # or for the end of this process: see `_following`
        return not self._stopping.is_set()

    def lost(self) -> str | None:
        """See `Company`."""
        return "another process of the cluster ended"

    def _following(self, lines: IO[str]) -> None:
        for line in lines:
            if line.strip() == "stop":
                self._stopping.set()
            self._go.set()
        log.warning(
            "first_process_lost",
            "the first process of the cluster is gone; process {process} ends too",
            process=self.seat.index,
        )
        os._exit(EXIT_FAILED)


class Causes:
    """Remembers the first error that the engine was given. Of a cluster the engine tells only that it broke down."""

    HOOKS = ("next_batch", "on_batch", "on_notify", "on_eof", "write_batch", "snapshot")
    """What the engine calls again and again."""

    def __init__(self) -> None:
        self.first: BaseException | None = None

    def watch(self, step: Any) -> None:
        """From now on, of a source or a sink, whatever it builds."""
        vars(step)["build_part"] = self.noting(step.build_part)

    def noting(self, build: Callable[..., Any]) -> Callable[..., Any]:
        """The same function; errors in it, and in the hooks of what it builds, are noted on their way to the engine."""

        def built(*arguments: Any) -> Any:
            logic = self._noting(build)(*arguments)
            for name in self.HOOKS:
                if hasattr(logic, name):
                    setattr(logic, name, self._noting(getattr(logic, name)))
            return logic

        return built

    def _noting(self, hook: Callable[..., Any]) -> Callable[..., Any]:
        def noting(*arguments: Any) -> Any:
            try:
                return hook(*arguments)
            except StopIteration:
                raise
            except BaseException as error:
                self.first = self.first or error
                raise

        return noting


def leave_broken() -> None:
    """Ends the process with 1 at once, after a breakdown: the engine's threads, which still want the interpreter, would
    abort a process that ends as usual."""
    logging.shutdown()
    os._exit(EXIT_FAILED)


def _free_places(count: int) -> list[socket.socket]:
    """Loopback addresses that nobody listens on; held, until the engine takes them over."""
    return [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
