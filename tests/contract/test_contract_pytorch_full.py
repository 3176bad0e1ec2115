"""`method="full"` beside torch's own modules: the same numbers, written and trained alike."""

import pytest
import torch
from torch import nn

from bitfold import BitfoldError, Embedding, EmbeddingBag

V, D = 30, 5
IDS = torch.tensor([[1, 2, 29], [2, 2, 0]])


def pair(kind=nn.Embedding, **words):
    """Ours and torch's, with one table."""
    ours_kind = Embedding if kind is nn.Embedding else EmbeddingBag
    ours = ours_kind(V, D, method="full", std=1.0, **words)
    theirs = kind(V, D, **words)
    theirs.weight.data.copy_(ours.weight.data)
    return ours, theirs


def same(ours, theirs, *given):
    """Equal vectors, equal tables afterwards, equal gradients."""
    outs = [module(*given) for module in (ours, theirs)]
    torch.testing.assert_close(*outs)
    assert torch.equal(ours.weight, theirs.weight)
    for module, out in zip((ours, theirs), outs, strict=True):
        module.zero_grad()
        out.pow(2).sum().backward()
    grads = [module.weight.grad for module in (ours, theirs)]
    assert grads[0].is_sparse == grads[1].is_sparse
    if grads[0].is_sparse:
        grads = [grad.coalesce() for grad in grads]
        assert torch.equal(grads[0].indices(), grads[1].indices())
        grads = [grad.to_dense() for grad in grads]
    torch.testing.assert_close(*grads)


WORDS = [
    {"max_norm": 1.0},
    {"max_norm": 0.5, "norm_type": 1.0},
    {"max_norm": 1.0, "padding_idx": 2},
    {"max_norm": 1.0, "sparse": True},
    {"scale_grad_by_freq": True},
    {"scale_grad_by_freq": True, "padding_idx": 2, "max_norm": 1.0},
    {"padding_idx": 2},
    {"padding_idx": -1, "sparse": True},
]


@pytest.mark.parametrize("words", WORDS, ids=str)
@pytest.mark.parametrize("ids", [IDS, IDS.int(), torch.tensor(2), IDS[:0], IDS.T])
def test_every_word_of_an_embedding(words, ids):
    if ids.dim() == 0 and words.get("sparse"):
        ours, _ = pair(**words)  # torch's own raises an IndexError in its backward pass
        ours(ids).sum().backward()
        assert ours.weight.grad.coalesce().indices().tolist() == [[2]]
        return
    same(*pair(**words), ids)


@pytest.mark.parametrize("words", WORDS, ids=str)
@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
def test_every_word_of_a_bag(words, mode):
    if mode == "max" and (words.get("sparse") or words.get("scale_grad_by_freq")):
        return  # refused by torch itself
    ours, theirs = pair(nn.EmbeddingBag, mode=mode, **words)
    same(ours, theirs, torch.tensor([[1, 2, 29], [4, 2, 0]]))
    flat, starts = torch.tensor([1, 2, 29, 4, 0]), torch.tensor([0, 2, 2])
    same(ours, theirs, flat, starts)
    if mode == "sum":
        weights = torch.linspace(-1, 2, 5)
        same(ours, theirs, flat, starts, weights)


def test_max_norm_set_later_holds():
    ours, theirs = pair()
    ours.max_norm = theirs.max_norm = 0.5
    same(ours, theirs, IDS)
    assert float(ours.weight[29].detach().norm()) == pytest.approx(0.5, rel=1e-3)
    assert float(ours.weight[20].detach().norm()) > 0.5


def test_max_norm_checks_ids_first():
    ours, _ = pair(max_norm=0.5)
    before = ours.weight.detach().clone()
    with pytest.raises(IndexError, match="30 at"):
        ours(torch.tensor([1, 30]))
    assert torch.equal(ours.weight, before)


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("plain", [False, True])
def test_a_padding_row_set_by_hand_is_read_and_does_not_learn(sparse, plain):
    from contextlib import nullcontext

    from bitfold import plain_torch

    ours, theirs = pair(padding_idx=2, sparse=sparse)
    for module in (ours, theirs):
        assert not module.weight[2].any()
        with torch.no_grad():
            module.weight[2] = 7.0
    with plain_torch() if plain else nullcontext():
        assert (ours(torch.tensor(2)) == 7).all()
        same(ours, theirs, IDS)
    ours.reset_parameters()
    assert not ours.weight[2].any()


