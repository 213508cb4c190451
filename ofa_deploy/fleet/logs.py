"""What the server says while it runs: events with named fields, as lines of JSON or for people."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Literal, TextIO

LOGGERS = ("ofa_deploy", "uvicorn.error")
FIELDS = ("device", "run", "job", "method", "route", "status", "duration_ms", "detail")  # never a token or a code


class JsonLines(logging.Formatter):
    """One JSON object a line: ``time`` (UTC), ``level``, ``event``, and those of ``FIELDS`` that the event has."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as JSON."""
        about = {"time": _time(record), "level": record.levelname.lower(), "event": record.getMessage()}
        line = {**about, **_fields(record)}
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=True)


class Lines(logging.Formatter):
    """One line for people: the time, the event, then its fields as ``name=value``."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as a line; a traceback, where there is one, below it."""
        level = "" if record.levelno <= logging.INFO else f"{record.levelname.lower()}: "
        fields = "".join(f"  {name}={_plain(value)}" for name, value in _fields(record).items())
        line = f"{_time(record)}  {level}{record.getMessage()}{fields}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def write_logs(style: Literal["text", "json"] = "text", stream: TextIO | None = None) -> logging.Handler:
    """Write the events of this process to ``stream`` (default: stderr). Returns the handler that does it."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonLines() if style == "json" else Lines())
    for name in LOGGERS:
        logger = logging.getLogger(name)
        logger.setLevel(logging.INFO)
        logger.addHandler(handler)
    return handler


def _time(record: logging.LogRecord) -> str:
    moment = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
    return moment.replace("+00:00", "Z")


def _fields(record: logging.LogRecord) -> dict[str, object]:
    return {name: value for name in FIELDS if (value := getattr(record, name, None)) is not None}


def _plain(value: object) -> str:
    """A value that cannot break out of its line, whatever a device called itself."""
    text = str(value)
    return text if text.isprintable() and " " not in text else json.dumps(text)
