"""``dead-letters``: each refused message is found wherever it is, and sent again once."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from sales import dead_letters as wire_letters
from sales import orders
from sales.rejections import explain
from sales.settings import AwsSettings
from sales.streams import StreamError, Wire
from sales.streams.connect import connect
from sales.times import parse_time
from sink import aws
from support import world as small
from support.sinking import RULES, an_order
from tillstream import replaying
from tillstream.dead_letters import DeadLetterSettings, dead_letters
from tillstream.setup import SetupSettings, create_all

BROKER_TIME = parse_time("2026-11-20T06:53:00.000Z")
ARCHIVED = [("0", 41, "json"), ("0", 57, "currency"), ("1", 3, "json")]


class Office:
    """Streams and a bucket of their own; some letters are archived, others still in the stream."""

    def __init__(self, settings: DeadLetterSettings, wire: Wire) -> None:
        self.settings = settings
        self.wire = wire
        self.s3 = aws.client("s3", settings, connections=1)
        self.orders_id = wire.open(settings.orders_stream).id

    def archive(self, letters: list[tuple[str, int, str]]) -> None:
        small.store_letters([*letters, letters[0]], self.s3, self.settings.s3_bucket)  # one was sent twice

    def send(self, *raws: bytes, reason: str | None = None) -> list[str]:
        """Letters of refused messages; their names."""
        names, messages = [], []
        for number, raw in enumerate(raws, start=100):
            rejection = explain(RULES, b"key", raw, number, BROKER_TIME)
            letter = wire_letters.dead_letter(
                rejection, stream=self.orders_id, partition="0", position=small.position_text(number)
            )
            if reason is not None:
                letter = wire_letters.decode(
                    wire_letters.encode(letter)[1].replace(
                        f'"reason":"{letter.reason}"'.encode(), f'"reason":"{reason}"'.encode()
                    )
                )
            names.append(letter.identity)
            messages.append(wire_letters.encode(letter))
        with self.wire.open(self.settings.dead_letters_stream).writer() as writer:
            writer.write([key for key, _ in messages], [value for _, value in messages])
        return names

    def run(self, *arguments: str) -> Result:
        return CliRunner().invoke(dead_letters, arguments)

    def asked(self, *arguments: str) -> dict[str, Any]:
        result = self.run(*arguments, "--json")
        assert result.exit_code in (0, 1), result.output
        found: dict[str, Any] = json.loads(result.stdout)
        return found

    def orders(self) -> list[tuple[bytes | None, bytes]]:
        """Everything in the orders stream."""
        stream = self.wire.open(self.settings.orders_stream)
        ends = {name: end for name, end in stream.ends().items() if end is not None}
        reader = stream.reader(dict.fromkeys(ends))
        found: list[tuple[bytes | None, bytes]] = []
        while ends:
            for chunk in reader.poll(1_000, 1):
                found += zip(chunk.keys, chunk.values, strict=True)
                if chunk.positions[-1] >= ends[chunk.partition]:
                    del ends[chunk.partition]
        reader.close()
        return found

    def marks(self) -> list[str]:
        listed = self.s3.list_objects_v2(Bucket=self.settings.s3_bucket, Prefix="_replayed/")
        return [item["Key"].removeprefix("_replayed/") for item in listed.get("Contents", ())]


@pytest.fixture
def office(
    aws_settings: AwsSettings, new_name: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Office]:
    for name, value in {
        "STREAM": "kinesis",
        "PARTITIONS": "1",
        "ORDERS_STREAM": new_name("orders"),
        "ROLLUPS_STREAM": new_name("rollups"),
        "DEAD_LETTERS_STREAM": new_name("letters"),
        "AWS_ENDPOINT_URL": aws_settings.aws_endpoint_url or "",
        "S3_BUCKET": new_name("bucket"),
        "SALES_TABLE": new_name("SalesData"),
        "TRENDS_TABLE": new_name("SalesTrends"),
    }.items():
        monkeypatch.setenv(name, value)
    list(create_all(SetupSettings()))  # type: ignore[call-arg]  # from the environment
    settings = DeadLetterSettings()  # type: ignore[call-arg]  # from the environment
    wire = connect(settings, settings)
    yield Office(settings, wire)
    for name in (settings.orders_stream, settings.rollups_stream, settings.dead_letters_stream):
        wire.delete(name)
    wire.close()


MEND = """
def mend(order):
    for line in order["lines"]:
        line["quantity"] = int(line["quantity"])
    return order
