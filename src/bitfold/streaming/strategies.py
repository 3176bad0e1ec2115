"""The strategies of a stream by name."""

from bitfold.data.schema import Schema
from bitfold.streaming.config import StreamConfig
from bitfold.streaming.expand import Expand
from bitfold.streaming.replay import Replay
from bitfold.streaming.strategy import Strategy


def make_strategy(config: StreamConfig, schema: Schema, seed: int) -> Strategy:
    """The strategy of a stream.

    Raises:
        BitfoldError: one that the log's rows cannot have.
    """
    if config.strategy == "replay":
        return Replay.of(config, schema, seed)
    return Expand(config.expand_every) if config.strategy == "expand" else Strategy()
