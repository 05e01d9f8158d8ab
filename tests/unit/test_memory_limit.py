"""A container's limit of memory, as each version of control groups writes it down."""

from pathlib import Path

import pytest

from sales.memory_limit import memory_limit


def a_system(root: Path, **files: str) -> Path:
    for name, text in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")
    return root


V1 = "sys__fs__cgroup__memory__memory.limit_in_bytes"


@pytest.mark.parametrize(
    ("files", "limit"),
    [
        ({"proc__self__cgroup": "0::/", "sys__fs__cgroup__memory.max": "536870912"}, 512 * 2**20),
        ({"proc__self__cgroup": "0::/", "sys__fs__cgroup__memory.max": "max"}, None),
        ({"proc__self__cgroup": "0::/shop.slice/sink", "sys__fs__cgroup__shop.slice__sink__memory.max": "1000"}, 1000),
        ({"proc__self__cgroup": "9:memory:/docker/1\n1:name=systemd:/", V1: "268435456"}, 256 * 2**20),
        ({"proc__self__cgroup": "9:memory:/", V1: "9223372036854771712"}, None),
        ({}, None),
    ],
)
def test_the_limit_is_found(tmp_path: Path, files: dict[str, str], limit: int | None) -> None:
    assert memory_limit(a_system(tmp_path, **files)) == limit
