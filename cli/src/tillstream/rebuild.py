"""``tillstream rebuild``: a lost recovery directory, made again from S3 and the stream."""

import json
import logging
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from processor.rebuilding import CONFLICT, Part, RebuildError
from processor.rebuilding import rebuild as rebuild_state
from processor.recovery import RecoveryError, replaced
from processor.settings import ProcessorSettings
from sales.service import EXIT_FAILED, cause_among
from sales.settings import StoreSettings, load
from sales.streams import Readable, format_position
from sales.streams.connect import connect
from sales.times import format_time
from sales.windows import HOUR_MS
from tillstream import interrupts
from tillstream.archived import ArchivedOrders, hour_name
from tillstream.database import Database
from tillstream.handover import Handover, hand_over
from tillstream.reading import Say, reading
from tillstream.recompute import Facts
from tillstream.stored import Extents, Store, StoredError


class RebuildSettings(ProcessorSettings, StoreSettings):
    """What the processor is told, and where the orders are."""


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """What was rebuilt."""

    recovery_dir: str
    kept: str | None
    """where the state is that was there before"""
    stream: str
    positions: dict[str, str | None]
    """partition to the position up to which the state knows all; None: the stream has the partition from its beginning,
    and the processor reads it there"""
    orders: int
    """accepted"""
    duplicates: int
    dead_letters: int
    read: int
    """orders that were read from S3; what no window needs is only counted"""
    first_event: str | None
    last_event: str | None
    """event times of those that were read, RFC 3339"""
    unreported: int
    """refused messages that the stream no longer has, and of which no dead letter was archived"""
    seconds: float


