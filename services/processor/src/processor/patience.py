"""Going on while a far side is away: what the processor publishes waits AWAY_SECONDS for it."""

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sales.events import Log
from sales.streams import Stream, StreamError, Writer
from sales.streams.closing import Closing
from sales.streams.reaching import backoff

log = Log(__name__)

FIRST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 2.0
"""Pauses between tries while something is away: doubling from the first to the longest."""

HELD_BYTES = 32_000_000
"""Kept to be written again; more is not taken before this much is acknowledged."""

TRY_SECONDS = 10.0
"""How long one try waits for acknowledgements where the caller says nothing else."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long something that went away is waited for."""

    seconds: float
    wait: Callable[[float], bool]
    """pauses for some seconds; True when the processor is asked to stop"""

    def outlast(self, what: str, faults: type[Exception], attempt: Callable[[], None]) -> None:
        """Tries until it succeeds; blocks meanwhile.

        Args:
            what: the far side's name for people.
            faults: what may mend itself; anything else passes through at once.
            attempt: one bounded try; may be repeated.

        Raises:
            Exception: the last of ``faults``, when no time is left or the processor is to stop.
        """
        give_up = time.monotonic() + self.seconds
        tries = 0
        while True:
            try:
                attempt()
            except faults as error:
                pause = backoff(tries, FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS)
                if not tries:
                    log.warning(
                        "output_away",
                        "{what} takes nothing ({error}); trying for {patience_seconds:.0f} s",
                        what=what,
                        error=error,
                        patience_seconds=self.seconds,
                    )
                if time.monotonic() + pause > give_up or self.wait(pause):
                    raise
                tries += 1
            else:
                if tries:
                    log.info("output_back", "{what} takes records again", what=what)
                return


class PatientWriter(Closing):
    """A writer for records that may be written twice: it outlasts a stream that goes away.

    Every wire's own writer refuses a record for good after a minute or two, and all that follow it. This one keeps what
    is not acknowledged and writes it again, in order, with a new writer. One thread at a time.
    """

    def __init__(self, stream: Stream, patience: Patience) -> None:
        """Opens a first writer.

        Raises:
            StreamError: it can't be opened.
        """
        self._stream = stream
        self._patience = patience
        self._writer: Writer | None = stream.writer()
        self._keys: list[bytes] = []
        self._values: list[bytes] = []
        self._held = 0
        """bytes of what is not known to be acknowledged"""

    def write(self, keys: Sequence[bytes], values: Sequence[bytes]) -> None:
        """Queues records; a fault shows at the next ``flush``.

        Raises:
            StreamError: too much waits, and the stream stayed away.
        """
        self._keys += keys
        self._values += values
        self._held += sum(map(len, keys)) + sum(map(len, values))
        if self._writer is not None:
            try:
                self._writer.write(keys, values)
            except StreamError:
                self._drop()
        if self._held > HELD_BYTES:
            self.flush(TRY_SECONDS)

    def flush(self, timeout: float) -> None:
        """Blocks until everything written so far is acknowledged, as long as the patience lasts.

        Args:
            timeout: of one try, seconds.

        Raises:
            StreamError: the stream stayed away, or the processor is to stop meanwhile.
        """
        self._patience.outlast(self._stream.id, StreamError, lambda: self._try(timeout))
        self._keys, self._values, self._held = [], [], 0

    def unacknowledged(self) -> int:
        """What is kept to be written again."""
        return len(self._keys)

    def close(self) -> None:
        """Gives the connection back. What is not acknowledged is a line on the log and no error: no snapshot holds it,
        so the next start writes it again; and the engine aborts the process for an error while it ends on another."""
        if self._keys:
            log.warning(
                "records_left_behind",
                "{records} records may not be in {stream}; the next start writes them",
                records=len(self._keys),
                stream=self._stream.id,
            )
        self._drop()

    def _try(self, timeout: float) -> None:
        try:
            if self._writer is None:
                self._writer = self._stream.writer()
                self._writer.write(self._keys, self._values)
            self._writer.flush(timeout)
        except StreamError:
            self._drop()
            raise

    def _drop(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            with contextlib.suppress(StreamError):
                writer.close()
