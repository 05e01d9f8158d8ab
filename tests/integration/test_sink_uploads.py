"""Objects in parts, against a server that keeps conditions: whatever fails, the object is there whole or not at all,
and no part stays behind but where nobody could know of it."""

import signal
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from botocore.exceptions import ClientError, ReadTimeoutError

from sales.settings import AwsSettings
from sales.streams import AwayError
from sink import aws, uploads
from sink.store import WHOLE_BYTES, S3Store, StoreError

PREFIX = "team-a/"
KEY = "orders/dt=2026-11-20/hour=06/a.parquet"
LARGE = bytes(range(256)) * (WHOLE_BYTES // 256 + 1)
"""Three parts, the last one short."""
OTHER = b"x" * len(LARGE)

STEPS = {"create_multipart_upload": 1, "upload_part": 3, "complete_multipart_upload": 1}
"""Requests that an upload takes, and how often each."""
EACH = [(step, number) for step, times in STEPS.items() for number in range(1, times + 1)]


class Faulty:
    """A client to which something happens at the n-th request of a kind, once.

    Args:
        client: the real one.
        request: which kind.
        number: which of them, from 1.
        before: done instead of it, when it raises; else before it.
        after: done when it was carried out, before its answer is heard.
    """

    def __init__(
        self,
        client: Any,
        request: str,
        number: int = 1,
        *,
        before: Callable[[], None] = lambda: None,
        after: Callable[[], None] = lambda: None,
    ) -> None:
        self._client = client
        self._request = request
        self._left = number
        self._before = before
        self._after = after
        self.requests: list[str] = []

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)
        if not callable(method):
            return method

        def call(*args: Any, **kwargs: Any) -> Any:
            self.requests.append(name)
            struck = name == self._request and self._strikes()
            if struck:
                self._before()
            answer = method(*args, **kwargs)
            if struck:
                self._after()
            return answer

        return call

    def _strikes(self) -> bool:
        self._left -= 1
        return self._left == 0


def silence() -> None:
    raise ReadTimeoutError(endpoint_url="http://127.0.0.1")


def refusal(status: int, code: str) -> Callable[[], None]:
    def refuse() -> None:
        raise ClientError(
            {"Error": {"Code": code, "Message": "as told"}, "ResponseMetadata": {"HTTPStatusCode": status}}, "Any"
        )

    return refuse


@pytest.fixture
def client(aws_settings: AwsSettings) -> Any:
    return aws.client("s3", aws_settings, connections=4)


@pytest.fixture
def store(client: Any, s3_bucket: str) -> S3Store:
    return S3Store(client, s3_bucket, PREFIX)


@pytest.fixture
def unfinished(client: Any, s3_bucket: str) -> Callable[[], list[str]]:
    """Keys of the uploads that are neither completed nor aborted."""
    return lambda: [upload["Key"] for upload in client.list_multipart_uploads(Bucket=s3_bucket).get("Uploads", ())]


@pytest.mark.parametrize("size", [WHOLE_BYTES, WHOLE_BYTES + 1, 3 * uploads.PART_BYTES])
def test_an_object_of_any_size_is_created_once_and_keeps_its_metadata(
    client: Any, s3_bucket: str, unfinished: Callable[[], list[str]], size: int
) -> None:
    seen = Faulty(client, "")
    store = S3Store(seen, s3_bucket, PREFIX)
    body = LARGE[:1] * size
    assert store.create(KEY, body, {"digest": "d1"})
    assert ("put_object" in seen.requests) is (size <= WHOLE_BYTES)
    assert not store.create(KEY, OTHER[:1] * size, {"digest": "d2"})
    assert store.read(KEY) == body
    facts = store.facts(KEY)
    assert facts is not None
    assert (facts.bytes, facts.metadata["digest"]) == (size, "d1")
    assert unfinished() == []


@pytest.mark.parametrize(("step", "number"), EACH)
def test_a_request_that_is_lost_leaves_nothing_and_the_next_try_writes(
    client: Any, s3_bucket: str, store: S3Store, unfinished: Callable[[], list[str]], step: str, number: int
) -> None:
    with pytest.raises(AwayError):
        S3Store(Faulty(client, step, number, before=silence), s3_bucket, PREFIX).create(KEY, LARGE)
    assert (store.facts(KEY), unfinished()) == (None, [])
    assert store.create(KEY, LARGE)
    assert store.read(KEY) == LARGE


