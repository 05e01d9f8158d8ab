"""How the live numbers look: one frame for a terminal, one line without. Pure; sizes are characters."""

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from rich.console import Group, RenderableType
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from sales.board import GROUPS, MEASURES, PRODUCT_MEASURES, LiveNumbers, WindowNumbers
from sales.money import average_minor, to_decimal
from sales.times import INVALID_TIME, parse_time

RATE_MS = 3_000
"""The rate shown is the mean over this long: steady to read, quick to fall when something stops."""
HISTORY = 60
"""Rates kept for the little curve, one a second."""
STALE_MS = 3_000
"""Ticks come ten times a second; numbers older than this are marked."""


@dataclass(frozen=True, slots=True)
class Glyphs:
    """What the drawings are made of."""

    curve: str
    """from low to high"""
    bar: str
    """parts of one cell, from none to all of it"""
    arrows: str
    rule: str


BLOCKS = Glyphs(curve="▁▂▃▄▅▆▇█", bar=" ▏▎▍▌▋▊▉█", arrows="← →", rule="─")
ASCII = Glyphs(curve="_.-=*#", bar=" #", arrows="left right", rule="-")
"""For terminals that can't show others."""

_COUNTS = {
    "accepted": "accepted",
    "duplicates": "duplicates",
    "late": "late",
    "dead_letters": "dead letters",
    "dead_letters:conflict": "conflicts",
}
"""Of the status: what each is called here; conflicts are some of the dead letters."""

_HIGH, _TALL, _WIDE = 30, 34, 110
"""From this height on there is air between the parts, from the next the table of all windows, from this width on three
columns of bars."""


@dataclass(slots=True)
class Rate:
    """Accepted events a second, from the counts of successive ticks."""

    seen: deque[tuple[int, int]] = field(default_factory=deque)
    """(published at in ms, accepted)"""
    curve: deque[float] = field(default_factory=lambda: deque(maxlen=HISTORY))
    curve_at: int = 0

    def add(self, numbers: LiveNumbers) -> None:
        """Hears of one tick; the same twice is once."""
        at, accepted = parse_time(numbers.status.get("published_at", "")), int(numbers.status.get("accepted", "0"))
        if at == INVALID_TIME or (self.seen and at <= self.seen[-1][0]):
            return
        if self.seen and accepted < self.seen[-1][1]:  # a processor that began anew
            self.seen.clear()
        self.seen.append((at, accepted))
        while len(self.seen) > 2 and at - self.seen[0][0] > RATE_MS:
            self.seen.popleft()
        if at - self.curve_at >= 1_000:
            self.curve.append(self.per_second)
            self.curve_at = at

    @property
    def per_second(self) -> float:
        """0 as long as there are not two ticks."""
        if len(self.seen) < 2:
            return 0.0
        (first, before), (last, after) = self.seen[0], self.seen[-1]
        return (after - before) * 1000 / (last - first)


@dataclass(frozen=True, slots=True)
class Frame:
    """All that one frame shows."""

    numbers: LiveNumbers
    window: str
    """the chosen one"""
    rate: Rate
    now_ms: int
    notes: tuple[str, ...] = ()
    """lines at the foot: commands to try; as many as there is room for"""
    away: str = ""
    """what can't be reached at the moment"""
    glyphs: Glyphs = BLOCKS

    @property
    def currency(self) -> str:
        """ISO code; empty before the first tick."""
        return self.numbers.windows[self.window].aov.get("currency", "")

    @property
    def age_ms(self) -> int | None:
        """How old the tick is; None before the first."""
        at = parse_time(self.numbers.status.get("published_at", ""))
        return None if at == INVALID_TIME else max(0, self.now_ms - at)


def nothing_yet(windows: Iterable[str]) -> LiveNumbers:
    """The numbers before the first tick."""
    groups: dict[str, dict[str, dict[str, int]]] = {group: {measure: {} for measure in MEASURES} for group in GROUPS}
    products: dict[str, list[tuple[str, int]]] = {measure: [] for measure in PRODUCT_MEASURES}
    empty = WindowNumbers(products=products, groups=groups, aov={})
    return LiveNumbers(status={}, positions={}, names={}, windows=dict.fromkeys(windows, empty), trends={})


