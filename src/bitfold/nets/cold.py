"""Ids with few clicks that lean on prototypes: what is kept of them, and what serves.

    logit = mean + own[n] (plain - mean) + prototype[n] r + level[n]

`plain` is the model's logit, `mean` its logit with the mean vector of the field in place of the
id's, `r` the cosine of the row's context and the id's prototype, `n` the id's clicks. With
(1, 0, 0) an id is what the model makes of it, with (0, 0, 0) it is the mean id. Other ids are left
as they are.

A context is the mean of the vectors of a row's other fields, less the mean of all contexts; a
prototype the direction of the mean context of the rows that clicked the id.

Source: ReMarNet, 2020 (arXiv 2006.15366): a relation head and a margin head on one trunk.

Shapes: `B` rows, `F` fields, `D` the width, `K` cold ids.
"""

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from bitfold.address.stored import gather_bits, pack_bits
from bitfold.address.words import place_in

if TYPE_CHECKING:
    from collections.abc import Mapping

ENDS = (1, 2, 4, 8)  # clicks of the ranges: 1, 2, 3-4, 5-8, more
NAMES = ("1", "2", "3-4", "5-8", "more")
MOST = ENDS[-1]  # clicks of a cold id
PLAIN = (1.0, 0.0, 0.0)
_AT_ONCE = 1 << 16  # prototypes; a multiple of 8, so that each turn fills whole bytes


class ColdIds(nn.Module):
    """The cold ids of one field and their prototypes; all of it is counted as served bytes.

    Args:
        field: its place among the fields.
        bits: of a number of a prototype.
        keys: the cold ids, rising; int32 `[K]` where ids are dense, else int64.
        clicks: uint8 `[K]`, 1 to 8.
        codes: uint8, `K * D` numbers of `bits` bits: steps of even size from -1 to 1, whose
            direction is the prototype.
        centre: float32 `[D]`, the mean of all contexts.
        mean: float32 `[D]`, the mean vector of the field's ids.
        weights: float32 `[4, 3]`: own, prototype, level, for each range of clicks.

    Example:
        >>> cold = ColdIds.of(
        ...     0, 4, torch.tensor([3, 7]), torch.tensor([1, 5]), torch.eye(2), torch.zeros(2),
        ...     torch.zeros(2), dense=True,
        ... )
        >>> cold.bytes, cold.places(torch.tensor([7, 5, 3]))
        (76, tensor([ 1, -1,  0]))
    """

    keys: Tensor
    clicks: Tensor
    codes: Tensor
    centre: Tensor
    mean: Tensor
    weights: Tensor

    def __init__(
        self,
        field: int,
        bits: int,
        *,
        keys: Tensor,
        clicks: Tensor,
        codes: Tensor,
        centre: Tensor,
        mean: Tensor,
        weights: Tensor,
    ) -> None:
        super().__init__()
        self.field, self.bits = field, bits
        named = {"keys": keys, "clicks": clicks, "codes": codes}
        named |= {"centre": centre, "mean": mean, "weights": weights}
        for name, tensor in named.items():
            self.register_buffer(name, tensor)

    @classmethod
    def of(
        cls,
        field: int,
        bits: int,
        ids: Tensor,
        clicks: Tensor,
        prototypes: Tensor,
        centre: Tensor,
        mean: Tensor,
        *,
        dense: bool,
    ) -> "ColdIds":
        """Cold ids with prototypes `[K, D]`, kept in few bits; served as plain until it is told.

        Args:
            field: its place among the fields.
            bits: of a number of a prototype.
            ids: int64 `[K]`, rising.
            clicks: int64 `[K]`.
            prototypes: of any length: their direction is kept.
            centre: `[D]`.
            mean: `[D]`.
            dense: whether ids are below 2**31.
        """
        where = prototypes.device
        parts = torch.split(prototypes, _AT_ONCE)
        codes = [pack_bits(_codes(part, bits).flatten(), bits) for part in parts]
        return cls(
            field,
            bits,
            keys=ids.to(key_type(dense=dense)),
            clicks=clicks.to(torch.uint8),
            codes=torch.cat(codes).to(where),
            centre=centre.float(),
            mean=mean.float(),
            weights=torch.tensor(PLAIN, device=where).repeat(len(ENDS), 1),
        )

    @property
    def bytes(self) -> int:
        """Bytes of all that is kept."""
        return sum(tensor.nbytes for tensor in self.buffers())

    def forward(
        self, logits: Tensor, vectors: Tensor, ids: Tensor, numeric: Tensor, network: nn.Module
    ) -> Tensor:
        """Logits `[B]` of rows, where those of cold ids lean.

        Args:
            logits: plain ones, `[B]`.
            vectors: `[B, F, D]`.
            ids: of the field, int64 `[B]`.
            numeric: `[B, N]`.
            network: makes logits of vectors and numbers.
        """
        if not len(self.keys):
            return logits
        places = self.places(ids)
        if torch.compiler.is_compiling():  # shapes cannot follow from numbers: all rows lean
            found = self.leaned(logits, vectors, places.clamp_min(0), numeric, network)
            return torch.where(places >= 0, found, logits)
        rows = (places >= 0).nonzero().squeeze(1)
        if not len(rows):
            return logits
        found = self.leaned(logits[rows], vectors[rows], places[rows], numeric[rows], network)
        return logits.index_copy(0, rows, found)

    def leaned(
        self, logits: Tensor, vectors: Tensor, at: Tensor, numeric: Tensor, network: nn.Module
    ) -> Tensor:
        """Logits `[B]` of rows of cold ids, which lean."""
        mean, relation = self.heads(vectors, at, numeric, network)
        own, lean, level = self.weights[self.ranges(at)].unbind(1)
        found = mean + own * (logits.float() - mean) + lean * relation + level
        return found.to(logits.dtype)

    def heads(
        self, vectors: Tensor, at: Tensor, numeric: Tensor, network: nn.Module
    ) -> tuple[Tensor, Tensor]:
        """The logit with the mean vector, and the relation, `[B]` each, of rows of cold ids."""
        relation = (self.contexts(vectors) * self.prototypes(at)).sum(1)
        own = torch.arange(vectors.shape[1], device=vectors.device) == self.field
        others = torch.where(own[:, None], self.mean.to(vectors.dtype), vectors)
        mean: Tensor = network(others, numeric)
        return mean.float(), relation

    def contexts(self, vectors: Tensor) -> Tensor:
        """The directions of rows' contexts, `[B, D]`; zeros where one is the mean of all."""
        return nn.functional.normalize(contexts(vectors, self.field) - self.centre, dim=1)

    def prototypes(self, at: Tensor) -> Tensor:
        """The prototypes `[B, D]`, of length 1, of cold ids at some places `[B]`."""
        dim = len(self.centre)
        index = at[:, None] * dim + torch.arange(dim, device=at.device)
        codes = gather_bits(self.codes, self.bits, index).float()
        return nn.functional.normalize(codes * (2 / ((1 << self.bits) - 1)) - 1, dim=1)

    def places(self, ids: Tensor) -> Tensor:
        """Where each id is among the cold ones, int64 in the shape of `ids`; -1: it is not."""
        return places_of(self.keys, ids)

    def ranges(self, at: Tensor) -> Tensor:
        """The range of clicks, 0 to 3, of cold ids at some places."""
        return range_of(self.clicks[at].long())

    @property
    def figures(self) -> "Mapping[str, object]":
        """What metrics.json says: how many ids, their bytes, the weights by clicks."""
        names = ("own", "prototype", "level")
        return {
            "ids": len(self.keys),
            "bytes": self.bytes,
            "weights": {
                name: dict(zip(names, row.tolist(), strict=True))
                for name, row in zip(NAMES[:-1], self.weights, strict=True)
            },
        }


