"""Signals become one exception, and never at a moment that would leak something."""

import contextlib
import errno
import os
import pty
import signal
import subprocess
import sys
import termios

import pytest

from sales.service import on_signals
from tillstream.interrupts import SIGNALS, Interrupted, answered, check, raised, shielded
from tillstream.unheard import unheard

SHIELDED = """
import time
from tillstream.interrupts import raised, shielded
with raised(), shielded():
    print("here", flush=True)
    time.sleep(600)
"""
WITHOUT_A_TERMINAL = """
import os
from tillstream.unheard import unheard
os.read(0, 1)
for _ in range(2):
    with unheard():
        print("is anybody there?", flush=True)
raise SystemExit(129)
"""


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
def test_each_signal_is_raised_where_the_program_is(number: signal.Signals) -> None:
    with raised(), pytest.raises(Interrupted) as stop:
        signal.raise_signal(number)
    assert stop.value.exit_code == 128 + number
    assert stop.value.by_keyboard == (number == signal.SIGINT)


def test_behind_a_shield_it_waits() -> None:
    reached = []

    def protected() -> None:
        with shielded():
            with shielded():
                signal.raise_signal(signal.SIGTERM)
            reached.append("the end of the shield")

    with raised(), pytest.raises(Interrupted):
        protected()
    assert reached == ["the end of the shield"]


def test_afterwards_signals_do_what_they_did_before() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with raised():
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before


def test_one_that_was_lost_on_its_way_is_raised_by_the_next_check() -> None:
    def lost() -> None:
        with contextlib.suppress(Interrupted):  # as native code does that calls back into Python
            signal.raise_signal(signal.SIGTERM)

    with raised():
        check()
        lost()
        with pytest.raises(Interrupted, match="SIGTERM"):
            check()
        answered()
        check()
    check()


def test_a_closed_terminal_that_says_so_twice_is_heard_once() -> None:
    with raised():
        with pytest.raises(Interrupted, match="SIGHUP"):
            signal.raise_signal(signal.SIGHUP)
        answered()
        signal.raise_signal(signal.SIGHUP)
        check()
    assert signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
def test_what_is_ignored_from_the_start_stays_so(number: signal.Signals) -> None:
    before = {each: signal.getsignal(each) for each in SIGNALS}
    signal.signal(number, signal.SIG_IGN)
    try:
        on_signals(pytest.fail)
        with raised():
            signal.raise_signal(number)
            check()
        assert signal.getsignal(number) is signal.SIG_IGN
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def test_a_second_signal_behind_a_shield_ends_the_process_at_once() -> None:
    with subprocess.Popen([sys.executable, "-c", SHIELDED], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"here\n"
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGINT)
        assert process.wait(30) in (128 + signal.SIGTERM, 128 + signal.SIGINT)  # the system may swap the two


def test_words_to_a_closed_terminal_are_dropped_and_the_exit_code_stays() -> None:
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-c", WITHOUT_A_TERMINAL], stdin=subprocess.PIPE, stdout=theirs, stderr=theirs
    ) as process:
        os.close(theirs)
        os.close(ours)
        process.communicate(b"x", timeout=30)
    assert process.returncode == 129


def test_a_terminal_that_is_gone_is_no_fault_of_who_restores_it() -> None:
    with unheard():
        raise termios.error(errno.EIO, "Input/output error")


def test_other_faults_are_not_dropped() -> None:
    with pytest.raises(OSError, match="full"), unheard():
        raise OSError(errno.ENOSPC, "the disk is full")
