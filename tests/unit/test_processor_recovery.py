"""The recovery directory refuses, in words, everything that would lose state silently."""

import subprocess
import sys
from pathlib import Path

import pytest

from processor.recovery import RecoveryDirectory, RecoveryError

OPEN = """
import sys, pathlib
from processor.recovery import RecoveryDirectory
recovery = RecoveryDirectory(pathlib.Path(sys.argv[1]), stream="orders-1", slots=4)
"""


def test_a_first_start_makes_a_directory_that_nobody_else_may_enter(tmp_path: Path) -> None:
    recovery = RecoveryDirectory(tmp_path / "state", stream="orders-1", slots=4)
    assert (tmp_path / "state").stat().st_mode & 0o777 == 0o700
    assert not recovery.owner.committed
    recovery.must_resume(found=False, what="numbers")


def test_a_second_processor_on_the_same_directory_is_refused(tmp_path: Path) -> None:
    holder = RecoveryDirectory(tmp_path / "state", stream="orders-1", slots=4)
    second = subprocess.run(
        [
            sys.executable,
            "-c",
            OPEN,
            str(tmp_path / "state"),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert second.returncode != 0
    assert "another processor is using RECOVERY_DIR" in second.stderr
    assert holder.owner.stream == "orders-1"


def reopened(path: Path, **changes: object) -> RecoveryDirectory:
    """A later start, when the earlier process is gone (its lock with it)."""
    return RecoveryDirectory(path, **({"stream": "orders-1", "slots": 4} | changes))  # type: ignore[arg-type]


@pytest.fixture
def used(tmp_path: Path) -> Path:
    path = tmp_path / "state"
    subprocess.run(
        [
            sys.executable,
            "-c",
            f"{OPEN}\nrecovery.hold(77)\nrecovery.note_snapshot()",
            str(path),
        ],
        timeout=60,
        check=True,
    )
    return path


def test_what_was_noted_is_there_again(used: Path) -> None:
    owner = reopened(used).owner
    assert owner.token == 77
    assert owner.committed


def test_the_state_of_another_stream_is_refused(used: Path) -> None:
    with pytest.raises(RecoveryError, match="holds the state of stream orders-1"):
        reopened(used, stream="orders-2")


def test_another_number_of_slots_is_refused(used: Path) -> None:
    with pytest.raises(RecoveryError, match="SLOTS=4"):
        reopened(used, slots=8)


def test_state_that_should_be_there_and_is_not_is_refused(used: Path) -> None:
    recovery = reopened(used)
    recovery.must_resume(found=True, what="numbers")
    with pytest.raises(RecoveryError, match="should hold a snapshot"):
        recovery.must_resume(found=False, what="numbers")


def test_a_lost_recovery_store_is_refused(used: Path) -> None:
    for file in (used / "engine").iterdir():
        file.unlink()
    (used / "engine").rmdir()
    with pytest.raises(RecoveryError, match="has lost its snapshots"):
        reopened(used)


def test_a_directory_that_others_may_enter_is_refused(used: Path) -> None:
    used.chmod(0o755)
    with pytest.raises(RecoveryError, match="chmod 700"):
        reopened(used)
