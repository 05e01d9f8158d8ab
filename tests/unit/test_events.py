"""What happens has one name each: in the code, on the log, and in the list that people look it up in."""

import ast
import json
import logging
import re
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import pytest

from sales.events import FOREIGN, RESERVED, JsonLines, Log, TextLines, without_credentials
from sales.streams import AwayError
from support.said import REPOSITORY, Call, calls, modules

OPERATIONS = REPOSITORY / "docs" / "operations.md"
CALLS = calls()


def the_list() -> dict[str, tuple[str, str]]:
    """Each event of the documentation, with its levels and fields."""
    text = OPERATIONS.read_text()
    section = text[text.index("\n### Events\n") :]
    rows = re.findall(r"^\| `([a-z_]+)` \| ([a-z, ]+) \| .+ \| (.*?) ?\|$", section, re.MULTILINE)
    assert len({event for event, *_ in rows}) == len(rows), "an event stands there twice"
    return {event: (levels, fields) for event, levels, fields in rows}


@pytest.mark.parametrize("call", CALLS, ids=[call.place for call in CALLS])
def test_every_line_on_the_log_has_an_event_a_sentence_and_the_fields_that_it_speaks_of(call: Call) -> None:
    assert call.event is not None, "the event is a constant"
    assert re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", call.event)
    assert call.sentence is not None, "the sentence is a constant"
    assert not call.unnamed, "each field is named at the call"
    assert call.spoken <= set(call.fields)
    assert not set(call.fields) & set(RESERVED)
    assert call.levels


def test_an_event_is_one_thing_wherever_it_is_said() -> None:
    said: dict[str | None, set[tuple[str | None, tuple[str, ...], tuple[str, ...]]]] = defaultdict(set)
    for call in CALLS:
        said[call.event].add((call.sentence, call.levels, call.fields))
    assert {event: ways for event, ways in said.items() if len(ways) > 1} == {}


def test_every_event_is_in_the_list_with_its_level_and_fields_and_no_other_is() -> None:
    said = {
        call.event: (", ".join(call.levels), ", ".join(f"`{field}`" for field in call.fields))
        for call in CALLS
        if call.event is not None
    }
    assert the_list() == said | {FOREIGN: ("warning, error, critical", "")}


def test_every_log_is_one_of_events() -> None:
    """A logger of Python's own would write lines without one."""
    for place, tree in modules():
        for node in tree.body:
            if isinstance(node, ast.Assign) and any(getattr(target, "id", "") == "log" for target in node.targets):
                assert isinstance(node.value, ast.Call), place
                assert getattr(node.value.func, "id", "") == "Log", place
        for part in ast.walk(tree):
            if isinstance(part, ast.Attribute) and getattr(part.value, "id", "") in {"logging", "logger"}:
                assert part.attr not in {"debug", "info", "warning", "error", "exception", "critical", "log"}, place


@pytest.fixture
def line() -> Callable[..., dict[str, Any]]:
    """What a call of a log writes as JSON."""

    def written(say: Callable[[Log], None]) -> dict[str, Any]:
        lines: list[str] = []

        class Kept(logging.Handler):
            def emit(self, record: logging.LogRecord) -> None:
                lines.append(self.format(record))

        handler = Kept()
        handler.setFormatter(JsonLines("sink", "0.1.0"))
        logger = logging.getLogger("tests.events")
        logger.setLevel(logging.INFO)
        logger.addHandler(handler)
        try:
            say(Log("tests.events"))
        finally:
            logger.removeHandler(handler)
        [text] = lines
        assert "\n" not in text
        found: dict[str, Any] = json.loads(text)
        return found

    return written


def test_a_line_of_json_has_the_event_the_sentence_and_its_fields(line: Callable[..., dict[str, Any]]) -> None:
    told = line(lambda log: log.info("things_sent", "{records:,} sent in {seconds:.1f} s", records=12345, seconds=0.25))
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", told.pop("time"))
    assert told == {
        "level": "info",
        "logger": "tests.events",
        "service": "sink",
        "version": "0.1.0",
        "event": "things_sent",
        "message": "12,345 sent in 0.2 s",
        "records": 12345,
        "seconds": 0.25,
    }


def test_an_error_that_was_expected_is_told_with_its_type(line: Callable[..., dict[str, Any]]) -> None:
    told = line(lambda log: log.warning("far_side_away", "away: {error}", error=AwayError("no answer")))
    assert told["message"] == "away: no answer"
    assert told["error"] == {"type": "AwayError", "message": "no answer"}


def test_an_error_that_nobody_expected_is_told_with_its_stack_on_the_same_line(
    line: Callable[..., dict[str, Any]],
) -> None:
    def say(log: Log) -> None:
        try:
            int("seven")
        except ValueError:
            log.exception("broken", "it broke")

    told = line(say)
    assert (told["level"], told["message"]) == ("error", "it broke")
    assert (told["error"]["type"], told["error"]["message"]) == (
        "ValueError",
        "invalid literal for int() with base 10: 'seven'",
    )
    assert told["error"]["stack"].startswith("Traceback (most recent call last):\n")
    assert told["error"]["stack"].endswith("'seven'")


def test_a_librarys_line_is_one_event(line: Callable[..., dict[str, Any]]) -> None:
    told = line(lambda _log: logging.getLogger("tests.events").warning("%s of %d\nfailed", "part", 3))
    assert (told["event"], told["message"]) == (FOREIGN, "part of 3\nfailed")


def test_what_json_has_no_word_for_is_told_as_text(line: Callable[..., dict[str, Any]]) -> None:
    told = line(lambda log: log.info("odd", "odd: {thing}", thing=REPOSITORY))
    assert told["thing"] == str(REPOSITORY)


@pytest.mark.parametrize("formatter", [TextLines(), JsonLines("sink", "")])
def test_no_line_repeats_what_stands_before_a_host(formatter: logging.Formatter) -> None:
    error = OSError("rediss://user:h/u@sh@redis.example:6380/0 is away")
    record = logging.LogRecord(
        "x",
        logging.ERROR,
        "",
        1,
        "to https://me:hush@aws.example/ (%s)",
        ("redis://:hush@r/1",),
        (OSError, error, None),
    )
    text = formatter.format(record)
    assert "h/u@sh" not in text
    assert "hush" not in text
    assert "https://aws.example/ (redis://r/1)" in text
    assert "rediss://redis.example:6380/0 is away" in text


def test_an_address_without_credentials_and_a_mail_address_stay() -> None:
    for text in ("at http://127.0.0.1:9000/a?b=c, mail ops@example.com", "s3://bucket/key", "no address"):
        assert without_credentials(text) == text
