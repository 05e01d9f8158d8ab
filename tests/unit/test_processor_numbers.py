"""The numbers say so when they come near what Redis can hold."""

import numpy as np
import pytest

from processor.numbers import Numbers
from processor.panes import CATEGORY_COLUMNS, COUNTRY_COLUMNS, PRODUCT_COLUMNS, Cells
from processor.snapshots import Delta, merge
from sales.board import Keys
from sales.countries import REGION_OF
from sales.windows import parse_windows

NOON = 1_795_176_000_000


@pytest.mark.parametrize("column", ["units", "sales", "refunded"])
@pytest.mark.parametrize(("share", "expected"), [(2**52, 0), (2**52 + 1, 1)])
def test_a_total_near_the_end_of_exact_scores_is_an_error_on_the_log_once(
    column: str, share: int, expected: int, caplog: pytest.LogCaptureFixture
) -> None:
    numbers = Numbers(
        windows=parse_windows("1m"), keys=Keys("sales:"), top_k=3, currency="USD", region_of=REGION_OF, clock="wall"
    )
    row = [share if name == column else 1 for name in COUNTRY_COLUMNS]
    countries = Cells(["GB"], np.array([NOON]), np.array([0]), np.array([row]))
    tables = {
        "products": merge([], len(PRODUCT_COLUMNS)),
        "categories": merge([], len(CATEGORY_COLUMNS)),
        "countries": countries,
        "minutes": merge([], len(COUNTRY_COLUMNS)),
    }
    numbers.load(Delta(NOON, NOON, {}, {}, 0, tables, {}, {}))
    for _ in range(2):
        numbers.tick(NOON)
    assert [record.levelname for record in caplog.records] == ["ERROR"] * expected
