"""The read side of what the sink stored in S3: which positions are covered, and by which objects.

The sink cuts each partition into *extents* ``(after, end]`` and writes a ``.done`` marker when the last object of one
is there. Only what an unbroken chain of markers from the origin covers is known to be whole; readers that need
certainty read exactly the objects that these markers name. A marker's shape is the sink's own; that markers lead from
one to the next, and what they name, is looked at here anew.
"""

import hashlib
import re
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import takewhile
from pathlib import Path
from typing import Any

import msgspec
from botocore.exceptions import ClientError

from sales.settings import StoreSettings
from sink.aws import client
from sink.extents import ORIGIN, Done, decode

PARALLEL_REQUESTS = 16
"""S3 requests under way at once: answers take tens of milliseconds, nearly all of it waiting."""

POLL_SECONDS = 0.5
"""Between two looks for new ``.done`` markers, which the sink sets every few seconds at most."""

Progress = Callable[[int, int], None]
"""Told how many of how many are done."""


class StoredError(Exception):
    """What is stored breaks its own contract; the message says which key and how."""


class NotCoveredError(Exception):
    """What is asked for is not stored, or not yet; the message says what is missing."""


class NotYetError(NotCoveredError):
    """A tick is not stored in whole yet: it can't be compared now, and may be later."""


@dataclass(slots=True)
class Extents:
    """One partition's extents that are marked done, in order and without a gap, as far as they are known."""

    stream: str
    partition: str
    done: list[Done] = field(default_factory=list)

    @classmethod
    def of(cls, path: str) -> "Extents":
        """None yet, of ``<stream id>/<partition>``."""
        stream, _, partition = path.rpartition("/")
        return cls(stream, partition)

    @property
    def path(self) -> str:
        """``<stream id>/<partition>``, as the board's positions have it."""
        return f"{self.stream}/{self.partition}"

    @property
    def end(self) -> str | None:
        """Everything up to this position is stored; None: nothing yet."""
        return self.done[-1].end if self.done else None

    def covers(self, position: str) -> bool:
        """Is everything up to this position (fixed width) stored?"""
        return self.end is not None and self.end >= position


@dataclass(frozen=True, slots=True)
class Placed:
    """Where an object lies, read from its key."""

    table: str
    """orders, rollups, dead-letters"""
    date: str
    hour: int | None
    stream: str
    partition: str
    first: str
    """fixed-width position of the first event inside"""


_KEY = re.compile(
    r"(?P<table>[a-z-]+)/dt=(?P<date>\d{4}-\d\d-\d\d)/(?:hour=(?P<hour>\d\d)/)?"
    r"(?P<stream>[^/+]+)\+(?P<partition>[^/+]+)\+(?P<first>\d+)\.parquet"
)


