"""`docker compose up`, as a stranger runs it: from a clean checkout, on a real engine, until nothing of it is left.

One story, told in the order of the tests; each begins where the one before it ended. What was measured on the way (how
long it takes, the most memory of each container) is said in the output.
"""

import json
import time
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pytest
import redis

from support.composing import Project, checkout, has_image, stand_ins, wait
from support.containers import engine_or_skip
from support.ports import lasting_ports

CHAIN = ("generator", "processor", "sink", "auditor")
STORES = ("kafka", "redis", "s3", "dynamodb")
BACK_SECONDS = 120.0
"""Until a container that was killed is healthy again: the longest start, and an answer to the next question after it,
on two busy cores."""

STORED_SECONDS = 240.0
"""Until DynamoDB Local, which waits for the disk at each item, has caught up with what came while it was away."""

BUILD_SECONDS = 900.0
"""For all five images without a cache, on two busy cores with a slow way to the packages."""

MOST_MEMORY = 1536 * 2**20

ORDERS = """\
InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country
536365,85123A,WHITE HANGING HEART T-LIGHT HOLDER,6,2010-12-01 08:26:00,2.55,17850,United Kingdom
536365,71053,WHITE METAL LANTERN,6,2010-12-01 08:26:00,3.39,17850,United Kingdom
536366,22633,HAND WARMER UNION JACK,6,2010-12-01 08:28:00,1.85,17850,United Kingdom
"""
"""Two orders, as Online Retail has them."""

SETTINGS = """
TILLSTREAM_VERSION=e2e
CURRENCY=GBP
RATE=10/s
LATE=0.02
DUPLICATES=0.02
CONFLICTS=0.005
MALFORMED=0.01
ROTATE_SECONDS=5
AUDIT_SECONDS=10
"""


@dataclass(frozen=True)
class Shop:
    project: Project
    ports: Mapping[str, int]
    board: "redis.Redis"
    told: "pytest.TerminalReporter"

    def say(self, text: str) -> None:
        """A line of the run's output."""
        self.told.ensure_newline()
        self.told.write_line(f"compose: {text}")

    def accepted(self) -> int:
        """Orders that were ever accepted; -1 without a board."""
        try:
            return int(str(self.board.hget("sales:status", "accepted") or -1))
        except redis.RedisError:
            return -1

    def goes_on(self, seconds: float = BACK_SECONDS) -> float:
        """Waits until more orders are accepted than are by now; how long it took."""
        before = self.accepted()
        return wait("new orders on the board", lambda: self.accepted() > max(before, 0), seconds)

    def proves(self) -> None:
        """Lets `verify` compare everything."""
        timeout = f"--timeout={STORED_SECONDS:g}"
        report = json.loads(self.project.tillstream("verify", "--everything", "--json", timeout))
        self.say(f"verify: {report['compared']:,} numbers compared, {report['different']} different")
        assert report["compared"] > 1000
        assert report["different"] == 0


@pytest.fixture(scope="module", autouse=True)
def engine() -> None:
    """Skips all where there is none, with the reason; where TILLSTREAM_REQUIRE names ``docker`` that is a failure."""
    engine_or_skip()


