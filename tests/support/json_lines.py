"""Reads what a service logged under LOG_FORMAT=json, and holds each line against what is promised of it."""

import json
import re
from collections.abc import Iterable
from typing import Any

import pytest

from sales.events import FOREIGN, RESERVED
from support.said import calls

EVENTS = {call.event for call in calls()} | {FOREIGN}


def parsed(lines: Iterable[str]) -> list[dict[str, Any]]:
    """Each line as the object that it must be."""
    found = []
    for line in lines:
        told: dict[str, Any] = json.loads(line, parse_constant=pytest.fail)
        assert tuple(told)[: len(RESERVED)] == RESERVED
        assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", told["time"])
        assert told["level"] in {"info", "warning", "error", "critical"}
        assert told["event"] in EVENTS
        assert told["message"]
        found.append(told)
    return found
