"""`tillstream setup` against real servers: makes what is missing, says so, and does nothing the second time."""

import json
import subprocess
import sys
from collections.abc import Callable, Mapping

import boto3
import pytest

from sales.settings import AwsSettings
from tillstream.local.server import free_ports, inherited


@pytest.fixture
def place(aws_settings: AwsSettings, new_name: Callable[[str], str]) -> dict[str, str]:
    """An environment with names of its own."""
    assert aws_settings.aws_endpoint_url is not None
    return {
        "STREAM": "kinesis",
        "AWS_ENDPOINT_URL": aws_settings.aws_endpoint_url,
        "ORDERS_STREAM": new_name("orders"),
        "ROLLUPS_STREAM": new_name("rollups"),
        "DEAD_LETTERS_STREAM": new_name("dead-letters"),
        "S3_BUCKET": new_name("bucket"),
        "SALES_TABLE": new_name("SalesData"),
        "TRENDS_TABLE": new_name("SalesTrends"),
        "PARTITIONS": "2",
    }


def setup(place: Mapping[str, str], *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "tillstream", "setup", *arguments],
        env=inherited(**place),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_it_makes_everything_once_and_says_so(place: dict[str, str]) -> None:
    first, second = setup(place, "--json"), setup(place, "--json")
    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    done, again = json.loads(first.stdout), json.loads(second.stdout)
    assert [(made["kind"], made["name"]) for made in done] == [
        ("stream", place["ORDERS_STREAM"]),
        ("stream", place["ROLLUPS_STREAM"]),
        ("stream", place["DEAD_LETTERS_STREAM"]),
        ("bucket", place["S3_BUCKET"]),
        ("table", place["SALES_TABLE"]),
        ("table", place["TRENDS_TABLE"]),
    ]
    assert all(made["created"] for made in done)
    assert not any(made["created"] for made in again)


def test_the_table_has_its_index_and_capacity(place: dict[str, str], aws_settings: AwsSettings) -> None:
    assert setup(place).returncode == 0
    client = boto3.client("dynamodb", region_name=aws_settings.aws_region, endpoint_url=aws_settings.aws_endpoint_url)
    table = client.describe_table(TableName=place["SALES_TABLE"])["Table"]
    client.close()
    assert table["KeySchema"] == [{"AttributeName": "order_id", "KeyType": "HASH"}]
    assert [index["IndexName"] for index in table["GlobalSecondaryIndexes"]] == ["CategoryIndex"]
    assert table["ProvisionedThroughput"]["WriteCapacityUnits"] == 5


def test_what_a_failed_run_left_out_is_made_up_for_and_rules_of_others_stay(
    place: dict[str, str], aws_settings: AwsSettings
) -> None:
    def rules() -> list[str]:
        found = client.get_bucket_lifecycle_configuration(Bucket=place["S3_BUCKET"])["Rules"]
        return [rule["ID"] for rule in found]

    client = boto3.client("s3", region_name=aws_settings.aws_region, endpoint_url=aws_settings.aws_endpoint_url)
    client.create_bucket(Bucket=place["S3_BUCKET"])
    assert setup(place).returncode == 0
    assert rules() == ["tillstream-abort-unfinished-uploads", "tillstream-remove-probes"]

    rule = {"ID": "somebody's", "Status": "Enabled", "Filter": {"Prefix": "a/"}, "Expiration": {"Days": 3}}
    client.put_bucket_lifecycle_configuration(Bucket=place["S3_BUCKET"], LifecycleConfiguration={"Rules": [rule]})
    assert setup(place).returncode == 0
    assert rules() == ["somebody's"]
    client.close()


@pytest.mark.kafka
def test_on_kafka_it_makes_topics(place: dict[str, str], kafka_bootstrap: str) -> None:
    done = setup(place | {"STREAM": "kafka", "KAFKA_BOOTSTRAP_SERVERS": kafka_bootstrap})
    assert done.returncode == 0, done.stderr
    assert f"stream {place['ORDERS_STREAM']} created (kafka at {kafka_bootstrap})" in done.stdout


def test_a_far_side_that_is_away_is_named_and_given_up(place: dict[str, str]) -> None:
    [port] = free_ports()
    away = f"http://127.0.0.1:{port}"
    done = setup(place | {"AWS_ENDPOINT_URL": away, "CONNECT_SECONDS": "1"})
    assert done.returncode == 3
    assert away in done.stderr
    assert "Traceback" not in done.stderr


def test_wrong_settings_are_a_line_each() -> None:
    done = setup({"STREAM": "rabbit", "PARTITIONS": "0"})
    assert done.returncode == 2
    assert "STREAM: Input should be 'kafka' or 'kinesis'; allowed: kafka, kinesis" in done.stderr
    assert "PARTITIONS: " in done.stderr
    assert "S3_BUCKET: is not set" in done.stderr
