"""A store inside one process, with the promises of S3 that the archive needs: for tests of what writes to it."""

import threading
from collections.abc import Mapping

from sink.store import ObjectFacts


class MemoryStore:
    """See ``Store``; several threads may use it."""

    address = "a store in memory"

    def __init__(self) -> None:
        self.objects: dict[str, tuple[bytes, dict[str, str]]] = {}
        self._lock = threading.Lock()

    def create(self, key: str, body: bytes, metadata: Mapping[str, str] | None = None) -> bool:
        """Writes a new object; False: there is one already."""
        with self._lock:
            if key in self.objects:
                return False
            self.objects[key] = (body, dict(metadata or {}))
            return True

    def overwrite(self, key: str, body: bytes) -> None:
        """Writes an object, whatever is there."""
        with self._lock:
            self.objects[key] = (body, {})

    def read(self, key: str) -> bytes | None:
        """An object's content, or None."""
        with self._lock:
            found = self.objects.get(key)
        return None if found is None else found[0]

    def facts(self, key: str) -> ObjectFacts | None:
        """An object's size and metadata, or None."""
        with self._lock:
            found = self.objects.get(key)
        return None if found is None else ObjectFacts(len(found[0]), found[1])
