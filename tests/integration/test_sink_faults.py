"""``python -m sink`` while S3 is slow, credentials have expired, or partitions go to another in the middle of a file:
every order is stored once, and who watches sees it.
"""

import json
import random
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from sales.settings import AwsSettings
from support.ports import lasting_ports
from support.proxying import Proxy, proxy_of
from support.scraping import get, scrape
from support.shop import START_SECONDS, Shop, check_archived_once, check_stored_once, new_names, opened, some_orders
from support.sinking import a_line, an_order
from support.waiting import eventually

pytestmark = pytest.mark.kafka

SLOW_SECONDS = 3.0
"""What each piece of a request takes longer: an extent is some requests, one after the other."""

SESSION_SECONDS = 20.0
"""A member that Kafka does not hear of for so long has lost its partitions."""

BUFFER_BYTES = 1_000_000
POLL_BYTES = 4_000_000
"""What one poll brings at most, beyond the buffer."""


@pytest.fixture
def shop(
    kafka_bootstrap: str,
    aws_settings: AwsSettings,
    s3_bucket: str,
    new_name: Callable[[str], str],
    tmp_path: Path,
) -> Iterator[Shop]:
    values = {"stream": "kafka", "kafka_bootstrap_servers": kafka_bootstrap}
    with opened(values | new_names(aws_settings, s3_bucket, new_name), tmp_path) as shop:
        yield shop


@pytest.fixture
def proxy(aws_settings: AwsSettings) -> Iterator[Proxy]:
    with proxy_of(aws_settings.aws_endpoint_url or "") as proxy:
        yield proxy


def largest(port: int, metric: str) -> float:
    """Of the partitions of the archive's orders."""
    start = f'tillstream_sink_{metric}{{lane="archive-orders"'
    return max((value for name, value in scrape(port).items() if name.startswith(start)), default=0.0)


def heavy_orders(count: int) -> list[bytes]:
    """About 3 kB each, and as much in memory: no name comes twice."""
    return [
        an_order(
            f"heavy-{number}",
            lines=[
                a_line(product_id=f"{number}-{line}", product_name=f"{number:>010}{line:>01000}") for line in range(3)
            ],
        )
        for number in range(count)
    ]


def test_an_s3_that_becomes_slow_is_waited_for_in_bounded_memory_and_seen(shop: Shop, proxy: Proxy) -> None:
    [port] = lasting_ports()
    calm = threading.Event()
    shop.start(
        AWS_ENDPOINT_URL=proxy.address,
        LANES="archive",
        BUFFER_BYTES=str(BUFFER_BYTES),
        ROTATE_RECORDS="100",
        METRICS_PORT=str(port),
    )
    shop.send(*some_orders(random.Random(3), 50))  # noqa: S311 (a seed makes the orders the same each time)
    eventually(lambda: shop.archived() == 50, seconds=START_SECONDS)
    eventually(lambda: largest(port, "lag_messages") == 0)

    def slowly(_piece: bytes) -> None:
        calm.wait(SLOW_SECONDS)

    proxy.on_piece = slowly
    orders = heavy_orders(6_000)
    shop.send(*orders)
    held = []

    def longer_than_a_session() -> bool:
        held.append(largest(port, "held_bytes"))
        return largest(port, "lag_seconds") > SESSION_SECONDS

    eventually(longer_than_a_session, seconds=120)
    assert 0 < max(held) < BUFFER_BYTES + 1.5 * POLL_BYTES < sum(map(len, orders))
    assert 50 < largest(port, "messages_total") < 4_000  # it has stopped reading; the others wait in the stream
    assert 0 < largest(port, "retention_used_ratio") < 0.01
    assert largest(port, "lag_messages") > 0
    assert get(port, "/live") == get(port, "/ready") == (200, "ok\n")
    calm.set()
    eventually(lambda: shop.archived() == 6_050, seconds=120)
    eventually(lambda: largest(port, "lag_messages") == largest(port, "lag_seconds") == 0)
    assert shop.log(0).read_text().count("archive-orders: partition") == len(shop.streams["orders"].partitions())
    shop.stop(shop.processes[0])
    check_archived_once(shop)


EXPIRED_S3 = b"<Error><Code>ExpiredToken</Code><Message>The provided token has expired.</Message></Error>"
EXPIRED_DYNAMODB = b'{"__type": "com.amazon.coral.service#ExpiredTokenException", "message": "The token has expired."}'


