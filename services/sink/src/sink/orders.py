"""The orders table: a row for each line of each order. Pure, but for the seed of its hashes."""

import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from sales.columnar.decoding import Decoder, Secrets
from sales.rules import Rules
from sales.streams import format_position
from sales.streams.packed import Packed
from sales.windows import HOUR_MS
from sink import assembling
from sink.assembling import Assembly
from sink.holding import Held, hold, join
from sink.layouts import Piece, Rows
from sink.parquet import ROW_GROUP_ROWS
from sink.schemas import ORDERS, folder_of


@dataclass(frozen=True, slots=True, eq=False)
class OrdersTable:
    """A ``Layout`` in folders of hours. Amounts and quantities of returns are negative."""

    decoder: Decoder
    assembly: Assembly

    folder = "orders"
    version = 1
    schema = ORDERS
    repeating = (
        "type",
        "country",
        "region",
        "currency",
        "product_id",
        "product_name",
        "category",
        "stream",
        "partition",
    )
    ranged = ("event_time", "position", "accepted_at")

    def hold(self, run: Packed) -> Piece[Held]:
        """See ``Layout``."""
        decoded = self.decoder.decode([run])
        held = hold(decoded, self.decoder.dictionaries)
        self.decoder.bound()
        return Piece(held, [rejection.position for _, rejection in decoded.rejected], held.size())

    def objects(self, partition: str, pieces: Sequence[Held]) -> Iterator[Rows]:
        """See ``Layout``."""
        held = join(pieces)
        hours = held.event_times // HOUR_MS
        if len(held) and hours.min() != hours.max():
            order = np.argsort(hours, kind="stable")
            held, hours = held.take(order), hours[order]
        found, starts = np.unique(hours, return_index=True)
        for hour, first, behind in zip(
            found.tolist(), starts.tolist(), [*starts[1:].tolist(), len(held)], strict=False
        ):
            groups = assembling.row_groups(held.line_counts, first, behind, ROW_GROUP_ROWS)
            yield Rows(
                folder=folder_of(self.folder, hour, hourly=True),
                first_position=format_position(int(held.positions[first]), self.assembly.digits),
                orders=behind - first,
                rows=int(held.line_counts[first:behind].sum()),
                groups=(self.assembly.row_group(held, partition, *group) for group in groups),
            )


def orders_layout(rules: Rules, regions: Mapping[str, str], stream: str, digits: int) -> OrdersTable:
    """The table.

    Args:
        rules: what counts as an order.
        regions: each country's region.
        stream: the stream's id.
        digits: how many its positions are written with.
    """
    # A seed of this process alone: nothing that is stored hangs on a hash.
    decoder = Decoder(rules, Secrets.of(secrets.randbits(128)))
    return OrdersTable(decoder, Assembly(rules.currency, regions, stream, digits))
