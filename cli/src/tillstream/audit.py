"""Does what is stored agree with its markers and with itself, and the status with what is stored?"""

import re
from collections.abc import Iterable, Sequence

from sales.board import LiveNumbers
from tillstream.compare import Check, Difference
from tillstream.recompute import Counts, Facts, Fault
from tillstream.stored import Chain, Store, hour_folders


def stored(facts: Facts, unread: Sequence[Fault]) -> Check:
    """Does what is stored agree with its markers and with itself?

    Args:
        facts: what was loaded.
        unread: what of it could not be.
    """
    objects, rows = facts.size()
    faults = [*unread, *facts.faults()]
    return Check(
        "",
        "stored orders",
        compared=objects + rows + len(unread),
        differences=[Difference(fault.place, fault.what, fault.expected, fault.found) for fault in faults],
    )


def strays(archive: Store, chains: Sequence[Chain], span: tuple[int, int] | None) -> Check:
    """Objects among the orders that no marker names, though markers cover where they begin: a reader of the whole
    table would count them."""
    check = Check("", "objects without a marker")
    folders = (
        archive.dates("orders")
        if span is None
        else [f"orders/dt={date}/hour={hour:02d}/" for date, hour in hour_folders(*span)]
    )
    by_partition = {(chain.stream, chain.partition): chain for chain in chains}
    marked = {item.key for chain in chains for extent in chain.extents for item in extent.objects}
    for folder in folders:
        for key, _ in archive.listing(folder):
            place = archive.place(key)
            chain = None if place is None else by_partition.get((place.stream, place.partition))
            if place is None:
                check.equal(key, "name", "<stream>+<partition>+<position>.parquet", key.rsplit("/", 1)[-1])
            elif chain is not None and chain.covers(place.first) and _begins_before(chain, place.first):
                check.equal(key, "marker", "named by one", "named by one" if key in marked else "named by none")
    return check


def _begins_before(chain: Chain, position: str) -> bool:
    """Does the known part of the chain reach back to this position?"""
    return chain.extents[0].after is None or chain.extents[0].after < position


def ledger(chains: Iterable[Chain]) -> Check:
    """Of every extent: read = stored + rejected, and its objects hold what was stored."""
    check = Check("", "extents add up")
    for chain in chains:
        for extent in chain.extents:
            name = f"({extent.after or 'origin'}, {extent.end}]"
            check.equal(chain.path, f"{name} read", extent.stored + extent.rejected, extent.read)
            check.equal(chain.path, f"{name} stored", sum(item.orders for item in extent.objects), extent.stored)
    return check


def status(live: LiveNumbers, chains: Sequence[Chain], counts: Counts) -> Check:
    """The counts in the status against what is stored since the streams began."""
    check = Check("", "status counts")
    numbers = {name: int(text) for name, text in live.status.items() if re.fullmatch(r"\d+", text)}
    accepted, conflicts = numbers.get("accepted", 0), numbers.get("dead_letters:conflict", 0)
    repeated = numbers.get("duplicates", 0) + conflicts
    check.equal("status", "accepted + duplicates + conflicts", counts.stored, accepted + repeated)
    # The processor may forget identities older than the longest window: a repetition of one changes no window, and is
    # counted as accepted.
    forgotten = min(max(counts.repeated - repeated, 0), counts.repeated - counts.repeated_lately)
    check.equal("status", "accepted", counts.accepted + forgotten, accepted)
    check.equal("status", "duplicates + conflicts", counts.repeated - forgotten, repeated)
    if all(chain.end == live.positions[chain.path] for chain in chains):
        # Only then do the extents hold exactly the tick's messages; malformed ones have no rows to be told apart by.
        rejected = sum(extent.rejected for chain in chains for extent in chain.extents)
        check.equal("status", "dead letters without conflicts", rejected, numbers.get("dead_letters", 0) - conflicts)
    return check
