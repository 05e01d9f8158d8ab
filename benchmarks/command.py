"""What the commands here have in common: options, the machine in front of the figures, and errors in words."""

import argparse
import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmarks import topics
from benchmarks.lab import BenchmarkError, Lab, machine, open_lab

from sales.streams import StreamError
from tillstream.interrupts import Interrupted
from tillstream.local.server import ServerError


def parser(description: str | None) -> argparse.ArgumentParser:
    """A parser with what every command takes."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument(
        "--work", type=Path, default=default_work(), help="keeps topics and packages; default %(default)s"
    )
    made.add_argument("--json", type=Path, help="write everything there as well")
    return made


def add_settings(to: argparse.ArgumentParser) -> None:
    """The option that changes settings of the service that is measured: ``options.set`` holds pairs."""
    to.add_argument(
        "--set", type=_setting, action="append", default=[], help="NAME=VALUE, of the service that is measured"
    )


def add_shape(to: argparse.ArgumentParser, *, orders: int) -> None:
    """The options that choose a topic."""
    to.add_argument("--orders", type=int, default=orders, help="good orders in the topic; default %(default)s")
    to.add_argument("--products", type=int, default=10_000, help="default %(default)s")
    to.add_argument("--partitions", type=int, default=4, help="default %(default)s")
    to.add_argument("--bad", type=float, default=0.0, help="share of bad records, as 0.001; default none")
    to.add_argument("--late", type=float, default=0.0, help="share of late orders; default none")
    to.add_argument("--span", type=int, default=7200, help="seconds of event time; default %(default)s")


def shape(options: argparse.Namespace) -> topics.Shape:
    """The shape that the options choose."""
    return topics.Shape(
        orders=options.orders,
        products=options.products,
        partitions=options.partitions,
        bad=options.bad,
        late=options.late,
        span_seconds=options.span,
    )


def run(work: Callable[[Lab, argparse.Namespace], None], options: argparse.Namespace) -> int:
    """Opens the lab, says which machine this is, and does the work; the exit code, 1 with a message when it fails."""
    try:
        with open_lab(options.work) as lab:
            for name, value in machine(lab).items():
                print(f"{name}: {value}")
            work(lab, options)
    except (BenchmarkError, ServerError, StreamError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except Interrupted as interrupted:
        return interrupted.exit_code
    return 0


def keep(lab: Lab, options: argparse.Namespace, found: Mapping[str, Any]) -> None:
    """Writes what was found, and the machine that it belongs to, where ``--json`` says."""
    if options.json is not None:
        options.json.write_text(json.dumps({"machine": machine(lab), **found}, indent=1) + "\n")


def default_work() -> Path:
    """Where topics and packages are kept unless ``--work`` says otherwise."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "tillstream" / "benchmarks"


def _setting(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    return name, value
