"""What a user should know though nothing is wrong: one line each, on the logger `bitfold`.

Without any set-up Python writes such lines to stderr; a program that logs gets them in its log.
"""

import logging

from bitfold.terminal import printable

_LOGGER = logging.getLogger("bitfold")


def note(text: str) -> None:
    """Say one thing, such as a guess that was made.

    Example:
        >>> note("the names in the header had spaces around them")  # doctest: +SKIP
        bitfold: the names in the header had spaces around them
    """
    _LOGGER.warning("bitfold: %s", printable(text))
