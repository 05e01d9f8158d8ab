"""Random schedules of sinks: each process has a life, at whose end it is killed, frozen or told to stop.

A schedule is drawn from its seed alone, and is run on streams, keys and tables of its own. When all lives are over,
one more process stores what is left; then those that were frozen wake up, and find their work done by others. In the
end S3 must hold every well-formed order once, the ledger must add up, and DynamoDB must hold the lowest position of
each id.
"""

import random
import signal
import time
import traceback
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from chaos.forks import Fork
from sink import failpoints
from support.shop import Process, Shop, check_stored_once, open_shop, some_orders
from support.waiting import eventually

Lane = Literal["archive", "index"]
Ending = Literal["ended", "frozen", "killed", "stopped"]

ARROWS: dict[Lane, tuple[failpoints.Place, ...]] = {
    "archive": (
        "claimed",
        "pin-before",
        "pin-after",
        "object-before",
        "part-after",
        "complete-before",
        "complete-after",
        "object-after",
        "done-before",
        "done-after",
        "head-after",
        "commit-before",
        "commit-after",
    ),
    "index": ("claimed", "items-before", "items-after", "commit-before", "commit-after"),
}
"""Where a life may end."""

IN_PARTS: frozenset[failpoints.Place] = frozenset(("part-after", "complete-before", "complete-after"))
"""Where only those come by whose objects go in parts."""

WORKS_SECONDS = 20.0
"""From a start to the first partition. Of three members that share two partitions one gets none, and is ended then."""
STORED_SECONDS = 180.0
STALL_SECONDS = 45.0
"""When so long nothing more was stored, nothing more will be."""
STOP_SECONDS = 40.0
LOOK_SECONDS = 0.05
"""Between two looks at a process; every wait has a bound of its own."""
ASK_SECONDS = 0.2
"""Between two looks at what is stored, which costs the servers more than a sink does."""


@dataclass(frozen=True)
class Life:
    """One process."""

    lane: Lane
    place: failpoints.Place
    times: int
    """it ends when it comes by the place so often"""
    action: failpoints.Action
    patience: float
    """seconds that it may work without coming there; then it is killed, or told to stop"""
    kill: bool
    rotate_records: int
    rotate_seconds: float
    in_parts: bool
    """its objects go in parts, however small"""
    poll_records: int
    """read at one time at most: so its extents end elsewhere than those of the others"""

    @property
    def environment(self) -> dict[str, str]:
        """As its process is told."""
        return {
            "LANES": self.lane,
            "ROTATE_RECORDS": str(self.rotate_records),
            "ROTATE_SECONDS": str(self.rotate_seconds),
            failpoints.VARIABLE: f"{self.place}:{self.times}:{self.action}",
        }


@dataclass(frozen=True)
class Schedule:
    """What happens, all of it but the moments."""

    seed: int
    lives: tuple[Life, ...]
    together: bool
    """all processes are started before the first one's end is waited for"""
    one_group: bool
    """they share a group; else each begins one of its own, and nothing but the store keeps them apart"""
    batches: tuple[tuple[bytes, ...], ...]
    """orders that are sent before the first start, and after each one"""


@dataclass(frozen=True)
class Outcome:
    """What became of a schedule."""

    seed: int
    endings: tuple[tuple[str, Ending], ...]
    """of each life: the place it was to end at, and how it ended; ``ended`` and ``frozen``: there"""
    seconds: float
    difference: str
    """empty: all is right"""


def draw(seed: int) -> Schedule:
    """The same schedule for the same seed."""
    dice = random.Random(seed)  # noqa: S311 (a seed makes a schedule come again)
    lives = tuple(_life(dice) for _ in range(dice.choice((1, 2, 2, 3, 4))))
    return Schedule(
        seed,
        lives,
        together=dice.random() < 0.4,
        one_group=dice.random() < 0.2,
        batches=tuple(tuple(some_orders(dice, dice.randint(20, 50))) for _ in range(1 + len(lives))),
    )


def _life(dice: random.Random) -> Life:
    lane: Lane = "index" if dice.random() < 0.3 else "archive"
    place = dice.choice(ARROWS[lane])
    return Life(
        lane=lane,
        place=place,
        times=dice.choice((1, 1, 2, 3)),
        action=dice.choice(failpoints.ACTIONS),
        patience=dice.uniform(0.5, 3),
        kill=dice.random() < 0.5,
        rotate_records=dice.randint(5, 40),
        rotate_seconds=dice.choice((0.2, 0.5, 1.0)),
        in_parts=place in IN_PARTS or dice.random() < 0.2,
        poll_records=dice.randint(2, 30),
    )


