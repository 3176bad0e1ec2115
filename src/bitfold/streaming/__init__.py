"""A model on a stream: a log in time order, each window first scored, then trained on.

config      the options; which of training's and reading's a stream has
clock       times to windows: what each is called, where it begins and ends
cutting     the raw rows of a log, window by window, in bounded memory
windows     each window prepared: the first one fits the constants, the others take them
seen        which ids were there before, in bounded memory
watching    what is watched beside the model: ids that were seen, rows that changed their owners
strategy    what is done beside training on a window: nothing, here
replay      a reservoir of past rows, some of them in each step
expand      last layers that are copied now and then
strategies  these three by name
aligned     one budget for tables, network, copies and stored rows
several     a stream for each of several strategies
training    one window: scored, then trained on
record      stream.json: what was found, a line a window
folder      the folder of a stream, claimed or gone on with
job         from the claimed folder to the finished run
fit         the whole job, and its result
"""

import importlib
from typing import TYPE_CHECKING, Any

from bitfold.streaming.config import StreamConfig

if TYPE_CHECKING:
    from bitfold.streaming.fit import Stream, stream

__all__ = ["Stream", "StreamConfig", "stream"]


def __getattr__(name: str) -> Any:
    if name in ("Stream", "stream"):
        return getattr(importlib.import_module("bitfold.streaming.fit"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
