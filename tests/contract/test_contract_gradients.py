"""Gradients against the definition in float64, rows that are named, initial deviation."""

import pytest
import torch

from bitfold import EmbeddingCollection, Field
from bitfold.method.registry import method_kind
from bitfold.testing.cases import DIM, Case, bags_by_field, random_bags

# One pool, and fusions that are written out below; every method is held to finite differences.
METHODS = ("full", "hash", "multi-hash", "binary-code")
FORMS = [Case(name, words) for name in METHODS for words in method_kind(name).forms]


def by_definition(collection, ids):
    """Vectors `[B, F, D]` from `cells_int` and the fusion's definition, one id at a time."""
    embedder, plan = collection.embedder, collection.plan
    program = plan.program
    table = embedder.pool(torch.arange(program.rows))  # of few bits: rounded, straight through
    learned = list(embedder.fuse.parameters())
    position, out = 0, []
    for f, lookups in enumerate(program.fields):
        terms = len(lookups) // program.chunks
        weights = learned[0][position : position + len(lookups)] if learned else None
        position += len(lookups)
        column = []
        for value in ids[:, f].tolist():
            rows = [table[cell] for cell in program.cells_int(f, value & (2**64 - 1))]
            if weights is not None:
                rows = [row * w for row, w in zip(rows, weights, strict=True)]
            chunks = []
            for c in range(program.chunks):
                part = torch.stack(rows[c * terms : (c + 1) * terms])
                if plan.fusion == "product":
                    chunks.append(part.prod(0))
                else:
                    chunks.append(part.mean(0) if plan.fusion == "mean" else part.sum(0))
            column.append(torch.cat(chunks))
        out.append(torch.stack(column))
    return torch.stack(out, 1)


def gradients(loss, module):
    return torch.autograd.grad(loss, list(module.parameters()), allow_unused=True)


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_vectors_and_gradients_equal_the_definition(form):
    double, single = form.collection().double(), form.collection()
    ids = form.ids(7)
    toward = torch.randn(7, len(form.fields), DIM, dtype=torch.float64)
    expected = by_definition(double, ids)
    for module, tolerance in ((double, 1e-12), (single, 1e-5)):
        got = module(ids)
        torch.testing.assert_close(got.double(), expected, rtol=tolerance, atol=tolerance)
        ours = gradients((got * toward.to(got.dtype)).sum(), module)
        theirs = gradients((by_definition(double, ids) * toward).sum(), double)
        for mine, right in zip(ours, theirs, strict=True):
            torch.testing.assert_close(mine.double(), right, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_sparse_gradients_equal_dense_ones_and_name_only_rows_read(form):
    dense, sparse = form.collection(), form.collection(sparse=True)
    sparse.load_state_dict(dense.state_dict())
    for inputs in ((form.ids(3),), bags_by_field(random_bags(form, 3))):
        for module in (dense, sparse):
            module.zero_grad()
            module(*inputs).pow(2).sum().backward()
        pairs = zip(dense.named_parameters(), sparse.parameters(), strict=True)
        for (_, one), other in pairs:
            torch.testing.assert_close(other.grad.to_dense(), one.grad)
        table = sparse.embedder.pool.weight.grad
        assert table.is_sparse
        named = set(table.coalesce().indices()[0].tolist())
        program, read = dense.plan.program, set()
        rows = inputs[0].tolist() if len(inputs) == 1 else []
        for row in rows:
            for f, value in enumerate(row):
                read |= set(program.cells_int(f, value & (2**64 - 1)))
        if rows:
            assert named <= read
        else:
            offsets = inputs[1].tolist()
            for bag in range(len(offsets) - 1):
                for value in inputs[0][offsets[bag] : offsets[bag + 1]].tolist():
                    read |= set(program.cells_int(bag // 3, value & (2**64 - 1)))
            assert named <= read


# Two bits keep 88 % of a variance.
@pytest.mark.parametrize("form", [form for form in FORMS if "bits" not in form.words], ids=str)
def test_a_fresh_vector_has_the_declared_deviation(form):
    """Every field of a ragged collection: whole, folded in two, folded in more.

    Over ids whose terms are different rows: where two terms are one row, they go together.
    """
    fields = [Field("a", 9000), Field("b", 900), Field("c", 60)]
    words = {**form.said(fields, 24), "allocation": 1.0}
    if form.method == "full":
        words.pop("allocation")
    ids = torch.stack([torch.arange(900) * 10, torch.arange(900), torch.arange(900) % 60], 1)
    drawn = [EmbeddingCollection(fields, 24, seed=seed, **words) for seed in range(24)]
    for f in range(3):
        some = torch.cat([numbers_of(each, f, ids) / each.embedder.std for each in drawn])
        assert len(some) > 5000
        assert float(some.pow(2).mean().sqrt()) == pytest.approx(1, rel=0.05)
        assert abs(float(some.mean())) < 0.05


@torch.no_grad()
def numbers_of(collection, f, ids):
    """The numbers of one field's vectors, of ids whose terms are different rows."""
    program = collection.plan.program
    terms = len(program.fields[f]) // program.chunks
    apart = []
    for value in ids[:, f].tolist():
        cells = program.cells_int(f, value)
        chunks = [cells[at : at + terms] for at in range(0, len(cells), terms)]
        apart.append(all(len(set(chunk)) == terms for chunk in chunks))
    return collection(ids)[torch.tensor(apart), f].flatten()
