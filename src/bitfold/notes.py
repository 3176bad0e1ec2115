"""What a user should know though nothing is wrong: one line each, on the logger `bitfold`.

Without any set-up Python writes such lines to stderr, above the bars if there are any; a program
that logs gets them in its log.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from bitfold.progress import is_first_process
from bitfold.terminal import printable

_LOGGER = logging.getLogger("bitfold")
_said: ContextVar[set[str] | None] = ContextVar("said", default=None)


def note(text: str) -> None:
    """Say one thing, such as a guess that was made.

    Of several processes that train together the first one says it.

    Example:
        >>> note("the names in the header had spaces around them")  # doctest: +SKIP
        bitfold: the names in the header had spaces around them
    """
    said = _said.get()
    if not is_first_process() or (said is not None and text in said):
        return
    if said is not None:
        said.add(text)
    _LOGGER.warning("bitfold: %s", printable(text))


@contextmanager
def once() -> Iterator[None]:
    """While the block runs, each note is said once: work of many parts meets the same thing often.

    Example:
        >>> with once():
        ...     for _ in range(3):
        ...         note("the test part is empty")  # doctest: +SKIP
        bitfold: the test part is empty
    """
    token = _said.set(set())
    try:
        yield
    finally:
        _said.reset(token)
