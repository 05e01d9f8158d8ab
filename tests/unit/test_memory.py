"""Memory that is freed stays with the process, where the system's allocator can be told so."""

import subprocess
import sys

import pytest

COUNT = """
import resource
from sales.memory import keep_freed
{first}
def use():
    [b"x" * (4 << 20) for _ in range(6)]
use()
use()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    use()
print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) * resource.getpagesize())
"""


def fetched_anew(first: str) -> int:
    """Bytes that the system had to give for ten times 24 MB."""
    done = subprocess.run([sys.executable, "-c", COUNT.format(first=first)], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
@pytest.mark.parametrize("first", ["keep_freed()", "keep_freed(); keep_freed()"])
def test_freed_memory_is_used_again_instead_of_being_given_back(first: str) -> None:
    assert fetched_anew(first) < 24 << 20
