"""How a partition's records are cut into extents and each is written exactly once: names and states. Pure.

An *extent* ``(after, end]`` holds a partition's records behind ``after``, up to and with ``end``. An extent begins
where the one before ended, so the extents of a partition are a chain from its *origin* (``after`` is None)::

    origin ──(origin, 41]──▶ 41 ──(41, 97]──▶ 97 ──(97, …   each arrow: one pin, its objects, one done mark

A clock may choose where an extent ends, but only once: the choice is *pinned* by a small object that nobody can
overwrite, before the first byte of data is written. Whoever finds a pin adopts its end, reads exactly
``(after, end]`` and writes the same objects under the same names; who loses a race finds his own rows there. When all
are written, the *done mark* says so, and only then may the position be committed::

    pin ──▶ data ──▶ … ──▶ data ──▶ done ──▶ head ──▶ commit

A writer that dies at any arrow leaves nothing that its successor does not finish; a writer that wakes up after its
partition went to another writes what is already there, or is refused. ``head`` only remembers where the chain ended
not long ago: it may be old or missing, never wrong.
"""

from typing import Self, TypeVar

import msgspec

from sales.streams import format_position

ORIGIN = "origin"
"""Stands for the missing position before a partition's first record."""


class Pin(msgspec.Struct, frozen=True, kw_only=True):
    """Where an extent ends, decided once; ``_extents/<stream>/<partition>/<after>.json``."""

    stream: str
    partition: str
    after: str | None
    end: str
    read: int
    """messages inside, as the writer of the pin counted them: whoever reads fewer has lost some to retention"""
    encoder: str
    """what wrote, or was going to write, the objects; for people"""
    schema: int
    """version of the objects' columns"""


class StoredObject(msgspec.Struct, frozen=True, kw_only=True):
    """One data object of an extent."""

    key: str
    """without the bucket and S3_PREFIX"""
    rows: int
    orders: int
    """messages inside; in the orders table an order has one row a line"""
    bytes: int
    checksum: str = ""
    """of its bytes: XXH3 with 128 bits, in hex. Empty: the mark was written before marks held it"""


class Done(msgspec.Struct, frozen=True, kw_only=True):
    """An extent is stored whole; ``_extents/<stream>/<partition>/<after>.done``. read = stored + rejected."""

    stream: str
    partition: str
    after: str | None
    end: str
    read: int
    stored: int
    rejected: int
    rejected_at: list[str] | None = None
    """the positions of the rejected messages, ascending: each has to be among the dead letters. None: the mark was
    written before marks held them"""
    objects: list[StoredObject]

    def same_rows(self, other: Self) -> bool:
        """Do both speak of the same rows, in the same objects?"""

        def rows(done: Done) -> tuple[object, ...]:
            objects = sorted((o.key, o.rows, o.orders) for o in done.objects)
            return (done.after, done.end, done.read, done.stored, done.rejected, objects)

        mine, others = ({o.key: o.checksum for o in done.objects if o.checksum} for done in (self, other))
        untold = self.rejected_at is None or other.rejected_at is None
        return (
            rows(self) == rows(other)
            and all(others.get(key, checksum) == checksum for key, checksum in mine.items())
            and (untold or self.rejected_at == other.rejected_at)
        )


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """Some recent end of the chain; ``_extents/<stream>/<partition>/head``."""

    end: str


class Chain:
    """The names of one partition's extents, and its positions as they are written there."""

    def __init__(self, stream: str, partition: str, digits: int) -> None:
        self.stream = stream
        self.partition = partition
        self._digits = digits
        self._folder = f"_extents/{stream}/{partition}/"

    @property
    def head_key(self) -> str:
        """Where ``Head`` is."""
        return f"{self._folder}head"

    def pin_key(self, after: int | None) -> str:
        """Where the pin of the extent behind ``after`` is."""
        return f"{self._folder}{self._name(after)}.json"

    def done_key(self, after: int | None) -> str:
        """Where the done mark of the extent behind ``after`` is."""
        return f"{self._folder}{self._name(after)}.done"

    def text(self, position: int | None) -> str | None:
        """A position as pins and done marks hold it."""
        return None if position is None else format_position(position, self._digits)

    def _name(self, after: int | None) -> str:
        return self.text(after) or ORIGIN


def encode(state: Pin | Done | Head) -> bytes:
    """The bytes of the object."""
    return msgspec.json.encode(state)


_S = TypeVar("_S", Pin, Done, Head)


def decode(body: bytes, kind: type[_S]) -> _S:
    """An object's bytes.

    Raises:
        msgspec.MsgspecError: they are none of this kind.
    """
    return msgspec.json.decode(body, type=kind)
