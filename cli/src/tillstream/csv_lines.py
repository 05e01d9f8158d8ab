"""Order lines as the bytes of a CSV, by compiled code. Pure; needs numba.

A text is made a cell once for each of its distinct values, quoted where it must be; a line then is copies of cells, and
numbers. The bytes are those that `tillstream.exporting` makes with DuckDB, in a third of its time: a test holds the two
together.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from sales.compiled import byte_at, compiled, int_at, long_at, put_byte, put_int, put_long
from sales.memory import PADDING
from sales.windows import DAY_MS

Int64s = npt.NDArray[np.int64]

PIECE_BYTES = 1 << 20
"""Lines are made in pieces that stay in a core's cache until they are written."""

NUMBER_BYTES = 24
"""A number of 64 bits with its sign, point and leading zero, and the separator behind it."""

COLUMNS = (
    "order_id category customer_id event_time product_id product_name discount_percent gross_amount profit_amount "
    "country region quantity net_amount currency line"
).split()
"""What lines are made of, in the contract's order."""

HEADER = (
    b"order_id,category,customer_id,order_date,product_id,product_name,discount,sales,profit,"
    b"country,region,quantity,net,currency,line\n"
)

_CODES, _ENDS, _CELLS, _NUMBERS, _VALID, _DIGITS = range(6)
"""How compiled code is told of a column: addresses, 0 for none, and digits behind the point. It has either numbers, or
cells: chosen by codes, or one a row."""


@compiled("int64(int64, int64, int64, int64, int64)", nogil=True)
def _quote(count, ends, texts, cell_ends, cells):
    """Texts to cells: harmless to spreadsheets, in quotation marks where a CSV asks for them. How many bytes."""
    at = 0
    for text in range(count):
        begin, end = int_at(ends + 4 * text), int_at(ends + 4 * text + 4)
        quoted = begin == end  # nothing at all would be no value
        for place in range(texts + begin, texts + end):
            byte = byte_at(place)
            quoted |= (byte == ord(",")) | (byte == ord('"')) | (byte == ord("\n")) | (byte == ord("\r"))
            quoted |= byte == ord("#")  # some readers take it for a comment
        first = byte_at(texts + begin) if begin < end else 0
        if quoted:
            put_byte(cells + at, ord('"'))
            at += 1
        # What a spreadsheet takes for the beginning of a formula (OWASP, CSV injection).
        if (
            first == ord("=")
            or first == ord("+")
            or first == ord("-")
            or first == ord("@")
            or first == ord("\t")
            or first == ord("\n")
            or first == ord("\r")
        ):
            put_byte(cells + at, ord("'"))
            at += 1
        if quoted:
            for place in range(texts + begin, texts + end):
                byte = byte_at(place)
                if byte == ord('"'):
                    put_byte(cells + at, byte)
                    at += 1
                put_byte(cells + at, byte)
                at += 1
            put_byte(cells + at, ord('"'))
            at += 1
        else:
            for place in range(end - begin):
                put_byte(cells + at + place, byte_at(texts + begin + place))
            at += end - begin
        put_int(cell_ends + 4 * text + 4, at)
    return at


@compiled("int64(int64, int64, int64)", nogil=True)
def _put_number(value, digits, out):
    """Writes a number with so many digits behind the point; the address behind it."""
    if value < 0:
        put_byte(out, ord("-"))
        out += 1
    rest = np.uint64(-value) if value < 0 else np.uint64(value)  # of the least of all numbers too: it wraps to itself
    length, reach = 1, np.uint64(10)
    while length < 19 and rest >= reach:
        length += 1
        reach *= np.uint64(10)
    length = max(length, digits + 1)
    end = out + length + (1 if digits else 0)
    place = end
    for digit in range(length):
        place -= 1
        if digits and digit == digits:
            put_byte(place, ord("."))
            place -= 1
        tenth = rest // np.uint64(10)
        put_byte(place, ord("0") + np.int64(rest - np.uint64(10) * tenth))
        rest = tenth
    return end


