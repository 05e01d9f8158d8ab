"""The generator's settings. Names in the environment are the fields' names in capitals."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator
from pydantic_settings import NoDecode

from generator.disturbances import Mix
from generator.pacing import Rate, Speed
from sales.settings import AwsSettings, MetricsSettings, RuleSettings, Settings, StreamSettings
from sales.times import INVALID_TIME, parse_time


def _instant(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    time = parse_time(value)
    if time == INVALID_TIME:
        raise ValueError(f"{value!r} is no time; allowed: RFC 3339 with an offset (2026-11-20T08:00:00Z)")
    return time


Share = Annotated[float, Field(ge=0, le=1)]
Instant = Annotated[int, BeforeValidator(_instant)]
"""ms since 1970; written in RFC 3339"""


class SourceSettings(Settings):
    """Where orders come from, how fast, and what goes wrong with them."""

    source: Literal["synthetic", "replay"] = "synthetic"
    manifest: Path | None = None
    """where to write what was sent, counted, at the end; unset: nowhere"""
    speed: Annotated[Speed, NoDecode] = Speed(1.0)
    """how fast event time runs, with START or a replay: 1x, 3600x, max"""
    until: Instant | None = None
    """the last event time that is sent; of a replay, the file's own"""

    seed: Annotated[int, Field(ge=0, lt=2**63)] = 1
    rate: Annotated[Rate, NoDecode] = Rate(500.0)
    """good orders a second: 500/s, 30/min, max; what DUPLICATES to UNKNOWN_CURRENCY bring comes on top"""
    orders: Annotated[int, Field(ge=0)] = 0
    """good orders in all; 0: endless"""
    products: Annotated[int, Field(ge=1, le=100_000)] = 500
    customers: Annotated[int, Field(ge=1, le=1_000_000)] = 10_000
    returns: Share = 0.04
    """share of orders that bring back an earlier one"""
    rhythm: Literal["steady", "shop"] = "steady"
    """steady: RATE holds all day, only the countries change; shop: RATE is the mean of a week"""
    start: Instant | None = None
    """when the shop's clock begins; unset: it is the real clock. With START, the same seed gives the same bytes"""

    late: Share = 0.0
    out_of_order: Share = 0.0
    duplicates: Share = 0.0
    conflicts: Share = 0.0
    malformed: Share = 0.0
    future: Share = 0.0
    unknown_currency: Share = 0.0

    replay_file: Annotated[Path | None, Field(validate_default=True)] = None
    """CSV (also .gz, .bz2, .zst) or Parquet, a row for each order line"""
    replay_mapping: str = "online-retail"
    """name of a mapping that ships, or path of a TOML file"""
    shift_to_now: bool = False
    """moves all event times by one distance: at 1x the first order is now, at any other speed the last"""

    @field_validator("rate", mode="before")
    @classmethod
    def _rate(cls, value: Any) -> Any:
        return Rate.parse(value) if isinstance(value, str) else value

    @field_validator("speed", mode="before")
    @classmethod
    def _speed(cls, value: Any) -> Any:
        return Speed.parse(value) if isinstance(value, str) else value

    @field_validator("start")
    @classmethod
    def _start(cls, value: int | None, info: ValidationInfo) -> int | None:
        rate = info.data.get("rate")
        if value is not None and isinstance(rate, Rate) and rate.per_second is None:
            raise ValueError("needs a RATE in orders a second (RATE is max)")
        return value

    @field_validator("out_of_order")
    @classmethod
    def _out_of_order(cls, value: float, info: ValidationInfo) -> float:
        if value + info.data.get("late", 0.0) > 1:
            raise ValueError("LATE and OUT_OF_ORDER together are more than 1")
        return value

    @field_validator("replay_file")
    @classmethod
    def _replay_file(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        if value is None and info.data.get("source") == "replay":
            raise ValueError("is not set; SOURCE=replay needs it")
        return value

    @field_validator("manifest")
    @classmethod
    def _manifest(cls, value: Path | None) -> Path | None:
        if value is not None and not value.parent.is_dir():
            raise ValueError(f"there is no folder {value.parent}")
        return value

    def mix(self) -> Mix:
        """The disturbances."""
        return Mix(
            late=self.late,
            out_of_order=self.out_of_order,
            duplicates=self.duplicates,
            conflicts=self.conflicts,
            malformed=self.malformed,
            future=self.future,
            unknown_currency=self.unknown_currency,
        )


class GeneratorSettings(SourceSettings, StreamSettings, AwsSettings, RuleSettings, MetricsSettings):
    """All that the service is told: the source, the wire that it sends to, the pipeline's own rules, and where its
    metrics are served."""