def rebuild(
    recovery_dir: Annotated[
        Path, typer.Option(envvar="RECOVERY_DIR", help="The processor's directory; made if it is missing.")
    ],
    *,
    force: Annotated[
        bool,
        typer.Option("--force", help="The directory may hold a state: it is moved aside inside of it, and kept."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was rebuilt as JSON.")] = False,
) -> None:
    """Build the processor's lost state again, from the orders in S3 and the stream.

    The processor must not run, and the sink may. Everything else comes from the environment, as the processor and the
    sink have it: STREAM, S3_BUCKET, WINDOWS, CLOCK, CURRENCY and so on. Nothing is written but the directory.

    For example, after the disk of the processor was lost:

    tillstream rebuild --recovery-dir /var/lib/tillstream

    or after the processor said that it can't use what is there:

    tillstream rebuild --recovery-dir /var/lib/tillstream --force

    Exit codes: 0 rebuilt, 1 refused (the line says why), 2 a setting is wrong, 3 stream or S3 away, 4 what is stored
    can't be worked with or this machine lacks disk or memory, 130 Ctrl-C.
    """
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    settings = load(RebuildSettings, recovery_dir=recovery_dir)
    try:
        with reading("rebuild") as say:
            rebuilt = _rebuild(settings, force=force, say=say)
    except (RecoveryError, RebuildError) as error:
        typer.echo(f"rebuild: {error}", err=True)
        raise typer.Exit(EXIT_FAILED) from error
    if as_json:
        typer.echo(json.dumps(asdict(rebuilt), indent=2))
    else:
        _show(rebuilt, Console())


def _rebuild(settings: RebuildSettings, *, force: bool, say: Say) -> Rebuilt:
    wire = connect(settings, settings)
    try:
        return rebuild_directory(wire.open(settings.orders_stream), settings, force=force, say=say)
    finally:
        wire.close()


def rebuild_directory(
    orders: Readable, settings: RebuildSettings, *, force: bool = False, say: Say = lambda _text: None
) -> Rebuilt:
    """Makes the settings' recovery directory one from which the processor goes on.

    Args:
        orders: the stream.
        settings: the processor's, and where the store is.
        force: whether the directory may hold a state, which is then moved aside.
        say: hears what goes on.

    Raises:
        RecoveryError: the directory is in use, or holds a state.
        RebuildError: neither S3 nor the stream has what is needed, or the settings are others than they were.
        StoredError: what is stored contradicts itself.
        StreamError: the stream stays away.
        botocore.exceptions.BotoCoreError, ClientError: S3 stays away or refuses.
        OSError: the disk refuses.
        Interrupted: a signal came, inside `interrupts.raised`; the directory is as it was.
    """
    began = time.monotonic()
    aside = f"aside-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
    with (
        replaced(settings.recovery_dir, aside=aside if force else None) as fresh,
        tempfile.TemporaryDirectory(prefix="tillstream-rebuild-") as folder,
    ):
        store = Store.open(settings)
        say("looking at what S3 and the stream hold")
        handovers = hand_over(store, orders)
        letters = _letters(store, orders, handovers, Path(folder), say)
        archived = ArchivedOrders(
            store,
            orders.id,
            orders.position_digits,
            {name: handover.taken for name, handover in handovers.items()},
            since=_since(handovers, settings),
            folder=Path(folder),
            progress=lambda done, of: say(f"reading what is stored: {done:,} of {of:,} orders"),
        )
        parts = {
            name: Part(
                position=handover.end,
                resumes=handover.resumes,
                tip_ms=handover.tip_ms,
                unread=sum(done.stored for done in handover.taken) - archived.orders(name),
                dead_letters=letters[name],
            )
            for name, handover in handovers.items()
            if handover.end is not None
        }
        counts = _run(archived, parts, fresh, settings)
    kept = settings.recovery_dir / aside
    return Rebuilt(
        recovery_dir=str(settings.recovery_dir),
        kept=str(kept) if kept.exists() else None,
        stream=orders.id,
        positions={
            name: None if handover.end is None else format_position(handover.end, orders.position_digits)
            for name, handover in handovers.items()
        },
        orders=counts["accepted"],
        duplicates=counts["duplicates"],
        dead_letters=counts["dead_letters"],
        read=sum(map(archived.orders, archived.partitions())),
        first_event=None if archived.first_ms is None else format_time(archived.first_ms),
        last_event=None if archived.last_ms is None else format_time(archived.last_ms),
        unreported=sum(_unreported(handover, letters[name]) for name, handover in handovers.items()),
        seconds=time.monotonic() - began,
    )


def _run(
    archived: ArchivedOrders, parts: Mapping[str, Part], directory: Path, settings: RebuildSettings
) -> Counter[str]:
    with interrupts.shielded():  # where the engine runs, an exception would be lost; it asks instead
        try:
            return rebuild_state(archived, parts, directory, settings, stopping=interrupts.waits)
        except Exception as error:
            cause = cause_among(error, (OSError,))  # of the disk, where the engine was at work
            if cause is None or cause is error:
                raise
            raise cause from error


def _since(handovers: Mapping[str, Handover], settings: RebuildSettings) -> str:
    """The first hour, as `hour_name` has it, of which a window or an identity may need an order."""
    hours = [
        f"{place.date}T{place.hour:02d}:00:00+00:00"
        for handover in handovers.values()
        for done in handover.taken
        for item in done.objects
        if (place := Store.place(item.key)) is not None and place.hour is not None
    ]
    if not hours:
        return ""
    latest_ms = datetime.fromisoformat(max(hours)).timestamp() * 1000
    newest_ms = min(time.time() * 1000, latest_ms) if settings.clock == "wall" else latest_ms
    oldest = datetime.fromtimestamp((newest_ms - settings.horizon_ms) // HOUR_MS * HOUR_MS / 1000, UTC)
    return hour_name(f"{oldest:%Y-%m-%d}", oldest.hour)


def _letters(
    store: Store, orders: Readable, handovers: Mapping[str, Handover], folder: Path, say: Say
) -> dict[str, Counter[str]]:
    """How many messages up to the positions that are taken became dead letters, by partition and reason.

    Raises:
        StoredError: one of their objects is not what its marker says.
    """
    archived = [Extents.of(path) for path in store.partitions("dead-letters")]
    for extents in archived:
        store.extend(extents)
    with Database.open(folder) as database:
        facts = Facts(database, folder, {})
        faults = facts.load_letters(
            store, archived, lambda done, of: say(f"reading dead letters: {done} of {of} objects")
        )
        if faults:
            raise StoredError(f"{faults[0].place}: {faults[0].what}: {faults[0].found}, not {faults[0].expected}")
        return facts.letters_by_partition(
            {
                f"{orders.id}/{name}": format_position(handover.end, orders.position_digits)
                for name, handover in handovers.items()
                if handover.end is not None
            }
        )


def _unreported(handover: Handover, letters: Mapping[str, int]) -> int:
    """Messages that the sink refused, too, and that no dead letter speaks of."""
    reported = sum(count for reason, count in letters.items() if reason != CONFLICT)
    return max(0, sum(done.rejected for done in handover.taken) - reported)


def _show(rebuilt: Rebuilt, console: Console) -> None:
    def say(text: str) -> None:
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    say(
        f"{rebuilt.recovery_dir} holds the state of {rebuilt.stream} again: {rebuilt.orders:,} orders, "
        f"{rebuilt.duplicates:,} duplicates, {rebuilt.dead_letters:,} dead letters, {rebuilt.seconds:.1f} s"
    )
    if rebuilt.first_event is not None:
        say(f"read from S3: {rebuilt.read:,} orders placed from {rebuilt.first_event} to {rebuilt.last_event}")
    for name, position in rebuilt.positions.items():
        say(f"    {name}: {'all of it is still in the stream' if position is None else f'up to {position}'}")
    if rebuilt.unreported:
        say(
            f"{rebuilt.unreported:,} refused messages have no archived dead letter: they left the stream before the "
            "lost processor wrote one, or the sink has not stored it yet"
        )
    if rebuilt.kept is not None:
        say(f"what was there before is in {rebuilt.kept}; remove it when the numbers are proved")
    say("next: start the processor (the stream loses what it needs first as time goes by), then `tillstream verify`")
