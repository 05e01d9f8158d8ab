"""Sends the messages of dead letters again, and keeps in mind which."""

from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime

import msgspec

from sales.rules import Rules
from sales.streams import Writer
from sink.store import S3Store
from tillstream.letters import REPLAYED
from tillstream.mending import Change, Mended, Refused, Unmended, mend

AT_ONCE = 500
"""Messages between two acknowledgements: so many may be sent twice after a crash, and then count once."""

ACKNOWLEDGE_SECONDS = 60.0
MARK_THREADS = 8


@dataclass(slots=True)
class Outcome:
    """What became of the letters that were meant."""

    sent: int = 0
    before: int = 0
    """were sent by an earlier replay"""
    unmended: list[tuple[str, Unmended]] = field(default_factory=list)
    """names of the others, and why not"""


class _Mark(msgspec.Struct, frozen=True):
    """The object that says that a letter was sent again."""

    order_id: str
    sent_at: str


class Replaying:
    """Mends, sends, waits for the acknowledgement, marks; so a crash anywhere sends a message twice at most, and twice
    is once: the processor finds the same identity with the same content.

    Args:
        rules: what the processor accepts.
        changes: to each message.
        known: names of the letters that were sent before, and are left out.
        writer: of the orders stream; None: nothing is sent or marked.
        store: takes the marks.
        clock: ms since 1970.
    """

    def __init__(
        self,
        rules: Rules,
        changes: Sequence[Change],
        *,
        known: Collection[str],
        writer: Writer | None,
        store: S3Store,
        clock: Callable[[], int],
    ) -> None:
        self._rules = rules
        self._changes = changes
        self._known = known
        self._writer = writer
        self._store = store
        self._clock = clock

    def run(self, letters: Iterable[tuple[str, Refused]], progress: Callable[[int], None]) -> Outcome:
        """Blocks until every letter is sent, or found unfit.

        Args:
            letters: names and messages.
            progress: told how many were looked at.

        Raises:
            StreamError, StoreError: not sent, or not marked; what was sent before stays so, and may be sent again.
            PatchError: a change failed.
        """
        outcome = Outcome()
        batch: list[tuple[str, Mended]] = []
        for number, (name, refused) in enumerate(letters, start=1):
            if name in self._known:
                outcome.before += 1
                continue
            match mend(self._rules, refused, self._changes, self._clock()):
                case Mended() as mended:
                    batch.append((name, mended))
                case unmended:
                    outcome.unmended.append((name, unmended))
            if len(batch) == AT_ONCE:
                outcome.sent += self._send(batch)
                batch = []
            progress(number)
        outcome.sent += self._send(batch)
        return outcome

    def _send(self, batch: list[tuple[str, Mended]]) -> int:
        if batch and self._writer is not None:
            self._writer.write([mended.key for _, mended in batch], [mended.value for _, mended in batch])
            self._writer.flush(ACKNOWLEDGE_SECONDS)
            with ThreadPoolExecutor(MARK_THREADS) as threads:
                list(threads.map(self._mark, batch))
        return len(batch)

    def _mark(self, sent: tuple[str, Mended]) -> None:
        name, mended = sent
        mark = _Mark(mended.key.decode(), f"{datetime.fromtimestamp(self._clock() / 1000, UTC):%Y-%m-%dT%H:%M:%SZ}")
        self._store.create(REPLAYED + name, msgspec.json.encode(mark))
