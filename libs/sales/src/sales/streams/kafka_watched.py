"""What is known of a topic without asking. One thread of `sales.streams.kafka` asks; readers look."""

import time
from dataclasses import dataclass, field

from sales.streams import SILENT_SECONDS, PositionLostError


@dataclass(slots=True)
class Watched:
    """One incarnation of a topic, as last heard."""

    names: list[str]
    """of its partitions"""
    lost: PositionLostError | None = None
    """it is gone, for good"""
    heard: float = field(default_factory=time.monotonic)
    """when the cluster last answered"""

    def partitions(self) -> list[str]:
        """All there are.

        Raises:
            PositionLostError: the topic is known to be gone.
        """
        if self.lost is not None:
            raise self.lost
        return list(self.names)

    def is_silent(self) -> bool:
        """Whether the cluster has not answered for SILENT_SECONDS: what was heard before may no longer be so."""
        return time.monotonic() - self.heard > SILENT_SECONDS
