"""The live board: the Redis contract. Key names, the fenced write, the reader.

Whoever writes holds a *fencing token*; a writer with an older one is refused. One tick is one script, so a reader that
takes its keys in one MULTI sees one tick and never half of one.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
import redis

MEASURES = ("units", "revenue", "orders")
GROUPS = ("category", "region", "country")
PRODUCT_MEASURES = ("units", "revenue")

_INTEGER = re.compile(r"0|-?[1-9][0-9]*")


def client_of(url: str, seconds: float) -> "redis.Redis":
    """A client of a Redis, not yet connected, that waits ``seconds`` at most for a connection or an answer.

    It does not introduce itself (CLIENT SETINFO, from Redis 7.2 on), because our users on Redis may do nothing but
    their work, and one of Redis 7.0 can't be allowed what that does not know.
    """
    return redis.Redis.from_url(url, socket_timeout=seconds, socket_connect_timeout=seconds, driver_info=None)


class FencedError(Exception):
    """Another writer holds a newer token: this one must stop."""


class BoardError(Exception):
    """A number on the board is none: somebody else has written there. Says which."""


class Keys:
    """Every key name, in one place; each starts with the prefix (``sales:``)."""

    def __init__(self, prefix: str) -> None:
        self.epoch = f"{prefix}epoch"
        self.status = f"{prefix}status"
        self.positions = f"{prefix}positions"
        self.products = f"{prefix}products"
        self.updates = f"{prefix}updates"
        self.audit = f"{prefix}audit"
        self._prefix = prefix

    def product(self, window: str, measure: str) -> str:
        """ZSET of the best products of a window."""
        return f"{self._prefix}{window}:product:{measure}"

    def group(self, window: str, group: str, measure: str) -> str:
        """ZSET of every category, region or country of a window."""
        return f"{self._prefix}{window}:{group}:{measure}"

    def aov(self, window: str) -> str:
        """HASH of a window's totals."""
        return f"{self._prefix}{window}:aov"

    def trend(self, measure: str, region: str | None = None) -> str:
        """HASH of minute to value."""
        return f"{self._prefix}trend:{measure}" if region is None else f"{self._prefix}trend:region:{region}:{measure}"


@dataclass(slots=True)
class Tick:
    """What one moment changes on the board. Keys are full names."""

    as_of: str
    zsets: dict[str, dict[str, int]] = field(default_factory=dict)
    """key to its whole content, member to score; empty: the key goes"""
    hashes: dict[str, dict[str, str]] = field(default_factory=dict)
    """key to its whole content"""
    patches: dict[str, dict[str, str | None]] = field(default_factory=dict)
    """hash key to the fields that change; None: the field goes"""


REFRESHES = 4
"""So often in its life every key's end is put off."""

# KEYS[1] the token's key; KEYS[2] the channel; KEYS[3..] what is written.
# ARGV[1] my token; ARGV[2] "1" if this holds everything; ARGV[3] when all keys expire (seconds since 1970), or "in 9":
# so many seconds from now; ARGV[4] the message;
# ARGV[5] msgpack: one list per key from KEYS[3] on: {kind, fields to set (flat), fields to remove, whole}.
# Answers when the keys expire, or what is in the way.
_PUBLISH = """
local held = redis.call('GET', KEYS[1])
if held and tonumber(held) > tonumber(ARGV[1]) then return 'fenced' end
if ARGV[2] == '0' and held ~= ARGV[1] then return 'lost' end
redis.call('SET', KEYS[1], ARGV[1])
local STEP = 2000  -- Lua passes at most about 8000 arguments in one call
local function chunked(command, key, list)
  for first = 1, #list, STEP do
    redis.call(command, key, unpack(list, first, math.min(first + STEP - 1, #list)))
  end
end
local seconds = string.match(ARGV[3], '^in (%d+)$')
local expires = seconds and string.format('%.0f', tonumber(redis.call('TIME')[1]) + tonumber(seconds)) or ARGV[3]
for index, change in ipairs(cmsgpack.unpack(ARGV[5])) do
  local key = KEYS[index + 2]
  local zset = change[1] == 'z'
  if change[4] then redis.call('DEL', key) end
  chunked(zset and 'ZREM' or 'HDEL', key, change[3])
  chunked(zset and 'ZADD' or 'HSET', key, change[2])
  redis.call('EXPIREAT', key, expires)
end
redis.call('PUBLISH', KEYS[2], ARGV[4])
return expires
"""

