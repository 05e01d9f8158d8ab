"""Signals become one exception, and never at a moment that would leak something."""

import contextlib
import signal

import pytest

from tillstream.interrupts import SIGNALS, Interrupted, answered, check, raised, shielded


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
