"""How often the numbers are published: as often as there is time to spare. Pure."""

SHARE = 0.3
"""Ticks may take so much of the time that other work leaves."""

LEAST_SECONDS = 0.02
"""Nobody looks more often than fifty times a second."""


def seconds_to_next(*, longest: float, tick: float, other: float) -> float:
    """How long after a tick the next one is due.

    Args:
        longest: seconds that may pass, whatever the load.
        tick: seconds that the last tick took, with its publishing.
        other: the share of the time since the tick before that went into other work; as it was measured, so about
            0 to 1.
    """
    spare = SHARE * (1 - min(max(other, 0.0), 1.0))
    if tick >= longest * spare:
        return longest
    return max(LEAST_SECONDS, tick / spare)
