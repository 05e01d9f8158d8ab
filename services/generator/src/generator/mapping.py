"""How a file of order lines is to be read: a small TOML file, checked before the first row is."""

import tomllib
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Annotated
from zoneinfo import ZoneInfo

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from sales.countries import REGION_OF


class ReplayError(Exception):
    """The file or its mapping can't be used; the message is one line that says where and why."""


class Columns(BaseModel):
    """The file's names for what an order line is made of; None: the file has no such column."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")

    order_id: str
    event_time: str
    product_id: str
    quantity: str
    unit_price: str
    """decimal, in the currency's major unit"""
    product_name: str | None = None
    category: str | None = None
    discount_percent: str | None = None
    unit_cost: str | None = None
    """decimal, in the currency's major unit"""
    customer_id: str | None = None
    country: str | None = None


class CategoryRule(BaseModel):
    """A category, and the beginnings of words in a product's name that put it there."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")

    name: Annotated[str, Field(min_length=1)]
    words: Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1)]


class Mapping(BaseModel):
    """Everything that the file itself doesn't say."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")

    currency: Annotated[str, Field(pattern="^[A-Z]{3}$")]
    timezone: str
    """IANA name; for times without an offset. A time that the clock showed twice is the first of the two; one that it
    skipped is read with the offset from before the gap"""
    time_format: str | None = None
    """strptime's; None: ISO 8601"""
    return_prefix: str = ""
    """order ids that begin so are returns, with negative quantities; empty: there are none"""
    span_seconds: Annotated[int, Field(ge=0, le=7 * 86400)] = 3600
    """rows of one order, and rows out of time order, lie at most this far apart. Bounds the memory"""
    encoding: str = "utf-8"
    delimiter: Annotated[str, Field(min_length=1, max_length=1)] = ","
    no_products: list[str] = []
    """product ids, in any case, that are fees, postage, corrections"""
    default_country: str = "ZZ"
    columns: Columns
    countries: dict[str, str] = {}
    """the file's names to ISO 3166-1 alpha-2; codes are understood anyway"""
    categories: list[CategoryRule] = []
    """used where no column says the category; the first rule that fits wins"""

    @field_validator("timezone")
    @classmethod
    def _timezone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (OSError, ValueError) as error:  # ZoneInfoNotFoundError is a KeyError that hides an OSError on bad names
            raise ValueError(f"{value!r} is no IANA time zone") from error
        except KeyError:
            raise ValueError(f"{value!r} is no IANA time zone") from None
        return value

    @field_validator("encoding")
    @classmethod
    def _encoding(cls, value: str) -> str:
        try:
            "".encode(value)
        except LookupError:
            raise ValueError(f"{value!r} is no encoding") from None
        return value

    @field_validator("default_country")
    @classmethod
    def _default_country(cls, value: str) -> str:
        if value not in REGION_OF:
            raise ValueError(f"{value!r} is no ISO 3166-1 alpha-2 code (ZZ where unknown)")
        return value

    @field_validator("countries")
    @classmethod
    def _countries(cls, value: dict[str, str]) -> dict[str, str]:
        for name, code in value.items():
            if code not in REGION_OF:
                raise ValueError(
                    f"{name!r} is given as {code!r}, which is no ISO 3166-1 alpha-2 code (ZZ where unknown)"
                )
        return value


def load(name: str) -> Mapping:
    """A mapping that ships (by its name) or one from a TOML file (by its path: with a slash, or ending in .toml).

    Raises:
        ReplayError: there is none, or it is wrong; names each faulty entry.
    """
    file: Traversable
    if "/" in name or name.endswith(".toml"):
        file = Path(name)
    else:
        file = _shipped() / f"{name}.toml"
        if name not in shipped():
            raise ReplayError(f"there is no mapping {name!r}; those that ship: {', '.join(shipped())}; or give a path")
    try:
        document = tomllib.loads(file.read_text(encoding="utf-8"))
        return Mapping.model_validate(document)
    except OSError as error:
        raise ReplayError(f"the mapping {name} can't be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ReplayError(f"the mapping {name} is no TOML: {error}") from error
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(str(part) for part in fault['loc'])}: {fault['msg'].removeprefix('Value error, ')}"
            for fault in error.errors(include_url=False)
        )
        raise ReplayError(f"the mapping {name} is wrong: {faults}") from error


def shipped() -> list[str]:
    """Names of the mappings that come with the package."""
    return sorted(file.name.removesuffix(".toml") for file in _shipped().iterdir() if file.name.endswith(".toml"))


def _shipped() -> Traversable:
    return resources.files("generator") / "mappings"
