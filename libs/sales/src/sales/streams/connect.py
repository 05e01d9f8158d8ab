"""Chooses the wire."""

from sales.settings import AwsSettings, StreamSettings
from sales.streams import Wire
from sales.streams.kafka import KafkaWire
from sales.streams.kinesis import KinesisWire


def connect(streams: StreamSettings, aws: AwsSettings) -> Wire:
    """The wire that ``STREAM`` names; reaches the far side within ``CONNECT_SECONDS``.

    Retries with growing pauses, and says on the log what is away and where.

    Raises:
        StreamError: still away after that time.
    """
    if streams.stream == "kafka":
        return KafkaWire.connect(streams)
    return KinesisWire.connect(streams, aws)
