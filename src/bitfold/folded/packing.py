"""Models as they are served: all tables packed at once, what they share packed once."""

import copy
from typing import TypeVar

from torch import nn

from bitfold.embedder.contract import Embedder
from bitfold.folded.inputs import show_inputs
from bitfold.folded.joint import Joint

M = TypeVar("M", bound=nn.Module)


def serving(model: M) -> M:
    """A copy of a model in evaluation mode whose tables are packed and frozen.

    Its state dict has the bytes that the plans say. What is not bitfold's is copied as it is.

    Example:
        >>> import torch
        >>> from bitfold.folded import fold
        >>> model = nn.Sequential(nn.Embedding(50_000, 16), nn.Linear(16, 1)).eval()
        >>> _, ids = fold(model, "50x"), torch.tensor([7, 49_999])
        >>> torch.equal(serving(model)(ids), model(ids))
        True
    """
    return _around(model, "serving").eval()


def resume(model: M) -> M:
    """A copy of a packed model that can be trained on: the inverse of `serving`.

    Raises:
        BitfoldError: a method needs more for it than serving kept.
    """
    return _around(model, "resume").train()


def _around(model: M, way: str) -> M:
    """A copy with other embedders in the places of its own."""
    memo: dict[int, object] = {}
    inner: set[int] = set()
    for module in model.modules():
        if id(module) in inner:
            continue
        if isinstance(module, Joint):
            memo[id(module)] = module.around(getattr(module.embedder, way)())
        elif isinstance(module, Embedder):
            memo[id(module)] = getattr(module, way)()
        else:
            continue
        inner |= {id(part) for part in module.modules()}
    made = copy.deepcopy(model, memo)
    show_inputs(made, [part for part in made.modules() if isinstance(part, Joint)])
    return made
