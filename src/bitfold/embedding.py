"""The faces of `nn.Embedding` and `nn.EmbeddingBag`, and a collection of fields.

All three hold one `Embedder`. Shapes: `B` rows of a batch, `F` fields, `T` ids in bags, `D` the
width, `V` ids of a field.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from bitfold.config import from_json
from bitfold.embedder import Embedder
from bitfold.errors import BitfoldError
from bitfold.fields import Field
from bitfold.method.registry import method_kind
from bitfold.plan_format import Plan
from bitfold.planning import plan as make_plan
from bitfold.pooling import check_pooling


def _built(
    plan: Plan, seed: int, device: torch.device | str | None, sparse: bool = False
) -> Embedder:
    kind = method_kind(plan.method)
    if plan.method_version > kind.version:
        raise BitfoldError(
            f"this plan was made by a newer {plan.method!r}",
            got=f"version {plan.method_version}",
            expected=f"{kind.version} or older",
            fix="install the bitfold that made it, or a newer one",
        )
    return from_json(kind, plan.options).build(plan, seed=seed, device=device, sparse=sparse)


class EmbeddingCollection(nn.Module):
    """Vectors for several fields within one budget.

    Args:
        fields: what is embedded; dense and hashed fields may be mixed where the method can.
        embedding_dim: `D`.
        method: one of `bitfold.methods()`.
        budget: serving bytes, `"64MiB"`, or a ratio to the full float32 table, `"100x"`.
        seed: what hashes are salted and fresh weights drawn from.
        mode: how bags are pooled: `sum`, `mean` or `max`.
        sparse: whether gradients are sparse tensors.
        device: where the weights live.
        dtype: their type; torch's default if None.
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
        method: str = "binary-code",
        budget: int | str | None = None,
        seed: int = 0,
        mode: str = "mean",
        sparse: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        check_pooling(mode, None)
        made = make_plan(
            fields, embedding_dim, method=method, budget=budget, seed=seed, dtype=dtype, **options
        )
        self.mode = mode
        self.embedder = _built(made, seed, device, sparse)

    @classmethod
    def from_plan(
        cls,
        plan: Plan,
        *,
        seed: int = 0,
        mode: str = "mean",
        sparse: bool = False,
        device: torch.device | str | None = None,
    ) -> "EmbeddingCollection":
        """The collection that a plan describes, with fresh weights drawn from `seed`."""
        check_pooling(mode, None)
        collection = cls.__new__(cls)
        nn.Module.__init__(collection)
        collection.mode = mode
        collection.embedder = _built(plan, seed, device, sparse)
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
        if offsets is None:
            embedder: Any = self._modules["embedder"]  # past `nn.Module`'s slow attributes
            vectors: Tensor = embedder(ids)
            return vectors
        return self.embedder.forward_bags(ids, offsets, per_sample_weights, self.mode)

    def bytes(self, phase: str = "serving") -> dict[str, int]:
        """Bytes by kind; `phase` is `"serving"` or `"training"` (without an optimizer's state)."""
        return self.embedder.bytes(phase)

    def serving(self) -> "EmbeddingCollection":
        """A packed and frozen copy."""
        copy = EmbeddingCollection.__new__(EmbeddingCollection)
        nn.Module.__init__(copy)
        copy.mode = self.mode
        copy.embedder = self.embedder.serving()
        return copy.eval()

    def reset_parameters(self) -> None:
        """Draw fresh weights from the seed, as after `to_empty`."""
        self.embedder.reset_parameters()

    def extra_repr(self) -> str:
        """Method, fields, width and bytes."""
        return f"{self.plan.method}, fields={len(self.fields)}, bytes={self.plan.bytes}"


