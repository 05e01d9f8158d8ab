"""Every event that the sources say, read from their syntax trees: nothing is imported, nothing runs."""

import ast
import string
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
SOURCES = ("libs/sales/src", "services/generator/src", "services/processor/src", "services/sink/src",
           "services/auditor/src", "cli/src")  # fmt: skip

LEVELS = {"info": "info", "warning": "warning", "error": "error", "exception": "error"}
"""A logger's methods; ``log`` takes its level as its first argument."""

NO_FIELDS = {"exc_info"}


@dataclass(frozen=True)
class Call:
    """One place where an event is said."""

    place: str
    event: str | None
    """None: it is no constant"""
    sentence: str | None
    levels: tuple[str, ...]
    fields: tuple[str, ...]
    """as the sentence and the arguments have them, in this order"""
    unnamed: bool
    """some fields come from a dictionary, and can't be read here"""

    @property
    def spoken(self) -> set[str]:
        """The fields that the sentence names."""
        return {name for _, name, _, _ in string.Formatter().parse(self.sentence or "") if name}


def modules() -> Iterator[tuple[str, ast.Module]]:
    """Every module of our own: where it is, and its tree."""
    for folder in SOURCES:
        for path in sorted((REPOSITORY / folder).rglob("*.py")):
            yield str(path.relative_to(REPOSITORY)), ast.parse(path.read_text())


def calls() -> list[Call]:
    """Every call of a method of ``log``."""
    return [
        _call(f"{place}:{node.lineno}", node, node.func.attr)
        for place, tree in modules()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id == "log"
        and node.func.attr in (*LEVELS, "log")
    ]


def _call(place: str, node: ast.Call, method: str) -> Call:
    arguments = list(node.args)
    levels = [LEVELS[method]] if method in LEVELS else _levels(arguments.pop(0))
    event, sentence = (_text(argument) for argument in (*arguments, None, None)[:2])
    keywords = [keyword.arg for keyword in node.keywords]
    fields = tuple(name for name in keywords if name is not None and name not in NO_FIELDS)
    return Call(place, event, sentence, tuple(levels), fields, unnamed=None in keywords or len(arguments) > 2)


def _levels(node: ast.expr) -> list[str]:
    """Those of `logging` that an expression may give, the least first."""
    named = {part.attr.lower() for part in ast.walk(node) if isinstance(part, ast.Attribute)}
    return [level for level in ("info", "warning", "error", "critical") if level in named]


def _text(node: ast.expr | None) -> str | None:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None
