"""What the processor is configured by."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator

from sales.settings import AwsSettings, BoardSettings, MetricsSettings, RuleSettings, StreamSettings
from sales.windows import MINUTE_MS

HORIZON_MARGIN_MS = 30 * MINUTE_MS
"""Identities are remembered this much longer than the longest window: its last pane (15 min), an event time ahead of
broker time (5 min), and clocks that differ."""

MOST_PROCESSES = 4
"""More would wait for the one that holds the numbers."""


class ProcessorSettings(StreamSettings, AwsSettings, BoardSettings, RuleSettings, MetricsSettings):
    """The stream, the board, the shop's rules, metrics, and the processor's own settings."""

    recovery_dir: Path
    """a directory of its own, on a disk that outlives the process; only one processor may use it"""
    clock: Literal["wall", "event"] = "wall"
    """what ``as_of`` follows: the clock on the wall, or the largest event time accepted (replays of history)"""
    tick_ms: Annotated[int, Field(ge=10, le=60_000)] = 100
    """the longest time between two ticks; with time to spare, and something new, they come up to every 20 ms"""
    snapshot_ms: Annotated[int, Field(ge=100, le=60_000)] = 1000
    """how often the state is made durable: what a crash makes us read again"""
    slots: Annotated[int, Field(ge=1, le=64)] = 4
    """how many readers share Kafka's partitions (on Kinesis it is one); fixed for the life of a recovery directory"""
    processes: Annotated[int, Field(ge=1, le=MOST_PROCESSES)] = 1
    """processes on this machine that share the slots, at most as many as there are; may change from start to start"""
    poll_records: Annotated[int, Field(ge=1, le=100_000)] = 16_000
    """messages summed in one piece: more cost less each, and are seen later"""
    decoder: Literal["auto", "plain"] = "auto"
    """``auto`` lets compiled code take the well-formed orders where numba is installed; ``plain`` never does"""
    dead_letter_share: Annotated[float, Field(gt=0, le=1)] = 0.5
    """stop when more than this share of the last 10,000 messages could not be accepted"""
    away_seconds: Annotated[float, Field(gt=0, le=86_400)] = 300
    """how long work waits for a Redis or a stream that went away before the processor ends with an error"""

    @field_validator("processes")
    @classmethod
    def _have_slots(cls, value: int, info: ValidationInfo) -> int:
        slots = info.data.get("slots", value) if info.data.get("stream") == "kafka" else 1
        if value > slots:
            raise ValueError(f"there are {slots} slots to share (SLOTS; on Kinesis it is one)")
        return value

    @property
    def source_slots(self) -> int:
        """One on Kinesis, where shards split and merge: the slot that read a parent goes on with its children, and with
        several slots a restart could give a child to two of them."""
        return self.slots if self.stream == "kafka" else 1

    @property
    def horizon_ms(self) -> int:
        """How far behind the newest event identities are remembered."""
        return self.windows[-1].length_ms + HORIZON_MARGIN_MS
