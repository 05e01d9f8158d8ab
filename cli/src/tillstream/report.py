"""What ``verify`` found, for people and for machines."""

from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tillstream.compare import Check

SHOWN = 10
"""Differences printed of each check; --json has more of them."""

SHOWN_JSON = 1000


@dataclass(frozen=True, slots=True)
class Report:
    """What was compared, and how it came out."""

    as_of: str
    positions: dict[str, str]
    objects: int
    """Parquet objects read"""
    rows: int
    """order lines read"""
    seconds: float
    numbers: list[Check]
    """of live numbers"""
    stored: list[Check]
    """of what is stored: rows, objects, markers"""

    @property
    def checks(self) -> list[Check]:
        """All of them."""
        return [*self.numbers, *self.stored]

    @property
    def compared(self) -> int:
        """Live numbers compared; rows and objects are none."""
        return sum(check.compared for check in self.numbers)

    @property
    def different(self) -> int:
        """Differences, in live numbers and in what is stored."""
        return sum(len(check.differences) for check in self.checks)

    @property
    def equal(self) -> bool:
        """True if every number is what it should be (and there was one), and so is what is stored."""
        return self.compared > 0 and self.different == 0

    def as_json(self) -> dict[str, Any]:
        """For machines."""
        return {
            "equal": self.equal,
            "as_of": self.as_of,
            "positions": self.positions,
            "objects": self.objects,
            "rows": self.rows,
            "seconds": round(self.seconds, 3),
            "compared": self.compared,
            "different": self.different,
            "checks": [
                {
                    "window": check.window,
                    "what": check.what,
                    "compared": check.compared,
                    "different": len(check.differences),
                    "to_come": check.to_come,
                    "differences": [
                        {"place": d.place, "name": d.name, "expected": d.expected, "found": d.found}
                        for d in check.differences[:SHOWN_JSON]
                    ],
                }
                for check in self.checks
            ],
        }


def show(report: Report, console: Console) -> None:
    """The report for people: a table, then the first differences of each check."""
    table = Table(title=f"as of {report.as_of}", title_justify="left")
    for heading in ("window", "what"):
        table.add_column(heading)
    for heading in ("compared", "equal", "different"):
        table.add_column(heading, justify="right")
    for check in report.checks:
        different = len(check.differences)
        table.add_row(
            check.window or "all",
            check.what,
            f"{check.compared:,}",
            f"{check.compared - min(different, check.compared):,}",
            f"[bold red]{different:,}[/]" if different else "0",
        )
    console.print(table)
    for check in report.checks:
        if check.to_come:
            console.print(f"{escape(check.what)}: {check.to_come:,} are yet to come, and not compared", soft_wrap=True)
        if not check.differences:
            continue
        console.print(
            f"[bold red]{check.window or 'all'} {escape(check.what)}[/]: {len(check.differences):,} different"
        )
        for difference in check.differences[:SHOWN]:
            line = f"  {difference.place} {difference.name}: expected {difference.expected}, found {difference.found}"
            console.print(line, markup=False, highlight=False, soft_wrap=True)
        if len(check.differences) > SHOWN:
            console.print(f"  and {len(check.differences) - SHOWN:,} more")
    outcome = "[bold green]every number is equal[/]" if report.equal else "[bold red]not equal[/]"
    console.print(
        f"{outcome}: {report.compared:,} numbers from {report.rows:,} order lines in {report.objects:,} objects, "
        f"{report.seconds:.1f} s",
        soft_wrap=True,
    )
