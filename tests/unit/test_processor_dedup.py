"""Identities: the first position is the event, whatever comes again and however often the process dies."""

import hashlib
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings

from processor.dedup import Dedup, Verdict, identities
from processor.journal import Journal, JournalError, Place
from processor.probing import advance, advance_in_numpy

HOUR = 3_600_000
NOON = 1_795_176_000_000


def open_dedup(folder: Path, *, resident_bytes: int = 100_000, upto: Place | None = None) -> Dedup:
    return Dedup(Journal(folder), horizon_ms=24 * HOUR, resident_bytes=resident_bytes, upto=upto)


def digest(text: object) -> int:
    return int.from_bytes(hashlib.blake2b(str(text).encode(), digest_size=8).digest())


def admit(dedup: Dedup, *events: tuple[str, int, bytes, int]) -> list[Verdict]:
    order_ids, times, contents, positions = zip(*events, strict=True)

    def words(values: Iterable[int]) -> npt.NDArray[np.uint64]:
        return np.array(list(values), dtype=np.uint64)

    entries = identities(
        words(map(digest, order_ids)),
        words(digest(f"{order_id} again") for order_id in order_ids),
        np.array(times),
        words(map(digest, contents)),
        words(positions),
    )
    return [Verdict(verdict) for verdict in dedup.admit(np.array(times), entries).tolist()]


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
    dedup = open_dedup(tmp_path, resident_bytes=1)
    admit(dedup, ("early", NOON - 20 * HOUR, b"x", 1))
    dedup.sync()
    admit(dedup, *[(f"o{number}", NOON + number * 60_000, b"x", 10 + number) for number in range(5)])
    dedup.sync()
    assert admit(dedup, ("early", NOON - 20 * HOUR, b"x", 99)) == [Verdict.DUPLICATE]


def test_behind_the_horizon_nothing_is_looked_up_and_its_files_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("processor.dedup._SEGMENT_BYTES", 40)
    dedup = open_dedup(tmp_path)
    admit(dedup, ("early", NOON - 30 * HOUR, b"x", 1))
    dedup.sync()
    admit(dedup, ("later", NOON - 20 * HOUR, b"x", 2))
    dedup.sync()
    assert Journal(tmp_path).segments() == [1, 2, 3], "a frame in each but the last"
    admit(dedup, ("now", NOON, b"x", 3), ("early", NOON - 30 * HOUR, b"x", 4))
    durable = dedup.sync()
    assert Journal(tmp_path).segments() == [2, 3, 4], "the first held nothing but the early one"
    assert admit(dedup, ("early", NOON - 30 * HOUR, b"x", 5)) == [Verdict.ACCEPTED]
    again = open_dedup(tmp_path, upto=durable)
    assert admit(again, ("later", NOON - 20 * HOUR, b"x", 6), ("now", NOON, b"x", 7)) == [Verdict.DUPLICATE] * 2


@pytest.mark.parametrize("byte", range(8, 20))
def test_a_minute_that_is_not_the_one_that_was_written_is_refused(tmp_path: Path, byte: int) -> None:
    dedup = open_dedup(tmp_path)
    admit(dedup, ("a", NOON, b"x", 1))
    durable = dedup.sync()
    (path,) = tmp_path.glob("*.journal")
    whole = bytearray(path.read_bytes())
    whole[byte] ^= 64
    path.write_bytes(whole)
    with pytest.raises(JournalError, match="is damaged at byte 0"):
        open_dedup(tmp_path, upto=durable)


def test_behind_the_horizon_it_does_not_matter_how_the_stream_is_cut(tmp_path: Path) -> None:
    dedup = open_dedup(tmp_path)
    admit(dedup, ("now", NOON, b"x", 1))
    old = [("early", NOON - 30 * HOUR, b"x", position) for position in (2, 3)]
    assert admit(dedup, *old) == [Verdict.ACCEPTED] * 2
    assert admit(dedup, *old, ("now", NOON, b"x", 4)) == [Verdict.ACCEPTED] * 2 + [Verdict.DUPLICATE]


EVENTS = st.lists(
    st.tuples(st.sampled_from("abc"), st.sampled_from([NOON, NOON + 1, NOON - HOUR]), st.sampled_from([b"x", b"y"])),
    min_size=1,
    max_size=12,
)


@pytest.mark.parametrize("probe", [advance, advance_in_numpy], ids=["compiled", "numpy"])
@settings(max_examples=200)
@given(log=EVENTS, cuts=st.lists(st.sampled_from(["sync", "crash", "read 1", "read 3"]), max_size=12))
def test_verdicts_are_a_function_of_the_log_whatever_crashes(
    log: list[tuple[str, int, bytes]], cuts: list[str], probe: Callable[..., npt.NDArray[np.int64]]
) -> None:
    first: dict[tuple[str, int], bytes] = {}
    expected = []
    for order_id, time, content in log:
        if (order_id, time) not in first:
            first[order_id, time] = content
            expected.append(Verdict.ACCEPTED)
        else:
            expected.append(Verdict.DUPLICATE if first[order_id, time] == content else Verdict.CONFLICT)
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr("processor.dedup.advance", probe)
        dedup, at, durable = open_dedup(Path(folder), resident_bytes=1), 0, 0

        def read(count: int) -> Sequence[Verdict]:
            return admit(dedup, *[(*event, at + place) for place, event in enumerate(log[at : at + count])])

        for cut in [*cuts, "read 12"]:
            if cut == "sync":
                dedup.sync()
                durable = at
            elif cut == "crash":
                dedup, at = open_dedup(Path(folder), resident_bytes=1), durable
            elif at < len(log):
                count = int(cut.removeprefix("read "))
                assert list(read(count)) == expected[at : at + count]
                at = min(at + count, len(log))


def test_thousands_at_once_grow_the_table_and_none_is_taken_for_another(tmp_path: Path) -> None:
    dedup = open_dedup(tmp_path)
    events = [(f"o{number}", NOON, b"x", number) for number in range(5000)]
    assert set(admit(dedup, *events[:2000])) == {Verdict.ACCEPTED}
    dedup.sync()
    assert set(admit(dedup, *events[2000:])) == {Verdict.ACCEPTED}
    assert set(admit(dedup, *[(*event[:3], event[3] + 10_000) for event in events])) == {Verdict.DUPLICATE}


def test_what_was_durable_and_is_damaged_is_refused_in_words(tmp_path: Path) -> None:
    dedup = open_dedup(tmp_path)
    admit(dedup, ("a", NOON, b"x", 1))
    durable = dedup.sync()
    (file,) = tmp_path.glob("*.journal")
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(JournalError, match=r"ends at byte .*, the snapshot speaks of byte"):
        open_dedup(tmp_path, upto=durable)


def test_what_was_never_durable_may_be_torn(tmp_path: Path) -> None:
    dedup = open_dedup(tmp_path)
    admit(dedup, ("a", NOON, b"x", 1))
    durable = dedup.sync()
    admit(dedup, ("b", NOON, b"x", 2))
    dedup.sync()
    (file,) = tmp_path.glob("*.journal")
    file.write_bytes(file.read_bytes()[:-1])
    again = open_dedup(tmp_path, upto=durable)
    assert admit(again, ("a", NOON, b"x", 9), ("b", NOON, b"x", 2)) == [Verdict.DUPLICATE, Verdict.ACCEPTED]