def run(schedule: Schedule, settings: Mapping[str, str], folder: Path) -> Outcome:
    """Lets it happen; blocks for some seconds, or for about a minute where processes of one group are killed.

    Args:
        schedule: what.
        settings: where: ``kafka_bootstrap_servers``, and ``s3_bucket``, an existing one. S3 and DynamoDB are where
            ``aws_endpoint_url``, or ``AWS_ENDPOINT_URL_S3`` and ``AWS_ENDPOINT_URL_DYNAMODB`` in the environment say.
        folder: for logs.
    """
    began = time.monotonic()
    name = f"schedule-{schedule.seed}-{uuid.uuid4().hex[:8]}"
    values = {
        "stream": "kafka",
        "aws_region": "us-east-1",
        "dynamodb_billing": "on-demand",
        "s3_prefix": f"{name}/",
        "sales_table": f"SalesData-{name}",
        "trends_table": f"SalesTrends-{name}",
        "orders_stream": f"orders-{name}",
        "rollups_stream": f"rollups-{name}",
        "dead_letters_stream": f"dead-letters-{name}",
        "sink_group": name,
        "connect_seconds": "30",
        "stop_seconds": "10",
        **settings,
    }
    endings: list[tuple[str, Ending]] = []
    shop = open_shop(values, folder)
    try:
        _play(shop, schedule, endings)
        difference = ""
    except AssertionError as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        difference = f"{where.name}: {str(error).strip() or where.line}"
    finally:
        shop.end()
        _give_back(shop)
    return Outcome(schedule.seed, tuple(endings), time.monotonic() - began, difference)


def _play(shop: Shop, schedule: Schedule, endings: list[tuple[str, Ending]]) -> None:
    shop.send(*schedule.batches[0])
    frozen: list[Process] = []
    waiting: list[tuple[Life, Process]] = []

    def await_all() -> None:
        for life, process in waiting:
            ending = _await_end(shop, life, process)
            endings.append((life.place, ending))
            if ending == "frozen":
                frozen.append(process)
        waiting.clear()

    for number, (life, batch) in enumerate(zip(schedule.lives, schedule.batches[1:], strict=True)):
        group = shop.environment["SINK_GROUP"] + ("" if schedule.one_group else f"-{number}")
        fork = partial(Fork, in_parts=life.in_parts, poll_records=life.poll_records)
        waiting.append((life, shop.start(fork, **life.environment, SINK_GROUP=group)))
        shop.send(*batch)
        if not schedule.together:
            await_all()
    await_all()
    last = shop.start(Fork, ROTATE_SECONDS="0.2")
    _await_count(shop, last, shop.archived, len(shop.sent), "messages marked done")
    _await_count(shop, last, lambda: len(shop.items(shop.store.sales_table)), len(shop.order_ids()), "items")
    for zombie in frozen:
        zombie.send_signal(signal.SIGTERM)  # heard when it goes on: it stores what it holds, and leaves
        zombie.send_signal(signal.SIGCONT)
    last.send_signal(signal.SIGTERM)
    for process in (*frozen, last):
        eventually(partial(_stopped, shop, process), "stopped in order", seconds=STOP_SECONDS)
    check_stored_once(shop)


def _await_count(shop: Shop, process: Process, count: Callable[[], int], wanted: int, what: str) -> None:
    """Waits until a process has stored so much."""
    most, until = -1, time.monotonic()
    end = until + STORED_SECONDS
    while (found := count()) < wanted:
        now = time.monotonic()
        if found > most:
            most, until = found, min(end, now + STALL_SECONDS)
        assert now < until, f"{found} of {wanted} {what}"
        assert _ended(shop, process) is None, f"stopped at {found} of {wanted} {what}"
        time.sleep(ASK_SECONDS)


def _await_end(shop: Shop, life: Life, process: Process) -> Ending:
    """How a life ends; where its failpoint does not come in time, at our hands."""
    log = shop.log(shop.processes.index(process))
    until, works = time.monotonic() + WORKS_SECONDS, False
    while time.monotonic() < until:
        if ending := _ended(shop, process):
            return ending
        if not works and f"{life.lane}-orders: partition" in log.read_text():
            until, works = time.monotonic() + life.patience, True
        time.sleep(LOOK_SECONDS)
    process.send_signal(signal.SIGKILL if life.kill else signal.SIGTERM)
    until = time.monotonic() + STOP_SECONDS
    while time.monotonic() < until:
        if ending := _ended(shop, process):  # while it stops it may still come by its failpoint
            return "killed" if life.kill else ending
        time.sleep(LOOK_SECONDS)
    raise AssertionError(f"does not stop: {_last_words(shop, process)}")


def _ended(shop: Shop, process: Process) -> Ending | None:
    """None: it works."""
    code = process.poll()
    if code is None:
        return "frozen" if _is_frozen(process.pid) else None
    assert code in (0, -signal.SIGKILL), f"exit code {code}: {_last_words(shop, process)}"
    return "ended" if code else "stopped"


def _stopped(shop: Shop, process: Process) -> bool:
    return _ended(shop, process) == "stopped"


def _is_frozen(pid: int) -> bool:
    """Stopped by a signal; Linux."""
    with suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
    return False


def _last_words(shop: Shop, process: Process) -> str:
    return " | ".join(shop.log(shop.processes.index(process)).read_text().splitlines()[-3:])


def _give_back(shop: Shop) -> None:
    """Tables and topics: their servers get slower with each. Objects go with their server."""
    for name in shop.names.values():
        shop.wire.delete(name)
    shop.wire.close()
    for table in (shop.store.sales_table, shop.store.trends_table):
        shop.dynamodb.delete_table(TableName=table)
