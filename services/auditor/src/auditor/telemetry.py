"""What the auditor tells of itself: its metrics, each once, and whether it is alive and ready."""

import time
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge

from sales.telemetry import Health
from tillstream.watch import Round

LIVE_SECONDS = 1800.0
"""Without a word from a round for so long the auditor is stuck: it says how far it is every few objects."""

READY_ROUNDS = 5
"""So many rounds may compare nothing in a row, because a part is away for a while or the sink is slow."""


class Telemetry:
    """Metrics of the auditor. Its thread writes; the server's threads read.

    Args:
        now: seconds since 1970.
        ticking: seconds of a clock that never goes back.
    """

    def __init__(self, now: Callable[[], float] = time.time, ticking: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._ticking = ticking
        self._heard = ticking()
        self._idle = 0
        self._fault = ""
        self.registry = CollectorRegistry()

        def gauge(name: str, text: str) -> Gauge:
            return Gauge(f"tillstream_auditor_{name}", text, ["everything"], registry=self.registry)

        self._differences = gauge(
            "differences", "Differences that the last round found, in numbers and in what is stored."
        )
        self._compared = gauge("compared", "Live numbers that the last round compared.")
        self._to_come = gauge(
            "to_come", "Items that the last round could not compare, because they are not written yet."
        )
        self._seconds = gauge("round_seconds", "Time that the last round took.")
        self._success = gauge("last_success_timestamp_seconds", "When a round last compared something.")
        self._waiting = Gauge(
            "tillstream_auditor_waiting_seconds",
            "Age of a tick that is not stored yet and can't be compared; 0: none is waited for.",
            registry=self.registry,
        )
        self._rounds = Counter(
            "tillstream_auditor_rounds", "Rounds, by outcome: equal, different, waiting or failed.", ["outcome"],
            registry=self.registry,
        )  # fmt: skip

    def hear(self) -> None:
        """A round goes on."""
        self._heard = self._ticking()

    def took(self, found: Round) -> None:
        """A round has ended."""
        self.hear()
        self._rounds.labels(found.outcome).inc()
        which = str(found.everything).lower()
        self._seconds.labels(which).set(found.seconds)
        self._waiting.set(found.waiting_seconds or 0)
        if found.report is None:
            self._idle, self._fault = self._idle + 1, found.fault
            return
        self._idle = 0
        self._differences.labels(which).set(found.report.different)
        self._compared.labels(which).set(found.report.compared)
        self._to_come.labels(which).set(sum(check.to_come for check in found.report.checks))
        self._success.labels(which).set(self._now())

    def health(self) -> Health:
        """Alive while rounds go on; ready while they compare something, equal or not."""

        def live() -> str | None:
            silent = self._ticking() - self._heard
            return f"no word from a round for {silent:.0f} s" if silent > LIVE_SECONDS else None

        def ready() -> str | None:
            return (
                f"{self._idle} rounds compared nothing, the last: {self._fault}" if self._idle >= READY_ROUNDS else None
            )

        return Health(live, ready)
