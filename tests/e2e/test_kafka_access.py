"""Each service under its own name on a Kafka that allows nothing unless it is listed in deploy/kafka/acls."""

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from confluent_kafka.admin import AclBinding, AclOperation, ResourcePatternType, ResourceType

from support.secure_kafka import SERVICES, USER, SecureKafka, listed_acls, password_of, start_secure
from support.services import Pipeline
from tillstream.local import kafka as local_kafka
from tillstream.local.nursery import Nursery

pytestmark = pytest.mark.kafka

ORDERS = 400
SECONDS = 300.0
COMMAND_SECONDS = 300.0

Ways = Callable[..., dict[str, str]]


@pytest.fixture(scope="module")
def broker() -> Iterator[SecureKafka]:
    if (lacks := local_kafka.missing()) is not None:
        pytest.skip(lacks)
    with Nursery() as nursery:
        broker = start_secure(nursery)
        broker.allow(listed_acls())
        yield broker


@pytest.fixture
def pipeline(
    broker: SecureKafka, nursery: Nursery, tmp_path: Path, new_name: Callable[[str], str], redis_url: str,
    aws_endpoint: str,
) -> Iterator[Pipeline]:  # fmt: skip
    """With the streams' own names, as the list has them; made by who may do everything."""
    name = new_name("access")
    pipeline = Pipeline(
        nursery,
        tmp_path,
        {
            "STREAM": "kafka",
            "PARTITIONS": "2",
            "AWS_ENDPOINT_URL": aws_endpoint,
            "S3_BUCKET": name,
            "SALES_TABLE": f"SalesData-{name}",
            "TRENDS_TABLE": f"SalesTrends-{name}",
            "REDIS_URL": redis_url,
            "REDIS_PREFIX": f"{name}:",
            "ROTATE_SECONDS": "1",
            "CONNECT_SECONDS": "20",
            "MALFORMED": "0.02",
            **broker.by_password(USER),
        },
    )
    yield pipeline
    pipeline.close()


def command(pipeline: Pipeline, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    """What a person calls, under another name."""
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        env=pipeline.surroundings(**environment),
        capture_output=True,
        text=True,
        timeout=COMMAND_SECONDS,
        check=False,
    )


@pytest.mark.parametrize(
    ("client", "way"),
    [
        ("confluent", SecureKafka.by_password),
        ("confluent", SecureKafka.by_certificate),
        ("kafka-python", SecureKafka.by_password),
        ("kafka-python", SecureKafka.by_certificate),
    ],
)
def test_what_is_listed_is_enough_and_each_line_of_it_is_used(
    broker: SecureKafka, pipeline: Pipeline, client: str, way: Ways
) -> None:
    before = broker.decisions.stat().st_size

    def as_(user: str) -> dict[str, str]:
        return way(broker, user, KAFKA_CLIENT=client)

    for topic in ("orders", "sales-rollups", "orders-dead-letters"):
        pipeline.wire.delete(topic)
    made = command(pipeline, "tillstream", "setup", **as_("setup"))
    assert "stream orders created" in made.stdout, made.stderr
    again = command(pipeline, "tillstream", "setup", **as_("setup"))
    assert "stream orders was there" in again.stdout, again.stderr
    pipeline.orders = pipeline.wire.open("orders")

    pipeline.start("processor", **as_("processor"))
    pipeline.start("sink", **as_("sink"))
    pipeline.start("generator", **as_("generator"), RATE="200/s", ORDERS=str(ORDERS))
    pipeline.finish("generator", SECONDS)
    live = pipeline.settle(SECONDS)
    assert int(live.status["accepted"]) == ORDERS
    assert int(live.status["dead_letters"]) > 0
    assert pipeline.verify(SECONDS).equal
    pipeline.stop("processor")
    pipeline.stop("sink")
    order_id = json.loads(next(pipeline.sent()).values[0])["order_id"]

    def operator(*arguments: str) -> str:

        answer = command(pipeline, "tillstream", *arguments, **as_("operator"))
        assert answer.returncode in (0, 1), answer.stderr
        return answer.stdout

    letters = json.loads(operator("dead-letters", "list", "--json"))
    assert letters
    operator("dead-letters", "replay", "--reason", "field:country", "--patch", '{"country": "GB"}')
    assert "archive-orders" in operator("lag", "--json")
    assert "accepted" in operator("trace", order_id)
    operator("rebuild", "--force")

    said = [log.read_text() for log in pipeline.folder.glob("*.log")]
    assert [text for text in said if any(password_of(user) in text for user in SERVICES)] == []

    decisions = broker.decisions.read_text()[before:].splitlines()
    # What it only tries, to leave out of an answer what may not be seen, is not said so loudly.
    assert [line for line in decisions if " INFO " in line and "is Denied" in line] == []
    used = {rule[1] for line in decisions if (rule := re.search(r"StandardAcl[(\[]([^)\]]*)", line))}
    assert {str_of(acl) for acl in listed_acls()} - used == set()


