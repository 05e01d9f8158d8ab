"""Signals become one exception, and never at a moment that would leak something."""

import signal

import pytest

from tillstream.interrupts import SIGNALS, Interrupted, raised, shielded


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
