"""Each service's policy in deploy/aws/iam: whatever it asks of AWS in a real run is allowed, and nothing else is."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest

from sales.streams import Stream
from sink import aws
from support.permissions import ACCOUNT, REGION, Asked, asked, policy
from support.services import Pipeline
from tillstream.local.nursery import Nursery

SECONDS = 300.0
COMMAND_SECONDS = 300.0
RECORDED = Path(__file__).parents[1] / "support" / "recorded"
POLICIES = ("generator", "processor", "sink", "auditor", "operator", "setup")


@pytest.fixture(scope="module")
def pipeline(
    nursery: Nursery, tmp_path_factory: pytest.TempPathFactory, redis_url: str, aws_endpoint: str
) -> Iterator[Pipeline]:
    folder = tmp_path_factory.mktemp("iam")
    name = f"iam-{os.getpid()}"
    pipeline = Pipeline(
        nursery,
        folder,
        {
            "STREAM": "kinesis",
            "PARTITIONS": "1",
            "ORDERS_STREAM": name,
            "ROLLUPS_STREAM": f"{name}-rollups",
            "DEAD_LETTERS_STREAM": f"{name}-dead-letters",
            "AWS_ENDPOINT_URL": aws_endpoint,
            "AWS_REGION": REGION,
            "S3_BUCKET": name,
            "SALES_TABLE": f"SalesData-{name}",
            "TRENDS_TABLE": f"SalesTrends-{name}",
            "REDIS_URL": redis_url,
            "REDIS_PREFIX": f"{name}:",
            "ROTATE_SECONDS": "1",
            "ROTATE_RECORDS": "100000",
            "AUDIT_SECONDS": "1",
            "PYTHONPATH": os.pathsep.join([str(RECORDED), os.environ.get("PYTHONPATH", "")]),
        },
    )
    yield pipeline
    pipeline.close()


def places(pipeline: Pipeline) -> dict[str, str]:
    """What stands for the placeholders. The longest names first: one begins with another."""
    environment = pipeline.environment
    return {
        "ROLLUPS_STREAM": environment["ROLLUPS_STREAM"],
        "DEAD_LETTERS_STREAM": environment["DEAD_LETTERS_STREAM"],
        "ORDERS_STREAM": environment["ORDERS_STREAM"],
        "SALES_TABLE": environment["SALES_TABLE"],
        "TRENDS_TABLE": environment["TRENDS_TABLE"],
        "S3_BUCKET": environment["S3_BUCKET"],
        "GLUE_DATABASE": environment["S3_BUCKET"].replace("-", "_"),
        "AWS_REGION": REGION,
        "AWS_ACCOUNT": ACCOUNT,
    }


def calls(pipeline: Pipeline, who: str) -> list[Asked]:
    file = pipeline.folder / f"{who}.calls"
    return [each for line in sorted(set(file.read_text().splitlines())) for each in asked(json.loads(line))]


def recorded(pipeline: Pipeline, who: str) -> dict[str, str]:
    return {"AWS_CALLS": str(pipeline.folder / f"{who}.calls")}


def command(pipeline: Pipeline, who: str, *arguments: str, **environment: str) -> str:
    ended = subprocess.run(
        [sys.executable, "-m", "tillstream", *arguments],
        env=pipeline.surroundings(**recorded(pipeline, who), **environment),
        capture_output=True,
        text=True,
        timeout=COMMAND_SECONDS,
        check=False,
    )
    assert ended.returncode in (0, 1), ended.stderr
    return ended.stdout


@pytest.fixture(scope="module")
def run(pipeline: Pipeline) -> Pipeline:
    """A shop's day: set up, sent, processed, stored, proved, looked at, mended."""
    for name in list(places(pipeline).values())[:3]:
        pipeline.wire.delete(name)
    _forget_stores(pipeline)
    command(pipeline, "setup", "setup", RETENTION_HOURS="48", DYNAMODB_BILLING="on-demand")
    command(pipeline, "setup", "setup", RETENTION_HOURS="48", DYNAMODB_BILLING="on-demand")
    pipeline.orders = pipeline.wire.open(pipeline.environment["ORDERS_STREAM"])
    for service in ("processor", "sink"):
        pipeline.start(service, **recorded(pipeline, service))
    # Minutes that are over are sent as rollups at once, and not a minute later.
    earlier = f"{datetime.now(UTC) - timedelta(minutes=10):%Y-%m-%dT%H:%M:%SZ}"
    pipeline.start(
        "generator", **recorded(pipeline, "generator"), ORDERS="300", RATE="10/s", START=earlier, SPEED="max",
        MALFORMED="0.02", DUPLICATES="0.1", UNKNOWN_CURRENCY="0.05",
    )  # fmt: skip
    pipeline.finish("generator", SECONDS)
    pipeline.settle(SECONDS)
    for stream in ("ORDERS_STREAM", "ROLLUPS_STREAM", "DEAD_LETTERS_STREAM"):
        name = pipeline.environment[stream]
        opened = pipeline.wire.open(name)
        pipeline.until(partial(_has_records, opened), SECONDS, name)
        pipeline.await_stored(opened, SECONDS)
    order_id = json.loads(next(pipeline.sent()).values[0])["order_id"]
    pipeline.await_items([order_id], SECONDS)
    _put_further_back(pipeline, order_id)
    pipeline.stop("sink")
    pipeline.start("sink", LANES="index", SINK_GROUP="again", **recorded(pipeline, "sink"))
    pipeline.until(lambda: _position(pipeline, order_id) < LAST, SECONDS, "put where it was")
    pipeline.start("auditor", **recorded(pipeline, "auditor"))
    pipeline.until(lambda: bool(pipeline.redis.exists(pipeline.keys.audit)), SECONDS, "looked at")
    pipeline.stop("auditor")
    looks: tuple[tuple[str, ...], ...] = (
        ("verify", "--everything"),
        ("query", "top-products"),
        ("export", "--output", "-"),
        ("export", "--source", "dynamodb", "--output", "-"),
    )
    for arguments in looks:
        command(pipeline, "auditor", *arguments)
    pipeline.stop("processor")
    pipeline.stop("sink")
    works: tuple[tuple[str, ...], ...] = (
        ("lag",),
        ("trace", order_id),
        ("dead-letters", "list"),
        ("dead-letters", "replay", "--reason", "currency", "--patch", '{"currency": "USD"}'),
        ("rebuild", "--force"),
    )
    for arguments in works:
        command(pipeline, "operator", *arguments)
    return pipeline


