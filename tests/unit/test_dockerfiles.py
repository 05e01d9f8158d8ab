"""What the five Dockerfiles have in common, without an engine."""

from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
FILES = sorted([*REPOSITORY.glob("services/*/Dockerfile"), REPOSITORY / "cli" / "Dockerfile"])


def instructions(path: Path) -> list[str]:
    """Each on one line, without comments."""
    lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    return "\n".join(lines).replace("\\\n", "").splitlines()


def test_there_is_one_for_each_service_and_one_for_the_command_line() -> None:
    services = {path.parent.name for path in REPOSITORY.glob("services/*/pyproject.toml")}
    assert {path.parent.name for path in FILES} == services | {"cli"}


def test_their_first_stages_are_alike_so_that_one_layer_serves_all() -> None:
    def first(path: Path) -> str:
        return path.read_text().partition("\n")[2].partition("# Its own dependencies")[0]

    assert "FROM ${PYTHON} AS common" in first(FILES[0])
    assert {first(path) for path in FILES} == {first(FILES[0])}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.parent.name)
def test_whatever_is_installed_from_elsewhere_is_named_by_a_lock_with_its_hash(path: Path) -> None:
    installs = [line for line in instructions(path) if " install " in line]
    assert len(installs) == 4  # what all share, the service's own, the tools of the build, our wheels
    for line in installs:
        assert "--require-hashes --only-binary :all:" in line or "--no-index --no-deps" in line


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.parent.name)
def test_the_base_is_an_argument_that_a_digest_can_take_the_place_of(path: Path) -> None:
    found = instructions(path)
    assert found[0] == "ARG PYTHON=python:3.12-slim-bookworm"
    stages = {line.partition(" AS ")[2] for line in found if line.startswith("FROM")}
    bases = {line.split()[1] for line in found if line.startswith("FROM")}
    assert bases <= {"${PYTHON}"} | stages
