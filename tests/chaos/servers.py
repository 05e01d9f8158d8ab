"""A broker and a Redis that go away and come back where they were."""

import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import redis
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewPartitions

from support.ports import lasting_ports
from tillstream.local import kafka as local_kafka
from tillstream.local import redis as local_redis
from tillstream.local.nursery import Nursery
from tillstream.local.server import LOOPBACK, Server

STOP_SECONDS = 60.0
"""A broker that stops in order writes everything down first."""
ASK_SECONDS = 30.0


class Comeback:
    """A server that can be started again at its address."""

    def __init__(self, start: Callable[[Sequence[int]], Server], ports: int) -> None:
        self._start = start
        self._ports = lasting_ports(ports)
        self._server = start(self._ports)
        self.address = self._server.address

    def stop(self) -> None:
        """In order."""
        self._server.child.stop(STOP_SECONDS)

    def kill(self) -> None:
        """By signal 9."""
        self.signal(signal.SIGKILL)
        self._server.child.wait(STOP_SECONDS)

    def signal(self, number: signal.Signals) -> None:
        """To its process."""
        self._server.child.signal(number)

    def start(self) -> None:
        """At the same address; returns when it answers."""
        self._server = self._start(self._ports)


def broker(nursery: Nursery, data: Path) -> Comeback:
    """A Kafka broker that keeps its topics."""
    return Comeback(lambda ports: local_kafka.start(nursery, data=data, at=ports), ports=2)


def store(nursery: Nursery) -> Comeback:
    """A Redis that comes back empty."""
    return Comeback(lambda ports: local_redis.start(nursery, at=ports), ports=1)


def add_partition(bootstrap: str, topic: str) -> int:
    """One partition more; how many there are now, all of which have a leader."""
    admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})
    wanted = len(admin.list_topics(topic, timeout=ASK_SECONDS).topics[topic].partitions) + 1
    admin.create_partitions([NewPartitions(topic, wanted)])[topic].result(ASK_SECONDS)
    deadline = time.monotonic() + ASK_SECONDS
    while time.monotonic() < deadline:
        try:
            found = admin.list_topics(topic, timeout=ASK_SECONDS).topics[topic].partitions.values()
        except KafkaException:
            continue
        if len(found) == wanted and all(partition.leader >= 0 for partition in found):
            return wanted
        time.sleep(0.05)  # between two questions; the deadline bounds them
    raise TimeoutError(f"{topic} has no {wanted} partitions with leaders after {ASK_SECONDS:g} s")


class ReadOnly:
    """A Redis that became the replica of a master that is away: it answers, and refuses every write."""

    def __init__(self, client: "redis.Redis") -> None:
        self._client = client

    def __enter__(self) -> None:
        [nobody] = lasting_ports()
        self._client.replicaof(LOOPBACK, nobody)

    def __exit__(self, *_: object) -> None:
        self._client.replicaof("NO", "ONE")
