"""DynamoDB Local: Amazon's own stand-in for DynamoDB, one Java process, from Maven's artifacts.

For tests and benchmarks of what moto only mimics, PartiQL before all. It knows no capacity: it never throttles.
"""

import urllib.error
import urllib.request
import uuid
from collections.abc import Sequence
from pathlib import Path

from tillstream.local.java import Program
from tillstream.local.nursery import Nursery
from tillstream.local.server import LOOPBACK, Server
from tillstream.local.server import start as start_server

START_SECONDS = 60.0
"""Two seconds are usual; two busy cores and a cold disk take longer."""

HEAP_MB = 768
"""At most; all items are in it."""

DYNAMODB = Program("dynamodb", "DynamoDB Local")


def start(nursery: Nursery, *, heap_mb: int = HEAP_MB) -> Server:
    """An empty server on a free loopback port that keeps nothing on disk; its address is an ``http://`` URL.

    The first start on a machine downloads the jars.

    Args:
        nursery: holds the process.
        heap_mb: what Java's heap may grow to.

    Raises:
        ServerError: Java or Maven is missing, the jars can't be had, or it does not start.
    """
    java, jars = DYNAMODB.java(), DYNAMODB.jars(nursery)
    page = f"http://{uuid.uuid4().hex}"  # the only one that may ask it from a browser: so it tells whose it is

    def command(ports: list[int], _: Path) -> Sequence[str]:
        return [
            *(java, f"-Xmx{heap_mb}m", "-XX:+UseSerialGC", f"-Dsqlite4java.library.path={jars}", "-cp", f"{jars}/*"),
            "software.amazon.dynamodb.services.local.main.ServerRunner",
            *("-inMemory", "-sharedDb", "-disableTelemetry", "-cors", page, "-port", str(ports[0])),
        ]

    return start_server(
        nursery,
        f"DynamoDB Local {DYNAMODB.version}",
        command=command,
        address=lambda port: f"http://{LOOPBACK}:{port}",
        answers=lambda url, _: answers(url, page),
        seconds=START_SECONDS,
    )


def answers(url: str, page: str | None = None) -> bool:
    """Does a DynamoDB serve there, and, where a page is given, the one that lets this page ask? It refuses a request
    that is not signed, in words of its own."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # a proxy can't reach our loopback
    request = urllib.request.Request(url, headers={} if page is None else {"Origin": page})  # noqa: S310 (ours)
    try:
        direct.open(request, timeout=2).close()
    except urllib.error.HTTPError as error:
        ours = error.headers["Access-Control-Allow-Origin"] == page
        return error.code == 400 and ours and b"com.amazonaws.dynamodb" in error.read()
    except (urllib.error.URLError, OSError):
        pass
    return False
