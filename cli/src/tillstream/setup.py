"""``tillstream setup``: streams, bucket, tables and what Athena knows of them, made where they are missing."""

import contextlib
import functools
import json
import logging
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal

import typer
from botocore.exceptions import BotoCoreError, ClientError

from sales.aws_faults import TRANSPORT_FAULTS, status
from sales.events import Log
from sales.service import EXIT_AWAY, EXIT_FAILED
from sales.settings import AwsService, GlueSettings, StoreSettings, StreamSettings, load
from sales.streams import AwayError, StreamError
from sales.streams.connect import connect
from sales.streams.reaching import reach
from sink import aws, glue
from sink.tables import bucket_lifecycle, sales_table, trends_table

log = Log(__name__)


class SetupSettings(StreamSettings, StoreSettings, GlueSettings):
    """Everything that is set up."""


class SetupError(Exception):
    """The far side refuses; says what and why."""


@dataclass(frozen=True, slots=True)
class Made:
    """One thing that is there now."""

    kind: Literal["stream", "bucket", "table", "Glue database", "Glue table"]
    name: str
    created: bool
    """False: it was there already, and stays as it is, but that a bucket without rules of lifecycle gets some, and a
    Glue table what this version has new"""
    where: str

    @property
    def sentence(self) -> str:
        """For people."""
        return f"{self.kind} {self.name} {'created' if self.created else 'was there'} ({self.where})"


