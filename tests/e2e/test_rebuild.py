"""The processor's directory is lost when the stream no longer reaches back: it is built again from S3.

On Kafka the stream is cut with the broker's own means, and the command runs as a process. The local Kinesis forgets
nothing, so there a stream that hides its oldest records takes its place while the state is built.
"""

import json
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import threading
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaAdminClient, TopicPartition

from sales.streams import NO_TIPS, Chunk, PositionLostError, Readable, format_position
from sales.streams.packed import PackedReader
from support.orders import Order, read, time_ms
from support.proxying import proxy_of
from support.services import OpenPipeline, Pipeline
from support.waiting import eventually
from tillstream.rebuild import RebuildSettings, rebuild_directory

WIRES = [pytest.param("kafka", marks=pytest.mark.kafka), "kinesis"]

SECONDS = 120.0
"""For anything that takes seconds on an idle machine."""

ORDERS = 1200
LOAD = {
    "LATE": "0.02",
    "OUT_OF_ORDER": "0.1",
    "DUPLICATES": "0.05",
    "CONFLICTS": "0.02",
    "MALFORMED": "0.03",
    "UNKNOWN_CURRENCY": "0.01",
}
PROCESSOR = {"SNAPSHOT_MS": "300", "SLOTS": "3"}
SINK = {"LANES": "archive", "ROTATE_RECORDS": "100", "ROTATE_SECONDS": "1"}

Place = tuple[str, int]
"""partition, position"""


class Trimmed:
    """A stream that has lost its records before some positions."""

    def __init__(self, stream: Readable, oldest: Mapping[str, int]) -> None:
        self._stream = stream
        self._oldest = oldest
        self.id = stream.id
        self.position_digits = stream.position_digits
        self.partitions = stream.partitions

    def packed_reader(self, after: Mapping[str, int | None], tips: Mapping[str, int] = NO_TIPS) -> PackedReader:
        for name, position in after.items():
            if position is not None and position < self._oldest[name]:
                raise PositionLostError(f"{name} begins at {self._oldest[name]}")
        return self._stream.packed_reader(
            {name: self._oldest[name] - 1 if position is None else position for name, position in after.items()}, tips
        )


@dataclass
class Seen:
    """All that was ever sent, judged by the contract alone."""

    messages: dict[Place, tuple[bytes, bytes]] = field(default_factory=dict)
    orders: dict[Place, Order] = field(default_factory=dict)
    refused: dict[Place, str] = field(default_factory=dict)

    def take(self, chunk: Chunk, currency: str) -> None:
        for key, value, position, broker_ms in zip(
            chunk.keys, chunk.values, chunk.positions, chunk.broker_times, strict=True
        ):
            place = (chunk.partition, position)
            self.messages[place] = (key or b"", value)
            order = read(key, value, broker_ms, currency)
            if isinstance(order, str):
                self.refused[place] = order
            else:
                self.orders[place] = order

    def standing(self) -> dict[tuple[str, int], Place]:
        """Identity to the lowest position that carries it."""
        standing: dict[tuple[str, int], Place] = {}
        for place, order in self.orders.items():
            identity = (order.order_id, order.event_ms)
            standing[identity] = min(place, standing.get(identity, place))
        return standing

    def conflicts(self) -> set[Place]:
        standing = self.standing()
        return {
            place
            for place, order in self.orders.items()
            if self.orders[standing[order.order_id, order.event_ms]].content != order.content
        }


@dataclass
class Outcome:
    """A pipeline whose processor lost its directory, and what became of it."""

    pipeline: Pipeline
    seen: Seen
    report: dict[str, Any]
    trimmed: dict[str, int]
    """partition to the oldest position that the stream had left"""
    after_kill: str = ""
    """what a processor said that was started after a rebuild was killed"""


