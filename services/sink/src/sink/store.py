"""The object store: S3, or what speaks its protocol."""

import threading
import time
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

from botocore.exceptions import ClientError

from sales import aws_faults
from sales.events import Log
from sales.streams import AwayError
from sales.streams.reaching import backoff
from sink import uploads

log = Log(__name__)

WHOLE_BYTES = 16 * 2**20
"""An object up to this size is one request; a larger one goes in parts."""

CONFLICT_TRIES = 8
FIRST_CONFLICT_PAUSE_SECONDS = 0.05
LONGEST_CONFLICT_PAUSE_SECONDS = 5.0
"""S3 answers 409 while another conditional write of the same key is under way; a moment later one of them has won."""

PROBE_WRITERS = 8
PROBE_ROUNDS = 4
"""A store that let several concurrent writers win did so in most races of this size."""


class StoreError(Exception):
    """The store refused, or is not what we need; says what, where and what to do. Trying again won't help."""


@dataclass(frozen=True, slots=True)
class ObjectFacts:
    """What the store knows of an object without sending it."""

    bytes: int
    metadata: Mapping[str, str]


class Store(Protocol):
    """Objects by key. Every call blocks for one bounded request (and its few retries); ``create`` of a large object for
    one each part.

    Raises, all of them:
        AwayError: no answer now; whether a write took place is unknown.
        StoreError: refused for good.
    """

    @property
    def address(self) -> str:
        """What and where, for people: ``S3 bucket sales at http://127.0.0.1:5000``."""
        ...

    def create(self, key: str, body: bytes, metadata: Mapping[str, str] | None = None) -> bool:
        """Writes a new object. False: there is one already, and it stays as it is (it may be from an earlier try of
        this very call, whose answer was lost)."""
        ...

    def overwrite(self, key: str, body: bytes) -> None:
        """Writes an object, whatever is there."""
        ...

    def read(self, key: str) -> bytes | None:
        """An object's content; None: there is none."""
        ...

    def facts(self, key: str) -> ObjectFacts | None:
        """An object's size and metadata; None: there is none."""
        ...