@pytest.mark.parametrize(("step", "number"), EACH)
def test_an_answer_that_is_lost_is_found_out_by_the_next_try(
    client: Any, s3_bucket: str, store: S3Store, unfinished: Callable[[], list[str]], step: str, number: int
) -> None:
    with pytest.raises(AwayError):
        S3Store(Faulty(client, step, number, after=silence), s3_bucket, PREFIX).create(KEY, LARGE)
    completed = step == "complete_multipart_upload"
    # Of an upload whose beginning was never answered only the store knows.
    assert unfinished() == ([PREFIX + KEY] if step == "create_multipart_upload" else [])
    assert store.create(KEY, LARGE) is not completed
    assert store.read(KEY) == LARGE


@pytest.mark.parametrize(("step", "number"), EACH)
@pytest.mark.parametrize("fault", [(500, "InternalError"), (503, "SlowDown"), (400, "ExpiredToken")])
def test_what_mends_itself_is_tried_again_later(
    client: Any,
    s3_bucket: str,
    unfinished: Callable[[], list[str]],
    step: str,
    number: int,
    fault: tuple[int, str],
) -> None:
    store = S3Store(Faulty(client, step, number, before=refusal(*fault)), s3_bucket, PREFIX)
    with pytest.raises(AwayError, match=fault[1]):
        store.create(KEY, LARGE)
    assert unfinished() == []
    assert store.create(KEY, LARGE)


def test_what_does_not_mend_itself_is_told_at_once(
    client: Any, s3_bucket: str, unfinished: Callable[[], list[str]]
) -> None:
    store = S3Store(Faulty(client, "upload_part", 2, before=refusal(403, "AccessDenied")), s3_bucket, PREFIX)
    with pytest.raises(StoreError, match="AccessDenied"):
        store.create(KEY, LARGE)
    assert unfinished() == []


def test_a_conflict_with_a_writer_under_way_begins_another_upload(client: Any, s3_bucket: str, store: S3Store) -> None:
    conflict = refusal(409, "ConditionalRequestConflict")
    faulty = Faulty(client, "complete_multipart_upload", before=conflict)
    assert S3Store(faulty, s3_bucket, PREFIX).create(KEY, LARGE)
    assert faulty.requests.count("create_multipart_upload") == 2
    assert store.read(KEY) == LARGE


def test_who_is_beaten_while_he_sends_finds_the_other_s_object(
    client: Any, s3_bucket: str, store: S3Store, unfinished: Callable[[], list[str]]
) -> None:
    def beaten() -> None:
        assert store.create(KEY, OTHER)

    faulty = Faulty(client, "complete_multipart_upload", before=beaten)
    assert not S3Store(faulty, s3_bucket, PREFIX).create(KEY, LARGE)
    assert store.read(KEY) == OTHER
    assert unfinished() == []


@pytest.mark.parametrize("written", [True, False])
def test_an_upload_that_is_gone_was_completed_or_is_tried_again(
    client: Any, s3_bucket: str, store: S3Store, written: bool
) -> None:
    """As when the client asks a second time because the first answer was lost, or somebody cleaned up meanwhile."""
    gone = refusal(404, "NoSuchUpload")
    faulty = Faulty(
        client,
        "complete_multipart_upload",
        after=gone if written else lambda: None,
        before=lambda: None if written else gone(),
    )
    if written:
        assert not S3Store(faulty, s3_bucket, PREFIX).create(KEY, LARGE)
        assert store.read(KEY) == LARGE
    else:
        with pytest.raises(AwayError, match="NoSuchUpload"):
            S3Store(faulty, s3_bucket, PREFIX).create(KEY, LARGE)
        assert store.facts(KEY) is None