def refused(piece: bytes) -> bytes:
    body = EXPIRED_DYNAMODB if b"x-amz-target" in piece.lower() else EXPIRED_S3
    return b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)


def test_credentials_that_expire_are_waited_for_until_they_are_renewed(
    shop: Shop, proxy: Proxy, tmp_path: Path
) -> None:
    credentials, config = tmp_path / "credentials.json", tmp_path / "config"
    config.write_text(f"[default]\ncredential_process = cat {credentials}\n")

    def issue(key: str) -> None:
        expires = datetime.now(UTC) + timedelta(minutes=5)  # so soon that they are asked for again at each request
        given = {"Version": 1, "AccessKeyId": key, "SecretAccessKey": "s", "SessionToken": "t"}
        renewed = tmp_path / "renewed.json"
        renewed.write_text(json.dumps(given | {"Expiration": expires.isoformat()}))
        renewed.replace(credentials)

    issue("FIRST")
    [port] = lasting_ports()
    process = shop.start(
        AWS_ENDPOINT_URL=proxy.address,
        AWS_CONFIG_FILE=str(config),
        AWS_SHARED_CREDENTIALS_FILE=str(tmp_path / "none"),
        AWS_ACCESS_KEY_ID="",
        AWS_SECRET_ACCESS_KEY="",
        METRICS_PORT=str(port),
    )
    dice = random.Random(7)  # noqa: S311 (a seed makes the orders the same each time)
    shop.send(*some_orders(dice, 40))
    eventually(lambda: shop.archived() == 40, seconds=START_SECONDS)
    eventually(lambda: len(shop.items(shop.store.sales_table)) == len(shop.order_ids()), seconds=START_SECONDS)

    proxy.on_piece = lambda piece: refused(piece) if b"Credential=FIRST/" in piece else None
    shop.send(*some_orders(dice, 40))
    lanes = ("archive-orders", "index-orders")
    eventually(
        lambda: all(scrape(port)[f'tillstream_sink_retries_total{{lane="{lane}"}}'] >= 2 for lane in lanes), seconds=60
    )
    assert get(port, "/live") == (200, "ok\n")
    assert shop.archived() == 40

    issue("SECOND")
    eventually(lambda: shop.archived() == 80, seconds=120)  # a lane that found them expired some times waits for 30 s
    eventually(lambda: len(shop.items(shop.store.sales_table)) == len(shop.order_ids()), seconds=120)
    assert all(scrape(port)[f'tillstream_sink_lane_up{{lane="{lane}"}}'] == 1 for lane in lanes)
    shop.stop(process)
    check_stored_once(shop)


def test_partitions_that_change_hands_in_the_middle_of_a_file_are_written_by_both_and_stored_once(
    shop: Shop, proxy: Proxy
) -> None:
    arrived, go = threading.Semaphore(0), threading.Event()

    def hold_objects(piece: bytes) -> None:
        if piece.startswith(b"PUT ") and b"/orders/dt%3D" in piece.split(b"\r\n", 1)[0]:
            arrived.release()
            go.wait(120)

    dice = random.Random(9)  # noqa: S311 (a seed makes the orders the same each time)
    first = shop.start(AWS_ENDPOINT_URL=proxy.address, STOP_SECONDS="1")
    shop.send(*some_orders(dice, 40))
    eventually(lambda: shop.archived() == 40, seconds=START_SECONDS)
    proxy.on_piece = hold_objects
    shop.send(*some_orders(dice, 40))
    assert arrived.acquire(timeout=START_SECONDS)  # the extent is pinned, its first object is on the way
    second = shop.start()
    log = shop.log(1)
    eventually(lambda: "first exactly up to" in log.read_text(), seconds=START_SECONDS)
    shop.send(*some_orders(dice, 40))
    go.set()  # while the second writes the same objects
    eventually(lambda: shop.archived() == 120, seconds=120)
    assert "is given up with records that are not stored" in shop.log(0).read_text()
    eventually(lambda: len(shop.items(shop.store.sales_table)) == len(shop.order_ids()), seconds=START_SECONDS)
    shop.stop(first)
    shop.stop(second)
    check_stored_once(shop)
