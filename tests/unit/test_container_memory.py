"""A container's memory and its limit, as each version of control groups writes them down."""

from pathlib import Path

import pytest

from sales.container_memory import container_memory

ONE = "sys/fs/cgroup/memory/"
TWO = "sys/fs/cgroup/"
HERE = {"proc/self/cgroup": "0::/"}


def a_system(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")
    return root


def version_one(limit: str, group: str = "") -> dict[str, str]:
    return {
        "proc/self/cgroup": "9:cpu,cpuacct:/\n4:memory:/docker/1\n0::/",
        f"{ONE}{group}memory.limit_in_bytes": limit,
        f"{ONE}{group}memory.usage_in_bytes": "900",
        f"{ONE}{group}memory.stat": "inactive_file 1\ntotal_cache 300\ntotal_inactive_file 200",
    }


def version_two(limit: str, group: str = "") -> dict[str, str]:
    return {
        "proc/self/cgroup": f"0::/{group}",
        f"{TWO}{group}memory.max": limit,
        f"{TWO}{group}memory.current": "800",
        f"{TWO}{group}memory.stat": "anon 500\nfile 300\ninactive_file 250",
    }


@pytest.mark.parametrize(
    ("files", "found"),
    [
        (version_two("1000"), (550, 1000)),
        (version_two("1000", "shop.slice/sink/"), (550, 1000)),
        (version_two("1000") | {"proc/self/cgroup": "0::/docker/1"}, (550, 1000)),
        (version_two("max"), None),
        (version_one("2000"), (700, 2000)),
        (version_one("2000", "docker/1/"), (700, 2000)),
        (version_one("9223372036854771712"), None),
        (HERE, None),
        ({}, None),
    ],
    ids=[
        "own name space",
        "a unit",
        "the host's names",
        "no limit",
        "version 1",
        "1, a group",
        "1, no limit",
        "no groups",
        "nothing",
    ],
)
def test_what_is_used_of_the_limit_is_found(
    tmp_path: Path, files: dict[str, str], found: tuple[int, int] | None
) -> None:
    assert container_memory(a_system(tmp_path, files)) == found