def render(frame: Frame, width: int, height: int) -> RenderableType:
    """A frame of exactly ``height`` lines or fewer, made for at least 70 columns and 20 lines."""
    tall = height >= _TALL
    air: list[RenderableType] = [Text()] if height >= _HIGH else []
    notes = [Text(f" {note}", style="dim", no_wrap=True, overflow="ellipsis") for note in frame.notes]
    notes = notes if tall else notes[:1]
    windows: list[RenderableType] = [*air, _all_windows(frame)] if tall else []
    used = 8 + len(notes) + 2 * len(air) + (len(air) + 1 + len(frame.numbers.windows) if tall else 0)
    rows = max(height - used - 2, 4)  # but for the headings of the two tables
    bars = max(rows * 2 // 5, 2)
    return Group(
        _title(frame, width),
        _freshness(frame, width),
        Rule(characters=frame.glyphs.rule, style="dim"),
        _totals(frame),
        *windows,
        *air,
        _products(frame, rows - bars, width),
        *air,
        _bars(frame, bars, width),
        Rule(characters=frame.glyphs.rule, style="dim"),
        _counts(frame),
        *notes,
        Text(f" 1-9 or {frame.glyphs.arrows} window   q quit", style="dim"),
    )


def line(frame: Frame) -> str:
    """The same in one line, for logs."""
    window, status = frame.numbers.windows[frame.window], frame.numbers.status
    aov = window.aov
    if not status:
        return frame.away or "no numbers yet"
    best = window.products["revenue"][:1]
    parts = [
        f"{status.get('as_of', '')[11:19]} {frame.window}:",
        f"{int(aov.get('orders', 0)):,} orders,",
        f"revenue {_money(int(aov.get('revenue_minor', 0)), frame.currency)} {frame.currency},",
        f"AOV {_aov(frame)};",
        f"{frame.rate.per_second:,.0f} events/s,",
        f"{_age(frame.age_ms)} old, lag {_lag(status)};",
        f"accepted {int(status.get('accepted', 0)):,}, dead letters {int(status.get('dead_letters', 0)):,};",
    ]
    if best:
        parts.append(f"best {frame.numbers.names.get(best[0][0], best[0][0])}")
    if frame.away:
        parts.append(f"({frame.away})")
    return " ".join(parts)


def _lag(status: Mapping[str, str]) -> str:
    """Messages not yet read; a question mark where the wire doesn't count them."""
    lag = status.get("lag", "")
    return f"{int(lag):,}" if lag else "?"


def _title(frame: Frame, width: int) -> Text:
    left = Text(" Tillstream", style="bold cyan")
    left.append("  live sales", style="default not bold")
    right = Text()
    for name in frame.numbers.windows:
        right.append(f" {name} ", style="bold black on cyan" if name == frame.window else "dim")
    return _ends(left, right, width)


def _freshness(frame: Frame, width: int) -> Text:
    if frame.away:
        return Text(f" {frame.away}", style="bold red", no_wrap=True, overflow="ellipsis")
    status, age = frame.numbers.status, frame.age_ms
    if age is None:
        return Text(" no numbers yet", style="yellow")
    left = Text(f" {frame.rate.per_second:,.0f}", style="bold").append(" events/s ", style="not bold")
    left.append(_curve(list(frame.rate.curve)[-max(width - 64, 8) :], frame.glyphs.curve), style="green")
    right = Text(f"as of {status.get('as_of', '')[:19].replace('T', ' ')} UTC, ")
    right.append(f"{_age(age)} old", style="red" if age > STALE_MS else "green")
    right.append(f", lag {_lag(status)} ")
    return _ends(left, right, width)


def _totals(frame: Frame) -> Table:
    aov = frame.numbers.windows[frame.window].aov
    cells = {
        "orders": f"{int(aov.get('orders', 0)):,}",
        f"revenue {frame.currency}": _money(int(aov.get("revenue_minor", 0)), frame.currency),
        "average order": _aov(frame),
        "units": f"{int(aov.get('units', 0)):,}",
        "returns": f"{int(aov.get('returns', 0)):,}",
        "refunded": _money(int(aov.get("refunded_minor", 0)), frame.currency),
    }
    table = Table.grid(expand=True, padding=(0, 1))
    for _ in cells:
        table.add_column(justify="center", no_wrap=True)
    table.add_row(*(Text(value, style="bold") for value in cells.values()))
    table.add_row(*(Text(label, style="dim") for label in cells))
    return table


def _all_windows(frame: Frame) -> Table:
    table = _table()
    for name in ("window", "orders", "revenue", "average order", "units", "returns", "from (UTC)"):
        table.add_column(name, justify="left" if name == "window" else "right", no_wrap=True)
    for name, window in frame.numbers.windows.items():
        aov, currency = window.aov, window.aov.get("currency", "")
        table.add_row(
            name,
            f"{int(aov.get('orders', 0)):,}",
            _money(int(aov.get("revenue_minor", 0)), currency),
            _money(int(aov["aov_minor"]), currency) if "aov_minor" in aov else "-",
            f"{int(aov.get('units', 0)):,}",
            f"{int(aov.get('returns', 0)):,}",
            aov.get("window_start", "")[5:19].replace("T", " "),
            style="bold" if name == frame.window else "",
        )
    return table


def _products(frame: Frame, rows: int, width: int) -> Table:
    window = frame.numbers.windows[frame.window]
    both = Table.grid(expand=True, padding=(0, 1))
    both.add_column(ratio=1)
    both.add_column(ratio=1)
    tables = []
    for measure, heading in (("revenue", "top products by revenue"), ("units", "top products by units")):
        table = _table()
        table.add_column(heading, ratio=1, no_wrap=True, overflow="ellipsis")
        table.add_column("", justify="right", no_wrap=True)
        shown = window.products[measure][:rows]
        for place, (product, value) in enumerate(shown, start=1):
            name = frame.numbers.names.get(product, product)
            amount = _money(value, frame.currency) if measure == "revenue" else f"{value:,}"
            table.add_row(Text(f"{place:>2} ", style="dim").append(name, style="default not dim"), amount)
        for _ in range(rows - len(shown)):  # what is below stays in its place
            table.add_row("", "")
        tables.append(table)
    both.add_row(*tables)
    both.width = width
    return both


def _bars(frame: Frame, rows: int, width: int) -> Table:
    window = frame.numbers.windows[frame.window]
    shown = ("region", "category", "country") if width >= _WIDE else ("region", "category")
    side = Table.grid(expand=True, padding=(0, 1))
    tables = []
    plural = {"region": "regions", "category": "categories", "country": "countries"}
    room = max(width // len(shown) - 37, 4)
    for group in shown:
        side.add_column(ratio=1)
        values = window.groups[group]["revenue"]
        whole = sum(value for value in values.values() if value > 0)
        most = max([1, *values.values()])
        table = _table()
        table.add_column(plural[group], ratio=1, no_wrap=True, overflow="ellipsis")
        table.add_column("", width=room, no_wrap=True)
        table.add_column("revenue", justify="right", no_wrap=True)
        table.add_column("", justify="right", no_wrap=True, width=4)
        top = list(values.items())[:rows]
        for name, value in top:
            share = f"{average_minor(value * 100, whole)}%" if whole else ""
            amount = _money(value, frame.currency)
            bar = _bar(value, most, room, frame.glyphs.bar)
            table.add_row(Text(name), Text(bar, style="cyan"), amount, Text(share, style="dim"))  # a name is no markup
        for _ in range(rows - len(top)):
            table.add_row("", "", "", "")
        tables.append(table)
    side.add_row(*tables)
    side.width = width
    return side


def _counts(frame: Frame) -> Text:
    status = frame.numbers.status
    text = Text(" ", no_wrap=True, overflow="ellipsis")
    for name, label in _COUNTS.items():
        if name in status:
            text.append(f"{label} ", style="dim").append(f"{int(status[name]):,}  ")
    return text


def _table() -> Table:
    return Table(box=None, expand=True, pad_edge=False, padding=(0, 1, 0, 0), header_style="cyan", show_edge=False)


def _ends(left: Text, right: Text, width: int) -> Text:
    gap = max(width - left.cell_len - right.cell_len, 1)
    text = Text.assemble(left, " " * gap, right)
    text.truncate(width)
    text.no_wrap = True
    return text


def _curve(rates: list[float], heights: str) -> str:
    most = max([1.0, *rates])
    return "".join(heights[min(int(rate / most * len(heights)), len(heights) - 1)] for rate in rates)


def _bar(value: int, most: int, room: int, parts: str) -> str:
    whole, rest = divmod(max(0, value) * room * (len(parts) - 1) // most, len(parts) - 1)
    return parts[-1] * whole + (parts[rest] if rest else "")


def _money(minor: int, currency: str) -> str:
    return f"{to_decimal(minor, currency):,}"


def _aov(frame: Frame) -> str:
    aov = frame.numbers.windows[frame.window].aov
    return _money(int(aov["aov_minor"]), frame.currency) if "aov_minor" in aov else "-"


def _age(age_ms: int | None) -> str:
    if age_ms is None:
        return "?"
    return f"{age_ms / 1000:.1f} s" if age_ms < 60_000 else f"{age_ms // 60_000} min"
