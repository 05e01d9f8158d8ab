"""Minor units as people read them. Inside, money is integers; decimals appear at the edges only. Pure."""

from decimal import Decimal

# ISO 4217, the currencies whose minor unit is not a hundredth (the historical and fund codes left out).
_EXPONENT_OF = {
    **dict.fromkeys(("BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF").split(), 0),
    **dict.fromkeys(("BHD IQD JOD KWD LYD OMR TND").split(), 3),
}


def exponent(currency: str) -> int:
    """How many decimal digits the currency has: 2 for most, 0 for JPY, 3 for KWD."""
    return _EXPONENT_OF.get(currency, 2)


def to_decimal(minor: int, currency: str) -> Decimal:
    """Minor units to the currency's major unit, exact: 1234 USD to 12.34."""
    return Decimal(minor).scaleb(-exponent(currency))


def to_text(minor: int, digits: int) -> str:
    """Minor units as a decimal number in plain digits, exact: 1234 to ``12.34``, -5 to ``-0.05``.

    Args:
        minor: the amount.
        digits: how many digits stand behind the point; see ``exponent``.
    """
    if digits == 0:
        return str(minor)
    text = str(abs(minor)).zfill(digits + 1)
    return f"{'-' if minor < 0 else ''}{text[:-digits]}.{text[-digits:]}"


def average_minor(total_minor: int, count: int) -> int:
    """Total / count in minor units, half up (towards plus infinity); count > 0."""
    return (2 * total_minor + count) // (2 * count)
