"""Orders are summed alike by compiled code, in one pass, and by numpy, column by column."""

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from processor.cells import Cells
from processor.panes import Origin, Partial
from processor.tiers import summarising
from sales.columnar import columns as c
from sales.columnar.columns import Columns
from sales.columnar.scopes import Scopes
from sales.columnar.texts import Dictionaries, PlainDictionary

NOON = 1_795_176_000_000
TIMES = st.one_of(st.integers(NOON, NOON + 2_000), st.integers(NOON - 86_400_000, NOON), st.just(NOON), st.just(5))
LINES = st.tuples(
    st.integers(0, 3),
    st.integers(0, 4),
    st.integers(0, 2),
    st.integers(1, 9),
    st.integers(0, 9999),
    st.integers(0, 100),
)
ORDERS = st.tuples(TIMES, st.booleans(), st.sampled_from([0, 27, 675]), st.lists(LINES, min_size=1, max_size=4))
RUNS = st.lists(st.tuples(st.sampled_from("ab"), st.lists(ORDERS, max_size=6)), min_size=1, max_size=4)


def dictionary(prefix: str, size: int) -> PlainDictionary:
    texts = PlainDictionary((1, 2))
    for number in range(size):
        texts.code(f"{prefix}{number}")
    return texts


CATEGORIES = dictionary("category", 3)
DICTIONARIES = Dictionaries(dictionary("product", 4), dictionary("name", 5), CATEGORIES, Scopes(CATEGORIES))
SUMMARISE, SUMMARISE_COMPILED = summarising(compiled=False), summarising(compiled=True)


def meaning(partial: Partial) -> dict[str, Any]:
    """What a partial says, in no order but the panes'."""
    names = partial.product_names
    return {
        "tables": [
            cells_of(table) for table in (partial.products, partial.categories, partial.countries, partial.minutes)
        ],
        "names": {
            names.products.text(product): (names.names.text(name), time, tuple(words), names.partitions[partition])
            for product, name, time, words, partition in zip(
                names.product_codes.tolist(),
                names.name_codes.tolist(),
                names.event_times.tolist(),
                names.positions.tolist(),
                names.partition_codes.tolist(),
                strict=True,
            )
        },
        "reached": (partial.positions, partial.max_event_time),
    }


def cells_of(cells: Cells) -> dict[tuple[int, str], list[int]]:
    panes, codes = cells.panes.tolist(), cells.codes.tolist()
    assert panes == sorted(panes)
    named = [(pane, cells.names.text(code)) for pane, code in zip(panes, codes, strict=True)]
    assert len(set(named)) == len(named)
    return dict(zip(named, cells.sums.tolist(), strict=True))


@settings(max_examples=400)
@given(runs=RUNS, wide=st.booleans(), first=st.sampled_from([0, 7, 10**55]))
def test_both_tiers_sum_alike(runs: list[tuple[str, list[Any]]], wide: bool, first: int) -> None:
    messages = [order for _, orders in runs for order in orders]
    orders = np.zeros((c.ORDER_COLUMNS, len(messages) + 3), dtype=np.int64)[:, : len(messages)]  # as the scanner's are
    lines = []
    for number, (time, is_return, country, its_lines) in enumerate(messages):
        orders[[c.ROW, c.EVENT_TIME, c.FLAGS, c.COUNTRY, c.LINES], number] = (
            number,
            time,
            is_return * c.IS_RETURN,
            country,
            len(its_lines),
        )
        lines += [(number, *line, -1) for line in its_lines]
    columns = Columns(orders, np.array(lines, dtype=np.int64).reshape(-1, c.LINE_COLUMNS).T.copy())
    origins = []
    for number, (partition, its_orders) in enumerate(runs):
        positions = range(first + 10 * number, first + 10 * number + max(1, len(its_orders)))
        fits = first < 2**62 and not wide
        if its_orders:
            origins.append(Origin(partition, np.array(positions) if fits else list(positions), 56))
    kept = np.array([(number + first) % 3 > 0 for number in range(len(messages))], dtype=np.bool_)
    for some in (columns, columns.take(kept), Columns(np.asfortranarray(orders), np.asfortranarray(columns.lines))):
        compiled = SUMMARISE_COMPILED(some, DICTIONARIES, origins)
        assert meaning(compiled) == meaning(SUMMARISE(some, DICTIONARIES, origins))


def test_more_rows_than_the_tables_had_room_for_are_summed_alike() -> None:
    count = 3_000
    random = np.random.default_rng(7)
    orders = np.zeros((c.ORDER_COLUMNS, count), dtype=np.int64)
    orders[c.ROW] = np.arange(count)
    orders[c.EVENT_TIME] = NOON + random.integers(0, 900_000, count)
    orders[c.COUNTRY] = random.integers(0, 676, count)
    orders[c.LINES] = 1
    lines = np.ones((c.LINE_COLUMNS, count), dtype=np.int64)
    lines[c.ORDER] = np.arange(count)
    lines[c.PRODUCT] = random.integers(0, 500, count)
    dictionaries = Dictionaries(dictionary("product", 500), dictionary("name", 2), CATEGORIES, Scopes(CATEGORIES))
    origins = [Origin("orders/0", np.arange(count), 20)]
    columns = Columns(orders, lines)
    summarise_compiled = summarising(compiled=True)
    for some in (columns, columns.take(np.arange(count) < 10), columns):
        assert meaning(summarise_compiled(some, dictionaries, origins)) == meaning(
            SUMMARISE(some, dictionaries, origins)
        )
