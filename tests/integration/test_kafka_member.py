"""Members that librdkafka makes and that a reader of whole batches reads for, with real brokers: what the contract of
all wires (``tests/contract/test_streams.py``) can't see from outside, or is too rare to ask there."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import pytest

from chaos import servers
from sales.settings import StreamSettings
from sales.streams import StreamError
from sales.streams.kafka import KafkaStream, KafkaWire
from sales.streams.kafka_batches import ANSWER_BYTES
from sales.streams.kafka_confluent import SESSION_SECONDS, librdkafka_settings
from sales.streams.kafka_member import BatchesMember
from sales.streams.kafka_python import kafka_python_settings
from sales.streams.memory import MemoryCheckpoints
from sales.streams.packed import PackingMember
from support.waiting import eventually
from tillstream.local import kafka as local_kafka
from tillstream.local.nursery import Nursery

pytestmark = pytest.mark.kafka

PARTITIONS = 3
RECORD_BYTES = 10_000


def settings(bootstrap: str) -> StreamSettings:
    return StreamSettings.model_validate({"stream": "kafka", "kafka_bootstrap_servers": bootstrap})


@pytest.fixture
def stream(kafka_bootstrap: str, new_name: Callable[[str], str]) -> Iterator[KafkaStream]:
    wire = KafkaWire.connect(settings(kafka_bootstrap))
    name = new_name("members")
    wire.create(name, partitions=PARTITIONS, retention_hours=48)
    yield wire.open(name)
    wire.delete(name)
    wire.close()


def write(stream: KafkaStream, count: int) -> list[bytes]:
    """Records that can't be compressed."""
    values = [os.urandom(RECORD_BYTES) for _ in range(count)]
    with stream.writer() as writer:
        writer.write([b"%d" % number for number in range(count)], values)
    return values


