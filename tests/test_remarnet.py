"""Cold items in retrieval: prototypes, both heads, their weights, against cases by hand."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bitfold.data.prepare import prepare
from bitfold.data.prepared import PreparedLog
from bitfold.errors import BitfoldError
from bitfold.files import read_tensors
from bitfold.ranking import RankConfig, Ranking
from bitfold.retrieval import checkpoint
from bitfold.retrieval.by_clicks import pair_figures
from bitfold.retrieval.folder import load
from bitfold.retrieval.job import retrieve
from bitfold.retrieval.loop import Trainer
from bitfold.retrieval.losses import softmax_loss
from bitfold.retrieval.measuring import asked_vectors, item_vectors, user_vectors
from bitfold.retrieval.options import RetrieveConfig
from bitfold.retrieval.positives import Positives
from bitfold.retrieval.prototypes import batch_prototypes, clicks, prototypes, relation_loss
from bitfold.retrieval.remarnet import Heads, Weights, among, leaned, leaning, ranges
from bitfold.retrieval.retriever import Retriever
from click_log import write
from command import bitfold
from interrupting import stopped_after
from retrieval_log import READING, TINY, taken

COLD = replace(TINY, cold="remarnet", index_bits=32)


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> PreparedLog:
    folder = tmp_path_factory.mktemp("remarnet")
    return prepare(write(folder / "taken.csv", taken()), folder / "log", READING)


@pytest.fixture(scope="module")
def trained(log: PreparedLog, tmp_path_factory: pytest.TempPathFactory) -> Retriever:
    return retrieve(log.path, None, COLD, tmp_path_factory.mktemp("trained") / "run")


@pytest.fixture(scope="module")
def positives(log: PreparedLog, trained: Retriever) -> Positives:
    return Positives.of(log, trained.layout)


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("unit", [False, True])
def test_a_prototype_is_the_mean_of_the_users_who_took_it(positives: Positives, unit: bool) -> None:
    users = drawn(60, 4)
    found = prototypes(users, positives, unit=unit)
    pairs = set(zip(positives.user.tolist(), positives.item.tolist(), strict=True))
    for item in range(50):
        mine = torch.stack([users[user] for user in range(60) if (user, item) in pairs]).mean(0)
        if unit:
            mine = mine / mine.norm()
        torch.testing.assert_close(found[item], mine)
        assert clicks(positives)[item] == sum((user, item) in pairs for user in range(60))


def test_a_pair_is_no_part_of_its_own_prototype() -> None:
    """Rows 0 and 3 are of one user: neither is in what the other's item is held against."""
    users = torch.tensor([[1.0, 0.0], [0.0, 1.0], [4.0, 2.0], [9.0, 9.0]])
    owners = torch.tensor([0, 1, 2, 0])
    took = torch.eye(4, dtype=torch.bool)
    took[3, 0] = took[0, 3] = True  # one user took both
    took[1, 0] = took[2, 0] = True
    whole, rest, there = batch_prototypes(users, owners, took)
    assert whole[0].tolist() == [3.5, 3.0]  # of all four rows
    assert rest[0].tolist() == [2.0, 1.5]  # of rows 1 and 2
    assert there.tolist() == [True, False, False, False]


def test_nothing_of_a_row_is_in_its_own_prototype() -> None:
    """Sum less own, over n - 1: a row's gradient there is zero, the others' is 1 / (n - 1)."""
    users = drawn(5, 3).requires_grad_()
    took = torch.ones(5, 5, dtype=torch.bool)
    _, rest, there = batch_prototypes(users, torch.arange(5), took)
    assert there.all()
    (grad,) = torch.autograd.grad(rest[2].sum(), users)
    torch.testing.assert_close(grad[2], torch.zeros(3))
    torch.testing.assert_close(grad[[0, 1, 3, 4]], torch.full((4, 3), 0.25))


