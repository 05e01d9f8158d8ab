"""Closed minutes on the wire: whatever an order may say fits there."""

import pytest

from sales import rollups
from sales.rollups import Rollup, cell_scope
from sales.rules import MAX_MESSAGE_BYTES, MAX_NAME


@pytest.mark.parametrize("character", ["x", "é", "🧺", "\x01"])
def test_a_rollup_of_the_longest_category_fits_on_every_wire_and_into_every_key(character: str) -> None:
    category = character * MAX_NAME
    scope = cell_scope("GB", category)
    rollup = Rollup(minute="2026-11-20T08:12:00.000Z", scope=scope, country="GB", category=category, version=2**63 - 1)
    key, value = rollups.encode(rollup)
    assert len(key) <= 256  # a partition key of Kinesis, were each character one byte
    assert len(value) <= MAX_MESSAGE_BYTES
    assert len(scope.encode()) <= 2_048  # a partition key of DynamoDB
    assert rollups.decode(value) == rollup


def test_one_scope_and_minute_has_one_key() -> None:
    first = Rollup(minute="2026-11-20T08:12:00.000Z", scope="GB/Home", country="GB", category="Home", version=1)
    later = Rollup(minute=first.minute, scope=first.scope, country="GB", category="Home", version=2, orders=2)
    assert rollups.encode(first)[0] == rollups.encode(later)[0]
