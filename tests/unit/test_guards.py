"""The list of guards fits the sources, the tests and its page; a guard that nobody misses is found."""

import ast
import re

import pytest

from mutations.document import document
from mutations.guards import GUARDS, Guard
from mutations.trial import REPOSITORY, GuardError, judge, without

PAGE = REPOSITORY / "docs" / "guards.md"
A_GUARD = Guard("store", "an example", "a.py", old="if there:", new="if True:", test="tests/test_a.py::test_a")


@pytest.mark.parametrize("guard", GUARDS, ids=lambda guard: guard.name)
def test_a_guard_stands_once_in_its_file_and_without_it_there_is_another_program(guard: Guard) -> None:
    changed = without(guard, (REPOSITORY / guard.file).read_text())
    if guard.file.endswith(".py"):
        compile(changed, guard.file, "exec")


@pytest.mark.parametrize("guard", GUARDS, ids=lambda guard: guard.name)
def test_its_test_is_there(guard: Guard) -> None:
    file, _, name = guard.test.partition("::")
    tests = {node.name for node in ast.parse((REPOSITORY / file).read_text()).body if isinstance(node, ast.FunctionDef)}
    assert re.sub(r"\[.*\]$", "", name) in tests


def test_guards_have_names_of_their_own() -> None:
    assert len({guard.name for guard in GUARDS}) == len(GUARDS)


def test_the_page_is_written_from_the_list() -> None:
    assert PAGE.read_text() == document(GUARDS)


@pytest.mark.parametrize(("text", "found"), [("pass", 0), ("if there: # if there:", 2)])
def test_a_guard_that_is_not_there_once_is_an_error(text: str, found: int) -> None:
    with pytest.raises(GuardError, match=f"a.py has {found} times"):
        without(A_GUARD, text)


@pytest.mark.parametrize(
    ("code", "output", "ending"),
    [
        (1, "F\nFAILED tests/test_a.py::test_a[x - y] - AssertionError: assert 1 == 2\n", "noticed"),
        (1, "F\nFAILED tests/test_a.py::test_a - sink.archive.ArchiveError: holds other rows\n", "noticed"),
        (1, "F\nFAILED tests/test_a.py::test_a\n", "noticed"),
        (0, "1 passed", "unnoticed"),
        (1, "F\nFAILED tests/test_a.py::test_a - NameError: name 'x' is not defined\n", "no proof"),
        (1, "ERROR tests/test_a.py::test_a - RuntimeError\n", "no proof"),
        (2, "ERROR tests/test_a.py - ImportError\n", "no proof"),
        (4, "ERROR: not found: test_b", "no proof"),
        (5, "no tests ran", "no proof"),
        (None, "", "no proof"),
    ],
)
def test_a_guard_is_missed_only_if_its_test_fails_by_what_it_looks_at(
    code: int | None, output: str, ending: str
) -> None:
    assert judge(code, output).ending == ending
