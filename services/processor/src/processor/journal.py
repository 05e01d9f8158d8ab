"""Append-only files of checked frames, in segments: the one way in which the processor keeps bytes of its own.

A frame is ``length (4 bytes) | CRC-32 (4 bytes) | payload``, little-endian. A crash may tear the last frame; whatever
follows the last whole frame is cut off when the journal is opened for writing.
"""

import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

_HEAD = struct.Struct("<II")
_SUFFIX = ".journal"


class Place(NamedTuple):
    """A point between two frames."""

    segment: int
    offset: int


class JournalError(Exception):
    """The files do not hold what they must; the message names the file."""


class Journal:
    """Segments ``00000001.journal``, … in one directory. One process and thread at a time (the caller holds a lock).

    Raises:
        OSError: from every call, when the disk is full or broken.
    """

    def __init__(self, directory: Path) -> None:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._directory = directory
        self._file: BinaryIO | None = None
        segments = self.segments()
        self._segment = segments[-1] if segments else 1
        self._dirty = False

    def segments(self) -> list[int]:
        """Numbers of the segments there are, ascending."""
        return sorted(int(path.stem) for path in self._directory.glob(f"*{_SUFFIX}"))

    def append(self, payload: bytes) -> Place:
        """Adds a frame to the last segment; durable after `sync`. Returns the place where the frame begins."""
        file = self._open()
        place = Place(self._segment, file.tell())
        file.write(_HEAD.pack(len(payload), zlib.crc32(payload)))
        file.write(payload)
        self._dirty = True
        return place

    def sync(self) -> None:
        """Blocks until everything appended is on the disk; returns at once when nothing is new."""
        if self._file is not None and self._dirty:
            self._file.flush()
            os.fdatasync(self._file.fileno())
            self._dirty = False

    def end(self) -> Place:
        """The place behind the last frame."""
        return Place(self._segment, self._open().tell())

    def roll(self) -> int:
        """Begins a new segment; returns its number."""
        self.close()
        self._segment = (self.segments() or [0])[-1] + 1
        self._open()
        return self._segment

    def drop(self, segment: int) -> None:
        """Removes a segment that is not the last one."""
        self._path(segment).unlink(missing_ok=True)

    def cut(self, place: Place) -> None:
        """Forgets everything behind ``place``, later segments too.

        Raises:
            JournalError: the journal doesn't reach that far.
        """
        self.close()
        path = self._path(place.segment)
        if not path.exists() or path.stat().st_size < place.offset:
            raise JournalError(
                f"{path} is missing or shorter than the {place.offset} bytes that the snapshot speaks of"
            )
        for segment in self.segments():
            if segment > place.segment:
                self.drop(segment)
        os.truncate(path, place.offset)
        self._segment = place.segment

    def frames(self, segment: int) -> Iterator[tuple[Place, bytes]]:
        """Each whole frame of a segment with the place where it begins; ends before a torn one."""
        self._flush()
        with self._path(segment).open("rb") as file:
            while (frame := _read_frame(file)) is not None:
                offset, payload = frame
                yield Place(segment, offset), payload

    def read(self, place: Place) -> bytes:
        """The frame that begins at ``place``.

        Raises:
            JournalError: there is no whole frame.
        """
        self._flush()
        path = self._path(place.segment)
        with path.open("rb") as file:
            file.seek(place.offset)
            frame = _read_frame(file)
        if frame is None:
            raise JournalError(f"{path}: no whole frame at {place.offset}")
        return frame[1]

    def close(self) -> None:
        """Syncs and closes; appending opens it again."""
        if self._file is not None:
            self.sync()
            self._file.close()
            self._file = None

    def _flush(self) -> None:
        if self._file is not None:
            self._file.flush()

    def _open(self) -> BinaryIO:
        if self._file is None:
            path = self._path(self._segment)
            whole = 0
            if path.exists():
                for place, payload in self.frames(self._segment):
                    whole = place.offset + _HEAD.size + len(payload)
                os.truncate(path, whole)
            self._file = os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), "wb")
            self._file.seek(whole)
            _sync_directory(self._directory)
        return self._file

    def _path(self, segment: int) -> Path:
        return self._directory / f"{segment:08d}{_SUFFIX}"


def _read_frame(file: BinaryIO) -> tuple[int, bytes] | None:
    offset = file.tell()
    head = file.read(_HEAD.size)
    if len(head) < _HEAD.size:
        return None
    length, checksum = _HEAD.unpack(head)
    payload = file.read(length)
    return (offset, payload) if len(payload) == length and zlib.crc32(payload) == checksum else None


def _sync_directory(directory: Path) -> None:
    """Makes a new file's name durable, as POSIX asks (fsync of the file alone does not)."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
