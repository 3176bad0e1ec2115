"""Rows that choose centroids: they are the table's, and the centroids its k-means by chunks."""

from collections.abc import Sequence

import torch
from torch import Tensor

from bitfold.embedder.clusters import SAMPLED, k_means
from bitfold.embedder.quantizing import Quantized, Quantizing
from bitfold.fitting.learning import counted
from bitfold.fitting.pointers import MOST, sample
from bitfold.fitting.tables import Trained


@torch.no_grad()
def fit_choices(part: Quantizing, tables: Sequence[Trained], seed: int) -> list[str]:
    """Put queries and centroids that come nearest to the tables of the fields.

    Returns:
        How, for each field.
    """
    generator = torch.Generator().manual_seed(seed)
    if any(each.popular for each in part.fields) and any(t.counts is not None for t in tables):
        part.prepare(counted(list(tables)))
    chosen = {each.field: each for each in part.fields}
    how = []
    for number, trained in enumerate(tables):
        each = chosen.get(number)
        if each is None:
            _write(part, number, trained)
            how.append("rows as they are")
            continue
        centroids = _centroids(part, each, trained, generator)
        rows = each.base + torch.arange(len(centroids), device=part.pool.weight.device)
        part.pool.put(rows, centroids)
        for chunk in trained.chunks(trained.at_once()):
            index = each.index(chunk.ids, part.stored.named())
            part.queries.put(each.at + index, chunk.vectors)
        how.append("k-means of chunks")
    part.pool.refresh()
    packed = part.plan.group.pools[0]
    return [f"{each}, rounded to {packed.bits} bits" if packed.packed else each for each in how]


def _write(part: Quantizing, number: int, trained: Trained) -> None:
    """Write the vectors of a field whose ids are rows."""
    width = part.plan.group.pools[0].width
    for chunk in trained.chunks(trained.at_once()):
        cells = part.own_rows(number, chunk.ids)
        part.pool.put(cells.flatten(), chunk.vectors.reshape(-1, width))


def _centroids(
    part: Quantizing, each: Quantized, trained: Trained, generator: torch.Generator
) -> Tensor:
    """A field's centroids `[C * K, w]`; of a chunk first those that all ids choose from."""
    size = max(min(SAMPLED * each.centroids, MOST), each.centroids)
    few = 1 << each.source.bits if each.popular else each.centroids
    points = sample(trained, size, generator).tensor_split(each.chunks, 1)
    found = [k_means(one.contiguous(), few, generator) for one in points]
    if each.popular:
        popular = _popular(part, each, trained)[:size].tensor_split(each.chunks, 1)
        more = each.centroids - few
        found = [
            torch.cat([one, k_means(other.contiguous(), more, generator).to(one)])
            for one, other in zip(found, popular, strict=True)
        ]
    return torch.cat(found)


def _popular(part: Quantizing, each: Quantized, trained: Trained) -> Tensor:
    """The vectors of popular ids, on the CPU; of all ids where none of them is given."""
    tables, found = part.stored.named(), []
    for chunk in trained.chunks(trained.at_once()):
        here = each.is_popular(each.index(chunk.ids, tables), tables)
        found.append(chunk.vectors[here].cpu())
    vectors = torch.cat(found)
    return vectors if len(vectors) else trained.chunk(0, len(trained)).vectors.cpu()
