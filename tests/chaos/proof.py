"""The shop's own proof, at its end: a sink stores the topics in an S3 of this machine, and ``verify`` recomputes the
board from there, counts and dead letters too."""

import sys
from typing import Any

from chaos.judge import shortened
from chaos.world import END_SECONDS, World
from tillstream.proving import VerifySettings, verify_board
from tillstream.setup import SetupSettings, create_all

STORED_SECONDS = 300.0
"""A sink reads and stores thousands of messages a second."""


def differences(world: World, aws_endpoint: str) -> list[str]:
    """Where the board is not what ``verify`` makes of the archive; a line each.

    Args:
        world: nobody writes to its topics or its board any more.
        aws_endpoint: serves S3; credentials are in the environment.

    Raises:
        NotCoveredError: the sink did not store everything in time.
    """
    given: dict[str, Any] = {
        "STREAM": "kafka",
        "KAFKA_BOOTSTRAP_SERVERS": world.broker.address,
        "AWS_ENDPOINT_URL": aws_endpoint,
        "S3_BUCKET": world.stream_id,
        "REDIS_URL": world.store.address,
    }
    settings = {name.lower(): value for name, value in given.items()}
    list(create_all(SetupSettings(**settings)))
    del settings["stream"], settings["kafka_bootstrap_servers"]
    sink = world.spawn("sink", [sys.executable, "-m", "sink"], LANES="archive", ROTATE_SECONDS="2", **given)
    try:
        report = verify_board(VerifySettings(**settings), timeout=STORED_SECONDS, everything=True, lookups=False)
    finally:
        sink.stop(END_SECONDS)
    lines = [
        f"{d.place} {d.name}: {d.expected} expected, {d.found} found" for c in report.checks for d in c.differences
    ]
    return shortened(lines) if report.compared else ["verify compared nothing"]