@pytest.mark.parametrize("unit", [False, True])
def test_the_relation_loss_is_the_loop_over_rows(unit: bool) -> None:
    users, owners = drawn(7, 4), torch.tensor([0, 1, 2, 3, 4, 5, 1])
    took = drawn(7, 7, seed=1) > 0.4
    took[1] = took[6] = took[1] | took[6]
    took.fill_diagonal_(True)
    took[1, 6] = took[6, 1] = True
    took[:, 0] = False
    took[0, 0] = True  # nobody else took the first row's item
    log_q = drawn(7, seed=2)
    losses = []
    for row in range(7):
        scores = []
        for column in range(7):
            rows = [r for r in range(7) if took[r, column]]
            if column == row:
                rows = [r for r in rows if owners[r] != owners[row]]
            elif took[row, column]:
                continue
            if not rows:
                break
            made = users[rows].mean(0)
            made = made / made.norm() if unit else made
            score = float(users[row] @ made) / 0.5 - float(log_q[column])
            scores.insert(0 if column == row else len(scores), score)
        else:
            losses.append(math.log(sum(math.exp(s) for s in scores)) - scores[0])
    assert 2 <= len(losses) < 7
    found = relation_loss(users, owners, took, 0.5, log_q, unit=unit)
    assert float(found) == pytest.approx(sum(losses) / len(losses), rel=1e-5)


def test_a_batch_without_a_second_taker_has_no_relation_loss() -> None:
    users = drawn(3, 2).requires_grad_()
    found = relation_loss(users, torch.arange(3), torch.eye(3, dtype=torch.bool), 0.1, unit=True)
    found.backward()  # type: ignore[no-untyped-call]
    assert found.item() == 0
    assert users.grad is not None
    assert torch.equal(users.grad, torch.zeros(3, 2))


def test_the_margin_by_hand() -> None:
    """A positive at 1, a negative at 0, a margin of 0.5 at temperature 0.5: log(1 + e**-1)."""
    one, places = torch.eye(2), torch.tensor([0, 1])
    found = softmax_loss(one, one, places, 0.5, margin=0.5)
    assert float(found) == pytest.approx(math.log1p(math.exp(-1)), rel=1e-5)
    assert float(softmax_loss(one, one, places, 0.5)) == pytest.approx(math.log1p(math.exp(-2)))


def heads(count: int = 40, width: int = 4) -> Heads:
    return Heads(drawn(count, width), drawn(count, width, seed=1), np.arange(count) % 12)


def test_weights_lean_from_the_tower_to_the_prototype_around_the_mean_item() -> None:
    found = heads()
    known = torch.from_numpy(found.clicks > 0)
    ones, zeros = torch.ones(5), torch.zeros(5)
    torch.testing.assert_close(found.vectors(Weights(ones, zeros)), found.items)
    mean = found.items[known].mean(0)
    assert torch.allclose(found.vectors(Weights(zeros, zeros))[known], mean)
    only = torch.tensor([0.0, 2.0, 0.0, 0.0, 0.0])
    leant = found.vectors(Weights(zeros, only))
    lean = found.prototypes - found.prototypes[known].mean(0)
    twice = found.clicks == 2
    torch.testing.assert_close(leant[twice], mean + 2 * lean[twice])
    torch.testing.assert_close(leant[found.clicks == 5], mean.expand(3, -1))
    # Without a click there is no prototype: the tower's own vector stays.
    torch.testing.assert_close(leant[~known], found.items[~known])


def test_weights_find_what_can_be_trusted(positives: Positives) -> None:
    """Users who choose by the prototypes of cold items and by the vectors of warm ones."""
    draw = np.random.default_rng(0)
    found = Heads(drawn(50, 4), drawn(50, 4, seed=1), np.where(np.arange(50) < 25, 1, 99))
    true = torch.where(torch.from_numpy(found.clicks == 1)[:, None], found.prototypes, found.items)
    users = drawn(4000, 4, seed=2)
    chance = (users @ true.T / 0.5).softmax(1)
    places = np.array([draw.choice(50, p=row / row.sum()) for row in chance.double().numpy()])
    weights = leaning(found, positives, users, np.full(4000, -1), places, 0.5)
    torch.testing.assert_close(weights.own[[0, 4]], torch.tensor([0.0, 1.0]), atol=0.15, rtol=0)
    lean = weights.prototype[[0, 4]]
    torch.testing.assert_close(lean, torch.tensor([1.0, 0.0]), atol=0.15, rtol=0)
    # Clicks that no pair has keep what the tower says.
    assert weights.own[1:4].tolist() == pytest.approx([1] * 3, abs=0.1)
    assert weights.prototype[1:4].tolist() == pytest.approx([0] * 3, abs=1e-3)
    none = leaning(found, positives, users[:0], np.zeros(0, int), np.zeros(0, int), 0.5)
    assert none.own.tolist() == [1] * 5
    assert none.prototype.tolist() == [0] * 5


