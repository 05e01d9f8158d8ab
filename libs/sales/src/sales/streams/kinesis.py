"""Kinesis: shards are partitions, sequence numbers are positions. Here is what is asked once in a while; reading and
writing have files of their own."""

import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, TypeVar

import boto3
import botocore.session
import xxhash
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError
from botocore.utils import parse_timestamp

from sales.aws_faults import code, passes
from sales.events import Log
from sales.settings import AwsSettings, StreamSettings
from sales.streams import NO_TIPS, Checkpoints, PositionLostError, StreamError
from sales.streams.kinesis_reader import FETCH_RECORDS, KinesisMember, KinesisReader, Listing, Shard
from sales.streams.kinesis_writer import KinesisWriter
from sales.streams.packed import Packing, PackingMember
from sales.streams.reaching import reach

log = Log(__name__)

POSITION_DIGITS = 56
"""A sequence number is a 128-bit shard and a 64-bit part inside it: AWS writes 56 digits."""

SETTLE_SECONDS = 300.0
"""How long AWS may take to make or remove a stream; it is usually under one minute."""

DEFAULT_RETENTION_HOURS = 24

AWS_READ_SECONDS = 0.6
"""Pause between two reads of a shard. AWS allows five reads a second and shard, all readers together: three of them
(the processor and the sink's two lanes) stay just within."""

LOCAL_READ_SECONDS = 0.25
"""The same for a server of one's own, which has no such limit: how fresh things are."""

LOOK_BACK_SECONDS = (60, 3600, 6 * 3600)
"""Where the last record of a shard is looked for before the whole shard is read."""

CONNECTIONS = 64
"""Kept open: one for each reader and writer at work."""

T = TypeVar("T")


class KinesisWire:
    """The streams of one account and region; several threads may use it."""

    def __init__(self, client: Any, where: str, read_seconds: float) -> None:
        self._client = client
        self._where = where
        self._read_seconds = read_seconds

    @classmethod
    def connect(cls, settings: StreamSettings, aws: AwsSettings) -> "KinesisWire":
        """Reaches the service within ``CONNECT_SECONDS``.

        Raises:
            AwayError: it does not answer.
            StreamError: it refused the credentials.
        """
        where = aws.whereabouts("kinesis")
        client = boto3.Session(botocore_session=_session()).client(
            "kinesis",
            region_name=aws.aws_region,
            endpoint_url=aws.endpoint("kinesis"),
            config=Config(
                connect_timeout=3,
                read_timeout=15,
                retries={"mode": "standard", "total_max_attempts": 2},
                max_pool_connections=CONNECTIONS,
                tcp_keepalive=True,
            ),
        )

        def attempt() -> None:
            try:
                client.list_streams(Limit=1)
            except NoCredentialsError as fault:
                raise StreamError(f"Kinesis at {where}: no AWS credentials found") from fault
            except ClientError as fault:
                if not passes(fault):
                    raise StreamError(f"Kinesis at {where} refuses us: {fault}") from fault
                raise

        reach("Kinesis", where, settings.connect_seconds, (BotoCoreError, ClientError), attempt)
        return cls(client, where, AWS_READ_SECONDS if aws.endpoint("kinesis") is None else LOCAL_READ_SECONDS)

    def create(self, name: str, *, partitions: int, retention_hours: int) -> bool:
        """Creates the stream if it is not there and waits until it is active.

        The retention is raised where the server can do that, else a line on the log says that it stays.

        Raises:
            StreamError: refused (rights, limits), or not active after some minutes.
        """
        created = True
        try:
            self._client.create_stream(StreamName=name, ShardCount=partitions)
        except ClientError as fault:
            if code(fault) != "ResourceInUseException":
                raise StreamError(f"Kinesis at {self._where} refuses to create stream {name!r}: {fault}") from fault
            created = False
        except BotoCoreError as fault:
            raise StreamError(f"Kinesis at {self._where} does not create stream {name!r}: {fault}") from fault
        summary = self._until_active(name)
        if not created and summary["OpenShardCount"] != partitions:
            log.warning(
                "kinesis_shards_differ",
                "stream {stream!r} has {shards} open shards, not {expected_shards}",
                stream=name,
                shards=summary["OpenShardCount"],
                expected_shards=partitions,
            )
        if summary["RetentionPeriodHours"] < retention_hours:
            self._keep(name, retention_hours)
        return created

    def _until_active(self, name: str) -> dict[str, Any]:
        deadline = time.monotonic() + SETTLE_SECONDS
        while True:
            summary = self.describe(name)
            if summary is not None and summary["StreamStatus"] in ("ACTIVE", "UPDATING"):
                return summary
            if time.monotonic() > deadline:
                raise StreamError(f"stream {name!r} is not active {SETTLE_SECONDS:.0f} s after it was created")
            time.sleep(0.2)

    def _keep(self, name: str, hours: int) -> None:
        try:
            self._client.increase_stream_retention_period(StreamName=name, RetentionPeriodHours=hours)
        except (ClientError, BotoCoreError) as fault:
            log.warning(
                "kinesis_retention_differs",
                "stream {stream!r} keeps its records for {retention_hours} h, not {expected_retention_hours}: {error}",
                stream=name,
                retention_hours=DEFAULT_RETENTION_HOURS,
                expected_retention_hours=hours,
                error=fault,
            )
            return
        self._until_active(name)

    def open(self, name: str) -> "KinesisStream":
        """The stream's present incarnation.

        Raises:
            StreamError: there is none of that name.
        """
        summary = self.describe(name)
        if summary is None:
            raise StreamError(f"Kinesis at {self._where} has no stream {name!r}; `tillstream setup` creates it")
        return KinesisStream(self, self._client, name, _id(name, summary), self._read_seconds)

    def delete(self, name: str) -> None:
        """Deletes the stream and waits until it is gone; no stream of that name is no error."""
        try:
            self._client.delete_stream(StreamName=name, EnforceConsumerDeletion=True)
        except ClientError as fault:
            if code(fault) == "ResourceNotFoundException":
                return
            raise StreamError(f"Kinesis refuses to delete stream {name!r}: {fault}") from fault
        deadline = time.monotonic() + SETTLE_SECONDS
        while self.describe(name) is not None:
            if time.monotonic() > deadline:
                raise StreamError(f"stream {name!r} is still there {SETTLE_SECONDS:.0f} s after it was deleted")
            time.sleep(0.2)

    def close(self) -> None:
        """Closes idle connections."""
        self._client.close()

    def describe(self, name: str) -> dict[str, Any] | None:
        """What the service says of a stream; None: not there."""

        def question() -> dict[str, Any] | None:
            try:
                answer = self._client.describe_stream_summary(StreamName=name)
            except ClientError as fault:
                if code(fault) == "ResourceNotFoundException":
                    return None
                raise
            summary: dict[str, Any] = answer["StreamDescriptionSummary"]
            return summary

        return self.ask(f"describe stream {name!r}", question)

    def shards(self, name: str) -> list[Shard]:
        """All shards that still have records or take some, parents before children."""

        def question() -> list[Shard]:
            found = []
            request: dict[str, Any] = {"StreamName": name}
            while True:
                answer = self._client.list_shards(**request)
                found.extend(answer["Shards"])
                if not answer.get("NextToken"):
                    break
                request = {"NextToken": answer["NextToken"]}
            return sorted(
                (
                    Shard(
                        shard["ShardId"],
                        tuple(shard[key] for key in ("ParentShardId", "AdjacentParentShardId") if shard.get(key)),
                        closed=bool(shard["SequenceNumberRange"].get("EndingSequenceNumber")),
                    )
                    for shard in found
                ),
                key=lambda shard: shard.name,
            )

        return self.ask(f"list the shards of stream {name!r}", question)

    def ask(self, what: str, question: Callable[[], T]) -> T:
        """The answer to one administrative question; StreamError with what was asked when there is none."""
        try:
            return question()
        except (ClientError, BotoCoreError) as fault:
            raise StreamError(f"Kinesis at {self._where} does not {what}: {fault}") from fault


