"""Settings from the environment, and nothing else (12-factor): one class for each thing that is configured.

Names are the fields' names in capitals: ``KAFKA_BOOTSTRAP_SERVERS``, ``WINDOWS``. ``load`` says one line for each
field that is missing or wrong and ends the process with exit code 2; it is for ``__main__`` modules alone.

What is not in the environment may be in a file: ``SECRETS_DIR`` names a folder, as Docker and Kubernetes mount secrets,
in which the file ``redis_url`` holds REDIS_URL.
"""

import os
import re
import sys
import types
import warnings
from collections.abc import Iterable
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn, TypeVar, Union, get_args, get_origin
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SecretsSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from sales.countries import region_table
from sales.events import Log, logs_json
from sales.rules import Rules
from sales.service import EXIT_SETTINGS
from sales.windows import Window, parse_windows

log = Log(__name__)

SECRETS_DIR = "SECRETS_DIR"
"""The variable that names a folder with a file for each secret."""


class SecretFiles(SecretsSettingsSource):
    """Settings from files of SECRETS_DIR, named as the settings are. White space around a value is no part of it: an
    editor ends a file with a line break. What can't be read is a fault and no warning: a service must not begin
    without its password."""

    def __call__(self) -> dict[str, Any]:
        """Field name to value, for each file there is."""
        if self.secrets_dir and not Path(str(self.secrets_dir)).is_dir():
            raise SettingsError(f"{SECRETS_DIR}: {self.secrets_dir} is no directory")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            return super().__call__()


class Settings(BaseSettings):
    """Base of all: reads the environment, then the files of SECRETS_DIR, keeps nothing it doesn't know, can't be
    changed. What is wrong is never repeated in a message: it may be a secret."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore", env_ignore_empty=True, hide_input_in_errors=True)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 (there is none)
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 (a folder that is fixed in the code)
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The first that has a value counts."""
        return init_settings, env_settings, SecretFiles(settings_cls, os.environ.get(SECRETS_DIR) or None)


class StreamSettings(Settings):
    """Which wire the streams are on, and what they are called."""

    stream: Literal["kafka", "kinesis"]
    orders_stream: str = "orders"
    """what the generator writes, and processor and sink read"""
    rollups_stream: str = "sales-rollups"
    """closed minutes, from the processor to the sink"""
    dead_letters_stream: str = "orders-dead-letters"
    """what could not be accepted, from the processor"""
    partitions: Annotated[int, Field(ge=1, le=1000)] = 4
    """partitions or shards that ``tillstream setup`` creates for each stream"""
    retention_hours: Annotated[int, Field(ge=24, le=8760)] = 72
    """how long a stream keeps records; more than the longest window, so that the windows can be rebuilt from it"""
    replication_factor: Annotated[int, Field(ge=1, le=9)] = 1
    """copies of each Kafka partition that ``tillstream setup`` asks for; 3 in production"""
    connect_seconds: Annotated[float, Field(gt=0, le=3600)] = 60
    """how long a service tries to reach a broker, Redis or AWS at its start before it gives up"""

    kafka_bootstrap_servers: str = "127.0.0.1:9092"
    """host:port, several with commas"""
    kafka_client: Literal["confluent", "kafka-python"] = "confluent"
    """confluent is native and fast; kafka-python is Python alone; all processes of a group take the same"""
    kafka_security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    kafka_sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "SCRAM-SHA-512"
    kafka_sasl_username: Annotated[str, Field(validate_default=True)] = ""
    kafka_sasl_password: Annotated[SecretStr, Field(validate_default=True)] = SecretStr("")
    kafka_ssl_ca_file: str = ""
    """path of a PEM file; empty: the system's authorities"""
    kafka_ssl_certificate_file: str = ""
    """path of a PEM file with the certificate that we show to brokers, for mutual TLS"""
    kafka_ssl_key_file: Annotated[str, Field(validate_default=True)] = ""
    """path of a PEM file with that certificate's key"""
    kafka_ssl_key_password: SecretStr = SecretStr("")
    """what that key is encrypted with"""

    @field_validator("kafka_sasl_username", "kafka_sasl_password")
    @classmethod
    def _for_sasl(cls, value: str | SecretStr, info: ValidationInfo) -> str | SecretStr:
        protocol = info.data.get("kafka_security_protocol", "")
        if protocol.startswith("SASL") and len(value) == 0:
            raise ValueError(f"is not set; KAFKA_SECURITY_PROTOCOL={protocol} asks for it")
        return value

    @field_validator("kafka_ssl_certificate_file", "kafka_ssl_key_file", "kafka_ssl_key_password")
    @classmethod
    def _for_mutual_tls(cls, value: str | SecretStr, info: ValidationInfo) -> str | SecretStr:
        protocol = info.data.get("kafka_security_protocol", "")
        if len(value) and protocol.endswith("PLAINTEXT"):
            raise ValueError(f"is set, and KAFKA_SECURITY_PROTOCOL={protocol} uses no TLS; allowed: SSL, SASL_SSL")
        if info.field_name == "kafka_ssl_key_file" and bool(value) != bool(info.data.get("kafka_ssl_certificate_file")):
            raise ValueError(
                "is set without KAFKA_SSL_CERTIFICATE_FILE"
                if value
                else "is not set, and KAFKA_SSL_CERTIFICATE_FILE is; it may be the same file"
            )
        if info.field_name == "kafka_ssl_key_password" and len(value) and not info.data.get("kafka_ssl_key_file", "-"):
            raise ValueError("is set without KAFKA_SSL_KEY_FILE")
        return value

    @field_validator("rollups_stream", "dead_letters_stream")
    @classmethod
    def _name_of_its_own(cls, value: str, info: ValidationInfo) -> str:
        for other in ("orders_stream", "rollups_stream"):
            if other != info.field_name and info.data.get(other) == value:
                raise ValueError(f"{value!r} is {other.upper()} already; each stream has a name of its own")
        return value


