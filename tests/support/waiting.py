"""Waiting for what another thread or process does."""

import time
from collections.abc import Callable

PAUSE_SECONDS = 0.005
"""Between two looks, which leaves the processor to those that are waited for."""


def eventually(condition: Callable[[], object], what: str = "", *, seconds: float = 20) -> None:
    """Waits until the condition holds; fails, with ``what`` was waited for, when it does not within the bound."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what or condition}"
        time.sleep(PAUSE_SECONDS)