class S3Store:
    """A bucket, below a prefix."""

    def __init__(self, client: Any, bucket: str, prefix: str = "") -> None:
        self._client = client
        self._bucket = bucket
        self._prefix = prefix
        self.address = f"S3 bucket {bucket} at {client.meta.endpoint_url}"

    def create(self, key: str, body: bytes, metadata: Mapping[str, str] | None = None) -> bool:
        """See ``Store``."""
        if len(body) > WHOLE_BYTES:
            return self.create_in_parts(key, body, metadata)
        return self._put(key, body, Metadata=dict(metadata or {}), IfNoneMatch="*")

    def create_in_parts(self, key: str, body: bytes, metadata: Mapping[str, str] | None = None) -> bool:
        """``create``, of an object of any size but zero."""
        where = {"Bucket": self._bucket, "Key": self._prefix + key}
        try:
            return self._conditionally(
                f"PUT {self._prefix}{key} in parts", lambda: uploads.create(self._client, where, body, metadata or {})
            )
        except _UploadGoneError as error:
            if self.facts(key) is None:
                raise AwayError(str(error)) from error
            return False

    def abort_leftovers(self, folder: str) -> None:
        """Aborts what crashes left of uploads in parts, below a folder. Never fails: a store that does not list them,
        or not now, has its lifecycle rule."""
        prefix = self._prefix + folder
        try:
            aborted = uploads.abort_leftovers(self._client, self._bucket, prefix, datetime.now(UTC))
        except (ClientError, *aws_faults.TRANSPORT_FAULTS) as error:
            log.warning(
                "uploads_not_listed",
                "{store}: unfinished uploads below {prefix} are left to its lifecycle rule: {error}",
                store=self.address,
                prefix=prefix,
                error=error,
            )
            return
        if aborted:
            log.info(
                "uploads_aborted",
                "{store}: {uploads} unfinished uploads below {prefix} aborted",
                store=self.address,
                uploads=aborted,
                prefix=prefix,
            )

    def overwrite(self, key: str, body: bytes) -> None:
        """See ``Store``."""
        self._call("put_object", key, Body=body)

    def replace(self, key: str, body: bytes, tag: str) -> bool:
        """Writes an object if it is still the one that ``read_tagged`` gave with ``tag``; False: it is not."""
        return self._put(key, body, IfMatch=tag)

    def read(self, key: str) -> bytes | None:
        """See ``Store``."""
        tagged = self.read_tagged(key)
        return None if tagged is None else tagged[0]

    def read_tagged(self, key: str) -> tuple[bytes, str] | None:
        """An object's content, and a tag that changes with it; None: there is none."""
        try:
            answer = self._client.get_object(Bucket=self._bucket, Key=self._prefix + key)
            body = answer["Body"].read()
        except (ClientError, *aws_faults.TRANSPORT_FAULTS) as error:
            if _is_missing(error):
                return None
            raise self._explain(error, f"GET {self._prefix}{key}") from error
        if "ETag" not in answer:
            raise StoreError(
                f"{self.address}: GET {self._prefix}{key}: an answer without an ETag. A server that keeps them beside "
                "its files has lost them: was it restored from a copy without extended attributes?"
            )
        return body, answer["ETag"]

    def facts(self, key: str) -> ObjectFacts | None:
        """See ``Store``."""
        try:
            answer = self._client.head_object(Bucket=self._bucket, Key=self._prefix + key)
        except (ClientError, *aws_faults.TRANSPORT_FAULTS) as error:
            if _is_missing(error):
                return None
            raise self._explain(error, f"HEAD {self._prefix}{key}") from error
        return ObjectFacts(answer["ContentLength"], answer["Metadata"])

    def delete(self, key: str) -> None:
        """Removes an object, if there is one."""
        self._call("delete_object", key)

    def check(self) -> None:
        """One request that shows that the bucket is there and lets us in; raises as the others do, and AwayError also
        for a bucket that is missing (somebody may be about to create it)."""
        try:
            self._client.head_bucket(Bucket=self._bucket)
        except (ClientError, *aws_faults.TRANSPORT_FAULTS) as error:
            if isinstance(error, ClientError) and aws_faults.status(error) == 404:
                raise AwayError(f"{self.address} does not exist; `tillstream setup` creates it") from error
            raise self._explain(error, "HEAD") from error

    def _put(self, key: str, body: bytes, **conditions: Any) -> bool:
        """A conditional write in one request; False when the condition does not hold."""
        where = {"Bucket": self._bucket, "Key": self._prefix + key}
        return self._conditionally(
            f"PUT {self._prefix}{key}",
            lambda: self._client.put_object(**where, Body=body, **conditions),
            missing_is_other="IfMatch" in conditions,
        )

    def _conditionally(self, what: str, write: Callable[[], object], *, missing_is_other: bool = False) -> bool:
        """A conditional write, from its beginning again while another writer is under way; False when the condition
        does not hold."""
        for attempt in range(CONFLICT_TRIES):
            try:
                write()
            except (ClientError, *aws_faults.TRANSPORT_FAULTS) as error:
                if isinstance(error, ClientError) and aws_faults.status(error) == 412:
                    return False
                if missing_is_other and _is_missing(error):
                    return False
                if isinstance(error, ClientError) and aws_faults.code(error) == "NoSuchUpload":
                    raise _UploadGoneError(f"{self.address}: {what}: {error}") from error
                conflict = isinstance(error, ClientError) and aws_faults.status(error) == 409
                if not conflict or attempt == CONFLICT_TRIES - 1:
                    raise self._explain(error, what) from error
                time.sleep(backoff(attempt, FIRST_CONFLICT_PAUSE_SECONDS, LONGEST_CONFLICT_PAUSE_SECONDS))
            else:
                return True
        raise AssertionError("the last try returned or raised")

    def _call(self, operation: str, key: str, **arguments: Any) -> None:
        try:
            getattr(self._client, operation)(Bucket=self._bucket, Key=self._prefix + key, **arguments)
        except (ClientError, *aws_faults.TRANSPORT_FAULTS) as error:
            raise self._explain(error, f"{operation} {self._prefix}{key}") from error

    def _explain(self, error: Exception, what: str) -> Exception:
        message = f"{self.address}: {what}: {error}"
        if not isinstance(error, ClientError) or aws_faults.passes(error):
            return AwayError(message)
        return StoreError(message)


class _UploadGoneError(Exception):
    """An upload was there and is not: completed by a request whose answer was lost, or aborted by somebody."""


def _is_missing(error: Exception) -> bool:
    # HEAD has no body, so its code is the bare status. A missing bucket is no missing object.
    return isinstance(error, ClientError) and aws_faults.code(error) in ("NoSuchKey", "404", "NotFound")


def probe(store: S3Store) -> None:
    """Lets several writers create one object at one time, in one request and in parts, and expects exactly one to win.

    The archive's promise hangs on this; some stores ignored the condition, or let several win under load, or keep it
    for one way of writing and not for the other.

    Raises:
        StoreError: none or several won.
        AwayError: no answer now.
    """
    for how, create in (("", store.create), (" in parts", store.create_in_parts)):
        wins = [_race(store, create) for _ in range(PROBE_ROUNDS)]
        # A round may have no winner: when the answer to the winner was lost, its second try found its own object.
        if max(wins) != 1:
            raise StoreError(
                f"{store.address} let {max(wins)} of {PROBE_WRITERS} concurrent writers create one object{how}: it "
                "does not keep `If-None-Match: *`, so nothing could be written exactly once; use AWS S3 or a store "
                "that keeps it"
            )


def _race(store: S3Store, create: Callable[[str, bytes], bool]) -> int:
    """How many of several writers were told that they created the same object."""
    key = f"_probe/{uuid.uuid4().hex}"
    together = threading.Barrier(PROBE_WRITERS)

    def write(writer: int) -> bool:
        together.wait()
        return create(key, b"%d" % writer)

    with ThreadPoolExecutor(PROBE_WRITERS) as writers:
        won = sum(writers.map(write, range(PROBE_WRITERS)))
    store.delete(key)
    return won
