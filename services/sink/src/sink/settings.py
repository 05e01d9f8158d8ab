"""What the sink is told by its environment."""

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator
from pydantic_settings import NoDecode

from sales.settings import MetricsSettings, RotationSettings, RuleSettings, StoreSettings, StreamSettings

Lane = Literal["archive", "index"]


class SinkSettings(StreamSettings, StoreSettings, RotationSettings, RuleSettings, MetricsSettings):
    """Everything the sink is configured with: the streams, the store, the rules of an order, metrics, and its own."""

    sink_group: Annotated[str, Field(min_length=1, pattern=r"^[A-Za-z0-9._-]+$")] = "sink"
    """each lane reads as a group of its own, ``<sink_group>-<lane>-<kind>``: ``sink-archive-orders``"""
    lanes: Annotated[tuple[Lane, ...], NoDecode, Field(min_length=1)] = ("archive", "index")
    """``archive`` writes S3, ``index`` writes DynamoDB; each may run in a process of its own"""

    rotate_bytes: Annotated[int, Field(ge=1_000, le=1_000_000_000)] = 64_000_000
    """message bytes of one partition after which an extent is written"""
    rotate_records: Annotated[int, Field(ge=1, le=10_000_000)] = 1_000_000
    """messages of one partition after which an extent is written"""
    buffer_bytes: Annotated[int, Field(ge=1_000_000, le=10_000_000_000)] = 64_000_000
    """bytes of memory in which the archive holds one stream's decoded messages, all partitions together; then it writes
    early and pauses. Usual orders take about a quarter of what their messages do"""

    store_threads: Annotated[int, Field(ge=1, le=64)] = 8
    """requests to S3, or to DynamoDB, at one time and lane"""
    stop_seconds: Annotated[float, Field(ge=0, le=600)] = 20
    """how long a stop, or the loss of a partition, waits for what was read to be written; the process ends 5 seconds
    later at most: within the 30 seconds that Kubernetes leaves (Compose: set stop_grace_period). What is not written
    then is read again"""

    @field_validator("lanes", mode="before")
    @classmethod
    def _lanes(cls, value: Any) -> Any:
        return tuple(value.replace(",", " ").split()) if isinstance(value, str) else value

    def reads(self) -> dict[str, str]:
        """Each lane's name, and the stream that it reads."""
        archive = {
            "archive-orders": self.orders_stream,
            "archive-rollups": self.rollups_stream,
            "archive-dead-letters": self.dead_letters_stream,
        }
        index = {"index-orders": self.orders_stream, "index-rollups": self.rollups_stream}
        return (archive if "archive" in self.lanes else {}) | (index if "index" in self.lanes else {})

    def group(self, lane: str) -> str:
        """The group that a lane reads as."""
        return f"{self.sink_group}-{lane}"
