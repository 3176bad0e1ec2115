"""Retrieval at its limits: users who took all, broken weights, what is out of range."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import bitfold
from bitfold.data.config import DataConfig
from bitfold.data.prepare import prepare
from bitfold.data.prepared import PreparedLog
from bitfold.errors import BitfoldError, Diverged
from bitfold.retrieval import negatives
from bitfold.retrieval.index import Approximate
from bitfold.retrieval.job import retrieve
from bitfold.retrieval.loop import Trainer
from bitfold.retrieval.losses import bpr_loss
from bitfold.retrieval.lowbit import LowBit
from bitfold.retrieval.measuring import item_vectors, overlap
from bitfold.retrieval.negatives import hard, nearest
from bitfold.retrieval.positives import Layout, Positives
from bitfold.retrieval.remarnet import Heads
from bitfold.retrieval.retriever import Retriever
from click_log import write
from retrieval_log import READING, TINY, taken


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> PreparedLog:
    """Users of which some took nearly all items."""
    columns = taken(users=30, items=20, each=4)
    for user, count in (("u0", 19), ("u1", 20)):
        for item in range(count):
            columns["user"].append(user)
            columns["item"].append(f"i{item}")
            columns["kind"].append(f"k{item % 5}")
    folder = tmp_path_factory.mktemp("limits")
    reading = replace(READING, split="random:0.8,0.1,0.1")
    return prepare(write(folder / "taken.csv", columns), folder / "log", reading)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Retriever:
    folder = tmp_path_factory.mktemp("trained")
    csv = write(folder / "taken.csv", taken(users=20, each=5))
    return retrieve(csv, READING, replace(TINY, epochs=1), folder / "run")


def test_hard_negatives_are_never_taken_where_there_are_others(log: PreparedLog) -> None:
    found = Positives.of(log, Layout.of(log.schema, None, 0))
    size = len(found.items.ids)
    near = nearest(found, torch.randn(len(found.users), 4), torch.randn(size, 4), 200)
    users = np.repeat(np.arange(len(found.users)), 50)
    drawn = hard(found, near, users, 4, np.random.default_rng(0))
    full = np.diff(found.starts)[users] == size
    assert not found.has(users[:, None], drawn)[~full].any()
    one = drawn[users == 3]
    assert len(np.unique(one)) == size - np.diff(found.starts)[3]  # all others are drawn


@pytest.mark.parametrize("options", [{"loss": "bpr"}, {"popularity": 0.5}, {}])
def test_what_a_user_took_is_no_negative_of_the_row(
    log: PreparedLog, tmp_path: Path, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every drawn negative that was taken is told as hidden, and training stays finite."""
    own, met = Trainer._own, []
    monkeypatch.setattr(negatives, "TRIES", 0)

    def watched(self, owners, draw):  # type: ignore[no-untyped-def]
        vectors, places, hidden = own(self, owners, draw)
        if places is not None:
            right = self.positives.has(owners[:, None], places)
            met.append(int(right.sum()))
            assert np.array_equal(right, right & False if hidden is None else hidden.numpy())
        return vectors, places, hidden

    monkeypatch.setattr(Trainer, "_own", watched)
    config = replace(TINY, epochs=3, patience=0, hard=4, hard_depth=20, sampled=2, **options)
    run = retrieve(log.path, None, config, tmp_path / "run")
    assert sum(met) > 0 or config.loss != "bpr"
    assert torch.isfinite(run.rows.read()).all()


def test_hidden_pairs_count_for_nothing() -> None:
    torch.manual_seed(0)
    users, items, own = torch.randn(2, 3), torch.randn(2, 3), torch.randn(2, 2, 3)
    hidden = torch.tensor([[False, True], [False, False]])
    found = bpr_loss(users, items, own, 0.5, hidden)
    each = [
        bpr_loss(users[row : row + 1], items[row : row + 1], own[row : row + 1, [column]], 0.5)
        for row, column in ((0, 0), (1, 0), (1, 1))
    ]
    torch.testing.assert_close(found, torch.stack(each).mean())
    assert bpr_loss(users, items, own, 0.5, torch.ones(2, 2, dtype=torch.bool)) == 0


