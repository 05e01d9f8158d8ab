"""Two letters as a number, 26 x first + second: how a country travels to the sums. Pure."""

COUNTRY_CODES = 26 * 26
"""How many numbers there are."""


def country_code(country: str) -> int:
    """The number of two capital letters."""
    return (ord(country[0]) - ord("A")) * 26 + ord(country[1]) - ord("A")


def country_text(code: int) -> str:
    """The letters of a number."""
    return chr(code // 26 + ord("A")) + chr(code % 26 + ord("A"))


class _Countries:
    """Countries as names of cells."""

    def text(self, code: int) -> str:
        """The letters of a number."""
        return country_text(code)

    def __len__(self) -> int:
        return COUNTRY_CODES


COUNTRIES = _Countries()
