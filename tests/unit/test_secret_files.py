"""Secrets from files, as Docker and Kubernetes mount them: each that can't be used is a line that names the file."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from processor.settings import ProcessorSettings
from sales.settings import BoardSettings, RuleSettings, Settings, StreamSettings, load

URL = "rediss://processor:hush@redis.example.com:6380/0"


@pytest.fixture
def secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that SECRETS_DIR names; nothing else is in the environment."""
    for name in {*ProcessorSettings.model_fields, *BoardSettings.model_fields}:
        monkeypatch.delenv(name.upper(), raising=False)
    folder = tmp_path / "secrets"
    folder.mkdir()
    monkeypatch.setenv("SECRETS_DIR", str(folder))
    monkeypatch.setenv("STREAM", "kafka")
    return folder


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Callable[[type[Settings]], str]:
    """The one line on which a service ends with exit code 2."""

    def ask(kind: type[Settings]) -> str:
        with pytest.raises(SystemExit) as exit_:
            load(kind)
        assert exit_.value.code == 2
        [line] = capsys.readouterr().err.splitlines()
        return line

    return ask


def redis_url() -> str:
    return load(BoardSettings).redis_url.get_secret_value()


def test_each_file_is_a_setting(secrets: Path) -> None:
    (secrets / "redis_url").write_text(URL)
    (secrets / "kafka_sasl_password").write_text("open sesame")
    assert redis_url() == URL
    assert load(StreamSettings).kafka_sasl_password.get_secret_value() == "open sesame"


def test_a_file_may_have_the_variables_name(secrets: Path) -> None:
    (secrets / "REDIS_URL").write_text(URL)
    assert redis_url() == URL


@pytest.mark.parametrize("around", ["{}\n", "{}\r\n", "\n {} \n\n"])
def test_white_space_around_a_value_is_no_part_of_it(secrets: Path, around: str) -> None:
    (secrets / "redis_url").write_text(around.format(URL), newline="")
    assert redis_url() == URL


