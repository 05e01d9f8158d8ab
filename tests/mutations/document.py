"""``docs/guards.md``, from the list of guards."""

from collections.abc import Sequence

from mutations.guards import PARTS, Guard

HEAD = """\
# Guards, and the tests that fail without them

What the sink promises hangs on these places. `make mutants` takes one after the other away, in a copy of the sources, \
and runs the test that stands beside it: it has to fail. (With all of them in their place it has to pass.) So no guard \
is there by habit, and no test by courtesy. The list is `tests/mutations/guards.py`, this page is written from it: \
`PYTHONPATH=tests python -m mutations --document > docs/guards.md`.
"""


def document(guards: Sequence[Guard]) -> str:
    """The page."""
    lines = [HEAD]
    for part, title in PARTS.items():
        lines += [f"## {title}", "", "| guard | where | test that fails without it |", "|---|---|---|"]
        lines += [_row(guard) for guard in guards if guard.part == part]
        lines.append("")
    return "\n".join(lines)


def _row(guard: Guard) -> str:
    file, _, test = guard.test.partition("::")
    return f"| {guard.name} | `{guard.file}` | `{test}` in `{file}` |"