def test_a_padding_row_set_by_hand_is_read_under_a_compiler():
    ours, _ = pair(padding_idx=2)
    with torch.no_grad():
        ours.weight[2] = 7.0
    fast = torch.compile(ours, backend="aot_eager", fullgraph=True)
    out = fast(IDS)
    assert torch.equal(out, ours(IDS))
    out.sum().backward()
    assert not ours.weight.grad[2].any()
    assert ours.weight.grad[1].any()


def test_a_padding_row_set_by_hand_stays_where_rows_move_within_backward():
    from bitfold.optim import SGD

    ours, _ = pair(padding_idx=2)
    with torch.no_grad():
        ours.weight[2] = 7.0
    SGD(ours.parameters(), lr=0.1, weight_decay=0.5).into_backward(ours)
    before = ours.weight.detach().clone()
    ours(IDS).sum().backward()
    assert torch.equal(ours.weight[2], before[2])
    assert not torch.equal(ours.weight[1], before[1])


def test_the_row_of_a_later_padding_idx():
    ours, theirs = pair()
    ours.padding_idx = theirs.padding_idx = 29
    same(ours, theirs, IDS)


def test_a_given_table_is_kept_and_not_copied():
    table = torch.randn(V, D, dtype=torch.float64)
    state = torch.get_rng_state()
    for module in (
        Embedding(V, D, _weight=table, method="full"),
        EmbeddingBag(V, D, _weight=table, method="full"),
        Embedding.from_pretrained(table),
        EmbeddingBag.from_pretrained(table, mode="sum"),
    ):
        assert module.weight.data_ptr() == table.data_ptr()
        assert module.weight.dtype == torch.float64
    assert torch.equal(torch.get_rng_state(), state)
    assert Embedding(V, D, _weight=table, method="full").weight.requires_grad
    assert not Embedding(V, D, _weight=table, _freeze=True, method="full").weight.requires_grad
    assert not Embedding.from_pretrained(table).weight.requires_grad
    assert EmbeddingBag.from_pretrained(table, freeze=False).weight.requires_grad
    padded = Embedding.from_pretrained(table, padding_idx=-1)
    assert padded.padding_idx == V - 1
    assert torch.equal(padded(torch.tensor(V - 1)), table[-1])  # as torch: no zeros put there
    assert torch.equal(Embedding.from_pretrained(table)(IDS), nn.functional.embedding(IDS, table))


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (lambda: Embedding(V, D, _weight=torch.zeros(V, D + 1), method="full"), "shape"),
        (lambda: Embedding(V, D, _weight=[1.0], method="full"), "shape"),
        (lambda: Embedding.from_pretrained(torch.zeros(V)), "two-dimensional"),
        (lambda: Embedding.from_pretrained([[1.0]]), "two-dimensional"),
        (lambda: Embedding.from_pretrained(torch.zeros(V, D).long()), "floating"),
        (lambda: Embedding.from_pretrained(torch.zeros(V, D), budget="4x", counts=[1]), "counts"),
    ],
)
def test_a_table_that_cannot_be_is_refused(bad, message):
    with pytest.raises(BitfoldError, match=message):
        bad()


def test_positional_max_norm_of_a_bag():
    ours, theirs = (
        kind(V, D, 1, mode="sum", **words)
        for kind, words in ((EmbeddingBag, {"method": "full", "std": 1.0}), (nn.EmbeddingBag, {}))
    )
    assert ours.max_norm == 1
    assert ours.padding_idx is None
    theirs.weight.data.copy_(ours.weight.data)
    same(ours, theirs, torch.tensor([[1, 1], [2, 3]]))
