"""What a slot of the source takes at once, keeps in its snapshot, and takes back from one."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from processor.journal import Place
from processor.recovery import RecoveryDirectory
from processor.source import DeadLetterWatch, OrdersSource, Slot, SlotState
from processor.telemetry import Telemetry
from sales.columnar.decoding import Decoder, Secrets
from sales.rules import Rules
from sales.streams import StreamError
from sales.streams.memory import MemoryStream
from sales.streams.packed import Packing

TIP = 1_795_176_000_000


class QuietStream(MemoryStream):
    """Tells, as Kinesis does, when each partition was at its tip; and remembers what it was told."""

    told: Mapping[str, int] | None = None

    def packed_reader(self, after: Mapping[str, int | None], tips: Mapping[str, int] | None = None) -> Packing:
        self.told = tips
        return Packing(self.reader(after), lambda: dict.fromkeys(after, TIP))


@pytest.fixture
def stream() -> QuietStream:
    stream = QuietStream("orders-1", partitions=1, clock=lambda: TIP, gap=0)
    stream.append(b"a", b"no order")
    return stream


@pytest.fixture
def recovery(tmp_path: Path) -> Iterator[RecoveryDirectory]:
    recovery = RecoveryDirectory(tmp_path / "state", stream="orders-1", slots=1)
    yield recovery
    recovery.close()


def a_slot(stream: QuietStream, recovery: RecoveryDirectory, state: SlotState | None) -> Slot:
    source = OrdersSource(
        stream=stream,
        slots=1,
        decoder=Decoder(Rules(currency="USD", countries={"GB"}), Secrets.of(1), compiled=False),
        recovery=recovery,
        dead_letters_writer=stream.writer,
        horizon_ms=1,
        poll_records=10,
        dead_letter_share=1,
        stopping=lambda: False,
        telemetry=Telemetry(86_400, Path("/")),
    )
    return source.build_part("orders", "slot-0", state)


def test_of_large_messages_fewer_are_taken_at_once(
    stream: QuietStream, recovery: RecoveryDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("processor.source.TAKE_BYTES", 2000)
    for number in range(21):
        stream.append(b"k%d" % number, b"x" * 600)
    slot, taken = a_slot(stream, recovery, None), list[int]()
    while sum(taken) < 22:
        taken += [partial.counts["dead_letters"] for partial in slot.next_batch()]
    slot.close()
    assert taken == [10, 3, 3, 3, 3], "the first time their size is not known"


def test_of_a_slot_without_messages_nothing_grows() -> None:
    watch = DeadLetterWatch(0.5)
    watch.note(10, 1)
    for _ in range(1000):
        watch.note(0, 0)
    assert len(watch._runs) == 1


class Growing(QuietStream):
    """Has a partition more, which can't be read the first time."""

    faults = 1

    def packed_reader(self, after: Mapping[str, int | None], tips: Mapping[str, int] | None = None) -> Packing:
        packing = super().packed_reader(after, tips)
        add = packing.add

        def once_away(after: Mapping[str, int | None]) -> None:
            if self.faults:
                self.faults -= 1
                raise StreamError("no leader yet")
            add(after)

        packing.add = once_away
        return packing


def test_a_new_partition_that_can_not_be_read_yet_is_asked_for_again(
    recovery: RecoveryDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("processor.source.PARTITIONS_SECONDS", 0.0)
    stream = Growing("orders-1", partitions=1, clock=lambda: TIP, gap=0)
    slot = a_slot(stream, recovery, None)
    stream.grow(2)
    slot.next_batch()
    assert set(slot.snapshot()[0]) == {"0"}
    slot.next_batch()
    assert set(slot.snapshot()[0]) == {"0", "1"}
    slot.close()


class Expired(QuietStream):
    """Leaves a partition out that is no longer there, as Kinesis does with a shard that has ended and expired."""

    def packed_reader(self, after: Mapping[str, int | None], tips: Mapping[str, int] | None = None) -> Packing:
        return super().packed_reader({name: place for name, place in after.items() if name in self.logs}, tips)


def test_of_a_partition_that_has_expired_no_lag_is_told_and_its_position_is_kept(recovery: RecoveryDirectory) -> None:
    slot = a_slot(
        Expired("orders-1", partitions=1, clock=lambda: TIP, gap=0), recovery, ({"0": None, "gone": 7}, Place(1, 0))
    )
    (partial,) = slot.next_batch()
    assert partial.lags == {"orders-1/0": 0}
    assert slot.snapshot()[0] == {"0": None, "gone": 7}
    slot.close()


def test_a_snapshot_says_when_each_partition_was_at_its_tip_and_a_resumed_slot_passes_it_on(
    stream: QuietStream, recovery: RecoveryDirectory
) -> None:
    slot = a_slot(stream, recovery, None)
    kept = slot.snapshot()
    slot.close()
    assert kept[2:] == ({"0": TIP},)
    a_slot(stream, recovery, kept).close()
    assert stream.told == {"0": TIP}


def test_a_snapshot_of_before_tips_were_kept_is_taken(stream: QuietStream, recovery: RecoveryDirectory) -> None:
    slot = a_slot(stream, recovery, None)
    positions, durable, *_ = slot.snapshot()
    slot.close()
    a_slot(stream, recovery, (positions, durable)).close()
    assert stream.told == {}
