"""The journal: what was synced is read again, what was torn is cut off, what lies behind a place can be forgotten."""

import tempfile
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from processor.journal import Journal, JournalError, Place


def payloads(journal: Journal, segment: int = 1) -> list[bytes]:
    return [payload for _, payload in journal.frames(segment)]


@settings(max_examples=100)
@given(frames=st.lists(st.binary(min_size=1, max_size=40), min_size=1, max_size=6), torn=st.integers(0, 60))
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
        survivors = [payload for _, _, payload in again.recover(None, 99)]
        assert survivors == frames[: len(survivors)]
        assert sum(len(frame) + 8 for frame in frames[len(survivors) :]) >= min(torn, len(whole))
        again.append(b"after the crash")
        assert payloads(again) == [*survivors, b"after the crash"]
        again.close()


def damage(folder: Path, place: Place) -> None:
    file = folder / f"{place.segment:08d}.journal"
    damaged = bytearray(file.read_bytes())
    damaged[place.offset + 8] ^= 1
    file.write_bytes(bytes(damaged))


def test_a_flipped_bit_is_told_and_never_taken_for_the_end(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.append(b"first")
    second = journal.append(b"second")
    journal.append(b"third")
    journal.close()
    damage(tmp_path, second)
    with pytest.raises(JournalError, match="damaged at byte 13"):
        payloads(Journal(tmp_path))
    with pytest.raises(JournalError, match="damaged at byte 13"):
        Journal(tmp_path).read(second)


def test_a_segment_that_is_not_the_last_was_written_whole(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    first = journal.append(b"first")
    journal.roll()
    journal.append(b"second")
    journal.close()
    damage(tmp_path, first)
    with pytest.raises(JournalError, match="damaged at byte 0"):
        list(Journal(tmp_path).recover(None, 99))


def test_a_journal_that_ends_before_what_was_durable_is_refused(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.append(b"first")
    before = journal.end()
    journal.append(b"second")
    durable = journal.end()
    journal.cut(before)
    with pytest.raises(JournalError, match="ends at"):
        list(Journal(tmp_path).recover(durable, 99))


def test_zeros_that_a_lost_write_left_behind_are_no_frames(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.append(b"first")
    journal.close()
    (file,) = tmp_path.glob("*.journal")
    file.write_bytes(file.read_bytes() + bytes(64))
    again = Journal(tmp_path)
    assert [payload for _, _, payload in again.recover(None, 99)] == [b"first"]
    assert again.end() == Place(1, 13)


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


def test_a_survey_finds_damage_unless_it_may_be_a_torn_end(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    for frame in (b"first", b"second", b"third"):
        journal.append(frame)
    journal.close()
    (file,) = tmp_path.glob("*.journal")
    whole = file.read_bytes()
    assert [payload for _, payload in journal.survey()] == [b"first", b"second", b"third"]
    file.write_bytes(whole[:-2])
    assert [payload for _, payload in journal.survey()] == [b"first", b"second"]
    file.write_bytes(whole[:-1] + b"?")
    assert [payload for _, payload in journal.survey()] == [b"first", b"second"]
    file.write_bytes(whole.replace(b"second", b"sec?nd"))
    with pytest.raises(JournalError, match="is damaged at byte 13"):
        list(journal.survey())
