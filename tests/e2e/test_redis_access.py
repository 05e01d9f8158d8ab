"""Each service under its own name on a Redis that allows it nothing but what deploy/redis/users.acl lists."""

import fnmatch
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from support.ports import lasting_ports
from support.scraping import get
from support.secure_redis import ADMIN, NAMES, SecureRedis, listed, password_of, start_secure
from support.services import Pipeline
from tillstream.local.nursery import Nursery
from tillstream.local.server import LOOPBACK, ServerError

ORDERS = 300
SECONDS = 300.0
COMMAND_SECONDS = 300.0

Refusal = tuple[str, ...]


@pytest.fixture(scope="module")
def server(nursery: Nursery) -> SecureRedis:
    try:
        return start_secure(nursery)
    except ServerError as error:
        pytest.skip(str(error))


@pytest.fixture
def admin(server: SecureRedis) -> Iterator["redis.Redis"]:
    """Of an emptied server that has counted nothing yet."""
    client = server.client(ADMIN)
    client.flushall()
    client.acl_log_reset()
    yield client
    client.close()


@pytest.fixture(scope="module")
def pipeline(
    server: SecureRedis, nursery: Nursery, tmp_path_factory: pytest.TempPathFactory, aws_endpoint: str
) -> Iterator[Pipeline]:
    """With the board's own prefix, as the list has it."""
    name = f"users-{server.port}"
    pipeline = Pipeline(
        nursery,
        tmp_path_factory.mktemp("users"),
        {
            "STREAM": "kinesis",
            "PARTITIONS": "1",
            "ORDERS_STREAM": name,
            "ROLLUPS_STREAM": f"{name}-rollups",
            "DEAD_LETTERS_STREAM": f"{name}-dead-letters",
            "AWS_ENDPOINT_URL": aws_endpoint,
            "S3_BUCKET": name,
            "SALES_TABLE": f"SalesData-{name}",
            "TRENDS_TABLE": f"SalesTrends-{name}",
            "REDIS_URL": server.url(ADMIN),
            "ROTATE_SECONDS": "1",
            "CONNECT_SECONDS": "3",
            "AUDIT_SECONDS": "1",
        },
    )
    yield pipeline
    pipeline.close()


def command(pipeline: Pipeline, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        env=pipeline.surroundings(**environment),
        capture_output=True,
        text=True,
        timeout=COMMAND_SECONDS,
        check=False,
    )


def called(admin: "redis.Redis") -> set[str]:
    """Commands that somebody did since the statistics were reset, those inside of scripts too."""
    stats = admin.info("commandstats")
    return {name.removeprefix("cmdstat_") for name, counts in stats.items() if counts["calls"]}


def granted(user: str) -> set[str]:
    return {rule.removeprefix("+") for rule in listed()[user] if rule.startswith("+")}


def test_what_is_listed_is_enough_and_all_of_it_is_used(
    server: SecureRedis, admin: "redis.Redis", pipeline: Pipeline
) -> None:
    """The test itself asks by commands that nobody in the list has, so that the server's statistics speak of the
    services alone."""

    def at(field: str, value: int) -> Callable[[], bool]:
        return lambda: int(admin.hget("sales:status", field) or -1) >= value

    used: dict[str, set[str]] = {}
    admin.config_resetstat()
    [port] = lasting_ports()
    pipeline.start("processor", REDIS_URL=server.url("processor"), METRICS_PORT=str(port))
    pipeline.start("sink")
    pipeline.start("generator", RATE="150/s", ORDERS=str(ORDERS), RETURNS="0.3")
    pipeline.finish("generator", SECONDS)
    wait(pipeline, at("accepted", ORDERS), "all orders on the board")
    admin.flushall()
    wait(pipeline, at("accepted", ORDERS), "all of it there again")
    # A product, category or region leaves a window and its fields go: ZREM and HDEL.
    wait(pipeline, lambda: {"zrem", "hdel"} <= called(admin), "something left a window")
    told = "".join(get(port, path)[1] for path in ("/metrics", "/ready", "/live"))
    assert "tillstream_processor_" in told
    pipeline.kill("processor")
    token = int(admin.get("sales:epoch") or 0)
    pipeline.start("processor", REDIS_URL=server.url("processor"))
    wait(pipeline, lambda: int(admin.get("sales:epoch") or 0) > token, "another processor took over")
    used["processor"] = called(admin)
    pipeline.kill("processor")
    # The channel is passed to the script like a key.
    patterns = {rule[1:] for rule in listed()["processor"] if rule.startswith("~")} - {"sales:updates"}
    keys = set(admin.scan_iter(count=1000))
    assert [key for key in keys if not any(fnmatch.fnmatchcase(key, pattern) for pattern in patterns)] == []
    assert [pattern for pattern in patterns if not fnmatch.filter(keys, pattern)] == []

    admin.config_resetstat()
    pipeline.start("auditor", REDIS_URL=server.url("auditor"))
    wait(pipeline, lambda: admin.hget("sales:audit", "outcome") == "equal", "the auditor found all equal")
    used["auditor"] = called(admin)
    pipeline.stop("auditor")
    pipeline.stop("sink")

    admin.config_resetstat()
    reading = {"REDIS_URL": server.url("reader")}
    assert f"accepted {ORDERS}" in command(pipeline, "tillstream", "live", "--once", **reading).stdout
    proof = command(pipeline, "tillstream", "verify", "--json", **reading)
    assert json.loads(proof.stdout)["equal"], proof.stderr
    with server.client("reader").pubsub() as listener:  # type: ignore[no-untyped-call]  # redis gives it no types
        listener.subscribe("sales:updates")
        assert listener.get_message(timeout=10)
    used["reader"] = called(admin)

    assert {user: granted(user) - used[user] for user in NAMES} == {user: set() for user in NAMES}
    assert [(entry["username"], entry["object"]) for entry in admin.acl_log()] == []
    said = [log.read_text() for log in pipeline.folder.glob("*.log")]
    assert [text for text in (told, proof.stdout, proof.stderr, *said) if password_of("") in text] == []


