"""What each product is called on the board. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from processor.cells import ListedNames
from processor.grouping import Int64s
from sales.columnar.texts import Names

POSITION_WORDS = 3
_WORD_BITS = 63


def position_words(positions: Sequence[int] | Int64s) -> Int64s:
    """Positions as POSITION_WORDS numbers each, the highest 63 bits first: Kinesis has 187 bits.

    Returns:
        Shape (positions, POSITION_WORDS); they order as the positions do.
    """
    words = np.zeros((len(positions), POSITION_WORDS), dtype=np.int64)
    if isinstance(positions, np.ndarray):
        words[:, -1] = positions
    elif len(positions):
        low = (1 << _WORD_BITS) - 1
        words[:] = [[at >> 2 * _WORD_BITS, at >> _WORD_BITS & low, at & low] for at in positions]
    return words


@dataclass(frozen=True, slots=True, eq=False)
class LatestNames:
    """What some products were called last: in the line with the latest event time, then the highest position, then the
    last partition, then the last in its order."""

    products: Names
    product_codes: Int64s
    """of ``products``, distinct"""
    names: Names
    name_codes: Int64s
    """of ``names``"""
    event_times: Int64s
    positions: Int64s
    """see `position_words`"""
    partitions: Sequence[str]
    """``<stream id>/<partition>``"""
    partition_codes: Int64s
    """of ``partitions``"""

    def __len__(self) -> int:
        return len(self.product_codes)


class Labels:
    """The latest name of each product, by the product's slot in its table."""

    def __init__(self) -> None:
        self._event_times = np.zeros(0, dtype=np.int64)
        """-1 where the slot has no name"""
        self._positions = position_words(())
        self._partitions: list[str] = []
        self._partition_codes = np.zeros(0, dtype=np.int64)
        self._texts = np.zeros(0, dtype=np.object_)
        self._names: Names | None = None
        """what ``_codes`` are codes of"""
        self._codes = np.zeros(0, dtype=np.int64)

    def update(self, slots: Int64s, latest: LatestNames) -> None:
        """Takes names that are later than those known.

        Args:
            slots: of each product; -1: the table does not hold it.
            latest: the names.
        """
        if latest.names is not self._names:
            self._names = latest.names
            self._codes[:] = -1
        held = np.flatnonzero(slots >= 0)
        if not len(held):
            return
        self._reach(int(slots.max()) + 1)
        partition_codes = self._numbered(latest.partitions)[latest.partition_codes]
        rows = held[self._is_later(slots[held], latest, held, partition_codes[held])]
        places = slots[rows]
        self._event_times[places] = latest.event_times[rows]
        self._positions[places] = latest.positions[rows]
        self._partition_codes[places] = partition_codes[rows]
        renamed = np.flatnonzero(self._codes[places] != latest.name_codes[rows])
        for place, code in zip(places[renamed].tolist(), latest.name_codes[rows[renamed]].tolist(), strict=True):
            self._texts[place] = latest.names.text(code)
        self._codes[places] = latest.name_codes[rows]

    def forget(self, slots: Int64s) -> None:
        """These slots are nobody's any more."""
        known = slots[slots < len(self._codes)]
        self._event_times[known] = -1
        self._codes[known] = -1

    def text(self, slot: int) -> str:
        """The name of the product with this slot."""
        text: str = self._texts[slot]
        return text

    def rows(self, slots: Int64s, products: list[str]) -> LatestNames:
        """The names of some products, with texts of their own.

        Args:
            slots: of products that have a name.
            products: the products' ids.
        """
        own = np.arange(len(slots))
        return LatestNames(
            products=ListedNames(products),
            product_codes=own,
            names=ListedNames(self._texts[slots].tolist()),
            name_codes=own,
            event_times=self._event_times[slots],
            positions=self._positions[slots],
            partitions=tuple(self._partitions),
            partition_codes=self._partition_codes[slots],
        )

    def _is_later(
        self, slots: Int64s, latest: LatestNames, rows: Int64s, partition_codes: Int64s
    ) -> npt.NDArray[np.bool_]:
        """Which rows are later than what their slots have."""
        known = self._event_times[slots]
        later: npt.NDArray[np.bool_] = latest.event_times[rows] > known
        tied = np.flatnonzero(latest.event_times[rows] == known)
        if len(tied):
            places, new = slots[tied], rows[tied]
            # From what decides last to what decides first.
            rank = np.argsort(np.argsort(self._partitions))
            is_later = rank[partition_codes[tied]] > rank[self._partition_codes[places]]
            for word in reversed(range(POSITION_WORDS)):
                then, now = self._positions[places, word], latest.positions[new, word]
                is_later = (now > then) | ((now == then) & is_later)
            later[tied] = is_later
        return later

    def _numbered(self, partitions: Sequence[str]) -> Int64s:
        """Their numbers among all partitions met so far."""
        self._partitions += [partition for partition in partitions if partition not in self._partitions]
        return np.array([self._partitions.index(partition) for partition in partitions], dtype=np.int64)

    def _reach(self, slots: int) -> None:
        if slots > len(self._codes):
            room = max(slots, 2 * len(self._codes)) - len(self._codes)
            self._event_times = np.concatenate((self._event_times, np.full(room, -1, dtype=np.int64)))
            self._codes = np.concatenate((self._codes, np.full(room, -1, dtype=np.int64)))
            self._positions = np.concatenate((self._positions, np.zeros((room, POSITION_WORDS), dtype=np.int64)))
            self._partition_codes = np.concatenate((self._partition_codes, np.zeros(room, dtype=np.int64)))
            self._texts = np.concatenate((self._texts, np.full(room, None, dtype=np.object_)))