Wrong = Callable[[SecureKafka], dict[str, str]]

REFUSALS: dict[str, tuple[tuple[str, ...], Wrong, int, str]] = {
    **{
        f"wrong password, {words[-1]}": (
            words,
            lambda broker: broker.by_password("processor", KAFKA_SASL_PASSWORD="open says me"),
            code,
            "does not let us in",
        )
        for words, code in (
            (("generator",), 1),
            (("processor",), 1),
            (("sink",), 1),
            (("tillstream", "setup"), 1),
            (("tillstream", "lag"), 3),
        )
    },
    "no certificate": (
        ("generator",),
        lambda broker: broker.by_certificate("generator", KAFKA_SSL_CERTIFICATE_FILE="", KAFKA_SSL_KEY_FILE=""),
        1,
        "does not let us in",
    ),
    "another authority's certificate": (
        ("processor",), lambda broker: broker.by_certificate("impostor"), 1, "does not let us in",
    ),
    "wrong mechanism": (
        ("generator",),
        lambda broker: broker.by_password(
            "generator",
            KAFKA_BOOTSTRAP_SERVERS=broker.listeners["SASL_PLAINTEXT"],
            KAFKA_SECURITY_PROTOCOL="SASL_PLAINTEXT",
            KAFKA_SASL_MECHANISM="PLAIN",
        ),
        1,
        "does not let us in",
    ),
    "a broker of another authority": (
        ("sink",),
        lambda broker: broker.by_password("sink", KAFKA_SSL_CA_FILE=str(broker.stranger)),
        1,
        "does not let us in",
    ),
    "plain text to a port of TLS": (
        ("generator",),
        lambda broker: broker.by_password("generator", KAFKA_SECURITY_PROTOCOL="SASL_PLAINTEXT"),
        3,
        "does it speak KAFKA_SECURITY_PROTOCOL=SASL_PLAINTEXT there?",
    ),
    "a topic that is not listed": (
        ("generator",),
        lambda broker: broker.by_password("generator", ORDERS_STREAM="orders-dead-letters", DEAD_LETTERS_STREAM="x"),
        3,
        "TopicAuthorizationFailed",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSALS)
def test_who_is_refused_says_so_in_one_line_and_ends(broker: SecureKafka, pipeline: Pipeline, what: str) -> None:
    words, wrong, code, said = REFUSALS[what]
    started = time.monotonic()
    # Who is refused ends at the first refusal; what may come right by itself is tried until then.
    patience = "30" if said == "does not let us in" else "3"
    ended = command(pipeline, *words, **wrong(broker), CONNECT_SECONDS=patience)
    assert ended.returncode == code
    last = ended.stderr.splitlines()[-1]
    assert said in last
    assert "Traceback" not in ended.stderr
    assert "open says me" not in ended.stdout + ended.stderr
    assert time.monotonic() - started < COMMAND_SECONDS


def str_of(acl: AclBinding) -> str:
    """As the broker writes it."""
    return (
        f"resourceType={ResourceType(acl.restype).name}, resourceName={acl.name}, "
        f"patternType={ResourcePatternType(acl.resource_pattern_type).name}, principal={acl.principal}, host=*, "
        f"operation={AclOperation(acl.operation).name}, permissionType=ALLOW"
    )
