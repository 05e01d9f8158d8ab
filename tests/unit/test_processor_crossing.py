"""Sums that cross from one process to another are the sums they were, and each text crosses once."""

import numpy as np

from processor.cells import Cells, no_cells
from processor.crossing import Arrivals, Departures
from processor.labels import LatestNames, position_words
from processor.panes import CATEGORY_COLUMNS, COUNTRY_COLUMNS, Partial
from sales.columnar.texts import PlainDictionary


def a_dictionary(*texts: str) -> PlainDictionary:
    dictionary = PlainDictionary((1, 2))
    for text in texts:
        dictionary.code(text)
    return dictionary


def a_partial(products: PlainDictionary, *codes: int) -> Partial:
    """One piece of each product."""
    rows, some = len(codes), np.array(codes, dtype=np.int64)
    return Partial(
        positions={"orders/0": (7, 20)},
        max_event_time=1000,
        products=Cells(products, np.zeros(rows, np.int64), some, np.ones((rows, 3), np.int64)),
        categories=no_cells(len(CATEGORY_COLUMNS)),
        countries=no_cells(len(COUNTRY_COLUMNS)),
        minutes=no_cells(len(COUNTRY_COLUMNS)),
        product_names=LatestNames(
            products=products,
            product_codes=some,
            names=products,
            name_codes=some,
            event_times=np.ones(rows, np.int64),
            positions=position_words(range(rows)),
            partitions=("orders/0",),
            partition_codes=np.zeros(rows, np.int64),
        ),
        counts={"accepted": rows},
    )


def sold(partial: Partial) -> list[str]:
    return [partial.products.names.text(code) for code in partial.products.codes.tolist()]


def test_a_sum_that_crossed_says_what_it_said() -> None:
    there = Arrivals().partial(Departures(1).crossed(a_partial(a_dictionary("pen", "ink", "pad"), 2, 0)))
    assert sold(there) == ["pad", "pen"]
    assert there.positions == {"orders/0": (7, 20)}
    assert there.counts == {"accepted": 2}
    assert [there.product_names.names.text(code) for code in there.product_names.name_codes.tolist()] == ["pad", "pen"]


def test_a_sum_that_did_not_cross_is_itself() -> None:
    partial = a_partial(a_dictionary("pen"), 0)
    assert Arrivals().partial(partial) is partial


def test_a_text_crosses_once_and_both_sides_keep_their_dictionary() -> None:
    departures, arrivals = Departures(1), Arrivals()
    products = a_dictionary("pen", "ink")
    first = departures.crossed(a_partial(products, 0))
    products.code("pad")
    second = departures.crossed(a_partial(products, 1, 2))
    assert b"pen" in first.payload
    assert b"pen" not in second.payload
    here, later = arrivals.partial(first), arrivals.partial(second)
    assert sold(later) == ["ink", "pad"]
    assert here.products.names is later.products.names


def test_a_sender_that_begins_with_empty_dictionaries_again_is_understood() -> None:
    departures, arrivals = Departures(1), Arrivals()
    before = arrivals.partial(departures.crossed(a_partial(a_dictionary("pen", "ink"), 1)))
    after = arrivals.partial(departures.crossed(a_partial(a_dictionary("pad"), 0)))
    assert sold(before) == ["ink"]
    assert sold(after) == ["pad"]


def test_senders_have_dictionaries_of_their_own() -> None:
    arrivals = Arrivals()
    one = arrivals.partial(Departures(1).crossed(a_partial(a_dictionary("pen"), 0)))
    two = arrivals.partial(Departures(2).crossed(a_partial(a_dictionary("ink"), 0)))
    assert (sold(one), sold(two)) == (["pen"], ["ink"])
