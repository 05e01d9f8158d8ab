"""``verify --watch`` and the auditor: a round after the other, each of which finds what is wrong by then."""

import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from sales.settings import AwsSettings
from sink import aws
from support import world as small
from support.ports import lasting_ports
from support.waiting import eventually
from support.world import a_world
from tillstream.stored import ObjectCache
from tillstream.watch import EXPIRY_SECONDS, WatchSettings, publish, rounds


@pytest.fixture
def settings(redis_url: str, redis_client: Any, aws_settings: AwsSettings, s3_bucket: str) -> WatchSettings:
    """A true world, watched."""
    world = a_world()
    small.publish(world, redis_client)
    s3 = aws.client("s3", aws_settings, connections=1)
    small.store(world, s3, s3_bucket)
    s3.close()
    return WatchSettings(
        redis_url=redis_url,  # type: ignore[arg-type]  # pydantic makes a secret of it
        aws_endpoint_url=aws_settings.aws_endpoint_url,
        s3_bucket=s3_bucket,
        audit_seconds=1,
        audit_full_minutes=0,
        audit_lookups=False,
        audit_wait_seconds=0,
    )


def quiet(_text: str) -> None:
    pass


def test_each_round_finds_what_is_wrong_by_then(settings: WatchSettings, redis_client: Any) -> None:
    found = rounds(settings, quiet)
    assert next(found).outcome == "equal"
    redis_client.hincrby("sales:1h:aov", "orders", 1)
    wrong = next(found)
    assert wrong.outcome == "different"
    publish(settings, wrong)
    told = {name.decode(): text.decode() for name, text in redis_client.hgetall("sales:audit").items()}
    assert told == wrong.fields()
    assert (told["differences"], told["first"][:19]) == ("1", "sales:1h:aov orders")
    assert 0 < redis_client.ttl("sales:audit") <= EXPIRY_SECONDS
    redis_client.hincrby("sales:1h:aov", "orders", -1)
    mended = next(found)
    publish(settings, mended)
    assert redis_client.hget("sales:audit", "first") == b""
    found.close()


def test_a_round_that_can_compare_nothing_says_why_and_the_next_goes_on(
    settings: WatchSettings, redis_client: Any
) -> None:
    as_of = redis_client.hget("sales:status", "as_of")
    redis_client.hdel("sales:status", "as_of")
    found = rounds(settings, quiet)
    failed = next(found)
    assert failed.outcome == "failed"
    assert failed.fault.startswith("Redis holds no tick")
    redis_client.hset("sales:status", "as_of", as_of)
    assert next(found).outcome == "equal"
    found.close()


def test_a_tick_that_is_not_stored_yet_is_waited_for_and_then_compared(
    settings: WatchSettings, redis_client: Any
) -> None:
    s3 = aws.client("s3", settings, connections=1)
    end = small.position_text(a_world().cuts["0"][0])
    marker = {"Bucket": settings.s3_bucket, "Key": f"_extents/{small.STREAM}/0/{end}.done"}
    body = s3.get_object(**marker)["Body"].read()
    s3.delete_object(**marker)
    found = rounds(settings.model_copy(update={"audit_full_minutes": 60, "audit_seconds": 0.01}), quiet)
    waited = [next(found), next(found)]
    assert [round_.outcome for round_ in waited] == ["waiting", "waiting"]
    assert 0 < (waited[0].waiting_seconds or 0) < (waited[1].waiting_seconds or 0)
    assert "1 of 2 partitions are not stored up to the tick" in waited[1].fault
    redis_client.hset("sales:status", "as_of", "a newer tick, which must wait for its turn")
    s3.put_object(**marker, Body=body)
    compared = next(found)
    assert (compared.everything, compared.outcome, compared.waiting_seconds) == (True, "equal", None)
    assert next(found).fault.startswith("Redis holds no tick")
    found.close()


@pytest.mark.parametrize(("patience", "then"), [(0, "Redis holds no tick"), (3, "1 of 2 partitions are not stored")])
def test_a_tick_that_is_never_stored_is_not_waited_for_for_ever(
    settings: WatchSettings, redis_client: Any, monkeypatch: pytest.MonkeyPatch, patience: int, then: str
) -> None:
    monkeypatch.setattr("tillstream.watch.PATIENCE", patience)
    s3 = aws.client("s3", settings, connections=1)
    end = small.position_text(a_world().cuts["0"][0])
    s3.delete_object(Bucket=settings.s3_bucket, Key=f"_extents/{small.STREAM}/0/{end}.done")
    found = rounds(settings.model_copy(update={"audit_seconds": 0.01}), quiet)
    assert next(found).outcome == "waiting"
    redis_client.hdel("sales:status", "as_of")  # who looks at the board again finds none
    assert next(found).fault.startswith(then)
    found.close()


def test_objects_are_fetched_once_but_by_rounds_that_read_everything(settings: WatchSettings) -> None:
    found = rounds(settings, quiet)
    assert next(found).outcome == "equal"
    s3 = aws.client("s3", settings, connections=1)
    listed = s3.list_objects_v2(Bucket=settings.s3_bucket, Prefix="orders/dt=2026-11-20/hour=07/")["Contents"]
    s3.delete_object(Bucket=settings.s3_bucket, Key=listed[0]["Key"])
    assert next(found).outcome == "equal"
    found.close()
    everything = rounds(settings.model_copy(update={"audit_full_minutes": 60}), quiet)
    whole = next(everything)
    assert (whole.everything, whole.outcome) == (True, "different")
    assert next(everything).everything is False
    everything.close()


def test_what_nobody_asked_for_is_not_kept(tmp_path: Path) -> None:
    cache = ObjectCache(tmp_path)
    for key in ("old", "kept"):
        cache.path(key).write_bytes(b"")
    cache.sweep()
    cache.path("kept")
    cache.sweep()
    assert list(tmp_path.iterdir()) == [cache.path("kept")]


def test_the_auditor_publishes_serves_metrics_and_stops_in_order(
    settings: WatchSettings, redis_client: Any, tmp_path: Path
) -> None:
    redis_client.hincrby("sales:1h:aov", "orders", 1)
    [port] = lasting_ports()
    given = {
        "REDIS_URL": settings.redis_url.get_secret_value(),
        "AWS_ENDPOINT_URL": settings.aws_endpoint_url or "",
        "S3_BUCKET": settings.s3_bucket,
        "AUDIT_SECONDS": "1",
        "AUDIT_LOOKUPS": "false",
        "AUDIT_WAIT_SECONDS": "0",
        "METRICS_PORT": str(port),
    }
    with (tmp_path / "log").open("wb") as log:
        auditor = subprocess.Popen(
            [sys.executable, "-m", "auditor"], env=os.environ | given, stdout=log, stderr=subprocess.STDOUT
        )
    try:
        eventually(lambda: bool(redis_client.exists("sales:audit")), seconds=120)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            assert 'tillstream_auditor_differences{everything="true"} 1.0' in answer.read().decode()
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/ready", timeout=10) as answer:
            assert answer.status == 200
        auditor.send_signal(signal.SIGTERM)
        assert auditor.wait(30) == 0
    finally:
        auditor.kill()
        auditor.wait()
    assert " numbers of " in (tmp_path / "log").read_text()
