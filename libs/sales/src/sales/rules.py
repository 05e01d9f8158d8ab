"""What an order must keep beyond its shape: limits, the pipeline's own rules. Pure."""

from collections.abc import Collection
from dataclasses import dataclass

SCHEMA_VERSION = 1

MAX_MESSAGE_BYTES = 1_000_000
"""1 MB, the size a Kafka broker and a Kinesis stream both take by default."""

MAX_NESTING = 100
"""JSON arrays and objects inside one another; an order has three. Decoders give up where the interpreter's stack ends,
and whether a message is an order must not depend on who calls."""

MAX_AMOUNT = 10**12
"""Minor units (or pieces) that one number, and one order's sum, may reach: 9,000 such orders still add up below 2**53,
where Redis's double scores stop being exact."""

MAX_NAME = 256
"""Characters of a product id or a category. In UTF-8 they are at most 1,024 bytes: every place that makes a key of one,
alone or behind a country, takes that (DynamoDB 2,048)."""

MAX_TEXT = 1024
"""Characters of a text that is nobody's key."""

FUTURE_ALLOWANCE_MS = 5 * 60 * 1000
"""How far an event time may run ahead of broker time: shop clocks drift, but one order must not move windows."""

EARLIEST_EVENT_TIME_MS = 946_684_800_000
"""2000-01-01T00:00:00Z: an earlier event time is a broken clock (an unset one says 1970)."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What a pipeline accepts beyond the event's own shape."""

    currency: str
    countries: Collection[str]
