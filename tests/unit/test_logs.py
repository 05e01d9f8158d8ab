"""What services write to stderr under LOG_FORMAT=json: objects, one a line, whatever happens to them."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from support.json_lines import parsed
from support.ports import lasting_ports

SECONDS = 120.0
"""Two busy cores start a service in some seconds; a hang is longer."""

SERVICES = ("generator", "processor", "sink", "auditor")


@contextmanager
def running(service: str, folder: Path, **environment: str) -> "Iterator[subprocess.Popen[str]]":
    """A service of which every far side is away."""
    away = [f"127.0.0.1:{port}" for port in lasting_ports(3)]
    given = {
        "LOG_FORMAT": "json",
        "STREAM": "kafka",
        "KAFKA_BOOTSTRAP_SERVERS": away[0],
        "REDIS_URL": f"redis://user:hush@{away[1]}/0",
        "AWS_ENDPOINT_URL": f"http://{away[2]}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_MAX_ATTEMPTS": "1",
        "S3_BUCKET": "bucket",
        "RECOVERY_DIR": str(folder / "recovery"),
        "CONNECT_SECONDS": "1",
        "AUDIT_SECONDS": "1",
        **environment,
    }
    with subprocess.Popen(
        [sys.executable, "-m", service], env=os.environ | given, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def ended(service: str, folder: Path, **environment: str) -> tuple[int, list[dict[str, Any]]]:
    with running(service, folder, **environment) as process:
        _, said = process.communicate(timeout=SECONDS)
    return process.returncode, parsed(said.splitlines())


@pytest.mark.parametrize("service", SERVICES)
def test_wrong_settings_are_events_each_with_its_name(service: str, tmp_path: Path) -> None:
    wrong = {"METRICS_PORT": "many", "CURRENCY": "dollars"}
    code, told = ended(service, tmp_path, **wrong)
    assert code == 2
    assert {(line["event"], line["level"], line["service"]) for line in told} == {("setting_refused", "error", service)}
    assert {line["setting"] for line in told} == set(wrong)
    for line in told:
        assert line["message"] == f"{line['setting']}: {line['problem']}"


@pytest.mark.parametrize(
    ("service", "client"),
    [("generator", "confluent"), ("generator", "kafka-python"), ("processor", "confluent"), ("sink", "confluent")],
)
def test_a_far_side_that_stays_away_is_events_to_the_end(service: str, client: str, tmp_path: Path) -> None:
    code, told = ended(service, tmp_path, KAFKA_CLIENT=client)
    assert code == 3
    assert told[-1]["event"] == "service_failed"
    assert told[-1]["exit_code"] == 3
    assert told[-1]["error"]["type"] == "AwayError"
    assert "127.0.0.1:" in told[-1]["error"]["message"]


@pytest.mark.parametrize("service", ["generator", "processor", "sink"])
def test_a_stop_while_a_far_side_is_away_leaves_nothing_but_events(service: str, tmp_path: Path) -> None:
    with running(service, tmp_path, CONNECT_SECONDS="300") as process:
        assert process.stderr is not None
        lines = []
        for line in process.stderr:
            lines.append(line)
            if json.loads(line)["event"] == "far_side_away":
                break
        process.send_signal(signal.SIGTERM)
        rest, _ = process.stderr.read(), process.wait(SECONDS)
    assert process.returncode == 0
    away = parsed(lines + rest.splitlines())[len(lines) - 1]
    assert away["pause_seconds"] > 0
    assert away["error"]["type"] == "AwayError"


def test_the_auditor_goes_on_in_events_while_redis_is_away_and_says_when_it_stops(tmp_path: Path) -> None:
    with running("auditor", tmp_path) as process:
        assert process.stderr is not None
        # What a round needs some time for must not keep the test from its end.
        watchdog = threading.Timer(SECONDS, process.kill)
        watchdog.start()
        lines = []
        for line in process.stderr:
            lines.append(line)
            if json.loads(line)["event"] == "outcome_not_published":
                process.send_signal(signal.SIGTERM)
        watchdog.cancel()
        assert process.wait(SECONDS) == 0
    told = parsed(lines)
    assert [line["event"] for line in told][:3] == ["auditor_running", "round_failed", "outcome_not_published"]
    assert told[-1]["event"] == "service_stopped"
    assert "hush" not in "".join(lines)


BREAKS = """
import sys, threading, warnings
from sales.logs import start_logging

start_logging("sink")
warnings.warn("this will go")
thread = threading.Thread(target=lambda: {}["in a thread"])
thread.start()
thread.join()

class Broken:
    def __del__(self):
        raise ValueError("in a finaliser")

Broken()
raise OSError("redis://user:hush@host/0 is away\\nfor ever")
"""


def test_what_python_itself_would_print_is_events_too() -> None:
    done = subprocess.run(
        [sys.executable, "-c", BREAKS],
        env=os.environ | {"LOG_FORMAT": "json"},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 1
    warning, thread, finaliser, last = parsed(done.stderr.splitlines())
    assert (warning["event"], warning["logger"]) == ("library_message", "py.warnings")
    assert "this will go" in warning["message"]
    for told, kind in ((thread, "KeyError"), (finaliser, "ValueError"), (last, "OSError")):
        assert (told["event"], told["level"], told["error"]["type"]) == ("uncaught_error", "critical", kind)
        assert told["error"]["stack"].startswith("Traceback")
    assert last["error"]["message"] == "redis://host/0 is away\nfor ever"


def test_as_text_python_says_it_in_its_own_way() -> None:
    done = subprocess.run(
        [sys.executable, "-c", BREAKS],
        env=os.environ | {"LOG_FORMAT": ""},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert "Exception in thread" in done.stderr
    assert done.stderr.splitlines()[0].endswith("UserWarning: this will go")


SAYS = """
import logging
from sales.events import Log
from sales.logs import start_logging

start_logging("sink")
for name in ("sink.lanes", "sales.streams", "botocore"):
    for level in (logging.INFO, logging.WARNING, logging.ERROR):
        Log(name).log(level, "said", "{name}", name=f"{name} {level}")
"""


@pytest.mark.parametrize(
    ("level", "said"),
    [
        ("", {"sink.lanes 20", "sales.streams 20", "botocore 30", "sink.lanes 30", "sales.streams 30"}),
        ("warning", {"sink.lanes 30", "sales.streams 30", "botocore 30"}),
        ("error", set()),
    ],
)
def test_log_level_is_the_least_that_is_said_and_of_libraries_never_less_than_warnings(
    level: str, said: set[str]
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SAYS],
        env=os.environ | {"LOG_FORMAT": "json", "LOG_LEVEL": level},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=True,
    )
    errors = {"sink.lanes 40", "sales.streams 40", "botocore 40"}
    assert {json.loads(line)["message"] for line in done.stderr.splitlines()} == said | errors


@pytest.mark.parametrize(("name", "wrong"), [("LOG_FORMAT", "yaml"), ("LOG_LEVEL", "loud")])
def test_a_wrong_format_or_level_is_a_line_with_what_is_allowed(name: str, wrong: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SAYS],
        env=os.environ | {name: wrong},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 2
    [line] = done.stderr.splitlines()
    assert line.startswith(f"{name}: ")
    assert "; allowed: " in line
