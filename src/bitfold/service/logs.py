"""Structured logs: a JSON object a line on standard error."""

import contextlib
import datetime as dt
import logging
import sys
from typing import Any

from bitfold.terminal import json_text


def log(event: str, **facts: Any) -> None:
    """Write one line; a log that nobody reads any more stops nothing.

    Args:
        event: what happened, such as `"swapped"`.
        facts: JSON values.
    """
    time = dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds")
    line = json_text({"time": time, "event": event, **facts}, indent=None)
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.write(line + "\n")
        sys.stderr.flush()


class _Notes(logging.Handler):
    """Lines of the package's logger, in the server's form."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one."""
        log("note", text=record.getMessage().removeprefix("bitfold: "))


def notes_to_log() -> None:
    """Let the notes of the package be lines of the log, each of them an object as all others."""
    logger = logging.getLogger("bitfold")
    if not any(isinstance(each, _Notes) for each in logger.handlers):
        logger.addHandler(_Notes())
        logger.propagate = False
