"""What it takes for a file to be there after a power cut."""

import os
from pathlib import Path


def sync_directory(directory: Path) -> None:
    """Makes the names of files that are new or renamed here durable, as POSIX asks (fsync of the file alone does not).

    Raises:
        OSError: the disk refuses.
    """
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
