"""The parts of retrieval, each held against a small case by hand or against brute force."""

import math

import numpy as np
import pytest
import torch

from bitfold.errors import BitfoldError
from bitfold.retrieval import in_blocks
from bitfold.retrieval.in_blocks import Shared
from bitfold.retrieval.index import Approximate, Exact, build_index
from bitfold.retrieval.losses import bpr_loss, softmax_loss
from bitfold.retrieval.lowbit import LowBit
from bitfold.retrieval.measuring import overlap
from bitfold.retrieval.memory import Memory, made, weighed
from bitfold.retrieval.moments import Moments, moments, renormalised
from bitfold.retrieval.options import RetrieveConfig
from bitfold.retrieval.towers import Tower


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_the_filter_by_hand() -> None:
    """Walk 1, noise 2, measurements 4, 7, 1: the uncertainty is 2; 3, 6/5; 11/5, 22/21."""
    kalman = Moments(walk=1.0, noise=2.0)
    assert kalman.update(torch.tensor([[4.0]])).item() == 4
    assert kalman.update(torch.tensor([[7.0]])).item() == pytest.approx(4 + 3 / 5 * 3)
    assert kalman.uncertain is not None
    assert kalman.uncertain.item() == pytest.approx(6 / 5)
    gain = (11 / 5) / (11 / 5 + 2)
    assert kalman.update(torch.tensor([[1.0]])).item() == pytest.approx(5.8 + gain * (1 - 5.8))
    assert kalman.uncertain.item() == pytest.approx((1 - gain) * 11 / 5)


def test_the_filter_without_a_walk_is_the_running_mean() -> None:
    kalman, values = Moments(walk=0.0, noise=0.5), drawn(9, 2, 3)
    for number, value in enumerate(values, 1):
        found = kalman.update(value)
        torch.testing.assert_close(found, values[:number].mean(0))


def test_the_filter_that_walks_far_takes_the_last_measurement() -> None:
    kalman = Moments(walk=1e9, noise=1e-3)
    for value in drawn(4, 2, 3):
        torch.testing.assert_close(kalman.update(value), value)


def test_renormalised_vectors_have_the_moments_asked_for() -> None:
    held, current = drawn(40, 5) * 3 + 1, drawn(2, 5, seed=1).abs()
    found = renormalised(held, moments(held), current)
    torch.testing.assert_close(moments(found), current)
    back = renormalised(found, moments(found), moments(held))
    torch.testing.assert_close(back, held)


def test_a_number_that_all_vectors_share_is_moved_and_not_scaled() -> None:
    held = torch.full((3, 1), 2.0)
    found = renormalised(held, moments(held), torch.tensor([[5.0], [4.0]]))
    assert found.flatten().tolist() == [5, 5, 5]


def test_the_memory_keeps_the_last_ones() -> None:
    memory, every = Memory(5, "plain"), drawn(23, 2)
    for start in range(0, 23, 3):
        rows = torch.arange(start, min(start + 3, 23))
        memory.put(every[rows], rows)
    assert sorted(memory.places.tolist()) == [18, 19, 20, 21, 22]
    assert torch.equal(memory.vectors, every[memory.places])


def test_a_batch_larger_than_the_memory_leaves_its_end() -> None:
    memory = Memory(2, "plain")
    memory.put(drawn(5, 3), torch.arange(5))
    assert memory.places.tolist() == [3, 4]


@pytest.mark.parametrize("kind", ["batch", "adaptive"])
def test_a_memory_that_drifted_is_brought_to_the_current_moments(kind: str) -> None:
    """The tower moved by a shift and a scale: what was stored is what it would make now."""
    before = drawn(64, 4)
    after = before * torch.tensor([2.0, 0.5, 1.0, 3.0]) + 1
    memory = Memory(64, kind, walk=1e9, noise=1e-6)
    memory.read(before)
    memory.put(before, torch.arange(64))
    torch.testing.assert_close(memory.read(after), after, rtol=1e-4, atol=1e-4)
    assert torch.equal(memory.vectors, before)  # nothing is lost by reading