class ObjectCache:
    """Objects kept on this machine from one look to the next: they never change. One thread at a time, but for `path`.

    Args:
        folder: of its own, empty.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._used: set[Path] = set()

    def path(self, key: str) -> Path:
        """Where an object is kept, or is to be; it stays for the next `sweep`."""
        path = self._folder / hashlib.sha256(key.encode()).hexdigest()
        self._used.add(path)
        return path

    def sweep(self) -> None:
        """Drops what nobody asked for since the last time."""
        for path in set(self._folder.iterdir()) - self._used:
            path.unlink()
        self._used.clear()


class Store:
    """Reads the bucket. Keys are without S3_PREFIX throughout, as the markers have them.

    Every method may block for as long as S3 takes, retries included. All raise ``botocore.exceptions.BotoCoreError`` or
    ``ClientError`` when S3 stays away or refuses.
    """

    def __init__(self, client: Any, bucket: str, prefix: str, cache: ObjectCache | None = None) -> None:
        self._client = client
        self._bucket = bucket
        self._prefix = prefix
        self._cache = cache

    @classmethod
    def open(cls, settings: StoreSettings, cache: ObjectCache | None = None) -> "Store":
        """The store that the settings name; calls nothing yet.

        Args:
            settings: which.
            cache: keeps what is downloaded.
        """
        s3 = client("s3", settings, connections=PARALLEL_REQUESTS)
        return cls(s3, settings.s3_bucket, settings.s3_prefix, cache)

    def extend(self, extents: Extents, *, since: datetime | None = None) -> None:
        """Adds what has been marked done since the last call.

        Args:
            extents: are changed.
            since: leave out markers older than this, but for the newest of them (they then start there). For
                those who know that older extents hold nothing they need.

        Raises:
            StoredError: a marker contradicts its own name.
        """
        folder = f"_extents/{extents.path}/"
        done_at: dict[str, datetime | None] = {}
        """of each pinned extent; None: not done yet"""
        for listed, modified in self.listing(folder, after="" if extents.end is None else f"{folder}{extents.end}"):
            name, _, kind = listed.removeprefix(folder).rpartition(".")
            if kind == "done":
                done_at[name] = modified
            elif kind == "json":
                done_at.setdefault(name, None)
        if extents.end is not None:
            done_at.pop(ORIGIN, None)  # sorts behind every number, and is long known
        # An extent that is pinned and not done is the end; so is a first one that nothing leads to.
        names = list(takewhile(done_at.get, sorted(done_at, key=lambda name: (name != ORIGIN, name))))
        if names[:1] != [extents.end or ORIGIN]:
            return
        if since is not None and extents.end is None:
            old = sum(1 for name in names if (done_at[name] or since) < since)
            names = names[max(old - 1, 0) :]
        keys = [f"{folder}{name}.done" for name in names]
        with ThreadPoolExecutor(PARALLEL_REQUESTS) as pool:
            for name, key, raw in zip(names, keys, pool.map(self.get, keys), strict=True):
                if extents.end not in (None, name):
                    return
                extents.done.append(_marker(key, name, raw, extents))

    def get(self, key: str) -> bytes:
        """One object, whole."""
        body: bytes = self._client.get_object(Bucket=self._bucket, Key=self._prefix + key)["Body"].read()
        return body

    def listing(self, start: str, *, after: str = "") -> Iterator[tuple[str, datetime]]:
        """Every key that begins with ``start`` and when it was last written, in key order, from behind ``after`` on."""
        pages = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=self._bucket, Prefix=self._prefix + start, StartAfter=self._prefix + (after or start)
        )
        for page in pages:
            for item in page.get("Contents", ()):
                yield item["Key"].removeprefix(self._prefix), item["LastModified"]

    def day_folders(self, table: str) -> list[str]:
        """The folders of a table's days: ``orders/dt=2026-11-20/``, oldest first."""
        pages = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=self._bucket, Prefix=f"{self._prefix}{table}/", Delimiter="/"
        )
        return [
            folder["Prefix"].removeprefix(self._prefix) for page in pages for folder in page.get("CommonPrefixes", ())
        ]

    def chains(self, stream: str) -> list[str]:
        """The partitions of a stream (its id) that have extents."""
        start = f"{self._prefix}_extents/{stream}/"
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=start, Delimiter="/")
        found = [folder["Prefix"] for page in pages for folder in page.get("CommonPrefixes", ())]
        return [folder.removeprefix(start).removesuffix("/") for folder in found]

    def partitions(self, table: str) -> list[str]:
        """``<stream id>/<partition>`` of all objects of a table."""
        places = (self.place(key) for key, _ in self.listing(f"{table}/"))
        return sorted({f"{place.stream}/{place.partition}" for place in places if place is not None})

    @staticmethod
    def place(key: str) -> Placed | None:
        """What a key says; None where it is no object of a table."""
        match = _KEY.fullmatch(key)
        if match is None:
            return None
        hour = match["hour"]
        return Placed(
            table=match["table"],
            date=match["date"],
            hour=None if hour is None else int(hour),
            stream=match["stream"],
            partition=match["partition"],
            first=match["first"],
        )

    def download(
        self, keys: Collection[str], directory: Path, progress: Progress = lambda _done, _of: None
    ) -> dict[str, Path]:
        """Fetches objects into ``directory``, as ``<number>.parquet`` in the order given; those that are gone are
        missing in the answer.

        Args:
            keys: which.
            directory: exists.
            progress: called on this thread.
        """
        there: dict[str, Path] = {}

        def fetch(item: tuple[int, str]) -> Path | None:
            number, key = item
            path = directory / f"{number}.parquet"
            kept = None if self._cache is None else self._cache.path(key)
            if kept is not None and kept.exists():
                path.symlink_to(kept)
                return path
            try:
                body = self._client.get_object(Bucket=self._bucket, Key=self._prefix + key)["Body"]
            except ClientError as error:
                if error.response["Error"]["Code"] in ("NoSuchKey", "404"):
                    return None
                raise
            with path.open("wb") as file:
                for piece in body.iter_chunks(1 << 20):
                    file.write(piece)
            if kept is not None:
                path.replace(kept)
                path.symlink_to(kept)
            return path

        with ThreadPoolExecutor(PARALLEL_REQUESTS) as pool:
            for count, (key, path) in enumerate(zip(keys, pool.map(fetch, enumerate(keys)), strict=True), start=1):
                if path is not None:
                    there[key] = path
                progress(count, len(keys))
        return there


