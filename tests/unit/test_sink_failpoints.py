"""Failpoints end or freeze a process exactly where they say, and nothing happens at them otherwise."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import sink
from sink import failpoints
from support.waiting import eventually

SOURCES = Path(sink.__file__).parent


@pytest.fixture(autouse=True)
def disarmed() -> Iterator[None]:
    yield
    failpoints.arm("")


def passes_by(place: str, times: int, armed: str) -> "subprocess.Popen[str]":
    """A process that comes by a place so many times, and says so each time."""
    program = f"""
from sink import failpoints
failpoints.arm({armed!r})
for number in range({times}):
    failpoints.passed({place!r})
    print(number, flush=True)
"""
    return subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)


def test_every_place_is_one_that_the_sink_comes_by() -> None:
    passed = [
        place
        for source in SOURCES.glob("*.py")
        for place in re.findall(r'failpoints\.passed\("(.+?)"\)', source.read_text())
    ]
    assert sorted(passed) == sorted(failpoints.PLACES)


@pytest.mark.parametrize(
    "text", ["nowhere", "pin-after:0", "pin-after:x", "pin-after:1:sleep", ":1", "pin-after:end:2"]
)
def test_what_names_no_place_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="TILLSTREAM_FAILPOINT"):
        failpoints.arm(text)


def test_a_sink_that_is_told_nonsense_does_not_start() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "sink"],
        env=os.environ | {"STREAM": "kinesis", "S3_BUCKET": "b", failpoints.VARIABLE: "nowhere"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 2
    assert "nowhere" in ended.stderr


def test_without_a_name_nothing_happens() -> None:
    failpoints.arm("")
    for place in failpoints.PLACES:
        failpoints.passed(place)


@pytest.mark.parametrize("armed", ["pin-after:3", "pin-after:3:end"])
def test_the_third_time_the_process_is_gone(armed: str) -> None:
    process = passes_by("pin-after", 9, armed)
    said, _ = process.communicate(timeout=60)
    assert (process.returncode, said.split()) == (-signal.SIGKILL, ["0", "1"])


def test_another_place_is_passed() -> None:
    process = passes_by("pin-before", 3, "pin-after")
    said, _ = process.communicate(timeout=60)
    assert (process.returncode, said.split()) == (0, ["0", "1", "2"])


def test_a_process_that_is_frozen_goes_on_when_it_is_told_to() -> None:
    process = passes_by("pin-after", 3, "pin-after:2:stop")
    assert process.stdout is not None
    assert process.stdout.readline() == "0\n"
    stopped = os.WUNTRACED | os.WNOHANG
    eventually(lambda: os.WIFSTOPPED(os.waitpid(process.pid, stopped)[1]), "frozen")
    process.send_signal(signal.SIGCONT)
    said, _ = process.communicate(timeout=60)
    assert (process.returncode, said.split()) == (0, ["1", "2"])
