"""What each product is called on the board. Pure."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from processor.cells import Int64s, ListedNames, Names


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
    positions: npt.NDArray[np.object_]
    partitions: npt.NDArray[np.object_]
    """``<stream id>/<partition>``"""

    def __len__(self) -> int:
        return len(self.product_codes)


class Labels:
    """The latest name of each product, by the product's slot in its table."""

    def __init__(self) -> None:
        self._event_times = np.zeros(0, dtype=np.int64)
        """-1 where the slot has no name"""
        self._positions = np.zeros(0, dtype=np.object_)
        self._partitions = np.zeros(0, dtype=np.object_)
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
        known = self._event_times[slots[held]]
        later = latest.event_times[held] > known
        for row in np.flatnonzero(latest.event_times[held] == known).tolist():
            slot, mine = slots[held[row]], held[row]
            then = (self._positions[slot], self._partitions[slot])
            later[row] = (latest.positions[mine], latest.partitions[mine]) > then
        rows = held[later]
        places = slots[rows]
        self._event_times[places] = latest.event_times[rows]
        self._positions[places] = latest.positions[rows]
        self._partitions[places] = latest.partitions[rows]
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
            partitions=self._partitions[slots],
        )

    def _reach(self, slots: int) -> None:
        if slots > len(self._codes):
            room = max(slots, 2 * len(self._codes)) - len(self._codes)
            nothing = np.full(room, None, dtype=np.object_)
            self._event_times = np.concatenate((self._event_times, np.full(room, -1, dtype=np.int64)))
            self._codes = np.concatenate((self._codes, np.full(room, -1, dtype=np.int64)))
            self._positions = np.concatenate((self._positions, nothing))
            self._partitions = np.concatenate((self._partitions, nothing))
            self._texts = np.concatenate((self._texts, nothing))
