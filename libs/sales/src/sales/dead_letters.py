"""Dead letters: what became of a message that can never be accepted. Pure."""

import base64
import hashlib
from typing import Literal

import msgspec

from sales.rejections import Rejection
from sales.times import format_time

MAX_RAW_BYTES = 512_000
"""Raw bytes kept. In base64 they are 683 kB: below the 1 MB that brokers take, where an unsendable dead letter would
block its partition for ever."""


class DeadLetter(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """One message that was refused; (stream, partition, position) is its identity: sent twice it is one."""

    schema: Literal[1] = 1
    stream: str
    """the stream's id, name and incarnation"""
    partition: str
    position: str
    """fixed width"""
    broker_time: str
    key: str | None
    """the message's key, base64"""
    reason: str
    detail: str
    """a sentence for people"""
    raw: str
    """the message's bytes, base64; the first 512,000 of them"""
    raw_bytes: int
    """how many there were"""
    raw_sha256: str
    """of all of them, hex"""

    @property
    def identity(self) -> str:
        """``<stream>/<partition>/<position>``."""
        return f"{self.stream}/{self.partition}/{self.position}"


def dead_letter(rejection: Rejection, *, stream: str, partition: str, position: str) -> DeadLetter:
    """The dead letter for a rejection."""
    return DeadLetter(
        stream=stream,
        partition=partition,
        position=position,
        broker_time=format_time(rejection.broker_time),
        key=None if rejection.key is None else base64.b64encode(rejection.key[:1024]).decode(),
        reason=rejection.reason,
        detail=rejection.detail,
        raw=base64.b64encode(rejection.value[:MAX_RAW_BYTES]).decode(),
        raw_bytes=len(rejection.value),
        raw_sha256=hashlib.sha256(rejection.value).hexdigest(),
    )


def encode(letter: DeadLetter) -> tuple[bytes, bytes]:
    """Key (its identity) and value of the message."""
    return letter.identity.encode(), _encode(letter)


def decode(value: bytes) -> DeadLetter:
    """One message's value.

    Raises:
        msgspec.MsgspecError: it is no dead letter.
    """
    return _decode(value)


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(DeadLetter).decode
