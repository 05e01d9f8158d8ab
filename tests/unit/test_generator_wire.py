"""Orders as bytes: the joined fragments are the same JSON that an encoder would write."""

import hypothesis.strategies as st
import numpy as np
from hypothesis import given

from generator.wire import format_times
from sales.times import format_time

FROM_1600_TO_2200 = st.integers(-11_676_096_000_000, 7_258_118_399_999)


@given(st.lists(FROM_1600_TO_2200, min_size=1, max_size=50))
def test_times_are_written_as_everywhere_else(times: list[int]) -> None:
    rows = format_times(np.array(times, dtype=np.int64))
    assert [row.tobytes().decode() for row in rows] == [format_time(time) for time in times]
