"""Which of the two ways to sum orders, that mean the same: compiled, or plain where numba can't be had."""

from processor.panes import Summarise, summarise


def summarising(*, compiled: bool) -> Summarise:
    """What sums orders, with memory of its own; for one thread.

    Args:
        compiled: in compiled code; needs numba.
    """
    if not compiled:
        return summarise
    from processor.summing import Summing  # noqa: PLC0415 (needs numba)

    return Summing().summarise
