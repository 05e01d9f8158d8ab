"""A system that carries a topic into a bucket: started on its core, watched to the topic's end, its rows counted."""

import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
from benchmarks import stored
from benchmarks.lab import SERVERS_CORE, BenchmarkError, Lab, Meter, Usage, core_seconds
from benchmarks.topics import Loaded
from confluent_kafka import ConsumerGroupTopicPartitions, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from tillstream.local import aws as local_aws
from tillstream.local.nursery import Child
from tillstream.local.server import Server

BUCKET = "bench"
REGION = "us-east-1"
POLL_SECONDS = 0.2
"""How exactly the moments are known. Each look is a request for each partition, which the servers' core has to answer;
what it misses counts against the system."""
METER_SECONDS = 0.5
SAY_SECONDS = 5.0
STOP_SECONDS = 60.0
ANSWER_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Bucket:
    """An empty bucket on a server of its own, which goes with the run and so does its memory."""

    server: Server
    client: Any
    """boto3's, for ``s3``"""

    @property
    def env(self) -> dict[str, str]:
        """What leads a client to it."""
        return {**local_aws.environment(), "AWS_ENDPOINT_URL": self.server.address, "AWS_DEFAULT_REGION": REGION}


@dataclass(frozen=True, slots=True)
class Place:
    """What one run of a system is given."""

    lab: Lab
    loaded: Loaded
    bucket: Bucket
    name: str
    """of the run, and nobody else's: its groups and topics are named after it"""
    folder: Path
    """its own, and empty"""

    @property
    def env(self) -> dict[str, str]:
        """What is the same for every system: our environment, and the bucket's."""
        return {**os.environ, **self.bucket.env}


Progress = Callable[[], Mapping[str, int]]
"""The last position of each partition that is stored for good; -1: none."""


@dataclass(frozen=True, slots=True)
class Started:
    """A system that runs."""

    child: Child
    group: str
    """it reads from when this group of Kafka's has a member with partitions"""
    progress: Progress


@dataclass(frozen=True, slots=True)
class Run:
    """One run from an empty bucket until all messages of the topic are stored.

    ::

        start ─── imports, joins ─── first ─── stores ─── last ─── waits for its clock ─── end

    ``last`` is the last time that something was seen to be stored which was not a partition's end: what is left then
    are the partitions' last pieces, which no full file takes and which wait for a clock, so that time says nothing of
    speed. What was read of them before ``last`` is not counted.
    """

    messages: int
    """of the topic"""
    lines: int
    """of the topic"""
    steady_messages: int
    """stored at ``last``"""
    first_seconds: float
    """start to first"""
    steady_seconds: float
    """first to last"""
    whole_seconds: float
    """start to end"""
    first_cpu_seconds: float
    """start to first"""
    cpu_seconds: float
    """start to end; waiting takes none"""
    peak_mb: float
    servers: float
    """share of the servers' core that was busy from first to last: near 1, they were the limit"""
    others: float
    """share of the system's core that others took"""
    load: float
    """load average of a minute, at the start"""
    objects: int = 0
    stored_mb: float = 0.0

    @property
    def figures(self) -> dict[str, float]:
        """What is reported."""
        steady_lines = self.steady_messages / self.messages * self.lines
        return {
            "lines_per_second": steady_lines / self.steady_seconds,
            "lines_per_second_with_start": steady_lines / (self.first_seconds + self.steady_seconds),
            "lines_per_cpu_second": self.lines / (self.cpu_seconds - self.first_cpu_seconds),
            "lines_per_cpu_second_with_start": self.lines / self.cpu_seconds,
            "peak_mb": self.peak_mb,
            "first_seconds": self.first_seconds,
            "steady_seconds": self.steady_seconds,
            "whole_seconds": self.whole_seconds,
            "objects": self.objects,
            "stored_mb": self.stored_mb,
            "servers": self.servers,
            "others": self.others,
            "load": self.load,
        }


def medians(runs: list[Run]) -> dict[str, float]:
    """The median of each figure by itself."""
    return {name: statistics.median(run.figures[name] for run in runs) for name in runs[0].figures}


