"""The end of a stream: what is there and not stored yet."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime

from sales.settings import StoreSettings, StreamSettings
from sales.streams import Chunk, Stream
from sales.streams.connect import connect
from tillstream import interrupts
from tillstream.reading import Say
from tillstream.stored import Extents, Store

POLL_RECORDS = 5_000
POLL_SECONDS = 0.5


class TailSettings(StreamSettings, StoreSettings):
    """The streams, and where they are stored."""


def unstored(
    settings: TailSettings, name: str, timeout: float, say: Say, searched: list[str]
) -> Iterator[tuple[Stream, Chunk]]:
    """What is in a stream behind the last ``.done`` marker of each partition, up to its present end.

    Args:
        settings: the stream's wire, and the store.
        name: of the stream.
        timeout: seconds; what was not read by then is left out.
        say: hears what goes on.
        searched: takes, in the end, what was read, in words.

    Raises:
        StreamError, botocore.exceptions.BotoCoreError, ClientError: the stream or S3 can't be reached.
        StoredError: a marker in S3 contradicts itself.
        Interrupted: a signal came, inside `interrupts.raised`.
    """
    archive = Store.open(settings)
    wire = connect(settings, settings)
    try:
        stream = wire.open(name)
        say(f"reading what of stream {stream.id} is not stored yet")
        after: dict[str, int | None] = {}
        for partition in stream.partitions():
            extents = Extents(stream.id, partition)
            archive.extend(extents, since=datetime.now(UTC))
            after[partition] = None if extents.end is None else int(extents.end)
        ends = {name: end for name, end in stream.ends().items() if end is not None and name in after}
        left = {name: end for name, end in ends.items() if (known := after[name]) is None or end > known}
        deadline = time.monotonic() + timeout
        reader = stream.reader({partition: after[partition] for partition in left})
        try:
            while left and time.monotonic() < deadline:
                interrupts.check()
                for chunk in reader.poll(POLL_RECORDS, POLL_SECONDS):
                    if chunk.partition in left and chunk.positions[-1] >= left[chunk.partition]:
                        del left[chunk.partition]
                    yield stream, chunk
        finally:
            reader.close()
        unread = f", but for the end of {len(left)} partitions ({timeout:g} s were not enough)" if left else ""
        searched.append(f"stream {stream.id}, what is not stored yet{unread}")
    finally:
        wire.close()
