"""Several processes that share the work of one: the same numbers, whatever becomes of any of them.

What the board must hold is worked out here by brute force, from the orders that were sent and the contract alone.
"""

import os
import random
import signal
import subprocess
import time
import urllib.request
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest

from processor.cluster import START_SECONDS
from support.ports import lasting_ports
from support.services import OpenPipeline, Pipeline
from tillstream.local.nursery import Child

pytestmark = pytest.mark.kafka

SECONDS = 60.0
"""A catch-up or an end takes seconds on two busy cores; a hang is longer."""
WORK_SECONDS = START_SECONDS + SECONDS
"""The same behind a start, which the processor gives so long."""

SLOWLY = "15"
"""Messages at a time, so that there is a middle to be met."""

NOON = 1_795_176_000_000
WINDOWS = {"1m": (60_000, 1_000), "15m": (900_000, 15_000), "24h": (86_400_000, 900_000)}
"""Length and longest allowed pane, ms: what these windows' edges come from."""
TOP_K = 20
COUNTRIES = ("GB", "DE", "FR", "US", "JP")


@dataclass(frozen=True)
class Order:
    """One line each: how lines are summed is tested elsewhere."""

    order_id: str
    event_time: int
    product: int
    quantity: int
    unit_amount: int
    country: str

    @property
    def revenue(self) -> int:
        return self.quantity * self.unit_amount

    def message(self) -> tuple[bytes, bytes]:
        line = {
            "product_id": f"p{self.product}",
            "product_name": f"Product {self.product}",
            "category": f"c{self.product % 7}",
            "quantity": self.quantity,
            "unit_amount": self.unit_amount,
        }
        order = {
            "schema": 1,
            "type": "sale",
            "order_id": self.order_id,
            "event_time": f"{_text(self.event_time)}",
            "country": self.country,
            "currency": "USD",
            "lines": [line],
        }
        return self.order_id.encode(), msgspec.json.encode(order)


def _text(ms: int) -> str:
    seconds, rest = divmod(ms, 1000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{rest:03d}Z"


def some_orders(count: int, seed: int) -> list[Order]:
    """Spread over two hours, more products than TOP_K, small amounts so that there are ties."""
    dice = random.Random(seed)  # noqa: S311 - a seed makes a failure come again
    return [
        Order(
            order_id=f"{seed}-{number}",
            event_time=NOON + dice.randrange(7_200_000),
            product=int(dice.paretovariate(0.7)) % 400,
            quantity=dice.randint(1, 3),
            unit_amount=dice.choice((99, 250, 1995)),
            country=dice.choice(COUNTRIES),
        )
        for number in range(count)
    ]


def right_answer(orders: Sequence[Order]) -> dict[str, Any]:
    """What the board shows for these orders, each counted once."""
    as_of = max(order.event_time for order in orders)
    answer: dict[str, Any] = {}
    for window, (length, pane) in WINDOWS.items():
        end = as_of - as_of % pane + pane
        inside = [order for order in orders if end - length <= order.event_time < end]
        units: Counter[str] = Counter()
        revenue: Counter[str] = Counter()
        groups: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
        for order in inside:
            units[f"p{order.product}"] += order.quantity
            revenue[f"p{order.product}"] += order.revenue
            for group, name in (("country", order.country), ("category", f"c{order.product % 7}")):
                groups[group, "units"][name] += order.quantity
                groups[group, "revenue"][name] += order.revenue
                groups[group, "orders"][name] += 1
        sales = sum(order.revenue for order in inside)
        answer[window] = {
            "products": {"units": _top(units), "revenue": _top(revenue)},
            "groups": dict(groups),
            "orders": len(inside),
            "sales": sales,
        }
    return answer


def _top(totals: Counter[str]) -> list[tuple[str, int]]:
    """The best, by value and then name, both descending, as Redis orders them."""
    return sorted(totals.items(), key=lambda item: (item[1], item[0]), reverse=True)[:TOP_K]


def shown(pipeline: Pipeline) -> dict[str, Any]:
    """What the board shows, in the shape of `right_answer`."""
    live = pipeline.live()
    return {
        window: {
            "products": numbers.products,
            "groups": {
                (group, measure): content
                for group in ("country", "category")
                for measure, content in numbers.groups[group].items()
            },
            "orders": int(numbers.aov["orders"]),
            "sales": int(numbers.aov["sales_minor"]),
        }
        for window, numbers in live.windows.items()
    }


class Shop:
    """A pipeline's processor, in as many processes as is asked for, and the orders that it was sent."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline
        self.sent: list[Order] = []

    def send(self, count: int) -> None:
        """So many new orders, and every tenth of them twice."""
        orders = some_orders(count, seed=len(self.sent))
        with self.pipeline.orders.writer() as writer:
            for batch in (orders, orders[::10]):
                keys, values = zip(*(order.message() for order in batch), strict=True)
                writer.write(keys, values)
        self.sent += orders

    def start(self, processes: int, **settings: str) -> Child:
        return self.pipeline.start("processor", PROCESSES=str(processes), **settings)

    def stop(self) -> None:
        self.pipeline.stop("processor")

    def accepted(self) -> int:
        return int(self.pipeline.live().status.get("accepted", 0))

    def is_right(self) -> None:
        """All that was sent is on the board, each order once."""
        live = self.pipeline.settle(WORK_SECONDS)
        assert shown(self.pipeline) == right_answer(self.sent)
        assert int(live.status["accepted"]) == len(self.sent)


@pytest.fixture
def open_shop(open_pipeline: OpenPipeline) -> Callable[[], Shop]:
    def open_() -> Shop:
        return Shop(
            open_pipeline(
                "kafka",
                PARTITIONS="8",
                CLOCK="event",
                WINDOWS=" ".join(WINDOWS),
                TOP_K=str(TOP_K),
                SNAPSHOT_MS="200",
                TICK_MS="20",
            )
        )

    return open_


def further_processes(first: Child) -> list[int]:
    """The processes that a processor has started."""
    done = subprocess.run(["pgrep", "-P", str(first.pid)], capture_output=True, text=True, check=False)
    return [int(pid) for pid in done.stdout.split()]


def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"after {SECONDS:g} s not {what}"
        time.sleep(0.02)


def is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def state(pid: int) -> str:
    """As the kernel calls it: R, S, T ..."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def standing(shop: Shop, *, seconds: float) -> Callable[[], bool]:
    """Tells whether the board has shown the same for so long, as far as it was asked."""
    since, accepted = time.monotonic(), shop.accepted()

    def told() -> bool:
        nonlocal since, accepted
        if (now := shop.accepted()) != accepted:
            since, accepted = time.monotonic(), now
        return time.monotonic() - since >= seconds

    return told


def metrics(port: int) -> dict[str, float]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:  # our own
        lines = answer.read().decode().splitlines()
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[:1] != "#")}


