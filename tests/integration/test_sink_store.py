"""The object store over a real protocol: a server that keeps conditions, and one that answers what the test says."""

import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from sales.settings import AwsSettings
from sales.streams import AwayError, Checkpoint, StreamError
from sink import aws
from sink.checkpoints import S3Checkpoints
from sink.store import S3Store, StoreError, probe

PREFIX = "team-a/"


@pytest.fixture
def store(aws_settings: AwsSettings, s3_bucket: str) -> S3Store:
    return S3Store(aws.client("s3", aws_settings, connections=16), s3_bucket, PREFIX)


def test_an_object_is_created_once_and_keeps_its_metadata(store: S3Store) -> None:
    assert store.create("a/b", b"first", {"digest": "d1"})
    assert not store.create("a/b", b"second", {"digest": "d2"})
    assert store.read("a/b") == b"first"
    facts = store.facts("a/b")
    assert facts is not None
    assert (facts.bytes, facts.metadata["digest"]) == (5, "d1")


def test_what_is_not_there_is_none(store: S3Store) -> None:
    assert (store.read("a"), store.facts("a"), store.read_tagged("a")) == (None, None, None)


def test_a_store_that_has_lost_what_it_knew_of_an_object_is_refused(store: S3Store) -> None:
    store.create("a", b"1")
    store._client.meta.events.register("after-call.s3.GetObject", lambda parsed, **_: parsed.pop("ETag"))
    with pytest.raises(StoreError, match=r"team-a/a: an answer without an ETag"):
        store.read_tagged("a")


def test_an_object_is_replaced_only_as_it_was_read(store: S3Store) -> None:
    store.create("a", b"1")
    tagged = store.read_tagged("a")
    assert tagged is not None
    assert store.replace("a", b"2", tagged[1])
    assert not store.replace("a", b"3", tagged[1])
    assert not store.replace("b", b"3", tagged[1])
    assert store.read("a") == b"2"


def test_keys_lie_below_the_prefix(store: S3Store, aws_settings: AwsSettings, s3_bucket: str) -> None:
    store.overwrite("a", b"1")
    assert S3Store(aws.client("s3", aws_settings, connections=1), s3_bucket).read(f"{PREFIX}a") == b"1"


def test_a_store_that_keeps_its_conditions_passes_the_probe_and_keeps_nothing_of_it(store: S3Store) -> None:
    probe(store)
    listed = store._client.list_objects_v2(Bucket=store._bucket)
    assert listed["KeyCount"] == 0


class Lenient(S3Store):
    """A store that ignores ``If-None-Match``, as some do."""

    def create(self, key: str, body: bytes, metadata: Mapping[str, str] | None = None) -> bool:  # noqa: ARG002
        self.overwrite(key, body)
        return True


class LenientInParts(S3Store):
    """A store that keeps it for a PUT, and ignores it at the end of an upload in parts."""

    def create_in_parts(self, key: str, body: bytes, metadata: Mapping[str, str] | None = None) -> bool:  # noqa: ARG002
        self.overwrite(key, body)
        return True


@pytest.mark.parametrize(("kind", "how"), [(Lenient, "one object: it"), (LenientInParts, "one object in parts: it")])
def test_a_store_that_lets_several_writers_win_is_refused(store: S3Store, kind: type[S3Store], how: str) -> None:
    lenient = kind(store._client, store._bucket)
    with pytest.raises(StoreError, match=how):
        probe(lenient)


def test_a_missing_bucket_is_waited_for_at_the_start_and_no_missing_object_later(aws_settings: AwsSettings) -> None:
    store = S3Store(aws.client("s3", aws_settings, connections=1), "no-such-bucket-here")
    with pytest.raises(AwayError, match="tillstream setup"):
        store.check()
    with pytest.raises(StoreError, match="no-such-bucket-here"):
        store.read("a")
    with pytest.raises(StoreError):
        store.create("a", b"1")


def test_a_server_that_is_not_there_is_away(aws_endpoint: str) -> None:
    settings = AwsSettings(aws_endpoint_url="http://127.0.0.1:9")
    store = S3Store(aws.client("s3", settings, connections=1), "bucket")
    with pytest.raises(AwayError, match=r"127\.0\.0\.1:9"):
        store.create("a", b"1")


class Scripted:
    """A server that gives its answers in turn; the last one for ever."""

    def __init__(self, *answers: tuple[int, str]) -> None:
        self.answers = list(answers)
        self.requests: list[str] = []
        self.lock = threading.Lock()

    def answer(self, request: str) -> tuple[int, str]:
        with self.lock:
            self.requests.append(request)
            return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


