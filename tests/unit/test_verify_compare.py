"""Each single number of a board, changed alone, is a difference: a check that can't fail checks nothing."""

import copy
import io
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import pytest
from rich.console import Console

from sales.board import Keys, LiveNumbers, WindowNumbers
from sales.times import format_time, parse_time
from support import world as small
from support.world import World, a_world
from tillstream.compare import Check, Difference, compare, decimal
from tillstream.recompute import Expected
from tillstream.report import Report, show

KEYS = Keys("sales:")
Change = Callable[[LiveNumbers], object]
T = TypeVar("T")
MEASURES = ("units", "revenue", "orders")


def live(world: World) -> LiveNumbers:
    """The board as its reader gives it."""
    zsets, hashes = small.board(world)
    return LiveNumbers(
        status=hashes["status"],
        positions=hashes["positions"],
        names=hashes["products"],
        windows={
            window: WindowNumbers(
                products={m: list(zsets[f"{window}:product:{m}"].items()) for m in ("units", "revenue")},
                groups={
                    group: {m: dict(zsets[f"{window}:{group}:{m}"]) for m in MEASURES}
                    for group in ("category", "region", "country")
                },
                aov=hashes[f"{window}:aov"],
            )
            for window in world.windows
        },
        trends={
            region: {m: _trend(hashes, f"trend:region:{region}:{m}" if region else f"trend:{m}") for m in MEASURES}
            for region in small.REGIONS
        },
    )


def _trend(hashes: dict[str, dict[str, str]], key: str) -> dict[str, int]:
    return {minute: int(value) for minute, value in hashes.get(key, {}).items()}


def expected(board: LiveNumbers) -> Expected:
    """What would have to be recomputed for this board to be right."""
    whole = ("orders", "sales_minor", "returns", "refunded_minor", "revenue_minor", "units")
    windows = board.windows.items()
    return Expected(
        bounds={
            name: (parse_time(window.aov["window_start"]), parse_time(window.aov["window_end"]))
            for name, window in windows
        },
        totals={name: {measure: int(window.aov[measure]) for measure in whole} for name, window in windows},
        products={(name, m): list(best) for name, window in windows for m, best in window.products.items()},
        groups={
            (name, group, m): dict(members)
            for name, window in windows
            for group, measures in window.groups.items()
            for m, members in measures.items()
        },
        trends={(region, m): dict(minutes) for region, ms in board.trends.items() for m, minutes in ms.items()},
        names=dict(board.names),
    )


@pytest.fixture(scope="module")
def board() -> LiveNumbers:
    return live(a_world())


def checked(board: LiveNumbers, truth: Expected) -> list[Difference]:
    return [difference for check in compare(board, truth, KEYS, small.CURRENCY) for difference in check.differences]


def changes(board: LiveNumbers) -> Iterator[tuple[str, Change]]:
    """Every single number: another, and gone; and in every key a member too many."""
    for name, window in board.windows.items():

        def aov(b: LiveNumbers, name: str = name) -> dict[str, str]:
            return b.windows[name].aov

        yield from _members(f"{name} aov", aov, board, lambda text: text + "1")
        for measure, best in window.products.items():
            for place, (product, value) in enumerate(best):
                yield from _ranked((name, measure), place, product, value)
        for group, measures in window.groups.items():
            for measure in measures:

                def members(b: LiveNumbers, n: str = name, g: str = group, m: str = measure) -> dict[str, int]:
                    return b.windows[n].groups[g][m]

                yield from _members(f"{name} {group} {measure}", members, board, lambda value: value - 1)
    for region, measures in board.trends.items():
        for measure in measures:

            def minutes(b: LiveNumbers, r: str = region, m: str = measure) -> dict[str, int]:
                return b.trends[r][m]

            yield from _members(f"trend {region} {measure}", minutes, board, lambda value: value + 1)
    yield from _members("names", lambda b: b.names, board, lambda name: name + "?")


def _members(
    what: str, of: Callable[[LiveNumbers], dict[str, T]], board: LiveNumbers, other: Callable[[T], T]
) -> Iterator[tuple[str, Change]]:
    def put(member: str, value: T) -> Change:
        return lambda b: of(b).update({member: value})

    def drop(member: str) -> Change:
        return lambda b: of(b).pop(member)

    for member, value in of(board).items():
        yield f"{what} {member}", put(member, other(value))
        yield f"{what} no {member}", drop(member)
        yield f"{what} more than {member}", put(f"more than {member}", value)


