"""``tillstream dead-letters``: what was refused and why, and sent again once it is mended."""

import contextlib
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal, NoReturn

import typer
from rich.console import Console
from rich.table import Table

from sales.service import EXIT_SETTINGS
from sales.settings import RuleSettings, load
from sales.streams.connect import connect
from sales.times import INVALID_TIME, parse_time
from sink.aws import client
from sink.store import S3Store
from tillstream.letters import Chosen, Letter, Letters, counted, open_letters
from tillstream.mending import Change, PatchError, Refused, function, patch
from tillstream.reading import Say, reading
from tillstream.replaying import MARK_THREADS, Outcome, Replaying
from tillstream.tail import TailSettings

EXIT_LEFT = 1
"""A letter is unknown, or could not be sent again."""

SHOWN = 20
"""Letters that a replay left, printed; --json has all."""


class DeadLetterSettings(TailSettings, RuleSettings):
    """Where the dead letters are, and what counts as an order."""


dead_letters = typer.Typer(
    help="See what was refused and why, and send it again once it is mended.", no_args_is_help=True
)

Reasons = Annotated[
    list[str] | None, typer.Option("--reason", help="Only those with this reason; may be given several times.")
]
Since = Annotated[
    str | None, typer.Option("--from", help="Only those from this broker time on: 2026-11-20 or RFC 3339.", metavar="T")
]
Until = Annotated[str | None, typer.Option("--to", help="Only those before this broker time.", metavar="T")]
Timeout = Annotated[
    float, typer.Option(min=0, help="Seconds to read what is in the stream and not stored yet.", metavar="SECONDS")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print it as JSON.")]


@dead_letters.command(name="list")
def list_(
    reason: Reasons = None,
    since: Since = None,
    until: Until = None,
    limit: Annotated[int, typer.Option(min=0, help="Print so many of them at most; 0: all.")] = 100,
    timeout: Timeout = 30,
    as_json: AsJson = False,
) -> None:
    """List dead letters, oldest first.

    For example:

    tillstream dead-letters list --reason currency --from 2026-11-20
    """
    chosen = _chosen(reason, (), since, until)
    with _opened("list", chosen, timeout) as (_, letters, _):
        found = letters.chosen(chosen)
        searched = letters.searched
    shown = found[: limit or None]
    if as_json:
        typer.echo(json.dumps({"letters": [asdict(letter) for letter in shown], "count": len(found)}, indent=2))
        return
    table = Table("letter", "broker time", "reason", "detail", "replayed")
    for letter in shown:
        table.add_row(letter.name, letter.broker_time, letter.reason, letter.detail, "yes" if letter.replayed else "")
    console = Console()
    console.print(table, markup=False)
    console.print(f"{len(shown):,} of {len(found):,}; looked in {'; '.join(searched)}", soft_wrap=True)


@dead_letters.command()
def count(
    by: Annotated[Literal["reason", "day"], typer.Option(help="What to count them by.")] = "reason",
    reason: Reasons = None,
    since: Since = None,
    until: Until = None,
    timeout: Timeout = 30,
    as_json: AsJson = False,
) -> None:
    """Count dead letters by reason, or by day of broker time.

    For example:

    tillstream dead-letters count --from 2026-11-20T06:00:00Z
    """
    chosen = _chosen(reason, (), since, until)
    with _opened("count", chosen, timeout) as (_, letters, _):
        counts = counted(letters.chosen(chosen), by)
    if as_json:
        typer.echo(json.dumps({"counts": counts, "count": sum(counts.values())}, indent=2))
        return
    table = Table(by, "dead letters")
    table.columns[1].justify = "right"
    for name, number in counts.items():
        table.add_row(name, f"{number:,}")
    table.add_section()
    table.add_row("all", f"{sum(counts.values()):,}")
    Console().print(table, markup=False)


@dead_letters.command()
def show(
    letter: Annotated[str, typer.Argument(help="As `list` names it: STREAM/PARTITION/POSITION.")],
    raw: Annotated[bool, typer.Option("--raw", help="Write the message's bytes and nothing else.")] = False,
    timeout: Timeout = 30,
    as_json: AsJson = False,
) -> None:
    """Show one dead letter with its message.

    For example:

    tillstream dead-letters show orders-1f2e3d4c/0/00000000000000000041

    tillstream dead-letters show orders-1f2e3d4c/0/00000000000000000041 --raw | jq .lines
    """
    chosen = Chosen(names=(letter,))
    with _opened("show", chosen, timeout) as (_, letters, _):
        found = letters.chosen(chosen)
        messages = [(key, refused) for _, key, refused in letters.raws(chosen)]
        searched = letters.searched
    if not found:
        typer.echo(f"dead letter {letter} is unknown; looked in {'; '.join(searched)}", err=True)
        raise typer.Exit(EXIT_LEFT)
    [(key, refused)] = messages
    if raw:
        sys.stdout.buffer.write(refused.raw)
    elif as_json:
        texts = {"key": _text(key), "raw": _text(refused.raw), "raw_kept": len(refused.raw)}
        typer.echo(json.dumps({**asdict(found[0]), **texts}, indent=2))
    else:
        _show(found[0], key, refused)


@dead_letters.command()
def replay(
    letters: Annotated[list[str] | None, typer.Argument(help="As `list` names them.", metavar="[LETTER]...")] = None,
    reason: Reasons = None,
    since: Since = None,
    until: Until = None,
    everything: Annotated[bool, typer.Option("--all", help="All of them.")] = False,
    merge: Annotated[
        list[str] | None,
        typer.Option("--patch", help="JSON merge patch (RFC 7396): what to set; null takes away.", metavar="JSON"),
    ] = None,
    with_: Annotated[
        Path | None,
        typer.Option("--with", help="Python file with mend(order) -> order, or None to leave one.", dir_okay=False),
    ] = None,
    again: Annotated[bool, typer.Option("--again", help="Also those that were sent before.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Send nothing, only say what would be sent.")] = False,
    timeout: Timeout = 30,
    as_json: AsJson = False,
) -> None:
    """Mend dead letters and send them to the orders stream again, under their order id.

    What the processor would refuse again is not sent, and named with the reason. A letter is sent once: later replays
    leave it out. Sent twice all the same (--again, a crash), it is a duplicate, which changes nothing.

    Exit codes: 0 all that were meant are sent, 1 some are not, 2 an argument or setting is wrong, 3 a part can't be
    reached, 4 what is there can't be worked with, 130 Ctrl-C.

    For example:

    tillstream dead-letters replay --reason currency --patch '{"currency": "USD"}' --dry-run

    tillstream dead-letters replay orders-1f2e3d4c/0/00000000000000000041 --patch '{"country": "GB"}'

    tillstream dead-letters replay --reason field:quantity --with mend.py
    """
    chosen = _chosen(reason, letters or (), since, until)
    if chosen == Chosen() and not everything:
        _wrong("name letters, or choose some by --reason, --from, --to, or --all")
    try:
        changes = _changes(merge or (), with_)
        with _opened("replay", chosen, timeout) as (settings, found, say):
            outcome = _replay(settings, found, chosen, changes, again=again, dry_run=dry_run, say=say)
            unknown = set(chosen.names) - {letter.name for letter in found.chosen(chosen)}
    except PatchError as error:
        _wrong(str(error))
    if as_json:
        left = [{"letter": name, **asdict(unmended)} for name, unmended in outcome.unmended]
        report = {"sent": outcome.sent, "before": outcome.before, "left": left, "unknown": sorted(unknown)}
        typer.echo(json.dumps({**report, "dry_run": dry_run}, indent=2))
    else:
        _report(outcome, unknown, dry_run=dry_run)
    if outcome.unmended or unknown:
        raise typer.Exit(EXIT_LEFT)


def _replay(
    settings: DeadLetterSettings,
    letters: Letters,
    chosen: Chosen,
    changes: list[Change],
    *,
    again: bool,
    dry_run: bool,
    say: Say,
) -> Outcome:
    meant = letters.chosen(chosen)
    s3 = client("s3", settings, connections=MARK_THREADS)
    with contextlib.ExitStack() as stack:
        writer = None
        if not dry_run:
            wire = stack.enter_context(contextlib.closing(connect(settings, settings)))
            writer = stack.enter_context(wire.open(settings.orders_stream).writer())
        replaying = Replaying(
            settings.rules(),
            changes,
            known=set() if again else {letter.name for letter in meant if letter.replayed},
            writer=writer,
            store=S3Store(s3, settings.s3_bucket, settings.s3_prefix),
            clock=lambda: time.time_ns() // 1_000_000,
        )
        messages = ((name, refused) for name, _, refused in letters.raws(chosen))
        return replaying.run(messages, lambda number: say(f"{number:,} of {len(meant):,} dead letters"))


def _changes(merges: list[str] | tuple[()], with_: Path | None) -> list[Change]:
    changes = [patch(text) for text in merges]
    if with_ is not None:
        try:
            changes.append(function(with_.read_text(encoding="utf-8"), str(with_)))
        except (OSError, UnicodeDecodeError) as error:
            raise PatchError(f"{with_} can't be read: {error}") from error
    return changes


@contextlib.contextmanager
def _opened(command: str, chosen: Chosen, timeout: float) -> Iterator[tuple[DeadLetterSettings, Letters, Say]]:
    settings = load(DeadLetterSettings)
    with (
        reading(f"dead-letters {command}") as say,
        open_letters(settings, chosen, timeout=timeout, say=say) as letters,
    ):
        yield settings, letters, say


def _chosen(reasons: list[str] | None, names: list[str] | tuple[()], since: str | None, until: str | None) -> Chosen:
    return Chosen(tuple(reasons or ()), tuple(names), _moment("--from", since), _moment("--to", until))


def _moment(option: str, text: str | None) -> int | None:
    if text is None:
        return None
    moment = parse_time(f"{text}T00:00:00Z" if len(text) == len("2026-11-20") else text)
    if moment == INVALID_TIME:
        _wrong(f"{option}: {text!r} is no time; allowed: 2026-11-20, 2026-11-20T06:00:00Z")
    return moment


def _wrong(why: str) -> NoReturn:
    typer.echo(f"dead-letters: {why}", err=True)
    raise typer.Exit(EXIT_SETTINGS)


def _show(letter: Letter, key: bytes | None, refused: Refused) -> None:
    table = Table(title=f"dead letter {letter.name}", title_justify="left", show_header=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    table.add_row("broker time", letter.broker_time)
    table.add_row("reason", f"{letter.reason}: {letter.detail}")
    table.add_row("key", "none" if key is None else _text(key))
    table.add_row("replayed", "yes" if letter.replayed else "no")
    kept = "" if len(refused.raw) == refused.raw_bytes else f", of which the first {len(refused.raw):,} were kept"
    table.add_row("message", f"{refused.raw_bytes:,} bytes{kept}")
    console = Console()
    console.print(table, markup=False, highlight=False)
    console.print(_text(refused.raw), markup=False, highlight=False, soft_wrap=True)


def _text(raw: bytes | None) -> str | None:
    return None if raw is None else raw.decode(errors="backslashreplace")


def _report(outcome: Outcome, unknown: set[str], *, dry_run: bool) -> None:
    console = Console(highlight=False, markup=False, soft_wrap=True)
    for name, unmended in outcome.unmended[:SHOWN]:
        console.print(f"{name}: {unmended.reason}: {unmended.detail}")
    if len(outcome.unmended) > SHOWN:
        console.print(f"and {len(outcome.unmended) - SHOWN:,} more")
    for name in sorted(unknown):
        console.print(f"{name} is unknown")
    console.print(
        f"{outcome.sent:,} {'would be sent' if dry_run else 'sent'}, {outcome.before:,} were sent before, "
        f"{len(outcome.unmended):,} left"
    )
