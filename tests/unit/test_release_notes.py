"""What a release says of itself comes from the changelog, and from nowhere else."""

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parents[2] / ".github" / "release_notes.py"
CHANGELOG = """# Changelog

## Unreleased

- Not yet.

## 0.10.0 (2026-12-01)

- Ten.

### Mended

- A fault.

## 0.1.0

- One.
"""


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("release_notes", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_section_ends_where_the_next_version_begins(script: ModuleType) -> None:
    assert script.section(CHANGELOG, "0.10.0") == "- Ten.\n\n### Mended\n\n- A fault."
    assert script.section(CHANGELOG, "0.1.0") == "- One."


@pytest.mark.parametrize("version", ["0.1", "0.1.1", "1.0", "0x1.0", "Ten"])
def test_another_version_has_no_section(script: ModuleType, version: str) -> None:
    assert script.section(CHANGELOG, version) is None


def test_a_tag_that_the_packages_do_not_bear_is_not_released(script: ModuleType) -> None:
    assert script.other_versions("0.1.0") == []
    assert len(script.other_versions("0.2.0")) == len(script.PACKAGES)


def test_every_package_is_looked_at(script: ModuleType) -> None:
    root = SCRIPT.parents[1]
    found = {str(path.parent.relative_to(root)) for path in root.glob("*/*/pyproject.toml")} | {"cli"}
    assert found == set(script.PACKAGES)


def test_a_version_that_nobody_wrote_about_ends_with_a_line() -> None:
    ended = subprocess.run([sys.executable, SCRIPT, "99.0.0"], capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr == "CHANGELOG.md has nothing under '## 99.0.0'\n"