AwsService = Literal["s3", "dynamodb", "kinesis", "glue"]
"""As boto3 names them."""


class AwsSettings(Settings):
    """Where S3, DynamoDB and Kinesis are. Credentials come the way boto3 finds them, never through a setting here."""

    aws_region: str = "us-east-1"
    """of Kinesis, S3, DynamoDB and Glue"""
    aws_endpoint_url: str | None = None
    """an address that serves the AWS protocol (moto, a local store); unset: AWS itself"""
    aws_endpoint_url_s3: str | None = None
    """the same for S3 alone, and before AWS_ENDPOINT_URL"""
    aws_endpoint_url_dynamodb: str | None = None
    """for DynamoDB alone"""
    aws_endpoint_url_kinesis: str | None = None
    """for Kinesis alone"""
    aws_endpoint_url_glue: str | None = None
    """for Glue alone. With an S3 of its own address, ``tillstream setup`` asks Glue only where it has one too"""

    def endpoint(self, service: AwsService) -> str | None:
        """The address of one service; None: AWS itself."""
        own: str | None = getattr(self, f"aws_endpoint_url_{service}")
        return own or self.aws_endpoint_url

    def whereabouts(self, service: AwsService) -> str:
        """The same for people: ``http://s3:8333``, ``AWS us-east-1``."""
        return self.endpoint(service) or f"AWS {self.aws_region}"

    @field_validator(
        "aws_endpoint_url",
        "aws_endpoint_url_s3",
        "aws_endpoint_url_dynamodb",
        "aws_endpoint_url_kinesis",
        "aws_endpoint_url_glue",
    )
    @classmethod
    def _aws_endpoint_url(cls, value: str | None) -> str | None:
        if value is not None and not _is_endpoint(value):
            raise ValueError("is no address of a server; allowed: http://host:port, https://host")
        return value


