"""``python .github/release_notes.py 0.2.0``: what CHANGELOG.md says of a version, for the release page.

Exit code 1 and a line on stderr when the changelog has no section of that name, or when a package says another version:
a tag that says something else than what it holds is not released.
"""

import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("libs/sales", "services/generator", "services/processor", "services/sink", "services/auditor", "cli")


def section(changelog: str, version: str) -> str | None:
    """The text under ``## VERSION`` (a date may follow it), up to the next heading of its kind; None: there is none."""
    found = re.search(rf"^## {re.escape(version)}(?: [^\n]*)?\n(.*?)(?=^## |\Z)", changelog, re.MULTILINE | re.DOTALL)
    return found.group(1).strip() if found else None


def other_versions(version: str, root: Path = ROOT) -> list[str]:
    """A sentence for each package whose version is another."""
    said = {
        name: tomllib.loads((root / name / "pyproject.toml").read_text())["project"]["version"] for name in PACKAGES
    }
    return [f"{name}/pyproject.toml says {its}, not {version}" for name, its in said.items() if its != version]


def main(arguments: list[str]) -> int:
    """Prints the notes; the exit code."""
    if len(arguments) != 1:
        sys.stderr.write("one argument, please: the version, as in CHANGELOG.md\n")
        return 2
    [version] = arguments
    notes = section((ROOT / "CHANGELOG.md").read_text(), version)
    faults = other_versions(version) if notes else [f"CHANGELOG.md has nothing under '## {version}'"]
    if faults or notes is None:
        sys.stderr.write("".join(f"{fault}\n" for fault in faults))
        return 1
    sys.stdout.write(f"{notes}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