def test_what_was_taken_in_training_is_no_negative(positives: Positives) -> None:
    """A user's own items are scored as high as can be: only where they count do weights move."""
    found = Heads(drawn(50, 4), drawn(50, 4, seed=1), np.full(50, 99))
    user = int(positives.user[0])
    users, places = drawn(1, 4, seed=3).expand(30, -1), np.full(30, 7)
    known = leaning(found, positives, users, np.full(30, user), places, 0.5)
    unknown = leaning(found, positives, users, np.full(30, -1), places, 0.5)
    assert not torch.allclose(known.own, unknown.own, atol=1e-3)


def test_what_is_indexed_is_both_heads(
    log: PreparedLog, trained: Retriever, positives: Positives
) -> None:
    users = user_vectors(trained.model, positives)
    items = item_vectors(trained.model, positives)
    told = trained.metrics["cold"]["weights"]
    weights = Weights(
        torch.tensor([each["own"] for each in told.values()]),
        torch.tensor([each["prototype"] for each in told.values()]),
    )
    both = Heads(items, prototypes(users, positives, unit=True), clicks(positives))
    torch.testing.assert_close(trained.rows.read(), both.vectors(weights))
    assert not torch.allclose(trained.rows.read(), items, atol=1e-3)
    # One inner product serves both: the index takes what it took, D numbers an item.
    assert trained.metrics["index_bytes"] == 50 * 8 * 4
    assert trained.metrics["cold"]["weights_bytes"] == 2 * 5 * 4
    valid = Ranking.of(log, "valid", COLD.ranking("item", valid=True))
    again, learned = leaned(trained.model, positives, valid, COLD)
    torch.testing.assert_close(again, trained.rows.read())
    torch.testing.assert_close(learned.own, weights.own)
    assert trained.metrics["recall@10"] == pytest.approx(trained.metrics["index_recall@10"])
    saved = load(trained.path)
    assert torch.equal(saved.rows.codes, trained.rows.codes)
    found, scores = saved.search(["u3"], 5)
    best = (saved.vectors_of(["u3"]) @ both.vectors(weights).T).topk(5)
    torch.testing.assert_close(torch.from_numpy(scores), best.values)
    assert found[0].tolist() == saved.item_ids[best.indices[0]].tolist()


def found_range(counts: Any, item: int) -> int:
    return -1 if counts[item] == 0 else int(ranges(counts[item : item + 1])[0])


def test_figures_of_pairs_are_those_of_brute_force(
    log: PreparedLog, trained: Retriever, positives: Positives
) -> None:
    test = Ranking.of(log, "test", RankConfig("item", (10,)))
    users = asked_vectors(trained.model, positives, test)
    items = trained.rows.read()
    counts = np.arange(50) % 12
    found = pair_figures(test, users, items, counts)
    scores = (users @ items.T).numpy()
    asked = test.asked
    pair = 0
    for question in range(len(asked)):
        rest = np.setdiff1d(np.arange(50), asked.masked(question))
        for item in asked.relevant(question):
            mine, others = scores[question, item], scores[question, rest[rest != item]]
            rank = int((others > mine).sum())
            assert found.values["auc"][pair] == pytest.approx((others < mine).mean())
            assert found.values["recall@10"][pair] == (rank < 10)
            kind = [
                o for o in rest if o != item and found_range(counts, o) == found_range(counts, item)
            ]
            below = (scores[question, kind] < mine).mean() if kind else 1
            assert found.values["auc_alike"][pair] == pytest.approx(below)
            gain = 1 / math.log2(rank + 2) if rank < 10 else 0
            assert found.values["ndcg@10"][pair] == pytest.approx(gain)
            assert found.users[pair] == asked.groups[question]
            assert found.range[pair] == found_range(counts, item)
            pair += 1
    assert pair == len(found.users)
    means = found.means()
    assert means["3-4"]["pairs"] == (found.range == 2).sum()
    assert means["3-4"]["auc"] == pytest.approx(found.values["auc"][found.range == 2].mean())
    assert trained.metrics["by_clicks"].keys() <= {"1", "2", "3-4", "5-8", "more"}
    pairs = [each["pairs"] for each in trained.metrics["by_clicks"].values()]
    assert sum(pairs) == len(found.users)


