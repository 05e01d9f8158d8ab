"""The fixtures' servers are real: each keeps what it is given."""

import uuid
from collections.abc import Callable
from pathlib import Path

import boto3
import pytest
import redis
from botocore.exceptions import ClientError
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from sales.settings import AwsSettings
from support.waiting import eventually
from tillstream.local import dynamodb as local_dynamodb
from tillstream.local import kafka as local_kafka
from tillstream.local.nursery import Nursery
from tillstream.local.server import ServerError, free_ports


def test_redis_keeps_a_value_and_evicts_nothing(redis_client: "redis.Redis") -> None:
    redis_client.set("a", "1")
    assert redis_client.get("a") == b"1"
    assert redis_client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}


def test_s3_refuses_a_second_writer_of_one_key(aws_settings: AwsSettings, s3_bucket: str) -> None:
    client = boto3.client("s3", region_name=aws_settings.aws_region, endpoint_url=aws_settings.aws_endpoint_url)
    client.put_object(Bucket=s3_bucket, Key="a", Body=b"1", IfNoneMatch="*")
    with pytest.raises(ClientError) as refused:
        client.put_object(Bucket=s3_bucket, Key="a", Body=b"2", IfNoneMatch="*")
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 412


def test_kinesis_hands_out_records_in_order(aws_settings: AwsSettings, new_name: Callable[[str], str]) -> None:
    client = boto3.client("kinesis", region_name=aws_settings.aws_region, endpoint_url=aws_settings.aws_endpoint_url)
    stream = new_name("orders")
    client.create_stream(StreamName=stream, ShardCount=1)
    client.put_records(
        StreamName=stream, Records=[{"PartitionKey": "k", "Data": str(number).encode()} for number in range(250)]
    )
    shard = client.list_shards(StreamName=stream)["Shards"][0]["ShardId"]
    iterator = client.get_shard_iterator(StreamName=stream, ShardId=shard, ShardIteratorType="TRIM_HORIZON")
    first = client.get_records(ShardIterator=iterator["ShardIterator"], Limit=100)
    second = client.get_records(ShardIterator=first["NextShardIterator"], Limit=1000)
    third = client.get_records(ShardIterator=second["NextShardIterator"], Limit=1000)
    read = [int(record["Data"]) for answer in (first, second) for record in answer["Records"]]
    assert read == list(range(250))
    assert third["Records"] == []


@pytest.mark.dynamodb
def test_dynamodb_local_inserts_only_where_the_key_is_absent(
    dynamodb_endpoint: str, new_name: Callable[[str], str]
) -> None:
    client = boto3.client("dynamodb", region_name="us-east-1", endpoint_url=dynamodb_endpoint)
    table = new_name("SalesData")
    client.create_table(
        TableName=table,
        KeySchema=[{"AttributeName": "order_id", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "order_id", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
    )
    insert = {"Statement": f"INSERT INTO \"{table}\" VALUE {{'order_id': ?}}", "Parameters": [{"S": "a"}]}
    first = client.batch_execute_statement(Statements=[insert])["Responses"]
    second = client.batch_execute_statement(Statements=[insert, insert | {"Parameters": [{"S": "b"}]}])["Responses"]
    client.close()
    assert [answer.get("Error", {}).get("Code") for answer in first + second] == [None, "DuplicateItem", None]


@pytest.mark.dynamodb
def test_a_stranger_on_its_port_is_not_taken_for_dynamodb_local(
    dynamodb_endpoint: str, nursery: Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = int(dynamodb_endpoint.rpartition(":")[2])
    offered = [taken]
    monkeypatch.setattr(
        "tillstream.local.server.free_ports", lambda count: [offered.pop()] if offered else free_ports(count)
    )
    try:
        ours = local_dynamodb.start(nursery)
    except ServerError as lacking:
        pytest.skip(str(lacking))
    assert ours.port != taken
    ours.stop()


def test_kafka_creates_a_topic(kafka_bootstrap: str, new_name: Callable[[str], str]) -> None:
    admin = AdminClient({"bootstrap.servers": kafka_bootstrap})
    topic = new_name("orders")
    admin.create_topics([NewTopic(topic, num_partitions=2, replication_factor=1)])[topic].result(timeout=10)
    eventually(lambda: topic in admin.list_topics(timeout=10).topics)  # the broker learns of it from its controller


@pytest.mark.kafka
def test_a_broker_with_a_folder_keeps_its_topics(
    nursery: Nursery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lacking = local_kafka.missing()
    if lacking is not None:
        pytest.skip(lacking)
    begins_with_a_dash = uuid.UUID(bytes=b"\xf8" + bytes(15))
    monkeypatch.setattr("tillstream.local.kafka.uuid.uuid4", lambda: begins_with_a_dash)
    for _ in range(2):
        broker = local_kafka.start(nursery, data=tmp_path / "data")
        admin = AdminClient({"bootstrap.servers": broker.address})
        before = set(admin.list_topics(timeout=10).topics)
        if not before:
            admin.create_topics([NewTopic("kept", num_partitions=1, replication_factor=1)])["kept"].result(timeout=10)
        broker.stop()
    assert before == {"kept"}
