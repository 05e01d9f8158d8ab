"""``make audit``: are there known weaknesses in what we lock? pip-audit asks, this says what its answer is worth.

pip-audit ends with 0 also when the registry knew none of the packages (a mirror without PyPI's JSON API), and with 1
both for a weakness and for a registry that is away. Here the three are told apart:

    0  every package was looked up, and none has a known weakness but those in audit-exceptions.toml
    1  there is one, or an exception has had its time, or excuses nothing any more
    3  not everything could be looked up: nothing is known, and that is no good news
"""

import json
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

EXIT_WEAK, EXIT_UNKNOWN = 1, 3

EXCEPTIONS = Path(__file__).with_name("audit-exceptions.toml")

AUDIT_SECONDS = 900
"""A request for each package; a slow mirror takes a second for one."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is known of the locks."""

    exit_code: int
    lines: list[str]
    """for people"""


def judge(document: Mapping[str, Any], exceptions: Iterable[Mapping[str, Any]], today: date) -> Verdict:
    """What pip-audit's JSON means.

    Args:
        document: its answer.
        exceptions: ``id``, ``package``, ``reason`` and ``until`` (the last day) of each.
        today: for the exceptions.
    """
    packages = {each["name"]: each for each in document["dependencies"]}
    unknown = sorted(name for name, each in packages.items() if "skip_reason" in each)
    excused = {(each["package"], each["id"]): each for each in exceptions}
    weak, used = [], set()
    for name, each in sorted(packages.items()):
        for found in each.get("vulns", []):
            key = next(((name, known) for known in (found["id"], *found["aliases"]) if (name, known) in excused), None)
            if key is not None and excused[key]["until"] >= today:
                used.add(key)
                continue
            mended = ", ".join(found["fix_versions"]) or "no version yet"
            late = "" if key is None else f" (its exception ended on {excused[key]['until']})"
            weak.append(f"{name} {each['version']}: {found['id']}, mended by {mended}{late}")
            used.update({key} if key is not None else ())
    if not unknown:
        weak += [f"{name}: the exception for {known} excuses nothing" for name, known in sorted(excused.keys() - used)]
    if weak:
        return Verdict(EXIT_WEAK, weak)
    if unknown:
        some = ", ".join(unknown[:5])
        return Verdict(
            EXIT_UNKNOWN,
            [f"{len(unknown)} of {len(packages)} packages could not be looked up ({some}, ...): nothing is known"],
        )
    return Verdict(0, [f"{len(packages)} packages, no known weakness; {len(used)} excused"])


def ask(locks: Iterable[str]) -> dict[str, Any] | str:
    """pip-audit's answer about these files; or why there is none."""
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder, "audit.json")
        files = [word for lock in locks for word in ("--requirement", lock)]
        command = [sys.executable, "-m", "pip_audit", "--disable-pip", "--require-hashes", "--progress-spinner", "off"]
        try:
            asked = subprocess.run(  # noqa: S603 (pip-audit, on files that the Makefile names)
                [*command, "--format", "json", "--output", str(answer), *files],
                capture_output=True, text=True, check=False, timeout=AUDIT_SECONDS,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return f"no answer in {AUDIT_SECONDS} s"
        if not answer.exists() or not answer.stat().st_size:
            return (asked.stderr.strip().splitlines() or ["pip-audit said nothing"])[-1]
        document: dict[str, Any] = json.loads(answer.read_text())
        return document


def main(locks: list[str]) -> int:
    """Prints the verdict; its exit code."""
    exceptions = tomllib.loads(EXCEPTIONS.read_text()).get("exception", [])
    answer = ask(locks)
    if isinstance(answer, str):
        verdict = Verdict(EXIT_UNKNOWN, [f"the registry could not be asked: {answer}"])
    else:
        verdict = judge(answer, exceptions, datetime.now(UTC).date())
    for line in verdict.lines:
        print(f"audit: {line}", file=sys.stderr if verdict.exit_code else sys.stdout)
    return verdict.exit_code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