def test_items_that_training_lacks_are_ranked_by_the_tower(
    log: PreparedLog, trained: Retriever, positives: Positives, tmp_path: Path
) -> None:
    """One user's last item is new: with `--rank-items all` it is ranked, too."""
    columns = taken()
    rows = [index for index, user in enumerate(columns["user"]) if user == "u0"]
    columns["item"][rows[-1]] = "new"
    own = prepare(write(tmp_path / "taken.csv", columns), tmp_path / "log", READING)
    run = retrieve(own.path, None, replace(COLD, rank_items="all"), tmp_path / "run")
    known = Positives.of(own, run.layout)
    every = Ranking.of(own, "test", RankConfig("item", (10,), "all"))
    assert len(every.items.ids) == len(run.item_ids) + 1
    vectors = among(run.model, known, every, run.rows.read())
    where = every.items.places(run.item_ids.numpy())
    torch.testing.assert_close(vectors[where], run.rows.read())
    assert torch.isfinite(vectors).all()


@pytest.mark.parametrize(
    "options",
    [
        {"history": 4, "memory": "adaptive", "memory_size": 100},
        {"similarity": "dot", "method": "hash", "budget": "2x", "mask_taken": False, "hard": 2},
    ],
)
def test_resumed_it_is_as_if_it_had_not_been_stopped(
    log: PreparedLog, tmp_path: Path, options: dict[str, Any]
) -> None:
    config = replace(COLD, epochs=3, patience=0, checkpoint_steps=2, **options)
    straight = retrieve(log.path, None, config, tmp_path / "straight")
    with stopped_after(9, of=Trainer):
        retrieve(log.path, None, config, tmp_path / "run")
    assert checkpoint.exists(tmp_path / "run" / "checkpoint")
    with pytest.raises(BitfoldError, match="begun with another margin"):
        retrieve(log.path, None, replace(config, margin=0.3), tmp_path / "run", resume=True)
    resumed = retrieve(log.path, None, config, tmp_path / "run", resume=True)
    assert torch.equal(resumed.rows.codes, straight.rows.codes)
    assert torch.equal(resumed.user_vectors, straight.user_vectors)
    assert resumed.metrics["cold"] == straight.metrics["cold"]
    assert resumed.metrics["by_clicks"] == straight.metrics["by_clicks"]


@pytest.mark.parametrize("options", [{"margin": 0.5}, {"relation": 2.0}, {"relation": 0.0}])
def test_each_head_trains_the_towers(
    log: PreparedLog, trained: Retriever, tmp_path: Path, options: dict[str, Any]
) -> None:
    other = retrieve(log.path, None, replace(COLD, **options), tmp_path / "run")
    one, two = (read_tensors(run.path / "weights.safetensors")[0] for run in (trained, other))
    assert any(not torch.equal(one[name], two[name]) for name in one)


def test_what_cannot_be(tmp_path: Path) -> None:
    for options, said in (
        ({"cold": "warm"}, "cold"),
        ({"margin": -0.1}, "margin is out of range"),
        ({"relation": float("nan")}, "relation is out of range"),
        ({"cold": "remarnet", "loss": "bpr"}, "the margin of remarnet is one in a softmax"),
    ):
        with pytest.raises(BitfoldError, match=said):
            RetrieveConfig(**options)  # type: ignore[arg-type]
    reading = replace(READING, split="random:0.9,0,0.1")
    own = prepare(write(tmp_path / "taken.csv", taken()), tmp_path / "log", reading)
    with pytest.raises(BitfoldError, match="what clicks are worth is learned on a validation"):
        retrieve(own.path, None, COLD, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    assert retrieve(own.path, None, TINY, tmp_path / "plain").metrics["part"] == "test"


def test_the_command(tmp_path: Path) -> None:
    file = write(tmp_path / "taken.csv", taken())
    got = bitfold(
        "retrieve", str(file), "--fields", "user,item", "--group", "user", "--item", "item",
        "--split", "last:1,1", "--method", "full", "--width", "8", "--epochs", "2",
        "--cold", "remarnet", "--margin", "0.05", "--relation", "0.5",
        "--out", str(tmp_path / "run"),
    )  # fmt: skip
    assert got.code == 0, got.err
    assert "5-8 clicks: auc alike" in got.out
    saved = load(tmp_path / "run")
    assert (saved.config.cold, saved.config.margin, saved.config.relation) == (
        "remarnet",
        0.05,
        0.5,
    )
