"""``python -m auditor``: verifies the live numbers every minute, everything every hour, until it is told to stop."""

import logging
import sys
from contextlib import nullcontext

import redis

from auditor.settings import AuditorSettings
from auditor.telemetry import Telemetry
from sales.service import EXIT_FAILED, start_logging
from sales.settings import load
from sales.telemetry import served
from tillstream.interrupts import Interrupted, raised
from tillstream.watch import Round, publish, rounds

log = logging.getLogger("auditor")


def main() -> None:
    """Runs the service; ends the process with 0 after a stop in order, 1 when metrics can't be served, 2 for a wrong
    setting."""
    settings = load(AuditorSettings)
    start_logging("auditor")
    telemetry = Telemetry()
    telling = (
        served(settings.metrics_host, settings.metrics_port, telemetry.registry, telemetry.health())
        if settings.metrics_port
        else nullcontext()
    )
    try:
        with raised(), telling:
            log.info("running: every %g s", settings.audit_seconds)
            for found in rounds(settings, lambda _text: telemetry.hear()):
                telemetry.took(found)
                _tell(found)
                try:
                    publish(settings, found)
                except redis.RedisError as error:
                    log.warning("the outcome is not in Redis: %s", error)
    except Interrupted:
        log.info("stopped")
    except OSError as error:
        sys.stderr.write(f"auditor: {error}\n")
        raise SystemExit(EXIT_FAILED) from error


def _tell(found: Round) -> None:
    level = {"different": logging.ERROR, "failed": logging.WARNING}.get(found.outcome, logging.INFO)
    log.log(level, "%s", " ".join(f"{name}={text!r}" for name, text in found.fields().items()))


if __name__ == "__main__":
    main()
