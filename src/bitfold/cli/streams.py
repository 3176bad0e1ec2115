"""Standard streams that may be closed, broken or full: none of them ends the work.

Progress and messages go to stderr. A reader that has left (`2>&1 | head`), a closed descriptor
(`2>&-`) or a full disk under it makes a write fail; hours of training do not depend on that.
"""

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any, TextIO, cast


class Forgiving:
    """A text stream whose writes never fail; everything else is the stream's own."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write, or lose the text."""
        with contextlib.suppress(OSError, ValueError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush, or do not."""
        with contextlib.suppress(OSError, ValueError):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def steady() -> Iterator[None]:
    """While the block runs: all three descriptors are open, and stderr forgives."""
    _open_descriptors()
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123
    before = sys.stderr
    stream = before or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123
    sys.stderr = cast(TextIO, Forgiving(stream))
    try:
        yield
    finally:
        sys.stderr = before
        for each in (sys.stdout, sys.stderr):
            _let_go(each)


def _open_descriptors() -> None:
    """Open what is closed of 0, 1 and 2. The next file that is opened would get the number, and
    whatever a library prints on stderr would go into it.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free


def _let_go(stream: TextIO | None) -> None:
    """Give up what cannot be written, so that the interpreter's end does not try again."""
    if stream is None:
        return
    try:
        stream.flush()
    except ValueError:
        return
    except OSError:
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
