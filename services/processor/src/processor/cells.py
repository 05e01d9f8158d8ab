"""Sums by pane and name: what travels from the source to the numbers, and to the disk. Pure. Everything is int64 and
exact."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from processor.grouping import Int64s, group
from sales.columnar.texts import Names

_WIDE = 8
"""Codes for each row, above which rows are sorted instead of ticked off."""


@dataclass(frozen=True, slots=True)
class ListedNames:
    """Names that belong to one table of cells only."""

    names: Sequence[str]

    def text(self, code: int) -> str:
        """The text of a number."""
        return self.names[code]


@dataclass(frozen=True, slots=True, eq=False)
class Cells:
    """Row ``i`` holds ``sums[i]`` for the name ``names.text(codes[i])`` in the pane that starts at ``panes[i]`` (ms
    since 1970). No two rows have the same pane and name; sorted by pane."""

    names: Names
    panes: Int64s
    codes: Int64s
    sums: Int64s
    """shape (rows, columns)"""

    def __len__(self) -> int:
        return len(self.panes)

    def listed(self) -> "Cells":
        """The same with names of its own, and none that no row uses."""
        return listed([self])[0]


def listed(parts: Sequence[Cells]) -> "list[Cells]":
    """Cells that share their names, with a list of only the names that they use, which they share as well."""
    width = max((int(part.codes.max()) + 1 for part in parts if len(part)), default=0)
    if width > _WIDE * sum(map(len, parts)):
        found, places = np.unique(np.concatenate([part.codes for part in parts]), return_inverse=True)
        own = np.split(places, np.cumsum([len(part) for part in parts])[:-1])
    else:
        used = np.zeros(width, dtype=np.bool_)
        for part in parts:
            used[part.codes] = True
        found, place = np.flatnonzero(used), np.cumsum(used) - 1
        own = [place[part.codes] for part in parts]
    names = ListedNames([parts[0].names.text(code) for code in found.tolist()])
    return [Cells(names, part.panes, codes, part.sums) for part, codes in zip(parts, own, strict=True)]


class Pane:
    """Sums by slot for one pane, as runs that are merged now and then."""

    __slots__ = ("_runs",)

    MOST_RUNS = 8
    """So many unmerged runs are collected before they are merged into one."""

    def __init__(self) -> None:
        self._runs: list[tuple[Int64s, Int64s]] = []

    def add(self, slots: Int64s, sums: Int64s) -> None:
        """Adds sums of distinct slots."""
        self._runs.append((slots, sums))
        if len(self._runs) > self.MOST_RUNS:
            self.merged()

    def merged(self) -> tuple[Int64s, Int64s]:
        """Distinct slots and their sums."""
        if len(self._runs) > 1:
            slots, sums = (np.concatenate(column) for column in zip(*self._runs, strict=True))
            self._runs = [group(slots, sums)]
        return self._runs[0]


def no_cells(columns: int) -> Cells:
    """Without a row."""
    nothing = np.zeros(0, dtype=np.int64)
    return Cells(ListedNames(()), nothing, nothing, np.zeros((0, columns), dtype=np.int64))


def in_panes(names: Names, panes: Int64s, codes: Int64s, sums: Int64s, *, first: int, pane_ms: int = 1) -> Cells:
    """Cells of rows in any order, whose panes are numbered from 0, the one that starts at ``first``."""
    if (panes[1:] < panes[:-1]).any():
        # numpy sorts numbers of 16 bits by counting them.
        narrow = panes.astype(np.uint16) if panes.max() < 1 << 16 else panes
        order = np.argsort(narrow, kind="stable")
        panes, codes, sums = panes[order], codes[order], sums[order]
    return Cells(names, panes * pane_ms + first, codes, sums)


def merge(parts: Sequence[Cells], columns: int) -> list[Cells]:
    """Tables that share their names and hold the sums of all: one, where rows meet; as they are, where hardly any two
    have one pane and name."""
    parts = [part for part in parts if len(part)]
    if not parts:
        return [no_cells(columns)]
    if len({id(part.names) for part in parts}) > 1:
        parts = _renamed([part.listed() for mine in _by_names(parts) for part in merge(mine, columns)])
    rows = sum(map(len, parts))
    panes = len(np.unique(np.concatenate([np.unique(part.panes) for part in parts])))
    width = max(int(part.codes.max()) for part in parts) + 1
    if len(parts) == 1 or panes * width > rows:
        return list(parts)
    return [_merged(parts, width)]


def _by_names(parts: Sequence[Cells]) -> list[list[Cells]]:
    """Those that share their names together."""
    together: dict[int, list[Cells]] = {}
    for part in parts:
        together.setdefault(id(part.names), []).append(part)
    return list(together.values())


def _merged(parts: Sequence[Cells], width: int) -> Cells:
    panes = np.concatenate([part.panes for part in parts])
    codes = np.concatenate([part.codes for part in parts])
    start = int(panes.min())
    keys, sums = group((panes - start) * width + codes, np.concatenate([part.sums for part in parts]))
    return in_panes(parts[0].names, keys // width, keys % width, sums, first=start)


def _renamed(parts: Sequence[Cells]) -> list[Cells]:
    """Listed cells over one list of names."""
    places: dict[str, int] = {}
    renamed = []
    for part in parts:
        names = [part.names.text(code) for code in range(int(part.codes.max()) + 1 if len(part) else 0)]
        own = np.array([places.setdefault(name, len(places)) for name in names], dtype=np.int64)
        renamed.append((part, own[part.codes] if len(part) else part.codes))
    listed = ListedNames(list(places))
    return [Cells(listed, part.panes, codes, part.sums) for part, codes in renamed]
