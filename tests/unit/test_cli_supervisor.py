"""Services as processes: one that ends is named, with its last words."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.waiting import eventually
from tillstream.local.nursery import Child, Nursery
from tillstream.supervisor import ChildEndedError, Supervisor

UNTIL_STOPPED = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit({exit}))
print('here', flush=True)
time.sleep(600)
"""
SERVICES = {
    "steady": UNTIL_STOPPED.format(exit="0"),
    "sulking": UNTIL_STOPPED.format(exit="'could not flush'"),
    "starting": "import time; time.sleep(600)",
    "finite": "",
    "failing": "import sys; print('line 1'); print('the disk is full', file=sys.stderr); sys.exit(3)",
}


@pytest.fixture
def supervisor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Supervisor]:
    for name, code in SERVICES.items():
        (tmp_path / f"{name}.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with Nursery() as nursery:
        yield Supervisor(nursery, tmp_path)


def wait_until_here(child: Child) -> None:
    eventually(lambda: child.last_lines() == ["here"])


def test_services_that_run_are_no_news(supervisor: Supervisor) -> None:
    wait_until_here(supervisor.start("steady"))
    supervisor.check()
    supervisor.stop("steady")
    supervisor.check()


def test_a_service_that_ends_is_named_with_its_last_lines(supervisor: Supervisor) -> None:
    supervisor.start("steady")
    assert supervisor.start("failing").wait(15) == 3
    with pytest.raises(ChildEndedError) as ended:
        supervisor.check()
    assert "failing ended by itself (exit code 3)" in str(ended.value)
    assert "the disk is full" in str(ended.value)


def test_a_service_that_was_killed_is_named_with_the_signal(supervisor: Supervisor) -> None:
    child = supervisor.start("steady")
    wait_until_here(child)
    child.signal(signal.SIGKILL)
    assert child.wait(15) == -9
    with pytest.raises(ChildEndedError, match=r"steady ended by itself \(killed by signal 9\)"):
        supervisor.check()


def test_a_service_that_fails_while_it_stops_is_named(supervisor: Supervisor) -> None:
    wait_until_here(supervisor.start("sulking"))
    with pytest.raises(ChildEndedError, match="sulking was told to stop and did not end in order") as ended:
        supervisor.stop("sulking")
    assert "could not flush" in str(ended.value)


def test_a_service_that_had_ended_before_it_is_stopped_is_named(supervisor: Supervisor) -> None:
    assert supervisor.start("failing").wait(15) == 3
    with pytest.raises(ChildEndedError, match="ended by itself"):
        supervisor.stop("failing")


def test_a_service_that_may_end_is_no_news_when_it_does(supervisor: Supervisor) -> None:
    assert supervisor.start("finite", may_end=True).wait(15) == 0
    supervisor.check()
    supervisor.stop("finite")


def test_even_a_service_that_may_end_must_not_fail(supervisor: Supervisor) -> None:
    assert supervisor.start("failing", may_end=True).wait(15) == 3
    with pytest.raises(ChildEndedError, match="the disk is full"):
        supervisor.check()


def test_an_error_that_echoes_the_end_of_a_child_is_reported_as_that(supervisor: Supervisor) -> None:
    supervisor.start("steady")

    def ask() -> None:
        with supervisor:
            supervisor.start("failing").wait(15)
            raise ConnectionRefusedError("Error 111")

    with pytest.raises(ChildEndedError, match="failing ended by itself") as ended:
        ask()
    assert "the disk is full" in str(ended.value)


def test_an_error_while_all_run_stays_what_it_is(supervisor: Supervisor) -> None:
    supervisor.start("steady")
    with pytest.raises(ConnectionRefusedError), supervisor:
        raise ConnectionRefusedError("Error 111")


def test_a_service_that_is_stopped_before_it_knows_of_signals_ends_in_order(supervisor: Supervisor) -> None:
    child = supervisor.start("starting")
    supervisor.stop("starting")
    assert child.exit_code() == -signal.SIGTERM


def test_what_a_log_held_before_is_not_said_again(supervisor: Supervisor, tmp_path: Path) -> None:
    (tmp_path / "failing.log").write_text("yesterday's fault\n")
    assert supervisor.start("failing").wait(15) == 3
    with pytest.raises(ChildEndedError) as ended:
        supervisor.check()
    assert "the disk is full" in str(ended.value)
    assert "yesterday" not in str(ended.value)


def test_the_last_words_of_all_services_have_their_names(supervisor: Supervisor) -> None:
    wait_until_here(supervisor.start("steady"))
    supervisor.start("starting")
    assert supervisor.last_words().splitlines() == [
        "steady: its last lines:",
        "    here",
        "starting: it wrote nothing",
    ]


def test_all_are_stopped_even_if_one_fails(supervisor: Supervisor) -> None:
    children = [supervisor.start(name) for name in ("steady", "sulking")]
    for child in children:
        wait_until_here(child)
    with pytest.raises(ChildEndedError, match="sulking was told to stop"):
        supervisor.stop_all()
    assert [child.exit_code() for child in children] == [0, 1]
