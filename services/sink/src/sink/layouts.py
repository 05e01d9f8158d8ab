"""The stored tables: how messages become the rows of objects, and which objects. Pure."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import pyarrow as pa

from sales.streams.packed import Packed

T = TypeVar("T")


@dataclass(frozen=True, slots=True, eq=False)
class Piece(Generic[T]):
    """What is held of one run of messages."""

    content: T
    rejected: list[int]
    """positions of the messages that are no row of the table: malformed"""
    held: int
    """bytes in memory"""


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """The rows of one object."""

    folder: str
    """with its slash at the end"""
    first_position: str
    orders: int
    """how many messages the rows come from"""
    rows: int
    groups: Iterable[pa.Table]
    """the object's row groups, each made when it is asked for"""


class Layout(Protocol[T]):
    """One stored table. ``hold`` is called by one thread, ``objects`` by several."""

    @property
    def folder(self) -> str:
        """Where its objects are: ``orders``."""
        ...

    @property
    def version(self) -> int:
        """Raised when the columns, or how they are computed, change."""
        ...

    @property
    def schema(self) -> pa.Schema:
        """The objects' columns, in their order."""
        ...

    @property
    def repeating(self) -> Sequence[str]:
        """Columns whose values repeat: these are dictionary-encoded in the object."""
        ...

    @property
    def ranged(self) -> Sequence[str]:
        """Columns whose least and greatest value are told for each row group, so that engines skip some."""
        ...

    def hold(self, run: Packed) -> Piece[T]:
        """Decodes a run, and copies what it keeps of it."""
        ...

    def objects(self, partition: str, pieces: Sequence[T]) -> Iterator[Rows]:
        """The objects of one partition's pieces, those of the oldest folder first, rows in the order of the stream. The
        same messages make the same rows in the same groups, however they were cut into pieces."""
        ...
