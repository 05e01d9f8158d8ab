"""S3 objects as files that DuckDB reads in pieces: what a query does not need is never fetched.

DuckDB's own S3 reader is downloaded when first used, from a place that a closed network does not reach
(docs/decisions/0013). This one is boto3, with the credentials, the address and the bounded waits of everything else.
"""

import io
from collections import Counter
from collections.abc import Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError
from fsspec import AbstractFileSystem

from sales.settings import StoreSettings
from sink.aws import client

PARALLEL_REQUESTS = 16
"""S3 requests under way at once: answers take tens of milliseconds, nearly all of it waiting."""

TAIL_BYTES = 65_536
"""A Parquet file is read from its end: DuckDB asks for 8 bytes, then for the footer that they measure, mostly some
kilobytes. One request brings both."""


@dataclass(frozen=True, slots=True)
class StoredFile:
    """An object as it was listed; objects of the tables never change."""

    size: int
    modified: datetime


class Objects(AbstractFileSystem):  # type: ignore[misc]  # fsspec is shipped without type information
    """The listed objects below S3_PREFIX, as ``stored://orders/dt=…``, to read only.

    DuckDB calls ``open``, ``glob``, ``size`` and ``modified``, from threads of its own. Reading blocks as long as S3
    takes, retries included.
    """

    protocol = "stored"
    cachable = False  # fsspec would hand out one instance for equal arguments

    def __init__(self, s3: Any, bucket: str, prefix: str) -> None:
        super().__init__()
        self._s3 = s3
        self._bucket = bucket
        self._prefix = prefix
        self._folders: dict[str, dict[str, StoredFile]] = {}
        """by folder with its slash: the objects in it, by their keys"""
        self.fault: BotoCoreError | ClientError | None = None
        """why S3 could not be read; DuckDB makes a text of what is raised in it"""

    @classmethod
    def at(cls, settings: StoreSettings) -> "Objects":
        """Those of the bucket that the settings name; calls nothing yet."""
        return cls(client("s3", settings, connections=PARALLEL_REQUESTS), settings.s3_bucket, settings.s3_prefix)

    def days(self, table: str) -> list[str]:
        """The days that a table has folders for, oldest first: ``2026-11-20``.

        Raises:
            botocore.exceptions.BotoCoreError, ClientError: S3 stays away or refuses.
        """
        start = f"{self._prefix}{table}/dt="
        pages = self._s3.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=start, Delimiter="/")
        return [
            str(folder["Prefix"]).removeprefix(start).removesuffix("/")
            for page in pages
            for folder in page.get("CommonPrefixes", ())
        ]

    def discover(self, table: str, days: Iterable[str]) -> None:
        """Makes the objects of these days known; only what is known can be read.

        Raises:
            botocore.exceptions.BotoCoreError, ClientError: S3 stays away or refuses.
        """
        self._discover([f"{table}/dt={day}/" for day in days])

    def discover_hours(self, table: str, hours: Iterable[tuple[str, int]]) -> None:
        """The same for hours of days, by one request for each day.

        Raises:
            botocore.exceptions.BotoCoreError, ClientError: S3 stays away or refuses.
        """
        wanted = {f"{table}/dt={day}/hour={hour:02d}/": f"{table}/dt={day}/" for day, hour in hours}
        many = Counter(wanted.values())
        self._discover({day if many[day] > 1 else folder for folder, day in wanted.items()})
        for folder in self.folders(table):
            if folder not in wanted:
                del self._folders[folder]

    def _discover(self, folders: Collection[str]) -> None:
        with ThreadPoolExecutor(PARALLEL_REQUESTS) as pool:
            for found in pool.map(self._listed, folders):
                for key, file in found:
                    self._folders.setdefault(key[: key.rindex("/") + 1], {})[key] = file

    def folders(self, table: str) -> list[str]:
        """The listed folders of a table that hold objects, oldest first: ``orders/dt=2026-11-20/hour=08/``."""
        return sorted(folder for folder in self._folders if folder.startswith(f"{table}/"))

    def batches(self, table: str, most_bytes: int) -> list[list[str]]:
        """The folders of a table, oldest first, as many together as have up to so many bytes; one at least."""
        batches: list[list[str]] = []
        room = 0
        for folder in self.folders(table):
            size = sum(file.size for file in self._folders[folder].values())
            if not batches or size > room:
                batches.append([])
                room = most_bytes
            batches[-1].append(folder)
            room -= size
        return batches

    def glob(self, path: str, **_: Any) -> list[str]:
        """All objects in or below a folder: ``stored://orders/*``, ``stored://orders/dt=2026-11-20/hour=08/*``."""
        start = self._key(path).removesuffix("*")
        found = sorted(folder for folder in self._folders if folder.startswith(start))
        return [key for folder in found for key in sorted(self._folders[folder])]

    def open(self, path: str, mode: str = "rb", **_: Any) -> "ObjectFile":
        """An object to read; asks nothing yet."""
        if mode != "rb":
            raise PermissionError(f"{path} can only be read")
        key = self._key(path)
        return ObjectFile(self, key, self._file(key).size)

    def size(self, path: str) -> int:
        """In bytes."""
        return self._file(self._key(path)).size

    def modified(self, path: str) -> datetime:
        """When it was written."""
        return self._file(self._key(path)).modified

    def read(self, key: str, start: int, end: int) -> bytes:
        """The bytes ``[start, end)`` of an object.

        Raises:
            botocore.exceptions.BotoCoreError, ClientError: S3 stays away or refuses; kept in ``fault`` too.
        """
        try:
            answer = self._s3.get_object(Bucket=self._bucket, Key=self._prefix + key, Range=f"bytes={start}-{end - 1}")
            data: bytes = answer["Body"].read()
        except (BotoCoreError, ClientError) as error:
            self.fault = error
            raise
        return data

    def _listed(self, folder: str) -> list[tuple[str, StoredFile]]:
        pages = self._s3.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=self._prefix + folder)
        return [
            (str(item["Key"]).removeprefix(self._prefix), StoredFile(item["Size"], item["LastModified"]))
            for page in pages
            for item in page.get("Contents", ())
            if item["Key"].endswith(".parquet")
        ]

    def _file(self, key: str) -> StoredFile:
        return self._folders[key[: key.rindex("/") + 1]][key]

    def _key(self, path: str) -> str:
        return path.removeprefix(f"{self.protocol}://")


