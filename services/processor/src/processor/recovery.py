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
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from bytewax.recovery import RecoveryConfig, init_db_dir

from processor.disk import sync_directory

_STORE_FAILED = re.compile(r'SqliteFailure\(Error { code: (?P<code>\w+)(?:.*Some\("(?P<words>[^"]*)"\))?')
"""How the engine tells that SQLite refused it: in the text of a RuntimeError, after a panic."""

_FORMAT = 3

LOCK_SECONDS = 2.0
"""How long the lock is waited for: when the first process of a cluster is killed, the others follow a moment later."""
_ENGINE_PARTITIONS = 1


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
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        if path.stat().st_mode & 0o077:
            raise RecoveryError(
                f"RECOVERY_DIR {path} may be entered by others (its state could run code): chmod 700 it"
            )
        self.lock = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600) if lock is None else lock
        try:
            _await_lock(self.lock)
        except BlockingIOError as error:
            raise RecoveryError(
                f"another processor is using RECOVERY_DIR {path}: stop it, or give each its own"
            ) from error
        self._path = path
        self._file = path / "owner.json"
        self.owner = self._load(stream, slots)
        engine = path / "engine"
        if not engine.exists():
            if self.owner.committed:
                raise RecoveryError(
                    f"RECOVERY_DIR {path} has lost its snapshots ({engine} is missing): restore it, or remove {path} "
                    "to rebuild the state from the stream"
                )
            fresh = path / "engine.new"
            shutil.rmtree(fresh, ignore_errors=True)
            fresh.mkdir(mode=0o700)
            init_db_dir(fresh, _ENGINE_PARTITIONS)  # type: ignore[no-untyped-call]  # the engine's stubs say nothing
            sync_directory(fresh)
            fresh.rename(engine)  # whole or not at all: what a crash leaves half is made again
            sync_directory(path)
        self.engine = RecoveryConfig(str(engine))  # type: ignore[no-untyped-call]

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
                f"RECOVERY_DIR {self._path} should hold a snapshot of the {what} and holds none: restore it, "
                "or remove it to rebuild the state from the stream"
            )

    def _load(self, stream: str, slots: int) -> Owner:
        if not self._file.exists():
            orphans = [name for name in ("engine", "numbers", "identities") if (self._path / name).exists()]
            if orphans:
                raise RecoveryError(
                    f"RECOVERY_DIR {self._path} has lost {self._file.name}, which {' and '.join(orphans)} belong to: "
                    f"restore it, or remove {self._path} to rebuild the state from the stream"
                )
            owner = Owner(
                format=_FORMAT, stream=stream, slots=slots, seed=secrets.randbits(63), token=0, committed=False
            )
            self._save(owner)
            return owner
        try:
            owner = Owner(**json.loads(self._file.read_text()))
        except (ValueError, TypeError) as error:
            raise RecoveryError(f"{self._file} can't be read ({error}): restore it, or remove {self._path}") from error
        if owner.format != _FORMAT:
            raise RecoveryError(
                f"{self._path} has format {owner.format}, this version reads {_FORMAT}: "
                "run the version that wrote it, or remove it to rebuild the state from the stream"
            )
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


def _await_lock(file: int) -> None:
    """Takes the lock, for which it waits up to LOCK_SECONDS.

    Raises:
        BlockingIOError: somebody else has it.
    """
    give_up = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > give_up:
                raise
            time.sleep(0.02)
        else:
            return


def store_fault(error: BaseException, path: Path) -> RecoveryError | None:
    """What an error of the engine says of its recovery store, in words; None: it says nothing of it.

    Args:
        error: what the engine raised.
        path: of the recovery directory.
    """
    found = _STORE_FAILED.search(str(error)) if isinstance(error, RuntimeError) else None
    if found is None:
        return None
    return RecoveryError(
        f"the engine's store in RECOVERY_DIR {path} failed ({found['words'] or found['code']}): make room or mend the "
        "disk, and start again; it goes on from the last snapshot"
    )
