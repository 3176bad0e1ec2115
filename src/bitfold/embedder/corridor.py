"""The corridor: the embedder of every method that is an address, a pool and a fusion."""

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from bitfold import forks as forks  # a child of a process with lookups runs on one thread
from bitfold.address import Address
from bitfold.address.constants import WithConstants
from bitfold.address.fingerprint import FINGERPRINT_BYTES, check_fingerprint
from bitfold.embedder.contract import Embedder
from bitfold.errors import BitfoldError, IdOutOfRange
from bitfold.fuse import fusion_named
from bitfold.fuse.bags import bags_of, check_offsets, check_pooling, pool
from bitfold.kernels.choice import DIRECT, PLAIN, recorded, way_of
from bitfold.kernels.ops import FUSIONS, POOLINGS, READ, vectors
from bitfold.kernels.packing import pack, scratch_words
from bitfold.planning.plan import DTYPES, Plan
from bitfold.pool import DensePool


class Corridor(WithConstants, Embedder):
    """An address, a pool and a fusion.

    Args:
        plan: where every number lies.
        std: the deviation of a fresh vector's components.
        seed: what fresh weights are drawn from; None: torch's generator, at each drawing.
        device: where they live; on `"meta"` nothing is drawn.
        sparse: whether the pool's gradient is sparse.
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
        program, dtype = plan.program, DTYPES[plan.dtype]
        width = plan.embedding_dim // program.chunks
        self.address = Address(program, device)
        self.pool = DensePool(program.rows, width, sparse=sparse, device=device, dtype=dtype)
        self.fuse = fusion_named(plan.fusion, program, device=device, dtype=dtype)
        self.num_fields = len(plan.fields)
        self.dense = any(not field.hashed for field in plan.fields)
        self.all_dense = all(not field.hashed for field in plan.fields)
        self.place_constants(device)
        # What the kernels are told, beside the program itself.
        room = scratch_words(program, plan.embedding_dim)
        self.fusion = FUSIONS[plan.fusion]
        self.shape = self.num_fields, plan.embedding_dim, room, program.raw
        self.weighted = plan.fusion == "weighted"
        with torch.inference_mode(False):  # the kernels' alone, so it stays on the CPU
            self.packed = torch.from_numpy(pack(program, self._limits()))
        # What a lookup without padding and bags is told, made once: it costs a tenth of it.
        self.plainly = (self.packed, self.fusion, POOLINGS[None], None, *self.shape)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw fresh weights: the same for the same seed, on every device."""
        if self.pool.weight.is_meta:
            return
        # One number of torch's generator is all that it is asked for, whatever the table's size.
        seed = drawn_seed(None) if self.seed is None else self.seed
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            self.fuse.init_(self.pool.weight, self.plan.program, self.std, generator)

    def _limits(self) -> list[int]:
        return [field.num_embeddings or 0 for field in self.plan.fields]

    def _constants(self) -> dict[str, Tensor]:
        return {"limits": torch.tensor(self._limits())}

    @property
    def fingerprint(self) -> Tensor:
        """A digest of the address, int64 `[]`: in the state dict, but no buffer."""
        return torch.tensor(self.plan.program.fingerprint, device=self.pool.weight.device)

    def redraw(self, std: float, generator: torch.Generator | None = None) -> bool:
        """Draw fresh weights, for vectors of deviation `std`."""
        if std > 0 and not self.pool.weight.is_meta:
            own = torch.Generator().manual_seed(drawn_seed(generator))
            with torch.no_grad():
                self.fuse.init_(self.pool.weight, self.plan.program, std, own)
        return std > 0

    @property
    def table(self) -> str | None:
        """The pool's weight, where the only field's ids are its rows as they stand."""
        program, fields = self.plan.program, self.plan.fields
        whole = program.plain and not self.weighted and len(fields) == 1
        return "pool.weight" if whole and program.rows == fields[0].num_embeddings else None

    @property
    def sparse(self) -> bool:
        """Whether gradients are sparse tensors."""
        return bool(self.pool.sparse)

    @sparse.setter
    def sparse(self, flag: bool) -> None:
        self.pool.make_sparse(flag)

    def check(self, ids: Tensor) -> None:
        """Raise `IdOutOfRange` for a dense id of `[B, F]` that has no vector."""
        self._bad(_as_int64(ids))

    def read(self, reading: Callable[[Tensor], Tensor]) -> Tensor:
        """What `reading` makes of the pool's weight.

        A pool that something wraps or reparametrizes (FSDP, pruning, weight norm) has its weight
        within its own forward alone, so the reading happens there.
        """
        pool: Any = self._modules["pool"]
        weight = pool._parameters.get("weight")
        if weight is None or pool._forward_pre_hooks:
            found: Tensor = pool(reading)
            return found
        return reading(weight)

    def own_rows(self) -> tuple[int, ...]:
        """The fields where each id has rows that no other id reads."""
        return self.plan.program.own_rows([field.num_embeddings for field in self.plan.fields])

    @torch.no_grad()
    def fill_unseen(self, counts: Mapping[int, Tensor]) -> None:
        """Give the rows of ids that were never met the mean of the field's other rows.

        Each row counts once, however often its id was met: an id that is unseen in training is a
        rare one, and its vector is likest to those of the many rare ids.
        """
        for field, count in counts.items():
            seen = (count > 0).to(self.pool.weight.device)
            if bool(seen.all()) or not bool(seen.any()):
                continue
            for lookup in self.plan.program.fields[field]:
                rows = self.pool.weight[lookup.base : lookup.base + lookup.radix]
                rows[~seen] = rows[seen].mean(0)

    def forward(self, ids: Tensor, padding_idx: int | None = None) -> Tensor:
        """Vectors `[B, F, D]` of int64 ids `[B, F]`; those of `padding_idx` are zero."""
        if ids.dtype is not torch.int64:
            ids = _as_int64(ids)
        # `read`, without a call: past `nn.Module`'s attributes, which cost as much as a lookup
        pool: Any = self._modules["pool"]
        weight = pool._parameters.get("weight")
        if weight is None or pool._forward_pre_hooks:
            return self.read(lambda weight: self._single(weight, ids, padding_idx))
        if padding_idx is None and way_of(weight) == DIRECT:
            return self._by_kernel(DIRECT, weight, ids, None, None, None, None)
        return self._single(weight, ids, padding_idx)

    def _single(self, weight: Tensor, ids: Tensor, padding_idx: int | None) -> Tensor:
        """`forward`, with the pool's weight at hand."""
        way = way_of(weight)
        mode = READ if padding_idx is not None and self.table is not None else None
        if way == DIRECT:  # the kernel holds the ids' shape against the fields
            return self._by_kernel(way, weight, ids, None, None, mode, padding_idx)
        shape = ids.shape
        if len(shape) != 2 or shape[1] != self.num_fields:
            raise BitfoldError(
                "ids of the wrong shape",
                got=list(shape),
                expected=f"[B, {self.num_fields}], a column for each field",
            )
        if way != PLAIN:
            return self._by_kernel(way, weight, ids, None, None, mode, padding_idx)
        bad = self._bad(ids)
        if mode == READ:
            return F.embedding(ids, weight, padding_idx, sparse=self.sparse)
        cells = self._cells(ids, bad)
        if self.address.ragged:
            found = torch.cat(self._ragged(weight, cells), 1)[:, self.address.order]
        else:
            found = self._fused(self.address, self._rows(weight, cells[0]))
        if padding_idx is None:
            return found
        return found.masked_fill((ids == padding_idx).unsqueeze(-1), 0.0)

    def _cells(self, ids: Tensor, bad: Tensor | None) -> list[Tensor]:
        """The cells of ids `[B, F]`, of fields of the same number of terms together.

        Cells of `bad` ids lie outside the pool.
        """
        parts = list(self.address.parts) if self.address.ragged else [self.address]
        columns = [ids if part.columns is None else ids[:, part.columns] for part in parts]
        cells = [part.cells(each) for part, each in zip(parts, columns, strict=True)]
        if bad is None:
            return cells
        outside = self.plan.program.rows
        marks = [bad if part.columns is None else bad[:, part.columns] for part in parts]
        return [
            each.masked_fill(mark[..., None, None], outside)
            for each, mark in zip(cells, marks, strict=True)
        ]

    def _rows(self, weight: Tensor, cells: Tensor) -> Tensor:
        return F.embedding(cells, weight, sparse=self.sparse)

    def _by_kernel(
        self,
        way: int,
        weight: Tensor,
        ids: Tensor,
        offsets: Tensor | None,
        weights: Tensor | None,
        mode: str | None,
        padding_idx: int | None,
    ) -> Tensor:
        learned: Any = self.fuse.importance if self.weighted else None
        pool: Any = self._modules["pool"]
        words: tuple[Any, ...] = self.plainly
        if mode is not None or padding_idx is not None:
            words = (self.packed, self.fusion, POOLINGS[mode], padding_idx, *self.shape)
        try:
            return vectors(
                weight, learned, ids, offsets, weights, words, way, pool.sparse, pool.moved_by
            )
        except IdOutOfRange:
            field = None
            if offsets is not None:
                rows = max((offsets.shape[0] - 1) // self.num_fields, 1)
                field = bags_of(offsets, ids.shape[0]) // rows
            self._bad(ids, field)  # the same complaint, with the field's name
            raise

    def _ragged(self, weight: Tensor, cells: list[Tensor]) -> list[Tensor]:
        """Vectors of the fields, those of the same number of terms together: nothing is padded."""
        parts = list(self.address.parts)
        if not self.sparse:
            return [
                self._fused(part, self._rows(weight, each))
                for part, each in zip(parts, cells, strict=True)
            ]
        # All rows at once: inductor cannot add up the sparse gradients of several lookups.
        counts = [each.shape[1:].numel() for each in cells]
        flat = torch.cat([each.flatten(1) for each in cells], 1)
        rows = torch.split(self._rows(weight, flat), counts, 1)
        return [
            self._fused(part, row.reshape(*cell.shape, row.shape[-1]))
            for part, cell, row in zip(parts, cells, rows, strict=True)
        ]

    def _fused(self, address: Address, pieces: Tensor) -> Tensor:
        """Vectors of fields that all have the same number of terms."""
        fused: Tensor = self.fuse(pieces, None, address.columns)
        return fused.flatten(-2)

    def forward_bags(
        self,
        ids: Tensor,
        offsets: Tensor,
        weights: Tensor | None = None,
        mode: str = "sum",
        padding_idx: int | None = None,
    ) -> Tensor:
        """Vectors `[B, F, D]` of bags; ids equal to `padding_idx` are left out of them."""
        check_pooling(mode, weights)
        bags = offsets.shape[0] - 1 if offsets.dim() == 1 else -1
        if ids.dim() != 1 or bags < 0 or bags % self.num_fields:
            raise BitfoldError(
                "bags of the wrong shape",
                got=f"ids {list(ids.shape)}, offsets {list(offsets.shape)}",
                expected=f"ids [T], offsets [{self.num_fields} * B + 1], field by field",
            )
        if weights is not None and weights.shape != ids.shape:
            raise BitfoldError(
                "per_sample_weights of the wrong shape",
                got=list(weights.shape),
                expected=f"{list(ids.shape)}, as the ids",
            )
        if offsets.dtype not in (torch.int64, torch.int32):
            raise BitfoldError("offsets are integers", got=offsets.dtype, expected="torch.int64")
        offsets = offsets.long()
        ids = _as_int64(ids)
        return self.read(
            lambda weight: self._bags(weight, ids, offsets, weights, mode, padding_idx)
        )

    def _bags(
        self,
        weight: Tensor,
        ids: Tensor,
        offsets: Tensor,
        weights: Tensor | None,
        mode: str,
        padding_idx: int | None,
    ) -> Tensor:
        """`forward_bags`, with the pool's weight at hand."""
        bags = offsets.shape[0] - 1
        way = way_of(weight)
        if way != PLAIN:  # the kernel holds the offsets against the ids
            # Bags of one id each are ids, which take a third of the time.
            single = way == DIRECT and self.num_fields == 1 and weights is None
            if single and bags == ids.shape[0] and _ones(offsets):
                return self._by_kernel(way, weight, ids.unsqueeze(1), None, None, None, padding_idx)
            return self._by_kernel(way, weight, ids, offsets, weights, mode, padding_idx)
        # A recording holds them against the ids when it is run; a compiler's graph asserts.
        if torch.compiler.is_compiling() or not recorded(offsets):
            check_offsets(offsets, ids.shape[0])
        rows = bags // self.num_fields
        bag = bags_of(offsets, ids.shape[0])
        field = bag // max(rows, 1)
        bad = self._bad(ids, field)
        cells = self.address.cells(ids, field)
        if bad is not None:
            cells = cells.masked_fill(bad[:, None, None], self.plan.program.rows)
        pieces = self._rows(weight, cells)
        fused = self.fuse(pieces, self.address.present(field), field).flatten(-2)
        keep = None if padding_idx is None else ids != padding_idx
        pooled = pool(fused, bag, bags, mode, weights=weights, keep=keep)
        by_field = pooled.reshape(self.num_fields, rows, pooled.shape[-1])
        return by_field.transpose(0, 1).contiguous()

    def bytes(self, phase: str = "serving") -> dict[str, int]:
        """Bytes by kind; training adds one gradient for each weight."""
        if phase not in ("serving", "training"):
            raise BitfoldError("unknown phase", got=phase, expected="serving or training")
        kinds = {"weights": self.pool.weight.nbytes}
        learned = sum(weight.nbytes for weight in self.fuse.parameters())
        if learned:
            kinds["fusion"] = learned
        if phase == "training":
            kinds["gradients"] = sum(weight.nbytes for weight in self.parameters())
        if not self.plan.program.plain:
            kinds["fingerprint"] = FINGERPRINT_BYTES
        return kinds

    def serving(self) -> "Corridor":
        """A frozen copy in evaluation mode."""
        return copy.deepcopy(self).eval().requires_grad_(False)

    def _bad(self, ids: Tensor, field: Tensor | None = None) -> Tensor | None:
        """Which dense ids are out of range, where that can only be told when a graph is run.

        Raises:
            IdOutOfRange: for such an id, where it can be told at once.
        """
        if not self.dense or ids.is_meta:
            return None
        limit = self.limits if field is None else self.limits[field]
        bad = (ids < 0) | (ids >= limit)
        if not self.all_dense:
            bad = bad & (limit > 0)
        if torch.compiler.is_compiling():
            torch._assert_async(~bad.any(), "a dense id is outside 0..num_embeddings-1")
        elif recorded(bad):
            return bad
        elif bool(bad.any()):
            self._complain(ids, field, bad)
        return None

    def _complain(self, ids: Tensor, field: Tensor | None, bad: Tensor) -> None:
        where = bad.nonzero()[0]
        place = [int(step) for step in where]
        number = place[-1] if field is None else int(field[place[0]])
        spec = self.plan.fields[number]
        raise IdOutOfRange(
            f"an id of field {spec.name!r} is out of range",
            got=f"{int(ids[tuple(where)])} at {place} ({int(bad.sum())} such ids)",
            expected=f"0 to {(spec.num_embeddings or 0) - 1}",
            fix="check how the ids were made, or use hashed ids (num_embeddings=None)",
        )

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if not self.plan.program.plain:
            destination[f"{prefix}fingerprint"] = self.fingerprint

    def _load_from_state_dict(
        self, state_dict: Any, prefix: str, local: Any, strict: bool, missing: Any, *rest: Any
    ) -> None:
        key = f"{prefix}fingerprint"
        if not self.plan.program.plain:
            state_dict = dict(state_dict)
            mark = state_dict.pop(key, None)
            if mark is not None:
                check_fingerprint(mark, self.plan.program.fingerprint)
            elif strict:
                missing.append(key)
        super()._load_from_state_dict(state_dict, prefix, local, strict, missing, *rest)
        weight = state_dict.get(f"{prefix}pool.weight", self.limits)
        if self.limits.is_meta and not weight.is_meta:
            for part in self.modules():
                if isinstance(part, WithConstants):
                    part.place_constants(weight.device)


def _ones(offsets: Tensor) -> bool:
    """Whether every bag holds one id."""
    return type(offsets) is Tensor and torch.equal(offsets, torch.arange(offsets.shape[0]))


def drawn_seed(generator: torch.Generator | None) -> int:
    """A seed, drawn from a generator, or from torch's own."""
    return int(torch.empty((), dtype=torch.int64, device="cpu").random_(generator=generator))


def _as_int64(ids: Tensor) -> Tensor:
    if ids.dtype == torch.int32:
        return ids.long()
    if ids.dtype != torch.int64:
        raise BitfoldError("ids are integers", got=ids.dtype, expected="torch.int64")
    return ids