_CLAIM = """
local held = tonumber(redis.call('GET', KEYS[1]) or '0')
local mine = math.max(held, tonumber(ARGV[1])) + 1
redis.call('SET', KEYS[1], string.format('%.0f', mine))
return string.format('%.0f', mine)
"""


class BoardWriter:
    """Publishes ticks, sending only what changed since its last one. Not thread-safe; each call is one round trip."""

    def __init__(self, client: "redis.Redis", keys: Keys, ttl_seconds: int) -> None:
        self._keys = keys
        self._ttl = ttl_seconds
        self._publish = client.register_script(_PUBLISH)
        self._claim = client.register_script(_CLAIM)
        self._client = client
        self._token = 0
        self._zsets: dict[str, dict[str, int]] = {}
        self._hashes: dict[str, dict[str, str]] = {}
        self._complete = False
        """does Redis hold what the two mirrors hold?"""
        self._refreshed_ms = 0
        self._expires = ""
        """when all keys do, by Redis's clock; the same for all, so that a board that nobody writes goes in one piece"""

    def claim(self, at_least: int) -> int:
        """Takes over as the only writer: a token above ``at_least`` and above the one in Redis.

        Raises:
            redis.RedisError: Redis can't be reached.
        """
        self._token = int(self._claim(keys=[self._keys.epoch], args=[at_least]))
        self._complete = False
        return self._token

    def publish(self, tick: Tick, now_ms: int) -> None:
        """One tick, atomically. After an error the same or a later tick may be published again.

        Args:
            tick: what changed.
            now_ms: any clock that runs; decides when unchanged keys get their expiry refreshed.

        Raises:
            FencedError: there is a newer writer.
            redis.RedisError: not known whether it arrived.
        """
        changes = self._absorb(tick)
        age_ms = now_ms - self._refreshed_ms
        refresh = age_ms > self._ttl * 1000 // REFRESHES
        if age_ms > self._ttl * 1000:
            self._complete = False  # this process stood still, and the keys may be gone
        try:
            if self._complete:
                self._complete = self._send(tick, self._with_idle(changes) if refresh else changes, renew=refresh)
            if not self._complete:
                self._send(tick, self._everything(), whole=True, renew=True)
                self._complete = refresh = True
        except redis.RedisError:
            self._complete = False
            raise
        if refresh:
            self._refreshed_ms = now_ms

    def _absorb(self, tick: Tick) -> dict[str, list[Any]]:
        """Brings the mirrors up to date; the difference as the script's changes by key."""
        changes: dict[str, list[Any]] = {}
        for key, content in tick.zsets.items():
            known = self._zsets.get(key, {})
            if content != known:
                changes[key] = _change("z", known, content)
                self._zsets[key] = content
        for key, fields in tick.hashes.items():
            known_fields = self._hashes.get(key, {})
            if fields != known_fields:
                changes[key] = _change("h", known_fields, fields)
                self._hashes[key] = fields
        for key, patch in tick.patches.items():
            mirror = self._hashes.setdefault(key, {})
            gone = [name for name, value in patch.items() if value is None and name in mirror]
            put = {name: value for name, value in patch.items() if value is not None and mirror.get(name) != value}
            if gone or put:
                changes[key] = ["h", [text for pair in put.items() for text in pair], gone, False]
                mirror.update(put)
                for name in gone:
                    del mirror[name]
        return changes

    def _with_idle(self, changes: dict[str, list[Any]]) -> dict[str, list[Any]]:
        idle = {key: ["z", [], [], False] for key in self._zsets} | {key: ["h", [], [], False] for key in self._hashes}
        return idle | changes

    def _everything(self) -> dict[str, list[Any]]:
        zsets = {key: [*_change("z", {}, content)[:3], True] for key, content in self._zsets.items()}
        hashes = {key: [*_change("h", {}, content)[:3], True] for key, content in self._hashes.items()}
        return zsets | hashes

    def _send(self, tick: Tick, changes: dict[str, list[Any]], *, whole: bool = False, renew: bool = False) -> bool:
        """True when written, False when Redis no longer holds what we wrote before."""
        answer: str | bytes = self._publish(
            keys=[self._keys.epoch, self._keys.updates, *changes],
            args=[
                str(self._token),
                "1" if whole else "0",
                f"in {self._ttl + self._ttl // REFRESHES + 1}" if renew else self._expires,
                msgspec.json.encode({"as_of": tick.as_of}),
                msgspec.msgpack.encode(list(changes.values())),
            ],
        )
        answer = answer.decode() if isinstance(answer, bytes) else answer
        if answer == "fenced":
            raise FencedError(
                f"another processor writes {self._keys.status} (its token is newer than {self._token}); this one stops"
            )
        if answer == "lost":
            return False
        self._expires = answer
        return True


