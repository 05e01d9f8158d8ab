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
from pydantic import SecretStr

from generator.settings import GeneratorSettings
from processor.settings import ProcessorSettings
from sales.board import BoardReader, Keys
from sales.events import Log
from sales.settings import load
from sales.streams import StreamError
from sales.streams.connect import connect
from sink.settings import SinkSettings
from tillstream.local import aws as local_aws
from tillstream.local import kafka as local_kafka
from tillstream.local import redis as local_redis
from tillstream.local.nursery import Nursery
from tillstream.local.server import Server, ServerError
from tillstream.setup import SetupSettings, create_all
from tillstream.supervisor import Supervisor

log = Log(__name__)

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
GROUP_NAMES = {"SINK_GROUP": "sink"}
"""What somebody else's broker may have already; there each run has names of its own."""

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

GIVE_BACK_SECONDS = 10.0
"""How long somebody else's broker is asked for at the end, when it may be gone."""

_FOREIGN = (
    *("AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_SESSION_TOKEN", "AWS_ROLE_ARN", "AWS_WEB_IDENTITY_TOKEN_FILE"),
    *("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL_DYNAMODB", "AWS_ENDPOINT_URL_KINESIS"),
    *("AWS_ENDPOINT_URL_GLUE", "REDIS_URL"),
)
"""Somebody's way to the real AWS and to a Redis; here it would only be in the way."""


class ChainSettings(GeneratorSettings, ProcessorSettings, SinkSettings, SetupSettings):
    """All that the chain's services are told, and so all that the commands may ask for."""


class NoNumbersError(Exception):
    """The chain runs, but no numbers came in time; says what the services wrote last."""


