"""The whole chain on this machine: servers, streams, tables, services. What ``up`` and ``demo`` start."""

import os
import shlex
import shutil
import sys
import time
import uuid
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import redis

from sales.board import BoardReader, Keys
from sales.settings import AwsSettings, BoardSettings, StreamSettings, load
from sales.streams.connect import connect
from tillstream.local import aws as local_aws
from tillstream.local import kafka as local_kafka
from tillstream.local import redis as local_redis
from tillstream.local.nursery import Nursery
from tillstream.local.server import Server, ServerError
from tillstream.setup import SetupSettings, create_all
from tillstream.supervisor import Supervisor

WireName = Literal["kinesis", "kafka"]

Say = Callable[[str], None]
"""Told what happens, a line at a time."""

SERVICES = ("sink", "processor", "generator")
"""In the order they start; they stop the other way round, so that nothing is sent that nobody reads."""

STREAM_NAMES = {
    "ORDERS_STREAM": "orders",
    "ROLLUPS_STREAM": "sales-rollups",
    "DEAD_LETTERS_STREAM": "orders-dead-letters",
}

MIX = {
    "LATE": "0.01",
    "OUT_OF_ORDER": "0.05",
    "DUPLICATES": "0.02",
    "CONFLICTS": "0.002",
    "MALFORMED": "0.005",
    "FUTURE": "0.002",
    "UNKNOWN_CURRENCY": "0.002",
}
"""What goes wrong in a demo: everything that can, so that there is something to prove."""

POLL_SECONDS = 0.2
"""Between two looks at something that takes seconds."""

REDIS_SECONDS = 5.0

_FOREIGN = ("AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_SESSION_TOKEN", "AWS_ROLE_ARN", "AWS_WEB_IDENTITY_TOKEN_FILE")
"""Somebody's way to the real AWS; here it would only be in the way."""


class NoNumbersError(Exception):
    """The chain runs, but no numbers came in time."""


