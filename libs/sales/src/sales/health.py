"""A container's health check: ``python -m sales.health`` asks the service beside it.

It asks ``/ready`` (with ``--live``: ``/live``) at METRICS_PORT, and at METRICS_HOST where that is one address and not
all of them. The exit code is 0 for a yes and 1 otherwise; standard output says in a line why not. It blocks for at most
`SECONDS`. It imports nothing of the service and no library: a container runs it every few seconds.
"""

import http.client
import os
import sys
from collections.abc import Mapping, Sequence

SECONDS = 4.0
"""The service answers from threads of its own, in milliseconds; a container's health check waits for 5 s."""

EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # noqa: S104 (what is not asked)
"""Addresses that are listened at and can't be asked, with the one that can."""

USAGE = """\
usage: python -m sales.health [--live]

Asks the service at METRICS_HOST and METRICS_PORT whether it is ready (or with --live: whether it lives).
For example: METRICS_PORT=9464 python -m sales.health
"""


def main(arguments: Sequence[str], environment: Mapping[str, str]) -> int:
    """Asks, says why not, and gives the exit code; 2 for an argument or setting that is none."""
    if any(argument != "--live" for argument in arguments):
        sys.stderr.write(USAGE)
        return 2
    port = environment.get("METRICS_PORT", "")
    if not port.isdecimal() or not 0 < int(port) < 2**16:
        sys.stderr.write(f"METRICS_PORT is {port!r}: where a service listens is a number from 1 to 65535\n")
        return 2
    host = environment.get("METRICS_HOST", "")
    wrong = ask(EVERYWHERE.get(host, host), int(port), "/live" if arguments else "/ready")
    if wrong is None:
        return 0
    sys.stdout.write(f"{wrong}\n")
    return 1


def ask(host: str, port: int, path: str, *, seconds: float = SECONDS) -> str | None:
    """None for an answer of 200; otherwise what is wrong, in the service's words where it has some.

    Args:
        host: an address that can be connected to.
        port: of the service's metrics.
        path: ``/ready`` or ``/live``.
        seconds: how long connecting, and each read, may take.
    """
    connection = http.client.HTTPConnection(host, port, timeout=seconds)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        said = answer.read(1000).decode(errors="replace").strip()
    except (OSError, http.client.HTTPException) as error:
        return f"http://{host}:{port}{path} does not answer: {error}"
    finally:
        connection.close()
    return None if answer.status == http.client.OK else said or f"{answer.status} {answer.reason}"


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:], os.environ))