class StoreSettings(AwsSettings):
    """The S3 bucket and the DynamoDB tables."""

    s3_bucket: str
    """where orders, rollups and dead letters are stored"""
    s3_prefix: str = ""
    """put before every key, with its own slash: ``team-a/``"""
    sales_table: str = "SalesData"
    """the DynamoDB table of orders"""
    trends_table: str = "SalesTrends"
    """the DynamoDB table of minutes"""
    dynamodb_billing: Literal["provisioned", "on-demand"] = "provisioned"
    """provisioned: 5 read and 5 write units for each table and index"""


class RotationSettings(Settings):
    """How soon what was sent is in S3."""

    rotate_seconds: Annotated[float, Field(gt=0, le=3600)] = 60
    """an extent is written this long after its first message, full or not, also when nothing follows; what verifies
    waits as long, and a minute more"""


class GlueSettings(Settings):
    """What Athena knows of the bucket."""

    glue_database: Annotated[str, Field(pattern="^[a-z0-9_]*$", max_length=255)] = ""
    """the Glue database that ``tillstream setup`` makes the tables in; unset: named after bucket and prefix, so that
    ``acme-sales`` with ``team-a/`` is ``acme_sales_team_a``"""
    glue_since: date = date(2020, 1, 1)
    """the first day that Athena looks at, and lists from there on where a question says no day; earlier orders are
    not found there"""


class RuleSettings(Settings):
    """What counts as an order of this shop, and how it is cut up."""

    currency: Annotated[str, Field(pattern="^[A-Z]{3}$")] = "USD"
    """the reporting currency, ISO 4217; orders in another are dead letters"""
    region_overrides: dict[str, str] = {}
    """JSON object, country code to region: {"XK": "Europe"}"""

    @field_validator("region_overrides")
    @classmethod
    def _codes(cls, value: dict[str, str]) -> dict[str, str]:
        for code in value:
            if not re.fullmatch("[A-Z]{2}", code):
                raise ValueError(f'{code!r} is no country code; allowed: two capital letters, {{"XK": "Europe"}}')
        return value

    def rules(self) -> Rules:
        """What the decoder accepts."""
        return Rules(currency=self.currency, countries=region_table(self.region_overrides).keys())


class BoardSettings(Settings):
    """The live numbers in Redis."""

    redis_url: SecretStr = SecretStr("redis://127.0.0.1:6379/0")
    """with user, password and TLS where needed: rediss://user:password@host:6380/0"""
    redis_prefix: str = "sales:"
    """``{sales}:`` keeps all keys in one slot of a Redis Cluster"""
    windows: Annotated[tuple[Window, ...], NoDecode] = parse_windows("1m 5m 15m 1h 24h")
    """lengths of the rolling windows: whole numbers of s, m, h or d"""
    top_k: Annotated[int, Field(ge=1, le=100_000)] = 100
    """how many products the top lists hold"""
    live_ttl_seconds: Annotated[int, Field(ge=30, le=7 * 86400)] = 3600
    """how long live keys outlive the processor that wrote them"""

    @field_validator("redis_url")
    @classmethod
    def _redis_url(cls, value: SecretStr) -> SecretStr:
        import redis  # noqa: PLC0415 (it takes a tenth of a second, and most commands ask no Redis)

        try:
            redis.ConnectionPool.from_url(value.get_secret_value()).make_connection()  # made, not yet connected
        except (ValueError, TypeError, redis.RedisError):  # an address, an option's name, an option's value
            raise ValueError(
                "is no address of a Redis; allowed: redis://host:6379/0, rediss://user:password@host:6380/0"
            ) from None
        return value

    @field_validator("windows", mode="before")
    @classmethod
    def _windows(cls, value: Any) -> Any:
        return parse_windows(value) if isinstance(value, str) else value


class MetricsSettings(Settings):
    """Where a service tells of itself."""

    metrics_host: str = "127.0.0.1"
    """where ``/metrics``, ``/live`` and ``/ready`` are served"""
    metrics_port: Annotated[int, Field(ge=0, le=65_535)] = 0
    """their port; 0: they are not served"""


class LogSettings(Settings):
    """What a service says on stderr, and how."""

    log_format: Literal["text", "json"] = "text"
    """text: lines for people; json: one JSON object a line"""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """the least of what is said; of libraries' lines, warnings at the least"""


