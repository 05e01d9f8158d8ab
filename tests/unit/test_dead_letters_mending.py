"""What a refused message may become: the same rules as for any message decide, not the one who changed it."""

import json
from typing import Any

import pytest

from sales.orders import decode
from support.sinking import EVENT_TIME, RULES, a_line, an_order
from tillstream.mending import Mended, PatchError, Refused, Unmended, function, mend, patch

NOW = EVENT_TIME + 1_000


def refused(raw: bytes, reason: str = "field:country", raw_bytes: int | None = None) -> Refused:
    return Refused(raw, len(raw) if raw_bytes is None else raw_bytes, reason)


def mended(raw: bytes, *changes: Any, reason: str = "field:country") -> dict[str, Any]:
    result = mend(RULES, refused(raw, reason), changes, NOW)
    assert isinstance(result, Mended), result
    [accepted] = decode(RULES, [result.key], [result.value], [1], [NOW]).accepted.order_ids
    assert accepted == result.key.decode()
    document: dict[str, Any] = json.loads(result.value)
    return document


def unmended(raw: bytes, *changes: Any, reason: str = "field:country", raw_bytes: int | None = None) -> Unmended:
    result = mend(RULES, refused(raw, reason, raw_bytes), changes, NOW)
    assert isinstance(result, Unmended), result
    return result


def test_a_patch_sets_the_field_that_was_wrong_and_leaves_the_others() -> None:
    assert mended(an_order(country="UK"), patch('{"country": "GB"}')) == json.loads(an_order(country="GB"))


@pytest.mark.parametrize(
    ("given", "merged"),
    [
        ('{"a": "c"}', {"a": "c"}),
        ('{"b": "c"}', {"a": "b", "b": "c"}),
        ('{"a": null}', {}),
        ('{"a": {"b": {"c": null, "d": 1}}}', {"a": {"b": {"d": 1}}}),
        ('{"a": [1, null]}', {"a": [1, None]}),
    ],
)
def test_patches_merge_as_rfc_7396_says(given: str, merged: dict[str, Any]) -> None:
    assert patch(given)({"a": "b"}) == merged


@pytest.mark.parametrize("text", ["{", "[]", "null", '"GB"'])
def test_a_patch_that_is_no_object_is_refused(text: str) -> None:
    with pytest.raises(PatchError):
        patch(text)


def test_a_function_may_change_anything_and_leave_some() -> None:
    change = function("def mend(order):\n    order['lines'][0]['quantity'] = 2\n    return order\n", "mend.py")
    assert mended(an_order(lines=[a_line(quantity=0)]), change)["lines"] == [a_line(quantity=2)]
    assert unmended(an_order(country="UK"), function("mend = lambda order: None", "mend.py")).reason == "left"


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("def mend(", "can't be run"),
        ("order = 1", "defines no function"),
        ("mend = lambda order: order['no such field']", "failed on order 'o-1'"),
        ("mend = lambda order: 'text'", "gave a str"),
    ],
)
def test_a_function_that_is_none_says_so(source: str, says: str) -> None:
    with pytest.raises(PatchError, match=f"^mend.py.*{says}"):
        mend(RULES, refused(an_order(country="UK")), [function(source, "mend.py")], NOW)


def test_a_change_that_mends_nothing_or_breaks_more_is_named_with_the_new_reason() -> None:
    assert unmended(an_order(country="UK"), patch('{"type": "gift"}')).reason == "field:type"
    assert unmended(an_order(country="UK"), patch('{"country": "U"}')).reason == "field:country"
    assert unmended(b"{", patch('{"country": "GB"}')).reason == "json"
    assert unmended(b"[]").reason == "json"


def test_a_message_of_which_only_the_beginning_was_kept_stays_where_it_is() -> None:
    raw = an_order(country="UK")
    assert unmended(raw, patch('{"country": "GB"}'), raw_bytes=len(raw) + 1).reason == "cut"


def test_without_a_change_the_very_bytes_are_sent_under_the_order_id() -> None:
    raw = b" " + an_order("o-9")  # its key was another
    assert mend(RULES, refused(raw, "key"), [], NOW) == Mended(b"o-9", raw)


def test_an_order_that_was_ahead_of_its_time_is_accepted_once_that_has_come() -> None:
    ahead = an_order(event_time=EVENT_TIME + 3_600_000)
    assert unmended(ahead, reason="future").reason == "future"
    assert isinstance(mend(RULES, refused(ahead, "future"), [], NOW + 3_600_000), Mended)


def test_a_conflict_needs_an_identity_of_its_own() -> None:
    raw = an_order("o-1", country="FR")
    assert unmended(raw, patch('{"country": "GB"}'), reason="conflict").reason == "conflict"
    assert mended(raw, patch('{"order_id": "o-1b"}'), reason="conflict")["order_id"] == "o-1b"
