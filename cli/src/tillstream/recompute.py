"""What the live numbers should be, from what is stored: DuckDB over the Parquet objects of S3.

The SQL (in ``sql/``) is written from the contract alone. It works with quantities, prices and discounts, shares no code
with the processor, and believes no stored sum.
"""

import tempfile
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import duckdb

from sales.times import format_time
from sink.extents import Done, StoredObject
from sink.parquet import checksum
from tillstream.database import Database
from tillstream.stored import Extents, Progress, Store, StoredError, hour_folders

REMEMBERED_MS = 30 * 60_000
"""How much further back than the longest window repetitions are found, by the contract."""

_TOTALS = ("orders", "sales_minor", "returns", "refunded_minor", "revenue_minor", "units")
_MEASURES = ("units", "revenue", "orders")


@dataclass(frozen=True, slots=True)
class Expected:
    """The numbers of one tick. Amounts in minor units."""

    bounds: dict[str, tuple[int, int]]
    """window: start and end (exclusive), ms since 1970"""
    totals: dict[str, dict[str, int]]
    """window: measure of its ``aov`` hash: value"""
    products: dict[tuple[str, str], list[tuple[str, int]]] = field(default_factory=dict)
    """(window, measure): (product id, value), best first"""
    groups: dict[tuple[str, str, str], dict[str, int]] = field(default_factory=dict)
    """(window, group, measure): name to value"""
    trends: dict[tuple[str, str], dict[str, int]] = field(default_factory=dict)
    """(region, or "" for all; measure): minute to value"""
    names: dict[str, str] = field(default_factory=dict)
    """product id to name; also of products that no top list shows"""


class Fault(NamedTuple):
    """Something that is stored and not what it should be."""

    what: str
    place: str
    expected: str
    found: str


@dataclass(frozen=True, slots=True)
class Counts:
    """How many events there are up to the tick, and when the latest was placed."""

    stored: int
    duplicates: int
    conflicts: int
    duplicates_lately: int
    """of the duplicates, those of event times that are remembered for certain"""
    conflicts_lately: int
    max_event_time: int | None
    """ms since 1970"""


