"""Commands that read everything end with one line and an exit code, whatever comes."""

import signal
from collections.abc import Callable

import duckdb
import pytest
import redis
import typer

from sales.board import BoardError
from sales.streams import StreamError
from tillstream.reading import reading
from tillstream.stored import NotCoveredError, StoredError


def raising(error: Exception) -> Callable[[], None]:
    def raise_() -> None:
        raise error

    return raise_


@pytest.mark.parametrize(
    ("work", "code", "line"),
    [
        (lambda: signal.raise_signal(signal.SIGINT), 130, "stopped by SIGINT"),
        (lambda: signal.raise_signal(signal.SIGTERM), 143, "stopped by SIGTERM"),
        (raising(NotCoveredError("not yet")), 3, "not yet"),
        (raising(redis.ConnectionError("away")), 3, "away"),
        (raising(StreamError("[away]")), 3, "[away]"),
        (raising(StoredError("no marker")), 4, "no marker"),
        (raising(BoardError("no number")), 4, "no number"),
        (raising(duckdb.OutOfMemoryException("no memory")), 4, "no memory"),
        (raising(OSError("disk full")), 4, "disk full"),
    ],
)
def test_each_end_is_one_line_and_a_code(
    capsys: pytest.CaptureFixture[str], work: Callable[[], None], code: int, line: str
) -> None:
    with pytest.raises(typer.Exit) as ended, reading("verify"):
        work()
    assert ended.value.exit_code == code
    assert capsys.readouterr().err == f"verify: {line}\n"