class _Single(nn.Module):
    """What one-field faces share."""

    embedder: Embedder

    def __init__(
        self,
        num_embeddings: int | None,
        embedding_dim: int,
        padding_idx: int | None,
        *,
        method: str,
        budget: int | str | None,
        distinct: int | None,
        seed: int,
        sparse: bool,
        device: torch.device | str | None,
        dtype: torch.dtype | None,
        options: dict[str, Any],
    ) -> None:
        super().__init__()
        field = Field("ids", num_embeddings, distinct)
        if num_embeddings is not None and padding_idx is not None:
            if not -num_embeddings <= padding_idx < num_embeddings:
                raise BitfoldError(
                    "padding_idx is out of range",
                    got=padding_idx,
                    expected=f"{-num_embeddings} to {num_embeddings - 1}",
                )
            padding_idx %= num_embeddings
        made = make_plan(
            [field], embedding_dim, method=method, budget=budget, seed=seed, dtype=dtype, **options
        )
        self.num_embeddings, self.embedding_dim = num_embeddings, embedding_dim
        self.padding_idx = padding_idx
        self.embedder = _built(made, seed, device, sparse)

    @property
    def plan(self) -> Plan:
        """Where every number lies."""
        return self.embedder.plan

    @property
    def weight(self) -> Tensor:
        """The table `[V, D]` that the module stands for.

        The full method returns its parameter. The others *compute* the table: it costs `V * D`
        numbers, gradients flow through it, and writing into it changes nothing. Train or load the
        module's `parameters()` and `state_dict()`, not this.

        Raises:
            BitfoldError: if ids are hashed; then there is no table.
        """
        if self.num_embeddings is None:
            raise BitfoldError(
                "an embedding of hashed ids has no table",
                got="num_embeddings=None",
                expected="dense ids",
                fix="call the module on the ids whose vectors you want",
            )
        if self.plan.program.plain and self.padding_idx is None:
            return next(self.embedder.parameters())
        device = next(self.parameters()).device
        return self._vectors(torch.arange(self.num_embeddings, device=device))

    def _vectors(self, ids: Tensor) -> Tensor:
        vectors: Tensor = self.embedder(ids.reshape(-1, 1), self.padding_idx)
        return vectors.reshape(*ids.shape, self.embedding_dim)

    def bytes(self, phase: str = "serving") -> dict[str, int]:
        """Bytes by kind; `phase` is `"serving"` or `"training"` (without an optimizer's state)."""
        return self.embedder.bytes(phase)

    def reset_parameters(self) -> None:
        """Draw fresh weights from the seed, as after `to_empty`."""
        self.embedder.reset_parameters()

    def extra_repr(self) -> str:
        """Ids, width, method and bytes."""
        ids = "hashed" if self.num_embeddings is None else self.num_embeddings
        text = f"{ids}, {self.embedding_dim}, method={self.plan.method!r}, bytes={self.plan.bytes}"
        return text if self.padding_idx is None else f"{text}, padding_idx={self.padding_idx}"


class Embedding(_Single):
    """`torch.nn.Embedding` within a budget.

    Args:
        num_embeddings: `V`, ids are `0..V-1`; None for hashed ids, which may be any int64.
        embedding_dim: `D`.
        padding_idx: an id whose vector is zero and stays so.
        method: one of `bitfold.methods()`.
        budget: serving bytes, `"64MiB"`, or a ratio to the full float32 table, `"100x"`.
        distinct: for hashed ids, about how many there are: a ratio and a code's width need it.
        seed: what hashes are salted and fresh weights drawn from.
        sparse: whether gradients are sparse tensors.
        device: where the weights live.
        dtype: their type; torch's default if None.
        options: the method's own, such as `blocks=3`.

    Shapes:
        ids int64 `[...]` -> vectors `[..., D]`.

    Raises:
        IdOutOfRange: on a dense id outside `0..V-1`, on every device.

    Example:
        >>> embedding = Embedding(1_000_000, 16, budget="100x")
        >>> embedding(torch.tensor([[0, 999_999], [42, 7]])).shape
        torch.Size([2, 2, 16])
        >>> embedding.plan.bytes <= 640_000
        True
    """

    def __init__(
        self,
        num_embeddings: int | None,
        embedding_dim: int,
        padding_idx: int | None = None,
        *,
        method: str = "binary-code",
        budget: int | str | None = None,
        distinct: int | None = None,
        seed: int = 0,
        sparse: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        **options: Any,
    ) -> None:
        super().__init__(
            num_embeddings,
            embedding_dim,
            padding_idx,
            method=method,
            budget=budget,
            distinct=distinct,
            seed=seed,
            sparse=sparse,
            device=device,
            dtype=dtype,
            options=options,
        )

    def forward(self, input: Tensor) -> Tensor:
        """Vectors `[..., D]` of ids `[...]`."""
        return self._vectors(input)


