"""Where the answers go: ticks to Redis, rollups to their stream. Both are the dataflow's outputs."""

import logging
import time
from collections.abc import Callable, Sequence

import redis
from bytewax.outputs import FixedPartitionedSink, StatefulSinkPartition

from sales import rollups
from sales.board import BoardWriter, Tick
from sales.rollups import Rollup
from sales.streams import Writer

log = logging.getLogger(__name__)

FLUSH_SECONDS = 60.0
"""How long a snapshot waits for rollups to be acknowledged."""

FIRST_PAUSE_SECONDS = 0.05
LONGEST_PAUSE_SECONDS = 2.0
"""Pauses between tries while Redis is away: doubling from the first to the longest."""


class BoardSink(FixedPartitionedSink[Tick, None]):
    """Ticks to the board."""

    def __init__(self, board: BoardWriter, away_seconds: float, wait: Callable[[float], bool]) -> None:
        """Takes over an open board.

        Args:
            board: has claimed its token.
            away_seconds: how long to wait for a Redis that went away.
            wait: pauses for some seconds; True when the processor is asked to stop.
        """
        self._partition = _BoardPartition(board, away_seconds, wait)

    def list_parts(self) -> list[str]:
        """One: a board has one writer."""
        return ["board"]

    def build_part(self, step_id: str, for_part: str, resume_state: None) -> "_BoardPartition":  # noqa: ARG002  # the engine's signature
        """The writer."""
        return self._partition


class _BoardPartition(StatefulSinkPartition[Tick, None]):
    def __init__(self, board: BoardWriter, away_seconds: float, wait: Callable[[float], bool]) -> None:
        self._board = board
        self._away_seconds = away_seconds
        self._wait = wait

    def write_batch(self, values: list[Tick]) -> None:
        """Publishes the last of these moments, with all that changed up to it. Waits while Redis is away.

        Raises:
            FencedError: a newer processor publishes.
            redis.RedisError: Redis stayed away, or the processor is to stop meanwhile.
        """
        tick = _together(values)
        give_up = time.monotonic() + self._away_seconds
        pause = FIRST_PAUSE_SECONDS
        while True:
            try:
                self._board.publish(tick, time.monotonic_ns() // 1_000_000)
            except redis.RedisError as error:
                if time.monotonic() + pause > give_up:
                    raise
                if pause == FIRST_PAUSE_SECONDS:
                    log.warning("Redis does not take the numbers (%s); trying for %.0f s", error, self._away_seconds)
                if self._wait(pause):
                    raise
                pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
            else:
                if pause != FIRST_PAUSE_SECONDS:
                    log.info("Redis takes the numbers again")
                return

    def snapshot(self) -> None:
        """Nothing to keep: after a restart everything is published again."""


def _together(ticks: Sequence[Tick]) -> Tick:
    tick = ticks[0]
    for later in ticks[1:]:
        tick.as_of = later.as_of
        tick.zsets |= later.zsets
        tick.hashes |= later.hashes
        for key, patch in later.patches.items():
            tick.patches.setdefault(key, {}).update(patch)
    return tick


class RollupsSink(FixedPartitionedSink[Rollup, None]):
    """Rollups to their stream."""

    def __init__(self, writer: Writer) -> None:
        self._partition = _RollupsPartition(writer)

    def list_parts(self) -> list[str]:
        """One: it takes a few records a minute."""
        return ["rollups"]

    def build_part(self, step_id: str, for_part: str, resume_state: None) -> "_RollupsPartition":  # noqa: ARG002  # the engine's signature
        """The writer."""
        return self._partition


class _RollupsPartition(StatefulSinkPartition[Rollup, None]):
    def __init__(self, writer: Writer) -> None:
        self._writer = writer

    def write_batch(self, values: list[Rollup]) -> None:
        """Queues records.

        Raises:
            StreamError: the stream does not take them.
        """
        keys, records = zip(*map(rollups.encode, values), strict=True)
        self._writer.write(keys, records)

    def snapshot(self) -> None:
        """Before an epoch ends, its records are acknowledged."""
        self._writer.flush(FLUSH_SECONDS)

    def close(self) -> None:
        """Gives back the connection."""
        self._writer.close()
