"""Buffers: what may be read behind their end, and what becomes of them when they are freed."""

import ctypes

PADDING = 32
"""Bytes behind the last byte of a buffer that may be read, so that compiled code may look at whole words."""

KEPT_BYTES = 32 * 1024 * 1024

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
"""Names of glibc's settings, from malloc.h."""


def keep_freed() -> None:
    """From now on the process keeps up to KEPT_BYTES of what it frees, instead of giving it back at once.

    For a process that takes and frees buffers of some megabytes all the time: each time they come from the system
    anew, page by page, and cleared, which can cost more than filling them. Elsewhere than on glibc nothing happens.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, KEPT_BYTES // 2)
        mallopt(_TRIM_THRESHOLD, KEPT_BYTES)


def share_freed() -> None:
    """From now on all threads take memory from one place, where what one has freed serves the next; else each thread
    keeps its own. For a process whose threads hand large buffers to one another. Before the first thread is started."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_ARENA_MAX, 1)


def give_back() -> None:
    """Gives what is freed back to the system now, once: after work that took much more than what follows will."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