class EmbeddingBag(_Single):
    """`torch.nn.EmbeddingBag` within a budget: the vectors of a bag of ids become one.

    Args:
        num_embeddings: `V`, ids are `0..V-1`; None for hashed ids, which may be any int64.
        embedding_dim: `D`.
        padding_idx: an id that counts in no bag.
        mode: `sum`, `mean` or `max`.
        include_last_offset: whether offsets end with the number of ids.
        method: and all that follows, as for `Embedding`.

    Shapes:
        2-D ids `[B, L]`, or 1-D ids `[T]` with offsets `[B]` -> vectors `[B, D]`. An empty bag is
        zero. `per_sample_weights` have the shape of the ids and need `mode="sum"`.

    Example:
        >>> bag = EmbeddingBag(100_000, 8, mode="sum", budget="50x")
        >>> bag(torch.tensor([5, 6, 7]), torch.tensor([0, 2])).shape
        torch.Size([2, 8])
    """

    def __init__(
        self,
        num_embeddings: int | None,
        embedding_dim: int,
        padding_idx: int | None = None,
        *,
        mode: str = "mean",
        include_last_offset: bool = False,
        method: str = "binary-code",
        budget: int | str | None = None,
        distinct: int | None = None,
        seed: int = 0,
        sparse: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        **options: Any,
    ) -> None:
        check_pooling(mode, None)
        super().__init__(
            num_embeddings,
            embedding_dim,
            padding_idx,
            method=method,
            budget=budget,
            distinct=distinct,
            seed=seed,
            sparse=sparse,
            device=device,
            dtype=dtype,
            options=options,
        )
        self.mode, self.include_last_offset = mode, include_last_offset

    def forward(
        self, input: Tensor, offsets: Tensor | None = None, per_sample_weights: Tensor | None = None
    ) -> Tensor:
        """Vectors `[B, D]` of the bags."""
        if per_sample_weights is not None and per_sample_weights.shape != input.shape:
            raise BitfoldError(
                "per_sample_weights of the wrong shape",
                got=list(per_sample_weights.shape),
                expected=f"{list(input.shape)}, as the ids",
            )
        if input.dim() == 2:
            if offsets is not None:
                raise BitfoldError(
                    "2-D ids are bags already", got="offsets too", expected="no offsets"
                )
            rows, length = input.shape
            offsets = torch.arange(rows + 1, device=input.device) * length
            if per_sample_weights is not None:
                per_sample_weights = per_sample_weights.reshape(-1)
            input = input.reshape(-1)
        elif input.dim() != 1 or offsets is None or offsets.dim() != 1:
            starts = "none" if offsets is None else list(offsets.shape)
            raise BitfoldError(
                "bags of the wrong shape",
                got=f"ids {list(input.shape)}, offsets {starts}",
                expected="2-D ids, or 1-D ids with 1-D offsets",
            )
        elif not self.include_last_offset:
            end = offsets.new_full((1,), input.shape[0])
            offsets = torch.cat([offsets, end])
        pooled: Tensor = self.embedder.forward_bags(
            input, offsets, per_sample_weights, self.mode, self.padding_idx
        )
        return pooled.squeeze(1)
