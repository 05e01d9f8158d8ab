"""The locks say what the packages ask for; `make lock` writes them again."""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

FOLDER = Path(__file__).parents[2] / "requirements"
LOCKS = sorted(path.stem for path in FOLDER.glob("*.in"))
PIN = re.compile(r"^([A-Za-z0-9._-]+)==([^ ;\\]+)", re.MULTILINE)


def asked_for(name: str) -> Iterator[Requirement]:
    """What a ``.in`` file asks for: names, other files, and the dependencies of our own packages."""
    for written in (FOLDER / f"{name}.in").read_text().splitlines():
        text = written.partition("#")[0].strip()
        if text.startswith("-r "):
            yield from asked_for(text.removeprefix("-r ").removesuffix(".in"))
        elif text.startswith("./"):
            path, _, extra = text.removesuffix("]").partition("[")
            project = tomllib.loads((FOLDER.parent / path / "pyproject.toml").read_text())["project"]
            asked = project["dependencies"] + project.get("optional-dependencies", {}).get(extra, [])
            yield from (each for each in map(Requirement, asked) if each.name not in OURS)
        elif text:
            yield Requirement(text)


APART = {"audit", "bench", "image"}
"""Locks that have packages of their own; what they share with the tests has one version."""
OURS = {"sales", "generator", "processor", "sink", "tillstream", "auditor"}


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_has_all_that_is_asked_for(name: str) -> None:
    pins = dict[str, list[Version]]()
    for package, version in PIN.findall((FOLDER / f"{name}.txt").read_text()):
        pins.setdefault(canonicalize_name(package), []).append(Version(version))
    for requirement in asked_for(name):
        versions = pins.get(canonicalize_name(requirement.name), [])
        assert versions, f"requirements/{name}.txt lacks {requirement}: make lock"
        assert all(version in requirement.specifier for version in versions), f"{requirement} is {versions}: make lock"


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_names_no_address_and_pins_by_digest(name: str) -> None:
    text = (FOLDER / f"{name}.txt").read_text()
    assert "://" not in text
    assert not re.search(r"^-", text, re.MULTILINE)
    assert len(PIN.findall(text)) == len(re.findall(r"\\\n(?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+", text))


@pytest.mark.parametrize("name", [name for name in LOCKS if name != "dev"])
def test_all_locks_have_the_same_versions(name: str) -> None:
    tested = set(PIN.findall((FOLDER / "dev.txt").read_text()))
    known = {package for package, _ in tested}
    pins = {pin for pin in PIN.findall((FOLDER / f"{name}.txt").read_text()) if pin[0] in known or name not in APART}
    assert pins <= tested
