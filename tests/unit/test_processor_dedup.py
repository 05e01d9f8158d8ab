"""Identities: the first position is the event, whatever comes again and however often the process dies."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
from hypothesis import given, settings

from processor.dedup import Dedup, Verdict
from processor.journal import Journal

HOUR = 3_600_000
NOON = 1_795_176_000_000


def open_dedup(folder: Path, *, max_resident: int = 1000) -> Dedup:
    return Dedup(Journal(folder), seed=1, horizon_ms=24 * HOUR, max_resident=max_resident)


def admit(dedup: Dedup, *events: tuple[str, int, bytes, int]) -> list[Verdict]:
    order_ids, times, contents, positions = zip(*events, strict=True)
    return [Verdict(verdict) for verdict in dedup.admit(order_ids, np.array(times), contents, positions).tolist()]


def test_the_same_content_again_is_a_duplicate_and_other_content_a_conflict(tmp_path: Path) -> None:
    dedup = open_dedup(tmp_path)
    assert admit(dedup, ("a", NOON, b"x", 1), ("a", NOON, b"x", 2), ("a", NOON, b"y", 3), ("a", NOON + 1, b"y", 4)) == [
        Verdict.ACCEPTED,
        Verdict.DUPLICATE,
        Verdict.CONFLICT,
        Verdict.ACCEPTED,
    ]


def test_the_same_position_again_is_accepted_again(tmp_path: Path) -> None:
    dedup = open_dedup(tmp_path)
    admit(dedup, ("a", NOON, b"x", 1), ("a", NOON, b"x", 2))
    dedup.sync()
    # Killed before the snapshot: the stream is read again from position 1.
    again = open_dedup(tmp_path)
    assert admit(again, ("a", NOON, b"x", 1), ("a", NOON, b"x", 2)) == [Verdict.ACCEPTED, Verdict.DUPLICATE]


def test_a_duplicate_hours_late_meets_its_original_on_disk(tmp_path: Path) -> None:
    dedup = open_dedup(tmp_path, max_resident=1)
    admit(dedup, ("early", NOON - 20 * HOUR, b"x", 1))
    dedup.sync()
    admit(dedup, *[(f"o{number}", NOON + number * 60_000, b"x", 10 + number) for number in range(5)])
    dedup.sync()
    assert admit(dedup, ("early", NOON - 20 * HOUR, b"x", 99)) == [Verdict.DUPLICATE]


def test_behind_the_horizon_nothing_is_looked_up_and_its_files_go(tmp_path: Path) -> None:
    dedup = open_dedup(tmp_path)
    admit(dedup, ("early", NOON - 30 * HOUR, b"x", 1))
    dedup.sync()
    admit(dedup, ("now", NOON, b"x", 2), ("early", NOON - 30 * HOUR, b"x", 3))
    dedup.sync()
    assert admit(dedup, ("early", NOON - 30 * HOUR, b"x", 4)) == [Verdict.ACCEPTED]


EVENTS = st.lists(
    st.tuples(st.sampled_from("abc"), st.sampled_from([NOON, NOON + 1, NOON - HOUR]), st.sampled_from([b"x", b"y"])),
    min_size=1,
    max_size=12,
)


@settings(max_examples=200, deadline=None)
@given(log=EVENTS, cuts=st.lists(st.sampled_from(["sync", "crash", "read 1", "read 3"]), max_size=12))
def test_verdicts_are_a_function_of_the_log_whatever_crashes(
    log: list[tuple[str, int, bytes]], cuts: list[str]
) -> None:
    first: dict[tuple[str, int], bytes] = {}
    expected = []
    for order_id, time, content in log:
        if (order_id, time) not in first:
            first[order_id, time] = content
            expected.append(Verdict.ACCEPTED)
        else:
            expected.append(Verdict.DUPLICATE if first[order_id, time] == content else Verdict.CONFLICT)
    with tempfile.TemporaryDirectory() as folder:
        dedup, at, durable = open_dedup(Path(folder), max_resident=2), 0, 0

        def read(count: int) -> Sequence[Verdict]:
            return admit(dedup, *[(*event, at + place) for place, event in enumerate(log[at : at + count])])

        for cut in [*cuts, "read 12"]:
            if cut == "sync":
                dedup.sync()
                durable = at
            elif cut == "crash":
                dedup, at = open_dedup(Path(folder), max_resident=2), durable
            elif at < len(log):
                count = int(cut.removeprefix("read "))
                assert list(read(count)) == expected[at : at + count]
                at = min(at + count, len(log))
