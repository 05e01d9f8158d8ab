"""How much memory a service's container has, and may have, as the system counts it before it kills: every process in
it, and what lies in its ``/tmp``; but not files that were read and can be read again."""

from pathlib import Path
from typing import NamedTuple

_NONE = 1 << 60
"""From here on version 1 of control groups means no limit: it then says the largest multiple of a page."""


class ContainerMemory(NamedTuple):
    """Both in bytes."""

    used: int
    limit: int


def container_memory(root: Path = Path("/")) -> ContainerMemory | None:
    """Of this process's control group; None without a limit, or where there are no groups.

    Args:
        root: of the file system; another one in tests.
    """
    groups = root / "sys/fs/cgroup"
    two = ("memory.current", "memory.max", "inactive_file")
    one = ("memory.usage_in_bytes", "memory.limit_in_bytes", "total_inactive_file")
    return (
        _memory(groups / _own_group(root, ""), *two)
        or _memory(groups, *two)
        or _memory(groups / "memory" / _own_group(root, "memory"), *one)
        or _memory(groups / "memory", *one)
    )


def _memory(group: Path, used: str, limit: str, idle: str) -> ContainerMemory | None:
    try:
        most = (group / limit).read_text().strip()
        taken = int((group / used).read_text())
        stat = dict(line.split(maxsplit=1) for line in (group / "memory.stat").read_text().splitlines())
    except OSError:
        return None
    if not most.isdigit() or int(most) >= _NONE:
        return None
    return ContainerMemory(max(0, taken - int(stat.get(idle, 0))), int(most))


def _own_group(root: Path, controller: str) -> str:
    """Below the root of version 2 (no controller) or 1. A container sees its own group as the root: there the path, if
    it is the host's, leads nowhere."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return ""
    own = (path for _, names, path in (line.split(":", 2) for line in lines) if controller in names.split(","))
    return next(own, "").strip("/")
