"""A disk of its own for the recovery directories, which can be full: a tmpfs, mounted by root."""

import os
import subprocess
from pathlib import Path

SIZE = "512m"
MOUNT_SECONDS = 30.0
FILL_TRIES = 50


class Disk:
    """A mounted tmpfs, or a plain folder where mounting is refused."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o700)
        self.folder = folder
        done = _run("mount", "-t", "tmpfs", "-o", f"size={SIZE},mode=700", "chaos", str(folder))
        self.refusal = done.stderr.strip() if done.returncode else None
        """why it can't be full; None: it can"""

    def fill(self) -> None:
        """From now on it has no page left: its size becomes what is used.

        The system refuses less than that, and the processor may have written more since it was asked: then again.
        """
        for _ in range(FILL_TRIES):
            used = os.statvfs(self.folder)
            done = self._resize(str((used.f_blocks - used.f_bfree) * used.f_frsize))
            if done.returncode == 0:
                return
        raise AssertionError(done.stderr)

    def make_room(self) -> None:
        """It is as large as before."""
        done = self._resize(SIZE)
        assert done.returncode == 0, done.stderr

    def close(self) -> None:
        """Takes the mount away, whoever still has files there."""
        if self.refusal is None:
            _run("umount", "--lazy", str(self.folder))
            self.refusal = "closed"

    def _resize(self, size: str) -> "subprocess.CompletedProcess[str]":
        return _run("mount", "-o", f"remount,size={size}", str(self.folder))


def _run(*command: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(command, capture_output=True, text=True, timeout=MOUNT_SECONDS, check=False)