@compiled("UniTuple(int64, 2)(int64, int64, int64, int64[:, ::1], int64, int64)", nogil=True)
def _put_lines(rows, done, count, columns, out, last):
    """Writes lines of the rows from the ``done``-th until none is left or the address ``last`` is passed; how many are
    done then, and the address behind them."""
    while done < count and out <= last:
        row = long_at(rows + 8 * done)
        for column in range(len(columns)):
            valid = columns[column, _VALID]
            if valid == 0 or byte_at(valid + row):
                cells = columns[column, _CELLS]
                if cells:
                    codes, ends = columns[column, _CODES], columns[column, _ENDS]
                    code = int_at(codes + 4 * row) if codes else row
                    begin, end = int_at(ends + 4 * code), int_at(ends + 4 * code + 4)
                    for word in range(begin, end, 8):  # beyond the end too: what follows is written over that
                        put_long(out + word - begin, long_at(cells + word))
                    out += end - begin
                else:
                    out = _put_number(long_at(columns[column, _NUMBERS] + 8 * row), columns[column, _DIGITS], out)
            put_byte(out, ord(","))
            out += 1
        put_byte(out - 1, ord("\n"))
        done += 1
    return done, out


@dataclass(slots=True, eq=False)
class CsvLines:
    """Order lines that can be written, all or some; see `csv_lines`."""

    columns: list[list[int]] = field(default_factory=list)
    alive: list[object] = field(default_factory=list)
    """what the addresses are of"""
    longest: int = 0
    """bytes that a line can have"""

    def of(self, rows: Int64s) -> Iterator[memoryview]:
        """Those of some rows, in pieces; a piece is good until the next one is asked for."""
        out = np.empty(PIECE_BYTES + self.longest + PADDING, np.uint8)
        columns = np.array(self.columns, np.int64)
        start, done = out.ctypes.data, 0
        while done < len(rows):
            done, end = _put_lines(rows.ctypes.data, done, len(rows), columns, start, start + PIECE_BYTES)
            yield out[: end - start].data

    def add_texts(self, column: pa.Array) -> None:
        """A column of texts, dictionary-encoded where they repeat."""
        repeat = isinstance(column, pa.DictionaryArray)
        texts = column.dictionary if repeat else column
        codes = _address(column.indices) if repeat else 0
        _, ends, data = texts.buffers()
        size = 0 if data is None else data.size
        cells = np.empty(2 * size + 3 * len(texts) + PADDING, np.uint8)
        cell_ends = np.zeros(len(texts) + 1, np.int32)
        if len(texts):
            _quote(
                len(texts),
                ends.address + 4 * texts.offset,
                0 if data is None else data.address,
                cell_ends.ctypes.data,
                cells.ctypes.data,
            )
        self.alive += [column, cells, cell_ends]
        self.longest += 1 + int(np.diff(cell_ends).max(initial=0))
        self.columns.append([codes, cell_ends.ctypes.data, cells.ctypes.data, 0, self._valid(column), 0])

    def add_numbers(self, column: pa.Array, digits: int = 0) -> None:
        """A column of integers, written with so many digits behind the point."""
        wide = column.cast(pa.int64())
        self.alive.append(wide)
        self.longest += NUMBER_BYTES
        self.columns.append([0, 0, 0, _address(wide), self._valid(wide), digits])

    def _valid(self, column: pa.Array) -> int:
        if not column.null_count:
            return 0
        valid = column.is_valid().cast(pa.uint8())
        self.alive.append(valid)
        return _address(valid)


def csv_lines(table: pa.Table, digits: int) -> CsvLines:
    """The lines of a table, in the columns of the contract.

    Args:
        table: COLUMNS of `sink.layouts.ORDERS`, the texts dictionary-encoded or not.
        digits: how many digits amounts have behind the point.
    """
    lines = CsvLines()
    for name in COLUMNS:
        column = table[name].combine_chunks()
        if name == "event_time":
            lines.add_texts(_dates(column))
        elif not pa.types.is_integer(column.type):
            lines.add_texts(column)
        else:
            lines.add_numbers(column, digits if name.endswith("_amount") else 0)
    return lines


def _dates(times: pa.Array) -> pa.Array:
    """``20/11/2026``: days as people of most countries write them."""
    days = times.cast(pa.int64()).to_numpy() // DAY_MS
    first, last = (int(days.min()), int(days.max())) if len(days) else (0, -1)
    texts = [datetime.fromtimestamp(day * DAY_MS // 1000, UTC).strftime("%d/%m/%Y") for day in range(first, last + 1)]
    return pa.DictionaryArray.from_arrays(pa.array((days - first).astype(np.int32)), pa.array(texts, pa.string()))


def _address(array: pa.Array) -> int:
    """Where the first value of fixed width is."""
    first: int = array.buffers()[1].address + array.offset * array.type.bit_width // 8
    return first
