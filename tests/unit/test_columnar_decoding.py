"""Both tiers of decoding give one answer, on whatever arrives: same accepted, same rejected, same numbers."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sales.columnar import columns as c
from sales.columnar import scanner
from sales.columnar.decoding import Decoded, Decoder, Secrets
from sales.columnar.texts import Dictionary, PlainDictionary, text_hash
from sales.countries import REGION_OF
from sales.memory import PADDING
from sales.rules import Rules
from sales.streams import Chunk
from sales.streams.packed import Packed, pack
from sales.times import INVALID_TIME, parse_time

NOON = 1_795_176_000_000
RULES = Rules("USD", REGION_OF.keys())
KEY = (0x0706050403020100, 0x0F0E0D0C0B0A0908)


def an_order(**fields: Any) -> dict[str, Any]:
    line = {
        "product_id": "85123A",
        "product_name": "White hanging heart",
        "category": "Home",
        "quantity": 6,
        "unit_amount": 255,
        "discount_percent": 10,
        "unit_cost": 140,
    }
    order = {
        "schema": 1,
        "type": "sale",
        "order_id": "0191f0c2-7d1e",
        "event_time": "2026-11-20T11:59:33.123Z",
        "customer_id": 17850,
        "country": "GB",
        "currency": "USD",
        "lines": [line],
    }
    return order | fields


def a_run(*messages: tuple[bytes | None, bytes], first: int = 100) -> Packed:
    positions = list(range(first, first + len(messages)))
    keys, values = [key for key, _ in messages], [value for _, value in messages]
    return pack(Chunk("0", keys, values, positions, [NOON] * len(messages)))


def _with_lines(value: bytes, count: int) -> bytes:
    order = json.loads(value)
    return json.dumps({**order, "lines": order["lines"] * count}).encode()


def text_of(dictionary: Dictionary, codes: np.typing.NDArray[np.int64]) -> list[str]:
    return [dictionary.text(code) for code in codes.tolist()]


def meaning(decoded: Decoded, decoder: Decoder) -> dict[str, Any]:
    """What was decoded, without what belongs to one decoder or tier only."""
    dictionaries = decoder.dictionaries
    lines = decoded.columns.lines
    return {
        "orders": decoded.columns.orders[: c.ORIGINAL_PLACE].tolist(),
        "numbers": lines[[c.ORDER, c.QUANTITY, c.UNIT_AMOUNT, c.DISCOUNT, c.UNIT_COST]].tolist(),
        "products": text_of(dictionaries.products, lines[c.PRODUCT]),
        "names": text_of(dictionaries.names, lines[c.NAME]),
        "categories": text_of(dictionaries.categories, lines[c.CATEGORY]),
        "contents": decoder.contents(decoded.columns).tolist(),
        "rejected": sorted(
            (rejection.position, rejection.reason, rejection.detail) for _, rejection in decoded.rejected
        ),
    }


def both(*runs: Packed) -> tuple[dict[str, Any], Decoded]:
    """The meaning of some messages, which both tiers agree on, and what the compiled one decoded."""
    plain = Decoder(RULES, Secrets.of(7), compiled=False)
    compiled = Decoder(RULES, Secrets.of(7), compiled=True)
    expected = meaning(plain.decode(runs), plain)
    decoded = compiled.decode(runs)
    assert meaning(decoded, compiled) == expected
    return expected, decoded


# -------------------------------------------------------------------------------------- what the compiled tier takes


@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": "), ("\n,\t", " : ")])
@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"type": "return", "original_order_id": "0191f0c2-0000"},
        {"customer_id": None, "original_order_id": None},
        {"customer_id": -5},
        {"event_time": "2026-11-20T11:59:33Z"},
        {"event_time": "2026-11-20T13:59:33.1+02:00"},
        {"event_time": "2026-11-20T06:29:33.123456789-05:30"},
        {"event_time": "2024-02-29T23:59:59.999Z"},
        {"lines": [{"product_id": "é€😀", "quantity": 1, "unit_amount": 0}] * 3},
        {"lines": [{"unit_cost": None, "unit_amount": 10**11, "quantity": 9, "product_id": "x" * 256}]},
    ],
    ids=str,
)
def test_a_well_formed_order_is_taken_by_the_compiled_tier(fields: dict[str, Any], separators: tuple[str, str]) -> None:
    order = an_order(**fields)
    value = json.dumps(order, separators=separators, ensure_ascii=False).encode()
    expected, decoded = both(a_run((b"0191f0c2-7d1e", value)))
    assert decoded.scanned == 1
    assert expected["orders"][c.EVENT_TIME] == [parse_time(order["event_time"])]


def test_what_is_left_out_has_its_default_in_both_tiers() -> None:
    value = json.dumps(an_order(lines=[{"product_id": "1", "quantity": 2, "unit_amount": 3}])).encode()
    expected, decoded = both(a_run((b"0191f0c2-7d1e", value)))
    assert (expected["names"], expected["categories"]) == ([""], ["Uncategorised"])
    assert decoded.scanned == 1


# ------------------------------------------------------------------------------------------ what it must leave alone

HOSTILE: list[tuple[str, Callable[[bytes], bytes]]] = [
    ("a text with an escape", lambda value: value.replace(b"White", b"Wh\\u0069te")),
    ("a quote in a name", lambda value: value.replace(b"White", b'W\\"hite')),
    ("no UTF-8", lambda value: value.replace(b"White", b"Wh\xffte")),
    ("an overlong sequence", lambda value: value.replace(b"White", b"\xc0\xafhite")),
    ("a surrogate", lambda value: value.replace(b"White", b"\xed\xa0\x80te")),
    ("beyond Unicode", lambda value: value.replace(b"White", b"\xf4\x90\x80\x80e")),
    ("a control character", lambda value: value.replace(b"White", b"Wh\x01te")),
    ("a field twice", lambda value: value.replace(b'"currency"', b'"country": "DE", "currency"')),
    ("an unknown field", lambda value: value.replace(b'"currency"', b'"colour": [1, {"a": 2}], "currency"')),
    ("a number with a point", lambda value: value.replace(b'"quantity": 6', b'"quantity": 6.0')),
    ("a number with an exponent", lambda value: value.replace(b'"quantity": 6', b'"quantity": 6e0')),
    ("a leading zero", lambda value: value.replace(b'"quantity": 6', b'"quantity": 06')),
    ("a number as text", lambda value: value.replace(b'"quantity": 6', b'"quantity": "6"')),
    ("no pieces", lambda value: value.replace(b'"quantity": 6', b'"quantity": 0')),
    ("below nothing", lambda value: value.replace(b'"quantity": 6', b'"quantity": -6')),
    ("true", lambda value: value.replace(b'"quantity": 6', b'"quantity": true')),
    ("too many pieces", lambda value: value.replace(b'"quantity": 6', b'"quantity": 1000000000001')),
    ("an amount that only the order's sum forbids", lambda value: value.replace(b"255", b"999999999999")),
    ("a number of forty digits", lambda value: value.replace(b"255", b"9" * 40)),
    ("a discount above 100", lambda value: value.replace(b'"discount_percent": 10', b'"discount_percent": 101')),
    ("another schema", lambda value: value.replace(b'"schema": 1', b'"schema": 2')),
    ("a schema that begins like ours", lambda value: value.replace(b'"schema": 1', b'"schema": 10')),
    ("another type", lambda value: value.replace(b'"sale"', b'"sold"')),
    ("another currency", lambda value: value.replace(b"USD", b"EUR")),
    ("a longer currency", lambda value: value.replace(b"USD", b"USDT")),
    ("no country", lambda value: value.replace(b'"GB"', b'"XX"')),
    ("small letters", lambda value: value.replace(b'"GB"', b'"gb"')),
    ("a customer beyond 64 bits", lambda value: value.replace(b"17850", b"9223372036854775808")),
    ("the largest customer", lambda value: value.replace(b"17850", b"9223372036854775807")),
    ("no product", lambda value: value.replace(b"85123A", b"")),
    ("a product of 257 characters", lambda value: value.replace(b"85123A", b"x" * 257)),
    ("a product of 256 characters and 512 bytes", lambda value: value.replace(b"85123A", "é".encode() * 256)),
    ("no lines", lambda value: value[: value.index(b"[")] + b"[]}"),
    ("a line too few commas", lambda value: value.replace(b'255, "d', b'255 "d')),
    ("a comma too many", lambda value: value.replace(b"140}", b"140,}")),
    ("cut off", lambda value: value[:-3]),
    ("cut off in a text", lambda value: value[: value.index(b"White") + 3]),
    ("something behind it", lambda value: value + b"{}"),
    ("white space behind it", lambda value: value + b" \n"),
    ("a megabyte of white space behind it", lambda value: value + b" " * 1_000_000),
    ("a megabyte of lines", lambda value: _with_lines(value, 9_000)),
    ("nothing", lambda value: value[:0]),
    ("a list", lambda value: b"[" + value + b"]"),
    ("the 30th of February", lambda value: value.replace(b"2026-11-20T", b"2026-02-30T")),
    ("a leap second", lambda value: value.replace(b":33.123Z", b":60.000Z")),
    ("hour 24", lambda value: value.replace(b"T11:", b"T24:")),
    ("no zone", lambda value: value.replace(b".123Z", b".123")),
    ("a point without digits", lambda value: value.replace(b".123Z", b".Z")),
    ("twenty digits of a second", lambda value: value.replace(b".123Z", b"." + b"1" * 20 + b"Z")),
    ("small t and z", lambda value: value.replace(b"T11:59:33.123Z", b"t11:59:33.123z")),
    ("1999", lambda value: value.replace(b"2026-11-20T", b"1999-12-31T")),
    ("tomorrow", lambda value: value.replace(b"2026-11-20T", b"2026-11-21T")),
    ("another id than the key", lambda value: value.replace(b"7d1e", b"7d1f")),
]


@pytest.mark.parametrize(("what", "spoil"), HOSTILE, ids=[what for what, _ in HOSTILE])
def test_hostile_input_means_the_same_to_both_tiers_and_its_neighbours_are_counted(
    what: str, spoil: Callable[[bytes], bytes]
) -> None:
    good = json.dumps(an_order()).encode()
    key = b"0191f0c2-7d1e"
    assert spoil(good) != good, what
    expected, decoded = both(a_run((key, good), (key, spoil(good)), (key, good)))
    assert len(decoded.columns) + len(decoded.rejected) == 3
    assert {100, 102} <= {100 + row for row in expected["orders"][c.ROW]}


def test_a_message_without_a_key_or_with_an_empty_one_is_rejected_by_both() -> None:
    good = json.dumps(an_order()).encode()
    _, decoded = both(a_run((None, good), (b"", good)))
    assert [rejection.reason for _, rejection in decoded.rejected] == ["key", "key"]


@pytest.mark.parametrize("behind", [b"\n", b" ", b"\t ", b"{}"])
def test_what_stands_behind_a_value_is_not_read(behind: bytes) -> None:
    """On Kafka it is the number of headers, which may look like white space."""
    value = json.dumps(an_order()).encode()
    run = a_run((b"0191f0c2-7d1e", value + behind))
    _, decoded = both(replace(run, value_ends=run.value_ends - len(behind)))
    assert decoded.scanned == 1


def test_nothing_is_nothing() -> None:
    assert both()[0]["orders"] == [[]] * c.ORIGINAL_PLACE


# -------------------------------------------------------------------------------------------------- a differential fuzz

TEXT = st.text(max_size=12)
NUMBER = st.one_of(st.integers(-2, 12), st.sampled_from([10**12, 10**12 + 1, 10**6, 2**63, 1.5, "6", None, True]))
LINE = st.fixed_dictionaries(
    {"product_id": TEXT, "quantity": NUMBER, "unit_amount": NUMBER},
    optional={"product_name": TEXT, "category": TEXT, "discount_percent": NUMBER, "unit_cost": NUMBER, "x": NUMBER},
)
GOOD_LINE = st.fixed_dictionaries(
    {
        "product_id": st.text(min_size=1, max_size=9),
        "quantity": st.integers(1, 99),
        "unit_amount": st.integers(0, 9999),
    },
    optional={"product_name": TEXT, "category": TEXT, "unit_cost": st.integers(0, 99)},
)
ORDERS = st.builds(
    an_order,
    lines=st.lists(st.one_of(GOOD_LINE, GOOD_LINE, LINE), min_size=0, max_size=4),
    type=st.sampled_from(["sale", "return", "gift"]),
    customer_id=st.one_of(st.none(), st.integers(-(2**64), 2**64)),
    event_time=st.one_of(
        st.datetimes().map(lambda time: time.isoformat() + "Z"),
        st.sampled_from(["2026-11-20T11:59:33.123Z", "2026-11-20T12:59:33+01:00", "yesterday"]),
    ),
)
VALUES = st.builds(
    lambda order, escaped, tight: json.dumps(
        order, ensure_ascii=escaped, separators=(",", ":") if tight else None
    ).encode(errors="surrogatepass"),
    ORDERS,
    st.booleans(),
    st.booleans(),
)


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """An order with some bytes changed, left out, doubled or put in."""
    value = bytearray(draw(VALUES))
    for _ in range(draw(st.integers(0, 3))):
        place = draw(st.integers(0, max(0, len(value) - 1)))
        length = draw(st.integers(0, 4))
        put = draw(st.sampled_from([b"", b" ", b'"', b"\\", b",", b"}", b"0", b"\xc3\xa9", b"\xff", b"\x00", b"e9"]))
        value[place : place + length] = put if draw(st.booleans()) else put + value[place : place + length] * 2
    return bytes(value)


@settings(max_examples=1500)
@given(values=st.lists(st.one_of(VALUES, mutated()), min_size=1, max_size=6))
def test_both_tiers_agree_on_mutated_orders(values: list[bytes]) -> None:
    _, decoded = both(
        a_run(*[(b"0191f0c2-7d1e", value) for value in values]), a_run((b"0191f0c2-7d1e", values[0]), first=7)
    )
    assert len(decoded.columns) + len(decoded.rejected) == len(values) + 1


P, N, C = "product_id", "product_name", "category"
TEXTS_OF_A_LINE = st.sampled_from([(P, N, C)] * 4 + [(P, C, N), (P, N), (P, C), (P,), (N, P, C), (C, P, C), (P, N, N)])
MEANT: dict[str, list[Any]] = {
    P: ["a", "b"],
    N: ["Lamp", "Lump", "L" * 90],
    C: ["Home", "Dome"],
    "quantity": [1, 2],
    "unit_amount": [100],
    "unit_cost": [None, 5],
}


@st.composite
def repetitive(draw: st.DrawFn) -> bytes:
    """An order whose few products come again and again: with other texts behind them, in another order, or twice."""
    lines = []
    for texts in draw(st.lists(TEXTS_OF_A_LINE, min_size=1, max_size=4)):
        names = [*texts, "quantity", "unit_amount", *draw(st.sampled_from([[], [], ["unit_cost"], [C]]))]
        colon = draw(st.sampled_from([":", ":", ": "]))
        written = [f"{json.dumps(name)}{colon}{json.dumps(draw(st.sampled_from(MEANT[name])))}" for name in names]
        lines.append("{" + ",".join(written) + "}")
    order = json.dumps(an_order(lines=[]), separators=(",", ":"))
    return order.replace("[]", f"[{','.join(lines)}]").encode()


@settings(max_examples=500)
@given(values=st.lists(repetitive(), min_size=2, max_size=8))
def test_both_tiers_agree_whatever_followed_a_product_before(values: list[bytes]) -> None:
    both(*[a_run((b"0191f0c2-7d1e", value), first=100 + number) for number, value in enumerate(values)])


# ---------------------------------------------------------------------------------------------------------- its pieces


def test_siphash_is_the_one_of_its_inventors() -> None:
    for length in range(40):
        text = bytes(range(length))
        place = np.frombuffer(text + bytes(PADDING), dtype=np.uint8)
        ours = int(scanner.siphash13(place.ctypes.data, length, np.uint64(KEY[0]), np.uint64(KEY[1])))
        assert ours == text_hash(KEY)(text)


@settings(max_examples=100)
@given(texts=st.lists(st.text(max_size=30), max_size=60), repeats=st.integers(1, 40))
def test_both_dictionaries_number_texts_alike_however_they_grow(texts: list[str], repeats: int) -> None:
    plain, scanned = PlainDictionary(KEY), scanner.ScannedDictionary(KEY)
    for repeat in range(repeats):
        for text in texts:
            assert plain.code(f"{text}{repeat}") == scanned.code(f"{text}{repeat}")
    codes = np.arange(len(plain))
    assert len(plain) == len(scanned)
    assert text_of(plain, codes) == text_of(scanned, codes)
    assert plain.hashes(codes).tolist() == scanned.hashes(codes).tolist()


def test_a_dictionary_that_is_full_in_the_middle_of_a_run_grows_and_nothing_is_lost() -> None:
    messages = []
    for number in range(3000):
        lines = [{"product_id": f"product {number} {line}", "quantity": 1, "unit_amount": 1} for line in range(2)]
        messages.append((b"%d" % number, json.dumps(an_order(order_id=str(number), lines=lines)).encode()))
    expected, decoded = both(a_run(*messages))
    assert decoded.scanned == 3000
    assert expected["products"] == [f"product {number} {line}" for number in range(3000) for line in range(2)]


def test_dictionaries_begin_anew_when_ids_never_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sales.columnar.decoding.MOST_TEXTS", 1)
    decoder = Decoder(RULES, Secrets.of(7))
    for product in ("a", "b", "c"):
        value = json.dumps(an_order(lines=[{"product_id": product, "quantity": 1, "unit_amount": 1}])).encode()
        then = decoder.dictionaries
        columns = decoder.decode([a_run((b"0191f0c2-7d1e", value))]).columns
        assert text_of(then.products, columns.lines[c.PRODUCT]) == [product]
        decoder.bound()
    assert len(decoder.dictionaries.products) == 1


def test_a_time_is_what_the_plain_parser_says() -> None:
    for text in (
        "2026-11-20T11:59:33.123Z",
        "1970-01-01T00:00:00Z",
        "9999-12-31T23:59:59.9-23:59",
        "2000-02-29T00:00:00Z",
    ):
        place = np.frombuffer(text.encode() + bytes(PADDING), dtype=np.uint8)
        time, end = scanner._time(place.ctypes.data)
        assert end - place.ctypes.data == len(text)
        assert time == parse_time(text) != INVALID_TIME
