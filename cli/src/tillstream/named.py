"""The named queries: files of SQL that run unchanged in Athena and in DuckDB, once a span of time is put in."""

from importlib.resources import files
from importlib.resources.abc import Traversable
from string import Template

from tillstream.spans import Span


def names() -> list[str]:
    """What there is."""
    return sorted(file.name.removesuffix(".sql") for file in _folder().iterdir() if file.name.endswith(".sql"))


def title(name: str) -> str:
    """What a named query answers, in a sentence."""
    return _text(name).splitlines()[0].removeprefix("-- ")


def named(name: str, span: Span) -> str:
    """The text of a named query for a span of event time."""
    return Template(_text(name)).substitute(span.texts)


def _text(name: str) -> str:
    return (_folder() / f"{name}.sql").read_text(encoding="utf-8")


def _folder() -> Traversable:
    return files("tillstream") / "queries"
