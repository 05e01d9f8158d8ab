"""Ends what its parent leaves behind, even after ``kill -9`` of the parent. Runs as a process of its own.

It reads one JSON object a line from standard input: ``{"watch": pid}``, ``{"forget": pid}`` (leaders of process
groups), ``{"folder": path}``. The end of the input means that the parent is gone, in whatever way: every group still
watched is killed, every folder removed. A pipe is used, and not Linux's death signal, because it works on every Unix
and also when the thread that started a child ends. Run as a plain file, so that it starts in milliseconds: no imports
beyond the standard library.
"""

import contextlib
import json
import os
import shutil
import signal
import sys


def main() -> None:
    """Waits for the end of the input, then clears up."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # what ends the parent must not end its warden first
    groups: set[int] = set()
    folders: list[str] = []
    for line in sys.stdin:
        message = json.loads(line)
        if "watch" in message:
            groups.add(message["watch"])
        elif "forget" in message:
            groups.discard(message["forget"])
        else:
            folders.append(message["folder"])
    for group in groups:
        with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS says EPERM for a group of zombies
            os.killpg(group, signal.SIGKILL)
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