@pytest.fixture(scope="module")
def shop(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """Everything of docker-compose.yml, up, from a checkout of HEAD."""
    yield from composed(request, tmp_path_factory, "tillstream-e2e")


def composed(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    name: str,
    *env_files: str,
) -> Iterator[Shop]:
    """A project of that name from a checkout of HEAD, with ports of its own; gone in the end, whatever happens."""
    folder = checkout(tmp_path_factory.mktemp("compose") / "tillstream")
    names = ("REDIS", "KAFKA", "S3", "DYNAMODB", "PROMETHEUS", "GRAFANA")
    ports = dict(zip(names, lasting_ports(len(names)), strict=True))
    (folder / ".env").write_text(SETTINGS + "".join(f"{name}_PORT={port}\n" for name, port in ports.items()))
    project = Project(folder, name, (".env", *env_files))
    board = redis.Redis(port=ports["REDIS"], decode_responses=True, socket_timeout=5)
    told = request.config.pluginmanager.get_plugin("terminalreporter")
    assert isinstance(told, pytest.TerminalReporter)
    shop = Shop(project, ports, board, told)
    project.clear()
    try:
        yield shop
    finally:
        board.close()
        project.clear()


def test_it_comes_up_with_live_numbers(shop: Shop) -> None:
    images = json.loads(shop.project.do("--profile", "*", "config", "--format", "json"))["services"]
    began = time.monotonic()
    shop.project.do("--profile", "*", "build", seconds=BUILD_SECONDS)
    shop.say(f"images built, or found in the cache, in {time.monotonic() - began:.0f} s")
    began = time.monotonic()
    shop.project.do("up", "--wait")
    shop.say(f"up --wait returned after {time.monotonic() - began:.0f} s")
    states = shop.project.states()
    used = {name: images[name]["image"] for name in states}
    for image, what in stand_ins(used).items():
        shop.say(f"STAND-IN for {image}: {what}")
    assert set(states) == {"setup", *CHAIN, *STORES}
    assert states["setup"]["State"]["ExitCode"] == 0
    assert {states[name]["State"]["Health"]["Status"] for name in (*CHAIN, *STORES)} == {"healthy"}
    shop.goes_on()
    best = shop.board.zrevrange("sales:1m:product:revenue", 0, 9, withscores=True)
    assert len(best) == 10


def test_nothing_is_published_beyond_this_machine_and_our_own_can_not_get_out(shop: Shop) -> None:
    states = shop.project.states()
    published = [
        binding["HostIp"]
        for state in states.values()
        for bindings in state["NetworkSettings"]["Ports"].values()
        for binding in bindings or ()
    ]
    assert set(published) == {"127.0.0.1"}
    for name in (*CHAIN, "setup"):
        host = states[name]["HostConfig"]
        assert list(states[name]["NetworkSettings"]["Networks"]) == [f"{shop.project.name}_inside"]
        assert (states[name]["Config"]["User"], host["ReadonlyRootfs"], host["CapDrop"]) == (
            "10001:10001",
            True,
            ["ALL"],
        )
        assert "no-new-privileges:true" in host["SecurityOpt"]
    assert all(0 < state["HostConfig"]["Memory"] <= MOST_MEMORY for state in states.values())
    assert all(state["HostConfig"]["LogConfig"]["Config"]["max-file"] == "3" for state in states.values())


@pytest.mark.parametrize("service", [*CHAIN, *STORES])
def test_under_load_what_is_killed_comes_back(shop: Shop, service: str) -> None:
    since = shop.project.kill(service)
    took = wait(f"{service} healthy again", lambda: shop.project.is_back(service, since), BACK_SECONDS)
    again = shop.goes_on()
    shop.say(f"{service} killed: healthy after {took:.0f} s, new orders on the board {again:.0f} s later")


def test_after_all_of_it_every_number_is_equal(shop: Shop) -> None:
    shop.proves()


def test_what_is_stopped_and_started_goes_on(shop: Shop) -> None:
    before = shop.accepted()
    shop.project.do("stop")
    endings = {name: shop.project.states()[name]["State"]["ExitCode"] for name in CHAIN}
    assert endings == dict.fromkeys(CHAIN, 0)
    shop.project.do("start")
    shop.goes_on()
    assert shop.accepted() >= before


def test_down_and_up_keep_the_data(shop: Shop) -> None:
    before = shop.accepted()
    shop.project.do("down")
    assert shop.project.states() == {}
    shop.project.do("up", "--wait")
    shop.goes_on()
    assert shop.accepted() >= before
    shop.proves()


def test_a_recovery_volume_that_is_lost_is_made_again(shop: Shop) -> None:
    shop.project.do("rm", "--stop", "--force", "processor")
    shop.project.lose("recovery")
    rebuilt = json.loads(shop.project.tillstream("rebuild", "--json"))
    # The stream still has all of it from the beginning, and is read again from there.
    assert set(rebuilt["positions"].values()) == {None}
    before = shop.accepted()
    shop.project.do("up", "--wait", "processor")
    shop.goes_on()
    assert shop.accepted() >= before
    shop.proves()


def test_monitoring_sees_every_service_and_loads_every_rule(shop: Shop) -> None:
    images = json.loads(shop.project.do("--profile", "*", "config", "--format", "json"))["services"]
    services = [name for name in ("prometheus", "grafana") if has_image(images[name]["image"])]
    if "grafana" not in services:
        shop.say(f"{images['grafana']['image']} is not there and has no stand-in: left out")
    shop.project.do("--profile", "monitoring", "up", "--wait", *services)

    def asked(path: str) -> dict[str, Any]:
        with urllib.request.urlopen(f"http://127.0.0.1:{shop.ports['PROMETHEUS']}/api/v1/{path}", timeout=5) as answer:
            found: dict[str, Any] = json.load(answer)["data"]
        return found

    def up() -> set[str]:
        targets = asked("targets")["activeTargets"]
        return {target["labels"]["service"] for target in targets if target["health"] == "up"}

    wait("every target up", lambda: up() == set(CHAIN), 60)
    assert len(asked("rules")["groups"]) > 0


def test_a_replay_of_real_orders_goes_beside_the_generator(shop: Shop) -> None:
    replay = shop.project.folder / "replay"
    replay.mkdir()
    (replay / "orders.csv").write_text(ORDERS)
    shop.project.do("run", "--rm", "--no-deps", "-e", "SPEED=max", "replay")
    trace = json.loads(shop.project.tillstream("trace", "536365", "--json"))
    assert trace["known"]


def test_down_v_leaves_nothing(shop: Shop) -> None:
    shop.project.do("--profile", "*", "down", "--volumes")
    assert shop.project.remains() == []


def test_on_kinesis_there_is_no_kafka_and_the_numbers_are_as_equal(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> None:
    for shop in composed(request, tmp_path_factory, "tillstream-e2e-kinesis", "deploy/compose/kinesis.env"):
        shop.project.do("--profile", "cli", "build", seconds=BUILD_SECONDS)
        shop.project.do("up", "--wait")
        assert set(shop.project.states()) == {"setup", "kinesis", "redis", "s3", "dynamodb", *CHAIN}
        shop.goes_on()
        shop.proves()
