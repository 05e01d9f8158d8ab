"""Says what goes on and on only once in a while."""

import time

SECONDS = 30.0
"""A fault that lasts is a line on the log this often."""


class Seldom:
    """Tells when it is time to say something again; any thread may ask."""

    def __init__(self) -> None:
        self._next: dict[str, float] = {}

    def due(self, kind: str) -> bool:
        """Whether this kind of thing was not said for ``SECONDS``. Kinds are few: each is remembered."""
        now = time.monotonic()
        if now < self._next.get(kind, 0.0):
            return False
        self._next[kind] = now + SECONDS
        return True