@dataclass(slots=True)
class Chain:
    """A running chain. It ends with what holds it; its supervisor stops single services before that."""

    supervisor: Supervisor
    settings: ChainSettings
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
            said = self.supervisor.last_words()
            raise NoNumbersError(f"all parts run, but there are no numbers in Redis after {seconds:g} s\n{said}")

    def settle(self, seconds: float) -> bool:
        """Blocks until the board has applied all that is in the orders stream, to which nobody may write any more;
        False: not in time.

        Raises:
            ChildEndedError: a child ended meanwhile.
            StreamError, redis.RedisError: the stream or Redis can't be asked.
        """
        wire = connect(self.settings, self.settings)
        try:
            orders = wire.open(self.settings.orders_stream)
            ends = {f"{orders.id}/{name}": end for name, end in orders.ends().items() if end is not None}
        finally:
            wire.close()
        with redis.Redis.from_url(self.redis.address, socket_timeout=REDIS_SECONDS) as client:
            reader = BoardReader(client, Keys(self.settings.redis_prefix), ())

            def applied() -> bool:
                positions = reader.read().positions
                return all(int(positions.get(place, -1)) >= end for place, end in ends.items())

            return self._until(applied, seconds)

    def notes(self) -> list[str]:
        """Commands to try, for people."""
        prefix, windows = self.settings.redis_prefix, self.settings.windows
        best = f"{prefix}{windows[0].name}:product:revenue"
        client = next((name for name in ("redis-cli", "valkey-cli") if shutil.which(name)), None)
        at = f"{client or 'redis-cli'} -p {self.redis.port}"
        lines = [
            f"{at} ZREVRANGE {best} 0 9 WITHSCORES",
            f"{at} HGETALL {prefix}{windows[-1].name}:aov",
        ]
        if client is None:
            python = sys.executable if " " not in sys.executable else f"'{sys.executable}'"
            ask = f"redis.Redis(port={self.redis.port}).zrevrange('{best}', 0, 9, withscores=True)"
            lines.append(f'without redis-cli: {python} -c "import redis; print({ask})"')
        lines.append(f"in another terminal, before tillstream live, verify, trace, replay: . {self.env}")
        return lines

    def _until(self, condition: Callable[[], bool], seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self.supervisor.check()
            if condition():
                return True
            time.sleep(POLL_SECONDS)
        return False


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
        SystemExit: with 2, before anything is started: a setting is wrong.
        ServerError: a server can't be started.
        StreamError, SetupError: streams, bucket or tables can't be made.
    """
    foreign = wire == "kafka" and bool(os.environ.get("KAFKA_BOOTSTRAP_SERVERS"))
    borrowed: list[str] = []
    stack.callback(_give_back, borrowed)
    nursery = stack.enter_context(Nursery())
    folder = nursery.folder("run")
    logs = logs or folder
    logs.mkdir(parents=True, exist_ok=True)
    made_up = _set_environment(wire, rate=rate, recovery=folder / "recovery", foreign=foreign)
    load(ChainSettings)
    if wire == "kafka" and not foreign and (lacks := local_kafka.missing()):
        raise ServerError(lacks)
    supervisor = stack.enter_context(Supervisor(nursery, logs))
    servers = [local_redis.start(nursery), local_aws.start(nursery)]
    places = {"REDIS_URL": servers[0].address, "AWS_ENDPOINT_URL": servers[1].address}
    if wire == "kafka" and not foreign:
        servers.append(local_kafka.start(nursery))
        places["KAFKA_BOOTSTRAP_SERVERS"] = servers[-1].address
    for server in servers:
        supervisor.adopt(server.child)
        say(f"{server.name} answers on {server.address}")
    os.environ.update(places)
    (folder / "env").write_text(_for_a_shell(places))

    settings = load(ChainSettings)
    # Those that carry this run's name are ours even if making them fails halfway.
    borrowed += [made_up[name] for name in STREAM_NAMES if name in made_up]
    for made in create_all(settings):
        if foreign and made.kind == "stream" and made.created and made.name not in borrowed:
            borrowed.append(made.name)
        supervisor.check()
        say(made.sentence)
    for name in SERVICES if generator else SERVICES[:-1]:
        # A replay has an end, a synthetic shop has none.
        child = supervisor.start(name, may_end=name == "generator")
        say(f"{name} runs: process {child.pid}, log {child.log}")
    return Chain(supervisor, settings, servers[0], folder / "env")


def _set_environment(wire: WireName, *, rate: str, recovery: Path, foreign: bool) -> dict[str, str]:
    """All but the places that are not known yet. Returns what nobody had set, and what it is now."""
    for name in _FOREIGN:
        os.environ.pop(name, None)
    os.environ.update(_surroundings(), STREAM=wire, RATE=rate, RECOVERY_DIR=str(recovery))
    # A table of 5/5 would be written five orders a second.
    defaults = {"S3_BUCKET": "tillstream", "ROTATE_SECONDS": "2", "DYNAMODB_BILLING": "on-demand", **MIX}
    if foreign:
        run = uuid.uuid4().hex[:8]
        defaults |= {name: f"{word}-{run}" for name, word in (STREAM_NAMES | GROUP_NAMES).items()}
    made_up = {name: value for name, value in defaults.items() if not os.environ.get(name)}
    os.environ.update(made_up)
    return made_up


def _surroundings() -> dict[str, str]:
    """What boto3 is to find in the environment, instead of somebody's way to the real AWS."""
    return {
        **local_aws.environment(),
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    }


def _for_a_shell(places: dict[str, str]) -> str:
    """What leads the commands in another terminal to this chain: every setting that is not left to its default, but no
    secrets."""
    told = _surroundings() | places
    lines = []
    for field, about in ChainSettings.model_fields.items():
        name = field.upper()
        if about.annotation is not SecretStr and os.environ.get(name):
            told[name] = os.environ[name]
        elif name not in told and os.environ.get(name):
            lines.append(f"# {name} is a secret: set it yourself\n")
    return "".join([*lines, *(f"export {name}={shlex.quote(value)}\n" for name, value in told.items())])


def _give_back(borrowed: list[str]) -> None:
    """Removes the streams that were made on somebody else's broker, which then forgets their groups. Where it can't, it
    says so and raises nothing, as the run may end for another reason."""
    if not borrowed:
        return
    told = load(ChainSettings)
    settings = told.model_copy(update={"connect_seconds": min(told.connect_seconds, GIVE_BACK_SECONDS)})
    left = borrowed.copy()
    try:
        wire = connect(settings, settings)
        try:
            for name in borrowed:
                wire.delete(name)
                left.remove(name)
        finally:
            wire.close()
    except StreamError as error:
        log.warning(
            "streams_not_removed",
            "not removed, if they were made: {streams} ({error})",
            streams=", ".join(left),
            error=error,
        )
