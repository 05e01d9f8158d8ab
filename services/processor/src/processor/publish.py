"""Where the answers go: ticks to Redis, rollups to their stream. Both are the dataflow's outputs."""

import time
from collections.abc import Sequence
from typing import Any

import redis
from bytewax.outputs import FixedPartitionedSink, StatefulSinkPartition

from processor.patience import TRY_SECONDS, Patience, PatientWriter
from processor.sales_metrics import SalesMetrics
from processor.telemetry import Telemetry
from sales import rollups
from sales.board import BoardWriter, Tick
from sales.rollups import Rollup


class ElsewhereSink(FixedPartitionedSink[Any, None]):
    """A sink that is not here: another process of the cluster has it, and what is to go there crosses to that one."""

    def list_parts(self) -> list[str]:
        """None here."""
        return []

    def build_part(self, step_id: str, for_part: str, resume_state: None) -> "StatefulSinkPartition[Any, None]":
        """Never called: see `list_parts`."""
        raise NotImplementedError(f"{step_id} has its {for_part} in the first process")


class BoardSink(FixedPartitionedSink[Tick, None]):
    """Ticks to the board."""

    def __init__(
        self, board: BoardWriter, patience: Patience, telemetry: Telemetry, sales_metrics: SalesMetrics
    ) -> None:
        """Takes over an open board.

        Args:
            board: has claimed its token.
            patience: with a Redis that went away.
            telemetry: is told how long each tick took.
            sales_metrics: are shown each tick.
        """
        self._partition = _BoardPartition(board, patience, telemetry, sales_metrics)

    def list_parts(self) -> list[str]:
        """One: a board has one writer."""
        return ["board"]

    def build_part(self, step_id: str, for_part: str, resume_state: None) -> "_BoardPartition":  # noqa: ARG002  # the engine's signature
        """The writer."""
        return self._partition


class _BoardPartition(StatefulSinkPartition[Tick, None]):
    def __init__(
        self, board: BoardWriter, patience: Patience, telemetry: Telemetry, sales_metrics: SalesMetrics
    ) -> None:
        self._board = board
        self._patience = patience
        self._telemetry = telemetry
        self._sales_metrics = sales_metrics

    def write_batch(self, values: list[Tick]) -> None:
        """Publishes the last of these moments, with all that changed up to it. Waits while Redis is away.

        Raises:
            FencedError: a newer processor publishes.
            redis.RedisError: Redis stayed away, or the processor is to stop meanwhile.
        """
        tick = _together(values)

        def publish() -> None:
            started, worked = time.monotonic(), time.process_time()
            self._board.publish(tick, time.monotonic_ns() // 1_000_000)
            self._telemetry.published(time.monotonic() - started, time.process_time() - worked)
            self._sales_metrics.show(tick)

        self._patience.outlast("Redis", redis.RedisError, publish)

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

    def __init__(self, writer: PatientWriter) -> None:
        self._partition = _RollupsPartition(writer)

    def list_parts(self) -> list[str]:
        """One: it takes a few records a minute."""
        return ["rollups"]

    def build_part(self, step_id: str, for_part: str, resume_state: None) -> "_RollupsPartition":  # noqa: ARG002  # the engine's signature
        """The writer."""
        return self._partition


class _RollupsPartition(StatefulSinkPartition[Rollup, None]):
    def __init__(self, writer: PatientWriter) -> None:
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
        self._writer.flush(TRY_SECONDS)

    def close(self) -> None:
        """Gives back the connection."""
        self._writer.close()
