"""How far groups are, kept in the bucket, for a wire that keeps none itself (Kinesis)."""

import msgspec

from sales.streams import Checkpoint, StreamError
from sink.store import S3Store, StoreError

SAVE_TRIES = 5
"""Another process may save between our read and our write; each try then sees its newer position."""


class _Saved(msgspec.Struct, frozen=True):
    """The object's content; see ``Checkpoint``."""

    position: str
    """digits; compared as a number"""
    tip_ms: int = 0


class S3Checkpoints:
    """``Checkpoints`` as objects ``_checkpoints/<group>/<stream id>/<partition>.json``.

    Any thread may call. A position never goes back, also when a process that lost its partition saves late.
    """

    def __init__(self, store: S3Store) -> None:
        self._store = store

    def load(self, group: str, stream: str, partition: str) -> Checkpoint | None:
        """The last one saved, or None.

        Raises:
            AwayError: the store is away.
            StreamError: it refuses.
        """
        try:
            tagged = self._store.read_tagged(_key(group, stream, partition))
        except StoreError as error:
            raise StreamError(f"a checkpoint of group {group} can't be read: {error}") from error
        return None if tagged is None else _decode(tagged[0])

    def save(self, group: str, stream: str, partition: str, checkpoint: Checkpoint) -> None:
        """Durably, unless a newer one is saved already.

        Raises:
            AwayError: not saved, the store is away.
            StreamError: not saved, the store refuses.
        """
        key = _key(group, stream, partition)
        body = msgspec.json.encode(_Saved(str(checkpoint.position), checkpoint.tip_ms))
        try:
            for _ in range(SAVE_TRIES):
                tagged = self._store.read_tagged(key)
                if tagged is None:
                    saved = self._store.create(key, body)
                elif _decode(tagged[0]) >= checkpoint:
                    return
                else:
                    saved = self._store.replace(key, body, tagged[1])
                if saved:
                    return
        except StoreError as error:
            raise StreamError(f"a checkpoint of group {group} can't be saved: {error}") from error
        raise StreamError(f"{self._store.address}: {key} was changed by others {SAVE_TRIES} times while it was saved")


def _key(group: str, stream: str, partition: str) -> str:
    return f"_checkpoints/{group}/{stream}/{partition}.json"


def _decode(body: bytes) -> Checkpoint:
    saved = msgspec.json.decode(body, type=_Saved)
    return Checkpoint(int(saved.position), saved.tip_ms)
