"""Append-only files of checked frames, in segments: the one way in which the processor keeps bytes of its own.

A frame is ``length (4 bytes) | CRC-32 (4 bytes) | payload``, little-endian, and never empty. A crash may tear what was
not synced: after one the journal is either cut back to a place that a snapshot remembers (`cut`), or gone over from
the beginning (`recover`).
"""

import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from processor.disk import sync_directory
from processor.lost import WAY_OUT

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
                f"{path} is missing or shorter than the {place.offset} bytes that the snapshot speaks of: {WAY_OUT}"
            )
        for segment in self.segments():
            if segment > place.segment:
                self.drop(segment)
        os.truncate(path, place.offset)
        self._segment = place.segment

    def frames(self, segment: int) -> Iterator[tuple[Place, bytes]]:
        """Each frame of a segment with the place where it begins.

        Raises:
            JournalError: a frame is torn or damaged.
        """
        self._flush()
        with self._path(segment).open("rb") as file:
            offset = 0
            while (payload := self._read_frame(file, segment, offset)) is not None:
                yield Place(segment, offset), payload
                offset += _HEAD.size + len(payload)

    def survey(self) -> Iterator[tuple[Place, bytes]]:
        """As `frames`, of all segments, for a look at what an earlier run has left: the last frame may be torn.

        Raises:
            JournalError: a frame with others behind it is damaged.
        """
        for segment in self.segments():
            path = self._path(segment)
            last = path.stat().st_size if segment == self._segment else -1
            with path.open("rb") as file:
                offset = 0
                while True:
                    try:
                        payload = self._read_frame(file, segment, offset)
                    except JournalError:
                        if file.tell() == last:
                            return
                        raise
                    if payload is None:
                        break
                    yield Place(segment, offset), payload
                    offset = file.tell()

    def read(self, place: Place) -> bytes:
        """The frame that begins at ``place``.

        Raises:
            JournalError: there is none, or it is damaged.
        """
        self._flush()
        with self._path(place.segment).open("rb") as file:
            file.seek(place.offset)
            payload = self._read_frame(file, place.segment, place.offset)
        if payload is None:
            raise JournalError(f"{self._path(place.segment)}: no frame at {place.offset}")
        return payload

    def peek(self, place: Place, start: int, length: int) -> bytes:
        """Some bytes of a frame's payload, unchecked: what the caller finds there it must be able to judge."""
        self._flush()
        with self._path(place.segment).open("rb") as file:
            file.seek(place.offset + _HEAD.size + start)
            return file.read(length)

    def recover(self, upto: Place | None, head_bytes: int) -> Iterator[tuple[Place, int, bytes]]:
        """Goes over all frames after a crash, and cuts off what lies behind the last whole one.

        Up to ``upto`` everything was durable once: a frame that is damaged there is an error. What follows may be torn.
        Only the first bytes of a payload are read where it is certain that the frame was written whole, and its sum is
        not looked at: what the caller reads there it must be able to judge.

        Args:
            upto: where `end` was when the journal was last known to be synced; None: never.
            head_bytes: how many bytes of each payload are wanted.

        Yields:
            Where a frame begins, its payload's length, and the payload's first bytes.

        Raises:
            JournalError: the journal does not reach ``upto``, or is damaged before it.
        """
        self.close()
        certain = upto or Place(0, 0)
        for segment in self.segments():
            path = self._path(segment)
            with path.open("rb") as file:
                size, offset = path.stat().st_size, 0
                while offset < size:
                    place = Place(segment, offset)
                    head = file.read(_HEAD.size)
                    length, checksum = _HEAD.unpack(head) if len(head) == _HEAD.size else (0, 0)
                    behind = Place(segment, offset + _HEAD.size + length)
                    if behind <= certain and length:
                        first = file.read(head_bytes)
                        file.seek(behind.offset)
                    else:
                        payload = file.read(length)
                        if not length or len(payload) < length or zlib.crc32(payload) != checksum:
                            break
                        first = payload[:head_bytes]
                    yield place, length, first
                    offset = behind.offset
            if offset < size:
                if Place(segment, offset) < certain or segment != self.segments()[-1]:
                    raise self.damaged(Place(segment, offset))
                os.truncate(path, offset)
        last = self._last_place()
        if last < certain:
            raise JournalError(
                f"{self._directory} ends at byte {last.offset} of segment {last.segment}, the snapshot speaks of byte "
                f"{certain.offset} of segment {certain.segment}: {WAY_OUT}"
            )

    def damaged(self, place: Place) -> JournalError:
        """To be raised when what is there is not what was written."""
        return JournalError(f"{self._path(place.segment)} is damaged at byte {place.offset}: {WAY_OUT}")

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
            self._file = os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), "wb")
            self._file.seek(0, os.SEEK_END)
            sync_directory(self._directory)
        return self._file

    def _last_place(self) -> Place:
        path = self._path(self._segment)
        return Place(self._segment, path.stat().st_size if path.exists() else 0)

    def _path(self, segment: int) -> Path:
        return self._directory / f"{segment:08d}{_SUFFIX}"

    def _read_frame(self, file: BinaryIO, segment: int, offset: int) -> bytes | None:
        """The frame at the file's place; None at its end."""
        head = file.read(_HEAD.size)
        if not head:
            return None
        length, checksum = _HEAD.unpack(head) if len(head) == _HEAD.size else (0, 0)
        payload = file.read(length)
        if not length or len(payload) < length or zlib.crc32(payload) != checksum:
            raise self.damaged(Place(segment, offset))
        return payload
