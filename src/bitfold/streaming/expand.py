"""Expansion: every so many windows the network's head is copied, and the copy is trained."""

from collections.abc import Mapping
from dataclasses import replace

from torch import nn

from bitfold.errors import BitfoldError
from bitfold.nets.expanding import ExpandingNetwork
from bitfold.runs.options import TrainConfig
from bitfold.streaming.config import StreamConfig
from bitfold.streaming.strategy import Strategy

HEADS = "heads"
"""The network's option that gives it places for copies."""


class Expand(Strategy):
    """Expands the network before windows `every`, `2 * every`, ...

    The copies are the network's own (`bitfold.nets.expanding`); nothing is kept here.
    """

    def __init__(self, every: int) -> None:
        super().__init__()
        self._every = every

    def begin(self, window: int, network: nn.Module) -> None:
        """Expand, where it is time; a window that was begun before is not begun again."""
        if window and window % self._every == 0:
            assert isinstance(network, ExpandingNetwork), "the stream's options make it one"
            network.expand()


def without_heads(network_set: Mapping[str, str]) -> dict[str, str]:
    """Options of a network as they were said, without the places that a strategy made."""
    return {name: value for name, value in network_set.items() if name != HEADS}


def expanding(train: TrainConfig, config: StreamConfig) -> TrainConfig:
    """Options of training, with places for copies where the strategy makes some.

    Raises:
        BitfoldError: they name other places than the strategy's, or several embedding sets.
    """
    heads = str(config.expand_heads) if config.strategy == "expand" else None
    said = train.network_set.get(HEADS)
    if said is not None and str(said) != heads:
        raise BitfoldError(
            f"the network's option {HEADS} is the strategy's to say",
            got=f"--network-set {HEADS}={said}, --strategy {config.strategy}",
            expected=f"no {HEADS}",
            fix="say --strategy expand --expand-heads N",
        )
    if heads is None:
        return train
    if train.embedding_sets > 1:
        raise BitfoldError(
            "several embedding sets cannot be expanded",
            got=f"--embedding-sets {train.embedding_sets}, --strategy expand",
            expected="one set",
            fix="leave out --embedding-sets, or take another --strategy",
        )
    return replace(train, network_set={**train.network_set, HEADS: heads})