class Facts:
    """What is stored of some positions, as tables of one DuckDB database."""

    def __init__(self, database: Database, directory: Path, region_of: Mapping[str, str]) -> None:
        """Creates the tables.

        Args:
            database: empty.
            directory: takes the downloaded objects.
            region_of: country code to region.
        """
        self._database = database
        self._directory = directory
        self._fetched: set[str] = set()
        """keys of the objects of dead letters and rollups that were fetched"""
        database.run("tables")
        database.fill("regions", list(region_of.items()))

    def load(
        self,
        archive: Store,
        partitions: Iterable[Extents],
        positions: Mapping[str, str],
        span: tuple[int, int] | None,
        progress: Progress,
    ) -> list[Fault]:
        """Fetches the objects that can hold events up to the positions and, with a span (ms), inside it.

        Returns:
            What is wrong with the objects that could not be loaded.

        Raises:
            StoredError: a marker names something that is no object of the orders.
        """
        folders = None if span is None else set(hour_folders(*span))
        wanted: list[tuple[str, StoredObject, Done, str, int]] = []
        for extents in partitions:
            for extent in extents.done:
                if extent.after is not None and extent.after >= positions[extents.path]:
                    continue
                for item in extent.objects:
                    place = archive.place(item.key)
                    if place is None or place.hour is None:
                        raise StoredError(f"the marker after {extent.after} of {extents.path} names {item.key!r}")
                    if folders is None or item.key[: item.key.rindex("/") + 1] in folders:
                        wanted.append((item.key, item, extent, place.date, place.hour))
        loaded, faults = self._fetch(archive, "load", {key: item for key, item, *_ in wanted}, progress)
        rows = [
            (number, key, date, hour, extent.stream, extent.partition, extent.after, extent.end, item.rows, item.orders)
            for number, (key, item, extent, date, hour) in enumerate(wanted)
            if key in loaded
        ]
        self._database.fill("objects", rows)
        return faults

    def load_letters(self, archive: Store, partitions: Iterable[Extents], progress: Progress) -> list[Fault]:
        """Fetches the dead letters of these extents; may be called again when there are more.

        Returns:
            What is wrong with the objects that could not be loaded.
        """
        return self._load_more(archive, "load_letters", partitions, progress)

    def load_rollups(self, archive: Store, partitions: Iterable[Extents], progress: Progress) -> list[Fault]:
        """As `load_letters`, the rollups."""
        return self._load_more(archive, "load_rollups", partitions, progress)

    def letters(self) -> dict[str, int]:
        """How many of the tick's messages became dead letters that are loaded, by reason."""
        return dict(self._database.run("letters"))

    def letters_by_partition(self, positions: Mapping[str, str]) -> dict[str, Counter[str]]:
        """As `letters`, by partition, of a tick with these positions (as `apply` has them); a partition without any has
        an empty count. Once, and instead of `apply`."""
        self._fill_tick(positions)
        found: dict[str, Counter[str]] = defaultdict(Counter)
        for partition, reason, count in self._database.run("letters_by_partition"):
            found[partition][reason] = count
        return found

    def _load_more(self, archive: Store, query: str, partitions: Iterable[Extents], progress: Progress) -> list[Fault]:
        marked = {item.key: item for extents in partitions for extent in extents.done for item in extent.objects}
        fresh = {key: item for key, item in marked.items() if key not in self._fetched}
        self._fetched |= fresh.keys()
        return self._fetch(archive, query, fresh, progress)[1]

    def _fill_tick(self, positions: Mapping[str, str]) -> None:
        self._database.fill("tick", [(*path.rsplit("/", 1), position) for path, position in positions.items()])

    def _fetch(
        self, archive: Store, query: str, wanted: Mapping[str, StoredObject], progress: Progress
    ) -> tuple[Collection[str], list[Fault]]:
        """Downloads objects (by their keys) and lets the query load them; the keys of those that were, and what is
        wrong with the others."""
        with tempfile.TemporaryDirectory(dir=self._directory) as folder:
            there = archive.download(wanted, Path(folder), progress)
            faults = [Fault("object", key, "there", "missing") for key in wanted if key not in there]
            faults += _altered(wanted, there)
            for key, why in self._insert(query, there).items():
                faults.append(Fault("object", key, "Parquet in the layout of its table", why))
                del there[key]
            return there.keys(), faults

    def _insert(self, query: str, files: Mapping[str, Path]) -> dict[str, str]:
        """The rows of all files (by their objects' keys) into a table; those that can't be read are left out, and the
        answer says why."""

        def load(*paths: Path) -> None:
            if paths:
                self._database.run(query, {"files": [str(path) for path in paths]})

        try:
            load(*files.values())
        except duckdb.Error:
            unread = {}
            for key, path in files.items():
                try:
                    load(path)
                except duckdb.Error as error:
                    unread[key] = str(error).split("\n", 1)[0].replace(str(path), "the object")
            return unread
        return {}

    def apply(self, positions: Mapping[str, str], bounds: Mapping[str, tuple[int, int]]) -> None:
        """Chooses what was applied up to the positions and what of it counts; once.

        Args:
            positions: ``<stream id>/<partition>`` to the fixed-width text of a position.
            bounds: window to its start and end (exclusive), ms since 1970.
        """
        self._fill_tick(positions)
        self._database.fill("windows", [(name, start, end) for name, (start, end) in bounds.items()])
        self._database.run("applied")

    def expected(self, as_of: int, bounds: Mapping[str, tuple[int, int]], top_k: int) -> Expected:
        """The numbers of the tick.

        Args:
            as_of: ms since 1970.
            bounds: as `apply` had them.
            top_k: how many products are shown.
        """
        expected = Expected(
            bounds=dict(bounds),
            totals={name: dict(zip(_TOTALS, values, strict=True)) for name, *values in self._database.run("totals")},
        )
        start = min(start for start, _ in bounds.values())
        for name, measure, product, value in self._database.run("products", {"top": top_k}):
            expected.products.setdefault((name, measure), []).append((product, value))
        for name, group, label, *values in self._database.run("groups"):
            for measure, value in zip(_MEASURES, values, strict=True):
                expected.groups.setdefault((name, group, measure), {})[label] = value
        # Whole minutes: from the first that lies inside the window to the one that has begun at as_of.
        minutes = {"start": -(-start // 60_000) * 60_000, "end": as_of - as_of % 60_000 + 60_000}
        for region, minute, *values in self._database.run("trends", minutes):
            for measure, value in zip(_MEASURES, values, strict=True):
                expected.trends.setdefault((region, measure), {})[format_time(minute)] = value
        expected.names.update(self._database.run("names", {"start": start}))
        return expected

    def faults(self) -> list[Fault]:
        """Where what was loaded contradicts its markers or itself."""
        return [Fault(*row) for row in self._database.run("faults")]

    def counts(self, longest: int) -> Counts:
        """How many events there are. Once, for facts without a span.

        Args:
            longest: length of the longest window, ms.
        """
        self._database.run("repeated")
        [row] = self._database.run("counts", {"remembered": longest + REMEMBERED_MS})
        return Counts(*row)

    def refused(self, partitions: Iterable[Extents], longest: int) -> list[Fault]:
        """Of each message that must have a dead letter, or has one, whether that is so: all that were compared. Once,
        after `counts` and when all letters are loaded.

        Args:
            partitions: whose markers tell what was malformed.
            longest: as `counts` had it.
        """
        extents = [extent for known in partitions for extent in known.done]
        self._database.fill(
            "extents",
            [(e.stream, e.partition, e.after, e.end, e.rejected, e.rejected_at is not None) for e in extents],
        )
        self._database.fill(
            "rejected", [(e.stream, e.partition, position) for e in extents for position in e.rejected_at or ()]
        )
        return [Fault(*row) for row in self._database.run("refused", {"remembered": longest + REMEMBERED_MS})]

    def size(self) -> tuple[int, int]:
        """Objects and order lines loaded."""
        [(objects, lines)] = self._database.run("size")
        return objects, lines


def _altered(marked: Mapping[str, StoredObject], files: Mapping[str, Path]) -> Iterator[Fault]:
    """The objects whose bytes are not those that the marker speaks of."""
    for key, path in files.items():
        expected, found = marked[key].checksum, checksum(path.read_bytes())
        if expected and found != expected:
            yield Fault("checksum", key, expected, found)
