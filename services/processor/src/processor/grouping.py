"""Adding up the rows that share a key, thousands at a time. Pure; all numbers are int64.

`group` and `add_rows` are compiled where numba is there, and the same in numpy where it is not.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

Int64s = npt.NDArray[np.int64]


def group_in_numpy(keys: Int64s, values: Int64s) -> tuple[Int64s, Int64s]:
    """Distinct keys, in the order of their first rows, and for each the sums of its rows.

    Args:
        keys: one a row.
        values: shape (rows, columns).
    """
    distinct, first, which = np.unique(keys, return_index=True, return_inverse=True)
    sums = np.zeros((len(distinct), values.shape[1]), dtype=np.int64)
    np.add.at(sums, which, values)
    order = np.argsort(first)
    return distinct[order], sums[order]


def greatest(keys: Int64s, owners: Int64s, ranks: Int64s) -> Int64s:
    """For each distinct key, in the order of their first rows, the row whose owner ranks highest; the last of equals.

    Args:
        keys: one a row.
        owners: of each row, its row of ``ranks``.
        ranks: shape (owners, columns); the first column decides, then the next.
    """
    order = np.lexsort((*ranks[owners].T[::-1], keys))
    last = np.flatnonzero(np.concatenate((keys[order][1:] != keys[order][:-1], [True] * min(1, len(keys)))))
    best = order[last]
    _, first = np.unique(keys, return_index=True)  # ascending by key, as ``best``
    chosen: Int64s = best[np.argsort(first)]
    return chosen


def add_rows_in_numpy(table: Int64s, places: Int64s, rows: Int64s, sign: int) -> None:
    """Adds each row to a table's row at its place.

    Args:
        table: shape (places, columns); changed.
        places: one a row; may repeat.
        rows: shape (rows, columns).
        sign: 1 to add, -1 to take away.
    """
    np.add.at(table, places, sign * rows)


SPREAD = -0x61C8864680B583EB
"""2^64 divided by the golden ratio, as a signed number: neighbours land far apart (Knuth, Fibonacci hashing)."""


def _group(keys, values, slots, distinct, sums):
    mask = len(slots) - 1
    count = 0
    for row in range(len(keys)):
        key = keys[row]
        place = ((key * SPREAD) >> 32) & mask
        found = slots[place]
        while found != 0 and distinct[found - 1] != key:
            place = (place + 1) & mask
            found = slots[place]
        if found == 0:
            distinct[count] = key
            for column in range(values.shape[1]):
                sums[count, column] = values[row, column]
            count += 1
            slots[place] = count
        else:
            for column in range(values.shape[1]):
                sums[found - 1, column] += values[row, column]
    return count


def _add_rows(table, places, rows, sign):
    for row in range(len(places)):
        place = places[row]
        for column in range(rows.shape[1]):
            table[place, column] += sign * rows[row, column]


try:
    from sales.compiled import compiled
except ImportError:  # no numba
    group, add_rows = group_in_numpy, add_rows_in_numpy
else:
    _group_compiled: Any = compiled("int64(int64[:], int64[:, :], int32[::1], int64[::1], int64[:, ::1])")(_group)
    _add_rows_compiled: Any = compiled("void(int64[:, :], int64[:], int64[:, :], int64)")(_add_rows)

    def group(keys: Int64s, values: Int64s) -> tuple[Int64s, Int64s]:
        """As `group_in_numpy`, compiled."""
        distinct = np.empty(len(keys), dtype=np.int64)
        sums = np.empty(values.shape, dtype=np.int64)
        count = _group_compiled(keys, values, _free_slots(len(keys)), distinct, sums)
        distinct.resize(count, refcheck=False)
        sums.resize((count, values.shape[1]), refcheck=False)
        return distinct, sums

    def add_rows(table: Int64s, places: Int64s, rows: Int64s, sign: int) -> None:
        """As `add_rows_in_numpy`, compiled."""
        _add_rows_compiled(table, places, rows, sign)

    def _free_slots(keys: int) -> npt.NDArray[np.int32]:
        """A slot is 0 where it is free, else the number of a distinct key, from 1 on; two thirds are taken at most."""
        return np.zeros(1 << (keys + keys // 2).bit_length(), dtype=np.int32)
