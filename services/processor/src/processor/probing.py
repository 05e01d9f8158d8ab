"""Open addressing with linear probing, thousands of keys at a time. Pure.

A slot is 0 where it is free; else its upper bits are a tag of the key that has it. `advance` is compiled where numba is
there, and the same in numpy where it is not.
"""

import numpy as np
import numpy.typing as npt

Int64s = npt.NDArray[np.int64]
Slots = npt.NDArray[np.uint32] | npt.NDArray[np.uint64]


def advance_in_numpy(slots: Slots, places: Int64s, wanted: Slots, pending: Int64s, tag_shift: int) -> Int64s:
    """Moves some keys on until each has a slot, or stands at one whose tag is its own.

    Args:
        slots: the table; its length is a power of two, and some are free.
        places: where each key stands; moved.
        wanted: what each key writes into a free slot.
        pending: which keys to move, ascending; of two that want one slot the first gets it.
        tag_shift: how many bits are below the tag.

    Returns:
        Those that stand at a slot with their tag, ascending.
    """
    shift = np.uint64(tag_shift)
    stopped: list[Int64s] = []
    moving = pending
    while len(moving):
        # Of several that write one slot the last write stays: so the first key writes last.
        free = moving[slots[places[moving]] == 0][::-1]
        slots[places[free]] = wanted[free]
        met = slots[places[moving]]
        settled = met == wanted[moving]
        alike = ~settled & ((met >> shift) == (wanted[moving] >> shift))
        stopped.append(moving[alike])
        moving = moving[~settled & ~alike]
        places[moving] = (places[moving] + 1) & (len(slots) - 1)
    return np.sort(np.concatenate(stopped)) if stopped else pending


def _advance(slots, places, wanted, pending, tag_shift):
    shift = np.uint64(tag_shift)
    mask = len(slots) - 1
    stopped = np.empty_like(pending)
    count = 0
    for key in pending:
        place = places[key]
        value = wanted[key]
        tag = value >> shift
        met = slots[place]
        while met != 0 and met >> shift != tag:
            place = (place + 1) & mask
            met = slots[place]
        places[key] = place
        if met == 0:
            slots[place] = value
        else:
            stopped[count] = key
            count += 1
    return stopped[:count]


try:
    from sales.compiled import compiled
except ImportError:  # no numba
    advance = advance_in_numpy
else:
    _narrow = compiled("int64[:](uint32[:], int64[:], uint32[:], int64[:], int64)")(_advance)
    _wide = compiled("int64[:](uint64[:], int64[:], uint64[:], int64[:], int64)")(_advance)

    def advance(slots: Slots, places: Int64s, wanted: Slots, pending: Int64s, tag_shift: int) -> Int64s:
        """As `advance_in_numpy`, compiled."""
        run = _narrow if slots.dtype == np.uint32 else _wide
        stopped: Int64s = run(slots, places, wanted, pending, tag_shift)
        return stopped