def test_prototypes_have_the_prior_of_their_item(log: PreparedLog, tmp_path: Path) -> None:
    config = replace(TINY, cold="remarnet", popularity=0.5, index_bits=32)
    run = retrieve(log.path, None, config, tmp_path / "run")
    found = Positives.of(log, run.layout)
    heads = Heads.of(run.model, found)
    items = item_vectors(run.model, found)
    assert heads.prototypes.shape == items.shape == (len(found.items.ids), TINY.width + 1)
    torch.testing.assert_close(heads.prototypes[:, -1], items[:, -1])
    clicked = torch.from_numpy(heads.clicks > 0)
    lengths = heads.prototypes[clicked, :-1].norm(dim=1)
    torch.testing.assert_close(lengths, torch.ones_like(lengths))


def test_what_cannot_be_ranked_is_refused_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A test part whose items all are those that its users have in training."""
    columns = taken(users=10, items=20, each=4)
    columns = {name: [*values, *values[:8]] for name, values in columns.items()}
    columns["part"] = ["train"] * 40 + ["test"] * 8
    reading = DataConfig(
        fields=("user", "item"), group="user", item="item", split="column:part", negatives=1
    )
    csv = write(tmp_path / "taken.csv", columns)

    def step(self, rows):  # type: ignore[no-untyped-def]
        raise AssertionError("it trains")

    monkeypatch.setattr(Trainer, "_step", step)
    with pytest.raises(BitfoldError, match="nothing to rank for"):
        retrieve(csv, reading, TINY, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("split", ["random:1,0,0", "last:0,1", "last:1,1"])
@pytest.mark.parametrize(
    "broken", [{"similarity": "dot", "lr": 1e30}, {"similarity": "cosine", "lr": 1e38}]
)
def test_weights_that_the_last_step_broke_are_not_given_out(
    tmp_path: Path, split: str, broken: dict[str, Any]
) -> None:
    csv = write(tmp_path / "taken.csv", taken())
    config = replace(TINY, epochs=1, batch_size=10**6, **broken)
    with pytest.raises(Diverged):
        retrieve(csv, replace(READING, split=split), config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("error", [MemoryError("Unable to allocate 9 TiB"), RuntimeError(
    "[enforce fail at alloc_cpu.cpp:127] . DefaultCPUAllocator: can't allocate memory: you tried"
)])  # fmt: skip
def test_too_little_memory_is_said_and_nothing_is_left(
    tmp_path: Path, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def step(self, rows):  # type: ignore[no-untyped-def]
        raise error

    monkeypatch.setattr(Trainer, "_step", step)
    csv = write(tmp_path / "taken.csv", taken())
    with pytest.raises(BitfoldError, match="not enough memory") as raised:
        retrieve(csv, READING, TINY, tmp_path / "run")
    assert str(error)[:20] in str(raised.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("bits", [8, 4])
def test_vectors_too_large_for_their_step_are_refused(bits: int) -> None:
    most = (2 ** (bits - 1) - 1) * 65504.0
    assert torch.isfinite(LowBit.of(torch.full((2, 3), most), bits).read()).all()
    with pytest.raises(BitfoldError, match=f"cannot be kept in {bits} bits"):
        LowBit.of(torch.tensor([[1.0], [most * 1.01]]), bits)


def test_the_overlap_is_a_share_of_each_question() -> None:
    exact, found = torch.tensor([[1, 2, 3], [4, 5, 6]]), torch.tensor([[3, 9, 1], [-1, -1, 4]])
    assert overlap(exact, found) == pytest.approx(3 / 6)


@pytest.mark.parametrize("users", ["u1", b"u1"])
def test_a_text_alone_is_no_list(trained: Retriever, users: Any) -> None:
    with pytest.raises(BitfoldError, match="one value was given"):
        trained.search(users, 3)
    with pytest.raises(BitfoldError, match="one value was given"):
        trained.ids_of(users)


@pytest.mark.parametrize("k", [0, -1, 2.5, True, "5", 2**31])
def test_depths_that_cannot_be(trained: Retriever, k: Any) -> None:
    with pytest.raises(BitfoldError, match=r"k is too small|k cannot be"):
        trained.search(["u1"], k)


def test_any_iterable_is_searched(trained: Retriever) -> None:
    right = trained.search(["u1", "u2"], 3)[0]
    assert np.array_equal(trained.search(iter(["u1", "u2"]), 3)[0], right)  # type: ignore[arg-type]
    with pytest.raises(BitfoldError, match="'u99'"):
        trained.search({"u99"}, 3)  # type: ignore[arg-type]
    every = len(trained.item_ids)
    assert trained.search(["u1"], 1000)[0].shape == (1, every)
    assert trained.search([], 1000)[0].shape == (0, every)


def test_ids_of_a_dense_log(tmp_path: Path) -> None:
    columns = taken(users=20, each=5)
    table = {name: [value[1:] for value in columns[name]] for name in ("user", "item")}
    reading = DataConfig(
        fields=("user", "item"), group="user", item="item", split="last:1,1", ids="dense"
    )
    csv = write(tmp_path / "taken.csv", table)
    run = retrieve(csv, reading, replace(TINY, epochs=1), tmp_path / "run")
    known = int(run.item_ids[0])
    found = run.ids_of([known, str(known), float(known), 1.7, "a", None, 2**70, -1, float("nan")])
    assert found.tolist() == [known] * 3 + [-1] * 6


@pytest.mark.parametrize("kind", ["hnsw", "ivf"])
def test_few_items_and_much_effort(kind: str, capfd: pytest.CaptureFixture[str]) -> None:
    """What an index finds too few of is -1 and -inf, and its library says nothing of its own."""
    index = Approximate.build(torch.eye(3), kind, 32, 2**31 - 1)
    scores, places = index.search(torch.eye(3), 5)
    assert index.effort == 3  # of candidates and cells, each of which takes memory
    assert places.shape == (3, 3)
    assert torch.equal(places[:, 0], torch.arange(3))
    assert torch.equal(scores == -torch.inf, places == -1)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "options",
    [{name: 10**20} for name in ("batch_size", "memory_size", "rank_users", "hard_depth", "epochs",
        "checkpoint_steps", "index_effort", "history", "sampled", "hard")]
    + [{"rank_at": (10**20,), "best_by": "mrr"}, {"hidden": (4 * 10**9,)}, {"temperature": 1e-320},
        {"noise": 1e-320}],
)  # fmt: skip
def test_options_that_no_machine_has_room_for(options: dict[str, Any]) -> None:
    with pytest.raises(BitfoldError, match=next(iter(options)) + "|towers' network"):
        replace(TINY, **options)


def test_ranks_far_beyond_the_items_are_those_of_all(log: PreparedLog, tmp_path: Path) -> None:
    config = replace(TINY, epochs=1, rank_at=(20, 2**31 - 1), best_by="mrr")
    metrics = retrieve(log.path, None, config, tmp_path / "run").metrics
    for name in ("recall", "ndcg"):
        assert metrics[f"{name}@{2**31 - 1}"] == pytest.approx(metrics[f"{name}@20"])


def test_a_text_in_python_is_told(trained: Retriever) -> None:
    with pytest.raises(BitfoldError, match="batch_size is out of range"):
        bitfold.retrieve(taken(), batch_size=10**20)


def test_items_learn_from_the_batch_and_users_from_the_memory_too(
    log: PreparedLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gradient of the batch's items is half of what it is without a memory."""
    step, vectors, grads = Trainer._vectors, [], []

    def watched(self, *given):  # type: ignore[no-untyped-def]
        users, items = (each.detach().requires_grad_() for each in step(self, *given))
        vectors.append((users, items))
        return users, items

    def without(self, rows):  # type: ignore[no-untyped-def]
        draw, memory = self._loss(rows), self.memory
        self.memory = None
        alone = self._loss(rows)
        self.memory = memory
        (users, items), (plain_users, plain_items) = vectors[-2:]
        draw.backward()
        alone.backward()
        grads.append((users.grad, plain_users.grad, items.grad, plain_items.grad, len(memory)))
        return float(draw.detach())

    monkeypatch.setattr(Trainer, "_vectors", watched)
    monkeypatch.setattr(Trainer, "_step", without)
    config = replace(TINY, memory="plain", memory_size=64, memory_after=0, epochs=1)
    retrieve(log.path, None, config, tmp_path / "run")
    assert len(grads) > 1
    for number, (users, plain_users, items, plain_items, held) in enumerate(grads):
        assert held == 64
        share = 1.0 if number == 0 else 0.5  # nothing is stored before the first step
        torch.testing.assert_close(items, share * plain_items)
        assert torch.allclose(users, plain_users) == (number == 0)