class ObjectFile:
    """An object that is read here and there, by one thread at a time."""

    def __init__(self, objects: Objects, key: str, size: int) -> None:
        self._objects = objects
        self._key = key
        self._size = size
        self._at = 0
        self._held_from = 0
        self._held = b""

    closed = False

    def hold(self, start: int, end: int) -> None:
        """Fetches the bytes ``[start, end)`` now, instead of what was held: to read in them asks nothing more."""
        self._held_from, self._held = start, self._objects.read(self._key, start, end)

    def seek(self, position: int, whence: int = io.SEEK_SET) -> int:
        """Goes there; with SEEK_END, counted from the end."""
        self._at = position + (self._size if whence == io.SEEK_END else 0)
        return self._at

    def tell(self) -> int:
        """Where it is."""
        return self._at

    def read(self, length: int) -> bytes:
        """The next bytes; fewer at the end."""
        start, end = self._at, min(self._at + length, self._size)
        if start >= end:
            return b""
        self._at = end
        if start < self._held_from or end > self._held_from + len(self._held):
            tail = max(0, self._size - TAIL_BYTES)
            if start < tail:
                return self._objects.read(self._key, start, end)
            self.hold(tail, self._size)
        return self._held[start - self._held_from : end - self._held_from]

    def close(self) -> None:
        """Nothing is held open."""