S = TypeVar("S", bound=Settings)


def load(kind: type[S], **given: Any) -> S:
    """The settings from the environment; on faults see `refuse`.

    Args:
        kind: which.
        given: what does not come from the environment, by the fields' names.
    """
    try:
        return kind(**given)
    except (ValidationError, SettingsError) as error:
        refuse(describe(kind, error))


def refuse(problems: Iterable[str]) -> NoReturn:
    """Ends the process with exit code 2, after a line on stderr for each problem: the line itself, for whoever sits at
    a prompt; where the log is JSON, an event.

    Args:
        problems: ``SETTING: what is wrong``, as `describe` has them.
    """
    for problem in problems:
        if logs_json():
            setting, _, wrong = problem.partition(": ")
            log.error("setting_refused", "{setting}: {problem}", setting=setting, problem=wrong)
        else:
            sys.stderr.write(f"{problem}\n")
    raise SystemExit(EXIT_SETTINGS) from None


def describe(kind: type[Settings], error: ValidationError | SettingsError) -> list[str]:
    """One line for each faulty setting: its name in the environment, what is wrong, what is allowed, and in which file
    it is where it is in one."""
    if isinstance(error, SettingsError):
        return [_unreadable(error)]
    lines: dict[str, str] = {}
    for fault in error.errors(include_url=False, include_input=False):
        name = str(fault["loc"][0]) if fault["loc"] else ""
        field = kind.model_fields.get(name)
        # A validator of ours says itself what is allowed.
        allowed = _allowed(field.annotation) if field is not None and fault["type"] != "value_error" else ""
        problem = "is not set" if fault["type"] == "missing" else fault["msg"].removeprefix("Value error, ")
        line = f"{name.upper()}{_in_file(name)}: {problem}"
        lines.setdefault(name, f"{line}; allowed: {allowed}" if allowed else line)
    return list(lines.values())


def _unreadable(error: SettingsError) -> str:
    """The line for what could not even be taken for a value; pydantic's own words say which field, the cause says why.
    None of them repeats what was read."""
    found = re.search(r'field "(\w+)"', str(error))
    if found is None:
        return str(error)
    name, cause = found[1], error.__cause__
    if isinstance(cause, OSError):
        why = f"can't be read: {cause.strerror}"
    elif isinstance(cause, UnicodeDecodeError):
        why = "is no text in UTF-8"
    elif isinstance(cause, Warning):
        why = str(cause)
    else:
        why = "is no JSON"
    return f"{name.upper()}{_in_file(name)}: {why}"


def _in_file(name: str) -> str:
    """Where a setting's value comes from, if that is a file."""
    folder = os.environ.get(SECRETS_DIR)
    if not folder or os.environ.get(name.upper()):
        return ""
    path = SecretFiles.find_case_path(Path(folder), name, case_sensitive=False)
    return f" ({path})" if path is not None else ""


def _is_endpoint(url: str) -> bool:
    """Would botocore take it? Imported where an address is given, as it takes its time."""
    from botocore.utils import is_valid_endpoint_url, is_valid_ipv6_endpoint_url  # noqa: PLC0415

    try:
        parts = urlsplit(url)
        # AWS knows no user in an address, and an address is shown.
        known = parts.scheme in ("http", "https") and parts.port != 0 and "@" not in parts.netloc
    except ValueError:  # a port that is no number, brackets that don't close
        return False
    return known and bool(is_valid_endpoint_url(url) or is_valid_ipv6_endpoint_url(url))


def _allowed(annotation: Any) -> str:
    """The values a field takes, in words, where they can be listed or named."""
    origin = get_origin(annotation)
    if origin is Literal:
        return ", ".join(str(value) for value in get_args(annotation))
    if origin in (Union, types.UnionType):
        return ", ".join(_allowed(part) for part in get_args(annotation) if part is not type(None))
    return {int: "a whole number", float: "a number", str: "text", bool: "true or false"}.get(annotation, "")
