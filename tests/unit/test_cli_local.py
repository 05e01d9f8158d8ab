"""What is missing on a machine is said in a sentence."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType

import pytest
from moto.s3.responses import S3Response

from tillstream.local import aws, dynamodb, kafka, redis
from tillstream.local.nursery import Nursery
from tillstream.local.server import ServerError, free_ports, start


def a_java(folder: Path, says: str) -> Path:
    java = folder / "java"
    java.write_text(f"#!/bin/sh\necho '{says}' >&2\n")
    java.chmod(0o755)
    return folder


@pytest.fixture(autouse=True)
def bare_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("JAVA_HOME", raising=False)


def test_without_java_it_says_what_to_install_or_to_set() -> None:
    sentence = kafka.missing()
    assert sentence is not None
    assert sentence.startswith("no java on the PATH: ")
    for part in ("Java 17", "Maven", "apt-get install", "KAFKA_BOOTSTRAP_SERVERS"):
        assert part in sentence


def test_a_server_that_only_tests_need_can_be_had_in_one_way_only() -> None:
    sentence = dynamodb.DYNAMODB.missing()
    assert sentence is not None
    assert sentence.startswith("no java on the PATH: DynamoDB Local needs Java 17 or later and Maven ")
    assert "or set" not in sentence


def test_an_old_java_is_named(tmp_path: Path) -> None:
    a_java(tmp_path, 'openjdk version "11.0.2" 2019-01-15')
    assert 'openjdk version "11.0.2"' in (kafka.missing() or "")


@pytest.mark.parametrize("says", ['openjdk version "17.0.15" 2025-04-15', 'java version "25" 2025-09-16 LTS'])
def test_a_new_java_is_enough_but_for_maven(tmp_path: Path, says: str) -> None:
    a_java(tmp_path, says)
    assert (kafka.missing() or "").startswith("no mvn on the PATH")


def test_with_the_jars_in_the_cache_maven_is_not_missed(tmp_path: Path) -> None:
    a_java(tmp_path, 'openjdk version "21" 2023-09-19')
    (tmp_path / "cache" / "tillstream" / f"kafka-{kafka.KAFKA.version}").mkdir(parents=True)
    assert kafka.missing() is None


def test_java_home_comes_before_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a_java(tmp_path, 'openjdk version "17.0.15" 2025-04-15')
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "elsewhere"))
    assert (kafka.missing() or "").startswith("no java in JAVA_HOME=")


def test_a_redis_server_on_the_path_comes_before_the_wheel(tmp_path: Path) -> None:
    server = tmp_path / "redis-server"
    server.write_text("#!/bin/sh\n")
    server.chmod(0o755)
    assert redis.find_binary() == str(server)


def test_without_one_the_wheel_serves() -> None:
    assert redis.find_binary().endswith("valkey-server")


def test_a_server_that_ends_at_its_start_is_named_with_its_last_lines() -> None:
    with Nursery() as nursery, pytest.raises(ServerError, match="Broken ended at its start") as failed:
        start(
            nursery,
            "Broken",
            command=lambda _ports, _folder: ["/bin/sh", "-c", "echo out of memory; exit 1"],
            address=str,
            answers=lambda _address, _child: False,
            seconds=30,
        )
    assert "out of memory" in str(failed.value)


def test_a_server_that_does_not_answer_is_stopped() -> None:
    with Nursery() as nursery, pytest.raises(ServerError, match="Silent does not answer on "):
        start(
            nursery,
            "Silent",
            command=lambda _ports, _folder: ["/bin/sleep", "600"],
            address=str,
            answers=lambda _address, _child: False,
            seconds=0.2,
        )


@pytest.mark.parametrize("module", [redis, aws], ids=["redis", "aws"])
def test_a_stranger_on_the_port_is_not_taken_for_ours(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, module: ModuleType
) -> None:
    with Nursery() as nursery:
        stranger = module.start(nursery)
        offered = [stranger.port]
        monkeypatch.setattr(
            "tillstream.local.server.free_ports", lambda count: [offered.pop()] if offered else free_ports(count)
        )
        ours = module.start(nursery)
        assert ours.port != stranger.port
        assert ours.child.exit_code() is None


def test_without_a_home_there_is_no_place_for_the_jars(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    a_java(tmp_path, 'openjdk version "21" 2023-09-19')
    monkeypatch.setenv("XDG_CACHE_HOME", "~no-such-user/cache")
    assert "set HOME or XDG_CACHE_HOME" in (kafka.missing() or "")


@pytest.mark.parametrize("says", ["#!/bin/sh\nexec sleep 600\n", "no program"], ids=["nothing", "nonsense"])
def test_a_binary_that_does_not_say_its_version_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, says: str
) -> None:
    monkeypatch.setattr("tillstream.local.server.VERSION_SECONDS", 0.2)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    for name in ("redis-server", "java"):
        (tmp_path / name).write_text(says)
        (tmp_path / name).chmod(0o755)
    assert "java does not say its version" in (kafka.missing() or "")
    with Nursery() as nursery, pytest.raises(ServerError, match="redis-server does not say its version"):
        redis.start(nursery)


def test_free_ports_are_different() -> None:
    assert len(set(free_ports(20))) == 20


def test_the_local_s3_answers_one_write_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """It looks whether a condition holds and writes afterwards: two at once could both win."""
    meeting = threading.Barrier(2)

    def write(_: object) -> bool:  # whether nobody else came in
        try:
            meeting.wait(0.2)
        except threading.BrokenBarrierError:
            return True
        return False

    for name in ("_key_response_put", "_key_response_post"):
        monkeypatch.setattr(S3Response, name, write)
    aws._mend_s3()
    with ThreadPoolExecutor(2) as threads:
        alone = list(threads.map(lambda name: getattr(S3Response, name)(None), ["_key_response_put"] * 2))
    assert alone == [True, True]
