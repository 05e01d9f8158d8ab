"""What the local servers have in common: a free port, a start that waits for the first answer, one shape."""

import contextlib
import os
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tillstream.local.nursery import Child, Nursery

LOOPBACK = "127.0.0.1"
PORT_ATTEMPTS = 3
"""Between finding a free port and using it another process may take it; three in a row is no coincidence."""
POLL_SECONDS = 0.05
VERSION_SECONDS = 30.0


class ServerError(Exception):
    """A server can't be started: what is missing, or the last lines that it wrote."""


@dataclass(frozen=True, slots=True)
class Server:
    """A server that answers."""

    name: str
    """what a person calls it: "Valkey 9.1.2", "moto 5.2.5\""""
    address: str
    """what its clients take: a URL, or ``host:port`` for Kafka"""
    port: int
    child: Child

    def stop(self) -> None:
        """Ends it and waits; twice is once."""
        self.child.stop()


def free_ports(count: int = 1) -> list[int]:
    """Different ports that nobody listens on at the moment."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM)) for _ in range(count)]
        for each in sockets:
            each.bind((LOOPBACK, 0))
        return [each.getsockname()[1] for each in sockets]


def start(
    nursery: Nursery,
    name: str,
    *,
    command: Callable[[list[int], Path], Sequence[str]],
    address: Callable[[int], str],
    answers: Callable[[str, Child], bool],
    seconds: float,
    ports: int = 1,
    at: Sequence[int] = (),
    env: Mapping[str, str] | None = None,
) -> Server:
    """Starts a server on free ports and waits for its first answer.

    Args:
        nursery: holds the process and its folder.
        name: for people, and for the folder and log file.
        command: from the ports and the folder for its files, what to run; may write files there.
        address: from the first port, what clients take.
        answers: whether it serves at that address yet, it and not another process that was quicker to take the port;
            must return soon and not raise.
        seconds: how long the first answer may take.
        ports: how many it needs; the first is the one that clients use.
        at: the ports that it must have, because clients know them from the server before; empty: free ones.
        env: its whole environment; None: ours.

    Raises:
        ServerError: it ended, or does not answer in time; with the last lines of its log.
    """
    lines: list[str] = []
    for _ in range(PORT_ATTEMPTS):
        folder = nursery.folder(name.split(maxsplit=1)[0].lower())
        numbers = list(at) or free_ports(ports)
        child = nursery.spawn(name, command(numbers, folder), log=folder / "log", env=env)
        where = address(numbers[0])
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if child.exit_code() is not None:
                break
            if answers(where, child):
                return Server(name=name, address=where, port=numbers[0], child=child)
            child.wait(POLL_SECONDS)
        died = child.exit_code() is not None
        child.stop()
        lines = child.last_lines()
        if not died:
            raise ServerError(
                "\n".join([f"{name} does not answer on {where} after {seconds:g} s; its last lines:", *lines])
            )
        if not any("address already in use" in line.lower() for line in lines):
            break
    raise ServerError("\n".join([f"{name} ended at its start; its last lines:", *lines]))


def version(program: str, option: str) -> str:
    """All that a program says when it is asked for its version.

    Raises:
        ServerError: it can't be run, or says nothing for VERSION_SECONDS.
    """
    try:
        asked = subprocess.run([program, option], capture_output=True, text=True, timeout=VERSION_SECONDS, check=False)  # noqa: S603 (a server's program)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ServerError(f"{program} does not say its version: {error}") from error
    return asked.stdout + asked.stderr


def connects(port: int) -> bool:
    """Does anybody listen there?"""
    with contextlib.suppress(OSError), socket.create_connection((LOOPBACK, port), timeout=1):
        return True
    return False


def inherited(**changes: str) -> dict[str, str]:
    """Our environment with changes."""
    return {**os.environ, **changes}
