"""What ``up`` and ``demo`` have in common: start the chain, do something, end everything."""

import logging
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Annotated

import typer

from sales.service import EXIT_AWAY, EXIT_FAILED
from sales.streams import AwayError
from tillstream.chain import Chain, NoNumbersError, WireName, start
from tillstream.faults import AWAY, UNABLE
from tillstream.interrupts import Interrupted, raised
from tillstream.live import Board, RedisAwayError
from tillstream.local.server import ServerError
from tillstream.setup import SetupError
from tillstream.supervisor import ChildEndedError
from tillstream.unheard import unheard

FIRST_NUMBERS_SECONDS = 90.0
"""Three Python services import their libraries, on two cores and a cold disk."""

FAULTS = (*AWAY, *UNABLE, ServerError, ChildEndedError, NoNumbersError, SetupError, RedisAwayError)
"""What ends a run with a message instead of a traceback."""

StreamOption = Annotated[WireName, typer.Option("--stream", envvar="STREAM", help="Kinesis from moto, or real Kafka.")]
RateOption = Annotated[str, typer.Option(envvar="RATE", help="Good orders a second: 500/s, max.")]
LogsOption = Annotated[Path | None, typer.Option(help="Folder for the services' logs; without it they go in the end.")]


def run(
    stream: WireName, rate: str, logs: Path | None, then: Callable[[Chain, Board], bool], *, generator: bool = True
) -> None:
    """Starts the chain, waits for its first numbers if there is a generator, does ``then``, and ends everything.

    Raises:
        typer.Exit: with 0 if ``then`` says that all is well.
    """
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    began = time.monotonic()
    try:
        with raised(), ExitStack() as stack:
            chain = start(stack, stream, rate=rate, logs=logs, generator=generator, say=typer.echo)
            board = stack.enter_context(closing(Board(chain.settings)))
            if generator:
                chain.wait_for_numbers(board.read, FIRST_NUMBERS_SECONDS)
                typer.echo(f"first numbers after {time.monotonic() - began:.1f} s; to try:")
            for note in chain.notes():
                typer.echo(f"    {note}")
            well = then(chain, board)
    except Interrupted as stop:
        with unheard():
            typer.echo(f"stopped by {stop}", err=True)
        raise typer.Exit(stop.exit_code) from None
    except FAULTS as error:
        with unheard():
            typer.echo(str(error), err=True)
        raise typer.Exit(EXIT_AWAY if isinstance(error, (AwayError, RedisAwayError)) else EXIT_FAILED) from error
    raise typer.Exit(0 if well else EXIT_FAILED)
