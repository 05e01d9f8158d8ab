"""How much memory the system lets this process have, where it is in a control group: a container, a unit of systemd."""

from pathlib import Path

_NONE = 1 << 60
"""From here on version 1 means that there is no limit: it then says the largest multiple of a page."""


def memory_limit(root: Path = Path("/")) -> int | None:
    """Bytes that the group may take before the system kills in it; None without a limit, or where there are no groups.

    Args:
        root: of the file system; another one in tests.
    """
    groups = root / "sys/fs/cgroup"
    own = _own_group(root)
    for file in (groups / own / "memory.max", groups / "memory.max", groups / "memory/memory.limit_in_bytes"):
        try:
            text = file.read_text().strip()
        except OSError:
            continue
        return int(text) if text.isdigit() and int(text) < _NONE else None
    return None


def _own_group(root: Path) -> str:
    """Below the root of version 2; in a container with a name space of its own that is the root."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return ""
    return next((line.removeprefix("0::").strip("/") for line in lines if line.startswith("0::")), "")
