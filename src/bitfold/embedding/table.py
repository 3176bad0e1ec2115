"""The face of `nn.Embedding`."""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bitfold.embedder.watching import watch
from bitfold.embedding.pretrained import pretrained
from bitfold.embedding.single import OneField
from bitfold.embedding.tracing import as_leaf


class Embedding(OneField, nn.Embedding):
    """`torch.nn.Embedding` within a budget.

    The arguments up to `dtype` are those of `nn.Embedding`, in its order. What needs a row for
    each id (`max_norm`, `scale_grad_by_freq`, `_weight`) works with `method="full"` and is
    refused by the other methods.

    Args:
        num_embeddings: `V`, ids are `0..V-1`; None for hashed ids, which may be any int64.
        embedding_dim: `D`.
        padding_idx: an id that learns nothing. Its vector is zero; with `method="full"`, whatever
            is written into its row, zeros at the start.
        max_norm: rows that are read are scaled down to at most this norm, in place.
        norm_type: which norm that is.
        scale_grad_by_freq: whether an id's gradient is divided by how often the batch has it.
        sparse: whether gradients are sparse tensors.
        _weight: the table to start with, `[V, D]`; kept, not copied.
        _freeze: whether nothing is trained.
        device: where the weights live.
        dtype: their type; torch's default if None.
        method: one of `bitfold.methods()`.
        budget: serving bytes, `"64MiB"`, or a ratio to the full float32 table, `"100x"`.
        distinct: for hashed ids, about how many there are: a ratio and a code's width need it.
        seed: what hashes are salted and fresh weights drawn from. If None, weights are drawn
            from torch's generator (`torch.manual_seed`), and hashes are salted as for seed 0.
        options: the method's own, such as `blocks=3`.

    Shapes:
        ids int64 `[...]` -> vectors `[..., D]`.

    Raises:
        IdOutOfRange: on a dense id outside `0..V-1`, on every device.
        BitfoldError: for a word that the method can't honour; it names both.

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
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        sparse: bool = False,
        _weight: Tensor | None = None,
        _freeze: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        method: str = "auto",
        budget: int | str | None = None,
        distinct: int | None = None,
        seed: int | None = None,
        **options: Any,
    ) -> None:
        self._build(
            num_embeddings, embedding_dim, padding_idx, max_norm, norm_type, scale_grad_by_freq,
            sparse, _weight, _freeze, device, dtype,
            method=method, budget=budget, distinct=distinct, seed=seed, options=options,
        )  # fmt: skip

    @classmethod
    def from_pretrained(
        cls,
        embeddings: Tensor,
        freeze: bool = True,
        padding_idx: int | None = None,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        sparse: bool = False,
        *,
        method: str | None = None,
        budget: int | str | None = None,
        counts: Tensor | None = None,
        seed: int | None = None,
        **options: Any,
    ) -> "Embedding":
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

        Example:
            >>> vectors = torch.randn(1000, 8)
            >>> torch.equal(Embedding.from_pretrained(vectors)(torch.tensor(3)), vectors[3])
            True
            >>> small = Embedding.from_pretrained(vectors, method="full", bits=8)
            >>> small.fitted.error < 0.02, small.plan.bytes
            (True, 8032)
        """
        make: Any = partial(
            cls, padding_idx=padding_idx, max_norm=max_norm, norm_type=norm_type,
            scale_grad_by_freq=scale_grad_by_freq, sparse=sparse,
        )  # fmt: skip
        found: Embedding = pretrained(
            make, embeddings, freeze, method=method, budget=budget, counts=counts, seed=seed,
            options=options,
        )  # fmt: skip
        return found

    def forward(self, input: Tensor) -> Tensor:
        """Vectors `[..., D]` of ids `[...]`."""
        if type(input) is not Tensor:  # something traces
            node: Any = as_leaf(self, input)
            if node is not None:
                return node  # type: ignore[no-any-return]
        # past `nn.Module`'s slow attributes; of a folded table it is no submodule
        embedder: Any = self._modules.get("embedder") or self.embedder
        if self.max_norm is not None or self.scale_grad_by_freq:
            return self._by_torch(input, embedder)
        ids = input.reshape(-1, 1)
        vectors: Tensor = embedder(ids, self.padding_idx)
        if embedder.observes:
            watch(embedder, ids, None, vectors, self.padding_idx)
        return vectors.reshape(*input.shape, self.embedding_dim)

    def _by_torch(self, ids: Tensor, embedder: Any) -> Tensor:
        embedder.check(ids.reshape(-1, 1))
        found: Tensor = embedder.read(
            lambda table: F.embedding(
                ids, table, self.padding_idx, self.max_norm, self.norm_type,
                self.scale_grad_by_freq, self.sparse,
            )
        )  # fmt: skip
        return found
