"""Every collection finds the same tests: workers that share them refuse to run when their lists differ."""

import os
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]


def collected(seed: int) -> list[str]:
    """All tests' names in a process of its own, with a hash seed of its own."""
    command = [sys.executable, "-m", "pytest", "--collect-only", "--quiet", "-p", "no:cacheprovider", "tests"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    ended = subprocess.run(
        command,
        cwd=REPOSITORY,
        env=environment | {"PYTHONHASHSEED": str(seed)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return [line for line in ended.stdout.splitlines() if "::" in line]


def test_tests_are_named_alike_at_any_time_and_with_any_hash_seed() -> None:
    """One collection after the other, so that the second sees a later time."""
    first, later = collected(1), collected(2)
    assert any(Path(__file__).name in name for name in first)
    assert first == later
