"""A project of Docker Compose, made from a clean checkout, with ports and volumes of its own."""

import json
import os
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[2]
COMMAND_SECONDS = 400.0
"""For one command of Compose's on two busy cores; the images are there."""


def checkout(folder: Path) -> Path:
    """What HEAD holds, and nothing else, with the modes that a clone gives its files; the folder."""
    folder.mkdir()
    archive = subprocess.run(
        ["git", "-c", "tar.umask=0022", "archive", "HEAD"], cwd=REPOSITORY, capture_output=True, timeout=60, check=True
    )
    subprocess.run(["tar", "-xf", "-"], cwd=folder, input=archive.stdout, timeout=60, check=True)
    return folder


@dataclass(frozen=True)
class Project:
    """What ``docker compose`` does in one folder under one name. Every call blocks until Compose has answered."""

    folder: Path
    name: str
    env_files: tuple[str, ...] = (".env",)

    def compose(self, *arguments: str, seconds: float = COMMAND_SECONDS) -> "subprocess.CompletedProcess[str]":
        """Runs it, whatever the exit code."""
        files = [word for name in self.env_files for word in ("--env-file", name)]
        return subprocess.run(
            ["docker", "compose", "--ansi", "never", "--progress", "quiet", *files, *arguments],
            cwd=self.folder,
            # Not by -p: `down` would go by the labels of containers alone, and miss the Kafka that Kinesis leaves out.
            env={**os.environ, "COMPOSE_PROJECT_NAME": self.name},
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )

    def do(self, *arguments: str, seconds: float = COMMAND_SECONDS) -> str:
        """Runs it; its output. Fails, with the last log lines of every container, where the exit code is not 0."""
        done = self.compose(*arguments, seconds=seconds)
        command = " ".join(arguments)
        assert done.returncode == 0, f"docker compose {command}: {done.returncode}\n{done.stderr}\n{self.logs()}"
        return done.stdout

    def tillstream(self, *arguments: str, seconds: float = COMMAND_SECONDS) -> str:
        """A command of the command line's image, inside the project's network; its output."""
        return self.do("run", "--rm", "--no-deps", "tillstream", *arguments, seconds=seconds)

    def logs(self, *services: str) -> str:
        """The last lines of each container."""
        return self.compose("--profile", "*", "logs", "--no-color", "--tail", "25", *services).stdout

    def states(self) -> dict[str, dict[str, Any]]:
        """What the engine says of each container, by its service."""
        found = self._listed("container", "ls", "--all", "--quiet")
        if not found:
            return {}
        described = json.loads(_docker("container", "inspect", *found))
        return {each["Config"]["Labels"]["com.docker.compose.service"]: each for each in described}

    def kill(self, service: str) -> str:
        """SIGKILL for the first process of a service's container, by nobody that the engine knows of: a ``docker kill``
        counts as a stop that somebody wants, and what is stopped is not started again. When it had been started."""
        states = self.states()
        pid, image = states[service]["State"]["Pid"], states["setup"]["Config"]["Image"]
        killing = f"import os, signal; os.kill({pid}, signal.SIGKILL)"
        options = (
            "--rm",
            "--pid",
            "host",
            "--user",
            "0",
            "--cap-drop",
            "ALL",
            "--cap-add",
            "KILL",
            "--network",
            "none",
        )
        _docker("run", *options, "--entrypoint", "python", image, "-c", killing)
        return str(states[service]["State"]["StartedAt"])

    def is_back(self, service: str, since: str) -> bool:
        """Was it started again, and is it healthy?"""
        state = self.states()[service]["State"]
        return bool(state["StartedAt"] != since and state.get("Health", {}).get("Status") == "healthy")

    def lose(self, volume: str) -> None:
        """Removes one volume, which no container may have."""
        _docker("volume", "rm", f"{self.name}_{volume}")

    def remains(self) -> list[str]:
        """Every container, network and volume that the engine still has of the project."""
        containers = self._listed("container", "ls", "--all", "--format", "{{.Names}}")
        networks = self._listed("network", "ls", "--format", "{{.Name}}")
        return containers + networks + self._listed("volume", "ls", "--format", "{{.Name}}")

    def clear(self) -> None:
        """Removes all of it, with its data; no error where nothing is left."""
        self.do("--profile", "*", "down", "--volumes", "--remove-orphans", "--timeout", "5")

    def _listed(self, *command: str) -> list[str]:
        return _docker(*command, "--filter", f"label=com.docker.compose.project={self.name}").split()


def stand_ins(images: Mapping[str, str]) -> dict[str, str]:
    """Of these images those that are no public ones, and what they are instead.

    Args:
        images: by service.
    """
    label = '{{index .Config.Labels "tillstream.stand-in"}}'
    told = {image: _docker("image", "inspect", "--format", label, image).strip() for image in set(images.values())}
    return {image: what for image, what in sorted(told.items()) if what}


def has_image(image: str) -> bool:
    """Is it there? Nothing is pulled."""
    found = subprocess.run(["docker", "image", "inspect", image], capture_output=True, timeout=30, check=False)
    return found.returncode == 0


def _docker(*arguments: str) -> str:
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, f"docker {' '.join(arguments)}: {done.stderr}"
    return done.stdout


def wait(what: str, condition: Callable[[], object], seconds: float) -> float:
    """Blocks until the condition holds; how many seconds it took. Fails with ``what`` after so many."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < seconds, f"not within {seconds:g} s: {what}"
        time.sleep(0.25)  # between two questions to the engine; bounded above
    return time.monotonic() - began
