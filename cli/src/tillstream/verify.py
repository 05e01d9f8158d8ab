"""``tillstream verify``: recomputes every live number from what is stored, and compares exactly.

The board says which positions one tick had applied. Every number of that tick is a function of the events up to them,
which the sink stores; DuckDB works them out again from S3, in SQL that shares nothing with the processor.
"""

import json
import re
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import duckdb
import redis
import typer
from botocore.exceptions import BotoCoreError, ClientError
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from sales.board import BoardReader, Keys, LiveNumbers
from sales.countries import region_table
from sales.money import exponent
from sales.settings import BoardSettings, RuleSettings, StoreSettings, load
from sales.times import INVALID_TIME, format_time, parse_time
from tillstream.recompute import Counts, Expected, Facts
from tillstream.stored import Chain, Store, StoredError, hour_folders

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

SHOWN = 10
"""Differences printed of each check; --json has more of them."""

SHOWN_JSON = 1000

_LENGTH = re.compile(r"(\d+)([smhd])")
_LENGTH_MS = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}

Say = Callable[[str], None]
"""Told, now and then, what is being waited for or worked on."""


class VerifySettings(BoardSettings, StoreSettings, RuleSettings):
    """Where the live numbers and the orders are; windows, top-K, currency and regions as the processor has them."""


class NotCoveredError(Exception):
    """There is nothing to compare; the message says what is missing."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One number that is not what it should be."""

    place: str
    """a Redis key, or a place in S3"""
    name: str
    expected: str
    found: str


@dataclass(slots=True)
class Check:
    """One kind of number in one window (or, with an empty window, of the whole board)."""

    window: str
    what: str
    compared: int = 0
    differences: list[Difference] = field(default_factory=list)

    def match(self, place: str, expected: Mapping[str, Any], found: Mapping[str, Any]) -> None:
        """Compares two mappings name by name; a name on one side only is a difference."""
        for name in sorted(expected.keys() | found.keys()):
            self.equal(place, name, expected.get(name), found.get(name))

    def equal(self, place: str, name: str, expected: Any, found: Any) -> None:
        """Compares two values; None is *absent*."""
        self.compared += 1
        if expected != found:
            self.differences.append(Difference(place, name, _shown(expected), _shown(found)))


@dataclass(frozen=True, slots=True)
class Report:
    """What was compared, and how it came out."""

    as_of: str
    positions: dict[str, str]
    objects: int
    """Parquet objects read"""
    rows: int
    """order lines read"""
    seconds: float
    checks: list[Check]

    @property
    def compared(self) -> int:
        """Numbers compared."""
        return sum(check.compared for check in self.checks)

    @property
    def different(self) -> int:
        """Numbers that differ."""
        return sum(len(check.differences) for check in self.checks)

    @property
    def equal(self) -> bool:
        """True if every number is what it should be (and there was one)."""
        return self.compared > 0 and self.different == 0

    def as_json(self) -> dict[str, Any]:
        """For machines."""
        return {
            "equal": self.equal,
            "as_of": self.as_of,
            "positions": self.positions,
            "objects": self.objects,
            "rows": self.rows,
            "seconds": round(self.seconds, 3),
            "compared": self.compared,
            "different": self.different,
            "checks": [
                {
                    "window": check.window,
                    "what": check.what,
                    "compared": check.compared,
                    "different": len(check.differences),
                    "differences": [
                        {"place": d.place, "name": d.name, "expected": d.expected, "found": d.found}
                        for d in check.differences[:SHOWN_JSON]
                    ],
                }
                for check in self.checks
            ],
        }


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
    as_of, bounds = _when(live, keys)
    start = min(start for start, _ in bounds.values())
    # An order may be dated ahead of as_of: no window has it yet, but it names its products.
    span = None if everything else (start - 60_000, max(end for _, end in bounds.values()) + 3_600_000)
    since = None if span is None else datetime.fromtimestamp(start / 1000, UTC) - MARKER_MARGIN
    archive = Store.open(settings)
    chains = wait_until_covered(archive, live.positions, timeout=timeout, since=since, say=say)
    with tempfile.TemporaryDirectory(prefix="tillstream-verify-") as directory, duckdb.connect() as database:
        facts = Facts(database, Path(directory))
        reading = "reading what is stored: {} of {} objects".format
        missing = facts.load(archive, chains, live.positions, span, lambda done, of: say(reading(done, of)))
        say("recomputing")
        facts.apply(live.positions, bounds)
        expected = facts.expected(as_of=as_of, start=start, top_k=settings.top_k)
        checks = [
            *compare(live, expected, keys, settings.currency),
            _stored(facts, missing),
            _strays(archive, chains, span),
        ]
        if everything:
            checks += [_ledger(chains), _counts(live, chains, facts.counts(start))]
        objects, rows = facts.size()
    return Report(
        as_of=live.status.get("as_of", ""),
        positions=live.positions,
        objects=objects,
        rows=rows,
        seconds=time.monotonic() - began,
        checks=checks,
    )


