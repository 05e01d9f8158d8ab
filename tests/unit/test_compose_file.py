"""docker-compose.yml and .env.example, as they are written; tests/e2e/test_compose.py runs them."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docker-compose.yml").read_text()
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load(TEXT)["services"]
OURS = {"generator", "processor", "sink", "auditor", "setup", "tillstream", "replay"}


@pytest.mark.parametrize("name", SERVICES)
def test_each_container_is_bounded_and_gains_no_rights(name: str) -> None:
    service = SERVICES[name]
    assert service["mem_limit"]
    assert service["restart"]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert {"max-size", "max-file"} <= service["logging"]["options"].keys()
    assert service["healthcheck"].get("disable") == (True if name in ("setup", "tillstream") else None)
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ()))


@pytest.mark.parametrize("name", sorted(OURS))
def test_ours_are_nobody_write_nowhere_and_reach_nothing_else(name: str) -> None:
    service = SERVICES[name]
    assert (service["user"], service["read_only"], service["networks"]) == ("10001:10001", True, ["inside"])


def test_every_image_has_a_version() -> None:
    tags = {name: service["image"].split("/")[-1].partition(":")[2] for name, service in SERVICES.items()}
    assert {tags[name] for name in OURS} == {"${TILLSTREAM_VERSION:-dev}"}
    assert all(re.match(r"v?\d", tag) for name, tag in tags.items() if name not in OURS)


def test_what_the_example_offers_is_read_with_the_default_that_it_says() -> None:
    offered = dict(re.findall(r"^#([A-Z][A-Z0-9_]*)=(.*)$", (ROOT / ".env.example").read_text(), re.MULTILINE))
    settings = set(re.findall(r"^\| `([A-Z0-9_]+)` \|", (ROOT / "docs/operations.md").read_text(), re.MULTILINE))
    used = dict(re.findall(r"\$\{([A-Z0-9_]+):-([^}]*)\}", TEXT))
    assert used.keys() <= offered.keys()
    assert offered.keys() - used.keys() - settings == {"COMPOSE_PROFILES", "COMPOSE_PROJECT_NAME"}
    switch = {"STREAM", "KAFKA_NODES"}  # offered with the values of Kinesis
    assert {name: offered[name] for name in used.keys() - switch} == {name: used[name] for name in used.keys() - switch}
