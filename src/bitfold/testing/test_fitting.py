"""Every method: its numbers can be fitted to trained tables, and what is said of it is true."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from bitfold.embedding import Embedding, EmbeddingBag, EmbeddingCollection
from bitfold.fitting import fit
from bitfold.kernels.choice import plain_torch
from bitfold.planning.field import Field
from bitfold.testing.cases import DIM, Case, counts
from bitfold.testing.checks import exact, optimizer_named


def trained(case: Case) -> tuple[list[Any], list[Tensor]]:
    """Tables of low rank and some noise for the case's fields, and how often ids occur."""
    generator, stats = torch.Generator().manual_seed(0), counts(case.fields)
    tables: list[Any] = []
    often = []
    for field in case.fields:
        if field.num_embeddings is None:
            ids, found = stats.top(field.name, stats.distinct(field.name))
        else:
            ids = np.arange(field.num_embeddings)
            found = stats.counts(field.name, ids)
        vectors = vectors_of(len(ids), generator)
        pair = torch.from_numpy(ids.copy()), vectors
        tables.append(pair if field.num_embeddings is None else vectors)
        often.append(torch.from_numpy(found.copy()))
    return tables, often


def vectors_of(rows: int, generator: torch.Generator) -> Tensor:
    """Vectors in a plane, and noise."""
    plane = torch.randn(rows, 2, generator=generator) @ torch.randn(2, DIM, generator=generator)
    return 0.1 * plane + 0.03 * torch.randn(rows, DIM, generator=generator)


def error(made: EmbeddingCollection, tables: list[Any], often: list[Tensor]) -> Tensor:
    """The relative squared error of each field, by the collection's own vectors."""
    found = []
    served = made if exact(made) else made.serving()
    for number, (table, count) in enumerate(zip(tables, often, strict=True)):
        ids, vectors = table if isinstance(table, tuple) else (torch.arange(len(table)), table)
        rows = torch.zeros(len(ids), len(tables), dtype=torch.int64)
        rows[:, number] = ids
        with torch.no_grad(), plain_torch():
            off = (served(rows)[:, number] - vectors).square().sum(1)
        found.append((off * count).sum() / (vectors.square().sum(1) * count).sum())
    return torch.stack(found)


def test_it_comes_nearer_to_trained_tables_than_zeros_and_fresh_weights(
    case: Case, small: EmbeddingCollection
) -> None:
    tables, often = trained(case)
    before = error(small, tables, often)
    small.train()
    fitted = fit(small.embedder, tables, often)
    small.eval()
    assert [each.field for each in fitted] == [field.name for field in case.fields]
    after = error(small, tables, often)
    said = torch.tensor([each.error for each in fitted])
    torch.testing.assert_close(said.square(), after.float(), rtol=1e-3, atol=1e-6)
    # Fields that share rows come to the best for all of them together.
    energy = torch.stack(
        [
            (vectors.square().sum(1) * count).sum() / count.sum()
            for table, count in zip(tables, often, strict=True)
            for vectors in [table[1] if isinstance(table, tuple) else table]
        ]
    )
    assert float((after * energy).sum()) <= float(energy.sum())
    assert float((after * energy).sum()) < float((before * energy).sum())


@pytest.mark.first_form
def test_a_fit_is_the_same_for_the_same_seed_and_trained_on(case: Case) -> None:
    tables, often = trained(case)
    one, other = case.collection(), case.collection()
    for made in (one, other):
        made.requires_grad_(True)
        fit(made.embedder, tables, often, seed=3)
    for name, value in one.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name
    ids = case.ids(20)
    one.train()
    with plain_torch():
        before = one(ids).detach()
        one(ids).square().sum().backward()
        optimizer_named("rowwise-adagrad", one, 0.1).step()
        assert not torch.equal(one(ids), before)


def test_from_pretrained_keeps_padding_and_freezes(case: Case) -> None:
    vectors = vectors_of(50, torch.Generator().manual_seed(1))
    said: Any = case.said([Field("ids", 50)])
    often = 1 + 100 // (1 + torch.arange(50))
    layer = Embedding.from_pretrained(vectors, padding_idx=3, counts=often, **said)
    assert not any(each.requires_grad for each in layer.parameters())
    if layer.fitted is None:  # the table itself
        assert layer.weight.data_ptr() == vectors.data_ptr()
        return
    assert not layer(torch.tensor([3])).any()
    served = layer if exact(layer) else layer.serving()
    keep = torch.arange(50) != 3
    off = (served.weight[keep] - vectors[keep]).square().sum(1)
    lost = (off * often[keep]).sum() / (vectors[keep].square().sum(1) * often[keep]).sum()
    assert abs(layer.fitted.error - float(lost) ** 0.5) < 1e-3
    assert layer.fitted.error < 1
    bag = EmbeddingBag.from_pretrained(
        vectors, False, padding_idx=3, mode="sum", counts=often, **said
    )
    assert all(each.requires_grad for each in bag.parameters())
    ids = torch.tensor([[3, 4, 5]])
    torch.testing.assert_close(bag(ids)[0], layer(torch.tensor([4, 5])).sum(0))
