"""Folded tables: the faces of `nn.Embedding` and `nn.EmbeddingBag` over joint tables."""

import copy
from typing import Any, Self

import torch
from torch import Tensor, nn

from bitfold.embedder.contract import Embedder
from bitfold.embedding import Embedding, EmbeddingBag
from bitfold.embedding.single import OneField
from bitfold.folded.joint import Joint
from bitfold.folded.ones import of_ones
from bitfold.kernels.choice import alone


class Folded(OneField):
    """What both faces share: `joint`, and the table's number in it."""

    joint: Joint
    field: int

    @property
    def embedder(self) -> Embedder:  # type: ignore[override]
        """The table's column."""
        return self.joint.columns[self.field]

    @property
    def name(self) -> str:
        """Where the table stood in the model when it was folded."""
        return self.joint.names[self.field]

    @property
    def owns(self) -> bool:
        """Whether the joint tables are this module's own."""
        return "joint" in self._modules

    def _numbers(self) -> tuple[torch.dtype, torch.device]:
        whole = self.joint.embedder
        for numbers in whole.parameters():
            return numbers.dtype, numbers.device
        device = next(whole.buffers()).device
        with torch.no_grad():
            found = self.embedder(torch.empty((0, 1), dtype=torch.int64, device=device))
        return found.dtype, device

    def bytes(self, phase: str = "serving") -> dict[str, int]:
        """Bytes by kind of the joint tables that this one reads, those of other tables with it."""
        return self.joint.embedder.bytes(phase)

    def serving(self) -> Self:
        """A packed and frozen copy of this table, with what it shares."""
        return self._around_joint(self.joint.embedder.serving()).eval().requires_grad_(False)

    def resume(self) -> Self:
        """A copy of this table, with what it shares, that can be trained on."""
        return self._around_joint(self.joint.embedder.resume()).train()

    def _around_joint(self, embedder: Embedder) -> Self:
        return copy.deepcopy(self, {id(self.joint): self.joint.around(embedder)})

    def redraw(self, std: float, generator: torch.Generator | None = None) -> bool:
        """Draw fresh weights of all joint tables, for vectors of deviation `std`."""
        return self.joint.embedder.redraw(std, generator)

    def reset_parameters(self) -> None:
        """Draw fresh weights of all joint tables, if they are this module's own."""
        if self.owns:
            self.joint.embedder.reset_parameters()

    @property
    def sparse(self) -> bool:
        """Whether gradients are sparse tensors."""
        return self.joint.embedder.sparse

    @sparse.setter
    def sparse(self, flag: bool) -> None:
        self.joint.embedder.sparse = bool(flag)

    def extra_repr(self) -> str:
        """As that of a table of its own."""
        shared = len(self.joint.names)
        return super().extra_repr() + f", tables={shared}" * (shared > 1)


class FoldedEmbedding(Folded, Embedding):
    """An `nn.Embedding` of a folded model."""

    def forward(self, input: Tensor) -> Tensor:
        """Vectors `[..., D]` of ids `[...]`."""
        if type(input) is Tensor and alone():
            found = self.joint.ahead(self.field, input, self.padding_idx)
            if found is not None:
                return found
        return super().forward(input)


class FoldedEmbeddingBag(Folded, EmbeddingBag):
    """An `nn.EmbeddingBag` of a folded model."""

    def forward(
        self, input: Tensor, offsets: Tensor | None = None, per_sample_weights: Tensor | None = None
    ) -> Tensor:
        """Vectors `[B, D]` of the bags."""
        if (
            type(input) is Tensor
            and per_sample_weights is None
            and alone()
            and of_ones(input, offsets, self.include_last_offset)
        ):
            found = self.joint.ahead(self.field, input, self.padding_idx)
            if found is not None:
                return found if found.dim() == 2 else found.squeeze(1)
        return super().forward(input, offsets, per_sample_weights)


def folded_from(module: Any, joint: Joint, field: int, *, owner: bool) -> None:
    """Make a table of torch's a folded one, in place: whoever holds the module holds it still.

    Its hooks, its training flag and whatever was attached to it stay.

    Args:
        module: an `nn.Embedding` or `nn.EmbeddingBag`.
        joint: what it is folded into, and `field` its number there.
        owner: whether the joint tables become its submodule.
    """
    sparse = module.sparse
    del module._parameters["weight"], module.__dict__["sparse"]
    bag = isinstance(module, nn.EmbeddingBag)
    module.__class__ = FoldedEmbeddingBag if bag else FoldedEmbedding
    module.norm_type = float(module.norm_type)
    if owner:
        module._modules["joint"] = joint
        joint.train(module.training)
    module.__dict__["joint"] = joint  # past `nn.Module`'s slow attributes
    module.__dict__["field"] = field
    assert joint.embedder.sparse == sparse, "tables of one kind of gradient are joint"