def wait_until_covered(
    archive: Store,
    positions: Mapping[str, str],
    *,
    timeout: float,
    since: datetime | None = None,
    say: Callable[[str], None] = lambda _text: None,
) -> list[Extents]:
    """Blocks until the ``.done`` markers cover every position.

    Args:
        archive: where the markers are.
        positions: ``<stream id>/<partition>`` to the fixed-width text of a position.
        timeout: seconds.
        since: as `Store.extend` has it.
        say: hears how many are still open.

    Raises:
        NotYetError: not in time; the message names the first partition that is behind.
        StoredError: a marker contradicts itself.
    """
    deadline = time.monotonic() + timeout
    partitions = [Extents.of(path) for path in sorted(positions)]
    while True:
        behind = [extents for extents in partitions if not extents.covers(positions[extents.path])]
        for extents in behind:
            archive.extend(extents, since=since)
        behind = [extents for extents in behind if not extents.covers(positions[extents.path])]
        if not behind:
            return partitions
        first = behind[0]
        state = (
            f"{len(behind)} of {len(partitions)} partitions are not stored up to the tick: {first.path} is marked done "
            f"up to {first.end or 'nothing'}, the tick has applied {positions[first.path]}"
        )
        if time.monotonic() >= deadline:
            raise NotYetError(f"{state} (waited {timeout:g} s; is the sink running?)")
        say(f"waiting for the sink: {state}")
        time.sleep(min(POLL_SECONDS, max(0.0, deadline - time.monotonic())))


def hour_folders(start_ms: int, end_ms: int) -> list[str]:
    """The folder of orders of each hour that ``[start, end)`` touches: ``orders/dt=2026-11-20/hour=08/``; both in ms
    since 1970."""
    hours = range(start_ms // 3_600_000, -(-end_ms // 3_600_000))
    return [f"{datetime.fromtimestamp(hour * 3600, UTC):orders/dt=%Y-%m-%d/hour=%H/}" for hour in hours]


def _marker(key: str, name: str, raw: bytes, extents: Extents) -> Done:
    try:
        done = decode(raw, Done)
    except msgspec.MsgspecError as error:
        raise StoredError(f"{key} is no marker: {error}") from error
    after = None if name == ORIGIN else name
    if (done.stream, done.partition, done.after) != (extents.stream, extents.partition, after):
        raise StoredError(f"{key} speaks of {done.stream}/{done.partition} after {done.after}")
    if after is not None and done.end <= after:
        raise StoredError(f"{key} ends at {done.end}, before it begins")
    return done
