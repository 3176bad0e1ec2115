"""Several embedders, each with some of the fields, that write one `[B, F, D]` together."""

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor, nn

from bitfold.address.constants import WithConstants
from bitfold.embedder.contract import Embedder, Progress, Table
from bitfold.embedder.ranges import as_int64, guarded, limits_of, out_of_range, spoiled
from bitfold.fuse.bags import by_field, check_bags, check_offsets, placed, pool
from bitfold.kernels.choice import recorded
from bitfold.planning.field import check_columns
from bitfold.planning.plan import Plan
from bitfold.planning.statistics import Statistics
from bitfold.pool.moved import RowMove


class Grouped(WithConstants, Embedder):
    """The embedder of a plan of several groups.

    Args:
        plan: the groups.
        parts: an embedder for each, in their order.
        device: where the constants live; with the parts' weights.
    """

    whose: Tensor  # the part of each field
    place: Tensor  # its number there
    limits: Tensor

    def __init__(
        self,
        plan: Plan,
        parts: Sequence[Embedder],
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        self.plan, self.num_fields = plan, len(plan.fields)
        self.parts = nn.ModuleList(parts)
        self.observes = any(part.observes for part in parts)
        self.multiplies = any(part.multiplies for part in parts)
        self.place_constants(device)

    def _constants(self) -> dict[str, Tensor]:
        groups = self.plan.groups
        placed = [
            (number, place)
            for number, each in enumerate(groups)
            for place in range(len(each.fields))
        ]
        order = torch.tensor([number for each in groups for number in each.fields]).argsort()
        whose, place = torch.tensor(placed)[order].unbind(1)
        columns = {f"columns_{i}": torch.tensor(each.fields) for i, each in enumerate(groups)}
        limits = torch.tensor(limits_of(self.plan.fields))
        return {"whose": whose, "place": place, "limits": limits} | columns

    def _each(self) -> Iterator[tuple[Embedder, Tensor]]:
        """The parts, with the numbers of their fields."""
        for number, part in enumerate(self.parts):
            yield part, getattr(self, f"columns_{number}")  # type: ignore[misc]

    def forward(self, ids: Tensor, padding_idx: int | None = None) -> Tensor:
        """Vectors `[B, F, D]` of int64 ids `[B, F]`; those of `padding_idx` are zero."""
        ids = self._taken(ids)
        check_columns(ids.shape, self.num_fields)
        return self._ordered([part(ids[:, columns], padding_idx) for part, columns in self._each()])

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
        ids, offsets = self._taken(ids), offsets.long()
        if torch.compiler.is_compiling() or recorded(offsets):
            return self._recorded_bags(ids, offsets, weights, mode, padding_idx)
        check_offsets(offsets, ids.shape[0])
        rows, found = (offsets.shape[0] - 1) // self.num_fields, []
        starts = offsets[::rows].tolist() if rows else [0] * (self.num_fields + 1)
        for number, (part, _) in enumerate(self._each()):
            group = self.plan.groups[number]
            spans = [slice(starts[f], starts[f + 1]) for f in group.fields]
            lengths = [offsets[f * rows : (f + 1) * rows + 1].diff() for f in group.fields]
            own = torch.cat([offsets.new_zeros(1), torch.cat(lengths).cumsum(0)])
            taken = torch.cat([ids[span] for span in spans])
            counted = None if weights is None else torch.cat([weights[span] for span in spans])
            found.append(part.forward_bags(taken, own, counted, mode, padding_idx))
        return self._ordered(found)

    def _ordered(self, found: Sequence[Tensor]) -> Tensor:
        """The parts' vectors `[B, f, D]` in the fields' order; no index, whose gradient is slow."""
        every = {
            number: vectors
            for group, part in zip(self.plan.groups, found, strict=True)
            for number, vectors in zip(group.fields, part.unbind(1), strict=True)
        }
        return torch.stack([every[number] for number in range(self.num_fields)], 1)

    def _taken(self, ids: Tensor) -> Tensor:
        if self.whose.device != ids.device:  # weights that went there past `Module.to`
            self.place_constants(ids.device)
        return as_int64(ids)

    def _recorded_bags(
        self,
        ids: Tensor,
        offsets: Tensor,
        weights: Tensor | None,
        mode: str,
        padding_idx: int | None,
    ) -> Tensor:
        """The same where no shape may follow from the offsets: every part reads all ids.

        Those of other parts' fields read id 0 there, and are left out.
        """
        if torch.compiler.is_compiling():
            check_offsets(offsets, ids.shape[0])
        bags = offsets.shape[0] - 1
        bag, field = placed(offsets, ids.shape[0], self.num_fields)
        bad = out_of_range(self.plan.fields, self.limits, ids, field)
        inside = guarded(ids, bad)
        whose, place = self.whose[field], self.place[field]
        none, found = ids.new_zeros(()), None
        for number, (part, _) in enumerate(self._each()):
            here = whose == number
            vectors = part.vectors(inside.where(here, none), place.where(here, none))
            found = vectors if found is None else torch.where(here.unsqueeze(-1), vectors, found)
        assert found is not None, "a plan has groups"
        keep = None if padding_idx is None else ids != padding_idx
        found = spoiled(found, bad)
        pooled = pool(found, bag, bags, mode, weights=weights, keep=keep)
        return by_field(pooled, self.num_fields)

    def bytes(self, phase: str = "serving") -> dict[str, int]:
        """Bytes by kind, of all parts together."""
        kinds: dict[str, int] = {}
        for part, _ in self._each():
            for kind, size in part.bytes(phase).items():
                kinds[kind] = kinds.get(kind, 0) + size
        return kinds

    def serving(self) -> "Grouped":
        """A packed and frozen copy."""
        return self._again([part.serving() for part, _ in self._each()]).eval()

    def resume(self) -> "Grouped":
        """A copy that can be trained on."""
        return self._again([part.resume() for part, _ in self._each()])

    def _again(self, parts: Sequence[Embedder]) -> "Grouped":
        return Grouped(self.plan, parts, self.whose.device)

    def reset_parameters(self) -> None:
        """Draw fresh weights."""
        for part, _ in self._each():
            part.reset_parameters()

    def redraw(self, std: float, generator: torch.Generator | None = None) -> bool:
        """Draw fresh weights, for vectors of deviation `std`; False if a part cannot."""
        done = [part.redraw(std, generator) for part, _ in self._each()]
        return all(done)

    @property
    def sparse(self) -> bool:
        """Whether gradients are sparse tensors."""
        return any(part.sparse for part, _ in self._each())

    @sparse.setter
    def sparse(self, flag: bool) -> None:
        for part, _ in self._each():
            part.sparse = flag

    @property
    def exact(self) -> bool:  # type: ignore[override]
        """Whether every part serves the very vectors that it trains."""
        return all(part.exact for part, _ in self._each())

    def check(self, ids: Tensor) -> None:
        """Raise `IdOutOfRange` for a dense id of `[B, F]` that has no vector."""
        for part, columns in self._each():
            part.check(ids[:, columns])

    def members(self) -> Iterable[tuple[Embedder, Sequence[int]]]:
        """The parts, each with its fields."""
        for group, (part, _) in zip(self.plan.groups, self._each(), strict=True):
            yield part, group.fields

    def tables(self) -> Iterable[Table]:
        """The tables of all parts."""
        for part, _ in self._each():
            yield from part.tables()

    def prepare(self, stats: Statistics) -> None:
        """Take what the training part is like."""
        for part, _ in self._each():
            part.prepare(stats)

    def observe(self, ids: Tensor, field: Tensor, grad: Tensor) -> None:
        """See a step."""
        for part, columns in self._each():
            if part.observes:
                here = torch.isin(field, columns)
                part.observe(ids[here], torch.searchsorted(columns, field[here]), grad[here])

    def maintain(self, at: Progress) -> Sequence[RowMove]:
        """Put the tables in order between two steps."""
        return [move for part, _ in self._each() for move in part.maintain(at)]
