"""What the ``__main__`` of every service does alike: logs, and exit codes that scripts can use."""

import contextlib
import faulthandler
import logging
import sys

EXIT_FAILED = 1
"""A fault that needs somebody."""

EXIT_SETTINGS = 2
"""A setting or argument is missing or wrong (click and argparse use 2 as well)."""

EXIT_AWAY = 3
"""Something needed at the start could not be reached in time."""


def start_logging(service: str) -> None:
    """Log lines to stderr: the service's own and the shared library's from INFO, everybody else's from WARNING (the
    clients' own news is of every connection). A crash of native code leaves the threads' stacks there too.
    """
    logging.basicConfig(
        stream=sys.stderr, level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    for own in (service, "sales"):
        logging.getLogger(own).setLevel(logging.INFO)
    with contextlib.suppress(OSError):  # a standard error that is no file, as test runners have
        faulthandler.enable()