def wait(pipeline: Pipeline, condition: Callable[[], bool], what: str) -> None:
    pipeline.until(condition, SECONDS, what)


FORBIDDEN: dict[str, list[Refusal]] = {
    "everybody": [
        ("FLUSHALL",),
        ("FLUSHDB",),
        ("CONFIG", "GET", "*"),
        ("CONFIG", "SET", "maxmemory", "1"),
        ("KEYS", "*"),
        ("SCAN", "0"),
        ("ACL", "LIST"),
        ("SCRIPT", "FLUSH"),
        ("EVAL", "return 1", "0"),
        ("FUNCTION", "FLUSH"),
        ("MONITOR",),
        ("CLIENT", "LIST"),
        ("SHUTDOWN", "NOSAVE"),
        ("INFO",),
        ("PUBLISH", "other", "x"),
        ("SUBSCRIBE", "other"),
        ("HGETALL", "other:status"),
        ("DEL", "other:status"),
        ("RENAME", "sales:status", "sales:positions"),
    ],
    "processor": [("HSET", "sales:audit", "outcome", "equal"), ("DEL", "sales:audit"), ("SET", "other:epoch", "1")],
    "auditor": [("SET", "sales:epoch", "9"), ("HSET", "sales:status", "accepted", "1"), ("DEL", "sales:positions")],
    "reader": [("HSET", "sales:status", "accepted", "1"), ("DEL", "sales:epoch"), ("PUBLISH", "sales:updates", "x")],
}


@pytest.mark.parametrize("user", NAMES)
def test_a_user_can_do_nothing_else(server: SecureRedis, admin: "redis.Redis", user: str) -> None:
    with server.client(user) as client:
        for words in FORBIDDEN["everybody"] + FORBIDDEN[user]:
            with pytest.raises(redis.exceptions.NoPermissionError):
                client.execute_command(*words)


def test_a_script_of_the_processors_can_do_no_more_than_the_processor(
    server: SecureRedis, admin: "redis.Redis"
) -> None:
    with server.client("processor") as client:
        for script in ("redis.call('FLUSHALL')", "redis.call('HSET', 'sales:audit', 'outcome', 'equal')"):
            with pytest.raises(redis.ResponseError, match=r"(?i)can't (run|access)|permission"):
                client.evalsha(client.script_load(script), 0)


def test_nobody_is_let_in_without_a_name(server: SecureRedis, admin: "redis.Redis") -> None:
    anonymous = server.url("default", "").replace("default:@", "")
    with redis.Redis.from_url(anonymous) as client, pytest.raises(redis.AuthenticationError):
        client.ping()


def wrong_ways(server: SecureRedis) -> dict[str, tuple[str, int, str]]:
    """Name to URL, the processor's exit code, and what it has to say."""
    plain = f"redis://processor:{password_of('processor')}@{LOOPBACK}:{server.port}/0"
    ways = {
        "wrong password": (server.url("processor", "open says me"), 1, "refuses us: invalid username-password pair"),
        "nobody": (server.url("nobody"), 1, "refuses us: invalid username-password pair"),
        "no name": (server.url("default", "").replace("default:@", ""), 1, "refuses us"),
    }
    if server.authority is not None:
        ways |= {
            "another authority": (server.url("processor", authority=server.stranger), 1, "is not trusted: "),
            "no TLS": (plain, 3, "can't be reached for 3 s"),
        }
    return ways


@pytest.mark.parametrize("way", ["wrong password", "nobody", "no name", "another authority", "no TLS"])
def test_a_wrong_way_is_one_line_and_an_exit_code(server: SecureRedis, pipeline: Pipeline, way: str) -> None:
    ways = wrong_ways(server)
    if way not in ways:
        pytest.skip("this Redis was built without TLS: install redis-server")
    url, code, said = ways[way]
    started = time.monotonic()
    ended = command(pipeline, "processor", REDIS_URL=url)
    last = ended.stderr.splitlines()[-1]
    assert ended.returncode == code
    assert said in last
    assert "Traceback" not in ended.stderr
    assert time.monotonic() - started < 60
    for asked in (("live", "--once"), ("verify", "--timeout", "1")):
        answer = command(pipeline, "tillstream", *asked, REDIS_URL=url)
        assert answer.returncode == 3
        assert "Traceback" not in answer.stderr
        assert all("open says me" not in text for text in (answer.stderr, answer.stdout, ended.stderr))


def test_the_file_as_it_ships_lets_nobody_in(nursery: Nursery, tmp_path: Path) -> None:
    """Who forgets to put passwords in has a server that does not start, and not one with a known password."""
    from tillstream.local.redis import find_binary

    (tmp_path / "users.acl").write_text(Path("deploy/redis/users.acl").read_text())
    ended = subprocess.run(
        [find_binary(), "--port", "0", "--save", "", "--dir", str(tmp_path), "--aclfile", str(tmp_path / "users.acl")],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert ended.returncode == 1