def _change(kind: str, known: Mapping[str, Any], content: Mapping[str, Any]) -> list[Any]:
    put: list[str] = []
    for name, value in content.items():
        if known.get(name) != value:
            put += [str(value), name] if kind == "z" else [name, value]
    return [kind, put, [name for name in known if name not in content], False]


@dataclass(frozen=True, slots=True)
class WindowNumbers:
    """One window as it stands on the board."""

    products: dict[str, list[tuple[str, int]]]
    """units, revenue: (product id, value), best first"""
    groups: dict[str, dict[str, dict[str, int]]]
    """category, region, country: measure: name to value"""
    aov: dict[str, str]


@dataclass(frozen=True, slots=True)
class LiveNumbers:
    """One tick, whole."""

    status: dict[str, str]
    positions: dict[str, str]
    names: dict[str, str]
    windows: dict[str, WindowNumbers]
    trends: dict[str, dict[str, dict[str, int]]]
    """region, or "" for all: measure: minute (RFC 3339) to value"""


class BoardReader:
    """Reads the board as users may: one tick at a time."""

    def __init__(self, client: "redis.Redis", keys: Keys, windows: Iterable[str]) -> None:
        self._client = client
        self._keys = keys
        self._windows = tuple(windows)

    def read(self, *, regions: Iterable[str] = ()) -> LiveNumbers:
        """Everything of one tick in one transaction; one round trip. Empty where nothing was published yet.

        Args:
            regions: whose trends to read beside the trend of all.

        Raises:
            BoardError: a score or a minute's value is no whole number.
            redis.RedisError: Redis can't be reached.
        """
        keys, places = self._keys, ["", *regions]
        with self._client.pipeline(transaction=True) as pipe:
            pipe.hgetall(keys.status)
            pipe.hgetall(keys.positions)
            pipe.hgetall(keys.products)
            for window in self._windows:
                pipe.hgetall(keys.aov(window))
                for measure in PRODUCT_MEASURES:
                    pipe.zrevrange(keys.product(window, measure), 0, -1, withscores=True)
                for group in GROUPS:
                    for measure in MEASURES:
                        pipe.zrevrange(keys.group(window, group, measure), 0, -1, withscores=True)
            for place in places:
                for measure in MEASURES:
                    pipe.hgetall(keys.trend(measure, place or None))
            answers = iter(pipe.execute())
        status, positions, names = (_texts(next(answers)) for _ in range(3))
        windows = {}
        for window in self._windows:
            aov = _texts(next(answers))
            products = {m: _scores(keys.product(window, m), next(answers)) for m in PRODUCT_MEASURES}
            groups = {
                group: {m: dict(_scores(keys.group(window, group, m), next(answers))) for m in MEASURES}
                for group in GROUPS
            }
            windows[window] = WindowNumbers(products=products, groups=groups, aov=aov)
        trends = {
            place: {m: _minutes(keys.trend(m, place or None), next(answers)) for m in MEASURES} for place in places
        }
        return LiveNumbers(status=status, positions=positions, names=names, windows=windows, trends=trends)


def _texts(answer: Mapping[bytes, bytes]) -> dict[str, str]:
    return {key.decode(): value.decode() for key, value in answer.items()}


def _scores(key: str, answer: Iterable[tuple[bytes, float]]) -> list[tuple[str, int]]:
    # Scores are doubles, exact for integers below 2**53; larger totals raise an alarm long before.
    scores = []
    for member, score in answer:
        if not score.is_integer():
            raise BoardError(f"{key}: the score of {member.decode()!r} is {score}, which is no whole number")
        scores.append((member.decode(), int(score)))
    return scores


def _minutes(key: str, answer: Mapping[bytes, bytes]) -> dict[str, int]:
    minutes = {}
    for minute, text in _texts(answer).items():
        if not _INTEGER.fullmatch(text):
            raise BoardError(f"{key}: the value of {minute} is {text!r}, which is no whole number")
        minutes[minute] = int(text)
    return minutes
