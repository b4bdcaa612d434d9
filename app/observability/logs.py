"""Structured logs: one line per event, `key=value` or JSON, with the id of the request it belongs to."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Callable
from contextvars import ContextVar

from tessera.app.errors import shortened

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
trace_id: ContextVar[str | None] = ContextVar("trace_id", default=None)

# Characters. Fields hold what clients send: a path may have 60,000. Messages and tracebacks of libraries quote it too.
_MOST_FIELD = 256
_MOST_MESSAGE = 2048
_MOST_TRACEBACK = 16_384

_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-+:/@,%")


class KeyValueFormatter(logging.Formatter):
    """Formats `time level logger event key=value ...`; fields come from `extra={"fields": {...}}`.

    Values with anything but plain characters are written as JSON strings, so a client cannot forge a log line.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line, followed by the traceback where there is one."""
        message = " ".join(_message(record).splitlines())
        line = f"{_stamp(record)} {record.levelname.lower()} {record.name} {message}"
        line += "".join(f" {key}={_value(value)}" for key, value in _fields(record).items())
        if record.exc_info:
            line += "\n" + _last(self.formatException(record.exc_info))
        return line


class JsonFormatter(logging.Formatter):
    """Formats one JSON object per line: `time`, `level`, `logger`, `event`, the fields, and `traceback` if any."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line of ASCII."""
        entry: dict[str, object] = {
            "time": _stamp(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": _message(record),
        }
        for key, value in _fields(record).items():
            # Whatever a caller names its fields, the four above stay what they are.
            entry.setdefault(key, round(value, 3) if isinstance(value, float) else value)
        if record.exc_info:
            entry["traceback"] = _last(self.formatException(record.exc_info))
        return json.dumps(entry, default=str)


_FORMATTERS: dict[str, Callable[[], logging.Formatter]] = {"text": KeyValueFormatter, "json": JsonFormatter}


def configure_logs(level: str, log_format: str = "text") -> None:
    """Send every log line of the process to standard error, at `level` and above, as `text` or `json`."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_FORMATTERS[log_format]())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # The server's own chatter repeats what our lines say; its warnings stay.
    for name in ("uvicorn", "uvicorn.error", "asyncio"):
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
    # What arrives broken is told to its client in an answer; a line each would let a stranger fill the log.
    logging.getLogger("uvicorn.error").addFilter(_not_about_strangers)
    logging.getLogger("python_multipart").setLevel(max(logging.ERROR, root.level))


def _not_about_strangers(record: logging.LogRecord) -> bool:
    return record.msg not in ("Invalid HTTP request received.", "Unsupported upgrade request.") and not str(
        record.msg
    ).startswith("No supported WebSocket library")


def _stamp(record: logging.LogRecord) -> str:
    seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
    return f"{seconds}.{int(record.msecs):03d}Z"


def _fields(record: logging.LogRecord) -> dict[str, object]:
    """The record's own fields, and the ids of the request it was written in."""
    fields = dict(getattr(record, "fields", {}))
    for name, current in (("request_id", request_id.get()), ("trace_id", trace_id.get())):
        if current is not None:
            fields.setdefault(name, current)
    return {key: shortened(value, _MOST_FIELD) if isinstance(value, str) else value for key, value in fields.items()}


def _message(record: logging.LogRecord) -> str:
    return shortened(record.getMessage(), _MOST_MESSAGE)


def _last(traceback: str) -> str:
    """The end of a traceback, where it says what happened, and its beginning where it is short."""
    return traceback if len(traceback) <= _MOST_TRACEBACK else f"...{traceback[-_MOST_TRACEBACK:]}"


def _value(value: object) -> str:
    text = f"{value:.3f}" if isinstance(value, float) else str(value)
    return text if text and _PLAIN.issuperset(text) else json.dumps(text)