"""
UK = an_order("o-1", country="UK")
AHEAD = an_order("o-2", event_time=BROKER_TIME + 3_600_000)


def test_archived_letters_and_those_still_in_the_stream_are_listed_once_each(office: Office) -> None:
    office.archive(ARCHIVED)
    names = office.send(UK, UK, b"{")
    found = office.asked("list")
    archived = [f"{small.STREAM}/{partition}/{small.position_text(place)}" for partition, place, _ in ARCHIVED]
    assert [letter["name"] for letter in found["letters"]] == [*names, *archived]  # by broker time
    assert found["count"] == 6
    assert found["letters"][0]["reason"] == "field:country"
    assert office.asked("count")["counts"] == {"currency": 1, "field:country": 2, "json": 3}
    assert office.asked("count", "--by", "day")["counts"] == {"2026-11-20": 6}


def test_letters_are_chosen_by_reason_and_by_time(office: Office) -> None:
    office.archive(ARCHIVED)
    office.send(UK)
    assert office.asked("count", "--reason", "json", "--reason", "field:country")["count"] == 3
    assert office.asked("count", "--from", "2026-11-20T07:00:00Z")["count"] == 3
    assert office.asked("count", "--to", "2026-11-20T07:00:00Z")["counts"] == {"field:country": 1}
    assert office.asked("count", "--from", "2026-11-21")["count"] == 0
    assert office.asked("count", "--to", "2026-11-20")["count"] == 0
    assert len(office.asked("list", "--limit", "2")["letters"]) == 2


def test_a_letter_is_shown_with_its_message(office: Office) -> None:
    [name] = office.send(UK)
    shown = office.asked("show", name)
    assert (shown["raw"].encode(), shown["key"], shown["replayed"]) == (UK, "key", False)
    assert office.run("show", name, "--raw").stdout_bytes == UK
    assert "'UK' is no ISO 3166-1 alpha-2 code" in office.run("show", name).stdout
    unknown = office.run("show", f"{office.orders_id}/0/1")
    assert unknown.exit_code == 1
    assert "is unknown; looked in" in unknown.stderr


def test_a_mended_letter_is_sent_once_however_often_it_is_replayed(office: Office) -> None:
    names = office.send(UK, AHEAD)
    replay = ("replay", "--all", "--patch", '{"country": "GB", "event_time": "2026-11-20T06:00:00Z"}')
    assert office.asked(*replay, "--dry-run")["sent"] == 2
    assert (office.orders(), office.marks()) == ([], [])
    assert office.run(*replay).exit_code == 0
    sent = office.orders()
    assert sorted(key for key, _ in sent if key is not None) == [b"o-1", b"o-2"]
    assert sorted(office.marks()) == names
    assert office.asked(*replay) == {"sent": 0, "before": 2, "left": [], "unknown": [], "dry_run": False}
    assert office.orders() == sent
    assert [letter["replayed"] for letter in office.asked("list")["letters"]] == [True, True]


def test_a_letter_that_is_sent_twice_all_the_same_is_a_duplicate(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    office.send(UK)
    replay = ("replay", "--all", "--patch", '{"country": "GB"}')

    def crash(*_: object) -> None:
        raise StreamError("the process ends between the acknowledgement and the mark")

    with monkeypatch.context() as patch:
        patch.setattr(replaying.Replaying, "_mark", crash)
        assert office.run(*replay).exit_code == 3
    assert office.marks() == []
    assert office.asked(*replay)["sent"] == 1
    assert office.asked(*replay, "--again")["sent"] == 1
    sent = office.orders()
    assert len(sent) == 3
    batch = orders.decode(
        RULES, [key for key, _ in sent], [value for _, value in sent], [1, 2, 3], [BROKER_TIME] * 3
    ).accepted
    assert (
        len(
            {
                (*identity, content)
                for *identity, content in zip(batch.order_ids, batch.event_times.tolist(), batch.contents, strict=True)
            }
        )
        == 1
    )


def test_a_letter_whose_message_was_not_acknowledged_is_not_marked(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    office.send(UK)

    def silence(*_: object) -> None:
        raise StreamError("no acknowledgement")

    with monkeypatch.context() as patch:
        patch.setattr("sales.streams.kinesis_writer.KinesisWriter.flush", silence)
        assert office.run("replay", "--all", "--patch", '{"country": "GB"}').exit_code == 3
    assert office.marks() == []


def test_what_would_be_refused_again_is_named_and_the_others_are_sent(office: Office) -> None:
    _, broken = office.send(UK, b"{")
    left = office.asked("replay", "--all", "--patch", '{"country": "GB"}')
    assert left["sent"] == 1
    assert [(each["letter"], each["reason"]) for each in left["left"]] == [(broken, "json")]
    result = office.run("replay", broken, "somewhere/0/1")
    assert result.exit_code == 1
    assert f"{broken}: json: " in result.stdout
    assert "somewhere/0/1 is unknown" in result.stdout


def test_a_function_of_the_users_mends_what_a_patch_cannot(office: Office, tmp_path: Path) -> None:
    office.send(an_order("o-1", lines=[{"product_id": "a", "quantity": "2", "unit_amount": 5}]))
    file = tmp_path / "mend.py"
    file.write_text(MEND)
    assert office.run("replay", "--reason", "field:quantity", "--with", str(file)).exit_code == 0
    [(key, value)] = office.orders()
    assert (key, json.loads(value)["lines"][0]["quantity"]) == (b"o-1", 2)


def test_a_conflict_is_sent_again_under_another_id_only(office: Office) -> None:
    office.send(an_order("o-1"), reason="conflict")
    assert office.asked("replay", "--all", "--patch", '{"country": "FR"}')["left"][0]["reason"] == "conflict"
    assert office.asked("replay", "--all", "--patch", '{"order_id": "o-1b"}')["sent"] == 1


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("replay",), "name letters, or choose some"),
        (("replay", "--all", "--patch", "{"), "the patch is no JSON"),
        (("replay", "--all", "--with", "/nowhere/mend.py"), "can't be read"),
        (("list", "--from", "yesterday"), "--from: 'yesterday' is no time"),
    ],
)
def test_a_wrong_argument_is_one_line_and_exit_code_2(office: Office, arguments: tuple[str, ...], says: str) -> None:
    result = office.run(*arguments)
    assert (result.exit_code, len(result.stderr.splitlines())) == (2, 1)
    assert says in result.stderr
