"""Closed minutes: the record that goes from the processor to the sink. Pure."""

from typing import Literal

import msgspec

ALL = "all"
"""The scope of a record that speaks of a whole minute."""


class Rollup(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """Absolute totals of one minute, whole or for one country and category. Of two with the same scope and minute the
    higher version is right."""

    schema: Literal[1] = 1
    minute: str
    """RFC 3339, the start of the minute: 2026-11-20T08:12:00.000Z"""
    scope: str
    """``all``, or ``<country>/<category>``"""
    country: str | None = None
    category: str | None = None
    version: int
    """number of accepted events inside (sales and returns); grows with every late one"""
    orders: int = 0
    """sales with a line inside"""
    returns: int = 0
    units: int = 0
    """net: returns subtract"""
    sales_minor: int = 0
    refunded_minor: int = 0
    revenue_minor: int = 0
    """sales - refunded"""
    stale: bool = False
    """an event came for this minute after its pane was gone: this record holds no totals and has version 0; those of
    the highest version lack an event and can be rebuilt from S3"""


def cell_scope(country: str, category: str) -> str:
    """The scope of one country and category."""
    return f"{country}/{category}"


def encode(rollup: Rollup) -> tuple[bytes, bytes]:
    """Key and value of the message. The key keeps one scope's minute in one partition; the category is no part of it,
    so that it stays far below the 256 characters that Kinesis takes."""
    return f"{rollup.country or ALL}@{rollup.minute}".encode(), _encode(rollup)


def decode(value: bytes) -> Rollup:
    """One message's value.

    Raises:
        msgspec.MsgspecError: it is no rollup.
    """
    return _decode(value)


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Rollup).decode