UNSEEN = {
    ("sink", "Leftovers"): "parts of an upload that a crash left, once they are an hour old",
    ("sink", "Compare"): "an object that another sink wrote before it was frozen or killed",
    ("setup", "AthenaTables", "glue:UpdateTable"): "a table that an earlier version made",
}
"""What no run of a few minutes asks for, and why it is granted."""


@pytest.mark.parametrize("who", POLICIES)
def test_whatever_is_asked_for_is_allowed(run: Pipeline, who: str) -> None:
    allowed = policy(who, places(run))
    assert [each for each in calls(run, who) if not any(rule.covers(each) for rule in allowed)] == []


@pytest.mark.parametrize("who", POLICIES)
def test_what_is_allowed_is_asked_for(run: Pipeline, who: str) -> None:
    asked_for = calls(run, who)
    idle = [rule for rule in policy(who, places(run)) if not any(rule.covers(each) for each in asked_for)]
    assert [
        rule for rule in idle if not {(who, rule.statement), (who, rule.statement, rule.action)} & UNSEEN.keys()
    ] == []


@pytest.mark.parametrize("who", POLICIES)
def test_actions_are_named_one_by_one_and_resources_begin_with_ours(pipeline: Pipeline, who: str) -> None:
    for rule in policy(who, places(pipeline)):
        assert "*" not in rule.action
        if rule.action != "kinesis:ListStreams":  # knows no resource
            assert rule.pattern.split("/*")[0].count("*") == 0
            assert re.match(r"arn:aws:(s3:::|\w+:us-east-1:123456789012:)", rule.pattern)


@pytest.mark.parametrize(
    ("who", "action", "resource"),
    [
        ("generator", "kinesis:GetRecords", "arn:aws:kinesis:us-east-1:123456789012:stream/ORDERS_STREAM"),
        ("generator", "kinesis:PutRecords", "arn:aws:kinesis:us-east-1:123456789012:stream/ROLLUPS_STREAM"),
        ("processor", "kinesis:PutRecords", "arn:aws:kinesis:us-east-1:123456789012:stream/ORDERS_STREAM"),
        ("processor", "s3:PutObject", "arn:aws:s3:::S3_BUCKET/orders/x"),
        ("sink", "s3:DeleteObject", "arn:aws:s3:::S3_BUCKET/orders/x"),
        ("sink", "s3:PutObject", "arn:aws:s3:::other/orders/x"),
        ("sink", "dynamodb:DeleteItem", "arn:aws:dynamodb:us-east-1:123456789012:table/SALES_TABLE"),
        ("sink", "kinesis:PutRecords", "arn:aws:kinesis:us-east-1:123456789012:stream/ORDERS_STREAM"),
        ("auditor", "s3:PutObject", "arn:aws:s3:::S3_BUCKET/orders/x"),
        ("auditor", "dynamodb:PutItem", "arn:aws:dynamodb:us-east-1:123456789012:table/SALES_TABLE"),
        ("operator", "s3:PutObject", "arn:aws:s3:::S3_BUCKET/orders/x"),
        ("setup", "s3:DeleteBucket", "arn:aws:s3:::S3_BUCKET"),
    ],
)
def test_nobody_may_do_what_another_is_for(pipeline: Pipeline, who: str, action: str, resource: str) -> None:
    filled = resource
    for placeholder, value in places(pipeline).items():
        filled = filled.replace(placeholder, value)
    assert not any(rule.covers(Asked(action, filled)) for rule in policy(who, places(pipeline)))


LAST = "9" * 56


def _has_records(stream: Stream) -> bool:
    return any(end is not None for end in stream.ends().values())


def _put_further_back(pipeline: Pipeline, order_id: str) -> None:
    """As if the order had come again, before the one that is stored."""
    aws.client("dynamodb", pipeline.settings, connections=1).update_item(
        TableName=pipeline.settings.sales_table,
        Key={"order_id": {"S": order_id}},
        UpdateExpression="SET #position = :last",
        ExpressionAttributeNames={"#position": "position"},
        ExpressionAttributeValues={":last": {"S": LAST}},
    )


def _position(pipeline: Pipeline, order_id: str) -> str:
    found = aws.client("dynamodb", pipeline.settings, connections=1).get_item(
        TableName=pipeline.settings.sales_table, Key={"order_id": {"S": order_id}}, ConsistentRead=True
    )
    return str(found["Item"]["position"]["S"])


def _forget_stores(pipeline: Pipeline) -> None:
    s3 = aws.client("s3", pipeline.settings, connections=1)
    s3.delete_bucket(Bucket=pipeline.environment["S3_BUCKET"])
    dynamodb = aws.client("dynamodb", pipeline.settings, connections=1)
    for table in ("SALES_TABLE", "TRENDS_TABLE"):
        dynamodb.delete_table(TableName=pipeline.environment[table])
