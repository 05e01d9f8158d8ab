"""``python -m auditor``: verifies the live numbers every minute, everything every hour, until it is told to stop."""

from contextlib import nullcontext

import redis

from auditor.settings import AuditorSettings
from auditor.telemetry import Telemetry
from sales.events import Log
from sales.logs import start_logging
from sales.service import EXIT_FAILED
from sales.settings import load
from sales.telemetry import served
from tillstream.interrupts import Interrupted, raised
from tillstream.watch import Round, publish, rounds

log = Log("auditor")


def main() -> None:
    """Runs the service; ends the process with 0 after a stop in order, 1 when metrics can't be served, 2 for a wrong
    setting."""
    start_logging("auditor")
    settings = load(AuditorSettings)
    telemetry = Telemetry()
    telling = (
        served(settings.metrics_host, settings.metrics_port, telemetry.registry, telemetry.health())
        if settings.metrics_port
        else nullcontext()
    )
    try:
        with raised(), telling:
            log.info("auditor_running", "running: every {audit_seconds:g} s", audit_seconds=settings.audit_seconds)
            for found in rounds(settings, lambda _text: telemetry.hear()):
                telemetry.took(found)
                _tell(found)
                try:
                    publish(settings, found)
                except redis.RedisError as error:
                    log.warning("outcome_not_published", "the outcome is not in Redis: {error}", error=error)
    except Interrupted:
        log.info("service_stopped", "stopped in order")
    except OSError as error:
        log.error("service_failed", "{error}", error=error, exit_code=EXIT_FAILED)  # noqa: TRY400  # one line says it
        raise SystemExit(EXIT_FAILED) from error


def _tell(found: Round) -> None:
    report = found.report
    if found.waiting_seconds is not None:
        log.info(
            "round_waits",
            "a tick is not stored yet after {waiting_seconds:.0f} s: {error}",
            waiting_seconds=found.waiting_seconds,
            error=found.fault,
        )
    elif report is None:
        log.warning("round_failed", "nothing could be compared: {error}", error=found.fault)
    elif report.equal:
        log.info(
            "numbers_equal",
            "{compared} numbers of {as_of} are equal ({seconds:.1f} s)",
            compared=report.compared,
            as_of=report.as_of,
            seconds=found.seconds,
            everything=found.everything,
        )
    else:
        log.error(
            "numbers_different",
            "{differences} differences in {compared} numbers of {as_of}, the first: {first} ({seconds:.1f} s)",
            differences=report.different,
            compared=report.compared,
            as_of=report.as_of,
            first=found.fields()["first"],
            seconds=found.seconds,
            everything=found.everything,
        )


if __name__ == "__main__":
    main()
