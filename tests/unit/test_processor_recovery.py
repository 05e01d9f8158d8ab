"""The recovery directory refuses, in words, everything that would lose state silently."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from processor.recovery import RecoveryDirectory, RecoveryError, replaced, store_fault

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


USE = """
recovery.hold(77)
recovery.numbers().mkdir()
recovery.identities("slot-0").mkdir(parents=True)
recovery.note_snapshot()
"""


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
            f"{OPEN}{USE}",
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
    shutil.rmtree(used / "engine")
    with pytest.raises(RecoveryError, match="has lost its snapshots"):
        reopened(used)


@pytest.mark.parametrize("part", ["numbers", "identities"])
def test_a_lost_journal_is_refused(used: Path, part: str) -> None:
    shutil.rmtree(used / part)
    with pytest.raises(RecoveryError, match=f"has lost {part}"):
        reopened(used)


@pytest.mark.parametrize("part", ["engine", "numbers", "identities"])
def test_a_lost_owner_is_refused_while_there_is_something_that_belongs_to_it(used: Path, part: str) -> None:
    (used / "owner.json").unlink()
    for other in {"engine", "numbers", "identities"} - {part}:
        shutil.rmtree(used / other)
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


def test_a_damaged_recovery_store_is_refused(used: Path) -> None:
    (store,) = (used / "engine").glob("*.sqlite3")
    content = store.read_bytes()
    for damaged in (content[:4000] + bytes(len(content) - 4000), content[:5000], b"", b"no database" * 1000):
        store.write_bytes(damaged)
        with pytest.raises(RecoveryError, match=r"part-0\.sqlite3 is damaged"):
            reopened(used)
    store.unlink()
    with pytest.raises(RecoveryError, match=r"part-0\.sqlite3 is damaged or missing"):
        reopened(used)


BUILDS = """
import os, sys
from pathlib import Path
from processor import recovery
path = Path(sys.argv[1])
with recovery.replaced(path, aside=sys.argv[2]) as fresh:
    built = recovery.RecoveryDirectory(fresh, stream="orders-2", slots=4)
    built.numbers().mkdir()
    (fresh / "identities").mkdir()
    built.note_snapshot()
    built.close()
    move, left = Path.rename, int(sys.argv[3])
    def rename(source, target):
        global left
        left -= 1
        return os._exit(9) if left < 0 else move(source, target)
    Path.rename = rename
"""

MOVES = 4 + 4
"""All parts of the old state go aside, and those of the new one come in."""


def build(path: Path, aside: str, moves: int = 99) -> int:
    return subprocess.run(
        [sys.executable, "-c", BUILDS, str(path), aside, str(moves)], timeout=60, check=False
    ).returncode


@pytest.mark.parametrize("moves", range(MOVES))
def test_a_crash_while_a_state_is_replaced_leaves_one_that_is_refused_or_whole(used: Path, moves: int) -> None:
    assert build(used, "aside-1", moves) == 9
    with pytest.raises(RecoveryError, match=r"has lost|holds half a state|holds the state of stream orders-1"):
        reopened(used, stream="orders-2")
    assert build(used, "aside-2") == 0
    recovery = reopened(used, stream="orders-2")
    assert recovery.owner.committed
    recovery.close()
    kept = {part.name for aside in used.glob("aside-*") for part in aside.iterdir()}
    assert {"owner.json", "engine"} <= kept
    assert not (used / "rebuild").exists()


def test_a_state_that_is_replaced_is_kept_beside_the_new_one(used: Path) -> None:
    before = (used / "owner.json").read_bytes()
    assert build(used, "aside-1") == 0
    assert (used / "aside-1" / "owner.json").read_bytes() == before
    assert reopened(used, stream="orders-2").owner.stream == "orders-2"


def test_a_directory_that_holds_a_state_is_not_replaced_unasked(used: Path) -> None:
    with (
        pytest.raises(RecoveryError, match=r"holds a state \(owner.json, engine, numbers, identities\)"),
        replaced(used, aside=None),
    ):
        pytest.fail("nothing may be built")
    assert reopened(used).owner.token == 77


def test_a_directory_in_use_is_not_replaced(used: Path) -> None:
    holder = reopened(used)
    with pytest.raises(RecoveryError, match="another processor is using"), replaced(used, aside="aside-1"):
        pytest.fail("nothing may be built")
    holder.close()


def test_what_fails_while_it_is_built_leaves_all_as_it_was(used: Path) -> None:
    with pytest.raises(IsADirectoryError), replaced(used, aside="aside-1") as fresh:
        fresh.write_text("fails")
    assert reopened(used).owner.token == 77
    assert not (used / "rebuild").exists()


def test_the_first_state_may_be_built_where_nothing_is(tmp_path: Path) -> None:
    assert build(tmp_path / "state", "aside-1") == 0
    assert reopened(tmp_path / "state", stream="orders-2").owner.committed
    assert not (tmp_path / "state" / "aside-1").exists()
