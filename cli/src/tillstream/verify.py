"""``tillstream verify``: recomputes every live number from what is stored, and compares exactly.

The board says which positions one tick had applied. Every number of that tick is a function of the events up to them,
which the sink stores; DuckDB works them out again from S3, in SQL that shares nothing with the processor.
"""

import json
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import redis
import typer
from rich.console import Console

from sales.board import BoardReader, Keys, LiveNumbers
from sales.countries import region_table
from sales.settings import BoardSettings, RuleSettings, StoreSettings, load
from sales.times import INVALID_TIME, parse_time
from tillstream import audit
from tillstream.bounds import bounds
from tillstream.compare import compare
from tillstream.database import Database
from tillstream.reading import REDIS_SECONDS, Say, reading
from tillstream.recompute import Facts, Fault
from tillstream.report import Report, show
from tillstream.stored import POLL_SECONDS, Extents, NotCoveredError, Store, wait_until_covered

EXIT_DIFFERENT = 1

MARKER_MARGIN = timedelta(hours=1)
"""A marker is written after its events were sent, and an event is dated at most 5 minutes ahead of that; the rest is
for clocks that disagree."""


class VerifySettings(BoardSettings, StoreSettings, RuleSettings):
    """Where the live numbers and the orders are; windows, top-K, currency and regions as the processor has them."""


def verify(
    timeout: Annotated[
        float, typer.Option(min=0, help="Seconds to wait until the tick's positions are stored.", metavar="SECONDS")
    ] = 120,
    everything: Annotated[
        bool,
        typer.Option(
            "--everything",
            help="Read all that is stored, not only what the windows need; also compare the counts in the status.",
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Recompute every live number from S3 and compare it exactly.

    Exit codes: 0 all equal, 1 something differs, 2 a setting is wrong, 3 nothing could be compared (no tick, not stored
    in time, Redis or S3 away), 4 what is there can't be worked with, 130 Ctrl-C.
    """
    settings = load(VerifySettings)
    with reading("verify") as say:
        report = verify_board(settings, timeout=timeout, everything=everything, say=say)
    if as_json:
        typer.echo(json.dumps(report.as_json(), indent=2))
    else:
        show(report, Console())
    if not report.equal:
        raise typer.Exit(EXIT_DIFFERENT)


def verify_board(
    settings: VerifySettings, *, timeout: float, everything: bool = False, say: Say = lambda _text: None
) -> Report:
    """Takes one tick, waits until it is stored, recomputes and compares it.

    Args:
        settings: what to compare with what.
        timeout: seconds to wait for the tick's positions to be marked done.
        everything: read all objects since the streams' beginning, and check the counts in the status too.
        say: hears what goes on.

    Raises:
        NotCoveredError: there is no tick, or it was not stored in time.
        StoredError: a marker in S3 contradicts itself.
        BoardError: a number on the board is none.
        duckdb.Error, OSError: this machine lacks disk or memory, or a value is beyond what can be added up.
        Interrupted: a signal came, inside `interrupts.raised`.
        redis.RedisError: Redis stays away.
        botocore.exceptions.BotoCoreError, ClientError: S3 stays away or refuses.
    """
    began = time.monotonic()
    say("reading one tick from Redis")
    keys = Keys(settings.redis_prefix)
    region_of = region_table(settings.region_overrides)
    with redis.Redis.from_url(settings.redis_url.get_secret_value(), socket_timeout=REDIS_SECONDS) as client:
        live = BoardReader(client, keys, [window.name for window in settings.windows]).read(
            regions=sorted(set(region_of.values()))
        )
    as_of = _as_of(live, keys)
    edges = bounds(as_of, live.windows)
    start = min(start for start, _ in edges.values())
    # An order may be dated ahead of as_of: no window has it yet, but it names its products.
    span = None if everything else (start - 60_000, max(end for _, end in edges.values()) + 3_600_000)
    since = None if span is None else datetime.fromtimestamp(start / 1000, UTC) - MARKER_MARGIN
    archive = Store.open(settings)
    partitions = wait_until_covered(archive, live.positions, timeout=timeout, since=since, say=say)
    with tempfile.TemporaryDirectory(prefix="tillstream-verify-") as folder, Database.open(Path(folder)) as database:
        facts = Facts(database, Path(folder), region_of)
        progress = "reading what is stored: {} of {} objects".format
        unread = facts.load(archive, partitions, live.positions, span, lambda done, of: say(progress(done, of)))
        say("recomputing")
        facts.apply(live.positions, edges)
        expected = facts.expected(as_of, edges, settings.top_k)
        numbers = compare(live, expected, keys, settings.currency)
        ledger = []
        if everything:
            letters, unread_letters = _dead_letters(archive, facts, live, timeout, say)
            unread += unread_letters
            counts = facts.counts(max(end - start for start, end in edges.values()))
            numbers.append(audit.status(live, keys, partitions, counts, facts.letters()))
            ledger.append(audit.ledger([*partitions, *letters]))
        stored = [audit.stored(facts, unread), audit.strays(archive, partitions, span), *ledger]
        objects, rows = facts.size()
    return Report(
        as_of=live.status.get("as_of", ""),
        positions=live.positions,
        objects=objects,
        rows=rows,
        seconds=time.monotonic() - began,
        numbers=numbers,
        stored=stored,
    )


def _dead_letters(
    archive: Store, facts: Facts, live: LiveNumbers, timeout: float, say: Say
) -> tuple[list[Extents], list[Fault]]:
    """Loads the archived dead letters, as soon as there are as many as the tick counts, or what there is after
    ``timeout`` seconds: nothing says which position of their stream a tick has come to.

    Returns:
        Their extents, and what is wrong with objects that could not be loaded.
    """
    deadline = time.monotonic() + timeout
    counted = live.status.get("dead_letters", "")
    partitions: dict[str, Extents] = {}
    unread: list[Fault] = []
    while True:
        for path in archive.partitions("dead-letters"):
            archive.extend(partitions.setdefault(path, Extents.of(path)))
        unread += facts.load_letters(archive, partitions.values(), lambda _done, _of: None)
        found = sum(facts.letters().values())
        if not counted.isdecimal() or found >= int(counted) or time.monotonic() >= deadline:
            return list(partitions.values()), unread
        say(f"waiting for the sink: {found} of {counted} dead letters are archived")
        time.sleep(min(POLL_SECONDS, max(0.0, deadline - time.monotonic())))


def _as_of(live: LiveNumbers, keys: Keys) -> int:
    """The moment the tick speaks of, ms since 1970."""
    as_of = parse_time(live.status.get("as_of", ""))
    if as_of == INVALID_TIME or not live.positions:
        raise NotCoveredError(f"Redis holds no tick: {keys.status} has no as_of, or {keys.positions} is empty")
    if not any(window.aov for window in live.windows.values()):
        names = " ".join(live.windows)
        raise NotCoveredError(f"Redis holds none of the windows {names} (is WINDOWS what the processor has?)")
    return as_of
