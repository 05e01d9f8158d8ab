"""How sums get from one process to another. Pure.

Codes mean something in one process only. So each text crosses once, with the first sum that was made after it was met;
from then on both sides have the same dictionary, and sums cross as the numbers that they are.
"""

import io
import pickle
from dataclasses import dataclass
from typing import Any, cast

from processor.cells import ListedNames
from processor.panes import Partial
from sales.columnar.countries import COUNTRIES
from sales.columnar.scopes import Scopes
from sales.columnar.texts import Dictionary, Names


@dataclass(frozen=True, slots=True)
class Crossed:
    """A partial sum on its way. Every one has to be taken in, in the order in which they were sent."""

    sender: int
    """which process"""
    payload: bytes


class Departures:
    """What one process sends to another. One thread."""

    def __init__(self, sender: int) -> None:
        self._sender = sender
        self._told: dict[str, _Told] = {}

    def crossed(self, partial: Partial) -> Crossed:
        """The sum, and the texts that the other side does not have yet."""
        names = partial.product_names
        ids: dict[int, tuple[Any, ...]] = {id(COUNTRIES): ("countries",)}
        dictionaries = {"products": names.products, "names": names.names, "categories": partial.categories.names}
        for role, dictionary in dictionaries.items():
            if not isinstance(dictionary, ListedNames):
                ids[id(dictionary)] = (role, *self._tell(role, cast("Dictionary", dictionary)))
        if isinstance(partial.minutes.names, Scopes):
            ids[id(partial.minutes.names)] = ("scopes",)
        file = io.BytesIO()
        pickler = _Pickler(file, protocol=pickle.HIGHEST_PROTOCOL)
        pickler.ids = ids
        pickler.dump(partial)
        return Crossed(self._sender, file.getvalue())

    def _tell(self, role: str, dictionary: Dictionary) -> tuple[int, int, list[str]]:
        """Which dictionary of this role it is, and its texts from a code on."""
        told = self._told.get(role)
        if told is None or told.dictionary is not dictionary:
            told = self._told[role] = _Told(dictionary, 0 if told is None else told.generation + 1)
        first, told.count = told.count, len(dictionary)
        return told.generation, first, [dictionary.text(code) for code in range(first, told.count)]


@dataclass(slots=True)
class _Told:
    dictionary: Dictionary
    generation: int
    """how many of its role there were before"""
    count: int = 0


class Arrivals:
    """What one process gets from others. One thread."""

    def __init__(self) -> None:
        self._names: dict[int, dict[str, _Known]] = {}

    def partial(self, item: Partial | Crossed) -> Partial:
        """The sum, over dictionaries of this process; one that has not crossed is itself."""
        if isinstance(item, Partial):
            return item
        unpickler = _Unpickler(io.BytesIO(item.payload))
        unpickler.known = self._names.setdefault(item.sender, {})
        return cast("Partial", unpickler.load())


class _Known:
    """What is known of another process's dictionary."""

    def __init__(self, generation: int) -> None:
        self.generation = generation
        self.texts: list[str] = []
        self.scopes = Scopes(self)

    def text(self, code: int) -> str:
        return self.texts[code]


class _Pickler(pickle.Pickler):
    ids: dict[int, tuple[Any, ...]]

    def persistent_id(self, obj: Any) -> tuple[Any, ...] | None:
        return self.ids.get(id(obj))


class _Unpickler(pickle.Unpickler):
    known: dict[str, _Known]

    def persistent_load(self, pid: Any) -> Names:
        role, *told = pid
        if role == "countries":
            return COUNTRIES
        if role == "scopes":
            return self.known["categories"].scopes
        generation, first, new = told
        known = self.known.get(role)
        if known is None or known.generation != generation:
            known = self.known[role] = _Known(generation)
        known.texts[first:] = new
        return known
