"""Real servers for tests. Each is looked for in this order, and the last lines of a run say which one was used:

1. an address given by the environment: TEST_REDIS_URL (its database is emptied!), TEST_AWS_ENDPOINT_URL,
   TEST_DYNAMODB_ENDPOINT_URL, TEST_KAFKA_BOOTSTRAP_SERVERS;
2. a container, when an engine answers and the image is there or can be pulled;
3. a local process: redis-server or Valkey, moto, DynamoDB Local and Kafka from Maven.

A server that can't be had skips its tests with the reason; TILLSTREAM_REQUIRE (``kafka``, or several with commas)
makes that an error.
"""

import contextlib
import os
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import hypothesis
import pytest
import redis
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

import sink  # noqa: F401 (before any test imports pyarrow: it chooses the memory pool)
from sales.settings import AwsSettings
from support.ports import lasting_ports
from tillstream.local import aws as local_aws
from tillstream.local import dynamodb as local_dynamodb
from tillstream.local import kafka as local_kafka
from tillstream.local import redis as local_redis
from tillstream.local.nursery import Nursery
from tillstream.local.server import Server, ServerError

# A test never depends on how long something takes: other work on the machine is no defect.
hypothesis.settings.register_profile(
    "tillstream", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("tillstream")

REPOSITORY = Path(__file__).parents[1]
CONTAINER_SECONDS = 90.0
USED = pytest.StashKey[dict[str, str]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[USED] = {}


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A worker tells its servers to whoever shows the summary."""
    if (output := getattr(session.config, "workeroutput", None)) is not None:
        output["servers"] = session.config.stash[USED]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """A worker has ended."""
    told = getattr(node, "workeroutput", {}).get("servers", {})
    node.config.stash[USED] |= {f"{name} of {node.gateway.id}": which for name, which in told.items()}


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for name, which in config.stash[USED].items():
        terminalreporter.write_line(f"server for tests: {name}: {which}")


@pytest.fixture(scope="session")
def nursery() -> Iterator[Nursery]:
    """Holds child processes; whatever becomes of the test run, they end with it."""
    with Nursery() as nursery:
        yield nursery


@pytest.fixture(scope="session")
def redis_url(request: pytest.FixtureRequest, nursery: Nursery) -> Iterator[str]:
    """A Redis-compatible server."""
    with _server(
        request,
        "redis",
        given="TEST_REDIS_URL",
        container=lambda stack: _container(
            stack,
            "redis:8",
            6379,
            lambda host, port: f"redis://{host}:{port}/0",
            lambda url: bool(redis.Redis.from_url(url, socket_timeout=1).ping()),
        ),
        process=lambda: local_redis.start(nursery),
    ) as address:
        yield address


@pytest.fixture(scope="session")
def aws_credentials() -> Iterator[None]:
    """Those that servers of the AWS protocol take, unless there are some."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in local_aws.environment().items():
            if name not in local_aws.CREDENTIALS or name not in os.environ:
                patch.setenv(name, value)
        yield


@pytest.fixture(scope="session")
def aws_endpoint(request: pytest.FixtureRequest, nursery: Nursery, aws_credentials: None) -> Iterator[str]:
    """Kinesis, S3 and DynamoDB."""
    with _server(
        request,
        "aws",
        given="TEST_AWS_ENDPOINT_URL",
        # No image: the local process mends faults of moto's, and a container of moto would not.
        container=lambda _: None,
        process=lambda: local_aws.start(nursery),
    ) as address:
        yield address


@pytest.fixture(scope="session")
def dynamodb_endpoint(request: pytest.FixtureRequest, nursery: Nursery, aws_credentials: None) -> Iterator[str]:
    """DynamoDB alone, nearer to the real one than moto's."""
    with _server(
        request,
        "dynamodb",
        given="TEST_DYNAMODB_ENDPOINT_URL",
        container=lambda stack: _container(
            stack,
            f"amazon/dynamodb-local:{local_dynamodb.DYNAMODB.version}",
            8000,
            lambda host, port: f"http://{host}:{port}",
            local_dynamodb.answers,
            env={"DDB_LOCAL_TELEMETRY": "0"},
        ),
        process=lambda: local_dynamodb.start(nursery),
    ) as address:
        yield address


@pytest.fixture(scope="session")
def kafka_bootstrap(request: pytest.FixtureRequest, nursery: Nursery) -> Iterator[str]:
    """A real Kafka broker's ``host:port``."""
    with _server(
        request,
        "kafka",
        given="TEST_KAFKA_BOOTSTRAP_SERVERS",
        container=_kafka_container,
        process=lambda: local_kafka.start(nursery),
    ) as address:
        yield address


@pytest.fixture
def redis_client(redis_url: str) -> Iterator["redis.Redis"]:
    """A client of an emptied database."""
    client = redis.Redis.from_url(redis_url)
    client.flushdb()
    yield client
    client.close()


@pytest.fixture
def new_name() -> Callable[[str], str]:
    """Names that nobody else has, for streams, groups, buckets and tables: ``orders`` to ``orders-3f9a01c2``."""
    return lambda name: f"{name}-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def aws_settings(aws_endpoint: str) -> AwsSettings:
    """Where S3, DynamoDB and Kinesis are."""
    return AwsSettings(aws_endpoint_url=aws_endpoint)


@pytest.fixture
def s3_bucket(aws_settings: AwsSettings, new_name: Callable[[str], str]) -> str:
    """The name of a fresh, empty bucket."""
    name = new_name("bucket")
    client = boto3.client("s3", region_name=aws_settings.aws_region, endpoint_url=aws_settings.aws_endpoint_url)
    client.create_bucket(Bucket=name)
    client.close()
    return name


@pytest.fixture(scope="session")
def online_retail() -> Path:
    """The file of real orders; TILLSTREAM_DATA names the folder that holds it when it is elsewhere."""
    folder = Path(os.environ.get("TILLSTREAM_DATA") or REPOSITORY.parent / "shared" / "data")
    path = folder / "online-retail" / "online-retail.csv.gz"
    if not path.is_file():
        pytest.skip(f"no real orders at {path}; TILLSTREAM_DATA names the folder that has online-retail/")
    return path


@contextlib.contextmanager
def _server(
    request: pytest.FixtureRequest,
    name: str,
    *,
    given: str,
    container: Callable[[contextlib.ExitStack], str | None],
    process: Callable[[], Server],
) -> Iterator[str]:
    used = request.config.stash[USED]
    if address := os.environ.get(given):
        used[name] = f"{address} ({given})"
        yield address
        return
    with contextlib.ExitStack() as stack:
        if address := container(stack):
            used[name] = f"{address} (container)"
            yield address
            return
    try:
        server = process()
    except ServerError as error:
        used[name] = f"none: {str(error).splitlines()[0]}"
        if name in os.environ.get("TILLSTREAM_REQUIRE", "").split(","):
            pytest.fail(f"TILLSTREAM_REQUIRE asks for {name}: {error}")
        pytest.skip(f"{name}: {error}")
    used[name] = f"{server.address} (local process, {server.name})"
    yield server.address
    server.stop()


def _kafka_container(stack: contextlib.ExitStack) -> str | None:
    [port] = lasting_ports()  # the broker has to know the address that it is reached at before it starts
    return _container(
        stack,
        "apache/kafka:4.3.1",
        9092,
        lambda _, __: f"127.0.0.1:{port}",
        lambda address: bool(
            AdminClient({"bootstrap.servers": address, "log_level": 0}).list_topics(timeout=2).brokers
        ),
        host_port=port,
        env={
            "KAFKA_NODE_ID": "1",
            "KAFKA_PROCESS_ROLES": "broker,controller",
            "KAFKA_LISTENERS": "PLAINTEXT://:9092,CONTROLLER://:9093",
            "KAFKA_ADVERTISED_LISTENERS": f"PLAINTEXT://127.0.0.1:{port}",
            "KAFKA_CONTROLLER_LISTENER_NAMES": "CONTROLLER",
            "KAFKA_CONTROLLER_QUORUM_VOTERS": "1@localhost:9093",
            "KAFKA_LISTENER_SECURITY_PROTOCOL_MAP": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR": "1",
            "KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR": "1",
            "KAFKA_TRANSACTION_STATE_LOG_MIN_ISR": "1",
            "KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS": "0",
        },
    )


def _container(
    stack: contextlib.ExitStack,
    image: str,
    port: int,
    address: Callable[[str, int], str],
    answers: Callable[[str], bool],
    *,
    host_port: int | None = None,
    env: dict[str, str] | None = None,
) -> str | None:
    """A container's address once it answers; None when no engine answers or the image can't be had."""
    os.environ.setdefault("TESTCONTAINERS_RYUK_DISABLED", "true")  # its helper image can't be pulled everywhere
    import docker  # type: ignore[import-untyped]
    from docker.errors import DockerException, ImageNotFound  # type: ignore[import-untyped]
    from testcontainers.core.container import DockerContainer

    try:
        with contextlib.closing(docker.from_env(timeout=60)) as engine:
            engine.ping()
            try:
                engine.images.get(image)
            except ImageNotFound:
                engine.images.pull(image)
    except DockerException:
        return None
    container = DockerContainer(image).with_envs(**(env or {}))
    container = container.with_bind_ports(port, host_port) if host_port else container.with_exposed_ports(port)
    stack.enter_context(container)
    at = address(container.get_container_host_ip(), int(container.get_exposed_port(port)))
    deadline = time.monotonic() + CONTAINER_SECONDS
    while time.monotonic() < deadline:
        with contextlib.suppress(redis.RedisError, KafkaException):
            if answers(at):
                return at
        time.sleep(0.1)  # between two questions to a server that starts; bounded by the deadline
    pytest.fail(f"the container of {image} does not answer on {at} after {CONTAINER_SECONDS:g} s")