def test_the_environment_comes_before_a_file(secrets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (secrets / "redis_url").write_text(URL)
    monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:1/0")
    assert redis_url() == "redis://127.0.0.1:1/0"


def test_an_empty_variable_leaves_the_word_to_the_file(secrets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (secrets / "redis_url").write_text(URL)
    monkeypatch.setenv("REDIS_URL", "")
    assert redis_url() == URL


def test_files_that_are_no_setting_of_this_service_are_left_alone(secrets: Path) -> None:
    """One folder may serve several services."""
    (secrets / "grafana_password").write_text("hush")
    (secrets / "redis_url").write_text(URL)
    assert "grafana_password" not in load(BoardSettings).model_dump()


def test_a_mounted_secret_of_kubernetes_is_read_through_its_links(secrets: Path) -> None:
    """The kubelet mounts a folder for each version, a link to the present one, and a link for each key."""
    version = secrets / "..2026_11_21_03_40_00.1"
    version.mkdir()
    (version / "redis_url").write_text(URL)
    (secrets / "..data").symlink_to(version.name)
    (secrets / "redis_url").symlink_to("..data/redis_url")
    assert redis_url() == URL


def test_no_folder_named_so_means_no_files(monkeypatch: pytest.MonkeyPatch, secrets: Path) -> None:
    (secrets / "redis_url").write_text(URL)
    monkeypatch.setenv("SECRETS_DIR", "")
    assert redis_url() == "redis://127.0.0.1:6379/0"


def test_a_folder_that_is_missing_is_refused(
    refused: Callable[[type[Settings]], str], secrets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for wrong in (secrets / "missing", secrets / "file"):
        (secrets / "file").write_text("hush")
        monkeypatch.setenv("SECRETS_DIR", str(wrong))
        assert refused(BoardSettings) == f"SECRETS_DIR: {wrong} is no directory"


def test_a_value_that_is_wrong_names_the_file_and_not_the_value(
    secrets: Path, refused: Callable[[type[Settings]], str]
) -> None:
    (secrets / "redis_url").write_text("hush:6379")
    line = refused(BoardSettings)
    assert line.startswith(f"REDIS_URL ({secrets}/redis_url): is no address of a Redis")
    assert "hush" not in line


def test_a_fault_of_the_environment_does_not_blame_a_file(
    secrets: Path, refused: Callable[[type[Settings]], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (secrets / "redis_url").write_text(URL)
    monkeypatch.setenv("REDIS_URL", "hush:6379")
    assert refused(BoardSettings).startswith("REDIS_URL: is no address")


def test_an_empty_file_is_a_fault_where_a_value_is_needed(
    secrets: Path, refused: Callable[[type[Settings]], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (secrets / "kafka_sasl_password").write_text("\n")
    monkeypatch.setenv("KAFKA_SECURITY_PROTOCOL", "SASL_SSL")
    monkeypatch.setenv("KAFKA_SASL_USERNAME", "processor")
    line = refused(StreamSettings)
    assert line == (
        f"KAFKA_SASL_PASSWORD ({secrets}/kafka_sasl_password): is not set; KAFKA_SECURITY_PROTOCOL=SASL_SSL asks for it"
    )


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
def test_a_file_that_may_not_be_read_is_refused(secrets: Path, refused: Callable[[type[Settings]], str]) -> None:
    (secrets / "redis_url").write_text(URL)
    (secrets / "redis_url").chmod(0)
    assert refused(BoardSettings) == f"REDIS_URL ({secrets}/redis_url): can't be read: Permission denied"


def test_a_file_that_fails_to_be_read_is_refused(
    secrets: Path, refused: Callable[[type[Settings]], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As above, and as root: the disk, or a mount that has gone, says no."""
    (secrets / "redis_url").write_text(URL)

    def fail(*_: object, **__: object) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_text", fail)
    assert refused(BoardSettings) == f"REDIS_URL ({secrets}/redis_url): can't be read: Permission denied"


def test_a_folder_in_place_of_a_file_is_refused(secrets: Path, refused: Callable[[type[Settings]], str]) -> None:
    """Docker makes one where the file to be mounted is missing."""
    (secrets / "redis_url").mkdir()
    line = refused(BoardSettings)
    assert line.startswith(f"REDIS_URL ({secrets}/redis_url): ")
    assert "directory" in line


def test_a_link_that_leads_out_of_the_folder_is_refused(
    secrets: Path, tmp_path: Path, refused: Callable[[type[Settings]], str]
) -> None:
    (tmp_path / "elsewhere").write_text(URL)
    (secrets / "redis_url").symlink_to(tmp_path / "elsewhere")
    line = refused(BoardSettings)
    assert "outside" in line
    assert "hush" not in line


def test_bytes_that_are_no_text_are_refused_and_not_repeated(
    secrets: Path, refused: Callable[[type[Settings]], str]
) -> None:
    (secrets / "redis_url").write_bytes(b"hush\xff\xfe")
    assert refused(BoardSettings) == f"REDIS_URL ({secrets}/redis_url): is no text in UTF-8"


def test_json_that_is_none_is_refused_and_not_repeated(
    secrets: Path, refused: Callable[[type[Settings]], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (secrets / "region_overrides").write_text("hush")
    assert refused(RuleSettings) == f"REGION_OVERRIDES ({secrets}/region_overrides): is no JSON"
    monkeypatch.setenv("REGION_OVERRIDES", "hush")
    assert refused(RuleSettings) == "REGION_OVERRIDES: is no JSON"


@pytest.mark.parametrize(
    ("environment", "line"),
    [
        (
            {"KAFKA_SECURITY_PROTOCOL": "SASL_SSL", "KAFKA_SASL_USERNAME": "u"},
            "KAFKA_SASL_PASSWORD: is not set; KAFKA_SECURITY_PROTOCOL=SASL_SSL asks for it",
        ),
        (
            {"KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT", "KAFKA_SASL_PASSWORD": "hush"},
            "KAFKA_SASL_USERNAME: is not set; KAFKA_SECURITY_PROTOCOL=SASL_PLAINTEXT asks for it",
        ),
        (
            {"KAFKA_SECURITY_PROTOCOL": "SSL", "KAFKA_SSL_CERTIFICATE_FILE": "c.pem"},
            "KAFKA_SSL_KEY_FILE: is not set, and KAFKA_SSL_CERTIFICATE_FILE is; it may be the same file",
        ),
        (
            {"KAFKA_SECURITY_PROTOCOL": "SSL", "KAFKA_SSL_KEY_FILE": "k.pem"},
            "KAFKA_SSL_KEY_FILE: is set without KAFKA_SSL_CERTIFICATE_FILE",
        ),
        (
            {"KAFKA_SECURITY_PROTOCOL": "SSL", "KAFKA_SSL_KEY_PASSWORD": "hush"},
            "KAFKA_SSL_KEY_PASSWORD: is set without KAFKA_SSL_KEY_FILE",
        ),
        (
            {"KAFKA_SSL_KEY_PASSWORD": "hush"},
            "KAFKA_SSL_KEY_PASSWORD: is set, and KAFKA_SECURITY_PROTOCOL=PLAINTEXT uses no TLS; allowed: SSL, SASL_SSL",
        ),
    ],
)
def test_what_belongs_together_on_the_way_to_kafka_is_set_together(
    secrets: Path,
    refused: Callable[[type[Settings]], str],
    monkeypatch: pytest.MonkeyPatch,
    environment: dict[str, str],
    line: str,
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert refused(StreamSettings) == line
