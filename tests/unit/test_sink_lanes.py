"""The sink's lanes side by side: which one's failure ends the others, and how long a stop may take."""

import logging
import threading
from collections.abc import Mapping
from concurrent.futures import Future

import pytest

import sink.__main__ as service
from sales.service import Stop
from sales.streams import PositionLostError
from sink.__main__ import Runs, run_lanes
from sink.store import StoreError
from support.waiting import eventually


class Lane:
    """Runs until it is told to stop, or to fail."""

    def __init__(self, fault: Exception | None = None) -> None:
        self.fault = fault
        self.running = False
        self.stopped = False

    def run(self, stop: threading.Event) -> None:
        if self.fault is not None:
            raise self.fault
        self.running = True
        stop.wait(20)
        self.stopped = stop.is_set()


class Stuck:
    """Hears nothing."""

    def __init__(self) -> None:
        self.end = threading.Event()

    def run(self, _: threading.Event) -> None:
        self.end.wait(20)


LOST = PositionLostError("retention removed it")


def running(lanes: Mapping[str, Runs], stop: Stop, stop_seconds: float = 20) -> "Future[dict[str, Exception]]":
    ended: Future[dict[str, Exception]] = Future()
    # A daemon: where lanes do not end, the test fails, and nobody waits for them.
    threading.Thread(target=lambda: ended.set_result(run_lanes(lanes, stop, stop_seconds)), daemon=True).start()
    return ended


def test_an_index_that_fails_ends_alone_and_says_so_until_the_stop(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "LOOK_SECONDS", 0.01)
    archive, other = Lane(), Lane()
    stop = Stop()
    with caplog.at_level(logging.ERROR):
        ended = running({"archive-orders": archive, "index-orders": Lane(LOST), "index-rollups": other}, stop)
        eventually(lambda: len(caplog.records) > 3)
    assert archive.running
    assert other.running
    assert not ended.done()
    assert all("index-orders" in record.message for record in caplog.records)
    stop.set()
    assert ended.result(20) == {"index-orders": LOST}
    assert archive.stopped


@pytest.mark.parametrize("fault", [StoreError("other rows"), ZeroDivisionError()])
def test_an_archive_that_fails_stops_all_in_order(fault: Exception) -> None:
    index = Lane()
    ended = running({"index-orders": index, "archive-orders": Lane(fault)}, Stop())
    assert ended.result(20) == {"archive-orders": fault}
    assert index.stopped


def test_when_every_lane_has_failed_there_is_nothing_to_wait_for() -> None:
    ended = running({"index-orders": Lane(LOST), "index-rollups": Lane(LOST)}, Stop())
    assert ended.result(20).keys() == {"index-orders", "index-rollups"}


def test_a_lane_that_does_not_end_is_left_behind(caplog: pytest.LogCaptureFixture) -> None:
    stuck, stop = Stuck(), Stop()
    stop.set()
    with caplog.at_level(logging.WARNING):
        assert running({"archive-orders": stuck, "index-orders": Lane()}, stop, 2).result(10) == {}
    assert [record.message.split(";")[0] for record in caplog.records] == ["not done in 2 s: archive-orders"]
    stuck.end.set()