def test_a_plain_memory_is_read_as_it_was_stored() -> None:
    memory = Memory(8, "plain")
    memory.put(drawn(8, 4), torch.arange(8))
    assert torch.equal(memory.read(drawn(8, 4) + 9), drawn(8, 4))


def test_unit_vectors_stay_so() -> None:
    memory = Memory(16, "adaptive", unit=True)
    memory.read(drawn(16, 4))
    memory.put(torch.nn.functional.normalize(drawn(16, 4), dim=1), torch.arange(16))
    torch.testing.assert_close(memory.read(drawn(16, 4, seed=3)).norm(dim=1), torch.ones(16))


def test_a_memory_goes_on_from_its_tensors() -> None:
    first, second = (Memory(5, "adaptive", walk=0.3, noise=0.2) for _ in range(2))
    for seed in range(3):
        first.read(drawn(3, 2, seed=seed))
        first.put(drawn(3, 2, seed=seed), torch.arange(3))
    second.load({name: each.clone() for name, each in first.tensors().items()})
    for memory in (first, second):
        memory.put(drawn(3, 2, seed=9), torch.arange(3))
    assert torch.equal(first.read(drawn(4, 2)), second.read(drawn(4, 2)))
    assert torch.equal(first.places, second.places)
    assert made("none", 5, walk=1, noise=1, unit=True) is None


def test_the_softmax_is_the_loop_over_rows() -> None:
    users, items, more, own = drawn(4, 3), drawn(4, 3, seed=1), drawn(5, 3, seed=2), drawn(4, 2, 3)
    places, others = [7, 8, 7, 9], [8, 1, 2, 7, 3]
    q, q_more = drawn(4, seed=3), drawn(5, seed=4)
    shared = Shared(more, torch.tensor(others), q_more)
    found = softmax_loss(users, items, torch.tensor(places), 0.5, q, (shared,), own)
    total = 0.0
    for row in range(4):
        scores = [
            float(users[row] @ items[column] / 0.5 - q[column])
            for column in range(4)
            if column == row or places[column] != places[row]
        ]
        scores += [
            float(users[row] @ more[column] / 0.5 - q_more[column])
            for column in range(5)
            if others[column] != places[row]
        ]
        scores += [float(users[row] @ each / 0.5) for each in own[row]]
        right = float(users[row] @ items[row] / 0.5 - q[row])
        total -= right - math.log(sum(map(math.exp, scores)))
    assert float(found) == pytest.approx(total / 4, rel=1e-5)


def test_what_was_taken_is_no_negative() -> None:
    """Row 0 without its second column of the batch and the first of the others."""
    users, items, more = drawn(3, 4), drawn(3, 4, seed=1), drawn(2, 4, seed=2)
    places, shared = torch.arange(3), Shared(more, torch.tensor([8, 9]))
    taken = (torch.tensor([0, 0, 0]), torch.tensor([0, 1, 3]))
    found = softmax_loss(users, items, places, 1.0, None, (shared,), None, taken)
    scores = users @ torch.cat([items, more]).T
    first = scores[0, [0, 2, 4]].logsumexp(0) - scores[0, 0]
    others = scores[1:].logsumexp(1) - scores[[1, 2], [1, 2]]
    torch.testing.assert_close(found, (first + others.sum()) / 3)


