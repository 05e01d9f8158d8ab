"""The recovery directory: who may use it, what it belongs to, and what must be in it.

It holds the engine's recovery store (pickle: whoever can write there can run code here, hence mode 0700), the journals
of the numbers and of the identities, and a small file that says whose state this is.
"""

import fcntl
import json
import os
import re
import secrets
import shutil
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from bytewax.recovery import RecoveryConfig, init_db_dir

from processor.disk import sync_directory
from processor.lost import WAY_OUT

_STORE_FAILED = re.compile(r'SqliteFailure\(Error { code: (?P<code>\w+)(?:.*Some\("(?P<words>[^"]*)"\))?')
"""How the engine tells that SQLite refused it: in the text of a RuntimeError, after a panic."""

_FORMAT = 4

LOCK_SECONDS = 2.0
"""How long the lock is waited for: when the first process of a cluster is killed, the others follow a moment later."""
_ENGINE_PARTITIONS = 1

_OWNER = "owner.json"

_PARTS = (_OWNER, "engine", "numbers", "identities")
"""What a state consists of; without the first, the others belong to nobody."""

_FRESH = "rebuild"
"""Where a state is built that is to take the place of another."""


class RecoveryError(Exception):
    """The directory can't be used as it is; the message says what is wrong and what to do."""


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose state the directory holds."""

    format: int
    stream: str
    slots: int
    seed: int
    """secret of the identities' hashes"""
    token: int
    """highest fencing token that a processor on this directory has held"""
    committed: bool
    """there is a snapshot: a start that finds none must not begin at nothing"""


class RecoveryDirectory:
    """An open, locked recovery directory; the lock ends with `close` or with the process."""

    def __init__(self, path: Path, *, stream: str, slots: int, lock: int | None = None) -> None:
        """Opens and locks it, and creates what is missing on a first start.

        Args:
            path: of the directory.
            stream: id of the stream that is read.
            slots: how many readers share it.
            lock: file descriptor of the lock, if another process of the same cluster has it open already.

        Raises:
            RecoveryError: in use by another process, readable by others, belongs to another stream, or has lost a part.
            OSError: the disk refuses.
        """
        self.lock = _lock(path, lock)
        self._path = path
        self._file = path / _OWNER
        try:
            self.owner = self._load(stream, slots)
            engine = self._engine()
            if lock is None:  # or the process that has it has looked
                _check(engine)
            self.engine = RecoveryConfig(str(engine))  # type: ignore[no-untyped-call]
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Lets another processor have it."""
        os.close(self.lock)

    def numbers(self) -> Path:
        """Where the journal of the numbers is."""
        return self._path / "numbers"

    def identities(self, slot: str) -> Path:
        """Where the journal of one slot's identities is."""
        return self._path / "identities" / slot

    def hold(self, token: int) -> None:
        """Notes the fencing token that this process holds, durably."""
        self._save(replace(self.owner, token=token))

    def note_snapshot(self) -> None:
        """Notes, once, that a snapshot has been committed."""
        if not self.owner.committed:
            self._save(replace(self.owner, committed=True))

    def must_resume(self, *, found: bool, what: str) -> None:
        """Refuses to begin at nothing where there should be state (two processes on one store lose it silently).

        Raises:
            RecoveryError: nothing was found though a snapshot had been committed.
        """
        if self.owner.committed and not found:
            raise RecoveryError(
                f"RECOVERY_DIR {self._path} should hold a snapshot of the {what} and holds none: {WAY_OUT}"
            )

    def _engine(self) -> Path:
        """Where the engine's store is; made if there is no state yet."""
        engine = self._path / "engine"
        if engine.exists():
            return engine
        if self.owner.committed:
            raise RecoveryError(f"RECOVERY_DIR {self._path} has lost its snapshots ({engine} is missing): {WAY_OUT}")
        fresh = self._path / "engine.new"
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(mode=0o700)
        init_db_dir(fresh, _ENGINE_PARTITIONS)  # type: ignore[no-untyped-call]  # the engine's stubs say nothing
        sync_directory(fresh)
        fresh.rename(engine)  # whole or not at all: what a crash leaves half is made again
        sync_directory(self._path)
        return engine

    def _load(self, stream: str, slots: int) -> Owner:
        if not self._file.exists():
            if (self._path / _FRESH).exists():
                raise RecoveryError(f"RECOVERY_DIR {self._path} holds half a state, of a rebuild that ended: {WAY_OUT}")
            orphans = [name for name in _PARTS[1:] if (self._path / name).exists()]
            if orphans:
                raise RecoveryError(
                    f"RECOVERY_DIR {self._path} has lost {_OWNER}, which {' and '.join(orphans)} belong to: {WAY_OUT}"
                )
            owner = Owner(
                format=_FORMAT, stream=stream, slots=slots, seed=secrets.randbits(63), token=0, committed=False
            )
            self._save(owner)
            return owner
        try:
            owner = Owner(**json.loads(self._file.read_text()))
        except (ValueError, TypeError) as error:
            raise RecoveryError(f"{self._file} can't be read ({error}): {WAY_OUT}") from error
        if owner.format != _FORMAT:
            raise RecoveryError(
                f"{self._path} has format {owner.format}, this version reads {_FORMAT}: "
                f"run the version that wrote it, or go on with this one: {WAY_OUT}"
            )
        if owner.committed and (lost := [name for name in _PARTS[2:] if not (self._path / name).exists()]):
            raise RecoveryError(f"RECOVERY_DIR {self._path} has lost {' and '.join(lost)}: {WAY_OUT}")
        if owner.stream != stream:
            raise RecoveryError(
                f"RECOVERY_DIR {self._path} holds the state of stream {owner.stream}, but the stream is now {stream} "
                "(it was deleted and made again, or another one is meant): use another directory, or remove this one"
            )
        if owner.slots != slots:
            raise RecoveryError(
                f"RECOVERY_DIR {self._path} was made with SLOTS={owner.slots}, not {slots}: set it back"
            )
        return owner

    def _save(self, owner: Owner) -> None:
        self.owner = owner
        fresh = self._file.with_suffix(".new")
        with fresh.open("w") as file:
            json.dump(asdict(owner), file)
            file.flush()
            os.fsync(file.fileno())
        fresh.chmod(0o600)
        fresh.replace(self._file)
        sync_directory(self._path)


