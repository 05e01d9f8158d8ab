"""What goes wrong, goes wrong in the way that was claimed: each bad message is refused with its reason."""

import json
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from generator import disturbances
from generator.disturbances import COPY_DELAY, FAULTS, MAX_WAITING, Disturber, Extra, Mix
from generator.manifest import Kind
from sales.countries import REGION_OF
from sales.orders import Decoded, decode
from sales.rules import Rules
from sales.times import format_time, parse_time

RULES = Rules(currency="USD", countries=REGION_OF.keys())
NOW = parse_time("2026-11-20T08:12:33.123Z")


def an_order(**changes: Any) -> dict[str, Any]:
    line = {"product_id": "A", "product_name": "Ä cup", "category": "Home", "quantity": 1, "unit_amount": 255}
    order = {
        "schema": 1,
        "type": "sale",
        "order_id": "o-1",
        "event_time": format_time(NOW),
        "customer_id": None,
        "country": "GB",
        "currency": "USD",
        "lines": [line | {"discount_percent": 10, "unit_cost": 140}, line],
    }
    return order | changes


def decode_one(key: bytes, value: bytes) -> Decoded:
    return decode(RULES, [key], [value], [0], [NOW])


def a_block(count: int = 200) -> tuple[list[bytes], list[bytes]]:
    ids = [f"o-{number}" for number in range(count)]
    return [name.encode() for name in ids], [json.dumps(an_order(order_id=name)).encode() for name in ids]


def a_disturber(**shares: float) -> Disturber:
    return Disturber(np.random.SeedSequence(5), Mix(**shares), "USD")


@pytest.mark.parametrize("number", range(len(FAULTS)))
def test_every_fault_is_refused_with_the_reason_it_claims(number: int) -> None:
    spoilt = FAULTS[number](an_order())
    [rejection] = decode_one(spoilt.key or b"o-1", spoilt.value).rejected
    assert rejection.reason == spoilt.reason


def test_the_faults_cover_the_contract() -> None:
    reasons = {fault(an_order()).reason for fault in FAULTS}
    fields = {
        "type", "order_id", "event_time", "customer_id", "country", "currency", "original_order_id", "lines",
        "product_id", "product_name", "category", "quantity", "unit_amount", "discount_percent", "unit_cost",
    }  # fmt: skip
    assert reasons == {"json", "schema", "key"} | {f"field:{name}" for name in fields}


def test_an_oversized_order_is_refused_and_yet_small_enough_for_every_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disturbances, "OVERSIZE_SHARE", 1.0)
    spoilt = disturbances.spoil(np.random.default_rng(1), an_order())
    [rejection] = decode_one(b"o-1", spoilt.value).rejected
    assert rejection.reason == spoilt.reason == "oversize"
    assert len(spoilt.value) + 64 < 1_048_576  # what Kinesis takes, key included; Kafka takes a little more


@given(st.integers(0, 2**32), st.integers(946_684_800_000 + 86_400_000, NOW))
def test_an_order_spelt_differently_is_the_same_order(seed: int, time: int) -> None:
    value = json.dumps(an_order(event_time=format_time(time))).encode()
    again = disturbances.respell(np.random.default_rng(seed), value)
    assert again != value
    original, copy = decode_one(b"o-1", value).accepted, decode_one(b"o-1", again).accepted
    assert copy.contents == original.contents
    assert copy.event_times.tolist() == original.event_times.tolist() == [time]


def every_extra(disturber: Disturber, blocks: int = 1) -> list[Extra]:
    extras = []
    for _ in range(blocks):
        extras += disturber.extras(*a_block(), ahead_of=NOW)
    return extras + disturber.rest()


def test_a_duplicate_keeps_key_and_content() -> None:
    extras = every_extra(a_disturber(duplicates=1.0))
    assert len(extras) == 200
    originals = dict(zip(*a_block(), strict=True))
    for extra in extras:
        assert (extra.kind, extra.reason) == (Kind.DUPLICATE, None)
        original = decode_one(extra.key, originals[extra.key]).accepted
        assert decode_one(extra.key, extra.value).accepted.contents == original.contents
    same_bytes = sum(extra.value == originals[extra.key] for extra in extras)
    assert 60 < same_bytes < 140


def test_a_conflict_keeps_the_identity_and_is_well_formed_with_other_content() -> None:
    originals = dict(zip(*a_block(), strict=True))
    for extra in every_extra(a_disturber(conflicts=1.0)):
        assert (extra.kind, extra.reason) == (Kind.CONFLICT, "conflict")
        original, other = decode_one(extra.key, originals[extra.key]), decode_one(extra.key, extra.value)
        assert other.accepted.event_times.tolist() == original.accepted.event_times.tolist()
        assert other.accepted.contents != original.accepted.contents


@pytest.mark.parametrize(
    ("share", "kind"),
    [("malformed", Kind.MALFORMED), ("future", Kind.FUTURE), ("unknown_currency", Kind.UNKNOWN_CURRENCY)],
)
def test_what_must_be_refused_is_refused_as_claimed_and_hits_no_good_order(share: str, kind: Kind) -> None:
    originals = set(a_block()[0])
    extras = every_extra(a_disturber(**{share: 1.0}))
    assert len(extras) == 200
    for extra in extras:
        [rejection] = decode_one(extra.key, extra.value).rejected
        assert (extra.kind, extra.reason) == (kind, rejection.reason)
        assert extra.key not in originals


def test_a_copy_never_comes_before_its_original_and_may_come_much_later() -> None:
    disturber = a_disturber(duplicates=0.2)
    delays, first_row = [], 0
    for _ in range(500):
        names = [f"o-{first_row + row}" for row in range(200)]
        values = [json.dumps(an_order(order_id=name)).encode() for name in names]
        for extra in disturber.extras([name.encode() for name in names], values, ahead_of=NOW):
            delay = first_row + extra.before - int(extra.key.decode().removeprefix("o-"))
            assert delay >= 1
            delays.append(delay)
        first_row += 200
    assert min(delays) < 10
    assert max(delays) > COPY_DELAY / 3


def test_waiting_copies_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disturbances, "MAX_WAITING", 50)
    disturber = a_disturber(duplicates=1.0)
    sent = sum(len(disturber.extras(*a_block(), ahead_of=NOW)) for _ in range(5))
    assert len(disturber.rest()) <= 50 < MAX_WAITING
    assert sent >= 950


def test_without_a_mix_nothing_goes_wrong() -> None:
    disturber = a_disturber()
    assert every_extra(disturber) == []
    times = np.arange(5, dtype=np.int64)
    backdated = disturber.backdate(times)
    assert backdated.event_times.tolist() == times.tolist()
    assert not (backdated.late | backdated.out_of_order).any()
