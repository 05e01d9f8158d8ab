"""What runs with the project's keys is pinned, and may do no more than it has to."""

import base64
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.manifests import K8S

FOLDER = Path(__file__).parents[2] / ".github" / "workflows"
WORKFLOWS = sorted(FOLDER.glob("*.yml"))

SECRETS = [
    base64.b64encode(text).decode()
    for text in (b"replace-me\n", b"rediss://tillstream:replace-me@master.tillstream.example.com:6379/0\n")
]
"""As the overlay has them, and Kubernetes writes them."""


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


def refusal(rendered: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    """The release's look at what it would deploy, run as a runner does."""
    [step] = [
        step
        for step in workflow(FOLDER / "release.yml")["jobs"]["deploy"]["steps"]
        if step.get("name", "").startswith("Neither placeholders")
    ]
    (folder / "release.yaml").write_text(rendered)
    return subprocess.run(
        ["bash", "-e", "-c", step["run"]], cwd=folder, capture_output=True, text=True, timeout=30, check=False
    )


def by_digest(rendered: str) -> str:
    return re.sub(r"image: tillstream/(\w+):\S+", rf"image: somewhere/\1@sha256:{64 * 'a'}", rendered)


def test_a_release_is_refused_where_the_overlay_has_placeholders(tmp_path: Path) -> None:
    done = refusal(by_digest((K8S / "tillstream-aws.yaml").read_text()), tmp_path)
    assert done.returncode == 1
    assert "placeholders" in done.stdout


@pytest.mark.parametrize(
    "placeholder",
    ["b-1.tillstream.example.com:9096", "example-com-tillstream", "arn:aws:iam::111122223333:role/x", *SECRETS],
)
def test_one_placeholder_is_enough(placeholder: str, tmp_path: Path) -> None:
    rendered = by_digest((K8S / "tillstream-local.yaml").read_text())
    assert placeholder not in rendered
    assert refusal(f"{rendered}\n# {placeholder}\n", tmp_path).returncode == 1


def test_a_release_is_refused_where_one_image_is_not_named_by_its_digest(tmp_path: Path) -> None:
    rendered = by_digest((K8S / "tillstream-local.yaml").read_text())
    first = rendered.index("@sha256:")
    done = refusal(rendered[:first] + ":0.1.0" + rendered[first + 72 :], tmp_path)
    assert done.returncode == 1
    assert "images of its own" in done.stdout


def test_a_release_is_let_through_where_all_is_its_own(tmp_path: Path) -> None:
    done = refusal(by_digest((K8S / "tillstream-local.yaml").read_text()), tmp_path)
    assert (done.returncode, done.stdout) == (0, "")
