"""Several embedders, each with some of the fields, that write one `[B, F, D]` together."""

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor, nn

from bitfold.address.constants import WithConstants
from bitfold.embedder.contract import Embedder, Progress, Table
from bitfold.embedder.ranges import as_int64
from bitfold.errors import BitfoldError
from bitfold.fuse.bags import check_bags
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

    order: Tensor

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
        placed = torch.tensor([number for group in self.plan.groups for number in group.fields])
        columns = {
            f"columns_{i}": torch.tensor(each.fields) for i, each in enumerate(self.plan.groups)
        }
        return {"order": placed.argsort()} | columns

    def _each(self) -> Iterator[tuple[Embedder, Tensor]]:
        """The parts, with the numbers of their fields."""
        for number, part in enumerate(self.parts):
            yield part, getattr(self, f"columns_{number}")  # type: ignore[misc]

    def forward(self, ids: Tensor, padding_idx: int | None = None) -> Tensor:
        """Vectors `[B, F, D]` of int64 ids `[B, F]`; those of `padding_idx` are zero."""
        ids = as_int64(ids)
        if ids.dim() != 2 or ids.shape[1] != self.num_fields:
            raise BitfoldError(
                "ids of the wrong shape",
                got=list(ids.shape),
                expected=f"[B, {self.num_fields}], a column for each field",
            )
        found = [part(ids[:, columns], padding_idx) for part, columns in self._each()]
        return torch.cat(found, 1)[:, self.order]

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
        rows, found = (offsets.shape[0] - 1) // self.num_fields, []
        for part, columns in self._each():
            starts, ends = zip(
                *((offsets[f * rows], offsets[(f + 1) * rows]) for f in columns.tolist()),
                strict=True,
            )
            lengths = [
                offsets[f * rows + 1 : (f + 1) * rows + 1] - offsets[f * rows : (f + 1) * rows]
                for f in columns.tolist()
            ]
            own = torch.cat([offsets.new_zeros(1), torch.cat(lengths).cumsum(0)])
            spans = [slice(int(a), int(b)) for a, b in zip(starts, ends, strict=True)]
            taken = torch.cat([ids[span] for span in spans])
            counted = None if weights is None else torch.cat([weights[span] for span in spans])
            found.append(part.forward_bags(taken, own, counted, mode, padding_idx))
        return torch.cat(found, 1)[:, self.order]

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
        return Grouped(self.plan, parts, self.order.device)

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