def test_an_abort_that_fails_hides_nothing_of_why(
    client: Any, s3_bucket: str, unfinished: Callable[[], list[str]]
) -> None:
    deaf = Faulty(client, "abort_multipart_upload", before=silence)
    store = S3Store(Faulty(deaf, "upload_part", before=refusal(403, "AccessDenied")), s3_bucket, PREFIX)
    with pytest.raises(StoreError, match="AccessDenied"):
        store.create(KEY, LARGE)
    assert unfinished() == [PREFIX + KEY]


def leave_one(client: Any, bucket: str, key: str) -> None:
    """What a crash leaves."""
    client.create_multipart_upload(Bucket=bucket, Key=key)


def test_leftovers_of_the_folder_are_aborted_and_no_others(
    client: Any, s3_bucket: str, store: S3Store, unfinished: Callable[[], list[str]]
) -> None:
    for key in (PREFIX + KEY, PREFIX + "orders/b.parquet", PREFIX + "rollups/c.parquet", "somebody/else"):
        leave_one(client, s3_bucket, key)
    store.abort_leftovers("orders/")  # the server says that all began years ago
    assert sorted(unfinished()) == ["somebody/else", PREFIX + "rollups/c.parquet"]


def test_an_upload_that_may_be_under_way_is_left_alone(
    client: Any, s3_bucket: str, unfinished: Callable[[], list[str]]
) -> None:
    leave_one(client, s3_bucket, KEY)
    [upload] = client.list_multipart_uploads(Bucket=s3_bucket)["Uploads"]
    almost = upload["Initiated"].astimezone(UTC) + uploads.LEFTOVER_AGE - timedelta(seconds=1)
    assert uploads.abort_leftovers(client, s3_bucket, "", almost) == 0
    assert unfinished() == [KEY]
    assert uploads.abort_leftovers(client, s3_bucket, "", almost + timedelta(seconds=1)) == 1
    assert unfinished() == []


def test_a_zombie_whose_upload_was_cleaned_up_begins_another(client: Any, s3_bucket: str, store: S3Store) -> None:
    def cleaned_up() -> None:
        uploads.abort_leftovers(client, s3_bucket, PREFIX, datetime.now(UTC))

    zombie = S3Store(Faulty(client, "complete_multipart_upload", before=cleaned_up), s3_bucket, PREFIX)
    with pytest.raises(AwayError):
        zombie.create(KEY, LARGE)
    assert store.facts(KEY) is None
    assert zombie.create(KEY, LARGE)


@pytest.mark.parametrize("fault", [refusal(501, "NotImplemented"), refusal(403, "AccessDenied"), silence])
def test_a_store_that_lists_no_uploads_stops_nobody(
    client: Any, s3_bucket: str, unfinished: Callable[[], list[str]], fault: Callable[[], None]
) -> None:
    leave_one(client, s3_bucket, PREFIX + KEY)
    S3Store(Faulty(client, "get_paginator", before=fault), s3_bucket, PREFIX).abort_leftovers("orders/")
    assert unfinished() == [PREFIX + KEY]


@pytest.mark.parametrize(
    ("place", "there"), [("part-after", False), ("complete-before", False), ("complete-after", True)]
)
def test_what_a_process_that_is_killed_leaves_is_cleaned_up_and_written_by_the_next(
    aws_settings: AwsSettings,
    s3_bucket: str,
    store: S3Store,
    unfinished: Callable[[], list[str]],
    place: str,
    there: bool,
) -> None:
    program = f"""
from sales.settings import AwsSettings
from sink import aws, failpoints
from sink.store import S3Store
failpoints.arm({place!r})
client = aws.client("s3", AwsSettings(aws_endpoint_url={aws_settings.aws_endpoint_url!r}), connections=1)
S3Store(client, {s3_bucket!r}, {PREFIX!r}).create_in_parts({KEY!r}, b"all of it")
"""
    ended = subprocess.run([sys.executable, "-c", program], timeout=60, check=False)
    assert ended.returncode == -signal.SIGKILL
    assert unfinished() == ([] if there else [PREFIX + KEY])
    store.abort_leftovers("orders/")
    assert unfinished() == []
    assert store.create_in_parts(KEY, b"all of it") is not there
    assert store.read(KEY) == b"all of it"
