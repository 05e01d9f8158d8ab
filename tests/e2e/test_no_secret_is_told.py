"""A secret in every setting that may hold one, and everything that may go wrong: it appears nowhere.

What is said while all goes well, under a wrong password, by metrics and health is looked at where real servers ask for
passwords: test_redis_access.py and test_kafka_access.py.
"""

import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest
from pydantic import SecretStr

from auditor.settings import AuditorSettings
from generator.settings import GeneratorSettings
from processor.settings import ProcessorSettings
from sales.settings import Settings, load
from sink.settings import SinkSettings
from tillstream.proving import VerifySettings
from tillstream.setup import SetupSettings

SECRET = "tell-nobody-7f3a"
SECONDS = 240.0

SERVICES = ("generator", "processor", "sink", "auditor")
COMMANDS: tuple[Sequence[str], ...] = (
    ("setup", "--json"),
    ("live", "--once"),
    ("verify", "--timeout", "0", "--json"),
    ("trace", "order-1"),
    ("query", "top-products"),
    ("export", "--output", "-"),
    ("dead-letters", "list", "--json"),
    ("lag", "--json"),
    ("rebuild", "--json"),
)
EVERYTHING = [*((name,) for name in SERVICES), *(("tillstream", *words) for words in COMMANDS)]
KINDS: tuple[type[Settings], ...] = (
    GeneratorSettings,
    ProcessorSettings,
    SinkSettings,
    AuditorSettings,
    VerifySettings,
    SetupSettings,
)


@pytest.fixture
def secretive(tmp_path: Path) -> dict[str, str]:
    """An environment with a secret wherever one may be, and nobody at the other end."""
    return {
        **os.environ,
        "STREAM": "kafka",
        "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1",
        "KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
        "KAFKA_SASL_USERNAME": "till",
        "KAFKA_SASL_PASSWORD": SECRET,
        "REDIS_URL": f"rediss://till:{SECRET}@127.0.0.1:1/0",
        "AWS_ENDPOINT_URL": "http://127.0.0.1:1",
        "AWS_ACCESS_KEY_ID": "AKIAEXAMPLE",
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_SESSION_TOKEN": SECRET,
        "AWS_EC2_METADATA_DISABLED": "true",
        "S3_BUCKET": "bucket",
        "RECOVERY_DIR": str(tmp_path / "recovery"),
        "CONNECT_SECONDS": "0.5",
        "AUDIT_SECONDS": "1",
    }


def said(command: Sequence[str], environment: dict[str, str], seconds: float = SECONDS) -> str:
    """All that a process says until it ends; a service that waits for ever is stopped after some words."""
    with subprocess.Popen(
        [sys.executable, *command],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout is not None
        lines = []
        timer = threading.Timer(seconds, process.kill)
        timer.start()
        for line in process.stdout:
            lines.append(line)
            if "outcome is not in Redis" in line:  # the auditor goes on, round by round
                process.terminate()
        process.wait()
        timer.cancel()
    return "".join(lines)


@pytest.mark.parametrize(
    ("words", "log_format"),
    [*((words, "text") for words in EVERYTHING), *(((name,), "json") for name in SERVICES)],
    ids=lambda part: part if isinstance(part, str) else " ".join(part),
)
def test_when_nobody_answers(words: Sequence[str], log_format: str, secretive: dict[str, str]) -> None:
    heard = said(["-m", *words], {**secretive, "LOG_FORMAT": log_format})
    assert heard
    assert SECRET not in heard


@pytest.mark.parametrize("words", [("-m", "generator"), *(("-m", "tillstream", words[0]) for words in COMMANDS)])
def test_when_help_is_asked_for(words: Sequence[str], secretive: dict[str, str]) -> None:
    heard = said([*words, "--help"], secretive)
    assert "Usage" in heard
    assert SECRET not in heard


@pytest.mark.parametrize("words", EVERYTHING, ids=" ".join)
def test_when_settings_are_wrong(words: Sequence[str], secretive: dict[str, str]) -> None:
    wrong = {
        "REDIS_URL": f"{SECRET}:6379",
        "KAFKA_SASL_USERNAME": "",
        "KAFKA_SSL_KEY_PASSWORD": SECRET,
        "AWS_ENDPOINT_URL": f"http://till:{SECRET}@127.0.0.1:1",
    }
    heard = said(["-m", *words], secretive | wrong)
    assert "REDIS_URL: " in heard or "KAFKA_SASL_USERNAME: " in heard or "AWS_ENDPOINT_URL: " in heard
    assert "Traceback" not in heard
    assert SECRET not in heard


_BREAK = """
import runpy, sys
import sales.board, sales.streams.reaching

def broken(*arguments, **named):
    secrets = [arguments, named]
    raise RuntimeError("nobody expected this")

sales.board.client_of = sales.streams.reaching.reach = broken
sys.argv = {words!r}
runpy.run_module({words!r}[0], run_name="__main__", alter_sys=True)
"""


@pytest.mark.parametrize("log_format", ["text", "json"])
@pytest.mark.parametrize("words", [(name,) for name in SERVICES], ids=" ".join)
def test_when_it_breaks_down(words: Sequence[str], secretive: dict[str, str], log_format: str) -> None:
    """A traceback shows lines of code, and never what is in variables."""
    heard = said(["-c", _BREAK.format(words=list(words))], {**secretive, "LOG_FORMAT": log_format})
    assert "nobody expected this" in heard
    assert SECRET not in heard


@pytest.mark.parametrize("kind", KINDS)
def test_when_settings_are_shown(
    kind: type[Settings], secretive: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in secretive.items():
        monkeypatch.setenv(name, value)
    settings = load(kind)
    assert SECRET not in f"{settings!r} {settings} {settings.model_dump()} {settings.model_dump_json()}"


@pytest.mark.parametrize("kind", KINDS)
def test_whatever_is_called_a_password_or_may_hold_one_is_a_secret(kind: type[Settings]) -> None:
    """So that the next one is not forgotten."""
    for name, about in kind.model_fields.items():
        if "password" in name or "secret" in name or (name.endswith("_url") and not name.startswith("aws_")):
            assert about.annotation is SecretStr, name
