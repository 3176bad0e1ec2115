"""Rows in chunks that come and go: pointers of virtual rows to the chunks of one dense pool.

Source: Luo et al., "Fine-Grained Embedding Dimension Optimization During Training for Recommender
Systems" (FIITED), arXiv 2401.04408: tables are hashed virtually and indexed physically.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from bitfold.address import Mixed, Stored
from bitfold.address.mixing import derive_salt
from bitfold.address.stored import pack_bits, unpack_bits
from bitfold.embedder.contract import Progress
from bitfold.embedder.corridor import Corridor
from bitfold.embedder.utilities import Utilities, trade
from bitfold.kernels.packing import runs
from bitfold.planning.plan import Plan
from bitfold.pool.moved import RowMove

TRUST = 1e-20
"""The utility of a held chunk of which nothing is known: more than nothing."""


class Virtual(NamedTuple):
    """A field's virtual rows.

    Args:
        field: its number.
        sources: the pointers of each chunk.
        first: the number of its first virtual row among those of all fields.
        bases: of each chunk, the first of the rows that those share who hold nothing.
        rests: how many they share.
    """

    field: int
    sources: tuple[Stored, ...]
    first: int
    bases: tuple[int, ...]
    rests: int

    @property
    def length(self) -> int:
        """How many virtual rows there are."""
        return self.sources[0].length

    def rows(self, ids: Tensor, tables: dict[str, Tensor]) -> Tensor:
        """The virtual rows of ids, from 0 on."""
        of = self.sources[0].of
        if isinstance(of, Mixed):
            return of.scaled_torch(ids, self.length)
        return of.code_torch(ids, tables).clamp(0, self.length - 1)

    def rest(self, chunk: int, rows: Tensor) -> Tensor:
        """What a chunk of virtual rows reads while it holds nothing."""
        salt = Mixed(derive_salt(self.field, chunk))
        return self.bases[chunk] + salt.scaled_torch(rows, self.rests)


def virtual_rows(plan: Plan, rests: Sequence[int]) -> tuple[Virtual, ...]:
    """The fields of a plan that have pointers.

    Args:
        plan: one group.
        rests: of each of those, how many rows each of its chunks shares; none: all read row 0.
    """
    found: list[Virtual] = []
    first = base = 0
    for number, lookups in enumerate(plan.program.fields):
        sources = tuple(each.source for each in lookups if isinstance(each.source, Stored))
        if not sources:
            continue
        shared = rests[len(found)] if rests else 1
        bases = tuple(base + c * shared * bool(rests) for c in range(len(sources)))
        found.append(Virtual(number, sources, first, bases, shared))
        first += sources[0].length
        base += len(sources) * shared * bool(rests)
    return tuple(found)


class Chunks(Corridor):
    """A corridor whose ids are virtual rows of `C` pointers, each to a chunk of one pool.

    The pool begins with `S` rows that chunks read which hold nothing; then come the slots, and the
    rows of fields without pointers. The free list is what no pointer names. Every so often chunks
    of the lowest utilities lose their slots to those of the highest. A newcomer begins with the
    numbers that it has read so far, and nothing is left of whoever had the slot before.

    Args:
        plan: one group, of such a program.
        rests: of each field with pointers, how many rows each of its chunks shares.
        period: after how many steps slots change their owners.
        warmup: for how many steps no chunk loses its slot that is worth something.
        decay: what a step leaves of a utility.
        product: whether a step's gain is its accesses times the length of their summed gradient,
            as in the paper, or the sum of the lengths.
        how: as for every corridor.
    """

    observes = True
    every = 1
    utilities: Utilities | None

    def __init__(
        self,
        plan: Plan,
        *,
        rests: Sequence[int],
        period: int,
        warmup: int,
        decay: float,
        product: bool,
        **how: Any,
    ) -> None:
        self.period, self.warmup, self.decay, self.product = period, warmup, decay, product
        self.virtual = virtual_rows(plan, rests)
        last = self.virtual[-1]
        self.shared = last.bases[-1] + last.rests
        pointed = plan.program.fields[last.field][0]
        self.slots = pointed.radix - self.shared
        super().__init__(plan, **how)
        self._start(how.get("device"))

    @torch.no_grad()
    def observe(self, ids: Tensor, field: Tensor, grad: Tensor) -> None:
        """Add what a step's gradients say to the utilities of the chunks that it has read."""
        if self.utilities is None:
            return
        tables, rows = self.stored.named(), torch.full_like(ids, -1)
        for each in self.virtual:
            here = field == each.field
            rows[here] = each.first + each.rows(ids[here], tables)
        known = rows >= 0
        distinct, places, counts = torch.unique(
            rows[known], return_inverse=True, return_counts=True
        )
        chunks = self.program.chunks
        pieces = grad[known].float().reshape(len(places), chunks, grad.shape[1] // chunks)
        if self.product:
            sums = pieces.new_zeros(len(distinct), *pieces.shape[1:])
            gains = counts.unsqueeze(1) * sums.index_add_(0, places, pieces).norm(dim=2)
        else:
            gains = pieces.new_zeros(len(distinct), chunks)
            gains.index_add_(0, places, pieces.norm(dim=2))
        self.utilities.add(distinct, gains)

    @torch.no_grad()
    def maintain(self, at: Progress) -> Sequence[RowMove]:
        """Count a step, and give slots to the chunks of the highest utilities when it is time."""
        if self.utilities is None or at.step == int(self.utilities.steps):
            return super().maintain(at)  # an epoch's end, which is no step
        if not self.utilities.step():
            return ()
        steps = int(self.utilities.steps)
        worth = self.utilities.worth.cpu().numpy().reshape(-1)
        pointers = self.pointers()
        held = pointers.numpy().reshape(-1) - self.shared
        found = trade(worth, np.maximum(held, -1), self.slots, evict=steps > self.warmup)
        if not len(found.newcomers):
            return ()
        losers, newcomers = torch.from_numpy(found.losers), torch.from_numpy(found.newcomers)
        slots, before = torch.from_numpy(self.shared + found.slots), pointers.clone()
        pointers.view(-1)[losers] = self.rests(losers)
        pointers.view(-1)[newcomers] = slots
        self.put_pointers(pointers, before)
        target = slots.to(self.pool.weight.device)
        self._begin(target, self.rests(newcomers), steps)
        return [RowMove(self.pool.weight, torch.full_like(target, -1), target)]

    def pointers(self) -> Tensor:
        """The row of the pool that each chunk of each virtual row reads, int64 `[N, C]`."""
        tables = self.stored.named()
        found = []
        for each in self.virtual:
            radix = self.program.fields[each.field][0].radix
            columns = [unpack_bits(tables[s.table].cpu(), s.bits, s.length) for s in each.sources]
            found.append(torch.stack(columns, 1) % radix)
        return torch.cat(found)

    def hold(self, worth: Tensor) -> None:
        """Have the chunks that are worth most hold the slots: `[N, C]`, 0 for those that do not."""
        pointers = self.rests(torch.arange(worth.numel()))
        nobody = np.full(worth.numel(), -1, np.int64)
        found = trade(worth.float().cpu().numpy().reshape(-1), nobody, self.slots)
        pointers[torch.from_numpy(found.newcomers)] = torch.from_numpy(self.shared + found.slots)
        self.put_pointers(pointers.view(-1, self.program.chunks))

    def put_pointers(self, pointers: Tensor, before: Tensor | None = None) -> None:
        """Write all pointers `[N, C]`; only the tables that differ from those of before."""
        for each in self.virtual:
            part = slice(each.first, each.first + each.length)
            for c, source in enumerate(each.sources):
                column = pointers[part, c]
                if before is None or not torch.equal(column, before[part, c]):
                    self.stored.put(source.table, pack_bits(column, source.bits))

    def rests(self, chunks: Tensor) -> Tensor:
        """What chunks read while they hold nothing; chunk `c` of row `r` is `r * C + c`."""
        count, found = self.program.chunks, torch.empty_like(chunks)
        rows, pieces = chunks // count, chunks % count
        for each in self.virtual:
            here = (rows >= each.first) & (rows < each.first + each.length)
            for chunk in range(count):
                mine = here & (pieces == chunk)
                found[mine] = each.rest(chunk, rows[mine] - each.first)
        return found

    def bytes(self, phase: str = "serving") -> dict[str, int]:
        """Bytes by kind; training adds the utilities."""
        kinds = super().bytes(phase)
        if phase == "training" and self.utilities is not None:
            kinds["utilities"] = self.utilities.worth.nbytes
        return kinds

    def serving(self) -> Any:
        """A frozen copy without utilities."""
        made = super().serving()
        made.utilities = None
        return made

    def resume(self) -> Any:
        """A copy that can be trained on: what chunks hold counts for more than nothing."""
        made = super().resume()
        made._start(made.pool.weight.device)
        made.trust()
        return made

    def _begin(self, slots: Tensor, rests: Tensor, steps: int) -> None:
        """Give rows of the pool the numbers that newcomers have read so far."""
        self.pool.put(slots, self.pool.numbers(rests.to(slots.device)))

    def _start(self, device: torch.device | str | None) -> None:
        """Utilities of nothing."""
        rows = self.virtual[-1].first + self.virtual[-1].length
        made = Utilities(
            rows, self.program.chunks, decay=self.decay, every=self.period, device=device
        )
        self.register_module("utilities", made)

    def trust(self) -> None:
        """Have whoever holds a slot be worth more than nothing."""
        if self.utilities is not None and not self.utilities.worth.is_meta:
            worth = self.utilities.worth
            worth[(self.pointers() >= self.shared).to(worth.device)] = TRUST

    @torch.no_grad()
    def _draw(self, std: float, generator: torch.Generator) -> None:
        """Fresh rows, which the first ids of each field hold, and utilities of nothing."""
        super()._draw(std, generator)
        ranks = [torch.arange(each.length) for each in self.virtual]
        self.hold((1 / (1 + torch.cat(ranks))).unsqueeze(1).expand(-1, self.program.chunks))
        made = self._modules.get("utilities")
        if isinstance(made, Utilities):
            made.start()


class BareChunks(Chunks):
    """Chunks that hold nothing are zeros, and a newcomer begins with fresh numbers.

    All of them read row 0 of the pool, which is zeros and counts 0 times, so that no gradient comes
    to it. Kernels know no such factors: they read what is served.
    """

    zeros = True

    def __init__(self, plan: Plan, **how: Any) -> None:
        self.deviation = 0.0
        super().__init__(plan, rests=(), **how)

    @torch.no_grad()
    def serving(self) -> Any:
        """A frozen copy, which kernels read if they can: of few bits, no level need be zero."""
        made = super().serving()
        made.by_kernels = runs(self.program) and not self.rounds
        if made.by_kernels and not made.pool.weight.is_meta:
            made.pool.weight[0] = 0
        return made

    def resume(self) -> Any:
        """A copy that can be trained on, in plain torch."""
        made = super().resume()
        made.by_kernels = False
        return made

    def factors(self, ids: Tensor, field: Tensor | None = None) -> Tensor:
        """0 for a chunk that holds nothing, 1 for the others."""
        cells = self.address.cells(ids, field, self.stored.named())
        return (cells != 0).to(self.pool.dtype)

    def _begin(self, slots: Tensor, rests: Tensor, steps: int) -> None:
        """Fresh numbers, from the seed and the step."""
        generator = torch.Generator().manual_seed(derive_salt(self.seed or 0, steps) >> 1)
        drawn = torch.randn(len(slots), self.pool.weight.shape[1], generator=generator)
        self.pool.put(slots, drawn.to(slots.device) * self.deviation)

    @torch.no_grad()
    def _draw(self, std: float, generator: torch.Generator) -> None:
        """Fresh rows but the first, which is zeros."""
        self.deviation = std
        super()._draw(std, generator)
        self.pool.weight[0] = 0
        self.pool.refresh()
