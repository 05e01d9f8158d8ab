"""A process's share of the slots, where several processes run the dataflow together, and a pace that they keep.

No process may go on to an epoch before all have ended the one before, and the engine lets each end its epoch a fixed
time after it began it, even if it was kept waiting for most of that. So processes drift apart by what their calls
overshoot, until the faster one, which waits for the other at every epoch, gets a single call in each. Here all end
their epochs at the same beats of the machine's clock, one every SNAPSHOT_MS. For this the engine is told a slightly
shorter time, and in the gap that is left before a beat the slots are not called, for a call there would end the epoch:

    beat                    beat                    beat
      |─ call ─ call ─ call ···|─ call ─ call ─ call ···|
"""

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from math import ceil

from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition

from processor.cluster import Seat
from processor.crossing import Crossed, Departures
from processor.panes import Partial
from processor.source import SlotState

GAP = 1 / 16
"""Of the time between two beats: what a process may overshoot one and still meet the next."""


def epoch_seconds(beat_seconds: float, seat: Seat) -> float:
    """How long the engine is told that an epoch lasts, so that it lasts from beat to beat."""
    return beat_seconds * (1 - GAP) if seat.processes > 1 else beat_seconds


class Pace:
    """Tells the slots of one process when to work. They call it from the engine's thread."""

    def __init__(self, beat_seconds: float, slots: Sequence[str], now: Callable[[], float] = time.monotonic) -> None:
        """Begins an epoch.

        Args:
            beat_seconds: from one beat to the next.
            slots: this process's; the engine calls those that are due one after the other, in the order of their names.
            now: seconds of a clock that all processes share.
        """
        self._epoch = beat_seconds * (1 - GAP)
        self._beat = beat_seconds
        self._places = {slot: place for place, slot in enumerate(sorted(slots))}
        self._now = now
        self._last = len(slots)
        self._round = self._began = now()
        """when the engine's turn began, and the turn that ended the last epoch"""
        self._ended = True
        self._lasts = 0.0
        """one turn"""
        self._rest_until: float | None = None
        self._left_out = False
        """is a beat being left out?"""

    def called(self, slot: str) -> float:
        """To be told when the engine calls a slot; until when the slot may take one batch after the other."""
        now = self._now()
        place = self._places[slot]
        if place <= self._last:
            self._turn(now)
        self._last = place
        if self._rest_until is None or self._rest_until - now > self._beat:
            return now
        return now + (self._rest_until - now) / (len(self._places) - place)

    def rest_until(self) -> float | None:
        """When slots are to be called again; None: as they like."""
        return self._rest_until

    def ended(self) -> None:
        """To be told when a slot's epoch has ended: for all of the process it is the same moment."""
        self._ended = True

    def _turn(self, now: float) -> None:
        first = self._ended
        if first:
            self._began, self._ended = self._round, False
        elif self._rest_until is None:
            self._lasts = now - self._round
        self._round = now
        due = self._began + self._epoch
        beat = round(due / self._beat) * self._beat
        if now < due:
            last = now + self._lasts >= due
            self._rest_until = beat if last and beat > due else None
        elif first and not self._left_out:
            # The epoch ends with its first call: the others began it a whole beat earlier. One beat left out, and this
            # process is with them again, when the next epoch ends with its first call too.
            self._left_out = True
            self._rest_until = (ceil(now / self._beat) + 1) * self._beat
        else:
            self._left_out = False
            self._rest_until = None


class SharedSource(FixedPartitionedSource[Partial | Crossed, SlotState]):
    """One process's slots of a source: every n-th of them. The engine takes each slot's state to where it is listed."""

    def __init__(self, whole: FixedPartitionedSource[Partial, SlotState], seat: Seat, beat_seconds: float) -> None:
        """Builds nothing yet.

        Args:
            whole: all slots.
            seat: whose share this is.
            beat_seconds: how long an epoch lasts.
        """
        self._whole = whole
        self._slots = whole.list_parts()[seat.index :: seat.processes]
        self._pace = Pace(beat_seconds, self._slots)
        self._departures = Departures(seat.index) if seat.index else None
        """None in the first process, where the numbers are"""

    def list_parts(self) -> list[str]:
        """This process's."""
        return self._slots

    def build_part(self, step_id: str, for_part: str, resume_state: SlotState | None) -> "PacedSlot":
        """As the whole source builds it, at this process's pace."""
        return PacedSlot(
            for_part, self._whole.build_part(step_id, for_part, resume_state), self._pace, self._departures
        )


class PacedSlot(StatefulSourcePartition[Partial | Crossed, SlotState]):
    """A slot that keeps the pace, and sends its sums on their way where they have to cross."""

    def __init__(
        self,
        name: str,
        slot: StatefulSourcePartition[Partial, SlotState],
        pace: Pace,
        departures: Departures | None,
    ) -> None:
        self._name = name
        self._slot = slot
        self._pace = pace
        self._departures = departures

    def next_batch(self) -> Sequence[Partial | Crossed]:
        """As the slot's; in the last call before a beat, as many as there is time for."""
        until = self._pace.called(self._name)
        partials = list(self._slot.next_batch())
        more = partials
        while more and time.monotonic() < until:
            try:
                more = list(self._slot.next_batch())
            except StopIteration:  # it says so again when it is called again
                break
            partials += more
        return partials if self._departures is None else [self._departures.crossed(partial) for partial in partials]

    def next_awake(self) -> datetime | None:
        """As the slot's, but not in the gap before a beat."""
        rest = self._pace.rest_until()
        if rest is None:
            return self._slot.next_awake()
        return datetime.now(UTC) + timedelta(seconds=rest - time.monotonic())

    def snapshot(self) -> SlotState:
        """The slot's."""
        self._pace.ended()
        return self._slot.snapshot()

    def close(self) -> None:
        """Closes the slot."""
        self._slot.close()
