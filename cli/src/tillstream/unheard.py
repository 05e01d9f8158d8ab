"""Words that nobody can hear any more: their terminal was closed, or the other end of their pipe."""

import contextlib
import errno
import os
import sys
import termios
from collections.abc import Iterator


@contextlib.contextmanager
def unheard() -> Iterator[None]:
    """Inside, a closed terminal or pipe is no fault: what was to be written or restored there is dropped, and all that
    comes after it. For what is said on the way out, which must not keep anything from being stopped."""
    try:
        yield
    except (OSError, termios.error) as error:  # the latter is none of the former
        if error.args[0] not in (errno.EIO, errno.EPIPE):
            raise
        with open(os.devnull, "wb") as nowhere:  # noqa: PTH123 (a name, not a path)
            for stream in (sys.stdout, sys.stderr):
                try:
                    stream.flush()
                except OSError:  # or it would be tried again at the interpreter's exit, and change the exit code
                    os.dup2(nowhere.fileno(), stream.fileno())
