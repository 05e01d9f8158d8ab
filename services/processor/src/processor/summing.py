"""What `panes.summarise` does, compiled: one pass over the orders instead of some fifty over their columns. Pure; needs
numba.

Functions take addresses, see `sales.compiled`. Sums are gathered in tables with open addressing that are as large as
batches need them to be: small ones stay in the processor's caches. A batch that does not fit is summed once more, in
larger ones.
"""

from collections.abc import Sequence

import numpy as np

from processor.cells import Cells, in_panes
from processor.grouping import SPREAD, Int64s
from processor.labels import LatestNames, position_words
from processor.panes import (
    CATEGORY_COLUMNS,
    COUNTRY_COLUMNS,
    PRODUCT_COLUMNS,
    Origin,
    Partial,
    nothing_of,
    reached,
)
from sales.columnar import columns as c
from sales.columnar.columns import Columns
from sales.columnar.countries import COUNTRIES, COUNTRY_CODES
from sales.columnar.scopes import scope_codes
from sales.columnar.texts import Dictionaries, Names
from sales.compiled import compiled, int_at, long_at, put_int, put_long
from sales.windows import MINUTE_MS, SECOND_MS

HEADER_WORDS = 7
SLOTS, MASK, KEYS, ROWS, COUNT, ROOM, WIDTH = (8 * word for word in range(HEADER_WORDS))
"""A table's header, places in bytes: addresses of the slots (int32: the row's number + 1; 0: none), of the rows' keys
and of the rows; the slots' number less one, how many rows there are and may be, and the bytes of a row."""

NO_ROOM = 0
"""No address of a row."""

_LEAST_ROWS = 256
"""A power of two."""


@compiled("int64(int64, int64)")
def _row(table, key):
    """The address of a key's row, a new one has zeros; NO_ROOM."""
    slots, mask, keys = long_at(table + SLOTS), long_at(table + MASK), long_at(table + KEYS)
    width = long_at(table + WIDTH)
    place = ((key * SPREAD) >> 32) & mask
    met = int_at(slots + 4 * place)
    while met != 0:
        if long_at(keys + 8 * (met - 1)) == key:
            return long_at(table + ROWS) + width * (met - 1)
        place = (place + 1) & mask
        met = int_at(slots + 4 * place)
    row = long_at(table + COUNT)
    if row == long_at(table + ROOM):
        return NO_ROOM
    put_long(table + COUNT, row + 1)
    put_int(slots + 4 * place, row + 1)
    put_long(keys + 8 * row, key)
    address = long_at(table + ROWS) + width * row
    for word in range(width >> 3):
        put_long(address + 8 * word, 0)
    return address


@compiled("void(int64, int64)")
def _increase(address, value):
    put_long(address, long_at(address) + value)


@compiled("boolean(int64, int64, int64, int64, int64)")
def _comes_before(row, other, positions, words, partitions):
    """Whether one message stands before another: by its position, then by its partition's number."""
    for word in range(words):
        mine = long_at(positions + 8 * (words * row + word))
        theirs = long_at(positions + 8 * (words * other + word))
        if mine != theirs:
            return mine < theirs
    return long_at(partitions + 8 * row) < long_at(partitions + 8 * other)


