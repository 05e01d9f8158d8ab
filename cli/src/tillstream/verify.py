"""``tillstream verify``: recomputes every live number from what is stored, and compares exactly.

The board says which positions one tick had applied. Every number of that tick is a function of the events up to them,
which the sink stores; DuckDB works them out again from S3, in SQL that shares nothing with the processor.
"""

import json
import tempfile
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import duckdb
import redis
import typer
from botocore.exceptions import BotoCoreError, ClientError
from rich.console import Console

from sales.board import BoardReader, Keys, LiveNumbers
from sales.countries import region_table
from sales.settings import BoardSettings, RuleSettings, StoreSettings, load
from sales.times import INVALID_TIME, parse_time
from tillstream import audit
from tillstream.bounds import bounds
from tillstream.compare import compare
from tillstream.recompute import Facts
from tillstream.report import Report, show
from tillstream.stored import Chain, Store, StoredError

EXIT_DIFFERENT = 1
EXIT_NOT_COVERED = 3
"""Nothing was compared: there is no tick, it is not stored yet, or Redis or S3 stays away."""

POLL_SECONDS = 0.5
"""Between two looks for new ``.done`` markers, which the sink sets every few seconds at most."""

REDIS_SECONDS = 10.0
"""Redis answers in milliseconds, or not at all."""

MARKER_MARGIN = timedelta(hours=1)
"""A marker is written after its events were sent, and an event is dated at most 5 minutes ahead of that; the rest is
for clocks that disagree."""

Say = Callable[[str], None]
"""Told, now and then, what is being waited for or worked on."""


class VerifySettings(BoardSettings, StoreSettings, RuleSettings):
    """Where the live numbers and the orders are; windows, top-K, currency and regions as the processor has them."""


class NotCoveredError(Exception):
    """There is nothing to compare; the message says what is missing."""


def verify(
    timeout: Annotated[
        float, typer.Option(min=0, help="Seconds to wait until the tick's positions are stored.", metavar="SECONDS")
    ] = 120,
    everything: Annotated[
        bool,
        typer.Option(
            "--everything",
            help="Read all that is stored, not only what the windows need; also count accepted orders and repetitions.",
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Recompute every live number from S3 and compare it exactly.

    Exit codes: 0 all equal, 1 something differs, 2 a setting is wrong, 3 nothing could be compared (no tick, not stored
    in time, Redis or S3 away).
    """
    settings = load(VerifySettings)
    notes = Console(stderr=True)
    try:
        with notes.status("") as status:
            say = status.update if notes.is_terminal else plain(notes, "verify")
            report = verify_board(settings, timeout=timeout, everything=everything, say=say)
    except (NotCoveredError, StoredError, redis.RedisError, BotoCoreError, ClientError) as error:
        notes.print(f"verify: {error}", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(EXIT_NOT_COVERED) from error
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
        redis.RedisError: Redis stays away.
        botocore.exceptions.BotoCoreError, ClientError: S3 stays away or refuses.
    """
    began = time.monotonic()
    say("reading one tick from Redis")
    keys = Keys(settings.redis_prefix)
    regions = sorted(set(region_table(settings.region_overrides).values()))
    with redis.Redis.from_url(settings.redis_url.get_secret_value(), socket_timeout=REDIS_SECONDS) as client:
        live = BoardReader(client, keys, [window.name for window in settings.windows]).read(regions=regions)
    as_of = _as_of(live, keys)
    edges = bounds(as_of, live.windows)
    start = min(start for start, _ in edges.values())
    # An order may be dated ahead of as_of: no window has it yet, but it names its products.
    span = None if everything else (start - 60_000, max(end for _, end in edges.values()) + 3_600_000)
    since = None if span is None else datetime.fromtimestamp(start / 1000, UTC) - MARKER_MARGIN
    archive = Store.open(settings)
    chains = wait_until_covered(archive, live.positions, timeout=timeout, since=since, say=say)
    with tempfile.TemporaryDirectory(prefix="tillstream-verify-") as directory, duckdb.connect() as database:
        facts = Facts(database, Path(directory))
        reading = "reading what is stored: {} of {} objects".format
        missing = facts.load(archive, chains, live.positions, span, lambda done, of: say(reading(done, of)))
        say("recomputing")
        facts.apply(live.positions, edges)
        expected = facts.expected(as_of, edges, settings.top_k)
        numbers = compare(live, expected, keys, settings.currency)
        stored = [audit.stored(facts, missing), audit.strays(archive, chains, span)]
        if everything:
            numbers.append(audit.status(live, chains, facts.counts(start)))
            stored.append(audit.ledger(chains))
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


def _as_of(live: LiveNumbers, keys: Keys) -> int:
    """The moment the tick speaks of, ms since 1970."""
    as_of = parse_time(live.status.get("as_of", ""))
    if as_of == INVALID_TIME or not live.positions:
        raise NotCoveredError(f"Redis holds no tick: {keys.status} has no as_of, or {keys.positions} is empty")
    if not any(window.aov for window in live.windows.values()):
        names = " ".join(live.windows)
        raise NotCoveredError(f"Redis holds none of the windows {names} (is WINDOWS what the processor has?)")
    return as_of


def wait_until_covered(
    archive: Store,
    positions: Mapping[str, str],
    *,
    timeout: float,
    since: datetime | None = None,
    say: Say = lambda _text: None,
) -> list[Chain]:
    """Blocks until the ``.done`` markers cover every position.

    Args:
        archive: where the markers are.
        positions: ``<stream id>/<partition>`` to the fixed-width text of a position.
        timeout: seconds.
        since: as `Store.extend` has it.
        say: hears how many are still open.

    Raises:
        NotCoveredError: not in time; the message names the first partition that is behind.
        StoredError: a marker contradicts itself.
    """
    deadline = time.monotonic() + timeout
    chains = [Chain.of(path) for path in sorted(positions)]
    while True:
        behind = [chain for chain in chains if not chain.covers(positions[chain.path])]
        for chain in behind:
            archive.extend(chain, since=since)
        behind = [chain for chain in behind if not chain.covers(positions[chain.path])]
        if not behind:
            return chains
        first = behind[0]
        state = (
            f"{len(behind)} of {len(chains)} partitions are not stored up to the tick: {first.path} is marked done up "
            f"to {first.end or 'nothing'}, the tick has applied {positions[first.path]}"
        )
        if time.monotonic() >= deadline:
            raise NotCoveredError(f"{state} (waited {timeout:g} s; is the sink running?)")
        say(f"waiting for the sink: {state}")
        time.sleep(min(POLL_SECONDS, max(0.0, deadline - time.monotonic())))


def plain(notes: Console, command: str) -> Say:
    """Without a terminal: a line when something is said, at most one every 5 s."""
    last = -5.0

    def say(text: str) -> None:
        nonlocal last
        if time.monotonic() - last >= 5:
            last = time.monotonic()
            notes.print(f"{command}: {text}", markup=False, highlight=False, soft_wrap=True)

    return say
