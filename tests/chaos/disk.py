"""A disk of its own for the recovery directories, which can be full: a tmpfs, mounted by root."""

import errno
import os
import subprocess
from pathlib import Path

SIZE = "512m"
MOUNT_SECONDS = 30.0
PAGE = 4096
LARGEST_PIECE = 2**24


class Disk:
    """A mounted tmpfs, or a plain folder where mounting is refused."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o700)
        self.folder = folder
        done = _run("mount", "-t", "tmpfs", "-o", f"size={SIZE},mode=700", "chaos", str(folder))
        self.refusal = done.stderr.strip() if done.returncode else None
        """why it can't be full; None: it can"""
        self._ballast = folder / "ballast"

    def fill(self) -> None:
        """From now on it has no page left, whoever else writes meanwhile: a file takes all that it can get."""
        piece = LARGEST_PIECE
        with self._ballast.open("wb") as file:
            size = 0
            while piece >= PAGE:
                try:
                    os.posix_fallocate(file.fileno(), size, piece)
                    size += piece
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise
                    piece //= 2

    def make_room(self) -> None:
        """It has as much room as before."""
        self._ballast.unlink()

    def close(self) -> None:
        """Takes the mount away, whoever still has files there."""
        if self.refusal is None:
            _run("umount", "--lazy", str(self.folder))
            self.refusal = "closed"


def _run(*command: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(command, capture_output=True, text=True, timeout=MOUNT_SECONDS, check=False)