@pytest.fixture
def scripted(aws_endpoint: str) -> Callable[..., Any]:
    """A store whose server answers with (status, error code) in turn."""

    @contextmanager
    def serve(*answers: tuple[int, str]) -> Iterator[tuple[S3Store, Scripted]]:
        script = Scripted(*answers)

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"  # so that it answers the client's `Expect: 100-continue`

            def do_PUT(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                status, code = script.answer(f"{self.command} {self.path}")
                body = f"<Error><Code>{code}</Code><Message>as told</Message></Error>".encode() if code else b""
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        settings = AwsSettings(aws_endpoint_url=f"http://127.0.0.1:{server.server_port}")
        try:
            yield S3Store(aws.client("s3", settings, connections=4), "bucket"), script
        finally:
            server.shutdown()
            server.server_close()

    return serve


def test_a_conflict_with_a_writer_under_way_is_tried_again(scripted: Callable[..., Any]) -> None:
    conflict = (409, "ConditionalRequestConflict")
    with scripted(conflict, conflict, (200, "")) as (store, script):
        assert store.create("a", b"1")
        assert len(script.requests) == 3
    with scripted(conflict, (412, "PreconditionFailed")) as (store, _):
        assert not store.create("a", b"1")


def test_a_conflict_without_an_end_is_given_up_for_now(
    scripted: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sink.store.FIRST_CONFLICT_PAUSE_SECONDS", 0.001)
    with scripted((409, "ConditionalRequestConflict")) as (store, _), pytest.raises(AwayError):
        store.create("a", b"1")


@pytest.mark.parametrize(
    "answer",
    [
        (500, "InternalError"),
        (503, "SlowDown"),
        (400, "ExpiredToken"),
        (403, "RequestTimeTooSkewed"),
        (429, "Throttling"),
    ],
)
def test_what_mends_itself_is_tried_again_later(scripted: Callable[..., Any], answer: tuple[int, str]) -> None:
    with scripted(answer) as (store, script):
        with pytest.raises(AwayError, match=answer[1]):
            store.create("a", b"1")
        assert len(script.requests) <= aws.ATTEMPTS
        script.answers = [(200, "")]
        assert store.create("a", b"1")


@pytest.mark.parametrize("answer", [(403, "AccessDenied"), (404, "NoSuchBucket"), (501, "NotImplemented")])
def test_what_does_not_mend_itself_is_told_at_once(scripted: Callable[..., Any], answer: tuple[int, str]) -> None:
    with scripted(answer) as (store, _), pytest.raises(StoreError, match=answer[1]):
        store.create("a", b"1")


def test_a_checkpoint_is_kept_and_never_goes_back(store: S3Store) -> None:
    checkpoints = S3Checkpoints(store)
    assert checkpoints.load("g", "orders-1", "shardId-000000000000") is None
    large = 49_590_338_271_490_256_608_559_692_538_361_571_095_921_575_989_136_588_898
    checkpoints.save("g", "orders-1", "shardId-000000000000", Checkpoint(large, 5))
    checkpoints.save("g", "orders-1", "shardId-000000000000", Checkpoint(7, 99))
    checkpoints.save("g", "orders-1", "shardId-000000000000", Checkpoint(large, 4))
    assert S3Checkpoints(store).load("g", "orders-1", "shardId-000000000000") == Checkpoint(large, 5)
    checkpoints.save("g", "orders-1", "shardId-000000000000", Checkpoint(large, 6))
    assert S3Checkpoints(store).load("g", "orders-1", "shardId-000000000000") == Checkpoint(large, 6)
    assert checkpoints.load("other", "orders-1", "shardId-000000000000") is None
    assert store.read("_checkpoints/g/orders-1/shardId-000000000000.json") is not None


def test_of_processes_that_save_one_checkpoint_at_one_time_the_newest_position_stays(store: S3Store) -> None:
    def save(position: int) -> None:
        try:
            S3Checkpoints(store).save("g", "s", "0", Checkpoint(position))
        except StreamError:  # beaten to it too often: says so, and saves nothing wrong
            assert position < 20

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(save, [3, 20, 11, 7, 15, 1]))
    assert S3Checkpoints(store).load("g", "s", "0") == Checkpoint(20)


def test_a_checkpoint_that_can_t_be_reached_is_a_stream_s_error(aws_endpoint: str) -> None:
    settings = AwsSettings(aws_endpoint_url="http://127.0.0.1:9")
    checkpoints = S3Checkpoints(S3Store(aws.client("s3", settings, connections=1), "bucket"))
    with pytest.raises(AwayError, match=r"127\.0\.0\.1:9"):
        checkpoints.load("g", "s", "0")
    with pytest.raises(StreamError, match=r"127\.0\.0\.1:9"):
        checkpoints.save("g", "s", "0", Checkpoint(1))
