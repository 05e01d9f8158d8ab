"""The journal: what was synced is read again, what was torn is cut off, what lies behind a place can be forgotten."""

import tempfile
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from processor.journal import Journal, JournalError, Place


def payloads(journal: Journal, segment: int = 1) -> list[bytes]:
    return [payload for _, payload in journal.frames(segment)]


@settings(max_examples=100, deadline=None)
@given(frames=st.lists(st.binary(max_size=40), min_size=1, max_size=6), torn=st.integers(0, 60))
def test_a_torn_end_costs_only_the_frames_it_touches(frames: list[bytes], torn: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        journal = Journal(Path(folder))
        for frame in frames:
            journal.append(frame)
        journal.close()
        (file,) = Path(folder).glob("*.journal")
        whole = file.read_bytes()
        file.write_bytes(whole[: max(0, len(whole) - torn)])
        again = Journal(Path(folder))
        survivors = payloads(again)
        assert survivors == frames[: len(survivors)]
        assert sum(len(frame) + 8 for frame in frames[len(survivors) :]) >= min(torn, len(whole))
        again.append(b"after the crash")
        assert payloads(again) == [*survivors, b"after the crash"]
        again.close()


def test_a_flipped_bit_ends_the_reading_there(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.append(b"first")
    second = journal.append(b"second")
    journal.close()
    (file,) = tmp_path.glob("*.journal")
    damaged = bytearray(file.read_bytes())
    damaged[second.offset + 8] ^= 1
    file.write_bytes(bytes(damaged))
    assert payloads(Journal(tmp_path)) == [b"first"]
    with pytest.raises(JournalError, match="no whole frame"):
        Journal(tmp_path).read(second)


def test_a_frame_is_read_at_its_place_before_it_is_synced(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.append(b"first")
    assert journal.read(journal.append(b"second")) == b"second"


def test_cutting_forgets_what_lies_behind_and_later_segments(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.append(b"kept")
    place = journal.end()
    journal.append(b"forgotten")
    journal.roll()
    journal.append(b"forgotten too")
    journal.close()
    again = Journal(tmp_path)
    again.cut(place)
    assert again.segments() == [1]
    again.append(b"new")
    assert payloads(again) == [b"kept", b"new"]


def test_a_journal_shorter_than_its_snapshot_is_refused_in_words(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.append(b"all there is")
    journal.sync()
    with pytest.raises(JournalError, match="missing or shorter"):
        Journal(tmp_path).cut(Place(1, 1000))
    with pytest.raises(JournalError, match="missing or shorter"):
        Journal(tmp_path).cut(Place(2, 0))
