"""The board on a real Redis: one writer, only what changed, everything again when Redis has lost it."""

import threading
from collections.abc import Iterator

import pytest
import redis

from sales.board import BoardError, BoardReader, BoardWriter, FencedError, Keys, Tick

KEYS = Keys("sales:")


AS_OF = "2026-11-20T08:12:33.000Z"


def a_tick(**scores: int) -> Tick:
    return Tick(
        as_of=AS_OF,
        zsets={KEYS.product("1m", "units"): scores},
        hashes={KEYS.status: {"as_of": AS_OF}, KEYS.aov("1m"): {"orders": str(sum(scores.values()))}},
    )


def a_writer(client: "redis.Redis") -> BoardWriter:
    writer = BoardWriter(client, KEYS, ttl_seconds=3600)
    writer.claim(0)
    return writer


def units(client: "redis.Redis") -> list[tuple[str, int]]:
    return BoardReader(client, KEYS, ["1m"]).read().windows["1m"].products["units"]


def test_what_is_published_is_read_again(redis_client: "redis.Redis") -> None:
    writer = a_writer(redis_client)
    writer.publish(a_tick(a=1, b=5), 0)
    assert units(redis_client) == [("b", 5), ("a", 1)]
    writer.publish(a_tick(b=4, c=7), 0)
    assert units(redis_client) == [("c", 7), ("b", 4)]
    writer.publish(a_tick(), 0)
    assert units(redis_client) == []


def test_members_with_any_bytes_and_the_largest_exact_scores_survive(redis_client: "redis.Redis") -> None:
    writer = a_writer(redis_client)
    scores = {"": 1, "é\n\0 x": -(2**53), "85123A": 2**53 - 1}
    writer.publish(a_tick(**scores), 0)
    assert dict(units(redis_client)) == scores


@pytest.mark.parametrize("wrong", [900.4, float("inf"), 2.0**-40])
def test_a_score_that_is_no_whole_number_is_an_error_and_never_rounded(
    redis_client: "redis.Redis", wrong: float
) -> None:
    a_writer(redis_client).publish(a_tick(a=1), 0)
    redis_client.zadd(KEYS.product("1m", "units"), {"b": wrong})
    with pytest.raises(BoardError, match=r"sales:1m:product:units: the score of 'b' is"):
        units(redis_client)


@pytest.mark.parametrize("wrong", ["900.4", "", "1_000", "+5", "05", "nan"])
def test_a_minute_of_a_trend_that_is_no_whole_number_is_an_error(redis_client: "redis.Redis", wrong: str) -> None:
    redis_client.hset(KEYS.trend("units"), "2026-11-20T08:12:00.000Z", wrong)
    with pytest.raises(BoardError, match=r"sales:trend:units: the value of 2026-11-20T08:12:00.000Z is"):
        units(redis_client)


def test_a_zombie_with_an_older_token_is_refused(redis_client: "redis.Redis") -> None:
    zombie = a_writer(redis_client)
    zombie.publish(a_tick(a=1), 0)
    successor = a_writer(redis_client)
    with pytest.raises(FencedError):
        zombie.publish(a_tick(a=2), 0)
    assert units(redis_client) == [("a", 1)]
    successor.publish(a_tick(a=3), 0)
    with pytest.raises(FencedError):
        zombie.publish(a_tick(a=4), 0)
    assert units(redis_client) == [("a", 3)]


def test_a_token_is_above_the_one_in_redis_and_the_one_remembered(redis_client: "redis.Redis") -> None:
    first = BoardWriter(redis_client, KEYS, 3600).claim(1_795_162_353_123)
    second = BoardWriter(redis_client, KEYS, 3600).claim(0)
    redis_client.flushdb()
    third = BoardWriter(redis_client, KEYS, 3600).claim(second)
    assert 1_795_162_353_123 < first < second < third


def test_after_flushall_everything_is_published_again(redis_client: "redis.Redis") -> None:
    writer = a_writer(redis_client)
    writer.publish(a_tick(a=1, b=2), 0)
    redis_client.flushall()
    writer.publish(a_tick(a=1, b=3), 0)
    assert units(redis_client) == [("b", 3), ("a", 1)]
    assert redis_client.hget(KEYS.aov("1m"), "orders") == b"4"


def test_leftovers_of_an_earlier_writer_are_gone_with_the_first_tick(redis_client: "redis.Redis") -> None:
    a_writer(redis_client).publish(a_tick(old=1), 0)
    a_writer(redis_client).publish(a_tick(new=1), 0)
    assert units(redis_client) == [("new", 1)]


