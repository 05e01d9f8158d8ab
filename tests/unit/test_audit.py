"""``make audit``: a weakness, an answer that is worth nothing, and all well are three different things."""

import importlib.util
import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[2] / "requirements" / "audit.py"
TODAY = date(2026, 11, 21)


@pytest.fixture(scope="module")
def audit() -> Any:
    spec = importlib.util.spec_from_file_location("audit_of_locks", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look there
    spec.loader.exec_module(module)
    return module


def package(name: str = "till", *weaknesses: str) -> dict[str, Any]:
    vulns = [{"id": each, "aliases": ["CVE-2026-1"], "fix_versions": ["2.0"]} for each in weaknesses]
    return {"name": name, "version": "1.0", "vulns": vulns}


def unknown(name: str) -> dict[str, Any]:
    return {"name": name, "skip_reason": "Dependency not found on PyPI and could not be audited"}


def an_exception(**changes: Any) -> dict[str, Any]:
    return {"package": "till", "id": "PYSEC-1", "reason": "not used", "until": TODAY} | changes


@pytest.mark.parametrize(
    ("packages", "exceptions", "code", "said"),
    [
        ([package()], [], 0, "1 packages, no known weakness"),
        ([package("till", "PYSEC-1")], [], 1, "till 1.0: PYSEC-1, mended by 2.0"),
        ([package("till", "PYSEC-1")], [an_exception()], 0, "1 excused"),
        ([package("till", "PYSEC-1")], [an_exception(id="CVE-2026-1")], 0, "1 excused"),
        ([package("till", "PYSEC-1")], [an_exception(package="other")], 1, "till 1.0: PYSEC-1"),
        ([package("till", "PYSEC-1")], [an_exception(until=date(2026, 11, 20))], 1, "ended on 2026-11-20"),
        ([package()], [an_exception()], 1, "excuses nothing"),
        ([unknown("till"), unknown("drawer")], [], 3, "2 of 2 packages could not be looked up"),
        ([package(), unknown("drawer")], [], 3, "1 of 2"),
        ([package("till", "PYSEC-1"), unknown("drawer")], [], 1, "PYSEC-1"),
        ([unknown("till")], [an_exception()], 3, "could not be looked up"),
    ],
)
def test_the_verdict(
    audit: Any, packages: list[dict[str, Any]], exceptions: list[dict[str, Any]], code: int, said: str
) -> None:
    verdict = audit.judge({"dependencies": packages}, exceptions, TODAY)
    assert verdict.exit_code == code
    assert said in verdict.lines[0]


def test_a_registry_that_is_away_is_no_weakness_and_no_good_news(tmp_path: Path) -> None:
    """Whether pip-audit is missing here, or meets a proxy that does not answer: there is no answer."""
    lock = tmp_path / "lock.txt"
    lock.write_text(f"till==1.0 --hash=sha256:{'0' * 64}\n")
    ended = subprocess.run(
        [sys.executable, str(SCRIPT), str(lock)],
        env={"HTTPS_PROXY": "http://127.0.0.1:1", "https_proxy": "http://127.0.0.1:1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == 3
    [line] = ended.stderr.splitlines()
    assert line.startswith("audit: the registry could not be asked: ")


def test_every_exception_has_a_reason_and_a_last_day(audit: Any) -> None:
    import tomllib

    for each in tomllib.loads(audit.EXCEPTIONS.read_text()).get("exception", []):
        assert each.keys() == {"package", "id", "reason", "until"}