def _when(live: LiveNumbers, keys: Keys) -> tuple[int, dict[str, tuple[int, int]]]:
    """The moment the tick speaks of, and each window's own start and end where it has them; ms since 1970."""
    as_of = parse_time(live.status.get("as_of", ""))
    if as_of == INVALID_TIME or not live.positions:
        raise NotCoveredError(f"Redis holds no tick: {keys.status} has no as_of, or {keys.positions} is empty")
    bounds = {}
    for name, window in live.windows.items():
        start, end = (parse_time(window.aov.get(edge, "")) for edge in ("window_start", "window_end"))
        if INVALID_TIME not in (start, end):
            bounds[name] = (start, end)
    if not bounds:
        names = list(live.windows)
        raise NotCoveredError(
            f"{keys.aov(names[0])} has no window_start and window_end, nor has any other window of {' '.join(names)} "
            "(is WINDOWS what the processor has?)"
        )
    return as_of, bounds


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


def compare(live: LiveNumbers, expected: Expected, keys: Keys, currency: str) -> list[Check]:
    """Every number of one tick against what was recomputed for it: all windows, then the trends and the names."""
    checks = []
    for name, window in live.windows.items():
        checks.append(_totals(name, live, expected, keys, currency))
        for measure, ranking in window.products.items():
            place = keys.product(name, measure)
            checks.append(_ranking(name, measure, place, expected.products.get((name, measure), []), ranking))
        for group, measures in window.groups.items():
            check = Check(name, group)
            for measure, members in measures.items():
                check.match(keys.group(name, group, measure), expected.groups.get((name, group, measure), {}), members)
            checks.append(check)
    return [*checks, *_trends(live, expected, keys), _names(live, expected, keys)]


