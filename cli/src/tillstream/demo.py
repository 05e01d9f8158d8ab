"""``tillstream demo``: the whole chain for a while, and then the proof."""

import time
from typing import Annotated

import typer
from rich.console import Console

from sales.settings import load
from tillstream.chain import Chain, Say
from tillstream.interrupts import Interrupted, answered
from tillstream.live import Board, watch
from tillstream.proving import VerifySettings, verify_board
from tillstream.report import show
from tillstream.running import LogsOption, RateOption, StreamOption, run

SETTLE_SECONDS = 60.0
"""What was sent last is counted within a second; a machine that is overloaded may be behind."""
COVER_SECONDS = 120.0
"""How long the proof waits for the sink."""
SAY_SECONDS = 5.0


def demo(
    stream: StreamOption = "kinesis",
    seconds: Annotated[
        float, typer.Option(envvar="DEMO_SECONDS", min=0, help="How long to watch; 0: until Ctrl-C.")
    ] = 60,
    rate: RateOption = "500/s",
    logs: LogsOption = None,
) -> None:
    """Run the whole chain on this machine, watch it, then prove that every number was right.

    Ctrl-C ends the watching and goes on to the proof; once more leaves that out.

    Exit codes: 0 every number is equal, 1 one is not or a part failed.
    """
    run(stream, rate, logs, lambda chain, board: _watch_and_prove(chain, board, seconds))


def _watch_and_prove(chain: Chain, board: Board, seconds: float) -> bool:
    try:
        watch(board, notes=chain.notes(), seconds=seconds or None, check=chain.supervisor.check)
    except Interrupted as stop:
        if not stop.by_keyboard:
            raise
        answered()
    typer.echo("stopping: no new orders")
    chain.supervisor.stop("generator")
    if not chain.settle(SETTLE_SECONDS):
        typer.echo(f"the processor is still behind after {SETTLE_SECONDS:g} s; proving what it has counted")
    chain.supervisor.stop("processor")
    settings = load(VerifySettings)
    # The local protocol server takes seconds for each page of a scan: DynamoDB is left to `tillstream verify`.
    report = verify_board(settings, timeout=COVER_SECONDS, everything=True, lookups=False, say=_now_and_then(chain))
    show(report, Console())
    typer.echo("stopping the sink, which first stores what it has read")
    chain.supervisor.stop("sink")
    return report.equal


def _now_and_then(chain: Chain) -> Say:
    """Prints what the proof waits for, not oftener than every SAY_SECONDS, and notices when a child ends meanwhile."""
    last = -SAY_SECONDS

    def say(text: str) -> None:
        nonlocal last
        chain.supervisor.check()
        if time.monotonic() - last >= SAY_SECONDS:
            last = time.monotonic()
            typer.echo(f"proof: {text}")

    return say
