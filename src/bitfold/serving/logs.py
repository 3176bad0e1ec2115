"""Structured logs: a JSON object a line on standard error."""

import contextlib
import datetime as dt
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
