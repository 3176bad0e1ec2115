"""The base of embedders that are modules of their own: all but what one id's vector is."""

import hashlib
import json
from typing import Any

import torch
from torch import Tensor

from bitfold.address.fingerprint import fingerprint_of
from bitfold.address.mixing import signed
from bitfold.embedder.group import GroupEmbedder
from bitfold.embedder.ranges import as_int64, guarded, spoiled
from bitfold.fuse.bags import by_field, check_bags, check_offsets, placed, pool
from bitfold.kernels.choice import recorded
from bitfold.planning.field import check_columns
from bitfold.planning.plan import Plan
from bitfold.planning.spec import dtype_size
from bitfold.pool import pool_of
from bitfold.pool.dtypes import DTYPES

MARK = {"fingerprint"}


class OwnEmbedder(GroupEmbedder):
    """Shapes, ranges, bags, padding, files and bytes, in plain torch, around `vectors`.

    A subclass makes its parameters, then calls `reset_parameters`. The plan's pools are made here,
    each under its name.

    Args:
        plan: what is kept; one group.
        std: the deviation of a fresh vector's components.
        seed: what fresh weights are drawn from; None: torch's generator, at each drawing.
        device: where the numbers live; on `"meta"` nothing is drawn.
        sparse: whether the pools' gradients are sparse.
    """

    def __init__(
        self,
        plan: Plan,
        *,
        std: float,
        seed: int | None = None,
        device: torch.device | str | None = None,
        sparse: bool = False,
    ) -> None:
        super().__init__(plan, std=std, seed=seed, device=device)
        self.dim, self.dtype = plan.embedding_dim, DTYPES[plan.dtype]
        for spec in self.specs:
            made = pool_of(spec, device=device, dtype=self.dtype, sparse=sparse)
            self.add_module(spec.name, made)
        self.place_constants(device)

    def vectors(self, ids: Tensor, field: Tensor | None = None) -> Tensor:
        """Vectors `[B, F, D]` of ids `[B, F]`; or `[T, D]` of ids `[T]` with the field of each."""
        raise NotImplementedError

    def draw(self, std: float, generator: torch.Generator) -> None:
        """Fill the parameters, for vectors of deviation `std`: the same numbers on every device."""
        raise NotImplementedError

    def decides(self) -> Any:
        """What decides an id's numbers where no address does, beside the fields: JSON values."""
        raise NotImplementedError

    def forward(self, ids: Tensor, padding_idx: int | None = None) -> Tensor:
        """Vectors `[B, F, D]` of int64 ids `[B, F]`; those of `padding_idx` are zero."""
        ids = as_int64(ids)
        check_columns(ids.shape, self.num_fields)
        self.check_maps()
        bad = self.bad(ids)
        found = spoiled(self.vectors(guarded(ids, bad)), bad)
        if padding_idx is None:
            return found
        return found.masked_fill((ids == padding_idx).unsqueeze(-1), 0.0)

    def forward_bags(
        self,
        ids: Tensor,
        offsets: Tensor,
        weights: Tensor | None = None,
        mode: str = "sum",
        padding_idx: int | None = None,
    ) -> Tensor:
        """Vectors `[B, F, D]` of bags; ids equal to `padding_idx` are left out of them."""
        check_bags(ids, offsets, weights, mode, self.num_fields)
        ids, offsets = as_int64(ids), offsets.long()
        # A recording holds them against the ids when it is run; a compiler's graph asserts.
        if torch.compiler.is_compiling() or not recorded(offsets):
            check_offsets(offsets, ids.shape[0])
        self.check_maps()
        bag, field = placed(offsets, ids.shape[0], self.num_fields)
        bad = self.bad(ids, field)
        found = spoiled(self.vectors(guarded(ids, bad), field), bad)
        keep = None if padding_idx is None else ids != padding_idx
        pooled = pool(found, bag, offsets.shape[0] - 1, mode, weights=weights, keep=keep)
        return by_field(pooled, self.num_fields)

    @torch.no_grad()
    def _draw(self, std: float, generator: torch.Generator) -> None:
        with torch.device("cpu"):
            self.draw(std, generator)
        for each in self.pools():
            each.refresh()

    def bytes(self, phase: str = "serving") -> dict[str, int]:
        """Bytes by kind, to serve or to train (before any optimizer's state)."""
        kinds, group = super().bytes(phase), self.plan.group
        if phase == "training":  # the weights are all parameters, those of its own too
            return {kind: size for kind, size in kinds.items() if kind not in {*group.own} - MARK}
        one = next(self.parameters(), None)
        if one is not None and one.dtype != self.dtype:  # cast since it was planned
            old = dtype_size(self.plan.dtype)
            packed = {"weights"} if any(pool.packed for pool in group.pools) else set()
            for kind in kinds.keys() & {"weights", *group.own} - MARK - packed:
                kinds[kind] = kinds[kind] // old * one.element_size()
        return kinds

    def marks(self) -> tuple[int, ...]:
        """A digest of the address, or of what decides an id's numbers where there is none."""
        names = [field.name for field in self.plan.fields]
        program = self.plan.group.program
        if program is not None:
            return (fingerprint_of(program, names),)
        text = json.dumps([self.plan.group.method, self.decides(), names], sort_keys=True)
        digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
        return (signed(int.from_bytes(digest, "little")),)
