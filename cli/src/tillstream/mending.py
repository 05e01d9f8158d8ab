"""What a dead letter's message may become, so that it is accepted: a small change, then the same rules as for any
message. Pure."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from sales.orders import decode
from sales.rules import Rules

Document = dict[str, Any]
Change = Callable[[Document], Document | None]
"""Gets the message as JSON has it, and gives what it should be; None: this one is left as it is."""

CONFLICT = "conflict"


class PatchError(ValueError):
    """A patch or a function is none; the message says why."""


@dataclass(frozen=True, slots=True)
class Refused:
    """A message as the dead letter holds it."""

    raw: bytes
    raw_bytes: int
    """how many there were: of a long message only the beginning is kept"""
    reason: str


@dataclass(frozen=True, slots=True)
class Mended:
    """A message that will be accepted (or is a duplicate by now)."""

    key: bytes
    value: bytes


@dataclass(frozen=True, slots=True)
class Unmended:
    """Why a message can't be sent again."""

    reason: str
    """as dead letters have it; ``cut``: not all of it was kept; ``left``: the change left it out"""
    detail: str


def mend(rules: Rules, refused: Refused, changes: Sequence[Change], now_ms: int) -> Mended | Unmended:
    """Changes a message and decodes it as the processor will.

    Args:
        rules: the pipeline's currency and countries.
        refused: the message.
        changes: one after the other; without any the very bytes are kept.
        now_ms: the broker time that it would get.
    """
    if refused.raw_bytes > len(refused.raw):
        return Unmended("cut", f"of its {refused.raw_bytes} bytes the first {len(refused.raw)} were kept")
    value = refused.raw
    try:
        document = before = msgspec.json.decode(value)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        return Unmended("json", f"the message is no JSON: {error}")
    if not isinstance(document, dict):
        return Unmended("json", f"the message is JSON, but a {type(document).__name__} and no object")
    for change in changes:
        document = change(document)
        if document is None:
            return Unmended("left", "the function gave None for it")
    if changes:
        value = msgspec.json.encode(document)
    key = str(document.get("order_id", "")).encode()
    decoded = decode(rules, [key], [value], [0], [now_ms])
    if decoded.rejected:
        return Unmended(decoded.rejected[0].reason, decoded.rejected[0].detail)
    if refused.reason == CONFLICT and _identity(document) == _identity(before):
        return Unmended(CONFLICT, f"order {key.decode()} stands with other content; only with another id can both")
    return Mended(key, value)


def _identity(document: Document) -> tuple[Any, Any]:
    return document.get("order_id"), document.get("event_time")


def patch(text: str) -> Change:
    """The change that a JSON merge patch (RFC 7396) makes: fields given are set, fields that are null go, lists are
    replaced whole.

    Raises:
        PatchError: it is no JSON object.
    """
    try:
        given = json.loads(text)
    except ValueError as error:
        raise PatchError(f"the patch is no JSON: {error}") from error
    if not isinstance(given, dict):
        raise PatchError(f"the patch is JSON, but no object: {text}")
    return lambda document: _merged(document, given)


def _merged(target: Any, given: Document) -> Document:
    merged = dict(target) if isinstance(target, dict) else {}
    for name, value in given.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = _merged(merged.get(name), value) if isinstance(value, dict) else value
    return merged


def function(source: str, name: str) -> Change:
    """The function ``mend(order)`` of a Python file.

    Args:
        source: the file's text.
        name: what it is called in messages.

    Raises:
        PatchError: the file can't be run, or defines no such function.
    """
    scope: dict[str, Any] = {}
    try:
        exec(compile(source, name, "exec"), scope)  # noqa: S102 (the user's own file, named on the command line)
    except Exception as error:
        raise PatchError(f"{name} can't be run: {error!r}") from error
    mend_ = scope.get("mend")
    if not callable(mend_):
        raise PatchError(f"{name} defines no function mend(order)")

    def change(document: Document) -> Document | None:
        try:
            mended = mend_(document)
        except Exception as error:
            raise PatchError(f"{name}: mend() failed on order {document.get('order_id')!r}: {error!r}") from error
        if mended is not None and not isinstance(mended, dict):
            raise PatchError(f"{name}: mend() gave a {type(mended).__name__}, not the order or None")
        return mended

    return change