@pytest.mark.parametrize("scores", [1, 40, 1 << 18])
@pytest.mark.parametrize("hardest", [0, 3])
@pytest.mark.parametrize("further", [False, True])
def test_blocks_change_neither_the_loss_nor_its_gradients(
    scores: int, hardest: int, further: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against one matrix of all scores, under autograd."""
    monkeypatch.setattr(in_blocks, "SCORES", scores)
    leaves = [drawn(7, 4), drawn(7, 4, seed=1), drawn(9, 4, seed=2), drawn(7, 2, 4, seed=3)]
    users, items, more, own = (each.double().requires_grad_() for each in leaves)
    places, others = torch.tensor([4, 1, 4, 2, 5, 1, 0]), torch.arange(9)
    q, q_more, prior = drawn(7, seed=4), drawn(9, seed=5), drawn(7, 2, seed=6)
    taken = (torch.tensor([6, 0, 3, 3]), torch.tensor([6, 2, 15, 1]))
    every = [users, items, more, *([own] if further else [])]
    found = softmax_loss(
        users,
        items,
        places,
        0.5,
        q,
        (Shared(more, others, q_more, hardest),),
        own if further else None,
        taken,
        prior if further else None,
        0.25,
    )
    near = users @ items.T / 0.5 - q - 0.5 * torch.eye(7)
    near = near.masked_fill(
        (places[:, None] == places) & ~torch.eye(7, dtype=torch.bool), -math.inf
    )
    far = (users @ more.T / 0.5 - q_more).masked_fill(places[:, None] == others, -math.inf)
    near[[0, 3], [2, 1]] = -math.inf
    far[3, 8] = -math.inf
    far = far.topk(hardest, dim=1).values if hardest else far
    theirs = [(own @ users[:, :, None]).squeeze(2) / 0.5 + prior] if further else []
    logits = torch.cat([near, far, *theirs], dim=1)
    right = torch.nn.functional.cross_entropy(logits, torch.arange(7))
    torch.testing.assert_close(found, right)
    expected = torch.autograd.grad(3 * right, every)
    for one, other in zip(torch.autograd.grad(3 * found, every), expected, strict=True):
        torch.testing.assert_close(one, other)


def test_only_the_hardest_of_the_memory_count() -> None:
    users, items, more = drawn(3, 4), drawn(3, 4, seed=1), drawn(6, 4, seed=2)
    places = torch.arange(3)
    some = softmax_loss(
        users, items, places, 1.0, None, (Shared(more, torch.arange(10, 16), hardest=2),)
    )
    best = more[(users @ more.T).topk(2).indices]
    torch.testing.assert_close(some, softmax_loss(users, items, places, 1.0, None, (), best))


def test_the_correction_leaves_equal_shares_alone() -> None:
    users, items = drawn(5, 3), drawn(5, 3, seed=1)
    places = torch.arange(5)
    plain = softmax_loss(users, items, places, 1.0)
    torch.testing.assert_close(
        softmax_loss(users, items, places, 1.0, torch.full((5,), -3.0)), plain
    )


def test_the_correction_finds_the_full_softmax() -> None:
    """Items drawn by a share q, with log q taken off: the gradient that all items would give."""
    torch.manual_seed(0)
    users, items = drawn(1, 4), drawn(50, 4, seed=1) * 0.5
    q = torch.softmax(drawn(50, seed=2), 0)
    count = 200_000
    places = torch.multinomial(q, count, replacement=True)
    drawn_scores = (users @ items[places].T - q[places].log()).logsumexp(1) - math.log(count)
    assert float(drawn_scores) == pytest.approx(float((users @ items.T).logsumexp(1)), abs=0.05)


def test_a_memory_counts_for_as_many_batches_as_it_is_said() -> None:
    """Equal scores: three of the batch and twelve that count for two batches are nine."""
    users, items, more = torch.zeros(3, 2), drawn(3, 2), drawn(12, 2)
    for log_q in (None, torch.zeros(12)):
        shared = Shared(more, torch.arange(20, 32), weighed(log_q, 12, 3, 2.0))
        found = softmax_loss(users, items, torch.arange(3), 1.0, None, (shared,))
        assert float(found) == pytest.approx(math.log(9))
    assert weighed(None, 12, 3, 0) is None


def test_pairs_by_hand() -> None:
    users, items, own = torch.ones(1, 1), torch.tensor([[3.0]]), torch.tensor([[[1.0], [3.0]]])
    expected = (math.log1p(math.exp(-2)) + math.log(2)) / 2
    assert float(bpr_loss(users, items, own, 1.0)) == pytest.approx(expected)


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("width", [1, 6, 7])
def test_few_bits_are_half_a_step_away_at_most(bits: int, width: int) -> None:
    vectors = drawn(30, width)
    rows = LowBit.of(vectors, bits)
    steps = vectors.abs().amax(1, keepdim=True) / (2 ** (bits - 1) - 1)
    assert ((rows.read() - vectors).abs() <= steps * 0.51).all()
    assert torch.equal(rows.read(3, 9), rows.read()[3:9])
    assert rows.bytes == 30 * (math.ceil(width * bits / 8) + 2)


def test_rows_of_zeros_are_read_as_zeros() -> None:
    for bits in (8, 4):
        assert not LowBit.of(torch.zeros(2, 5), bits).read().any()
        assert not LowBit.of(torch.full((2, 5), 1e-12), bits).read().any()


def test_exact_search_is_the_sorted_product() -> None:
    items, questions = drawn(300, 8), drawn(7, 8, seed=1)
    scores, places = Exact(LowBit.of(items, 32)).search(questions, 10)
    order = (questions @ items.T).argsort(dim=1, descending=True)[:, :10]
    assert torch.equal(places, order)
    torch.testing.assert_close(scores, (questions @ items.T).gather(1, order))
    assert Exact(LowBit.of(items, 8)).search(questions, 400)[1].shape == (7, 300)


@pytest.mark.parametrize("kind", ["hnsw", "ivf"])
@pytest.mark.parametrize("bits", [32, 8, 4])
def test_approximate_search_finds_most(kind: str, bits: int) -> None:
    pytest.importorskip("faiss")
    items, questions = drawn(2000, 16), drawn(40, 16, seed=1)
    index = build_index(items, kind, bits, 200)
    assert isinstance(index, Approximate)
    exact = Exact(LowBit.of(items, 32)).search(questions, 10)[1]
    assert overlap(exact, index.search(questions, 10)[1]) > (0.6 if bits == 4 else 0.95)
    assert index.bytes > 2000 * 16 * bits // 8
    again = build_index(items, kind, bits, 200)
    assert isinstance(again, Approximate)
    assert np.array_equal(index.content, again.content)
    loaded = Approximate.load(index.content, 200)
    assert torch.equal(loaded.search(questions, 10)[1], index.search(questions, 10)[1])


def test_without_faiss_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "faiss", None)
    with pytest.raises(BitfoldError, match=r"bitfold\[retrieval\]"):
        build_index(drawn(50, 4), "hnsw", 32, 10)
    assert build_index(drawn(50, 4), "exact", 8, 10).bytes == 50 * 6


def test_a_tower_joins_its_own_fields() -> None:
    vectors = drawn(3, 4, 2)
    plain = Tower([0, 2], 0, 2, unit=False)
    torch.testing.assert_close(plain(vectors, torch.empty(3, 0)), vectors[:, 0] + vectors[:, 2])
    mean = Tower([0, 2], 0, 2, pooling="mean", unit=False)
    torch.testing.assert_close(mean(vectors, torch.empty(3, 0)), vectors[:, [0, 2]].mean(1))
    deep = Tower([1], 2, 2, hidden=(5,), unit=True)
    found = deep(vectors, torch.ones(3, 2))
    torch.testing.assert_close(found.norm(dim=1), torch.ones(3))
    assert not torch.equal(found, deep(vectors, torch.zeros(3, 2)))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"temperature": 0}, "temperature is out of range"),
        ({"width": 0}, "width is out of range"),
        ({"batch_size": 1.5}, "batch_size is out of range"),
        ({"memory": "long"}, "memory"),
        ({"index_bits": 16}, "index_bits"),
        ({"best_by": "recall@7"}, "figure to choose an epoch by"),
        ({"loss": "bpr", "memory": "plain"}, "a memory holds further negatives"),
        ({"loss": "bpr", "popularity": 1}, "the share of popularity"),
        ({"dropout": 1.0}, "network cannot be built"),
        ({"walk": float("nan")}, "walk is out of range"),
        ({"lr_end": 1.5}, "lr_end is out of range"),
        ({"noise": 0}, "noise is out of range"),
        ({"seed": 2**63}, "seed is out of range"),
    ],
)
def test_options_that_cannot_be(options: dict[str, object], said: str) -> None:
    with pytest.raises(BitfoldError, match=said):
        RetrieveConfig(**options)  # type: ignore[arg-type]
    assert RetrieveConfig(rank_at=(5,), best_by="ndcg@5", loss="bpr").best_by == "ndcg@5"
