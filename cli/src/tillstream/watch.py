"""``verify`` again and again: what a round found goes to Redis, and to whoever calls."""

import tempfile
import time
from collections.abc import Generator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

from pydantic import Field

from sales.board import Keys, LiveNumbers, client_of
from tillstream.faults import AWAY, UNABLE
from tillstream.proving import VerifySettings, read_tick, verify_board
from tillstream.reading import REDIS_SECONDS, Say
from tillstream.report import Report
from tillstream.stored import NotYetError, ObjectCache, Store

PATIENCE = 3
"""How many times as long as storing may take a tick is waited for, before a newer one is taken."""

EXPIRY_SECONDS = 3600
"""How long a round's outcome stands in Redis: who finds none knows that nobody has looked for an hour."""


class WatchSettings(VerifySettings):
    """What is verified, and how often."""

    audit_seconds: Annotated[float, Field(ge=1, le=86_400)] = 60
    """from the beginning of one round to that of the next; a round that takes longer is followed at once"""
    audit_full_minutes: Annotated[float, Field(ge=0, le=10_080)] = 60
    """between two rounds that read everything that is stored; 0: never"""
    audit_lookups: bool = True
    """do rounds that read everything also scan the DynamoDB tables? It takes their read units"""
    audit_wait_seconds: Annotated[float, Field(ge=0, le=7200)] | None = None
    """how long a round waits until a tick is stored, before it says so and the next goes on with the same tick; unset:
    ROTATE_SECONDS and a minute"""


@dataclass(frozen=True, slots=True)
class Round:
    """One look at everything that is to be equal."""

    everything: bool
    """all that is stored was read, not only what the windows need"""
    report: Report | None
    """None: nothing could be compared"""
    fault: str
    """why not"""
    checked_at: str
    seconds: float
    waiting_seconds: float | None
    """how long ago the tick was read that is not stored yet, and that the next round goes on waiting for; None: none
    is waited for"""

    @property
    def outcome(self) -> str:
        """``equal``, ``different``, ``waiting`` or ``failed``."""
        if self.report is None:
            return "failed" if self.waiting_seconds is None else "waiting"
        return "equal" if self.report.equal else "different"

    def fields(self) -> dict[str, str]:
        """As they stand in Redis."""
        told = {
            "outcome": self.outcome,
            "checked_at": self.checked_at,
            "everything": str(self.everything).lower(),
            "seconds": f"{self.seconds:.1f}",
        }
        if self.waiting_seconds is not None:
            told |= {"waiting_seconds": f"{self.waiting_seconds:.1f}"}
        if self.report is None:
            return told | {"fault": self.fault}
        first = next((d for check in self.report.checks for d in check.differences), None)
        return told | {
            "as_of": self.report.as_of,
            "compared": str(self.report.compared),
            "differences": str(self.report.different),
            "to_come": str(sum(check.to_come for check in self.report.checks)),
            "first": "" if first is None else f"{first.place} {first.name}: {first.expected}, not {first.found}",
        }


def rounds(settings: WatchSettings, say: Say) -> Generator[Round, None, None]:
    """Looks, says what was found, waits for the next time; without end. What could not be compared because a part is
    away, or stored in a way that nothing can be made of, is a round that failed.

    A tick that is not stored yet is waited for, over as many rounds as it takes: a newer one would be stored later
    still, and with a long rotation none would ever be compared. But not for ever.

    Objects are fetched once and kept on this machine while windows need them; rounds that read everything fetch all of
    it again.

    Raises:
        Interrupted: a signal came, inside `interrupts.raised`.
    """
    full_at = time.monotonic()
    tick: LiveNumbers | None = None
    tick_at = full_at
    wait = settings.stored_seconds if settings.audit_wait_seconds is None else settings.audit_wait_seconds
    with tempfile.TemporaryDirectory(prefix="tillstream-audit-") as folder:
        cache = ObjectCache(Path(folder))
        while True:
            began = time.monotonic()
            everything = settings.audit_full_minutes > 0 and began >= full_at
            report, fault, waiting = None, "", False
            try:
                if tick is None:
                    tick, tick_at = read_tick(settings), began
                report = verify_board(
                    settings,
                    timeout=wait,
                    tick=tick,
                    everything=everything,
                    lookups=settings.audit_lookups,
                    archive=Store.open(settings, None if everything else cache),
                    say=say,
                )
            except NotYetError as error:
                fault, waiting = str(error), True
            except (*AWAY, *UNABLE) as error:
                fault = str(error)
            now = time.monotonic()
            waiting_seconds = now - tick_at if waiting else None
            if waiting and now - tick_at > PATIENCE * settings.stored_seconds:
                tick = None  # it will not be stored any more: the stream was made anew, perhaps
            if not waiting:
                tick = None
                if everything:
                    full_at = began + 60 * settings.audit_full_minutes
                else:
                    cache.sweep()
            checked_at = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
            yield Round(everything, report, fault, checked_at, now - began, waiting_seconds)
            time.sleep(max(0.0, began + settings.audit_seconds - time.monotonic()))


def publish(settings: WatchSettings, found: Round) -> None:
    """What a round found, in place of what the one before did, as one transaction.

    Raises:
        redis.RedisError: Redis stays away.
    """
    key = Keys(settings.redis_prefix).audit
    url = settings.redis_url.get_secret_value()
    with client_of(url, REDIS_SECONDS) as client, client.pipeline(transaction=True) as pipe:
        pipe.delete(key)
        pipe.hset(key, mapping=found.fields())
        pipe.expire(key, EXPIRY_SECONDS)
        pipe.execute()
