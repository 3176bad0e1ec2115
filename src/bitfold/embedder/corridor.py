"""The corridor: the embedder of every method that is an address, a pool and a fusion."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bitfold import forks as forks  # a child of a process with lookups runs on one thread
from bitfold.address import Address
from bitfold.address.fingerprint import fingerprint_of
from bitfold.embedder import plain
from bitfold.embedder.contract import Embedder, Progress
from bitfold.embedder.group import GroupEmbedder
from bitfold.embedder.head import Head
from bitfold.embedder.preparing import unseen_places
from bitfold.embedder.ranges import as_int64, limits_of
from bitfold.errors import IdOutOfRange
from bitfold.fuse import fusion_named
from bitfold.fuse.bags import check_bags, placed
from bitfold.kernels.choice import DIRECT, PLAIN, way_of
from bitfold.kernels.ops import FUSIONS, POOLINGS, READ, vectors
from bitfold.kernels.packing import in_one_slice, pack, runs, scratch_words
from bitfold.kernels.part import Part
from bitfold.kernels.reading import NO_ROUNDING
from bitfold.planning.field import check_columns
from bitfold.planning.plan import Plan
from bitfold.planning.spec import PoolSpec
from bitfold.planning.statistics import Statistics
from bitfold.pool import pool_of
from bitfold.pool.coded import trained_bytes
from bitfold.pool.dtypes import DTYPES
from bitfold.pool.moved import RowMove


class Corridor(GroupEmbedder):
    """An address, pools and a fusion; a head where vectors are narrower than the model wants them.

    Kernels run programs of one pool of rows; the others, and those whose terms have `factors`,
    are run by plain torch.

    Args:
        plan: where every number lies; one group.
        std: the deviation of a fresh vector's components.
        seed: what fresh weights are drawn from; None: torch's generator, at each drawing.
        device: where they live; on `"meta"` nothing is drawn.
        sparse: whether the pools' gradients are sparse.
        low_precision: whether pools of few bits are codes while they are trained, too.
    """

    head: Head | None

    def __init__(
        self,
        plan: Plan,
        *,
        std: float,
        seed: int | None = None,
        device: torch.device | str | None = None,
        sparse: bool = False,
        low_precision: bool = False,
    ) -> None:
        super().__init__(plan, std=std, seed=seed, device=device)
        self.low_precision = low_precision
        group, program, dtype = plan.group, plan.program, DTYPES[plan.dtype]
        self.program = program
        self.unseen: dict[int, Tensor] = {}
        self.address = Address(program, device)
        how: dict[str, Any] = {"device": device, "dtype": dtype, "sparse": sparse}
        if low_precision:
            how["low_precision"] = True
        self.pool = self.new_pool(group.pools[0], **how)
        self.more = tuple(spec.name for spec in group.pools[1:])
        for spec in group.pools[1:]:
            self.add_module(spec.name, self.new_pool(spec, **how))
        self.fuse = fusion_named(group.fusion, program, device=device, dtype=dtype)
        self.width = group.width
        head = None
        self.multiplies = group.width != plan.embedding_dim
        if self.multiplies:
            head = Head(self.num_fields, group.width, plan.embedding_dim, device, dtype)
        self.register_module("head", head)
        self.place_constants(device)
        # What the kernels are told, beside the program itself.
        learned = type(self).factors is not Embedder.factors
        slices = group.pools[0].slices or (0,)
        one = runs(program) and not learned and in_one_slice(program, slices)
        self.by_kernels = one and self.pool.read_by_kernels(self.pool.weight)
        self.rounds = any(spec.packed for spec in group.pools)
        room = scratch_words(program, group.width)
        self.fusion = FUSIONS[group.fusion]
        self.shape = self.num_fields, group.width, room, program.raw
        self.weighted = group.fusion == "weighted"
        self.reads = tuple(program.tables)
        with torch.inference_mode(False):  # the kernels' alone, so it stays on the CPU
            words = np.empty(0, np.int64)
            if runs(program):
                words = pack(program, limits_of(plan.fields), slices if one else (0,))
            self.packed = torch.from_numpy(words)
        # What a lookup without padding and bags is told, made once: it costs a tenth of it.
        self.plainly = (self.packed, self.fusion, POOLINGS[None], None, *self.shape, *NO_ROUNDING)
        self.reset_parameters()

    def new_pool(self, spec: PoolSpec, **how: Any) -> Any:
        """The pool of a spec, for `pool_of`'s device, dtype and sparse gradients."""
        return pool_of(spec, **how)

    @property
    def pool_names(self) -> tuple[str, ...]:
        """The modules that are pools, as lookups number them."""
        return ("pool", *self.more)

    @torch.no_grad()
    def _draw(self, std: float, generator: torch.Generator) -> None:
        """Fill pools and head, for vectors of deviation `std`."""
        if self.head is not None:
            std = self.head.deviation(std)
        for number, pool in enumerate(self.pools()):
            rows = pool.weight.shape[0]
            pool.draw(*self.fuse.starts(rows, self.program, std, number), generator)
        self.fuse.reset_parameters()
        if self.head is not None:
            self.head.draw(generator)

    def marks(self) -> tuple[int, ...]:
        """A digest of the address and its fields; before fields had names in it, of it alone."""
        names = [field.name for field in self.plan.fields]
        return fingerprint_of(self.program, names), self.program.fingerprint

    @property
    def table(self) -> str | None:
        """The pool's weight, where the only field's ids are its rows as they stand."""
        program, fields, spec = self.program, self.plan.fields, self.plan.group.pools[0]
        whole = program.plain and not self.weighted and len(fields) == 1 and self.head is None
        whole = whole and not spec.packed and not self.more and self.by_kernels
        return "pool.weight" if whole and program.rows == fields[0].num_embeddings else None

    @property
    def marked(self) -> bool:
        """Whether there is an address to mistake; of ids that are rows, shapes say all."""
        return not self.program.plain or bool(self.plan.group.stored)

    def read(self, reading: Callable[[Tensor], Tensor]) -> Tensor:
        """What `reading` makes of the pool's weight.

        A pool that something wraps or reparametrizes (FSDP, pruning, weight norm) has its weight
        within its own forward alone, so the reading happens there.
        """
        pool: Any = self._modules["pool"]
        weight = pool._parameters.get("weight", pool._buffers.get("weight"))
        if weight is None or pool._forward_pre_hooks:
            found: Tensor = pool(reading)
            return found
        return reading(weight)

    def own_rows(self) -> tuple[int, ...]:
        """The fields where each id has rows that no other id reads."""
        return self.program.own_rows([field.num_embeddings for field in self.plan.fields])

    @property
    def prepares(self) -> bool:  # type: ignore[override]
        """Whether there are maps to build, or rows that an unseen id would read untrained."""
        return super().prepares or bool(self.own_rows())

    def prepare(self, stats: Statistics) -> None:
        """Build the maps, and take which rows no training id reads."""
        super().prepare(stats)
        self.unseen = unseen_places(self.program, self.plan.fields, self.stored, stats)

    @torch.no_grad()
    def maintain(self, at: Progress) -> Sequence[RowMove]:
        """Give the rows of ids that were never met the mean of the field's other rows.

        Each row counts once, however often its id was met: an id that is unseen in training is a
        rare one, and its vector is likest to those of the many rare ids.
        """
        for field, unseen in self.unseen.items() if self.fills_unseen else ():
            unseen = unseen.to(self.pool.weight.device)
            for lookup in self.program.fields[field]:
                rows = lookup.base + torch.arange(lookup.radix, device=unseen.device)
                mean = self.pool.numbers(rows[~unseen]).mean(0)
                self.pool.put(rows[unseen], mean.expand(int(unseen.sum()), -1))
        return ()

    def exact_in_plain(self, mode: str | None) -> bool:
        """Two terms have one sum; of more, and of the mean of a bag, the order of steps counts."""
        if not self.by_kernels or not self.pool.read_by_kernels(self.pool.weight):
            return True
        most = max(self.program.terms, default=1)
        exact = self.pool.weight.dtype in (torch.float32, torch.uint8)
        return exact and most <= 2 and mode != "mean"

    def forward(self, ids: Tensor, padding_idx: int | None = None) -> Tensor:
        """Vectors `[B, F, D]` of int64 ids `[B, F]`; those of `padding_idx` are zero."""
        if ids.dtype is not torch.int64:
            ids = as_int64(ids)
        # `read`, without a call: past `nn.Module`'s attributes, which cost as much as a lookup
        pool: Any = self._modules["pool"]
        weight = pool._parameters.get("weight")
        if weight is None:  # of codes
            weight = pool._buffers.get("weight")
        if weight is None or pool._forward_pre_hooks:
            found: Tensor = self.read(lambda weight: self._single(weight, ids, padding_idx))
        elif (
            padding_idx is None
            and self.by_kernels
            and not self.waits
            and (not self.rounds or (weight.dtype is torch.uint8 and pool.in_pieces))
            and way_of(weight) == DIRECT
        ):
            found = self._by_kernel(DIRECT, weight, ids, None, None, None, None)
        else:
            found = self._single(weight, ids, padding_idx)
        head: Any = self._modules["head"]
        if head is None:
            return found
        lifted: Tensor = head(found)
        if padding_idx is None:
            return lifted
        return lifted.masked_fill((ids == padding_idx).unsqueeze(-1), 0.0)

    def as_part(self) -> Part | None:
        """What reads this together with other parts of a batch.

        Returns:
            None where a lookup needs more than the kernels, one pool and a head.
        """
        pool: Any = self._modules["pool"]
        weight = pool._parameters.get("weight")
        if weight is None:
            weight = pool._buffers.get("weight")
        if (
            weight is None
            or pool._forward_pre_hooks
            or pool.moved_by is not None
            or "codes" in pool._buffers
            or self.weighted
            or self.waits
            or not self.by_kernels
            or not pool.read_by_kernels(weight)
            or way_of(weight) != DIRECT
        ):
            return None
        words: tuple[Any, ...] = self.plainly
        head: Any = self._modules["head"]
        if self.rounds:
            words = words[: -len(NO_ROUNDING)] + pool.told()
        tables = tuple(self.stored.listed(self.reads)) if self.reads else ()
        return Part(weight, words, None if head is None else head.weight, pool.sparse, tables)

    def count_forward(self) -> None:
        """A forward of training begins, of a part that is read together with others."""
        if self.rounds and self.training:
            for name in self.pool_names:
                pool: Any = self._modules[name]
                pool.count_forward(pool._parameters["weight"])

    def _way(self, weight: Tensor) -> int:
        """How lookups are made, before the first one of a forward."""
        self.check_maps()
        if self.rounds and self.training:
            for pool in self.pools():
                pool.count_forward(weight if pool is self.pool else pool.weight)
        if not self.by_kernels or not self.pool.read_by_kernels(weight):
            return PLAIN
        codes = self.pool._buffers.get("codes") if self.rounds else None
        if codes is None:
            return way_of(weight)
        way = way_of(codes)  # no operator has a gradient of codes
        return way if way == DIRECT or not weight.requires_grad else PLAIN

    def _single(self, weight: Tensor, ids: Tensor, padding_idx: int | None) -> Tensor:
        """`forward` before the head, with the pool's weight at hand."""
        way = self._way(weight)
        mode = READ if padding_idx is not None and self.table is not None else None
        if way == DIRECT:  # the kernel holds the ids' shape against the fields
            return self._by_kernel(way, weight, ids, None, None, mode, padding_idx)
        check_columns(ids.shape, self.num_fields)
        if way != PLAIN:
            return self._by_kernel(way, weight, ids, None, None, mode, padding_idx)
        return plain.single(self, weight, ids, padding_idx, mode == READ)

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
            before = (self.packed, self.fusion, POOLINGS[mode], padding_idx, *self.shape)
            words = before + NO_ROUNDING
        trained = None
        if self.rounds:
            codes = pool._buffers.get("codes")  # that are trained
            if codes is not None:
                weight, trained = codes, weight
            words = words[: -len(NO_ROUNDING)] + pool.told()
        try:
            return vectors(
                weight, learned, ids, offsets, weights, words, way, pool.sparse, pool.moved_by,
                self.stored.listed(self.reads) if self.reads else (), trained,
            )  # fmt: skip
        except IdOutOfRange:
            field = None
            if offsets is not None:
                _, field = placed(offsets, ids.shape[0], self.num_fields)
            self.bad(ids, field)  # the same complaint, with the field's name
            raise

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
        offsets = offsets.long()
        ids = as_int64(ids)
        head: Any = self._modules["head"]
        found = self.read(
            lambda weight: self._bags(weight, ids, offsets, weights, mode, padding_idx)
        )
        # Sums and means of lifted vectors are lifted sums and means; a maximum is lifted before.
        return found if head is None or mode == "max" else head(found)

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
        way = self._way(weight)
        if mode == "max" and self.head is not None:
            way = PLAIN
        if way != PLAIN:  # the kernel holds the offsets against the ids
            # Bags of one id each are ids, which take a third of the time.
            single = way == DIRECT and self.num_fields == 1 and weights is None
            if single and bags == ids.shape[0] and _ones(offsets):
                return self._by_kernel(way, weight, ids.unsqueeze(1), None, None, None, padding_idx)
            return self._by_kernel(way, weight, ids, offsets, weights, mode, padding_idx)
        return plain.bags(self, weight, ids, offsets, weights, mode, padding_idx)

    def vectors(self, ids: Tensor, field: Tensor) -> Tensor:
        """Vectors `[T, D]` of ids `[T]` that are in range, with the field of each."""
        found = self.read(lambda weight: plain.each(self, weight, ids, field))
        return found if self.head is None else self.head(found, field)

    def bytes(self, phase: str = "serving") -> dict[str, int]:
        """Bytes by kind; training adds one gradient for each weight."""
        kinds = super().bytes(phase)
        if phase == "training":
            kinds["weights"] = sum(trained_bytes(table.weight) for table in self.tables())
            if self.low_precision:  # with sparse gradients, or moves in place of them, no table
                dense = not self.pool.sparse and self.pool.moved_by is None
                kinds["gradients"] = dense * sum(table.weight.nbytes for table in self.tables())
        elif (
            not self.plan.group.pools[0].packed
            and self.pool.weight.dtype != DTYPES[self.plan.dtype]
        ):
            now = str(self.pool.weight.dtype).removeprefix("torch.")  # cast since it was planned
            pools = tuple(replace(each, numbers=now) for each in self.plan.group.pools)
            cast = replace(self.plan.group, dtype=now, pools=pools)
            return cast.by_kind(self.plan.embedding_dim)
        return kinds


def _ones(offsets: Tensor) -> bool:
    """Whether every bag holds one id."""
    return type(offsets) is Tensor and torch.equal(offsets, torch.arange(offsets.shape[0]))
