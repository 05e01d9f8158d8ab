"""Does what is stored agree with its markers and with itself, and the status with what is stored?"""

import re
from collections.abc import Iterable, Mapping, Sequence

from sales.board import Keys, LiveNumbers
from sales.times import format_time
from tillstream.compare import Check, Difference
from tillstream.recompute import Counts, Facts, Fault
from tillstream.stored import Extents, Store, hour_folders


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


def strays(archive: Store, partitions: Sequence[Extents], span: tuple[int, int] | None) -> Check:
    """Objects among the orders that no marker names, though markers cover where they begin: a reader of the whole
    table would count them."""
    check = Check("", "objects without a marker")
    folders = archive.day_folders("orders") if span is None else hour_folders(*span)
    by_partition = {(extents.stream, extents.partition): extents for extents in partitions}
    marked = {item.key for extents in partitions for extent in extents.done for item in extent.objects}
    for folder in folders:
        for key, _ in archive.listing(folder):
            place = archive.place(key)
            extents = None if place is None else by_partition.get((place.stream, place.partition))
            if place is None:
                check.equal(key, "name", "<stream>+<partition>+<position>.parquet", key.rsplit("/", 1)[-1])
            elif extents is not None and extents.covers(place.first) and _begins_before(extents, place.first):
                check.equal(key, "marker", "named by one", "named by one" if key in marked else "named by none")
    return check


def _begins_before(extents: Extents, position: str) -> bool:
    """Does the known part of the extents reach back to this position?"""
    return extents.done[0].after is None or extents.done[0].after < position


def ledger(partitions: Iterable[Extents]) -> Check:
    """Of every extent: read = stored + rejected, and its objects hold what was stored."""
    check = Check("", "extents add up")
    for extents in partitions:
        for extent in extents.done:
            name = f"({extent.after or 'origin'}, {extent.end}]"
            check.equal(extents.path, f"{name} read", extent.stored + extent.rejected, extent.read)
            check.equal(extents.path, f"{name} stored", sum(item.orders for item in extent.objects), extent.stored)
            if extent.rejected_at is not None:
                inside = {at for at in extent.rejected_at if (extent.after or "") < at <= extent.end}
                check.equal(extents.path, f"{name} rejected", extent.rejected, len(inside))
                check.equal(extents.path, f"{name} rejected_at", sorted(inside), extent.rejected_at)
    return check


def refused(compared: Iterable[Fault]) -> list[Check]:
    """Has each message that was refused its dead letter, and no other?

    Args:
        compared: as `Facts.refused` gives them.
    """
    checks = {what: Check("", f"dead letters: {what}") for what in ("malformed", "conflict")}
    for fault in compared:
        checks[fault.what].equal(fault.place, fault.what, fault.expected, fault.found)
    return list(checks.values())


def status(
    live: LiveNumbers, keys: Keys, partitions: Sequence[Extents], counts: Counts, letters: Mapping[str, int]
) -> Check:
    """The counts in the status against what is stored since the streams began.

    Args:
        live: one tick.
        keys: its keys' names.
        partitions: the extents of the orders.
        counts: of the stored events.
        letters: archived dead letters of the tick's messages, by reason.
    """
    check = Check("", "status")
    numbers = {name: int(text) for name, text in live.status.items() if re.fullmatch(r"\d+", text)}
    latest = "" if counts.max_event_time is None else format_time(counts.max_event_time)
    check.equal(keys.status, "max_event_time", latest, live.status.get("max_event_time"))
    # The processor may forget identities that no window covers any more: a repetition of one is counted as accepted,
    # and what repeats it in turn is compared with it.
    old = counts.duplicates + counts.conflicts - counts.duplicates_lately - counts.conflicts_lately
    duplicates, conflicts = numbers.get("duplicates", 0), numbers.get("dead_letters:conflict", 0)
    expected_duplicates = min(max(duplicates, counts.duplicates_lately), counts.duplicates_lately + old)
    expected_conflicts = min(max(conflicts, counts.conflicts_lately), counts.conflicts_lately + old)
    check.equal(keys.status, "duplicates", expected_duplicates, duplicates)
    check.equal(keys.status, "dead_letters:conflict by their content", expected_conflicts, conflicts)
    accepted = counts.stored - expected_duplicates - expected_conflicts
    check.equal(keys.status, "accepted", accepted, numbers.get("accepted"))
    refused = {f"dead_letters:{reason}": count for reason, count in letters.items()}
    refused["dead_letters"] = sum(letters.values())
    check.match(keys.status, refused, {name: n for name, n in numbers.items() if name.startswith("dead_letters")})
    if all(extents.end == live.positions[extents.path] for extents in partitions):
        # Only then do the extents hold exactly the tick's messages; malformed ones have no rows to be told apart by.
        rejected = sum(extent.rejected for extents in partitions for extent in extents.done)
        found = numbers.get("dead_letters", 0) - conflicts
        check.equal(keys.status, "dead letters without conflicts", rejected, found)
    return check
