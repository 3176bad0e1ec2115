"""Every method: gradients against a dense float64 reference, initial deviation, training."""

import pytest
import torch
from contract_cases import DIM, bags_by_field, random_bags
from torch import nn
from torch.nn import functional as F

from bitfold import EmbeddingCollection, Field
from bitfold.embedder.corridor import Corridor


def by_definition(collection, ids):
    """Vectors `[B, F, D]` from `cells_int` and the fusion's definition, one id at a time."""
    embedder, plan = collection.embedder, collection.plan
    table, program = embedder.pool.weight, plan.program
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


def test_vectors_and_gradients_equal_the_definition(case):
    double, single = case.collection().double(), case.collection()
    if not isinstance(double.embedder, Corridor):
        pytest.skip(f"{case.method} is not an address, a pool and a fusion: see the table's test")
    ids = case.ids(7)
    toward = torch.randn(7, len(case.fields), DIM, dtype=torch.float64)
    expected = by_definition(double, ids)
    for module, tolerance in ((double, 1e-12), (single, 1e-5)):
        got = module(ids)
        torch.testing.assert_close(got.double(), expected, rtol=tolerance, atol=tolerance)
        ours = gradients((got * toward.to(got.dtype)).sum(), module)
        theirs = gradients((by_definition(double, ids) * toward).sum(), double)
        for mine, right in zip(ours, theirs, strict=True):
            torch.testing.assert_close(mine.double(), right, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
def test_gradients_of_bags_equal_those_through_the_table(case, mode):
    """The table `[V, D]` in float64, read by torch's own operations."""
    ours = case.bag(50, mode=mode, padding_idx=9).double()
    flat, offsets = torch.tensor([3, 4, 49, 12, 9, 0, 9, 21]), torch.tensor([0, 3, 3, 5])
    weights = torch.linspace(0.5, 2, 8, dtype=torch.float64) if mode == "sum" else None
    theirs = F.embedding_bag(
        flat, ours.weight, offsets, mode=mode, per_sample_weights=weights, padding_idx=9
    )
    got = ours(flat, offsets, weights)
    torch.testing.assert_close(got, theirs)
    toward = torch.randn(got.shape, dtype=torch.float64)
    pairs = zip(
        gradients((got * toward).sum(), ours), gradients((theirs * toward).sum(), ours), strict=True
    )
    for mine, right in pairs:
        torch.testing.assert_close(mine, right)


def test_gradcheck(case):
    collection = case.collection(mode="sum").double()
    ids = case.ids(2)
    bag_ids, offsets = bags_by_field(random_bags(case, 2, 2))
    weights = torch.rand(len(bag_ids), dtype=torch.float64, requires_grad=True)
    names, values = zip(*collection.named_parameters(), strict=True)
    values = [value.detach()[:].requires_grad_() for value in values]

    def vectors(*parameters):
        named = dict(zip(names, parameters, strict=True))
        return torch.func.functional_call(collection, named, (ids,))

    def bags(weights, *parameters):
        named = dict(zip(names, parameters, strict=True))
        return torch.func.functional_call(collection, named, (bag_ids, offsets, weights))

    # Central differences: a vector is a polynomial of low degree, so only rounding is between them.
    close = {"eps": 1e-5, "rtol": 1e-6, "atol": 1e-9, "fast_mode": True}
    assert torch.autograd.gradcheck(vectors, values, **close)
    assert torch.autograd.gradcheck(bags, (weights, *values), **close)


def test_sparse_gradients_equal_dense_ones_and_name_only_rows_read(case):
    dense, sparse = case.collection(), case.collection(sparse=True)
    sparse.load_state_dict(dense.state_dict())
    for inputs in ((case.ids(3),), bags_by_field(random_bags(case, 3))):
        for module in (dense, sparse):
            module.zero_grad()
            module(*inputs).pow(2).sum().backward()
        pairs = zip(dense.named_parameters(), sparse.parameters(), strict=True)
        for (_, one), other in pairs:
            torch.testing.assert_close(other.grad.to_dense(), one.grad)
        if not isinstance(dense.embedder, Corridor):
            continue
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


@pytest.mark.parametrize("optimizer", ["SGD", "Adam"])
def test_a_hundred_steps_at_a_high_rate_leave_no_nan(case, optimizer):
    torch.manual_seed(0)
    collection = case.collection()
    top = nn.Linear(len(case.fields) * DIM, 1)
    parameters = [*collection.parameters(), *top.parameters()]
    steps = getattr(torch.optim, optimizer)(parameters, lr=1.0)
    before = [p.detach().clone() for p in collection.parameters()]
    ids = case.ids(64)
    labels = (torch.arange(64) % 2).float()
    for _ in range(100):
        steps.zero_grad()
        logits = top(collection(ids).flatten(1)).squeeze(1)
        F.binary_cross_entropy_with_logits(logits, labels).backward()
        steps.step()
    for old, new in zip(before, collection.parameters(), strict=True):
        assert torch.isfinite(new).all()
        assert not torch.equal(old, new)


def test_a_fresh_vector_has_the_declared_deviation(case):
    """Every field of a ragged collection: whole, folded in two, folded in more.

    Over ids whose terms are different rows: where two terms are one row, they go together.
    """
    fields = [Field("a", 9000), Field("b", 900), Field("c", 60)]
    words = {**case.said(fields, 24), "allocation": 1.0}
    if case.method == "full":
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
