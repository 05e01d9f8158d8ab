"""What runs with the project's keys is pinned, and may do no more than it has to."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

FOLDER = Path(__file__).parents[2] / ".github" / "workflows"
WORKFLOWS = sorted(FOLDER.glob("*.yml"))


def workflow(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(path.read_text())
    return found


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
class TestAWorkflow:
    def test_takes_every_action_by_its_commit_and_says_which_version_that_is(self, path: Path) -> None:
        uses = re.findall(r"uses: (\S+)(.*)", path.read_text())
        assert uses
        for action, rest in uses:
            own = action.startswith("./")
            assert own or re.fullmatch(r"[\w./-]+@[0-9a-f]{40}", action), action
            assert own or re.fullmatch(r"  # v\d+\.\d+\.\d+", rest), f"{action}: which version?"

    def test_may_read_and_no_more_where_a_job_does_not_say_so(self, path: Path) -> None:
        assert workflow(path)["permissions"] == {"contents": "read"}

    def test_ends_by_itself(self, path: Path) -> None:
        for name, job in workflow(path)["jobs"].items():
            assert "uses" in job or job["timeout-minutes"] <= 60, name

    def test_leaves_no_token_in_the_checkout(self, path: Path) -> None:
        for job in workflow(path)["jobs"].values():
            for step in job.get("steps", ()):
                if step.get("uses", "").startswith("actions/checkout@"):
                    assert step["with"]["persist-credentials"] is False

    def test_puts_nothing_that_others_write_into_a_script(self, path: Path) -> None:
        for job in workflow(path)["jobs"].values():
            for step in job.get("steps", ()):
                assert "${{" not in step.get("run", ""), "by env: an expression in a script is code"


def test_there_are_workflows() -> None:
    assert {path.name for path in WORKFLOWS} == {"ci.yml", "release.yml"}


def test_a_release_publishes_only_what_was_checked_and_deploys_only_what_was_published() -> None:
    jobs = workflow(FOLDER / "release.yml")["jobs"]
    assert jobs["ci"]["uses"] == "./.github/workflows/ci.yml"
    assert set(jobs["publish"]["needs"]) == {"ci", "notes"}
    assert jobs["page"]["needs"] == ["publish"]
    assert jobs["deploy"]["needs"] == ["page"]
    assert jobs["deploy"]["environment"] == "production"
