"""Stored pointers: ids whose vectors are alike point to one row, by k-means of the table.

Of several pointers of a chunk the second is that of what the first leaves, and so on.
"""

import torch
from torch import Tensor

from bitfold.address import Lookup, Stored
from bitfold.address.stored import pack_bits, unpack_bits
from bitfold.embedder.clusters import SAMPLED, closest, k_means
from bitfold.embedder.corridor import Corridor
from bitfold.fitting.tables import Trained

MOST = 1 << 16
"""Vectors that centroids are found from, unless there are more centroids."""


def point(
    part: Corridor, number: int, trained: Trained, turn: Tensor | None, generator: torch.Generator
) -> bool:
    """Write the pointers of a field, chunk by chunk; returns whether it has any.

    Args:
        part: the corridor.
        number: which of its fields.
        trained: its table.
        turn: a matrix `[D, w']` that vectors are multiplied with before; None for none.
        generator: what points are drawn by.
    """
    lookups, chunks = part.program.fields[number], part.program.chunks
    terms = len(lookups) // chunks
    found = [(at // terms, p) for at, p in enumerate(lookups) if _points(p)]
    if not found:
        return False
    tables = {name: each.cpu() for name, each in part.stored.named().items()}
    width = part.width // chunks
    most = max(lookup.radix for _, lookup in found)
    size = max(min(SAMPLED * most, MOST), most)
    points = _turned(sample(trained, size, generator), turn)
    # What a pointer leaves is of use where another one of its chunk follows.
    more = [any(c == other for other, _ in found[at:]) for at, (c, _) in enumerate(found, 1)]
    left, centroids = _chunks(points, width), []
    for (c, lookup), goes_on in zip(found, more, strict=True):
        centroids.append(k_means(left[c], lookup.radix, generator))
        if goes_on:
            left[c] = left[c] - centroids[-1][closest(left[c], centroids[-1])[0]]
    sources: dict[str, Stored] = {}
    for _, lookup in found:
        assert isinstance(lookup.source, Stored)
        sources[lookup.source.table] = lookup.source
    pointers = {
        name: unpack_bits(tables[name], source.bits, source.length)
        for name, source in sources.items()
    }
    for chunk in trained.chunks(trained.at_once()):
        left = _chunks(_turned(chunk.vectors, turn).cpu(), width)
        codes = {name: torch.zeros(len(chunk.ids), dtype=torch.int64) for name in sources}
        for (c, lookup), own, goes_on in zip(found, centroids, more, strict=True):
            assert isinstance(lookup.source, Stored)
            nearest, _ = closest(left[c], own)
            if goes_on:
                left[c] = left[c] - own[nearest]
            codes[lookup.source.table] += nearest * lookup.divisor
        for name, source in sources.items():
            pointers[name][source.of.code_torch(chunk.ids.cpu(), tables)] = codes[name]
    for name, source in sources.items():
        part.stored.put(name, pack_bits(pointers[name], source.bits))
    return True


def _chunks(vectors: Tensor, width: int) -> list[Tensor]:
    """The chunks of vectors, each contiguous."""
    return [each.contiguous() for each in torch.split(vectors, width, 1)]


def _points(lookup: Lookup) -> bool:
    """Whether a lookup reads pointers: signatures say what an id is, whatever its vector."""
    return isinstance(lookup.source, Stored) and lookup.source.kind == "pointers"


def _turned(vectors: Tensor, turn: Tensor | None) -> Tensor:
    return vectors if turn is None else vectors @ turn.to(vectors.dtype)


def sample(trained: Trained, count: int, generator: torch.Generator) -> Tensor:
    """Vectors of up to so many ids, the likelier the oftener they occur, each drawn once."""
    rows = trained.at_once()
    if len(trained) <= count:
        return torch.cat([chunk.vectors for chunk in trained.chunks(rows)]).cpu()
    found = []
    for chunk in trained.chunks(rows):
        # Drawn apart, so that ids come in the same shares whatever lies in a slice.
        chance = (chunk.weights / trained.mass * count).clamp(max=1).cpu()
        drawn = torch.rand(len(chance), generator=generator, dtype=torch.float64) < chance
        found.append(chunk.vectors.cpu()[drawn])
    return torch.cat(found)
