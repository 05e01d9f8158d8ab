"""A stream that goes away is outlasted: what was not acknowledged is written again, in order, and nothing is lost."""

from collections.abc import Callable, Sequence

import hypothesis.strategies as st
import pytest
from hypothesis import given

from processor import patience
from processor.patience import Patience, PatientWriter
from sales.streams import StreamError
from sales.streams.closing import Closing
from sales.streams.memory import MemoryStream, MemoryWire


class Outage:
    """A stream whose writers work only while it is there. One that failed has failed for good, as on every wire."""

    def __init__(self) -> None:
        wire = MemoryWire()
        wire.create("rollups", partitions=1, retention_hours=24)
        self.stream: MemoryStream = wire.open("rollups")
        self.away = False

    def writer(self) -> "FailingWriter":
        return FailingWriter(self)

    @property
    def id(self) -> str:
        return self.stream.id

    def taken(self) -> list[tuple[bytes | None, bytes]]:
        [log] = self.stream.logs.values()
        return list(zip(log.keys, log.values, strict=True))


class FailingWriter(Closing):
    """Queues, as real ones do: what is written shows at the flush."""

    def __init__(self, outage: Outage) -> None:
        self._outage = outage
        self._failure: StreamError | None = None
        self._queue: list[tuple[bytes, bytes]] = []

    def write(self, keys: Sequence[bytes], values: Sequence[bytes]) -> None:
        self._check()
        self._queue += zip(keys, values, strict=True)

    def flush(self, timeout: float) -> None:
        assert timeout > 0
        self._check()
        for key, value in self._queue:
            self._outage.stream.append(key, value)
        self._queue = []

    def close(self) -> None:
        self.flush(1)

    def _check(self) -> None:
        if self._outage.away:
            self._failure = StreamError("the broker is away")
        if self._failure is not None:
            raise self._failure


def patient(outage: Outage, wait: Callable[[float], bool], seconds: float = 60) -> PatientWriter:
    return PatientWriter(outage, Patience(seconds, wait))  # type: ignore[arg-type]  # a stream as far as writing goes


@given(
    st.lists(
        st.tuples(st.sampled_from(["write", "flush", "leave"]), st.sampled_from([b"a", b"b"]), st.integers(1, 4)),
        max_size=30,
    )
)
def test_whatever_goes_away_when_all_is_acknowledged_in_order_after_a_flush(
    steps: list[tuple[str, bytes, int]],
) -> None:
    outage = Outage()
    pauses = 0

    def wait(_seconds: float) -> bool:
        nonlocal pauses
        pauses -= 1
        outage.away = pauses > 0
        return False

    written: list[tuple[bytes, bytes]] = []
    with patient(outage, wait) as writer:
        for number, (step, key, count) in enumerate([*steps, ("flush", b"", 0)]):
            if step == "write":
                written.append((key, b"%d" % number))
                writer.write([key], [b"%d" % number])
            elif step == "leave":
                outage.away, pauses = True, count
            else:
                writer.flush(1)
                assert set(outage.taken()) == set(written)
                for one in (b"a", b"b"):
                    newest = [value for name, value in written if name == one][-1:]
                    assert [value for name, value in outage.taken() if name == one][-1:] == newest


def test_what_is_acknowledged_is_not_written_again() -> None:
    outage = Outage()

    def come_back(_seconds: float) -> bool:
        outage.away = False
        return False

    with patient(outage, come_back) as writer:
        writer.write([b"a"], [b"1"])
        writer.flush(1)
        outage.away = True
        writer.write([b"a"], [b"2"])
        writer.flush(1)
    assert outage.taken() == [(b"a", b"1"), (b"a", b"2")]


@pytest.mark.parametrize(("seconds", "stop"), [(0, False), (60, True)])
def test_it_ends_when_no_time_is_left_or_a_stop_is_asked_for(
    seconds: float, stop: bool, caplog: pytest.LogCaptureFixture
) -> None:
    outage = Outage()
    writer = patient(outage, lambda _: stop, seconds)
    outage.away = True
    writer.write([b"a"], [b"1"])
    with pytest.raises(StreamError, match="the broker is away"):
        writer.flush(1)
    writer.close()
    assert "1 records may not be in" in caplog.records[-1].message


def test_no_more_is_held_than_can_be_written_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "HELD_BYTES", 10)
    outage = Outage()
    writer = patient(outage, lambda _: True)
    writer.write([b"a"], [b"123456789"])
    assert outage.taken() == []
    writer.write([b"a"], [b"123456789"])
    assert len(outage.taken()) == 2
    outage.away = True
    writer.write([b"a"], [b"123456789"])
    with pytest.raises(StreamError):
        writer.write([b"a"], [b"123456789"])
