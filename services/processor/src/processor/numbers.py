"""The live numbers: everything the processor knows, as a function of the set of accepted orders and ``as_of``. Pure.

`apply` takes what one batch adds, whole; `advance` moves time; `tick` and `take_rollups` give what is published;
`take_delta` and `dump` give what has to be kept, and `load` takes it back.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from processor.cells import Cells, merge
from processor.grouping import Int64s
from processor.labels import Labels, LatestNames
from processor.minutes import Minutes, Sums
from processor.panes import (
    CATEGORY_COLUMNS,
    COUNTRY_COLUMNS,
    PRODUCT_COLUMNS,
    Partial,
)
from processor.rolling import RollingTable
from processor.snapshots import Delta
from sales.board import Keys, Tick
from sales.countries import UNKNOWN_REGION
from sales.events import Log
from sales.money import average_minor, to_decimal
from sales.rollups import Rollup
from sales.streams import format_position
from sales.times import format_time
from sales.windows import Window

EXACT_SCORES = 2**53
"""Redis keeps scores as doubles, exact for integers below this (IEEE 754)."""

log = Log(__name__)

_UNITS, _ORDERS, _RETURNS, _SALES, _REFUNDED = 1, 2, 3, 4, 5
_PRODUCT_COLUMN = {measure: PRODUCT_COLUMNS.index(measure) for measure in ("units", "revenue")}
_CATEGORY_COLUMN = {measure: CATEGORY_COLUMNS.index(measure) for measure in ("units", "revenue", "orders")}


@dataclass(frozen=True, slots=True)
class Standing:
    """Where the numbers stand; times in ms since 1970."""

    as_of: int
    newest: int
    """the latest event time accepted"""
    late: int
    """events that came after their minute was closed"""
    lag: int | None
    """messages not yet read; None where that is not known"""
    products: int
    """in the longest window"""


class Numbers:
    """Rolling windows, trend and rollups of one pipeline. Not thread-safe; no call blocks."""

    def __init__(
        self,
        *,
        windows: Sequence[Window],
        keys: Keys,
        top_k: int,
        currency: str,
        region_of: Mapping[str, str],
        clock: str,
    ) -> None:
        self._windows = tuple(windows)
        self._keys = keys
        self._top_k = top_k
        self._currency = currency
        self._region_of = region_of
        self._clock = clock
        self._products = RollingTable(windows, len(PRODUCT_COLUMNS))
        self._categories = RollingTable(windows, len(CATEGORY_COLUMNS))
        self._countries = RollingTable(windows, len(COUNTRY_COLUMNS))
        self._minutes = Minutes()
        self._labels = Labels()
        self._positions: dict[str, tuple[int, int]] = {}
        """partition to (position, digits)"""
        self._counts = dict.fromkeys(("accepted", "duplicates", "dead_letters"), 0)
        self._lags: dict[str, int | None] = {}
        self._max_event_time = 0
        self.as_of = 0
        """ms; 0 before the first `advance`"""
        self._since: list[Partial] = []
        """what was applied since the last delta"""
        self._sent_then: dict[int, int] = {}
        self._warned = False

    def apply(self, partial: Partial, *, restoring: bool = False) -> None:
        """Adds one batch. With the event clock, time moves to its largest event time first; with the clock on the
        wall the caller must have moved it before.

        Args:
            partial: its sums.
            restoring: an earlier run has seen these events in their time: none of them is late or stale.
        """
        self._max_event_time = max(self._max_event_time, partial.max_event_time)
        if self._clock == "event":
            self.advance(partial.max_event_time)
        self._add(
            {
                "products": [partial.products],
                "categories": [partial.categories],
                "countries": [partial.countries],
                "minutes": [partial.minutes],
            },
            partial.product_names,
            restoring=restoring,
        )
        self._positions.update(partial.positions)
        for name, count in partial.counts.items():
            self._counts[name] = self._counts.get(name, 0) + count
        self._lags.update(partial.lags)
        if partial.positions:
            self._since.append(partial)

    def advance(self, as_of: int) -> None:
        """Moves time forward; an earlier ``as_of`` (ms) than the last one changes nothing: time waits."""
        if as_of <= self.as_of:
            return
        oldest = self._windows[-1].bounds(as_of)[0]
        if not self._positions and self._clock == "wall":
            # What lies before the first window, an earlier run may have told right; a replay of history has had none.
            self._minutes.known_from = oldest
        self.as_of = as_of
        self._labels.forget(self._products.advance(as_of))
        self._categories.advance(as_of)
        self._countries.advance(as_of)
        self._minutes.advance(as_of, oldest)

    def reaches(self, as_of: int, positions: Mapping[str, str]) -> bool:
        """Whether the numbers speak of no earlier moment, and of no fewer events, than these."""
        applied = {name: format_position(position, digits) for name, (position, digits) in self._positions.items()}
        return self.as_of >= as_of and all(applied.get(name, "") >= position for name, position in positions.items())

    def tick(self, published_at: int) -> Tick | None:
        """Everything as it stands at ``as_of``; None before there is an ``as_of``.

        Args:
            published_at: the clock on the wall, ms, for people to see how fresh this is.
        """
        if not self.as_of:
            return None
        tick = Tick(as_of=format_time(self.as_of))
        shown: set[tuple[str, int]] = set()
        for index, window in enumerate(self._windows):
            for measure, column in _PRODUCT_COLUMN.items():
                best = self._products.top(index, column, self._top_k)
                tick.zsets[self._keys.product(window.name, measure)] = {name: value for value, name, _ in best}
                shown.update((name, slot) for _, name, slot in best)
            self._tick_groups(tick, index, window)
        tick.hashes[self._keys.products] = {product: self._labels.text(slot) for product, slot in shown}
        tick.hashes[self._keys.positions] = {
            partition: format_position(position, digits) for partition, (position, digits) in self._positions.items()
        }
        tick.hashes[self._keys.status] = self._status(published_at)
        self._tick_trend(tick)
        return tick

    def standing(self) -> Standing:
        """Where they stand."""
        lags = list(self._lags.values())
        return Standing(
            as_of=self.as_of,
            newest=self._max_event_time,
            late=self._minutes.late,
            lag=None if None in lags or not lags else sum(lag for lag in lags if lag is not None),
            products=len(self._products),
        )

    def take_rollups(self, now_ms: int, *, flush: bool = False) -> list[Rollup]:
        """Records of closed and corrected minutes that have to be sent now.

        Args:
            now_ms: any clock that runs.
            flush: corrections are not gathered any longer.
        """
        return self._minutes.take_rollups(now_ms, flush=flush)

    def take_delta(self) -> Delta | None:
        """What has changed since the last delta or dump; None if nothing that has to be kept."""
        sent = self._minutes.sent()
        if not self._since and sent == self._sent_then:
            return None
        partials, self._since = self._since, []
        changed_sent = {minute: events for minute, events in sent.items() if self._sent_then.get(minute) != events}
        self._sent_then = sent
        touched = np.zeros(self._products.size, dtype=np.bool_)
        for partial in partials:
            slots = self._products.slots(partial.product_names.products, partial.product_names.product_codes)
            touched[slots[slots >= 0]] = True
        return self._delta(
            {
                "products": merge([partial.products for partial in partials], len(PRODUCT_COLUMNS)),
                "categories": merge([partial.categories for partial in partials], len(CATEGORY_COLUMNS)),
                "countries": merge([partial.countries for partial in partials], len(COUNTRY_COLUMNS)),
                "minutes": merge([partial.minutes for partial in partials], len(COUNTRY_COLUMNS)),
            },
            self._label_rows(np.flatnonzero(touched)),
            changed_sent,
        )

    def dump(self) -> Delta:
        """Everything, as the delta from nothing."""
        self._since = []
        self._sent_then = self._minutes.sent()
        return self._delta(
            {
                "products": [self._products.dump()],
                "categories": [self._categories.dump()],
                "countries": [self._countries.dump()],
                "minutes": [self._minutes.dump()],
            },
            self._label_rows(self._products.taken()),
            self._sent_then,
        )

    def load(self, delta: Delta) -> None:
        """Takes back what `dump` gave, then each delta in order."""
        self.advance(delta.as_of)
        self._max_event_time = delta.max_event_time
        self._add(delta.cells, delta.product_names, restoring=True)
        self._positions.update(delta.positions)
        self._counts.update(delta.counts)
        self._minutes.known_from = delta.known_from
        self._minutes.late = delta.late
        self._minutes.mark_sent(delta.sent)
        self._sent_then = self._minutes.sent()

    def _delta(self, tables: dict[str, list[Cells]], names: LatestNames, sent: dict[int, int]) -> Delta:
        return Delta(
            as_of=self.as_of,
            max_event_time=self._max_event_time,
            positions=dict(self._positions),
            counts=dict(self._counts),
            known_from=self._minutes.known_from,
            late=self._minutes.late,
            cells=tables,
            product_names=names,
            sent=sent,
        )

    def _label_rows(self, slots: Int64s) -> LatestNames:
        return self._labels.rows(slots, self._products.names(slots))

    def _add(self, tables: Mapping[str, Sequence[Cells]], names: LatestNames, *, restoring: bool = False) -> None:
        for cells in tables["products"]:
            self._products.add(cells)
        for cells in tables["categories"]:
            self._categories.add(cells)
        for cells in tables["countries"]:
            self._countries.add(cells)
        for cells in tables["minutes"]:
            self._minutes.add(cells, restoring=restoring)
        self._labels.update(self._products.slots(names.products, names.product_codes), names)

    def _tick_groups(self, tick: Tick, index: int, window: Window) -> None:
        def put(group: str, measure: str, content: dict[str, int]) -> None:
            tick.zsets[self._keys.group(window.name, group, measure)] = content

        categories = self._categories.totals(index)
        for measure, column in _CATEGORY_COLUMN.items():
            put("category", measure, {name: sums[column] for name, sums in categories.items()})
        countries = self._countries.totals(index)
        by_region = self._by_region(countries)
        for group, totals in (("country", countries), ("region", by_region)):
            put(group, "units", {name: sums[_UNITS] for name, sums in totals.items()})
            put(group, "revenue", {name: sums[_SALES] - sums[_REFUNDED] for name, sums in totals.items()})
            put(group, "orders", {name: sums[_ORDERS] for name, sums in totals.items()})
        whole = [sum(column) for column in zip(*countries.values(), strict=True)] or [0] * len(COUNTRY_COLUMNS)
        tick.hashes[self._keys.aov(window.name)] = self._aov(window, whole)

    def _aov(self, window: Window, whole: Sums) -> dict[str, str]:
        orders, units, sales, refunded = whole[_ORDERS], whole[_UNITS], whole[_SALES], whole[_REFUNDED]
        if max(abs(units), sales, refunded) > EXACT_SCORES // 2 and not self._warned:
            log.error(
                "totals_near_limit",
                "totals of window {window} come near 2**53, where Redis's scores stop being exact",
                window=window.name,
            )
            self._warned = True
        start, end = window.bounds(self.as_of)
        fields = {
            "orders": str(orders),
            "sales_minor": str(sales),
            "returns": str(whole[_RETURNS]),
            "refunded_minor": str(refunded),
            "revenue_minor": str(sales - refunded),
            "units": str(units),
            "revenue": str(to_decimal(sales - refunded, self._currency)),
            "window_start": format_time(start),
            "window_end": format_time(end),
            "as_of": format_time(self.as_of),
            "currency": self._currency,
        }
        if orders:
            average = average_minor(sales, orders)
            fields |= {"aov_minor": str(average), "aov": str(to_decimal(average, self._currency))}
        return fields

    def _status(self, published_at: int) -> dict[str, str]:
        known = [lag for lag in self._lags.values() if lag is not None]
        return {
            "as_of": format_time(self.as_of),
            "max_event_time": format_time(self._max_event_time) if self._max_event_time else "",
            "published_at": format_time(published_at),
            "clock": self._clock,
            "late": str(self._minutes.late),
            "lag": str(sum(known)) if known and len(known) == len(self._lags) else "",
            **{name: str(count) for name, count in sorted(self._counts.items())},
        }

    def _tick_trend(self, tick: Tick) -> None:
        changed, gone = self._minutes.take_trend()
        patches = tick.patches

        def put(minute: str, region: str | None, units: str | None, revenue: str | None, orders: str | None) -> None:
            for measure, value in (("units", units), ("revenue", revenue), ("orders", orders)):
                patches.setdefault(self._keys.trend(measure, region), {})[minute] = value

        regions = sorted(set(self._region_of.values()))
        for start in gone:
            for region in (None, *regions):
                put(format_time(start), region, None, None, None)
        for start, countries in changed.items():
            whole = [sum(column) for column in zip(*countries.values(), strict=True)]
            for region, sums in ((None, whole), *self._by_region(countries).items()):
                revenue = sums[_SALES] - sums[_REFUNDED]
                put(format_time(start), region, str(sums[_UNITS]), str(revenue), str(sums[_ORDERS]))

    def _by_region(self, countries: Mapping[str, Sums]) -> dict[str, Sums]:
        by_region: dict[str, Sums] = {}
        for country, sums in countries.items():
            region = self._region_of.get(country, UNKNOWN_REGION)
            known = by_region.get(region)
            by_region[region] = sums if known is None else [a + b for a, b in zip(known, sums, strict=True)]
        return by_region