def test_several_processes_show_what_one_shows_and_what_the_orders_add_up_to(open_shop: Callable[[], Shop]) -> None:
    boards = []
    for processes in (1, 2, 4):
        shop = open_shop()
        shop.send(20_000)
        first = shop.start(processes)
        shop.is_right()
        assert len(further_processes(first)) == processes - 1
        shop.stop()
        boards.append(shop.pipeline.board())
    assert boards[0] == boards[1] == boards[2]


@pytest.mark.parametrize("victim", ["first", "further"])
def test_either_process_killed_under_load_takes_all_down_and_the_next_start_is_exact(
    open_shop: Callable[[], Shop], victim: str
) -> None:
    shop = open_shop()
    shop.send(30_000)
    first = shop.start(2, POLL_RECORDS=SLOWLY)
    shop.pipeline.until(lambda: shop.accepted() > 3_000, WORK_SECONDS, "at work")
    assert shop.accepted() < 30_000
    (further,) = further_processes(first)
    os.kill(first.pid if victim == "first" else further, signal.SIGKILL)
    until(lambda: is_gone(further), "ended: the further process")
    assert first.wait(SECONDS) == (-signal.SIGKILL if victim == "first" else 1)
    if victim == "further":
        assert "process 1 of the cluster ended by signal 9; the next start goes on from here" in first.last_lines()[-1]
    shop.start(2)
    shop.send(3_000)
    shop.is_right()
    shop.stop()


def test_a_process_that_does_not_get_ready_ends_the_start_and_the_next_one_is_exact(
    open_shop: Callable[[], Shop],
) -> None:
    shop = open_shop()
    shop.send(2_000)
    first = shop.start(3)
    until(lambda: len(further_processes(first)) == 2, "started: the further processes")
    stays, victim = sorted(further_processes(first))
    os.kill(victim, signal.SIGKILL)
    assert first.wait(SECONDS) == 1
    until(lambda: is_gone(stays), "ended: the process that was left")
    assert "process 2 of the cluster ended by signal 9; the next start goes on from here" in first.last_lines()[-1]
    shop.start(3)
    shop.is_right()
    shop.stop()


def test_a_process_that_stands_still_holds_the_others_up_and_nothing_is_lost_or_counted_twice(
    open_shop: Callable[[], Shop],
) -> None:
    shop = open_shop()
    shop.send(20_000)
    first = shop.start(2, POLL_RECORDS=SLOWLY)
    shop.pipeline.until(lambda: shop.accepted() > 3_000, WORK_SECONDS, "at work")
    (further,) = further_processes(first)
    os.kill(further, signal.SIGSTOP)
    until(lambda: state(further) == "T", "stopped: the further process")
    shop.send(3_000)
    until(standing(shop, seconds=2.0), "standing: the board")
    assert shop.accepted() < len(shop.sent)
    os.kill(further, signal.SIGCONT)
    shop.is_right()
    shop.stop()


def test_one_process_tells_what_all_of_them_did(open_shop: Callable[[], Shop]) -> None:
    shop = open_shop()
    (port,) = lasting_ports()
    shop.send(5_000)
    shop.start(2, METRICS_PORT=str(port))
    shop.is_right()
    told = metrics(port)
    assert told['tillstream_processor_events_total{outcome="accepted"}'] == 5_000
    assert told['tillstream_processor_events_total{outcome="duplicate"}'] == 500
    assert sum(count for name, count in told.items() if name.startswith("tillstream_processor_messages_total")) == 5_500
    slots = {name for name in told if name.startswith("tillstream_processor_identities_memory_bytes{")}
    assert len(slots) == 4
    shop.stop()


def test_the_number_of_processes_may_change_from_start_to_start(open_shop: Callable[[], Shop]) -> None:
    shop = open_shop()
    for processes in (1, 2, 1):
        shop.send(5_000)
        shop.start(processes)
        shop.is_right()
        shop.stop()


def test_asked_to_stop_under_load_all_processes_end_in_order_and_the_next_start_goes_on(
    open_shop: Callable[[], Shop],
) -> None:
    shop = open_shop()
    shop.send(30_000)
    first = shop.start(2, POLL_RECORDS=SLOWLY)
    shop.pipeline.until(lambda: shop.accepted() > 3_000, WORK_SECONDS, "at work")
    (further,) = further_processes(first)
    shop.stop()  # asserts exit code 0
    assert is_gone(further)
    assert shop.accepted() < 30_000
    shop.start(2)
    shop.is_right()
    shop.stop()
