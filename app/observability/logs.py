"""Structured logs: one `key=value` line per event, with the id of the request it belongs to."""

from __future__ import annotations

import json
import logging
import sys
import time
from contextvars import ContextVar

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)

_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-+:/@,%")


class KeyValueFormatter(logging.Formatter):
    """Formats `time level logger event key=value ...`; fields come from `extra={"fields": {...}}`.

    Values with anything but plain characters are written as JSON strings, so a client cannot forge a log line.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line, followed by the traceback where there is one."""
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        fields = dict(getattr(record, "fields", {}))
        current = request_id.get()
        if current is not None:
            fields.setdefault("request_id", current)
        message = " ".join(record.getMessage().splitlines())
        line = f"{stamp}.{int(record.msecs):03d}Z {record.levelname.lower()} {record.name} {message}"
        line += "".join(f" {key}={_value(value)}" for key, value in fields.items())
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return line


def configure_logs(level: str) -> None:
    """Send every log line of the process to standard error, at `level` and above."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(KeyValueFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # The server's own chatter repeats what our lines say; its warnings stay.
    for name in ("uvicorn", "uvicorn.error", "asyncio", "python_multipart"):
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))


def _value(value: object) -> str:
    text = f"{value:.3f}" if isinstance(value, float) else str(value)
    return text if text and _PLAIN.issuperset(text) else json.dumps(text)
