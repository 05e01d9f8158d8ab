"""The recovery directory refuses, in words, everything that would lose state silently."""

import subprocess
import sys
from pathlib import Path

import pytest

from processor.recovery import RecoveryDirectory, RecoveryError, store_fault

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


@pytest.mark.parametrize("part", ["engine", "numbers", "identities"])
def test_a_lost_owner_is_refused_while_there_is_something_that_belongs_to_it(used: Path, part: str) -> None:
    (used / "owner.json").unlink()
    for file in (used / "engine").iterdir():
        file.unlink()
    (used / "engine").rmdir()
    (used / part).mkdir()
    with pytest.raises(RecoveryError, match=f"has lost owner.json, which {part} belong to"):
        reopened(used)
    assert not (used / "owner.json").exists()


DIES = {
    "before the owner is there": "Path.replace = lambda *_: os._exit(9)",
    "in the middle of the engine's files": "recovery.init_db_dir = lambda to, _: (to / 'half').touch() or os._exit(9)",
    "before the engine's files have their name": "Path.rename = lambda *_: os._exit(9)",
    "when all is there": "recovery.RecoveryConfig = lambda *_: os._exit(9)",
}


@pytest.mark.parametrize("death", DIES.values(), ids=DIES.keys())
def test_a_crash_while_the_directory_is_made_is_repaired_by_the_next_start(tmp_path: Path, death: str) -> None:
    path = tmp_path / "state"
    dying = f"""
import os, sys
from pathlib import Path
from processor import recovery
{death}
recovery.RecoveryDirectory(Path(sys.argv[1]), stream="orders-1", slots=4)
"""
    died = subprocess.run([sys.executable, "-c", dying, str(path)], timeout=60, check=False)
    assert died.returncode == 9
    recovery = reopened(path)
    assert [file.name for file in (path / "engine").iterdir()] == ["part-0.sqlite3"]
    recovery.close()
    assert reopened(path).owner == recovery.owner


def test_a_directory_that_others_may_enter_is_refused(used: Path) -> None:
    used.chmod(0o755)
    with pytest.raises(RecoveryError, match="chmod 700"):
        reopened(used)


def test_a_panic_of_the_engines_store_becomes_one_line() -> None:
    panic = RuntimeError(
        "(src/run.rs:167:13) called `Result::unwrap()` on an `Err` value: SqliteFailure(Error { code: DiskFull, "
        'extended_code: 13 }, Some("database or disk is full"))'
    )
    said = str(store_fault(panic, Path("/state")))
    assert said.startswith("the engine's store in RECOVERY_DIR /state failed (database or disk is full): make room")
    assert "\n" not in said


def test_a_panic_without_words_still_names_its_code() -> None:
    panic = RuntimeError("SqliteFailure(Error { code: DatabaseCorrupt, extended_code: 11 }, None)")
    assert "failed (DatabaseCorrupt)" in str(store_fault(panic, Path("/state")))


def test_any_other_error_of_the_engine_is_none_of_the_store() -> None:
    assert store_fault(RuntimeError("error calling `next_batch`"), Path("/state")) is None
    assert store_fault(ValueError("SqliteFailure(Error { code: DiskFull })"), Path("/state")) is None
