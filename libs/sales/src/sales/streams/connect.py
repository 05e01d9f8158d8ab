"""Chooses the wire. Only its own clients are loaded: native code that is not needed can't crash a service either."""

# ruff: noqa: PLC0415 (see above: each wire brings clients of its own)

from sales.settings import AwsSettings, StreamSettings
from sales.streams import Wire


def connect(streams: StreamSettings, aws: AwsSettings) -> Wire:
    """The wire that ``STREAM`` names; reaches the far side within ``CONNECT_SECONDS``.

    Retries with growing pauses, and says on the log what is away and where.

    Raises:
        AwayError: still away after that time.
        StreamError: it refused us.
    """
    if streams.stream == "kafka":
        from sales.streams.kafka import KafkaWire

        return KafkaWire.connect(streams)
    from sales.streams.kinesis import KinesisWire

    return KinesisWire.connect(streams, aws)
