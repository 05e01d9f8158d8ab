"""`tillstream live`, and how every command is found: what ends them is a line and an exit code."""

import subprocess
import sys

import pytest
import redis

from sales.board import Keys
from support.ports import lasting_ports
from tillstream.app import COMMANDS
from tillstream.local.server import inherited


def tillstream(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "tillstream", *arguments],
        env=inherited(**environment),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_without_arguments_every_command_is_named() -> None:
    said = tillstream().stdout
    assert all(f" {name} " in said for name in COMMANDS)


def test_a_command_that_is_none_is_a_wrong_argument() -> None:
    assert tillstream("prove").returncode == 2


def test_an_empty_board_has_no_numbers_yet(redis_client: "redis.Redis", redis_url: str) -> None:
    done = tillstream("live", "--once", REDIS_URL=redis_url)
    assert (done.returncode, done.stdout) == (0, "no numbers yet\n")


def test_a_window_that_is_none_says_which_there_are(redis_url: str) -> None:
    done = tillstream("live", "--once", "--window", "7m", REDIS_URL=redis_url)
    assert (done.returncode, done.stderr) == (2, "--window 7m: allowed: 1m, 5m, 15m, 1h, 24h\n")


def test_a_redis_that_is_away_is_named() -> None:
    [port] = lasting_ports()
    done = tillstream("live", "--once", REDIS_URL=f"redis://:hush@127.0.0.1:{port}/0")
    assert done.returncode == 3
    assert done.stderr.startswith(f"Redis at 127.0.0.1:{port} does not answer: ")
    assert "hush" not in done.stderr


@pytest.mark.parametrize("arguments", [("--once",), ()], ids=["once", "watching"])
def test_a_redis_that_refuses_is_named(redis_client: "redis.Redis", redis_url: str, arguments: tuple[str, ...]) -> None:
    redis_client.set(Keys("sales:").status, "of another type")
    done = tillstream("live", *arguments, REDIS_URL=redis_url)
    assert done.returncode == 3
    [line] = done.stderr.splitlines()
    assert "refuses: " in line
    assert "WRONGTYPE" in line