def _totals(name: str, live: LiveNumbers, expected: Expected, keys: Keys, currency: str) -> Check:
    check = Check(name, "totals")
    found, as_of = live.windows[name].aov, live.status["as_of"]
    place = keys.aov(name)
    totals = expected.totals.get(name)
    if totals is None:
        check.equal(place, "window_start and window_end", "two times", None)
        return check
    fields = {measure: str(value) for measure, value in totals.items()}
    orders, sales = totals["orders"], totals["sales_minor"]
    if orders:
        average = (2 * sales + orders) // (2 * orders)
        fields |= {"aov_minor": str(average), "aov": decimal(average, currency)}
    fields |= {"revenue": decimal(totals["revenue_minor"], currency), "currency": currency, "as_of": as_of}
    # The bounds have chosen the events; what is left to ask is whether they are this window's, ending just after as_of.
    length, moment, end = _length_ms(name), parse_time(as_of), parse_time(found.get("window_end", ""))
    pane = min(max(1_000, length // 60), 900_000)
    if moment < end <= moment + pane:
        fields |= {"window_start": format_time(end - length), "window_end": format_time(end)}
    else:
        fields |= {"window_start": "", "window_end": f"at most {pane} ms after {as_of}"}
    check.match(place, fields, found)
    return check


def _ranking(
    name: str, measure: str, place: str, expected: Sequence[tuple[str, int]], found: Sequence[tuple[str, int]]
) -> Check:
    check = Check(name, f"product {measure}")
    check.match(place, dict(expected), dict(found))
    if not check.differences:
        for rank, (ours, theirs) in enumerate(zip(expected, found, strict=True), start=1):
            if ours != theirs:
                check.differences.append(Difference(place, f"place {rank}", ours[0], theirs[0]))
    return check


def _trends(live: LiveNumbers, expected: Expected, keys: Keys) -> list[Check]:
    whole, by_region = Check("", "trend"), Check("", "trend by region")
    for region, measures in live.trends.items():
        for measure, found in measures.items():
            check = by_region if region else whole
            check.match(keys.trend(measure, region or None), expected.trends.get((region, measure), {}), found)
    return [whole, by_region]


def _names(live: LiveNumbers, expected: Expected, keys: Keys) -> Check:
    """The board names the products that it shows, and no other."""
    shown = {product for window in live.windows.values() for best in window.products.values() for product, _ in best}
    check = Check("", "product names")
    for product in sorted(shown | live.names.keys()):
        names = expected.names.get(product, []) if product in shown else []
        found = live.names.get(product)
        fitting = found if found in names else " or ".join(names) if names else None
        check.equal(keys.products, product, fitting, found)
    return check


def _stored(facts: Facts, missing: Sequence[str]) -> Check:
    """Does what is stored agree with its markers and with itself?"""
    objects, rows = facts.size()
    return Check(
        "",
        "stored orders",
        compared=objects + rows + len(missing),
        differences=[
            *(Difference(key, "object", "there", "missing") for key in missing),
            *(Difference(place, what, expected, found) for what, place, expected, found in facts.faults()),
        ],
    )


def _strays(archive: Store, chains: Sequence[Chain], span: tuple[int, int] | None) -> Check:
    """Objects among the orders that no marker names, though markers cover where they begin: a reader of the whole
    table would count them."""
    check = Check("", "objects without a marker")
    folders = (
        archive.dates("orders")
        if span is None
        else [f"orders/dt={date}/hour={hour:02d}/" for date, hour in hour_folders(*span)]
    )
    by_partition = {(chain.stream, chain.partition): chain for chain in chains}
    marked = {item.key for chain in chains for extent in chain.extents for item in extent.objects}
    for folder in folders:
        for key, _ in archive.listing(folder):
            place = archive.place(key)
            chain = None if place is None else by_partition.get((place.stream, place.partition))
            if place is None:
                check.equal(key, "name", "<stream>+<partition>+<position>.parquet", key.rsplit("/", 1)[-1])
            elif chain is not None and chain.covers(place.first) and _begins_before(chain, place.first):
                check.equal(key, "marker", "named by one", "named by one" if key in marked else "named by none")
    return check


def _begins_before(chain: Chain, position: str) -> bool:
    """Does the known part of the chain reach back to this position?"""
    return chain.extents[0].after is None or chain.extents[0].after < position


def _ledger(chains: Iterable[Chain]) -> Check:
    """Of every extent: read = stored + rejected, and its objects hold what was stored."""
    check = Check("", "extents add up")
    for chain in chains:
        for extent in chain.extents:
            name = f"({extent.after or 'origin'}, {extent.end}]"
            check.equal(chain.path, f"{name} read", extent.stored + extent.rejected, extent.read)
            check.equal(chain.path, f"{name} stored", sum(item.orders for item in extent.objects), extent.stored)
    return check


def _counts(live: LiveNumbers, chains: Sequence[Chain], counts: Counts) -> Check:
    """The counts in the status against what is stored since the streams began."""
    check = Check("", "status counts")
    status = {name: int(text) for name, text in live.status.items() if re.fullmatch(r"\d+", text)}
    accepted, conflicts = status.get("accepted", 0), status.get("dead_letters:conflict", 0)
    repeated = status.get("duplicates", 0) + conflicts
    check.equal("status", "accepted + duplicates + conflicts", counts.stored, accepted + repeated)
    # The processor may forget identities older than the longest window: a repetition of one changes no window, and is
    # counted as accepted.
    forgotten = min(max(counts.repeated - repeated, 0), counts.repeated - counts.repeated_lately)
    check.equal("status", "accepted", counts.accepted + forgotten, accepted)
    check.equal("status", "duplicates + conflicts", counts.repeated - forgotten, repeated)
    if all(chain.end == live.positions[chain.path] for chain in chains):
        # Only then do the extents hold exactly the tick's messages; malformed ones have no rows to be told apart by.
        rejected = sum(extent.rejected for chain in chains for extent in chain.extents)
        check.equal("status", "dead letters without conflicts", rejected, status.get("dead_letters", 0) - conflicts)
    return check


def decimal(minor: int, currency: str) -> str:
    """Minor units as people write them, by integer arithmetic: 1234 USD is 12.34."""
    digits = exponent(currency)
    whole, rest = divmod(abs(minor), 10**digits)
    sign = "-" if minor < 0 else ""
    return f"{sign}{whole}.{rest:0{digits}d}" if digits else f"{sign}{whole}"


def show(report: Report, console: Console) -> None:
    """The report for people: a table, then the first differences of each check."""
    table = Table(title=f"as of {report.as_of}", title_justify="left")
    for heading in ("window", "what"):
        table.add_column(heading)
    for heading in ("compared", "equal", "different"):
        table.add_column(heading, justify="right")
    for check in report.checks:
        different = len(check.differences)
        table.add_row(
            check.window or "all",
            check.what,
            f"{check.compared:,}",
            f"{check.compared - min(different, check.compared):,}",
            f"[bold red]{different:,}[/]" if different else "0",
        )
    console.print(table)
    for check in report.checks:
        if not check.differences:
            continue
        console.print(
            f"[bold red]{check.window or 'all'} {escape(check.what)}[/]: {len(check.differences):,} different"
        )
        for difference in check.differences[:SHOWN]:
            line = f"  {difference.place} {difference.name}: expected {difference.expected}, found {difference.found}"
            console.print(line, markup=False, highlight=False, soft_wrap=True)
        if len(check.differences) > SHOWN:
            console.print(f"  and {len(check.differences) - SHOWN:,} more")
    outcome = "[bold green]every number is equal[/]" if report.equal else "[bold red]not equal[/]"
    console.print(
        f"{outcome}: {report.compared:,} numbers from {report.rows:,} order lines in {report.objects:,} objects, "
        f"{report.seconds:.1f} s"
    )


def plain(notes: Console, command: str) -> Say:
    """Without a terminal: a line when something is said, at most one every 5 s."""
    last = -5.0

    def say(text: str) -> None:
        nonlocal last
        if time.monotonic() - last >= 5:
            last = time.monotonic()
            notes.print(f"{command}: {text}", markup=False, highlight=False, soft_wrap=True)

    return say


def _length_ms(name: str) -> int:
    match = _LENGTH.fullmatch(name)
    return 0 if match is None else int(match[1]) * _LENGTH_MS[match[2]]


def _shown(value: Any) -> str:
    return "absent" if value is None else str(value)
