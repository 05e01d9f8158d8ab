"""``tillstream up``: the whole chain on this machine, until it is stopped."""

import time
from typing import Annotated

import typer

from tillstream.chain import POLL_SECONDS, Chain
from tillstream.interrupts import Interrupted, answered
from tillstream.live import Board, watch
from tillstream.running import LogsOption, RateOption, StreamOption, run
from tillstream.unheard import unheard


def up(
    stream: StreamOption = "kinesis",
    rate: RateOption = "500/s",
    logs: LogsOption = None,
    generator: Annotated[
        bool, typer.Option("--generator/--no-generator", help="Make up orders, or wait for some: tillstream replay.")
    ] = True,
    show: Annotated[bool, typer.Option("--live/--no-live", help="Show the live numbers meanwhile.")] = True,
) -> None:
    """Run the whole chain on this machine until Ctrl-C; exit code 0 then."""
    run(stream, rate, logs, lambda chain, board: _until_stopped(chain, board, show=show), generator=generator)


def _until_stopped(chain: Chain, board: Board, *, show: bool) -> bool:
    try:
        if show:
            watch(board, notes=chain.notes(), check=chain.supervisor.check)
        while not show:
            chain.supervisor.check()
            time.sleep(POLL_SECONDS)
    except Interrupted:
        answered()
        with unheard():
            typer.echo("stopping")
    chain.supervisor.stop_all()
    return True