def _ranked(key: tuple[str, str], place: int, product: str, value: int) -> Iterator[tuple[str, Change]]:
    name, measure = key

    def put(*entries: tuple[str, int]) -> Change:
        def change(b: LiveNumbers) -> None:
            b.windows[name].products[measure][place : place + 1] = entries

        return change

    yield f"{name} {measure} {product}", put((product, value + 1))
    yield f"{name} {measure} no {product}", put()
    yield f"{name} {measure} other {product}", put((product + "?", value))
    yield f"{name} {measure} more", put((product, value), ("nobody", value))


def test_the_board_itself_is_right(board: LiveNumbers) -> None:
    assert checked(board, expected(board)) == []


def test_each_single_change_is_a_difference(board: LiveNumbers) -> None:
    truth = expected(board)
    unnoticed = []
    count = 0
    for what, change in changes(board):
        wrong = copy.deepcopy(board)
        change(wrong)
        count += 1
        if not checked(wrong, truth):
            unnoticed.append(what)
    assert unnoticed == []
    assert count > 1000


def test_two_products_that_tie_in_the_wrong_order_are_a_difference(board: LiveNumbers) -> None:
    right = copy.deepcopy(board)
    right.windows["1h"].products["units"][:] = [("B", 5), ("A", 5)]
    wrong = copy.deepcopy(right)
    wrong.windows["1h"].products["units"].reverse()
    found = [d for d in checked(wrong, expected(right)) if d.place == "sales:1h:product:units"]
    assert found == [
        Difference("sales:1h:product:units", "place 1", "B", "A"),
        Difference("sales:1h:product:units", "place 2", "A", "B"),
    ]


def test_a_region_that_the_board_lacks_altogether_is_a_difference(board: LiveNumbers) -> None:
    wrong = copy.deepcopy(board)
    del wrong.trends["Europe"]
    assert {d.place for d in checked(wrong, expected(board))} == {
        f"sales:trend:region:Europe:{measure}" for measure in MEASURES
    }


@pytest.mark.parametrize("seconds", [-5, -1, 1, 5])
def test_a_window_that_lies_elsewhere_is_a_difference_however_little(board: LiveNumbers, seconds: int) -> None:
    moved = copy.deepcopy(board)
    aov = moved.windows["5m"].aov
    for edge in ("window_start", "window_end"):
        aov[edge] = format_time(parse_time(aov[edge]) + seconds * 1000)
    assert {d.name for d in checked(moved, expected(board))} == {"window_start", "window_end"}


@pytest.mark.parametrize(
    ("minor", "currency", "text"),
    [(1234, "USD", "12.34"), (-5, "USD", "-0.05"), (0, "EUR", "0.00"), (1234, "JPY", "1234"), (-1234, "KWD", "-1.234")],
)
def test_decimals_are_exact(minor: int, currency: str, text: str) -> None:
    assert decimal(minor, currency) == text


def a_report(*checks: Check) -> Report:
    rows = Check("", "stored orders", compared=73)
    return Report(
        as_of="2026-11-20T07:52:33.123Z",
        positions={},
        objects=3,
        rows=70,
        seconds=0.2,
        numbers=list(checks),
        stored=[rows],
    )


def shown(report: Report) -> str:
    console = Console(file=io.StringIO(), width=200, force_terminal=False)
    show(report, console)
    text: str = console.file.getvalue()  # type: ignore[attr-defined]  # it is the StringIO above
    return text


def test_a_report_says_what_was_compared_and_where_it_differs() -> None:
    check = Check("1h", "category")
    check.match("sales:1h:category:units", {"Home": 3, "[Toys]": 2}, {"Home": 3, "[Toys]": 1})
    text = shown(a_report(check))
    assert "sales:1h:category:units [Toys]: expected 2, found 1" in text
    assert "not equal: 2 numbers from 70 order lines in 3 objects" in text


def test_a_report_counts_live_numbers_alone() -> None:
    check = Check("1h", "category")
    check.match("sales:1h:category:units", {"Home": 3}, {"Home": 3})
    report = a_report(check)
    assert "every number is equal: 1 numbers from 70 order lines in 3 objects" in shown(report)
    assert report.as_json()["compared"] == 1


def test_a_fault_in_what_is_stored_is_not_equal() -> None:
    check = Check("1h", "category")
    check.match("sales:1h:category:units", {"Home": 3}, {"Home": 3})
    report = a_report(check)
    report.stored[0].differences.append(Difference("orders/a.parquet", "object", "there", "missing"))
    assert not report.equal


def test_a_report_of_no_number_is_not_equal() -> None:
    assert not a_report().equal


def test_a_report_shows_the_first_of_many_differences() -> None:
    check = Check("", "trend")
    check.match("sales:trend:units", {str(number): number for number in range(100)}, {})
    report = a_report(check)
    assert "and 90 more" in shown(report)
    as_json: dict[str, Any] = report.as_json()
    assert (as_json["equal"], as_json["compared"], as_json["different"]) == (False, 100, 100)
