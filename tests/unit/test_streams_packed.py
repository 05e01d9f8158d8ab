"""Records in one buffer, and as Python objects: the same records."""

from bisect import bisect_right

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from sales.streams import Chunk
from sales.streams.packed import Packed, pack

LARGEST_POSITION = (1 << 187) - 1
"""A Kinesis sequence number; no machine's integer holds it."""

RECORDS = st.lists(
    st.tuples(
        st.none() | st.binary(max_size=30),
        st.binary(max_size=60),
        st.integers(0, LARGEST_POSITION),
        st.integers(0, 1 << 42),
    ),
    max_size=12,
    unique_by=lambda record: record[2],
)


def a_chunk(records: list[tuple[bytes | None, bytes, int, int]]) -> Chunk:
    keys, values, positions, times = map(list, zip(*sorted(records, key=lambda record: record[2]), strict=True))
    return Chunk("7", keys, values, positions, times)


def columns(chunk: Chunk) -> tuple[object, ...]:
    return chunk.partition, chunk.keys, chunk.values, chunk.positions, chunk.broker_times


@given(records=RECORDS.filter(bool))
def test_what_is_packed_comes_back_as_it_was(records: list[tuple[bytes | None, bytes, int, int]]) -> None:
    chunk = a_chunk(records)
    run = pack(chunk)
    assert columns(run.chunk()) == columns(chunk)
    assert run.size() == sum(map(len, chunk.values))
    assert [(run.key(row), run.value(row)) for row in range(len(run))] == list(
        zip(chunk.keys, chunk.values, strict=True)
    )


@given(records=RECORDS.filter(bool), at=st.integers(0, LARGEST_POSITION), near=st.integers(0, 20))
def test_a_run_is_cut_behind_a_position(
    records: list[tuple[bytes | None, bytes, int, int]], at: int, near: int
) -> None:
    chunk = a_chunk(records)
    position = chunk.positions[near] if near < len(chunk) else at
    before, behind = pack(chunk).cut_after(position)
    cut = bisect_right(chunk.positions, position)
    assert columns(before.chunk()) == columns(chunk.cut(cut)[0])
    assert columns(behind.chunk()) == columns(chunk.cut(cut)[1])
    assert before.size() + behind.size() == chunk.size()


@pytest.mark.parametrize(("position", "cut"), [(-1, 0), (3, 1), (4, 1), (9, 3), (1 << 40, 3)])
def test_a_run_with_numpys_positions_is_cut_there_too_and_its_chunk_has_pythons(position: int, cut: int) -> None:
    run = pack(Chunk("0", [b"k"] * 3, [b"a", b"b", b"c"], [3, 6, 9], [1, 2, 3]))
    counted = Packed(
        run.partition,
        run.data,
        run.key_starts,
        run.key_ends,
        run.value_starts,
        run.value_ends,
        np.array(run.positions, dtype=np.int64),
        run.broker_times,
    )
    before, behind = counted.cut_after(position)
    assert (len(before), len(behind)) == (cut, 3 - cut)
    assert {type(at) for at in counted.chunk().positions} == {int}
