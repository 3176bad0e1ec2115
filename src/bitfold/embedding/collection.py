"""Vectors for several fields within one budget.

Shapes: `B` rows of a batch, `F` fields, `T` ids in bags, `D` the width.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from bitfold.embedder.contract import Embedder
from bitfold.embedder.watching import watch
from bitfold.embedding.building import built
from bitfold.embedding.tracing import as_leaf
from bitfold.fuse.bags import check_pooling
from bitfold.method.planner import plan as make_plan
from bitfold.planning.field import Field
from bitfold.planning.plan import Plan
from bitfold.planning.statistics import Statistics


class EmbeddingCollection(nn.Module):
    """Vectors for several fields within one budget.

    Args:
        fields: what is embedded; dense and hashed fields may be mixed where the method can.
        embedding_dim: `D`.
        method: one of `bitfold.methods()`.
        budget: serving bytes, `"64MiB"`, or a ratio to the full float32 table, `"100x"`.
        seed: what hashes are salted and fresh weights drawn from. If None, weights are drawn
            from torch's generator (`torch.manual_seed`), and hashes are salted as for seed 0.
        mode: how bags are pooled: `sum`, `mean` or `max`.
        sparse: whether gradients are sparse tensors.
        device: where the weights live.
        dtype: their type; torch's default if None.
        stats: how often ids occur, for methods that keep frequent ids apart or map hashed ones:
            a `bitfold.planning.statistics.Counted`, say.
        options: the method's own.

    Raises:
        BudgetTooSmall: if nothing fits; `.minimum` says the least bytes.
        BitfoldError: for a field, width, budget or option that makes no sense.

    Example:
        >>> fields = [Field("user", 6040), Field("movie", 3706), Field("gender", 2)]
        >>> collection = EmbeddingCollection(fields, 16, budget="10x")
        >>> collection(torch.tensor([[17, 4, 1], [6039, 0, 0]])).shape
        torch.Size([2, 3, 16])
        >>> bags, offsets = torch.tensor([17, 4, 5, 1]), torch.tensor([0, 1, 3, 4])
        >>> collection(bags, offsets).shape
        torch.Size([1, 3, 16])
    """

    embedder: Embedder

    def __init__(
        self,
        fields: Sequence[Field],
        embedding_dim: int,
        *,
        method: str = "auto",
        budget: int | str | None = None,
        seed: int | None = None,
        mode: str = "mean",
        sparse: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        stats: Statistics | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        check_pooling(mode, None)
        made = make_plan(
            fields,
            embedding_dim,
            method=method,
            budget=budget,
            seed=seed or 0,
            dtype=dtype,
            stats=stats,
            **options,
        )
        self.mode = mode
        self.embedder = built(made, seed, device, sparse)
        if stats is not None:
            self.embedder.prepare(stats)

    @classmethod
    def from_plan(
        cls,
        plan: Plan,
        *,
        seed: int | None = None,
        mode: str = "mean",
        sparse: bool = False,
        device: torch.device | str | None = None,
    ) -> "EmbeddingCollection":
        """The collection that a plan describes, with fresh weights.

        They are drawn from `seed`, or from torch's generator if None.
        """
        check_pooling(mode, None)
        collection = cls.__new__(cls)
        nn.Module.__init__(collection)
        collection.mode = mode
        collection.embedder = built(plan, seed, device, sparse)
        return collection

    @property
    def plan(self) -> Plan:
        """Where every number lies."""
        return self.embedder.plan

    @property
    def fields(self) -> tuple[Field, ...]:
        """What is embedded."""
        return self.plan.fields

    @property
    def embedding_dim(self) -> int:
        """`D`."""
        return self.plan.embedding_dim

    def forward(
        self, ids: Tensor, offsets: Tensor | None = None, per_sample_weights: Tensor | None = None
    ) -> Tensor:
        """Vectors of a batch.

        Args:
            ids: int64 `[B, F]`; or, with offsets, `[T]`.
            offsets: int64 `[F * B + 1]`, field by field: bag `f * B + b` is field `f` of row `b`.
            per_sample_weights: `[T]`, for `mode="sum"`.

        Returns:
            `[B, F, D]`.

        Raises:
            IdOutOfRange: for a dense id outside `0..V-1`.
        """
        if type(ids) is not Tensor:  # something traces
            node: Any = as_leaf(self, ids, offsets, per_sample_weights)
            if node is not None:
                return node  # type: ignore[no-any-return]
        if offsets is None:
            embedder: Any = self._modules["embedder"]  # past `nn.Module`'s slow attributes
            vectors: Tensor = embedder(ids)
        else:
            embedder = self.embedder
            vectors = embedder.forward_bags(ids, offsets, per_sample_weights, self.mode)
        if embedder.observes:
            watch(embedder, ids, offsets, vectors)
        return vectors

    def bytes(self, phase: str = "serving") -> dict[str, int]:
        """Bytes by kind; `phase` is `"serving"` or `"training"` (without an optimizer's state)."""
        return self.embedder.bytes(phase)

    def serving(self) -> "EmbeddingCollection":
        """A packed and frozen copy."""
        return self._around(self.embedder.serving()).eval()

    def resume(self) -> "EmbeddingCollection":
        """A copy that can be trained on: the inverse of `serving`.

        Raises:
            BitfoldError: the method needs more for it than serving kept.
        """
        return self._around(self.embedder.resume())

    def _around(self, embedder: Embedder) -> "EmbeddingCollection":
        copy = EmbeddingCollection.__new__(EmbeddingCollection)
        nn.Module.__init__(copy)
        copy.mode, copy.embedder = self.mode, embedder
        return copy

    def reset_parameters(self) -> None:
        """Draw fresh weights, as after `to_empty`: from the seed, or anew where none was said."""
        self.embedder.reset_parameters()

    def extra_repr(self) -> str:
        """Method, fields, width and bytes."""
        return f"{self.plan.method}, fields={len(self.fields)}, bytes={self.plan.bytes}"

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.extra_repr()})"
