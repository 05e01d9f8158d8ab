"""What happens, on the log: an event's name, a sentence for people, and what the sentence says as fields for machines.

    log = Log(__name__)
    log.warning("stream_new", "{stream} has {records} records", stream="orders", records=7)

As text that is the sentence alone. As JSON it is one object on one line: the event, the sentence, and each field under
its own name; where a field is a quantity its name ends with the unit. Each event means one thing, and
``docs/operations.md`` lists them all.
"""

import logging
import re
from typing import Any

from pythonjsonlogger.json import JsonFormatter

from sales.times import format_time

RESERVED = ("time", "level", "logger", "service", "version", "event", "message")
"""Of every line of JSON; no field may be called so. ``error`` is an object: ``type``, ``message`` and, of what nobody
expected, ``stack``."""

FOREIGN = "library_message"
"""The event of a line that a library wrote."""

_CREDENTIALS = re.compile(r"(?<=://)[^\s\"'<>]*@")
"""What stands before the host in an address."""


class Said:
    """One event; what a log record has for its message."""

    __slots__ = ("event", "fields", "sentence")

    def __init__(self, event: str, sentence: str, fields: dict[str, Any]) -> None:
        self.event = event
        self.sentence = sentence
        self.fields = fields

    def __str__(self) -> str:
        return self.sentence.format_map(self.fields)


class Log:
    """A logger of events. Any thread; costs next to nothing where the level is not wanted.

    Args:
        name: the module's, as ``logging`` has it.
    """

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(name)

    def info(self, event: str, sentence: str, /, **fields: Any) -> None:
        """Something ordinary that somebody may want to know of."""
        self._say(logging.INFO, event, sentence, fields)

    def warning(self, event: str, sentence: str, /, **fields: Any) -> None:
        """Something that mends itself, or costs nothing yet."""
        self._say(logging.WARNING, event, sentence, fields)

    def error(self, event: str, sentence: str, /, **fields: Any) -> None:
        """Something that needs somebody."""
        self._say(logging.ERROR, event, sentence, fields)

    def exception(self, event: str, sentence: str, /, **fields: Any) -> None:
        """The same, with the stack of the exception that is being handled."""
        self._say(logging.ERROR, event, sentence, fields, exc_info=True)

    def log(self, level: int, event: str, sentence: str, /, *, exc_info: Any = None, **fields: Any) -> None:
        """An event at a level, or with a stack, that is known only now."""
        self._say(level, event, sentence, fields, exc_info)

    def _say(self, level: int, event: str, sentence: str, fields: dict[str, Any], exc_info: Any = None) -> None:
        if self._logger.isEnabledFor(level):
            self._logger.log(level, Said(event, sentence, fields), exc_info=exc_info, stacklevel=3)


class TextLines(logging.Formatter):
    """Lines for people, and stacks below them."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        """Without what stands before the host in an address: it may be a password."""
        return without_credentials(super().format(record))


class JsonLines(JsonFormatter):
    """Each record as one JSON object on one line, whatever is in it.

    Args:
        service: who speaks.
        version: of what.
    """

    def __init__(self, service: str, version: str) -> None:
        super().__init__(json_default=str)
        self._origin = {"service": service, "version": version}

    def format(self, record: logging.LogRecord) -> str:
        """As `TextLines` has it, without credentials."""
        return without_credentials(super().format(record))

    def add_fields(self, log_data: dict[str, Any], record: logging.LogRecord, message_dict: dict[str, Any]) -> None:
        """What a line says, in this order."""
        said = record.msg if isinstance(record.msg, Said) else Said(FOREIGN, "", {})
        log_data |= {
            "time": format_time(int(record.created * 1000)),
            "level": record.levelname.lower(),
            "logger": record.name,
            **self._origin,
            "event": said.event,
            "message": record.getMessage(),
            **said.fields,
        }
        if "error" in said.fields:
            log_data["error"] = _error(said.fields["error"])
        if record.exc_info and record.exc_info[1] is not None:
            log_data["error"] = {**_error(record.exc_info[1]), "stack": message_dict["exc_info"]}


def logs_json() -> bool:
    """Whether this process logs JSON; before logging has begun it does not."""
    return any(isinstance(handler.formatter, JsonLines) for handler in logging.getLogger().handlers)


def without_credentials(text: str) -> str:
    """Nothing in a text's addresses but their hosts, ports and paths."""
    return _CREDENTIALS.sub("", text) if "://" in text else text


def _error(error: object) -> dict[str, str]:
    kind = {"type": type(error).__name__} if isinstance(error, BaseException) else {}
    return {**kind, "message": str(error)}
