"""Orders at a rate: ``python -m generator`` beside the servers, every order dated with the clock on the wall."""

import os
import sys

from benchmarks.lab import SERVERS_CORE, BenchmarkError, Lab, on_cores

from tillstream.local.nursery import Child


def generate(lab: Lab, topic: str, *, rate: int, orders: int, products: int) -> Child:
    """A generator that writes to that topic, on the servers' core.

    Args:
        lab: its broker has the topic.
        topic: to write to.
        rate: orders a second.
        orders: after so many it ends; 0: when it is stopped.
        products: of its catalogue.
    """
    command = [sys.executable, "-m", "generator", "--rate", f"{rate}/s", "--orders", str(orders)]
    env = {
        **os.environ,
        "STREAM": "kafka",
        "KAFKA_BOOTSTRAP_SERVERS": lab.broker.address,
        "ORDERS_STREAM": topic,
        "PRODUCTS": str(products),
    }
    with on_cores(SERVERS_CORE):
        return lab.nursery.spawn("generator", command, log=lab.scratch("generator") / "log", env=env)


def has_ended(generator: Child) -> bool:
    """Whether it has sent everything.

    Raises:
        BenchmarkError: it failed.
    """
    code = generator.exit_code()
    if code:
        raise BenchmarkError("\n".join(["the generator failed:", *generator.last_lines()]))
    return code is not None
