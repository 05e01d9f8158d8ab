"""What rollups are told of, as numbers: countries (``GB``), and countries with a category (``GB/Home``). Pure."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sales.columnar.countries import COUNTRY_CODES, country_text
from sales.columnar.texts import Names
from sales.rollups import cell_scope


@dataclass(frozen=True, slots=True)
class Scopes:
    """Names of scopes: below COUNTRY_CODES a country; from there on a country and one of some categories."""

    categories: Names

    def text(self, code: int) -> str:
        """The name of a scope."""
        category, country = divmod(code, COUNTRY_CODES)
        if category == 0:
            return country_text(country)
        return cell_scope(country_text(country), self.categories.text(category - 1))


def cell_codes(countries: npt.NDArray[np.int64], categories: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Scopes of countries and categories, by their codes."""
    return (categories + 1) * COUNTRY_CODES + countries


def scope_codes(categories: int) -> int:
    """How many scopes there can be with so many categories."""
    return (categories + 1) * COUNTRY_CODES