@contextmanager
def bucket(lab: Lab) -> Iterator[Bucket]:
    """An empty bucket; its server runs where the caller does.

    Raises:
        ServerError: moto is not installed, or does not start.
    """
    server = local_aws.start(lab.nursery)
    client = boto3.client(
        "s3",
        endpoint_url=server.address,
        region_name=REGION,
        aws_access_key_id=local_aws.CREDENTIALS["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=local_aws.CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
    )
    try:
        client.create_bucket(Bucket=BUCKET)
        yield Bucket(server, client)
    finally:
        client.close()
        server.stop()


def committed(place: Place, group: str) -> Progress:
    """The progress of a system that commits what it has stored."""
    admin = _admin(place.lab)
    topic = place.loaded.shape.topic

    def progress() -> Mapping[str, int]:
        asked = ConsumerGroupTopicPartitions(group, [TopicPartition(topic, int(name)) for name in place.loaded.ends])
        answers = admin.list_consumer_group_offsets([asked], request_timeout=ANSWER_SECONDS)
        found = answers[group].result().topic_partitions
        return {str(each.partition): max(each.offset, 0) - 1 for each in found}

    return progress


def watch(place: Place, system: Started, lines: int, *, started: float, seconds: float) -> Run:
    """Waits until all is stored.

    Args:
        place: where it runs.
        system: started.
        lines: how many there are in the topic.
        started: when its process was started, monotonic.
        seconds: how long it may take.

    Raises:
        BenchmarkError: it ended, took too long, or stored no more than the partitions' ends.
    """
    load = os.getloadavg()[0]
    loaded, meter = place.loaded, Meter(system.child.pid)
    before = meter.read()
    admin = _admin(place.lab)
    first: float | None = None
    first_cpu = first_busy = last_busy = 0.0
    last: tuple[float, int] | None = None
    reached = dict.fromkeys(loaded.ends, -1)
    metered = said = started
    while True:
        if first is None and _joined(admin, system.group):
            first, first_cpu, first_busy = time.monotonic(), meter.read().cpu_seconds, core_seconds(SERVERS_CORE)
        found = system.progress()
        now = time.monotonic()
        grown = [name for name in reached if found.get(name, -1) > reached[name]]
        reached |= {name: found[name] for name in grown}
        so_far = sum(position + 1 for position in reached.values())
        if any(reached[name] < loaded.ends[name] for name in grown):
            last, last_busy = (now, so_far), core_seconds(SERVERS_CORE)
        if reached == loaded.ends:
            break
        _check(system.child, started + seconds, f"has stored {so_far:,} of {loaded.messages:,} messages, not all")
        if now > metered + METER_SECONDS:
            metered = now
            meter.read()
        if now > said + SAY_SECONDS:
            said = now
            sys.stderr.write(f"{so_far:>12,} of {loaded.messages:,} after {now - started:.0f} s\n")
        time.sleep(POLL_SECONDS)
    if first is None or last is None or last[0] <= first:
        raise BenchmarkError(
            f"{system.child.name} stored nothing before the partitions' ends: more --orders, for a rate, or (ours) "
            "smaller files, as --set ROTATE_BYTES=4000000"
        )
    used: Usage = meter.read()
    return Run(
        messages=loaded.messages,
        lines=lines,
        steady_messages=last[1],
        first_seconds=first - started,
        steady_seconds=last[0] - first,
        whole_seconds=now - started,
        first_cpu_seconds=first_cpu,
        cpu_seconds=used.cpu_seconds,
        peak_mb=used.peak_mb,
        servers=(last_busy - first_busy) / (last[0] - first),
        others=max(0.0, used.core_seconds - before.core_seconds - used.cpu_seconds) / (now - started),
        load=load,
    )


def totals(place: Place, rows: str, *, with_places: bool) -> tuple[stored.Totals, Mapping[str, int]]:
    """What the bucket holds, and the sizes of its objects.

    Args:
        place: whose bucket.
        rows: see ``stored.totals``.
        with_places: whether the rows say where they came from.
    """
    sizes = stored.download(place.bucket.client, BUCKET, "orders/", place.folder)
    return stored.totals(rows, place.folder, with_places=with_places), sizes


def stop(child: Child) -> None:
    """Stops it in order.

    Raises:
        BenchmarkError: it would not.
    """
    code = child.stop(STOP_SECONDS)
    if code != 0:
        raise BenchmarkError("\n".join([f"{child.name} ended with {code}; its last lines:", *child.last_lines()]))


def _admin(lab: Lab) -> AdminClient:
    return AdminClient({"bootstrap.servers": lab.broker.address, "log_level": 0})  # it outlives the broker a little


def _joined(admin: AdminClient, group: str) -> bool:
    """Has the group a member that was given partitions?"""
    try:
        described = admin.describe_consumer_groups([group], request_timeout=ANSWER_SECONDS)[group].result()
    except KafkaException:
        return False  # not there yet
    return any(member.assignment and member.assignment.topic_partitions for member in described.members)


def _check(child: Child, deadline: float, what: str) -> None:
    if child.exit_code() is not None:
        raise BenchmarkError("\n".join([f"{child.name} ended; its last lines:", *child.last_lines()]))
    if time.monotonic() > deadline:
        raise BenchmarkError("\n".join([f"{child.name} {what} in time; its last lines:", *child.last_lines()]))