@dataclass(slots=True)
class Chain:
    """A running chain. It ends with what holds it; its supervisor stops single services before that."""

    supervisor: Supervisor
    redis: Server
    env: Path
    """a file for other terminals: sourced by a shell, it leads every command here"""

    def wait_for_numbers(self, read: Callable[[], bool], seconds: float) -> None:
        """Blocks until ``read`` finds orders counted.

        Raises:
            NoNumbersError: none in time.
            ChildEndedError: a child ended meanwhile.
        """
        if not self._until(read, seconds):
            raise NoNumbersError(f"all parts run, but there are no numbers in Redis after {seconds:g} s")

    def settle(self, seconds: float) -> bool:
        """Blocks until the board has applied all that is in the orders stream, to which nobody may write any more;
        False: not in time.

        Raises:
            ChildEndedError: a child ended meanwhile.
            StreamError, redis.RedisError: the stream or Redis can't be asked.
        """
        (streams, aws, board) = _settings()
        wire = connect(streams, aws)
        try:
            orders = wire.open(streams.orders_stream)
            ends = {f"{orders.id}/{name}": end for name, end in orders.ends().items() if end is not None}
        finally:
            wire.close()
        with redis.Redis.from_url(board.redis_url.get_secret_value(), socket_timeout=REDIS_SECONDS) as client:
            reader = BoardReader(client, Keys(board.redis_prefix), ())

            def applied() -> bool:
                positions = reader.read().positions
                return all(int(positions.get(place, -1)) >= end for place, end in ends.items())

            return self._until(applied, seconds)

    def notes(self) -> list[str]:
        """Commands to try, for people."""
        prefix = _settings()[2].redis_prefix
        client = next((name for name in ("redis-cli", "valkey-cli") if shutil.which(name)), None)
        at = f"{client or 'redis-cli'} -p {self.redis.port}"
        lines = [
            f"{at} ZREVRANGE {prefix}1m:product:revenue 0 9 WITHSCORES",
            f"{at} HGETALL {prefix}1h:aov",
        ]
        if client is None:
            python = sys.executable if " " not in sys.executable else f"'{sys.executable}'"
            ask = f"redis.Redis(port={self.redis.port}).zrevrange('{prefix}1m:product:revenue', 0, 9, withscores=True)"
            lines.append(f'without redis-cli: {python} -c "import redis; print({ask})"')
        lines.append(f"in another terminal, before tillstream live, verify, trace, replay: . {self.env}")
        return lines

    def _until(self, condition: Callable[[], bool], seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while not condition():
            self.supervisor.check()
            if time.monotonic() >= deadline:
                return False
            time.sleep(POLL_SECONDS)
        return True


def start(stack: ExitStack, wire: WireName, *, rate: str, logs: Path | None, generator: bool = True, say: Say) -> Chain:
    """Starts everything; returns once all services were started. Their first numbers take some seconds more.

    Changes this process's environment: from it the services, and all that reads settings here, know where things are.
    What is set there otherwise (``WINDOWS``, ``TOP_K``, a disturbance) stays.

    Args:
        stack: holds every process, and the streams on a broker that is not ours; ends them with itself.
        wire: which of the two.
        rate: the generator's: ``500/s``.
        logs: where the services write; None: a folder that goes with the processes.
        generator: False leaves it out, for orders from elsewhere.
        say: hears what was started and made.

    Raises:
        ServerError: a server can't be started.
        StreamError, SetupError: streams, bucket or tables can't be made.
    """
    foreign = wire == "kafka" and bool(os.environ.get("KAFKA_BOOTSTRAP_SERVERS"))
    if wire == "kafka" and not foreign and (lacks := local_kafka.missing()):
        raise ServerError(lacks)
    borrowed: list[str] = []
    stack.callback(_give_back, borrowed)
    nursery = stack.enter_context(Nursery())
    folder = nursery.folder("run")
    logs = logs or folder
    logs.mkdir(parents=True, exist_ok=True)
    servers = [local_redis.start(nursery), local_aws.start(nursery)]
    places = {"REDIS_URL": servers[0].address, "AWS_ENDPOINT_URL": servers[1].address}
    if wire == "kafka" and not foreign:
        servers.append(local_kafka.start(nursery))
        places["KAFKA_BOOTSTRAP_SERVERS"] = servers[-1].address
    for server in servers:
        say(f"{server.name} answers on {server.address}")
    places |= _set_environment(wire, places, rate=rate, recovery=folder / "recovery", foreign=foreign)
    (folder / "env").write_text("".join(f"export {name}={shlex.quote(value)}\n" for name, value in places.items()))

    chain = Chain(Supervisor(nursery, logs), servers[0], folder / "env")
    for server in servers:
        chain.supervisor.adopt(server.child)
    settings = load(SetupSettings)
    for made in create_all(settings):
        chain.supervisor.check()
        say(made.sentence)
        if foreign and made.kind == "stream" and made.created:
            borrowed.append(made.name)
    for name in SERVICES if generator else SERVICES[:-1]:
        # A replay has an end, a synthetic shop has none.
        child = chain.supervisor.start(name, may_end=name == "generator")
        say(f"{name} runs: process {child.pid}, log {child.log}")
    return chain


def _set_environment(
    wire: WireName, places: dict[str, str], *, rate: str, recovery: Path, foreign: bool
) -> dict[str, str]:
    """Returns what another terminal needs to talk to this chain, beside the places."""
    chosen = {
        **local_aws.environment(),
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "STREAM": wire,
    }
    defaults = {"S3_BUCKET": "tillstream"}
    if foreign:
        # Somebody else's broker may have topics of these names.
        run = uuid.uuid4().hex[:8]
        defaults |= {name: f"{topic}-{run}" for name, topic in STREAM_NAMES.items()}
    for name in _FOREIGN:
        os.environ.pop(name, None)
    os.environ.update(places | chosen)
    os.environ.update(RATE=rate, RECOVERY_DIR=str(recovery))
    # The services' own code switches it on later, after native code was loaded.
    for name, value in (defaults | MIX | {"ROTATE_SECONDS": "2", "PYTHONFAULTHANDLER": "1"}).items():
        os.environ.setdefault(name, value)
    shared = (*defaults, "WINDOWS", "TOP_K", "CURRENCY", "CLOCK", "REDIS_PREFIX", "S3_PREFIX")
    return chosen | {name: os.environ[name] for name in shared if name in os.environ}


def _give_back(borrowed: list[str]) -> None:
    """Removes the streams that were made on somebody else's broker."""
    if borrowed:
        (streams, aws, _) = _settings()
        wire = connect(streams, aws)
        try:
            for name in borrowed:
                wire.delete(name)
        finally:
            wire.close()


def _settings() -> tuple[StreamSettings, AwsSettings, BoardSettings]:
    return StreamSettings(), AwsSettings(), BoardSettings()  # type: ignore[call-arg]  # from the environment
