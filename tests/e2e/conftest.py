"""Whole pipelines with the services as processes; they go with the tests of a module."""

from collections.abc import Iterator

import pytest

from support.services import OpenPipeline, Pipeline
from tillstream.local.nursery import Nursery


@pytest.fixture(scope="module")
def open_pipeline(
    request: pytest.FixtureRequest,
    nursery: Nursery,
    tmp_path_factory: pytest.TempPathFactory,
    redis_url: str,
    aws_endpoint: str,
) -> Iterator[OpenPipeline]:
    """Makes pipelines with streams, bucket, tables and board of their own."""
    opened: list[Pipeline] = []

    def open_(wire: str, **settings: str) -> Pipeline:
        folder = tmp_path_factory.mktemp(wire)
        name = f"{request.module.__name__.rsplit('.', 1)[-1].removeprefix('test_').replace('_', '-')}-{folder.name}"
        environment = {
            "STREAM": wire,
            "PARTITIONS": "2",
            "ORDERS_STREAM": name,
            "ROLLUPS_STREAM": f"{name}-rollups",
            "DEAD_LETTERS_STREAM": f"{name}-dead-letters",
            "AWS_ENDPOINT_URL": aws_endpoint,
            "S3_BUCKET": name,
            "SALES_TABLE": f"SalesData-{name}",
            "TRENDS_TABLE": f"SalesTrends-{name}",
            "REDIS_URL": redis_url,
            "REDIS_PREFIX": f"{name}:",
            **settings,
        }
        if wire == "kafka":
            environment["KAFKA_BOOTSTRAP_SERVERS"] = request.getfixturevalue("kafka_bootstrap")
        opened.append(Pipeline(nursery, folder, environment))
        return opened[-1]

    yield open_
    for pipeline in opened:
        pipeline.close()
