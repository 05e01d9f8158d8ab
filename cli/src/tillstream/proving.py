"""The proof: recomputes every live number from what is stored, and compares exactly.

The board says which positions one tick had applied. Every number of that tick is a function of the events up to them,
which the sink stores; DuckDB works them out again from S3, in SQL that shares nothing with the processor.
"""

import contextlib
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sales.board import BoardReader, Keys, LiveNumbers, client_of
from sales.countries import region_table
from sales.settings import BoardSettings, RotationSettings, RuleSettings, StoreSettings
from sales.times import INVALID_TIME, parse_time
from sink.aws import client
from tillstream import audit
from tillstream.bounds import bounds
from tillstream.compare import Check, compare
from tillstream.database import Database
from tillstream.lookups import Due, Lookups
from tillstream.reading import REDIS_SECONDS, Say
from tillstream.recompute import Facts, Fault
from tillstream.report import Report
from tillstream.stored import POLL_SECONDS, Extents, NotCoveredError, NotYetError, Store, wait_until_covered

MARKER_MARGIN = timedelta(hours=1)
"""A marker is written after its events were sent, and an event is dated at most 5 minutes ahead of that; the rest is
for clocks that disagree."""


SLOW_SECONDS = 60.0
"""What storing may take beyond its rotation, for whoever is slow."""


class VerifySettings(BoardSettings, StoreSettings, RuleSettings, RotationSettings):
    """Where the live numbers and the orders are; windows, top-K, currency and regions as the processor has them,
    rotation as the sink."""

    @property
    def stored_seconds(self) -> float:
        """How long after it was sent a message is stored, unless something is wrong."""
        return self.rotate_seconds + SLOW_SECONDS

    @property
    def settled_seconds(self) -> float:
        """How long after its minute is closed a rollup is stored: corrections are gathered for 10 s before it is sent,
        and it may have a whole rotation before it."""
        return 2 * self.rotate_seconds + SLOW_SECONDS


def read_tick(settings: VerifySettings) -> LiveNumbers:
    """One tick from Redis, whole.

    Raises:
        NotCoveredError: there is none.
        BoardError: a number on the board is none.
        redis.RedisError: Redis stays away.
    """
    keys = Keys(settings.redis_prefix)
    regions = sorted(set(region_table(settings.region_overrides).values()))
    with client_of(settings.redis_url.get_secret_value(), REDIS_SECONDS) as board:
        live = BoardReader(board, keys, [window.name for window in settings.windows]).read(regions=regions)
    _as_of(live, keys)
    return live