class KinesisStream:
    """One incarnation of one stream."""

    def __init__(self, wire: KinesisWire, client: Any, name: str, stream_id: str, read_seconds: float) -> None:
        self._read_seconds = read_seconds
        self._wire = wire
        self._client = client
        self._name = name
        self._id = stream_id

    @property
    def id(self) -> str:
        """Name and a digest of its account and creation time."""
        return self._id

    @property
    def position_digits(self) -> int:
        """56."""
        return POSITION_DIGITS

    def partitions(self) -> list[str]:
        """All shards there are, closed ones with records too.

        Raises:
            PositionLostError: the stream was deleted, or deleted and made again.
        """
        return [shard.name for shard in self._shards().shards]

    def _shards(self) -> Listing:
        summary = self._wire.describe(self._name)
        if summary is None or _id(self._name, summary) != self._id:
            raise PositionLostError(f"stream {self._id} is no more: {self._name!r} was deleted")
        return Listing(self._wire.shards(self._name), summary["RetentionPeriodHours"] * 3600)

    def ends(self) -> dict[str, int | None]:
        """Reads the last minute of each shard, or the last hours where there is nothing: Kinesis tells no other way."""
        deadline = time.monotonic() + SETTLE_SECONDS
        return {shard.name: self._end(shard.name, deadline) for shard in self._shards().shards}

    def _end(self, shard: str, deadline: float) -> int | None:
        now = time.time()
        for back in LOOK_BACK_SECONDS:
            last = self._last_record(shard, {"ShardIteratorType": "AT_TIMESTAMP", "Timestamp": now - back}, deadline)
            if last is not None:
                return last
        return self._last_record(shard, {"ShardIteratorType": "TRIM_HORIZON"}, deadline)

    def _last_record(self, shard: str, start: dict[str, Any], deadline: float) -> int | None:
        """The last record from a start on."""
        last = None
        iterator = None
        while True:
            try:
                if iterator is None:
                    answer = self._client.get_shard_iterator(StreamName=self._name, ShardId=shard, **start)
                    iterator = answer["ShardIterator"]
                answer = self._client.get_records(ShardIterator=iterator, Limit=FETCH_RECORDS)
            except ClientError as fault:
                if code(fault) == "InvalidArgumentException":
                    return None  # a time to come, by the server's clock
                if not passes(fault) or time.monotonic() > deadline:
                    raise StreamError(f"Kinesis does not tell where {self._id}/{shard} ends: {fault}") from fault
                time.sleep(self._read_seconds)
                continue
            except BotoCoreError as fault:
                raise StreamError(f"Kinesis does not tell where {self._id}/{shard} ends: {fault}") from fault
            records = answer["Records"]
            if records:
                last = int(records[-1]["SequenceNumber"])
            iterator = answer.get("NextShardIterator")
            if iterator is None or (answer["MillisBehindLatest"] == 0 and len(records) < FETCH_RECORDS):
                return last
            if time.monotonic() > deadline:
                raise StreamError(f"the end of {self._id}/{shard} was not reached in {SETTLE_SECONDS:.0f} s")

    def committed(self, group: str, checkpoints: Checkpoints) -> dict[str, int | None]:
        """As ``checkpoints`` have it; of shards that are still listed."""
        saved = {name: checkpoints.load(group, self._id, name) for name in self.partitions()}
        return {name: None if found is None else found.position for name, found in saved.items()}

    def behind(self, after: Mapping[str, int | None]) -> dict[str, int | None]:
        """0 where the last record is not behind the position, else None: Kinesis does not count."""
        ends = self.ends()
        return {
            name: 0 if (end := ends.get(name)) is None or (position is not None and end <= position) else None
            for name, position in after.items()
        }

    def reader(self, after: Mapping[str, int | None], tips: Mapping[str, int] = NO_TIPS) -> KinesisReader:
        """Reads these shards; of those among them, a child is read after its parents.

        A shard that was split or merged is no longer listed once its last record has expired. That it was read to its
        end can't be seen then, but it follows where another shard's position is still there: the reader proves that.
        Without one, PositionLostError.

        Args:
            after: shard to position.
            tips: shard to a time when there was nothing behind that position; with it a shard that was quiet for longer
                than its retention is read on.
        """
        listed = self._shards()
        names = {shard.name for shard in listed.shards}
        present = {name: position for name, position in after.items() if name in names}
        missing = [name for name in after if name not in names]
        if missing:
            if all(position is None for position in present.values()):
                raise PositionLostError(f"stream {self._id} has no shards {', '.join(missing)} any more")
            log.warning(
                "kinesis_shards_expired",
                "stream {stream}: shards {shards} have ended and expired",
                stream=self._id,
                shards=", ".join(missing),
            )
        reader = KinesisReader(self._client, self._name, self._shards, listed=listed, read_seconds=self._read_seconds)
        reader.add(present, tips)
        return reader

    def packed_reader(self, after: Mapping[str, int | None], tips: Mapping[str, int] = NO_TIPS) -> Packing:
        """The same, packed: Kinesis's client gives each record as objects anyway."""
        reader = self.reader(after, tips)
        return Packing(reader, reader.tips)

    def member(
        self,
        group: str,
        checkpoints: Checkpoints,
        on_assigned: Callable[[dict[str, int | None]], None],
        on_revoked: Callable[[list[str]], None],
    ) -> KinesisMember:
        """The group's only member: takes all shards, and new ones as they come."""
        return KinesisMember(
            self._client,
            self._name,
            self._shards,
            stream_id=self._id,
            group=group,
            checkpoints=checkpoints,
            on_assigned=on_assigned,
            on_revoked=on_revoked,
            read_seconds=self._read_seconds,
        )

    def packed_member(
        self,
        group: str,
        checkpoints: Checkpoints,
        on_assigned: Callable[[dict[str, int | None]], None],
        on_revoked: Callable[[list[str]], None],
    ) -> PackingMember:
        """The same, packed."""
        return PackingMember(self.member(group, checkpoints, on_assigned, on_revoked))

    def writer(self) -> KinesisWriter:
        """A writer with a sending thread of its own."""
        return KinesisWriter(self._client, self._name)


def _session() -> botocore.session.Session:
    """A session of our own: the default one keeps credentials that were found earlier. Its times are read without
    botocore's detour through the local time zone, which takes two thirds of the time that a read costs."""

    def time_of(value: Any) -> datetime:
        try:
            return datetime.fromtimestamp(float(value), UTC)
        except ValueError:  # text, as other services have it
            parsed: datetime = parse_timestamp(value)
            return parsed

    session = botocore.session.get_session()
    session.get_component("response_parser_factory").set_parser_defaults(timestamp_parser=time_of)
    return session


def _id(name: str, summary: Mapping[str, Any]) -> str:
    """The creation time tells incarnations apart; the digest makes eight characters of it."""
    arn = summary["StreamARN"]
    made = round(summary["StreamCreationTimestamp"].timestamp() * 1000)
    return f"{name}-{xxhash.xxh32_hexdigest(f'{arn} {made}'.encode())}"
