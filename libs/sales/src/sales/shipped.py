"""Compiled code that was made when an image was built: numba reads it where nothing can be written. Needs numba.

The images set ``NUMBA_CACHE_LOCATOR_CLASSES=sales.shipped.ShippedCache``; numba's own locators pass by a folder that
they cannot write to, and every start would compile again.
"""

import contextlib

from numba.core.caching import InTreeCacheLocator


class ShippedCache(InTreeCacheLocator):  # type: ignore[misc] # numba has no types
    """What lies in ``__pycache__`` beside the source, whether or not it can be added to."""

    def ensure_cache_path(self) -> None:
        """Makes the folder where that is possible; where it isn't, there is something to read, or compiling's own
        fallback (`sales.compiled.compiled`)."""
        with contextlib.suppress(OSError):
            super().ensure_cache_path()
