"""What the numbers say beyond the sums: that they come near what Redis can hold, and what is too old to speak of."""

from dataclasses import replace

import numpy as np
import pytest

from processor.cells import Cells, ListedNames, merge
from processor.labels import Labels
from processor.numbers import Numbers
from processor.panes import CATEGORY_COLUMNS, COUNTRY_COLUMNS, PRODUCT_COLUMNS
from processor.snapshots import Delta, decode, encode
from sales.board import Keys
from sales.countries import REGION_OF
from sales.windows import HOUR_MS as HOUR
from sales.windows import MINUTE_MS as MINUTE
from sales.windows import parse_windows

NOON = 1_795_176_000_000


def a_table(**tables: list[Cells]) -> dict[str, list[Cells]]:
    """All tables, empty but for these."""
    return {
        "products": merge([], len(PRODUCT_COLUMNS)),
        "categories": merge([], len(CATEGORY_COLUMNS)),
        "countries": merge([], len(COUNTRY_COLUMNS)),
        "minutes": merge([], len(COUNTRY_COLUMNS)),
    } | tables


def fresh_numbers(clock: str) -> Numbers:
    return Numbers(
        windows=parse_windows("1m 1h"), keys=Keys("sales:"), top_k=3, currency="USD", region_of=REGION_OF, clock=clock
    )


@pytest.mark.parametrize("column", ["units", "sales", "refunded"])
@pytest.mark.parametrize(("share", "expected"), [(2**52, 0), (2**52 + 1, 1)])
def test_a_total_near_the_end_of_exact_scores_is_an_error_on_the_log_once(
    column: str, share: int, expected: int, caplog: pytest.LogCaptureFixture
) -> None:
    numbers = fresh_numbers("wall")
    row = [share if name == column else 1 for name in COUNTRY_COLUMNS]
    countries = Cells(ListedNames(["GB"]), np.array([NOON]), np.array([0]), np.array([row]))
    no_names = Labels().rows(np.zeros(0, dtype=np.int64), [])
    numbers.load(Delta(NOON, NOON, {}, {}, 0, 0, a_table(countries=[countries]), no_names, {}))
    for _ in range(2):
        numbers.tick(NOON)
    assert [record.levelname for record in caplog.records] == ["ERROR"] * expected


def test_a_processor_that_begins_anew_says_nothing_of_minutes_before_its_first_window() -> None:
    numbers = fresh_numbers("wall")
    numbers.advance(NOON - HOUR)  # what the board shows; nothing was read yet
    numbers.advance(NOON)
    first = numbers.dump()
    assert first.known_from == NOON + MINUTE - HOUR

    later = fresh_numbers("wall")
    later.load(decode(encode(replace(first, positions={"orders/0": (7, 20)}))))
    later.advance(NOON + 3 * HOUR)
    assert later.dump().known_from == first.known_from


def test_a_replay_of_history_tells_every_minute_that_it_can_not_add_up() -> None:
    numbers = fresh_numbers("event")
    numbers.advance(NOON)
    assert numbers.dump().known_from == 0