class Told:
    """A member, and what it was told and gave; closed at the end of its ``with`` block."""

    def __init__(self, stream: KafkaStream, bootstrap: str, group: str, **owning: Any) -> None:
        self.assigned: list[str] = []
        self.revoked: list[str] = []
        self.values: list[bytes] = []
        self.last: dict[str, int] = {}
        self.refused: list[str] = []
        self.member = BatchesMember(
            librdkafka_settings(settings(bootstrap)) | owning,
            kafka_python_settings(settings(bootstrap)),
            stream.id.rpartition("-")[0],
            group,
            watched=stream._watched(),
            starts_of=stream.starts,
            on_assigned=self.assigned.extend,
            on_revoked=self._leave,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.member.close()

    def _leave(self, names: list[str]) -> None:
        self.revoked.extend(names)
        try:
            self.member.commit({name: self.last.pop(name) for name in names if name in self.last})
        except StreamError as refused:
            self.refused.append(str(refused))

    def poll(self, max_records: int = 1000) -> None:
        for run in self.member.poll(max_records, 0.1):
            chunk = run.chunk()
            self.values.extend(chunk.values)
            self.last[run.partition] = chunk.positions[-1]

    def polled(self, condition: Callable[[], object], *, seconds: float = 20) -> None:
        """Polls until the condition holds."""

        def after_a_poll() -> object:
            self.poll()
            return condition()

        eventually(after_a_poll, seconds=seconds)


def test_the_client_that_owns_the_partitions_fetches_none_of_their_records(
    stream: KafkaStream, kafka_bootstrap: str, new_name: Callable[[str], str]
) -> None:
    told: list[dict[str, Any]] = []
    statistics = {"statistics.interval.ms": 100, "stats_cb": lambda text: told.append(json.loads(text))}
    sent = write(stream, 3_000)
    with Told(stream, kafka_bootstrap, new_name("group"), **statistics) as member:
        member.polled(lambda: len(member.values) == len(sent))
        sent += write(stream, 300)
        member.polled(lambda: len(member.values) == len(sent))
        seen = len(told)
        member.polled(lambda: len(told) > seen)
    assert sorted(member.values) == sorted(sent)

    (topic,) = told[-1]["topics"].values()
    there = [part for name, part in topic["partitions"].items() if name != "-1"]
    assert len(there) == PARTITIONS
    # What was asked for before the pause: one batch of each partition, of less than a megabyte.
    assert sum(part["rxmsgs"] for part in there) <= PARTITIONS * 1_000_000 // RECORD_BYTES
    assert sum(part["fetchq_size"] for part in there) == 0


def test_what_a_slow_caller_leaves_is_not_fetched(
    stream: KafkaStream, kafka_bootstrap: str, new_name: Callable[[str], str]
) -> None:
    sent = write(stream, 4_000)  # ten answers' worth
    held = []
    with Told(stream, kafka_bootstrap, new_name("group")) as member:
        reader = member.member._reader
        while len(member.values) < 1_500:
            member.poll(max_records=5)
            fetcher = reader._consumer._fetcher
            answers = sum(len(done.partition_data.records or b"") for done in list(fetcher._completed_fetches))
            held.append(answers + sum(len(batch.records) for batches in reader._waiting.values() for batch in batches))
        lags = [lag for lag in member.member.lag().values() if lag is not None]
        assert sum(lags) == len(sent) - len(member.values)
        member.polled(lambda: len(member.values) == len(sent))
    assert 0 < max(held) <= 2 * ANSWER_BYTES
    assert sorted(member.values) == sorted(sent)


def test_without_compiled_code_a_plain_member_s_records_are_packed(
    stream: KafkaStream, new_name: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sales.streams.kafka.COMPILED", ("no_such_package",))
    sent = write(stream, 30)
    got: list[bytes] = []
    member = stream.packed_member(new_name("group"), MemoryCheckpoints(), lambda _: None, lambda _: None)

    def all_of_it() -> bool:
        got.extend(value for run in member.poll(1000, 0.1) for value in run.chunk().values)
        return len(got) == len(sent)

    eventually(all_of_it)
    member.close()
    assert isinstance(member, PackingMember)
    assert sorted(got) == sorted(sent)


def test_who_is_silent_for_too_long_has_lost_its_partitions_and_joins_again(
    stream: KafkaStream, kafka_bootstrap: str, new_name: Callable[[str], str]
) -> None:
    group = new_name("group")
    sent = write(stream, 300)
    too_long = {"max.poll.interval.ms": round(SESSION_SECONDS * 1000)}
    with Told(stream, kafka_bootstrap, group, **too_long) as silent:
        silent.polled(lambda: len(silent.assigned) == PARTITIONS and len(silent.values) == len(sent))
        with Told(stream, kafka_bootstrap, group) as other:
            # As nothing was committed it begins where the group was, at the beginning.
            other.polled(lambda: len(other.values) == len(sent), seconds=60)
            assert silent.revoked == [], "it has not asked"
            silent.polled(lambda: sorted(silent.revoked) == stream.partitions())
            assert silent.refused, "a commit of what is lost is refused, not waited for"
        before = len(silent.values)
        write(stream, 30)
        silent.polled(lambda: len(silent.values) == before + 30, seconds=60)  # behind what the other has committed
        assert sorted(silent.assigned) == sorted(2 * stream.partitions())


def test_a_broker_that_goes_away_is_waited_for(
    nursery: Nursery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lacking = local_kafka.missing()
    if lacking is not None:
        pytest.skip(lacking)
    broker = servers.broker(nursery, tmp_path / "data")
    wire = KafkaWire.connect(settings(broker.address))
    wire.create("orders", partitions=PARTITIONS, retention_hours=48)
    stream = wire.open("orders")
    sent = write(stream, 300)
    # However long the broker takes to come back, the group has not lost its member meanwhile.
    monkeypatch.setattr("sales.streams.kafka_confluent.SESSION_SECONDS", 300.0)
    with Told(stream, broker.address, "group", **{"reconnect.backoff.max.ms": 500}) as member:
        member.polled(lambda: len(member.values) == len(sent), seconds=60)
        member.member.commit(member.last)

        broker.kill()
        member.poll()
        broker.start()
        sent += write(stream, 300)
        member.polled(lambda: len(member.values) >= len(sent), seconds=60)
        assert sorted(member.values) == sorted(sent)
        member.member.commit(member.last)
    wire.close()
    broker.stop()
