"""The engine that runs containers, as `docker` speaks to it."""

import json
import os
import subprocess
import time
from collections.abc import Callable
from typing import Any

import pytest

COMMAND_SECONDS = 60.0
"""For one command on two busy cores."""
UNTIL_SECONDS = 120.0
"""For what a container does by itself: a start of a service, a health check that turns."""

ASK_SECONDS = 0.3
"""Between two questions to the engine: each is a program of its own, and costs what is waited for its processor."""


def engine_fault() -> str | None:
    """Why there is no engine with Compose 2 and Buildx; None: there is one."""
    if why := os.environ.get("TILLSTREAM_NO_ENGINE"):
        return why
    for command in (["docker", "version"], ["docker", "buildx", "version"], ["docker", "compose", "version"]):
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_SECONDS, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            return f"{' '.join(command)}: {error}"
        if done.returncode != 0:
            said = (done.stderr.strip() or done.stdout.strip()).splitlines() or [str(done.returncode)]
            return f'{" ".join(command)}: {said[-1]} (eval "$(tests/e2e/images/engine start)")'
    return None


def engine_or_skip() -> None:
    """Skips the test where there is no engine, with the reason; fails it where TILLSTREAM_REQUIRE has ``docker``."""
    fault = engine_fault()
    if fault is not None:
        if "docker" in os.environ.get("TILLSTREAM_REQUIRE", "").split(","):
            pytest.fail(f"TILLSTREAM_REQUIRE asks for docker: {fault}")
        pytest.skip(f"docker: {fault}")


def docker(*arguments: str, seconds: float = COMMAND_SECONDS) -> str:
    """Runs it; its output. Fails, with what it said, where the exit code is not 0."""
    done = attempt(*arguments, seconds=seconds)
    assert done.returncode == 0, f"docker {' '.join(arguments)}: {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout


def attempt(*arguments: str, seconds: float = COMMAND_SECONDS) -> "subprocess.CompletedProcess[str]":
    """Runs it, whatever the exit code."""
    return subprocess.run(["docker", *arguments], capture_output=True, text=True, timeout=seconds, check=False)


def inspect(name: str) -> dict[str, Any]:
    """What the engine says of a container or an image."""
    [found] = json.loads(docker("inspect", name))
    return dict(found)


def logs(name: str) -> str:
    """The last lines of a container."""
    done = attempt("logs", "--tail", "40", name)
    return done.stdout + done.stderr


def until(what: str, name: str, holds: Callable[[dict[str, Any]], bool], seconds: float = UNTIL_SECONDS) -> None:
    """Waits until it holds of a container's state; fails with its last lines when it never does."""
    deadline = time.monotonic() + seconds
    while not holds(state := inspect(name)["State"]):
        health = state.get("Health", {}).get("Log", [])[-1:]
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}\n{logs(name)}\n{health}"
        time.sleep(ASK_SECONDS)
