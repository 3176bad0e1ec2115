"""Which optimizers move a model, and the bytes that training it takes."""

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from bitfold.embedder.contract import embedders
from bitfold.embedder.memory import memory
from bitfold.optim import OPTIMIZERS as ROW_KINDS
from bitfold.optim.pending import bytes_beside
from bitfold.runs.options import SAME, TrainConfig


class Embedded(Protocol):
    """A model above embeddings: of clicks, or two towers."""

    @property
    def embeddings(self) -> nn.Module:
        """The embeddings."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """All parameters, those of the embeddings among them."""


def make_optimizers(model: Embedded, config: TrainConfig) -> list[torch.optim.Optimizer]:
    """The optimizers of `config`: of the embeddings' tables if they have one, then of the rest.

    What an embedding has beside tables - heads, decoders, thresholds - is moved as the network is:
    the decay of rows holds it back (docs/architecture.md has figures).

    Torch's fused form takes 0.5 ms a step where the others take 2 to 3 (two groups of an ml-1m
    DeepFM, two cores).
    """
    ours = [table.weight for part in embedders(model.embeddings) for table in part.tables()]
    ours = list({id(weight): weight for weight in ours}.values())
    known = {id(weight) for weight in ours}
    network = [weight for weight in model.parameters() if id(weight) not in known]
    lr = config.lr if config.embedding_lr is None else config.embedding_lr
    decay = config.embedding_decay
    made: list[torch.optim.Optimizer] = []
    groups = [{"params": network, "weight_decay": config.weight_decay}]
    if config.embedding_optimizer == SAME:
        groups.insert(0, {"params": ours, "weight_decay": decay, "lr": lr})
    elif ours:
        kind: Callable[..., torch.optim.Optimizer] = ROW_KINDS[config.embedding_optimizer]
        made.append(kind(ours, lr=lr, l2=decay))
    groups = [group for group in groups if group["params"]]
    kinds: dict[str, Callable[..., torch.optim.Optimizer]] = {
        "adam": torch.optim.Adam,
        "adamw": torch.optim.AdamW,
        "adagrad": torch.optim.Adagrad,
        "sgd": torch.optim.SGD,
    }
    if groups:
        made.append(kinds[config.optimizer](groups, lr=config.lr, fused=True))
    return made


def moves_rows(embeddings: nn.Module) -> bool:
    """Whether there are tables of rows: not in a flat array, nor in a network."""
    return any(table.rows for part in embedders(embeddings) for table in part.tables())


def training_bytes(model: Embedded, optimizers: Sequence[torch.optim.Optimizer]) -> int:
    """Bytes of the embeddings while they are trained: weights, gradients, optimizer state."""
    tensors: list[Tensor] = []
    moved = 0
    for weight in model.embeddings.parameters():
        for optimizer in optimizers:
            state = optimizer.state.get(weight, {})
            tensors.extend(value for value in state.values() if isinstance(value, Tensor))
        if weight.grad is None:  # moved within the backward pass
            moved += bytes_beside(weight)
        else:
            sparse = weight.grad.is_sparse
            tensors.extend(
                [weight.grad._values(), weight.grad._indices()] if sparse else [weight.grad]
            )
    held = memory(model.embeddings, "training").by_kind
    weights = sum(size for kind, size in held.items() if kind != "gradients")
    return weights + sum(tensor.nbytes for tensor in tensors) + moved
