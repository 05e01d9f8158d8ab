"""A mapping says what a file doesn't; a wrong one is refused before the first row is read."""

from pathlib import Path

import pytest

from generator import mapping, replay
from generator.mapping import ReplayError
from generator.replay import Report

MINIMAL = """
currency = "EUR"
timezone = "Europe/Berlin"

[columns]
order_id = "nr"
event_time = "am"
product_id = "artikel"
quantity = "menge"
unit_price = "preis"
"""


def test_every_country_of_the_shipped_mapping_has_a_code() -> None:
    assert len(mapping.load("online-retail").countries) == 38


def test_a_file_of_another_shape_is_read_by_a_mapping_of_its_own(tmp_path: Path) -> None:
    rules = tmp_path / "shop.toml"
    rules.write_text(
        MINIMAL.replace('timezone = "Europe/Berlin"', 'timezone = "Europe/Berlin"\ntime_format = "%d.%m.%Y %H:%M"')
        .replace("[columns]", 'delimiter = ";"\nencoding = "latin-1"\ndefault_country = "DE"\n[columns]')
        .replace(
            'unit_price = "preis"',
            'unit_price = "preis"\ndiscount_percent = "rabatt"\nunit_cost = "einkauf"\ncategory = "gruppe"',
        )
    )
    file = tmp_path / "verkauf.csv"
    file.write_bytes(
        "am;nr;menge;preis;artikel;rabatt;einkauf;gruppe\n24.12.2025 09:30;7;2;1.50;Ä1;10;0.75;Küche\n".encode(
            "latin-1"
        )
    )
    report = Report()
    [order] = replay.orders(file, mapping.load(str(rules)), report)
    assert order.value.decode() == (
        '{"schema":1,"type":"sale","order_id":"7","event_time":"2025-12-24T08:30:00.000Z","customer_id":null,'
        '"country":"DE","currency":"EUR","lines":[{"product_id":"Ä1","product_name":"","category":"Küche",'
        '"quantity":2,"unit_amount":150,"discount_percent":10,"unit_cost":75}]}'
    )
    assert order.net_minor == 270
    assert report.fates == {"sold": 1}


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (('currency = "EUR"', ""), "currency: Field required"),
        (('"EUR"', '"euro"'), "currency: String should match"),
        (('"Europe/Berlin"', '"Berlin"'), "timezone: 'Berlin' is no IANA time zone"),
        (('"Europe/Berlin"', '"../etc"'), "timezone: '../etc' is no IANA time zone"),
        (('order_id = "nr"', ""), "columns.order_id: Field required"),
        (('order_id = "nr"', 'order_id = "nr"\ncolour = "farbe"'), "columns.colour: Extra inputs"),
        (("[columns]", 'encoding = "klingon"\n[columns]'), "encoding: 'klingon' is no encoding"),
        (("[columns]", 'default_country = "UK"\n[columns]'), "default_country: 'UK' is no ISO 3166-1"),
        (("[columns]", '[countries]\nEngland = "UK"\n[columns]'), "countries: 'England' is given as 'UK'"),
        (("[columns]", "[columns"), "is no TOML"),
    ],
)
def test_a_wrong_mapping_is_one_line_that_names_the_entry(
    tmp_path: Path, change: tuple[str, str], complaint: str
) -> None:
    path = tmp_path / "shop.toml"
    path.write_text(MINIMAL.replace(*change))
    with pytest.raises(ReplayError) as caught:
        mapping.load(str(path))
    assert complaint in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_mapping_that_does_not_ship_is_answered_with_those_that_do() -> None:
    with pytest.raises(ReplayError, match="those that ship: online-retail"):
        mapping.load("onlineretail")


def test_a_missing_mapping_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ReplayError, match=r"none.toml can't be read: No such file"):
        mapping.load(str(tmp_path / "none.toml"))
