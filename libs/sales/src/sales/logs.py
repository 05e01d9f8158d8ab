"""Where the log of a service goes, and which lines: one handler on stderr, as text or as JSON."""

import contextlib
import faulthandler
import logging
import sys
import threading
from importlib.metadata import PackageNotFoundError, version
from types import TracebackType

from sales.events import JsonLines, Log, TextLines
from sales.settings import LogSettings, load

log = Log(__name__)


def start_logging(service: str) -> None:
    """Log lines to stderr from now on, as LOG_FORMAT and LOG_LEVEL say; ends the process for a wrong one of these.

    Of the service and of the shared library come all lines of that level; of everybody else warnings at the least (the
    clients' own news is of every connection). A crash of native code leaves the threads' stacks there too, as text.
    """
    settings = load(LogSettings)
    handler = logging.StreamHandler(sys.stderr)
    if settings.log_format == "json":
        handler.setFormatter(JsonLines(service, _version(service)))
        _catch_the_rest()
    else:
        handler.setFormatter(TextLines())
    level = logging.getLevelNamesMapping()[settings.log_level.upper()]
    logging.basicConfig(handlers=[handler], level=max(level, logging.WARNING))
    for own in (service, "sales"):
        logging.getLogger(own).setLevel(level)
    with contextlib.suppress(OSError):  # a standard error that is no file, as test runners have
        faulthandler.enable()


def _catch_the_rest() -> None:
    """What Python writes to stderr by itself goes to the log instead."""
    logging.captureWarnings(capture=True)

    def uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        log.log(logging.CRITICAL, "uncaught_error", "nobody expected this", exc_info=(kind, error, trace))

    def uncaught_in_thread(failed: threading.ExceptHookArgs) -> None:
        if failed.exc_value is not None:
            uncaught(failed.exc_type, failed.exc_value, failed.exc_traceback)

    def uncaught_nowhere(failed: "sys.UnraisableHookArgs") -> None:
        if failed.exc_value is not None:
            uncaught(failed.exc_type, failed.exc_value, failed.exc_traceback)

    sys.excepthook = uncaught
    threading.excepthook = uncaught_in_thread
    sys.unraisablehook = uncaught_nowhere


def _version(service: str) -> str:
    try:
        return version(service)
    except PackageNotFoundError:  # run from its sources
        return ""
