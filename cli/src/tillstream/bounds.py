"""Where rolling windows begin and end, by the contract alone: nothing comes from `sales.windows`, which the processor
goes by."""

import re
from collections.abc import Iterable

LADDER_MS = (900_000, 60_000, 15_000, 5_000, 1_000)
"""The contract's panes, coarsest first."""

_NAME = re.compile(r"(\d+)([smhd])")
_UNIT_MS = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


def bounds(as_of: int, names: Iterable[str]) -> dict[str, tuple[int, int]]:
    """Each window's start and end (exclusive) at ``as_of``, in the order of the names; ms since 1970.

    Args:
        as_of: ms since 1970.
        names: all windows of the pipeline (``1m``, ``24h``); a window's pane depends on its neighbours.
    """
    names = list(names)
    found = {}
    longest_first = sorted(((_length_ms(name), name) for name in names), reverse=True)
    pane = LADDER_MS[0]
    for (length, name), (shorter, _) in zip(longest_first, [*longest_first[1:], (0, "")], strict=True):
        pane = next((p for p in LADDER_MS if p <= min(pane, length / 60, length - shorter) and length % p == 0), 1_000)
        end = (as_of // pane + 1) * pane
        found[name] = (end - length, end)
    return {name: found[name] for name in names}


def _length_ms(name: str) -> int:
    match = _NAME.fullmatch(name)
    if match is None:
        raise ValueError(f"{name!r} is no window")
    return int(match[1]) * _UNIT_MS[match[2]]