@compiled("boolean(int64, int64, int64, int64, int64, int64, int64, int64, int64, int64, int64, int64, int64, int64)")
def _sum_up(
    count,
    orders,
    height,
    lines,
    width,
    first_ms,
    products,
    categories,
    tables,
    touched,
    serial,
    positions,
    words,
    partitions,
):
    """Adds up ``count`` orders; False when a table has no room for all.

    Args:
        count: of orders.
        orders: address of their columns, ``height`` numbers apart.
        height: see there.
        lines: address of the lines' columns, ``width`` numbers apart.
        width: see there.
        first_ms: the start of the first order's minute.
        products: how many there are: their codes are below it.
        categories: likewise.
        tables: address of five tables' headers: products, categories, countries, minutes, and latest names.
        touched: address of a number for each category: the last order that touched it, as a serial.
        serial: of the first order; above every number there.
        positions: address of ``words`` numbers for each message.
        words: see there.
        partitions: address of a partition's number for each message.
    """
    by_product, by_category, by_country = long_at(tables), long_at(tables + 8), long_at(tables + 16)
    by_minute, latest = long_at(tables + 24), long_at(tables + 32)
    scopes = (categories + 1) * COUNTRY_CODES
    line = 0
    for order in range(count):
        time = long_at(orders + 8 * (c.EVENT_TIME * height + order))
        country = long_at(orders + 8 * (c.COUNTRY * height + order))
        message = long_at(orders + 8 * (c.ROW * height + order))
        is_return = long_at(orders + 8 * (c.FLAGS * height + order)) & c.IS_RETURN
        is_sale = 1 - is_return
        sign = is_sale - is_return
        second, minute = (time - first_ms) // SECOND_MS, (time - first_ms) // MINUTE_MS
        pieces, amount = 0, 0
        for _ in range(long_at(orders + 8 * (c.LINES * height + order))):
            product = long_at(lines + 8 * (c.PRODUCT * width + line))
            category = long_at(lines + 8 * (c.CATEGORY * width + line))
            quantity = long_at(lines + 8 * (c.QUANTITY * width + line))
            net = quantity * long_at(lines + 8 * (c.UNIT_AMOUNT * width + line))
            percent = long_at(lines + 8 * (c.DISCOUNT * width + line))
            if percent:
                net -= (net * percent + 50) // 100
            pieces += quantity
            amount += net

            row = _row(by_product, second * products + product)
            if row == NO_ROOM:
                return False
            _increase(row, 1)
            _increase(row + 8, sign * quantity)
            _increase(row + 16, sign * net)

            first_touch = long_at(touched + 8 * category) != serial + order
            put_long(touched + 8 * category, serial + order)
            row = _row(by_category, second * categories + category)
            if row == NO_ROOM:
                return False
            _increase(row, 1)
            _increase(row + 8, sign * quantity)
            _increase(row + 16, sign * net)
            row_of_minute = _row(by_minute, minute * scopes + (category + 1) * COUNTRY_CODES + country)
            if row_of_minute == NO_ROOM:
                return False
            if first_touch:
                _increase(row + 24, is_sale)
                _increase(row_of_minute, 1)
                _increase(row_of_minute + 16, is_sale)
                _increase(row_of_minute + 24, is_return)
            _increase(row_of_minute + 8, sign * quantity)
            _increase(row_of_minute + 32, is_sale * net)
            _increase(row_of_minute + 40, is_return * net)

            row = _row(latest, product)
            if row == NO_ROOM:
                return False
            best = long_at(row) - 1
            if best >= 0:
                other = long_at(lines + 8 * (c.ORDER * width + best))
                then = long_at(orders + 8 * (c.EVENT_TIME * height + other))
                if time > then or (
                    time == then
                    and not _comes_before(
                        message, long_at(orders + 8 * (c.ROW * height + other)), positions, words, partitions
                    )
                ):
                    best = -1
            if best < 0:
                put_long(row, line + 1)
            line += 1
        for which in range(2):
            row = (
                _row(by_minute, minute * scopes + country)
                if which
                else _row(by_country, second * COUNTRY_CODES + country)
            )
            if row == NO_ROOM:
                return False
            _increase(row, 1)
            _increase(row + 8, sign * pieces)
            _increase(row + 16, is_sale)
            _increase(row + 24, is_return)
            _increase(row + 32, is_sale * amount)
            _increase(row + 40, is_return * amount)
    return True


