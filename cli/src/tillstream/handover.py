"""Which of the stored orders a rebuilt state takes from S3, and where the stream goes on.

One partition, its extents as S3 has them and its records as the stream still has them::

    S3      origin──▶|────▶|────▶|────▶|────▶|────▶|────▶|────▶|
    stream                         ┊ oldest ────────────────────────────── end
                                         ^ the state ends here

The state has to end where the stream can go on, so behind its oldest record, and that only gets younger. But what
comes after it a processor sees again, and it alone writes dead letters: those that the lost one still owed are written
if it died after that place. So of the extents that both have, the first quarter is taken from S3 and the rest is left
to the stream.
"""

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from processor.rebuilding import RebuildError
from sales.streams import NO_TIPS, AwayError, PositionLostError, Readable
from sink.extents import Done
from tillstream.stored import Extents, Store

SPARED = 4
"""One in so many of the extents that both have is taken from S3: what is read again, and the time that is left before
the stream loses its place, are three quarters and one quarter of what it keeps."""

ANSWER_SECONDS = 30.0
"""How long a partition's first record is waited for; that there is none is told sooner."""

READERS = 8
"""Partitions that are asked at one time."""


@dataclass(frozen=True, slots=True)
class Handover:
    """One partition."""

    taken: Sequence[Done]
    """from its origin on; none: the stream still has all orders of the partition"""
    resumes: bool
    """the stream has the partition; without, it was split or merged, and all of it has expired there"""
    tip_ms: int | None
    """a time, ms since 1970, when the stream had no record behind what is taken; None: not known"""

    @property
    def end(self) -> int | None:
        """The last position that is taken."""
        return int(self.taken[-1].end) if self.taken else None


def hand_over(store: Store, orders: Readable) -> dict[str, Handover]:
    """Decides for each partition, and asks the stream whether it can go on there.

    Args:
        store: holds the extents.
        orders: the stream; each partition is read to its first record.

    Raises:
        RebuildError: records are neither in S3 nor in the stream, or can't be shown to be.
        StreamError: the stream does not answer.
        StoredError, botocore.exceptions.BotoCoreError, ClientError: as `Store` raises them.
    """
    listed = orders.partitions()
    names = [*listed, *sorted(set(store.chains(orders.id)) - set(listed))]
    chains = {name: Extents(orders.id, name) for name in names}
    for chain in chains.values():
        store.extend(chain)

    def decide(name: str) -> Handover:
        done = chains[name].done
        if name not in listed:
            return Handover(done, resumes=False, tip_ms=None)
        now_ms = time.time_ns() // 1_000_000
        oldest = _first(orders, name, None)
        if oldest is not None:
            return Handover(taken(done, oldest), resumes=True, tip_ms=None)
        return Handover(done, resumes=True, tip_ms=now_ms)

    with ThreadPoolExecutor(READERS) as pool:
        handovers = dict(zip(names, pool.map(decide, names), strict=True))
        resuming = [name for name in listed if handovers[name].taken]
        list(pool.map(lambda name: _prove(orders, name, handovers[name]), resuming))
    return handovers


def taken(done: Sequence[Done], oldest: int) -> Sequence[Done]:
    """The extents to take, of those that are stored, where the stream's oldest record is at position ``oldest``."""
    first = next((min(_first_position(item.key) for item in each.objects) for each in done if each.objects), None)
    if first is not None and oldest <= first:
        return ()
    common = sum(1 for each in done if int(each.end) >= oldest)
    return done[: len(done) - common + common // SPARED + 1]


def _first_position(key: str) -> int:
    place = Store.place(key)
    if place is None:
        raise RebuildError(f"a marker names {key!r}, which is no object of orders")
    return int(place.first)


def _prove(orders: Readable, name: str, handover: Handover) -> None:
    tips = NO_TIPS if handover.tip_ms is None else {name: handover.tip_ms}
    try:
        _first(orders, name, handover.end, tips)
    except PositionLostError as error:
        raise RebuildError(
            f"S3 holds {orders.id}/{name} up to position {handover.end}, and the stream can't be shown to hold all "
            f"that follows ({error}); if the sink is behind, let it store what the stream has, and try again"
        ) from error


def _first(orders: Readable, name: str, after: int | None, tips: Mapping[str, int] = NO_TIPS) -> int | None:
    """Position of a partition's first record behind ``after``; None: there is none now."""
    deadline = time.monotonic() + ANSWER_SECONDS
    reader = orders.packed_reader({name: after}, tips)
    try:
        while time.monotonic() < deadline:
            for run in reader.poll(1, 0.5):
                return int(run.positions[0])
            if reader.lag().get(name) == 0:
                return None
    finally:
        reader.close()
    raise AwayError(f"the first record of {orders.id}/{name} did not come in {ANSWER_SECONDS:g} s")
