"""`tillstream setup` against real servers: makes what is missing, says so, and does nothing the second time."""

import base64
import json
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from datetime import date
from typing import Any

import boto3
import pytest
from sqlglot import parse
from sqlglot.expressions import Select

from sales.settings import AwsSettings
from sink import glue
from support.ports import lasting_ports
from tillstream.local.server import inherited

GLUE_TABLES = ("orders", "rollups", "dead_letters", "sales")


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
        "GLUE_DATABASE": new_name("sales").replace("-", "_"),
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
        ("Glue database", place["GLUE_DATABASE"]),
        *(("Glue table", f"{place['GLUE_DATABASE']}.{name}") for name in GLUE_TABLES),
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


def glue_tables(place: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    client = boto3.client("glue", region_name="us-east-1", endpoint_url=place["AWS_ENDPOINT_URL"])
    tables = client.get_tables(DatabaseName=place["GLUE_DATABASE"])["TableList"]
    client.close()
    return {table["Name"]: table for table in tables}


def test_athena_finds_each_folder_without_a_crawler(place: dict[str, str]) -> None:
    assert setup(place | {"S3_PREFIX": "team-a/", "GLUE_SINCE": "2024-02-29"}).returncode == 0
    tables = glue_tables(place)
    assert sorted(tables) == sorted(GLUE_TABLES)
    root = f"s3://{place['S3_BUCKET']}/team-a"
    templates = {name: table["Parameters"].get("storage.location.template") for name, table in tables.items()}
    assert templates == {
        "orders": f"{root}/orders/dt=${{dt}}/hour=${{hour}}/",
        "rollups": f"{root}/rollups/dt=${{dt}}/",
        "dead_letters": f"{root}/dead-letters/dt=${{dt}}/",
        "sales": None,
    }
    orders = tables["orders"]
    assert orders["Parameters"]["projection.dt.range"] == "2024-02-29,NOW+1DAYS"
    assert orders["Parameters"]["projection.hour.digits"] == "2"
    assert orders["PartitionKeys"] == [{"Name": "dt", "Type": "string"}, {"Name": "hour", "Type": "int"}]
    kinds = {column["Name"]: column["Type"] for column in orders["StorageDescriptor"]["Columns"]}
    assert (kinds["event_time"], kinds["net_amount"], kinds["line"]) == ("timestamp", "bigint", "int")


def test_the_view_in_glue_is_one_that_athena_reads(place: dict[str, str]) -> None:
    assert setup(place).returncode == 0
    view = glue_tables(place)["sales"]
    assert (view["TableType"], view["Parameters"]["presto_view"]) == ("VIRTUAL_VIEW", "true")
    found = re.fullmatch(r"/\* Presto View: (\S+) \*/", view["ViewOriginalText"])
    assert found is not None
    inside = json.loads(base64.b64decode(found[1]))
    assert (inside["catalog"], inside["schema"]) == ("awsdatacatalog", place["GLUE_DATABASE"])
    [select] = parse(inside["originalSql"], read="athena")
    assert isinstance(select, Select)
    assert select.named_selects == [column["name"] for column in inside["columns"]]
    assert {"name": "hour", "type": "integer"} in inside["columns"]


def test_a_glue_table_of_an_earlier_version_gets_what_is_new_and_others_stay(place: dict[str, str]) -> None:
    assert setup(place).returncode == 0
    client = boto3.client("glue", region_name="us-east-1", endpoint_url=place["AWS_ENDPOINT_URL"])
    old = glue.definitions(place["GLUE_DATABASE"], f"s3://{place['S3_BUCKET']}/", date(2020, 1, 1))
    rollups = next(table for table in old if table["Name"] == "rollups")
    wanted = [*rollups["StorageDescriptor"]["Columns"]]
    del rollups["StorageDescriptor"]["Columns"][-1]
    client.update_table(DatabaseName=place["GLUE_DATABASE"], TableInput=rollups)
    versions = versions_of(client, place["GLUE_DATABASE"])
    assert setup(place).returncode == 0
    assert glue_tables(place)["rollups"]["StorageDescriptor"]["Columns"] == wanted
    after = versions_of(client, place["GLUE_DATABASE"])
    assert {name for name in after if after[name] != versions[name]} == {"rollups"}
    client.close()


def versions_of(client: Any, database: str) -> dict[str, int]:
    return {
        name: len(client.get_table_versions(DatabaseName=database, TableName=name)["TableVersions"])
        for name in GLUE_TABLES
    }


def test_the_tables_of_another_bucket_are_left_alone(place: dict[str, str]) -> None:
    assert setup(place).returncode == 0
    done = setup(place | {"S3_PREFIX": "another/"})
    assert done.returncode == 1
    assert "GLUE_DATABASE" in done.stderr
    assert "Traceback" not in done.stderr
    assert glue_tables(place)["orders"]["StorageDescriptor"]["Location"] == f"s3://{place['S3_BUCKET']}/orders/"


@pytest.mark.kafka
def test_on_kafka_it_makes_topics(place: dict[str, str], kafka_bootstrap: str) -> None:
    done = setup(place | {"STREAM": "kafka", "KAFKA_BOOTSTRAP_SERVERS": kafka_bootstrap})
    assert done.returncode == 0, done.stderr
    assert f"stream {place['ORDERS_STREAM']} created (kafka at {kafka_bootstrap})" in done.stdout


@pytest.fixture
def scattered(place: dict[str, str]) -> dict[str, str]:
    """The same, each service by an address of its own; of Glue none."""
    address = place.pop("AWS_ENDPOINT_URL")
    return place | {f"AWS_ENDPOINT_URL_{name}": address for name in ("KINESIS", "S3", "DYNAMODB")}


def test_where_only_s3_is_elsewhere_nobody_asks_the_glue_of_aws(scattered: dict[str, str]) -> None:
    done = setup(scattered, "--json")
    assert done.returncode == 0, done.stderr
    assert [made["kind"] for made in json.loads(done.stdout)] == ["stream"] * 3 + ["bucket"] + ["table"] * 2
    assert f"no tables for Athena: it does not read {scattered['AWS_ENDPOINT_URL_S3']}" in done.stderr


def test_a_glue_that_has_an_address_is_asked(scattered: dict[str, str]) -> None:
    done = setup(scattered | {"AWS_ENDPOINT_URL_GLUE": scattered["AWS_ENDPOINT_URL_S3"]}, "--json")
    assert done.returncode == 0, done.stderr
    assert [made["kind"] for made in json.loads(done.stdout)][-4:] == ["Glue table"] * 4


@pytest.mark.parametrize("service", ["S3", "DynamoDB", "Kinesis"])
def test_of_several_addresses_the_one_that_is_away_is_named(scattered: dict[str, str], service: str) -> None:
    [port] = lasting_ports()
    away = f"http://127.0.0.1:{port}"
    done = setup(scattered | {f"AWS_ENDPOINT_URL_{service.upper()}": away, "CONNECT_SECONDS": "1"})
    assert done.returncode == 3
    assert f"{service} at {away}" in done.stderr


def test_a_far_side_that_is_away_is_named_and_given_up(place: dict[str, str]) -> None:
    [port] = lasting_ports()
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
