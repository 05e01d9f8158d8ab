"""Texts as small numbers: product ids, product names and categories while they are on their way to the sums. Pure.

Codes mean something inside one dictionary of one process; they never go into state or to Redis.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
from siphash24 import siphash13

DEFAULT_NAME, DEFAULT_CATEGORY = "", "Uncategorised"
"""What a line without these fields has; both get the code 0."""

Key = tuple[int, int]
"""The 128-bit key of a hash, as two numbers."""


class Names(Protocol):
    """Texts by number; a `Dictionary` is one."""

    def text(self, code: int) -> str:
        """The text of a number."""
        ...


class Dictionary(Protocol):
    """Distinct texts, numbered from 0 as they came."""

    def __len__(self) -> int: ...

    def size(self) -> int:
        """Bytes of all texts."""
        ...

    def code(self, text: str) -> int:
        """The text's number, a new one if need be."""
        ...

    def text(self, code: int) -> str:
        """The text of a number."""
        ...

    def hashes(self, codes: npt.NDArray[np.int64]) -> npt.NDArray[np.uint64]:
        """Keyed hashes of the texts of some numbers."""
        ...

    def joined(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint8]]:
        """All texts in UTF-8, one after the other, as places and bytes: a number's text begins at its place and ends at
        the next one. What is given stays as it is; texts that come later are not in it."""
        ...


@dataclass(frozen=True, slots=True)
class Dictionaries:
    """The three that orders are decoded with, and what follows from them."""

    products: Dictionary
    names: Dictionary
    categories: Dictionary
    scopes: Names
    """of countries and categories"""


class PlainDictionary:
    """A dictionary for the plain tier."""

    def __init__(self, key: Key) -> None:
        self._hash = text_hash(key)
        self._codes: dict[str, int] = {}
        self._texts: list[str] = []
        self._size = 0
        self._hashes = np.zeros(1024, dtype=np.uint64)

    def __len__(self) -> int:
        return len(self._texts)

    def size(self) -> int:
        """See `Dictionary`."""
        return self._size

    def code(self, text: str) -> int:
        """The text's number, a new one if need be."""
        known = self._codes.get(text)
        if known is not None:
            return known
        code = self._codes[text] = len(self._texts)
        self._texts.append(text)
        if code == len(self._hashes):
            self._hashes = np.concatenate((self._hashes, np.zeros_like(self._hashes)))
        raw = text.encode()
        self._hashes[code] = self._hash(raw)
        self._size += len(raw)
        return code

    def text(self, code: int) -> str:
        """The text of a number."""
        return self._texts[code]

    def hashes(self, codes: npt.NDArray[np.int64]) -> npt.NDArray[np.uint64]:
        """Keyed hashes of the texts of some numbers."""
        return self._hashes[codes]

    def joined(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint8]]:
        """See `Dictionary`."""
        texts = [text.encode() for text in self._texts]
        ends = np.cumsum([0, *map(len, texts)], dtype=np.int64)
        return ends, np.frombuffer(b"".join(texts), dtype=np.uint8)


def text_hash(key: Key) -> Callable[[bytes], int]:
    """SipHash-1-3 under one key (Aumasson and Bernstein, 2012: nobody without the key can steer it)."""
    raw = b"".join(half.to_bytes(8, "little") for half in key)

    def compute(text: bytes) -> int:
        return int.from_bytes(siphash13(text, key=raw).digest(), "little")

    return compute
