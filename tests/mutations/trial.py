"""One guard taken away in a copy of the sources, and what its test says to that."""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mutations.guards import Guard

REPOSITORY = Path(__file__).parents[2]

TEST_SECONDS = 180.0
"""A test that fails may wait for what never comes; each such wait is bounded, by some tens of seconds."""

Ending = Literal["noticed", "unnoticed", "no proof"]
"""``no proof``: the program was broken rather than wrong, or the test did not come to its end."""

BROKEN = frozenset("AttributeError ImportError ModuleNotFoundError NameError SyntaxError TypeError".split())
"""Errors of a program that was cut badly."""

_FAILED = re.compile(r"^FAILED .*?(?: - (?P<said>.*))?$", re.MULTILINE)


class GuardError(Exception):
    """The list of guards and the sources do not fit together; says where."""


@dataclass(frozen=True)
class Verdict:
    """What became of a guard's absence."""

    ending: Ending
    said: str
    """by the test, in a line"""


def without(guard: Guard, text: str) -> str:
    """A file's text without the guard.

    Raises:
        GuardError: the guard does not stand there exactly once.
    """
    found = text.count(guard.old)
    if found != 1:
        raise GuardError(f"{guard.file} has {found} times, not once: {guard.old!r} ({guard.name})")
    return text.replace(guard.old, guard.new)


def judge(code: int | None, output: str) -> Verdict:
    """From pytest's exit code (None: it was ended) and output."""
    if code is None:
        return Verdict("no proof", "the test did not come to its end")
    if code == 0:
        return Verdict("unnoticed", "the test passes without it")
    failed = _FAILED.search(output)
    if code != 1 or failed is None:
        return Verdict("no proof", f"pytest ended with {code}: {_last_line(output)}")
    said = (failed["said"] or "").strip()
    return Verdict("no proof" if said.partition(":")[0] in BROKEN else "noticed", said)


def run_without(guard: Guard, environment: Mapping[str, str]) -> Verdict:
    """Runs the guard's test without it, in a copy; blocks for some seconds, for TEST_SECONDS at most.

    Args:
        guard: which.
        environment: of the test.

    Raises:
        GuardError: the guard is not to be found.
    """
    with tempfile.TemporaryDirectory(prefix="tillstream-without-") as name:
        folder = Path(name)
        copies = []
        for source in _sources():
            copies.append(str(folder / source.relative_to(REPOSITORY)))
            shutil.copytree(source, copies[-1])
        place = folder / guard.file
        place.write_text(without(guard, place.read_text()))
        changed = {
            "PYTHONPATH": os.pathsep.join(copies),
            "HYPOTHESIS_STORAGE_DIRECTORY": str(folder / "hypothesis"),  # what fails here is no example to keep
        }
        code, output = run_tests([guard.test], {**environment, **changed}, TEST_SECONDS)
    return judge(code, output)


def run_tests(tests: Iterable[str], environment: Mapping[str, str], seconds: float) -> tuple[int | None, str]:
    """pytest's exit code and output, up to its first failure; None: it took longer than ``seconds``, and was killed
    with all that it started."""
    process = subprocess.Popen(
        [sys.executable, "-m", "pytest", "-q", "-x", "-rf", "--tb=line", "-p", "no:cacheprovider", *tests],
        cwd=REPOSITORY,
        # A line for each failure, however long. What was compiled from a mutant must not be found by the next.
        env={**environment, "CI": "true", "PYTHONDONTWRITEBYTECODE": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=seconds)
    except BaseException as error:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if isinstance(error, subprocess.TimeoutExpired):
            return None, ""
        raise
    return process.returncode, output


def _sources() -> list[Path]:
    """Folders that packages are imported from."""
    return sorted(path for pattern in ("libs/*/src", "services/*/src", "cli/src") for path in REPOSITORY.glob(pattern))


def _last_line(output: str) -> str:
    return next(reversed(output.strip().splitlines()), "nothing")
