"""Settings: a wrong one is a line that says which, what is wrong and what is allowed; every one is documented."""

import re
from pathlib import Path
from typing import get_args

import pytest

from auditor.settings import AuditorSettings
from generator.settings import SourceSettings
from processor.settings import ProcessorSettings
from sales.settings import (
    AwsService,
    AwsSettings,
    BoardSettings,
    GlueSettings,
    LogSettings,
    RuleSettings,
    Settings,
    StreamSettings,
    load,
)
from sink import aws
from sink.settings import SinkSettings

OPERATIONS = Path(__file__).parents[2] / "docs" / "operations.md"


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in (SourceSettings, ProcessorSettings, SinkSettings, AuditorSettings):
        for name in kind.model_fields:
            monkeypatch.delenv(name.upper(), raising=False)


def test_every_setting_is_documented_and_nothing_else_is() -> None:
    documented = set(re.findall(r"^\| `([A-Z0-9_]+)` \|", OPERATIONS.read_text(), re.MULTILINE))
    services: list[type[Settings]] = [SourceSettings, StreamSettings, ProcessorSettings, SinkSettings, AuditorSettings]
    kinds: list[type[Settings]] = [*services, GlueSettings, LogSettings]
    assert documented == {name.upper() for kind in kinds for name in kind.model_fields}


def test_each_wrong_setting_is_a_line_with_what_is_allowed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("STREAM", "rabbit")
    monkeypatch.setenv("WINDOWS", "1m 7w")
    monkeypatch.setenv("TOP_K", "many")
    with pytest.raises(SystemExit) as exit_:
        load(ProcessorSettings)
    assert exit_.value.code == 2
    lines = {line.partition(":")[0]: line for line in capsys.readouterr().err.splitlines()}
    assert set(lines) == {"STREAM", "WINDOWS", "TOP_K", "RECOVERY_DIR"}
    assert "allowed: kafka, kinesis" in lines["STREAM"]
    assert "a whole number and s, m, h or d" in lines["WINDOWS"]
    assert "is not set" in lines["RECOVERY_DIR"]


@pytest.mark.parametrize(
    ("environment", "faulty"),
    [
        ({"DEAD_LETTERS_STREAM": "orders"}, "DEAD_LETTERS_STREAM"),
        ({"ORDERS_STREAM": "orders-dead-letters"}, "DEAD_LETTERS_STREAM"),
        ({"ORDERS_STREAM": "sales-rollups"}, "ROLLUPS_STREAM"),
        ({"ROLLUPS_STREAM": "x", "DEAD_LETTERS_STREAM": "x"}, "DEAD_LETTERS_STREAM"),
        ({"REGION_OVERRIDES": '{"X/": "Europe"}'}, "REGION_OVERRIDES"),
        ({"REGION_OVERRIDES": '{"XK\\n": "Europe"}'}, "REGION_OVERRIDES"),
        ({"REGION_OVERRIDES": '{"uk": "Europe"}'}, "REGION_OVERRIDES"),
    ],
)
def test_what_would_feed_a_stream_into_itself_or_break_a_scope_is_refused(
    environment: dict[str, str], faulty: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in {"STREAM": "kafka", "RECOVERY_DIR": "state", **environment}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit):
        load(ProcessorSettings)
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{faulty}: ")


def test_a_country_that_iso_does_not_list_can_be_added(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REGION_OVERRIDES", '{"XK": "Europe"}')
    assert "XK" in load(RuleSettings).rules().countries


def test_an_empty_variable_is_an_unset_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WINDOWS", "")
    settings = load(BoardSettings)
    assert [window.name for window in settings.windows] == ["1m", "5m", "15m", "1h", "24h"]


def test_a_password_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", "redis://:hush@example.com/0")
    monkeypatch.setenv("STREAM", "kafka")
    monkeypatch.setenv("KAFKA_SASL_PASSWORD", "hush")
    monkeypatch.setenv("KAFKA_SSL_KEY_PASSWORD", "")
    assert "hush" not in repr((load(StreamSettings), load(BoardSettings)))


@pytest.mark.parametrize(
    ("kind", "name", "wrong"),
    [
        (BoardSettings, "REDIS_URL", "hush:6379"),
        (BoardSettings, "REDIS_URL", "redis://:hush@example.com:port/0"),
        (BoardSettings, "REDIS_URL", "redis://:hush@example.com/0?no_such_option=1"),
        (BoardSettings, "REDIS_URL", "rediss://:hush@example.com/0?ssl_cert_reqs=hush"),
        (AwsSettings, "AWS_ENDPOINT_URL", "hush:5000"),
        (AwsSettings, "AWS_ENDPOINT_URL", "redis://hush:5000"),
        (AwsSettings, "AWS_ENDPOINT_URL", "http://user:hush@example.com:port"),
        (AwsSettings, "AWS_ENDPOINT_URL", "http://hush example.com"),
        (AwsSettings, "AWS_ENDPOINT_URL_S3", "hush:8333"),
        (AwsSettings, "AWS_ENDPOINT_URL", "http://user:hush@example.com"),
    ],
)
def test_an_address_that_is_none_is_a_line_that_does_not_repeat_it(
    kind: type[Settings], name: str, wrong: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(name, wrong)
    with pytest.raises(SystemExit) as exit_:
        load(kind)
    assert exit_.value.code == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{name}: is no address")
    assert line.count("allowed: ") == 1
    assert "hush" not in line


@pytest.mark.parametrize(
    ("kind", "name", "right"),
    [
        (BoardSettings, "REDIS_URL", "rediss://user:password@example.com:6380/0?socket_timeout=5"),
        (BoardSettings, "REDIS_URL", "unix:///run/redis.sock"),
        (AwsSettings, "AWS_ENDPOINT_URL", "http://127.0.0.1:5000"),
        (AwsSettings, "AWS_ENDPOINT_URL", "https://s3.example.com/"),
        (AwsSettings, "AWS_ENDPOINT_URL", "http://[::1]:5000"),
    ],
)
def test_an_address_stays_as_it_was_given(
    kind: type[Settings], name: str, right: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, right)
    value = getattr(load(kind), name.lower())
    assert (value.get_secret_value() if name == "REDIS_URL" else value) == right


@pytest.mark.parametrize("service", ["s3", "dynamodb", "kinesis", "glue"])
def test_the_address_of_one_service_comes_before_that_of_all(
    service: AwsService, monkeypatch: pytest.MonkeyPatch
) -> None:
    def addresses() -> list[str | None]:
        return [load(AwsSettings).endpoint(each) for each in get_args(AwsService)]

    assert addresses() == [None] * 4
    monkeypatch.setenv(f"AWS_ENDPOINT_URL_{service.upper()}", "http://own:1")
    assert sorted(addresses(), key=str) == [None, None, None, "http://own:1"]
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://all:2")
    assert sorted(addresses(), key=str) == ["http://all:2"] * 3 + ["http://own:1"]
    assert load(AwsSettings).endpoint(service) == "http://own:1"


def test_a_message_says_which_aws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://s3:8333")
    settings = load(AwsSettings)
    assert (settings.whereabouts("s3"), settings.whereabouts("dynamodb")) == ("http://s3:8333", "AWS us-east-1")


def test_an_s3_of_ones_own_has_its_buckets_in_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://s3:8333")
    client = aws.client("s3", load(AwsSettings), connections=1)
    assert (client.meta.endpoint_url, client.meta.config.s3["addressing_style"]) == ("http://s3:8333", "path")
    client.close()
