"""A click model as a function: ids and numbers in, probabilities out.

Shapes: `B` rows, `F` fields, `N` numbers, `T` ids in bags.
"""

from typing import Any

import torch
from torch import Tensor, nn

from bitfold.embedder.ranges import limits_of
from bitfold.exporting.graphs import Graph, Inputs
from bitfold.folded import serving
from bitfold.fuse.bags import placed
from bitfold.nets.model import ClickModel
from bitfold.planning.field import Field

ROWS = 4  # of the examples
# What every bit and border of an id is in.
EDGES = (0, 1, -1, 2, -2, 2**63 - 1, -(2**63), 2**31 - 1, -(2**31), 2**32, 2**24 + 1, 2**53 + 1)


class ClickScores(nn.Module):
    """Probabilities `[B]` of ids `[B, F]` and numbers `[B, N]`, or of bags.

    A row with a dense id out of range is NaN: it has no score, and its neighbours keep theirs.

    Args:
        model: in its serving form.
        fields: `F` of them.
        numbers: `N`; 0 leaves them out of the inputs.
        bags: whether ids come as bags, with offsets.
        negative_rate: the share of negatives that the training log kept.
    """

    def __init__(
        self,
        model: ClickModel,
        fields: tuple[Field, ...],
        numbers: int,
        bags: bool,
        negative_rate: float | None,
    ) -> None:
        super().__init__()
        self.model, self.num_fields, self.numbers, self.bags = model, len(fields), numbers, bags
        self.rate = 1.0 if negative_rate is None else negative_rate
        self.limits = torch.tensor(limits_of(fields))
        self.dense = bool((self.limits > 0).any())

    def forward(self, ids: Tensor, *more: Tensor) -> Tensor:
        """Scores, float32."""
        offsets = more[0] if self.bags else None
        if self.numbers:
            numeric = more[-1]
        elif offsets is None:
            numeric = torch.zeros((ids.shape[0], 0))
        else:
            numeric = torch.zeros(((offsets.shape[0] - 1) // self.num_fields, 0))
        chance = torch.sigmoid(self.model.logits(ids, offsets, numeric).double())
        if self.rate != 1:
            chance = chance / (chance + (1 - chance) / self.rate)
        if self.dense:
            chance = chance.masked_fill(self.outside(ids, offsets), torch.nan)
        return chance.float()

    def outside(self, ids: Tensor, offsets: Tensor | None) -> Tensor:
        """Which rows have an id out of range, bool `[B]`."""
        if offsets is None:
            bad = (ids < 0) | (ids >= self.limits)
            return (bad & (self.limits > 0)).any(1)
        bag, field = placed(offsets, ids.shape[0], self.num_fields)
        limit = self.limits[field]
        bad = ((ids < 0) | (ids >= limit)) & (limit > 0)
        bags = offsets.shape[0] - 1
        count = torch.zeros(bags, dtype=torch.int64).index_add(0, bag, bad.long())
        return count.reshape(self.num_fields, bags // self.num_fields).sum(0) > 0


def click_graph(
    model: ClickModel,
    *,
    numbers: int,
    bags: bool,
    negative_rate: float | None,
    notes: dict[str, str],
) -> Graph:
    """The graph of a click model.

    Args:
        model: trained or served.
        numbers: `N`.
        bags: whether ids come as bags.
        negative_rate: the share of negatives that the training log kept; None for all.
        notes: what the file says of itself.
    """
    collection: Any = model.embeddings
    planned = collection.plan.fields
    fields = planned[: len(planned) // model.sets]
    module = ClickScores(serving(model).to("cpu"), fields, numbers, bags, negative_rate).eval()
    draw = Rows(fields, numbers, bags)
    first, *more = draw.shapes()
    rest = tuple(more)
    names = ("ids", *(("offsets",) if bags else ()), *(("numbers",) if numbers else ()))
    return Graph(
        module=module,
        names=names,
        output="scores",
        examples=draw(ROWS, torch.Generator().manual_seed(0)),
        shapes=(first, rest) if rest else (first,),
        draw=draw,
        spoil=draw.spoil if module.dense else None,
        notes=notes,
    )


class Rows:
    """Random rows as a click model's graph takes them."""

    def __init__(self, fields: tuple[Field, ...], numbers: int, bags: bool) -> None:
        self.fields, self.numbers, self.bags = fields, numbers, bags

    def __call__(self, rows: int, generator: torch.Generator) -> Inputs:
        """Ids, offsets if they are bags, numbers if there are any."""
        numeric = (torch.randn(rows, self.numbers, generator=generator),) * bool(self.numbers)
        if not self.bags:
            columns = [random_ids(each, rows, generator) for each in self.fields]
            return torch.stack(columns, 1), *numeric
        lengths = torch.randint(0, 4, (len(self.fields) * rows,), generator=generator)
        offsets = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
        counts = lengths.reshape(len(self.fields), rows).sum(1).tolist()
        ids = [
            random_ids(each, count, generator)
            for each, count in zip(self.fields, counts, strict=True)
        ]
        return torch.cat(ids), offsets, *numeric

    def shapes(self) -> Any:
        """Which dimensions may differ: `B`, and with bags `T` and `F * B + 1`."""
        batch: Any = torch.export.Dim("batch", min=0)
        numeric = ({0: batch},) * bool(self.numbers)
        if not self.bags:
            return ({0: batch}, *numeric)
        total = torch.export.Dim("total", min=0)
        return ({0: total}, {0: len(self.fields) * batch + 1}, *numeric)

    def spoil(self, inputs: Inputs) -> tuple[Inputs, Tensor]:
        """Put an id out of range into some rows, and say which."""
        ids = inputs[0].clone()
        column = next(f for f, each in enumerate(self.fields) if not each.hashed)
        size = self.fields[column].num_embeddings or 0
        wrong = torch.tensor([size, -1, -(2**63), 2**63 - 1])
        if not self.bags:
            bad = torch.arange(len(ids)) % 3 == 1
            ids[bad, column] = wrong[torch.arange(int(bad.sum())) % 4]
            return (ids, *inputs[1:]), bad
        offsets = inputs[1]
        rows = (len(offsets) - 1) // len(self.fields)
        begin, end = offsets[column * rows], offsets[(column + 1) * rows]
        places = torch.arange(int(begin), int(end), 3)
        ids[places] = wrong[torch.arange(len(places)) % 4]
        owner = torch.searchsorted(offsets, places, right=True) - 1
        bad = torch.zeros(rows, dtype=torch.bool)
        bad[owner - column * rows] = True
        return (ids, *inputs[1:]), bad


def random_ids(field: Field, count: int, generator: torch.Generator) -> Tensor:
    """Ids of a field, int64 `[count]`: dense ones in range, hashed ones of all bits, with edges."""
    size = field.num_embeddings
    if size is not None:
        found = torch.randint(0, size, (count,), generator=generator)
        found[:2] = torch.tensor([0, size - 1])[: min(count, 2)]
        return found
    halves = torch.randint(0, 1 << 32, (2, count), generator=generator)
    found = (halves[0] << 32) ^ halves[1]
    edges = torch.tensor(EDGES)[:count]
    found[: len(edges)] = edges
    return found
