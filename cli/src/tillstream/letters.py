"""Every dead letter there is: archived in S3, or still only in its stream; each once, however often it was sent."""

import contextlib
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from sales.streams.packed import pack
from sink.messages import dead_letters_layout
from tillstream.database import Database
from tillstream.mending import Refused
from tillstream.reading import Say
from tillstream.stored import Store
from tillstream.tail import TailSettings, unstored

REPLAYED = "_replayed/"
"""Where it is kept which dead letters were sent again: an object for each, named by the letter."""

AT_ONCE = 200
"""Messages taken out of the files at one time: of 512,000 bytes at most, usually of some hundred."""


@dataclass(frozen=True, slots=True)
class Letter:
    """One dead letter without its bytes; ``name`` is its identity, ``<stream id>/<partition>/<position>``."""

    name: str
    broker_time: str
    reason: str
    detail: str
    raw_bytes: int
    replayed: bool
    """was it sent again?"""


@dataclass(frozen=True, slots=True)
class Chosen:
    """Which letters are meant; what is empty chooses all."""

    reasons: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    since: int | None = None
    """broker time from which on, ms since 1970"""
    until: int | None = None
    """broker time before which"""

    def parameters(self) -> dict[str, Any]:
        """As the SQL has them."""
        return {
            "reasons": list(self.reasons),
            "names": list(self.names),
            "since": self.since,
            "until": self.until,
        }

    def holds(self, folder: str) -> bool:
        """May a day's folder (``dead-letters/dt=2026-11-20/``) hold some?"""
        day = folder.rstrip("/").rpartition("=")[2]
        return (self.since is None or day >= _day(self.since)) and (self.until is None or day <= _day(self.until))


@dataclass(slots=True)
class Letters:
    """The dead letters, open; every call blocks while DuckDB reads, and raises what `Database` raises."""

    database: Database
    files: list[str]
    searched: list[str] = field(default_factory=list)
    """where was looked, in words"""

    def chosen(self, chosen: Chosen) -> list[Letter]:
        """Those that are meant, by broker time and place."""
        return [Letter(*row) for row in self.database.run("letters_chosen", chosen.parameters())]

    def raws(self, chosen: Chosen) -> Iterator[tuple[str, bytes | None, Refused]]:
        """Name, key and message of each that is meant; some hundred in memory at one time."""
        if not self.files:
            return
        parameters = {"files": self.files, **chosen.parameters()}
        for name, key, raw, raw_bytes, reason in self.database.each("letters_raw", parameters, AT_ONCE):
            yield name, key, Refused(raw, raw_bytes, reason)


@contextlib.contextmanager
def open_letters(settings: TailSettings, chosen: Chosen, *, timeout: float, say: Say) -> Iterator[Letters]:
    """Fetches the letters of the days that are meant; they are gone at the end of the block.

    Args:
        settings: where they are.
        chosen: which.
        timeout: seconds to read what is in the stream and not stored yet.
        say: hears what goes on.

    Raises:
        StreamError, botocore.exceptions.BotoCoreError, ClientError: the stream or S3 can't be reached.
        StoredError: a marker in S3 contradicts itself.
        duckdb.Error, OSError: an object can't be read, or this machine lacks disk or memory.
        Interrupted: a signal came, inside `interrupts.raised`.
    """
    archive = Store.open(settings)
    with tempfile.TemporaryDirectory(prefix="tillstream-letters-") as name, Database.open(Path(name)) as database:
        folder = Path(name)
        searched: list[str] = []
        # The stream's end first: what is archived meanwhile is then found twice, not never.
        files = list(_tail(settings, folder, timeout, say, searched))
        days = [day for day in archive.day_folders("dead-letters") if chosen.holds(day)]
        keys = [key for day in days for key, _ in archive.listing(day) if archive.place(key) is not None]
        progress = "reading dead letters: {} of {} objects".format
        files += archive.download(keys, folder, lambda done, of: say(progress(done, of))).values()
        searched.append(f"the archived dead letters of {len(days)} days")
        paths = [str(path) for path in files]
        database.run("letters_tables")
        if paths:
            database.run("letters_load", {"files": paths})
        database.fill("replayed", [(name,) for name in replayed(archive)])
        yield Letters(database, paths, searched)


def _tail(settings: TailSettings, folder: Path, timeout: float, say: Say, searched: list[str]) -> Iterator[Path]:
    """What is in the stream and not stored yet, as files that look like the stored ones."""
    chunks = unstored(settings, settings.dead_letters_stream, timeout, say, searched)
    for number, (stream, chunk) in enumerate(chunks):
        layout = dead_letters_layout(stream.id, stream.position_digits)
        path = folder / f"tail-{number}.parquet"
        pq.write_table(layout.hold(pack(chunk)).content.cast(layout.schema), path)
        yield path


def replayed(archive: Store) -> Iterator[str]:
    """The names of the letters that were sent again."""
    return (key.removeprefix(REPLAYED) for key, _ in archive.listing(REPLAYED))


def counted(letters: list[Letter], by: str) -> Mapping[str, int]:
    """How many there are of each reason, or of each day of broker time."""
    counts: dict[str, int] = {}
    for letter in letters:
        name = letter.reason if by == "reason" else letter.broker_time[:10]
        counts[name] = counts.get(name, 0) + 1
    return dict(sorted(counts.items()))


def _day(ms: int) -> str:
    return f"{datetime.fromtimestamp(ms / 1000, UTC):%Y-%m-%d}"