@contextmanager
def replaced(path: Path, *, aside: str | None) -> Iterator[Path]:
    """A fresh directory for a state; what was built there takes the place of what ``path`` holds when the block ends
    well, and goes when it doesn't. Meanwhile nobody else may use ``path``.

    The place is changed part by part, so that a crash leaves either a whole state or one that every start refuses:
    what is there is moved aside, its owner first; then what is new moves in, its owner last.

    Args:
        path: a recovery directory; made if it is missing.
        aside: a folder in ``path`` that is not there yet and takes what it holds; None: it may hold no state.

    Raises:
        RecoveryError: in use by another process, readable by others, or it holds a state and may not.
        OSError: the disk refuses.
    """
    lock = _lock(path)
    try:
        held = [name for name in _PARTS if (path / name).exists()]
        if held and aside is None:
            raise RecoveryError(
                f"RECOVERY_DIR {path} holds a state ({', '.join(held)}); if the processor refuses it, --force moves it "
                "aside, deletes nothing, and puts another in its place"
            )
        fresh = path / _FRESH
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(mode=0o700)
        try:
            yield fresh
            if held and aside is not None:
                (path / aside).mkdir(mode=0o700)
                _move(held, path, path / aside)
            _move([name for name in reversed(_PARTS) if (fresh / name).exists()], fresh, path)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
    finally:
        os.close(lock)


def _move(names: list[str], source: Path, target: Path) -> None:
    for name in names:
        (source / name).rename(target / name)
        sync_directory(target)
        sync_directory(source)


def _lock(path: Path, held: int | None = None) -> int:
    """Makes the directory if it is missing, and keeps every other process out until the descriptor is closed; waits for
    up to LOCK_SECONDS.

    Args:
        path: the directory.
        held: the lock's descriptor, if this process came with it.
    """
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    if path.stat().st_mode & 0o077:
        raise RecoveryError(f"RECOVERY_DIR {path} may be entered by others (its state could run code): chmod 700 it")
    lock = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600) if held is None else held
    give_up = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if time.monotonic() > give_up:
                os.close(lock)
                raise RecoveryError(
                    f"another processor is using RECOVERY_DIR {path}: stop it, or give each its own"
                ) from error
            time.sleep(0.02)
        else:
            return lock


def store_fault(error: BaseException, path: Path) -> RecoveryError | None:
    """What an error of the engine says of its recovery store, in words; None: it says nothing of it.

    Args:
        error: what the engine raised.
        path: of the recovery directory.
    """
    found = _STORE_FAILED.search(str(error)) if isinstance(error, RuntimeError) else None
    if found is None:
        return None
    return _store_failed(path, found["words"] or found["code"])


def _store_failed(path: Path, why: object) -> RecoveryError:
    return RecoveryError(
        f"the engine's store in RECOVERY_DIR {path} failed ({why}): make room or mend the disk, and start again; it "
        "goes on from the last snapshot"
    )


def _check(engine: Path) -> None:
    """Looks at the engine's store, whose damage would be an abort with a page of addresses."""
    for number in range(_ENGINE_PARTITIONS):
        part = engine / f"part-{number}.sqlite3"
        try:
            with closing(sqlite3.connect(f"{part.absolute().as_uri()}?mode=rw", uri=True)) as database:
                [(answer,)] = database.execute("PRAGMA quick_check(1)").fetchall()
                database.execute("SELECT 1 FROM snaps LIMIT 1")
        except sqlite3.DatabaseError as error:
            if getattr(error, "sqlite_errorname", "").startswith(("SQLITE_FULL", "SQLITE_IOERR", "SQLITE_READONLY")):
                raise _store_failed(engine.parent, error) from error
            raise RecoveryError(f"{part} is damaged or missing ({error}): {WAY_OUT}") from error
        if answer != "ok":
            raise RecoveryError(f"{part} is damaged ({answer}): {WAY_OUT}")
