"""The base of embedders that are modules of their own: all but what one id's vector is."""

import copy
import hashlib
import json
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from bitfold.address import Mapped
from bitfold.address.constants import WithConstants
from bitfold.address.fingerprint import check_fingerprint, fingerprint_of
from bitfold.address.mixing import signed
from bitfold.address.tables import StoredTables
from bitfold.embedder.contract import Embedder, Table
from bitfold.embedder.draws import drawn_seed
from bitfold.embedder.preparing import build_maps, maps_of, unbuilt, unbuilt_maps
from bitfold.embedder.ranges import as_int64, guarded, out_of_range
from bitfold.errors import BitfoldError
from bitfold.fuse.bags import bags_of, check_bags, check_offsets, pool
from bitfold.kernels.choice import recorded
from bitfold.planning.plan import Plan
from bitfold.planning.spec import dtype_size
from bitfold.planning.statistics import Statistics
from bitfold.pool import pool_of
from bitfold.pool.dtypes import DTYPES

MARK = {"fingerprint"}


class OwnEmbedder(WithConstants, Embedder):
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

    limits: Tensor

    def __init__(
        self,
        plan: Plan,
        *,
        std: float,
        seed: int | None = None,
        device: torch.device | str | None = None,
        sparse: bool = False,
    ) -> None:
        super().__init__()
        self.plan, self.std, self.seed = plan, std, seed
        self.num_fields, self.dim = len(plan.fields), plan.embedding_dim
        self.dtype = DTYPES[plan.dtype]
        self.stored = StoredTables(((each.name, each.bytes) for each in plan.group.stored), device)
        self.waits = bool(self._maps())  # for its maps to be built
        for spec in plan.group.pools:
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

    def pools(self) -> list[Any]:
        """The pools, in the plan's order."""
        return [getattr(self, spec.name) for spec in self.plan.group.pools]

    def forward(self, ids: Tensor, padding_idx: int | None = None) -> Tensor:
        """Vectors `[B, F, D]` of int64 ids `[B, F]`; those of `padding_idx` are zero."""
        ids = as_int64(ids)
        if ids.dim() != 2 or ids.shape[1] != self.num_fields:
            raise BitfoldError(
                "ids of the wrong shape",
                got=list(ids.shape),
                expected=f"[B, {self.num_fields}], a column for each field",
            )
        self._check_maps()
        found = self.vectors(guarded(ids, self.bad(ids)))
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
        self._check_maps()
        bags = offsets.shape[0] - 1
        rows = bags // self.num_fields
        bag = bags_of(offsets, ids.shape[0])
        field = bag // max(rows, 1)
        found = self.vectors(guarded(ids, self.bad(ids, field)), field)
        keep = None if padding_idx is None else ids != padding_idx
        pooled = pool(found, bag, bags, mode, weights=weights, keep=keep)
        return pooled.reshape(self.num_fields, rows, self.dim).transpose(0, 1).contiguous()

    def reset_parameters(self) -> None:
        """Draw fresh weights: the same for the same seed, on every device."""
        if not any(each.is_meta for each in self.parameters()):
            seed = drawn_seed(None) if self.seed is None else self.seed
            self._draw(self.std, torch.Generator().manual_seed(seed))

    def redraw(self, std: float, generator: torch.Generator | None = None) -> bool:
        """Draw fresh weights, for vectors of deviation `std`."""
        if std > 0 and not any(each.is_meta for each in self.parameters()):
            self._draw(std, torch.Generator().manual_seed(drawn_seed(generator)))
        return std > 0

    @torch.no_grad()
    def _draw(self, std: float, generator: torch.Generator) -> None:
        with torch.device("cpu"):
            self.draw(std, generator)
        for each in self.pools():
            each.refresh()

    @property
    def sparse(self) -> bool:
        """Whether gradients are sparse tensors."""
        return any(each.sparse for each in self.pools())

    @sparse.setter
    def sparse(self, flag: bool) -> None:
        for each in self.pools():
            each.make_sparse(flag)

    def tables(self) -> Iterable[Table]:
        """The pools' weights, those that are trained."""
        for each in self.pools():
            weight = each._parameters.get("weight")
            if weight is not None:
                yield Table(each, weight, weight.dim() == 2)

    def check(self, ids: Tensor) -> None:
        """Raise `IdOutOfRange` for a dense id of `[B, F]` that has no vector."""
        self.bad(as_int64(ids))

    def bad(self, ids: Tensor, field: Tensor | None = None) -> Tensor | None:
        """Which dense ids are out of range; see `bitfold.embedder.ranges`."""
        if self.limits.device != ids.device:  # weights that went there past `Module.to`
            self._place_all(ids.device)
        return out_of_range(self.plan.fields, self.limits, ids, field)

    @property
    def prepares(self) -> bool:  # type: ignore[override]
        """Whether there are maps to build."""
        return bool(self._maps())

    def prepare(self, stats: Statistics) -> None:
        """Build the maps."""
        if self.prepares:
            build_maps(self.plan.program, self.plan.fields, self.stored, stats)
        self.waits = False

    def _maps(self) -> dict[int, Mapped]:
        program = self.plan.group.program
        return {} if program is None else maps_of(program)

    def _check_maps(self) -> None:
        program = self.plan.group.program
        if self.waits and program is not None:  # tables may have come one by one
            self.waits = unbuilt(program, self.stored.named(), "")
        if self.waits:
            raise unbuilt_maps(self.plan.method)

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

    def serving(self) -> "OwnEmbedder":
        """A frozen copy in evaluation mode, its pools packed."""
        made = copy.deepcopy(self).eval().requires_grad_(False)
        for spec in self.plan.group.pools:
            setattr(made, spec.name, getattr(made, spec.name).serving())
        return made

    def resume(self) -> "OwnEmbedder":
        """A copy that can be trained on; the inverse of `serving`.

        Raises:
            BitfoldError: with a step for each row, which would follow from other numbers.
        """
        if any(spec.packed and spec.scale == "row" for spec in self.plan.group.pools):
            super().resume()
        made = copy.deepcopy(self).train().requires_grad_(True)
        for spec in self.plan.group.pools:
            setattr(made, spec.name, getattr(made, spec.name).resume())
        return made

    @property
    def fingerprint(self) -> int:
        """A digest of what decides an id's numbers: in the state dict, but no buffer."""
        names = [field.name for field in self.plan.fields]
        program = self.plan.group.program
        if program is not None:
            return fingerprint_of(program, names)
        text = json.dumps([self.plan.group.method, self.decides(), names], sort_keys=True)
        digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
        return signed(int.from_bytes(digest, "little"))

    def _constants(self) -> dict[str, Tensor]:
        return {"limits": torch.tensor([field.num_embeddings or 0 for field in self.plan.fields])}

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        mark = torch.tensor(self.fingerprint, device=self.limits.device)
        destination[f"{prefix}fingerprint"] = mark

    def _load_from_state_dict(
        self, state_dict: Any, prefix: str, local: Any, strict: bool, missing: Any, *rest: Any
    ) -> None:
        state_dict = dict(state_dict)
        mark = state_dict.pop(f"{prefix}fingerprint", None)
        if mark is not None:
            check_fingerprint(mark, self.fingerprint)
        elif strict:
            missing.append(f"{prefix}fingerprint")
        super()._load_from_state_dict(state_dict, prefix, local, strict, missing, *rest)
        program = self.plan.group.program
        if self.waits and program is not None:  # tables are read after their module
            self.waits = unbuilt(program, state_dict, f"{prefix}stored.")
        own = (value for key, value in state_dict.items() if key.startswith(prefix))
        first = next(own, self.limits)
        if self.limits.is_meta and not first.is_meta:
            self._place_all(first.device)

    def _place_all(self, device: torch.device) -> None:
        """Make all constants anew where the weights are."""
        for part in self.modules():
            if isinstance(part, WithConstants):
                part.place_constants(device)
