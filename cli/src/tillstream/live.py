"""``tillstream live``: the numbers as they come, read from Redis and from nowhere else."""

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated

import redis
import typer
from rich.console import Console
from rich.live import Live

from sales.board import BoardReader, Keys, client_of
from sales.service import EXIT_AWAY, EXIT_SETTINGS
from sales.settings import BoardSettings, load
from tillstream.interrupts import Interrupted, raised
from tillstream.keyboard import keys
from tillstream.unheard import unheard
from tillstream.view import ASCII, BLOCKS, Frame, Glyphs, Rate, line, nothing_yet, render

FRAME_SECONDS = 0.25
"""Between two frames: a person sees no more, and Redis hardly notices."""
LINE_SECONDS = 5.0
"""Between two lines where there is no terminal."""
REDIS_SECONDS = 5.0
"""Redis answers in milliseconds, or not at all."""
AWAY_SECONDS = 60.0
"""How long to go on asking a Redis that does not answer."""


class RedisAwayError(Exception):
    """Redis did not answer for AWAY_SECONDS, or refuses; says where."""


def live(
    window: Annotated[
        str, typer.Option(help="The window to show first: one of WINDOWS.", show_default="the first")
    ] = "",
    once: Annotated[bool, typer.Option("--once", help="Print one line and end.")] = False,
) -> None:
    """Watch the live numbers. REDIS_URL and WINDOWS say which; Ctrl-C or q ends it."""
    settings = load(BoardSettings)
    board = Board(settings)
    if window and window not in board.windows:
        typer.echo(f"--window {window}: allowed: {', '.join(board.windows)}", err=True)
        raise typer.Exit(EXIT_SETTINGS)
    try:
        with raised():
            if once:
                board.read()
                frame = board.frame(window or board.windows[0])
                typer.echo(line(frame), err=bool(frame.away))
                raise typer.Exit(EXIT_AWAY if frame.away else 0)
            watch(board, window=window)
    except Interrupted as stop:
        raise typer.Exit(0 if stop.by_keyboard else stop.exit_code) from None
    except RedisAwayError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(EXIT_AWAY) from error
    finally:
        board.close()


class Board:
    """The numbers as last read, and how fast they grow."""

    def __init__(self, settings: BoardSettings) -> None:
        self.windows = [window.name for window in settings.windows]
        self._client = client_of(settings.redis_url.get_secret_value(), REDIS_SECONDS)
        self._reader = BoardReader(self._client, Keys(settings.redis_prefix), self.windows)
        self._rate = Rate()
        self._numbers = nothing_yet(self.windows)
        self._away = ""
        self._away_since: float | None = None

    def read(self) -> bool:
        """Takes one tick; True once orders were counted. While Redis is away the last one stays.

        Raises:
            RedisAwayError: it has been away for AWAY_SECONDS, or refuses.
        """
        place = self._client.get_connection_kwargs()
        where = f"{place.get('host')}:{place.get('port')}"
        try:
            self._numbers = self._reader.read()
        except (redis.ConnectionError, redis.TimeoutError) as error:
            self._away_since = self._away_since or time.monotonic()
            self._away = f"Redis at {where} does not answer: {error}"
            if time.monotonic() - self._away_since >= AWAY_SECONDS:
                raise RedisAwayError(f"Redis at {where} did not answer for {AWAY_SECONDS:g} s: {error}") from error
        except redis.RedisError as error:  # rights, a key of another type: asking again mends nothing
            raise RedisAwayError(f"Redis at {where} refuses: {error}") from error
        else:
            self._away, self._away_since = "", None
            self._rate.add(self._numbers)
        return int(self._numbers.status.get("accepted", 0)) > 0

    def frame(self, window: str, notes: Sequence[str] = (), glyphs: Glyphs = BLOCKS) -> Frame:
        """What to show now."""
        return Frame(self._numbers, window, self._rate, time.time_ns() // 1_000_000, tuple(notes), self._away, glyphs)

    def close(self) -> None:
        """Gives the connection back."""
        self._client.close()


def watch(
    board: Board,
    *,
    window: str = "",
    notes: Sequence[str] = (),
    seconds: float | None = None,
    check: Callable[[], None] = lambda: None,
) -> None:
    """Shows the numbers: as frames on a terminal, as a line now and then without one.

    Args:
        board: where they are read.
        window: the one to show first; empty: the shortest.
        notes: lines for the foot of each frame.
        seconds: ends after that time; None: only by q or a signal.
        check: called several times a second; may raise.

    Raises:
        RedisAwayError: Redis stays away.
        Interrupted: a signal came, inside `interrupts.raised`.
    """
    window = window or board.windows[0]
    console = Console()
    ends = math.inf if seconds is None else time.monotonic() + seconds
    if console.is_terminal:
        _frames(board, console, window, ends, check, notes=notes)
    else:
        _lines(board, window, ends, check)


def _frames(
    board: Board, console: Console, window: str, ends: float, check: Callable[[], None], *, notes: Sequence[str]
) -> None:
    glyphs = ASCII if console.options.ascii_only else BLOCKS
    with keys() as next_key, _screen(console) as screen:
        while (left := ends - time.monotonic()) > 0:
            check()
            board.read()
            width, height = console.size
            screen.update(render(board.frame(window, notes, glyphs), width, height), refresh=True)
            key = next_key(min(FRAME_SECONDS, left))
            if key == "q":
                return
            window = _chosen(board.windows, window, key)


@contextlib.contextmanager
def _screen(console: Console) -> Iterator[Live]:
    """The terminal's other screen; what was on it before comes back, if there is still a terminal."""
    screen = Live(console=console, screen=True, auto_refresh=False)
    try:
        screen.start()
        yield screen
    finally:
        with unheard():
            screen.stop()


def _lines(board: Board, window: str, ends: float, check: Callable[[], None]) -> None:
    next_line = time.monotonic()
    while (left := ends - time.monotonic()) > 0:
        check()
        board.read()
        if time.monotonic() >= next_line:
            typer.echo(line(board.frame(window)))
            next_line += LINE_SECONDS
        time.sleep(min(FRAME_SECONDS, left))


def _chosen(windows: Sequence[str], window: str, key: str | None) -> str:
    place = windows.index(window)
    if key in ("left", "right"):
        return windows[(place + (1 if key == "right" else -1)) % len(windows)]
    if key is not None and key.isdecimal() and 1 <= int(key) <= len(windows):
        return windows[int(key) - 1]
    return window