@pytest.fixture(scope="module")
def outcome(open_pipeline: OpenPipeline) -> Callable[[str], Outcome]:
    done: dict[str, Outcome] = {}

    def outcome_(wire: str) -> Outcome:
        if wire not in done:
            done[wire] = _lose_and_rebuild(open_pipeline(wire, **PROCESSOR, **SINK, **LOAD), wire)
        return done[wire]

    return outcome_


def _lose_and_rebuild(pipeline: Pipeline, wire: str) -> Outcome:
    seen = Seen()
    for name in ("sink", "processor"):
        pipeline.start(name)
    _generate(pipeline, seed=1)
    pipeline.settle(SECONDS)
    _await_stored(pipeline)
    pipeline.kill("processor")
    shutil.rmtree(pipeline.folder / "recovery")
    _see(pipeline, seen)
    oldest = {}
    for name in pipeline.orders.partitions():
        positions = sorted(position for partition, position in seen.messages if partition == name)
        oldest[name] = positions[len(positions) // 2]
    after_kill = ""
    if wire == "kafka":
        _cut(pipeline, oldest)
        after_kill = _kill_a_rebuild(pipeline)
        report = _rebuild(pipeline)
    else:
        report = _rebuild_on(Trimmed(pipeline.orders, oldest), pipeline)
    pipeline.start("processor")
    again = [seen.messages[place] for place in list(seen.orders)[::7]]
    altered = [(key, _altered(value)) for key, value in again[::3]]
    with pipeline.orders.writer() as writer:
        for key, value in [*again, *altered]:
            writer.write([key], [value])
    _generate(pipeline, seed=2)
    pipeline.settle(SECONDS)
    _await_stored(pipeline)
    _see(pipeline, seen)
    return Outcome(pipeline, seen, report, oldest, after_kill)


def _generate(pipeline: Pipeline, *, seed: int) -> None:
    pipeline.start("generator", SEED=str(seed), ORDERS=str(ORDERS), RATE="400/s")
    pipeline.finish("generator", SECONDS)


def _await_stored(pipeline: Pipeline) -> None:
    for name in (pipeline.settings.orders_stream, pipeline.settings.dead_letters_stream):
        pipeline.await_stored(pipeline.wire.open(name), SECONDS)


def _see(pipeline: Pipeline, seen: Seen) -> None:
    for chunk in pipeline.sent():
        seen.take(chunk, pipeline.settings.currency)


def _cut(pipeline: Pipeline, oldest: Mapping[str, int]) -> None:
    admin = KafkaAdminClient(bootstrap_servers=pipeline.settings.kafka_bootstrap_servers)
    topic = pipeline.settings.orders_stream
    admin.delete_records({TopicPartition(topic, int(name)): position for name, position in oldest.items()})
    admin.close()


def _rebuild(pipeline: Pipeline, *arguments: str) -> dict[str, Any]:
    ended = _run(pipeline, "tillstream", "rebuild", "--json", *arguments)
    assert ended.returncode == 0, ended.stderr
    report: dict[str, Any] = json.loads(ended.stdout)
    return report


def _run(pipeline: Pipeline, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        env={**os.environ, **pipeline.environment, **environment},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


def _kill_a_rebuild(pipeline: Pipeline) -> str:
    """Kills one in its middle, while S3 keeps it waiting for orders; what the processor then says."""
    waits, killed = threading.Event(), threading.Event()
    orders = f"GET /{pipeline.environment['S3_BUCKET']}/orders/".encode()

    def keep_waiting(piece: bytes) -> None:
        if piece.startswith(orders):
            waits.set()
            killed.wait(SECONDS)

    with proxy_of(pipeline.environment["AWS_ENDPOINT_URL"]) as proxy:
        proxy.on_piece = keep_waiting
        process = subprocess.Popen(
            [sys.executable, "-m", "tillstream", "rebuild"],
            env={**os.environ, **pipeline.environment, "AWS_ENDPOINT_URL": proxy.address},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        eventually((pipeline.folder / "recovery" / "rebuild" / "engine").exists, "half a state", seconds=SECONDS)
        assert waits.wait(SECONDS)
        process.kill()
        assert process.wait(SECONDS) == -signal.SIGKILL
        killed.set()
    return _refusal(pipeline)


def _refusal(pipeline: Pipeline) -> str:
    """Why the processor ends at once: its one line that is an error. (Where the engine was at work already, it has
    printed what it knows of itself before.)"""
    ended = _run(pipeline, "processor")
    assert ended.returncode == 1, ended.stderr
    assert "Traceback" not in ended.stderr
    lines = [line for line in ended.stderr.splitlines() if " ERROR " in line]
    assert len(lines) == 1, ended.stderr
    return lines[0]


def _rebuild_on(orders: Readable, pipeline: Pipeline) -> dict[str, Any]:
    given: dict[str, Any] = {name.lower(): text for name, text in pipeline.environment.items()}
    rebuilt = rebuild_directory(orders, RebuildSettings(**given), force=True)
    return {"positions": rebuilt.positions, "read": rebuilt.read, "unreported": rebuilt.unreported}


def _altered(value: bytes) -> bytes:
    document = json.loads(value)
    document["lines"][0]["quantity"] += 1
    return json.dumps(document).encode()


@pytest.mark.parametrize("wire", WIRES)
def test_every_number_is_equal(outcome: Callable[[str], Outcome], wire: str) -> None:
    report = outcome(wire).pipeline.verify(SECONDS)
    assert [difference for check in report.checks for difference in check.differences] == []


@pytest.mark.parametrize("wire", WIRES)
def test_the_state_ends_in_what_the_stream_still_has(outcome: Callable[[str], Outcome], wire: str) -> None:
    done = outcome(wire)
    assert done.report["positions"].keys() == done.trimmed.keys()
    for name, oldest in done.trimmed.items():
        assert done.report["positions"][name] >= format_position(oldest, done.pipeline.orders.position_digits)
    assert done.report["read"] > ORDERS // 2
    assert done.report["unreported"] == 0


@pytest.mark.parametrize("wire", WIRES)
def test_counts_are_those_of_all_that_was_ever_sent(outcome: Callable[[str], Outcome], wire: str) -> None:
    done = outcome(wire)
    standing, conflicts = done.seen.standing(), done.seen.conflicts()
    status = done.pipeline.live().status
    assert int(status["accepted"]) == len(standing)
    assert int(status["dead_letters"]) == len(conflicts) + len(done.seen.refused)
    assert int(status["dead_letters:conflict"]) == len(conflicts)
    assert int(status["duplicates"]) == len(done.seen.orders) - len(standing) - len(conflicts)


@pytest.mark.parametrize("wire", WIRES)
def test_the_day_on_the_board_is_the_sum_of_what_was_sent(outcome: Callable[[str], Outcome], wire: str) -> None:
    done = outcome(wire)
    shown = done.pipeline.live().windows["24h"].aov
    start, end = time_ms(shown["window_start"]), time_ms(shown["window_end"])
    orders = [done.seen.orders[place] for place in done.seen.standing().values()]
    inside = [order for order in orders if start <= order.event_ms < end]
    sales = [order.net for order in inside if not order.is_return]
    assert int(shown["orders"]) == len(sales) > ORDERS
    assert int(shown["sales_minor"]) == sum(sales)
    assert int(shown["revenue_minor"]) == sum(order.net for order in inside)


@pytest.mark.kafka
def test_a_rebuild_that_was_killed_leaves_nothing_that_a_processor_would_take_for_a_state(
    outcome: Callable[[str], Outcome],
) -> None:
    assert "holds half a state" in outcome("kafka").after_kill
    assert "tillstream rebuild" in outcome("kafka").after_kill


@pytest.mark.kafka
def test_a_directory_that_a_processor_uses_is_refused_in_one_line(outcome: Callable[[str], Outcome]) -> None:
    ended = _run(outcome("kafka").pipeline, "tillstream", "rebuild", "--force")
    assert ended.returncode == 1
    assert [line for line in ended.stderr.splitlines() if "another processor is using" in line]
    assert "Traceback" not in ended.stderr


@pytest.mark.kafka
def test_settings_that_are_others_than_the_sinks_are_refused_in_one_line(
    outcome: Callable[[str], Outcome], tmp_path: Path
) -> None:
    pipeline = outcome("kafka").pipeline
    ended = _run(pipeline, "tillstream", "rebuild", "--recovery-dir", str(tmp_path / "new"), CURRENCY="EUR")
    assert ended.returncode == 1
    assert "are CURRENCY and REGION_OVERRIDES what they were then?" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert "panicked" not in ended.stderr


def _another_format(state: Path) -> None:
    owner = json.loads((state / "owner.json").read_text())
    (state / "owner.json").write_text(json.dumps(owner | {"format": 1}))


def _snapshots_of_another_version(state: Path) -> None:
    """The first frame says another format, in order otherwise."""
    [journal, *_] = sorted((state / "numbers").glob("*.journal"))
    content = bytearray(journal.read_bytes())
    length, _ = struct.unpack_from("<II", content)
    at = content.index(b"format") + len(b"format")
    content[at] = 1
    struct.pack_into("<II", content, 0, length, zlib.crc32(content[8 : 8 + length]))
    journal.write_bytes(content)


def _a_damaged_journal(state: Path) -> None:
    [journal, *_] = sorted((state / "numbers").glob("*.journal"))
    content = bytearray(journal.read_bytes())
    content[len(content) // 2] ^= 0xFF
    journal.write_bytes(content)


def _identities_cut_short(state: Path) -> None:
    journal = max((state / "identities").rglob("*.journal"), key=lambda path: path.stat().st_size)
    os.truncate(journal, journal.stat().st_size // 2)


def _a_damaged_engine_store(state: Path) -> None:
    [store] = (state / "engine").glob("*.sqlite3")
    content = store.read_bytes()
    store.write_bytes(content[:4096] + bytes(len(content) - 4096))


def _lost(part: str) -> Callable[[Path], None]:
    def lose(state: Path) -> None:
        path = state / part
        path.unlink() if path.is_file() else shutil.rmtree(path)

    return lose


DAMAGES = {
    "another format": (_another_format, "has format 1"),
    "snapshots of another version": (_snapshots_of_another_version, "the snapshot has format 1"),
    "a damaged journal": (_a_damaged_journal, "is damaged at byte"),
    "identities cut short": (_identities_cut_short, "is damaged at byte|ends at byte"),
    "a damaged engine store": (_a_damaged_engine_store, "is damaged"),
    "no engine store": (_lost("engine"), "has lost its snapshots"),
    "no numbers": (_lost("numbers"), "has lost numbers"),
    "no identities": (_lost("identities"), "has lost identities"),
    "no owner": (_lost("owner.json"), "has lost owner.json"),
}


@pytest.fixture(scope="module")
def stopped(outcome: Callable[[str], Outcome]) -> Outcome:
    done = outcome("kinesis")
    done.pipeline.stop("processor")
    return done


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_what_cannot_be_used_is_refused_with_a_way_out_that_works(
    stopped: Outcome, damage: tuple[Callable[[Path], None], str]
) -> None:
    pipeline, state = stopped.pipeline, stopped.pipeline.folder / "recovery"
    hurt, said = damage
    hurt(state)
    line = _refusal(pipeline)
    assert re.search(said, line)
    assert "tillstream rebuild --force" in line
    _rebuild_on(Trimmed(pipeline.orders, stopped.trimmed), pipeline)
    before = pipeline.live().status
    pipeline.start("processor")
    pipeline.until(lambda: pipeline.live().status["as_of"] > before["as_of"], SECONDS, "publishing again")
    after = pipeline.live().status
    pipeline.stop("processor")
    counts = ("accepted", "duplicates", "dead_letters", "max_event_time")
    assert {name: after[name] for name in counts} == {name: before[name] for name in counts}
