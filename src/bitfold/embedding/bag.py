"""The face of `nn.EmbeddingBag`."""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bitfold.embedder.watching import watch
from bitfold.embedding.pretrained import pretrained
from bitfold.embedding.single import OneField
from bitfold.embedding.tracing import as_leaf
from bitfold.errors import BitfoldError
from bitfold.fuse.bags import check_offsets, check_pooling


class EmbeddingBag(OneField, nn.EmbeddingBag):
    """`torch.nn.EmbeddingBag` within a budget: the vectors of a bag of ids become one.

    The arguments up to `dtype` are those of `nn.EmbeddingBag`, in its order.

    Args:
        num_embeddings: `V`, ids are `0..V-1`; None for hashed ids, which may be any int64.
        embedding_dim: `D`.
        max_norm: rows that are read are scaled down to at most this norm, in place.
        norm_type: which norm that is.
        scale_grad_by_freq: whether an id's gradient is divided by how often the batch has it.
        mode: `sum`, `mean` or `max`.
        sparse: whether gradients are sparse tensors.
        _weight: the table to start with, `[V, D]`; kept, not copied.
        include_last_offset: whether offsets end with the number of ids.
        padding_idx: an id that counts in no bag.
        device: where the weights live.
        dtype: their type; torch's default if None.
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
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        mode: str = "mean",
        sparse: bool = False,
        _weight: Tensor | None = None,
        include_last_offset: bool = False,
        padding_idx: int | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        method: str = "auto",
        budget: int | str | None = None,
        distinct: int | None = None,
        seed: int | None = None,
        **options: Any,
    ) -> None:
        check_pooling(mode, None)
        self._build(
            num_embeddings, embedding_dim, padding_idx, max_norm, norm_type, scale_grad_by_freq,
            sparse, _weight, False, device, dtype,
            method=method, budget=budget, distinct=distinct, seed=seed, options=options,
        )  # fmt: skip
        self.mode, self.include_last_offset = mode, include_last_offset

    @classmethod
    def from_pretrained(
        cls,
        embeddings: Tensor,
        freeze: bool = True,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        mode: str = "mean",
        sparse: bool = False,
        include_last_offset: bool = False,
        padding_idx: int | None = None,
        *,
        method: str | None = None,
        budget: int | str | None = None,
        counts: Tensor | None = None,
        seed: int | None = None,
        **options: Any,
    ) -> "EmbeddingBag":
        """The vectors `[V, D]` that are given, as a module.

        With `method="full"`, which is meant where nothing asks for less, they are kept and not
        copied. Otherwise the numbers of the smaller module are fitted to them; `fitted` says how
        near they came. A padding id is left out, and its vector is zero.

        Args:
            embeddings: a floating tensor; to be fitted to, also whatever gives rows by slices, such
                as a memory-mapped array: it is read some rows at a time.
            freeze: whether nothing is trained.
            method: one of `bitfold.methods()`; None: `full`, or `auto` with a budget or options.
            budget: serving bytes, `"64MiB"`, or a ratio to the full float32 table, `"100x"`.
            counts: `[V]`, how often each id occurs: what its vector counts in the fit.
            seed: what hashes are salted and fits begin with; 0 if None.
            options: the method's own.

        Raises:
            BitfoldError: for shapes that do not fit, and for what is not a number.
        """
        make: Any = partial(
            cls, max_norm=max_norm, norm_type=norm_type, scale_grad_by_freq=scale_grad_by_freq,
            mode=mode, sparse=sparse, include_last_offset=include_last_offset,
            padding_idx=padding_idx,
        )  # fmt: skip
        found: EmbeddingBag = pretrained(
            make, embeddings, freeze, method=method, budget=budget, counts=counts, seed=seed,
            options=options,
        )  # fmt: skip
        return found

    def forward(
        self, input: Tensor, offsets: Tensor | None = None, per_sample_weights: Tensor | None = None
    ) -> Tensor:
        """Vectors `[B, D]` of the bags."""
        if type(input) is not Tensor:  # something traces
            node: Any = as_leaf(self, input, offsets, per_sample_weights)
            if node is not None:
                return node  # type: ignore[no-any-return]
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
        # past `nn.Module`'s slow attributes; of a folded table it is no submodule
        embedder: Any = self._modules.get("embedder") or self.embedder
        if self.max_norm is not None or self.scale_grad_by_freq:
            return self._by_torch(input, offsets, per_sample_weights, embedder)
        pooled: Tensor = embedder.forward_bags(
            input, offsets, per_sample_weights, self.mode, self.padding_idx
        )
        if embedder.observes:
            watch(embedder, input, offsets, pooled, self.padding_idx)
        return pooled.squeeze(1)

    def _by_torch(
        self, ids: Tensor, offsets: Tensor, weights: Tensor | None, embedder: Any
    ) -> Tensor:
        check_pooling(self.mode, weights)
        check_offsets(offsets, ids.shape[0])
        embedder.check(ids.reshape(-1, 1))
        found: Tensor = embedder.read(
            lambda table: F.embedding_bag(
                ids, table, offsets.to(ids.dtype), self.max_norm, self.norm_type,
                self.scale_grad_by_freq, self.mode, self.sparse, weights, True, self.padding_idx,
            )
        )  # fmt: skip
        return found
