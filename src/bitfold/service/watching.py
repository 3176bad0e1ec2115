"""`--watch`: a new model at the path, or behind a link, is loaded when it lies still."""

import asyncio
from collections.abc import Awaitable, Callable

from bitfold.service.sources import Source

SECONDS = 1.0
"""Between two looks."""


async def watch(
    source: Source, reload: Callable[[], Awaitable[object]], seconds: float = SECONDS
) -> None:
    """Call `reload` whenever the model of `source` changed and two looks saw the same.

    A run's manifest is written last, so it is whole when that changes; an exported file and its
    schema are two files, and the second look waits for the other.
    """
    loaded = last = source.signature()
    while True:
        await asyncio.sleep(seconds)
        seen = source.signature()
        if seen != loaded and seen == last:
            loaded = seen
            await reload()
        last = seen
