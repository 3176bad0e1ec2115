"""What embedders learn of counts before their rows can be fitted: maps, and which ids are hot."""

import torch

from bitfold.embedder.contract import Embedder, Progress
from bitfold.embedder.group import GroupEmbedder
from bitfold.embedder.preparing import maps_of
from bitfold.errors import BitfoldError
from bitfold.fitting.tables import Trained
from bitfold.planning.statistics import Counted


def learn(part: Embedder, tables: list[Trained]) -> None:
    """Build the maps that a part waits for, and let one that chooses by gradients see counts.

    Raises:
        BitfoldError: there are no counts to choose by.
    """
    if isinstance(part, GroupEmbedder) and part.waits:
        for number, source in maps_of(part.plan.program).items():
            if tables[number].counts is None and len(tables[number]) > source.ids:
                raise BitfoldError(
                    f"the ids of field {tables[number].field.name!r} that own rows are not known",
                    got="no counts",
                    expected=f"how often each id occurs: {source.ids} of them own rows",
                    fix="give counts, or call prepare(stats) first",
                )
        part.prepare(counted(tables))
    elif part.takes_rows and any(each.counts is not None for each in tables):
        part.prepare(counted(tables))
    if part.observes and any(each.counts is not None for each in tables):
        for number, trained in enumerate(tables):
            for chunk in trained.chunks(trained.at_once()):
                seen = chunk.counts if trained.counts is not None else chunk.counts * 0
                grad = torch.zeros_like(chunk.vectors)
                grad[:, 0] = seen.to(grad.dtype)
                part.observe(chunk.ids, torch.full_like(chunk.ids, number), grad)
        part.maintain(Progress(0))


def counted(tables: list[Trained]) -> Counted:
    """Statistics of the tables' counts; where there are none every id occurs once."""
    found = {}
    for trained in tables:
        ids = torch.arange(len(trained)) if trained.ids is None else trained.ids.cpu()
        counts = torch.ones(len(trained)) if trained.counts is None else trained.counts.cpu()
        whole = counts.double().ceil().to(torch.int64).numpy()
        if trained.padding is not None:
            keep = ids != trained.padding
            ids, whole = ids[keep], whole[keep.numpy()]
        found[trained.field.name] = ids.numpy(), whole
    return Counted(found)