def _codes(prototypes: Tensor, bits: int) -> Tensor:
    """Numbers of prototypes `[K, D]` as steps from -1 to 1, each row scaled to reach an end."""
    largest = prototypes.abs().amax(1, keepdim=True)
    even = prototypes / largest.clamp_min(torch.finfo(prototypes.dtype).tiny)
    steps = (1 << bits) - 1
    return ((even.double() + 1) / 2 * steps).round().long().clamp(0, steps)


def key_type(*, dense: bool) -> torch.dtype:
    """What cold ids are kept as: dense ones take half the bytes."""
    return torch.int32 if dense else torch.int64


def cold_bytes(count: int, dim: int, bits: int, *, dense: bool) -> int:
    """The bytes of so many cold ids: keys, clicks, prototypes, two means, weights.

    Example:
        >>> cold_bytes(2, 2, 4, dense=True)
        76
    """
    each = count * (key_type(dense=dense).itemsize + 1)
    return each + -(-count * dim * bits // 8) + 2 * dim * 4 + len(ENDS) * len(PLAIN) * 4


def places_of(keys: Tensor, ids: Tensor) -> Tensor:
    """Where ids are among rising keys, int64; -1: they are not.

    Example:
        >>> places_of(torch.tensor([3, 7]), torch.tensor([7, 5, 3, 9]))
        tensor([ 1, -1,  0, -1])
    """
    if not len(keys):
        return torch.full_like(ids, -1)
    at = (place_in(ids, keys.to(ids.dtype)) - 1).clamp_min(0)
    return torch.where(keys[at] == ids, at, -1)


def range_of(clicks: Tensor) -> Tensor:
    """The range of each count of clicks, 0 to 4, in the shape of `clicks`.

    Example:
        >>> range_of(torch.tensor([1, 2, 3, 4, 5, 8, 9]))
        tensor([0, 1, 2, 2, 3, 3, 4])
    """
    return place_in(clicks - 1, torch.tensor(ENDS, device=clicks.device))


def contexts(vectors: Tensor, field: int) -> Tensor:
    """The mean of the other fields' vectors `[B, D]`, in float32, of vectors `[B, F, D]`.

    Example:
        >>> contexts(torch.tensor([[[9.0, 9.0], [1.0, 2.0], [3.0, 6.0]]]), 0)
        tensor([[2., 4.]])
    """
    others = vectors.float().sum(1) - vectors[:, field].float()
    return others / (vectors.shape[1] - 1)


def ids_of(ids: Tensor, offsets: Tensor | None, field: int, rows: int) -> Tensor:
    """The ids `[B]` of a field of one value a row, out of a batch's, as `Batch` has them."""
    if offsets is None:
        return ids[:, field].contiguous()
    return ids[offsets[field * rows : (field + 1) * rows]]