def test_a_patch_changes_some_fields_of_a_hash_and_removes_others(redis_client: "redis.Redis") -> None:
    writer, key = a_writer(redis_client), KEYS.trend("units")
    for patch in ({"08:00": "1", "08:01": "2"}, {"08:01": "3"}, {"08:00": None, "07:00": None}):
        tick = a_tick()
        tick.patches[key] = dict(patch)
        writer.publish(tick, 0)
    assert redis_client.hgetall(key) == {b"08:01": b"3"}
    redis_client.flushall()
    writer.publish(a_tick(), 0)
    assert redis_client.hgetall(key) == {b"08:01": b"3"}


def test_large_contents_pass_the_limits_of_a_script(redis_client: "redis.Redis") -> None:
    writer = a_writer(redis_client)
    scores = {f"product-{number}": number for number in range(30_000)}
    writer.publish(a_tick(**scores), 0)
    assert dict(units(redis_client)) == scores


def test_every_key_but_the_token_expires_and_is_refreshed_unchanged(redis_client: "redis.Redis") -> None:
    writer = a_writer(redis_client)
    writer.publish(a_tick(a=1), 0)
    for key in redis_client.scan_iter():
        if key != KEYS.epoch.encode():
            redis_client.expire(key, 100)
    writer.publish(a_tick(a=1), 1_000_000)
    lives = {key.decode(): redis_client.ttl(key) for key in redis_client.scan_iter()}
    assert lives.pop(KEYS.epoch) == -1
    assert set(lives) == {KEYS.status, KEYS.product("1m", "units"), KEYS.aov("1m")}
    assert all(life > 3000 for life in lives.values())


def ends(client: "redis.Redis") -> set[int]:
    """When keys but the token's expire, on Redis's clock."""
    names = (KEYS.status, KEYS.aov("1m"), KEYS.product("1m", "units"), KEYS.product("5m", "units"))
    return {client.expiretime(name) for name in names if client.exists(name)}


def test_all_of_a_board_that_nobody_writes_any_more_goes_at_once_and_not_before_its_time(
    redis_client: "redis.Redis",
) -> None:
    writer = a_writer(redis_client)
    writer.publish(a_tick(a=1), 0)
    early = ends(redis_client)
    writer.publish(a_tick(a=2), 800_000)
    writer.publish(Tick(as_of=AS_OF, zsets={KEYS.product("5m", "units"): {"a": 1}}), 850_000)
    assert max(early | ends(redis_client)) - min(early | ends(redis_client)) <= 2
    assert min(early) >= redis_client.time()[0] + 3600 + 850
    before, _ = redis_client.time()
    writer.publish(a_tick(a=3), 901_000)
    assert min(ends(redis_client)) >= before + 4500
    assert max(ends(redis_client)) - min(ends(redis_client)) <= 2


def test_a_writer_that_stood_still_for_longer_than_keys_live_writes_all_of_them(redis_client: "redis.Redis") -> None:
    writer = a_writer(redis_client)
    writer.publish(a_tick(a=1), 0)
    redis_client.delete(KEYS.product("1m", "units"), KEYS.aov("1m"))
    writer.publish(a_tick(a=1), 3_600_001)
    assert units(redis_client) == [("a", 1)]
    assert redis_client.exists(KEYS.aov("1m"))


@pytest.fixture
def stop() -> Iterator[threading.Event]:
    event = threading.Event()
    yield event
    event.set()


def test_a_reader_never_sees_half_a_tick(redis_client: "redis.Redis", redis_url: str, stop: threading.Event) -> None:
    def publish() -> None:
        writer = a_writer(redis.Redis.from_url(redis_url))
        number = 0
        while not stop.is_set():
            number += 1
            writer.publish(a_tick(a=number), 0)

    thread = threading.Thread(target=publish, daemon=True)
    thread.start()
    reader, seen = BoardReader(redis_client, KEYS, ["1m"]), set[str]()
    while len(seen) < 20 and thread.is_alive():
        live = reader.read().windows["1m"]
        if live.aov:
            assert live.aov["orders"] == str(live.products["units"][0][1])
            seen.add(live.aov["orders"])
    stop.set()
    thread.join(10)
    assert len(seen) >= 20


def test_each_tick_is_announced(redis_client: "redis.Redis") -> None:
    subscription = redis_client.pubsub(ignore_subscribe_messages=True)  # type: ignore[no-untyped-call]  # redis-py's own gap
    subscription.subscribe(KEYS.updates)
    subscription.get_message(timeout=5)
    a_writer(redis_client).publish(a_tick(a=1), 0)
    message = subscription.get_message(timeout=5)
    assert message is not None
    assert message["data"] == b'{"as_of":"2026-11-20T08:12:33.000Z"}'
    subscription.close()