def setup(as_json: Annotated[bool, typer.Option("--json", help="Print what was done as JSON.")] = False) -> None:
    """Create the streams, the bucket and the tables that are missing. Running it again changes nothing."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    settings = load(SetupSettings)
    done: list[Made] = []
    try:
        for made in create_all(settings):
            done.append(made)
            if not as_json:
                typer.echo(made.sentence)
    except (StreamError, SetupError) as error:
        typer.echo(f"setup: {error}", err=True)
        raise typer.Exit(EXIT_AWAY if isinstance(error, AwayError) else EXIT_FAILED) from error
    finally:
        if as_json:
            typer.echo(json.dumps([asdict(made) for made in done], indent=2))


def create_all(settings: SetupSettings) -> Iterator[Made]:
    """Makes one thing after the other, and tells of each when it can be used.

    Raises:
        AwayError: a far side stays away for CONNECT_SECONDS.
        StreamError: a stream can't be made.
        SetupError: the bucket or a table can't be made.
    """
    yield from _streams(settings)
    yield _bucket(settings)
    yield from _tables(settings)
    yield from _glue(settings)


@contextlib.contextmanager
def _client(service: AwsService, settings: SetupSettings) -> Iterator[tuple[Any, str]]:
    """A client, and where its service is. What that refuses becomes a SetupError."""
    where = settings.whereabouts(service)
    with contextlib.closing(aws.client(service, settings, connections=1)) as client:
        try:
            yield client, where
        except (BotoCoreError, ClientError) as error:
            raise SetupError(f"{where}: {error}") from error


def _streams(settings: SetupSettings) -> Iterator[Made]:
    where = settings.kafka_bootstrap_servers if settings.stream == "kafka" else settings.whereabouts("kinesis")
    wire = connect(settings, settings)
    try:
        for name in (settings.orders_stream, settings.rollups_stream, settings.dead_letters_stream):
            created = wire.create(name, partitions=settings.partitions, retention_hours=settings.retention_hours)
            yield Made("stream", name, created, f"{settings.stream} at {where}")
    finally:
        wire.close()


def _bucket(settings: SetupSettings) -> Made:
    name = settings.s3_bucket
    with _client("s3", settings) as (client, where):
        there = reach("S3", where, settings.connect_seconds, TRANSPORT_FAULTS, lambda: _bucket_is_there(client, name))
        if not there:
            # The first region is the default, and S3 refuses to be told so.
            elsewhere = {} if settings.aws_region == "us-east-1" else {"LocationConstraint": settings.aws_region}
            client.create_bucket(Bucket=name, **({"CreateBucketConfiguration": elsewhere} if elsewhere else {}))
            client.get_waiter("bucket_exists").wait(Bucket=name)
        try:
            _set_lifecycle(client, settings)
        except ClientError as error:
            if not there and status(error) != 501:  # a store without lifecycles is as good
                raise
            log.warning(
                "bucket_lifecycle_unset",
                "bucket {bucket} stays as it is: its lifecycle can't be read or set ({error})",
                bucket=name,
                error=error,
            )
    return Made("bucket", name, created=not there, where=where)


def _set_lifecycle(client: Any, settings: SetupSettings) -> None:
    """Where there is none: setting it replaces all rules, and somebody may have some of their own."""
    try:
        client.get_bucket_lifecycle_configuration(Bucket=settings.s3_bucket)
    except ClientError as error:
        if error.response["Error"]["Code"] != "NoSuchLifecycleConfiguration":
            raise
        client.put_bucket_lifecycle_configuration(**bucket_lifecycle(settings))


def _bucket_is_there(client: Any, name: str) -> bool:
    try:
        client.head_bucket(Bucket=name)
    except ClientError as error:
        if error.response["Error"]["Code"] in ("404", "NoSuchBucket"):
            return False
        raise
    return True


def _tables(settings: SetupSettings) -> Iterator[Made]:
    with _client("dynamodb", settings) as (client, where):

        def create(definition: dict[str, Any]) -> bool:
            try:
                client.create_table(**definition)
            except client.exceptions.ResourceInUseException:
                return False
            return True

        for definition in (sales_table(settings), trends_table(settings)):
            name = definition["TableName"]
            created = reach(
                "DynamoDB", where, settings.connect_seconds, TRANSPORT_FAULTS, functools.partial(create, definition)
            )
            client.get_waiter("table_exists").wait(TableName=name)
            yield Made("table", name, created, where)


def _glue(settings: SetupSettings) -> Iterator[Made]:
    """What only Athena needs: without the service or the permission the rest is as good.

    Athena reads the S3 of AWS. With another one and no address for Glue, nobody is asked: it would be the real one.
    """
    if settings.aws_endpoint_url_s3 is not None and settings.endpoint("glue") is None:
        log.warning(
            "glue_left_out",
            "no tables for Athena: it does not read {endpoint} (set AWS_ENDPOINT_URL_GLUE if it does)",
            endpoint=settings.aws_endpoint_url_s3,
        )
        return
    root = f"s3://{settings.s3_bucket}/{settings.s3_prefix}"
    database = settings.glue_database or re.sub("[^a-z0-9]+", "_", root.removeprefix("s3://").lower()).strip("_")
    where = settings.whereabouts("glue")
    with contextlib.closing(aws.client("glue", settings, connections=1)) as client:
        try:
            yield Made("Glue database", database, _new_database(client, database), where)
            for definition in glue.definitions(database, root, settings.glue_since):
                created = _new_glue_table(client, database, definition)
                yield Made("Glue table", f"{database}.{definition['Name']}", created, where)
        except (BotoCoreError, ClientError) as error:
            log.warning(
                "glue_unset",
                "Athena does not know the tables: Glue database {database} can't be made or changed ({error})",
                database=database,
                error=error,
            )


def _new_database(client: Any, name: str) -> bool:
    try:
        client.create_database(DatabaseInput={"Name": name})
    except client.exceptions.AlreadyExistsException:
        return False
    return True


def _new_glue_table(client: Any, database: str, definition: dict[str, Any]) -> bool:
    try:
        client.create_table(DatabaseName=database, TableInput=definition)
    except client.exceptions.AlreadyExistsException:
        there = client.get_table(DatabaseName=database, Name=definition["Name"])["Table"]
        place, wanted = (each["StorageDescriptor"].get("Location", "") for each in (there, definition))
        if place != wanted:
            raise SetupError(
                f"Glue table {database}.{definition['Name']} is that of {place}, not of {wanted}: "
                "set GLUE_DATABASE to a name that nobody else has"
            ) from None
        if not glue.holds(there, definition):
            client.update_table(DatabaseName=database, TableInput=definition)
        return False
    return True
