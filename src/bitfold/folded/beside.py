"""Small tables that stay whole: torch's own, read with the folded ones while they are trained.

They keep their weight, their name in the state dict and all that torch's modules do. Only the step
is another: one call finds the rows of all of them, and one their gradients.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from bitfold.folded.ones import of_ones
from bitfold.kernels.choice import alone

MOST_ROWS = 4096
"""Rows of a table up to which its gradient is found in one walk with the others'."""


class WholeEmbedding(nn.Embedding):
    """An `nn.Embedding` beside folded ones."""

    joint: Any
    number: int

    def forward(self, input: Tensor) -> Tensor:
        """Vectors `[..., D]` of ids `[...]`."""
        if torch.is_grad_enabled() and type(input) is Tensor and alone():
            found: Tensor | None = self.joint.ahead(self.number, input, None, self)
            if found is not None:
                return found
        return super().forward(input)


class WholeEmbeddingBag(nn.EmbeddingBag):
    """An `nn.EmbeddingBag` beside folded ones; bags of one id each are read with theirs."""

    joint: Any
    number: int

    def forward(
        self, input: Tensor, offsets: Tensor | None = None, per_sample_weights: Tensor | None = None
    ) -> Tensor:
        """Vectors `[B, D]` of the bags."""
        if (
            torch.is_grad_enabled()
            and type(input) is Tensor
            and per_sample_weights is None
            and alone()
            and of_ones(input, offsets, self.include_last_offset)
        ):
            found: Tensor | None = self.joint.ahead(self.number, input, None, self)
            if found is not None:
                return found if found.dim() == 2 else found.squeeze(1)
        return super().forward(input, offsets, per_sample_weights)


KINDS = {nn.Embedding: WholeEmbedding, nn.EmbeddingBag: WholeEmbeddingBag}


def set_beside(modules: Sequence[Any], joint: Any) -> None:
    """Have small tables be read with joint ones, in place, where the kernels know all of them.

    Args:
        modules: tables of torch's whose weight no other module has.
        joint: tables of the same width; none is yet beside them.
    """
    plan = joint.embedder.plan
    for module in modules:
        weight = module._parameters.get("weight")
        if (
            type(module) in KINDS
            and type(weight) is nn.Parameter
            and weight.dtype is torch.float32
            and weight.is_cpu
            and plan.dtype == "float32"
            and weight.shape[0] <= MOST_ROWS
            and weight.shape[1] == plan.embedding_dim
            and module.max_norm is None
            and not module.scale_grad_by_freq
            and (module.padding_idx is None or isinstance(module, nn.Embedding))
        ):
            module.__class__ = KINDS[type(module)]
            module.__dict__["joint"] = joint  # not as a submodule: it is another table's
            module.__dict__["number"] = len(joint.columns) + joint.beside
            joint.beside += 1
