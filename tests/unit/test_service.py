"""What every service does alike: a signal ends it, whatever it was doing."""

import gc
import subprocess
import sys

from sales.service import COLLECT_AFTER, collect_rarely

WRITES = """
import io, signal, sys
from sales.service import leave_at_once, on_signals

class Interrupted(io.RawIOBase):
    def writable(self):
        return True

    def write(self, data):
        signal.raise_signal(signal.SIGTERM)
        return len(data)

on_signals(leave_at_once)
sys.stderr = io.TextIOWrapper(io.BufferedWriter(Interrupted()))
sys.stderr.write("a line")
sys.stderr.flush()
while True:
    signal.pause()
"""


def test_a_signal_in_the_middle_of_a_line_on_the_log_ends_the_process() -> None:
    ended = subprocess.run([sys.executable, "-c", WRITES], timeout=30, check=False)
    assert ended.returncode == 0


def test_what_is_there_is_not_looked_through_again_and_what_comes_only_rarely() -> None:
    before = gc.get_threshold()
    try:
        collect_rarely()
        assert gc.get_threshold() == COLLECT_AFTER
        assert gc.get_freeze_count() > 0
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()