class _Table:
    """Rows of sums by key, of one batch at a time."""

    def __init__(self, columns: int) -> None:
        self._columns = columns
        self._header = np.zeros(HEADER_WORDS, dtype=np.int64)
        self._header[WIDTH // 8] = 8 * columns
        self._have(_LEAST_ROWS)

    @property
    def header(self) -> int:
        """Its address, which stays."""
        return int(self._header.ctypes.data)

    def empty(self) -> None:
        """Makes it ready for another batch."""
        self._slots.fill(0)
        self._header[COUNT // 8] = 0

    def grow_if_full(self) -> None:
        """Makes room for twice as many rows, if all are taken; it has to be emptied then."""
        if self._header[COUNT // 8] == len(self._keys):
            self._have(2 * len(self._keys))

    def rows(self) -> tuple[Int64s, Int64s]:
        """Keys, and their sums."""
        count = int(self._header[COUNT // 8])
        return self._keys[:count].copy(), self._rows[:count].copy()

    def _have(self, rows: int) -> None:
        self._slots = np.zeros(2 * rows, dtype=np.int32)
        self._keys = np.empty(rows, dtype=np.int64)
        self._rows = np.empty((rows, self._columns), dtype=np.int64)
        for field, array in ((SLOTS, self._slots), (KEYS, self._keys), (ROWS, self._rows)):
            self._header[field // 8] = array.ctypes.data
        self._header[MASK // 8] = len(self._slots) - 1
        self._header[ROOM // 8] = rows


class Summing:
    """The memory of `summarise`. One thread."""

    def __init__(self) -> None:
        widths = (len(PRODUCT_COLUMNS), len(CATEGORY_COLUMNS), len(COUNTRY_COLUMNS), len(COUNTRY_COLUMNS), 1)
        self._tables = [_Table(width) for width in widths]
        self._headers = np.array([table.header for table in self._tables], dtype=np.int64)
        self._touched = np.zeros(1024, dtype=np.int64)
        self._serial = 1

    def summarise(self, columns: Columns, dictionaries: Dictionaries, origins: Sequence[Origin]) -> Partial:
        """As `panes.summarise`, compiled."""
        if not len(columns):
            return nothing_of(dictionaries, origins)
        orders, lines = _in_columns(columns.orders), _in_columns(columns.lines)
        times = orders[c.EVENT_TIME]
        products, categories = len(dictionaries.products), len(dictionaries.categories)
        if categories > len(self._touched):
            self._touched = np.zeros(2 * categories, dtype=np.int64)
        positions = _positions(origins)
        partitions = sorted({origin.partition for origin in origins})
        partition_of = np.repeat([partitions.index(origin.partition) for origin in origins], [*map(len, origins)])
        first_ms = int(times.min()) // MINUTE_MS * MINUTE_MS
        while True:
            for table in self._tables:
                table.empty()
            serial, self._serial = self._serial, self._serial + len(columns)
            if _sum_up(
                len(columns),
                orders.ctypes.data,
                orders.strides[0] // 8,
                lines.ctypes.data,
                lines.strides[0] // 8,
                first_ms,
                products,
                categories,
                self._headers.ctypes.data,
                self._touched.ctypes.data,
                serial,
                positions.ctypes.data,
                positions.shape[1],
                partition_of.ctypes.data,
            ):
                break
            for table in self._tables:
                table.grow_if_full()
        by_product, by_category, by_country, by_minute, latest = self._tables
        product_codes, last = latest.rows()
        lines_of = last[:, 0] - 1
        rows_of = orders[c.ROW][lines[c.ORDER][lines_of]]
        return Partial(
            positions=reached(origins),
            max_event_time=int(times.max()),
            products=_cells(by_product, dictionaries.products, products, first_ms, SECOND_MS),
            categories=_cells(by_category, dictionaries.categories, categories, first_ms, SECOND_MS),
            countries=_cells(by_country, COUNTRIES, COUNTRY_CODES, first_ms, SECOND_MS),
            minutes=_cells(by_minute, dictionaries.scopes, scope_codes(categories), first_ms, MINUTE_MS),
            product_names=LatestNames(
                products=dictionaries.products,
                product_codes=product_codes,
                names=dictionaries.names,
                name_codes=lines[c.NAME][lines_of],
                event_times=times[lines[c.ORDER][lines_of]],
                positions=position_words(positions[rows_of, 0]) if positions.shape[1] == 1 else positions[rows_of],
                partitions=partitions,
                partition_codes=partition_of[rows_of],
            ),
        )


def _in_columns(table: Int64s) -> Int64s:
    """A table each of whose columns is one piece of memory, as addresses need it."""
    return table if table.strides[1] == table.itemsize else np.ascontiguousarray(table)


def _positions(origins: Sequence[Origin]) -> Int64s:
    """Of each message its position as one number, or as some, where one is larger than a number."""
    if all(isinstance(origin.positions, np.ndarray) for origin in origins):
        return np.concatenate([origin.positions for origin in origins]).reshape(-1, 1)
    return np.concatenate([position_words(origin.positions) for origin in origins])


def _cells(table: _Table, names: Names, width: int, first_ms: int, pane_ms: int) -> Cells:
    keys, sums = table.rows()
    panes = keys // width
    return in_panes(names, panes, keys - panes * width, sums, first=first_ms, pane_ms=pane_ms)