def verify_board(
    settings: VerifySettings,
    *,
    timeout: float,
    tick: LiveNumbers | None = None,
    everything: bool = False,
    lookups: bool = True,
    archive: Store | None = None,
    say: Say = lambda _text: None,
) -> Report:
    """Waits until a tick is stored, recomputes and compares it.

    Args:
        settings: what to compare with what.
        timeout: seconds to wait for the tick's positions to be marked done.
        tick: as `read_tick` gave it; None: a new one.
        everything: read all objects since the streams' beginning; check the counts in the status, the dead letters and
            the rollups too.
        lookups: with everything, also what DynamoDB holds.
        archive: reads what is stored; None: as the settings say.
        say: hears what goes on.

    Raises:
        NotYetError: the tick was not stored in time.
        NotCoveredError: there is none.
        StoredError: a marker in S3 contradicts itself.
        BoardError: a number on the board is none.
        duckdb.Error, OSError: this machine lacks disk or memory, or a value is beyond what can be added up.
        Interrupted: a signal came, inside `interrupts.raised`.
        redis.RedisError: Redis stays away.
        botocore.exceptions.BotoCoreError, ClientError: S3 or DynamoDB stays away or refuses.
    """
    began = time.monotonic()
    say("reading one tick from Redis")
    live = tick or read_tick(settings)
    keys = Keys(settings.redis_prefix)
    region_of = region_table(settings.region_overrides)
    as_of = _as_of(live, keys)
    edges = bounds(as_of, live.windows)
    start = min(start for start, _ in edges.values())
    # An order may be dated ahead of as_of: no window has it yet, but it names its products.
    span = None if everything else (start - 60_000, max(end for _, end in edges.values()) + 3_600_000)
    since = None if span is None else datetime.fromtimestamp(start / 1000, UTC) - MARKER_MARGIN
    archive = archive or Store.open(settings)
    partitions = wait_until_covered(archive, live.positions, timeout=timeout, since=since, say=say)
    with tempfile.TemporaryDirectory(prefix="tillstream-verify-") as folder, Database.open(Path(folder)) as database:
        facts = Facts(database, Path(folder), region_of)
        progress = "reading what is stored: {} of {} objects".format
        unread = facts.load(archive, partitions, live.positions, span, lambda done, of: say(progress(done, of)))
        say("recomputing")
        facts.apply(live.positions, edges)
        expected = facts.expected(as_of, edges, settings.top_k)
        numbers = compare(live, expected, keys, settings.currency)
        letters: list[Extents] = []
        further: list[Check] = []
        if everything:
            letters, unread_letters = _dead_letters(settings, archive, facts, live, timeout, say)
            unread += unread_letters
            longest = max(end - start for start, end in edges.values())
            counts = facts.counts(longest)
            numbers.append(audit.status(live, keys, partitions, counts, facts.letters()))
            further += audit.refused(facts.refused(partitions, longest))
            checks, unread_rollups = _lookups(
                settings, facts, archive, database, live, timeout, lookups=lookups, say=say
            )
            further += checks
            unread += unread_rollups
        stored = [
            audit.stored(facts, unread),
            audit.strays(archive, partitions, span),
            audit.ledger([*partitions, *letters]),
            *further,
        ]
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
    settings: VerifySettings, archive: Store, facts: Facts, live: LiveNumbers, timeout: float, say: Say
) -> tuple[list[Extents], list[Fault]]:
    """Loads the archived dead letters, as soon as there are as many as the tick counts, or what there is after
    ``timeout`` seconds: nothing says which position of their stream a tick has come to.

    Returns:
        Their extents, and what is wrong with objects that could not be loaded.

    Raises:
        NotYetError: some are missing, and the tick is so young that they may be on their way.
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
        if not counted.isdecimal() or found >= int(counted):
            return list(partitions.values()), unread
        state = f"{found} of {counted} dead letters are archived"
        if time.monotonic() >= deadline:
            published = parse_time(live.status.get("published_at", ""))
            if time.time() - published / 1000 < settings.stored_seconds:
                raise NotYetError(f"{state}, the others may take {settings.stored_seconds:g} s (waited {timeout:g} s)")
            return list(partitions.values()), unread
        say(f"waiting for the sink: {state}")
        time.sleep(min(POLL_SECONDS, max(0.0, deadline - time.monotonic())))


def _lookups(
    settings: VerifySettings,
    facts: Facts,
    archive: Store,
    database: Database,
    live: LiveNumbers,
    timeout: float,
    *,
    lookups: bool,
    say: Say,
) -> tuple[list[Check], list[Fault]]:
    """Compares the closed minutes and the items; what differs is read again for at most ``timeout`` seconds.

    Returns:
        The checks, and what is wrong with objects that could not be loaded.
    """
    as_of = parse_time(live.status["as_of"])
    before = round((time.time() - settings.settled_seconds) * 1000)
    due = Due(
        since=min(start for start, _ in bounds(as_of, live.windows).values()),
        settled=as_of if live.status.get("clock") == "event" else min(as_of, before),
        settled_by=before,
    )
    with contextlib.ExitStack() as stack:
        dynamodb = None
        if lookups:
            dynamodb = stack.enter_context(contextlib.closing(client("dynamodb", settings, connections=1)))
        asked = Lookups(database, dynamodb, settings.currency, time.monotonic() + timeout, say)
        checks, unread = asked.minutes(facts, archive, settings.trends_table, due)
        if lookups:
            checks += asked.items(settings.sales_table)
    return checks, unread


def _as_of(live: LiveNumbers, keys: Keys) -> int:
    """The moment the tick speaks of, ms since 1970."""
    as_of = parse_time(live.status.get("as_of", ""))
    if as_of == INVALID_TIME or not live.positions:
        raise NotCoveredError(f"Redis holds no tick: {keys.status} has no as_of, or {keys.positions} is empty")
    if not any(window.aov for window in live.windows.values()):
        names = " ".join(live.windows)
        raise NotCoveredError(f"Redis holds none of the windows {names} (is WINDOWS what the processor has?)")
    return as_of
