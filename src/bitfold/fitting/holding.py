"""Chunks that are held: those that a trained table has most to say in, as often as ids occur."""

from collections.abc import Sequence

import torch

from bitfold.embedder.chunks import Chunks
from bitfold.fitting.tables import Trained


def hold(part: Chunks, tables: Sequence[Trained]) -> list[str]:
    """Give the slots to the chunks whose squares, times how often their ids occur, are largest.

    Returns:
        How, for each field: nothing for one without pointers.
    """
    stored = {name: each.cpu() for name, each in part.stored.named().items()}
    rows = sum(each.length for each in part.virtual)
    worth = torch.zeros(rows, part.program.chunks, dtype=torch.float64)
    how = [""] * len(tables)
    for each in part.virtual:
        trained = tables[each.field]
        for chunk in trained.chunks(trained.at_once()):
            shape = len(chunk.ids), part.program.chunks, trained.dim // part.program.chunks
            pieces = chunk.vectors.cpu().double().reshape(shape)
            squares = pieces.square().sum(2) * chunk.weights.cpu().unsqueeze(1)
            worth.index_add_(0, each.first + each.rows(chunk.ids.cpu(), stored), squares)
        how[each.field] = "the heaviest chunks are held, "
    part.hold(worth)
    part.trust()
    return how
