"""What every writer does at the end of a ``with`` block."""

from types import TracebackType
from typing import Self

from sales.events import Log
from sales.streams import StreamError

log = Log(__name__)


class Closing:
    """Closes at the end of the block; an error of the block itself is not hidden behind one of closing."""

    def close(self) -> None:
        """Flushes and gives everything back.

        Raises:
            StreamError: something is not acknowledged.
        """
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.close()
        except StreamError as fault:
            if error is None:
                raise
            log.warning("writer_not_closed", "while closing after another error: {error}", error=fault)
