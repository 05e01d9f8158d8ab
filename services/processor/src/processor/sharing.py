"""A process's share of the slots, where several processes run the dataflow together."""

from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition

from processor.cluster import Seat
from processor.panes import Partial
from processor.source import SlotState


class SharedSource(FixedPartitionedSource[Partial, SlotState]):
    """Every so-manieth slot of a source. The engine takes each slot's state to the process that lists it."""

    def __init__(self, whole: FixedPartitionedSource[Partial, SlotState], seat: Seat) -> None:
        self._whole = whole
        self._seat = seat

    def list_parts(self) -> list[str]:
        """This process's."""
        return self._whole.list_parts()[self._seat.index :: self._seat.processes]

    def build_part(
        self, step_id: str, for_part: str, resume_state: SlotState | None
    ) -> StatefulSourcePartition[Partial, SlotState]:
        """As the whole source builds it."""
        return self._whole.build_part(step_id, for_part, resume_state)
