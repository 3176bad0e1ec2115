"""Retrieval whole: trained, stopped and resumed, measured against brute force, saved, searched."""

import json
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
from bitfold.errors import BitfoldError, BudgetTooSmall
from bitfold.files import read_tensors
from bitfold.ranking import RankConfig, Ranking, Ranks, figures
from bitfold.ranking.figures import mean_by_group
from bitfold.retrieval import checkpoint
from bitfold.retrieval.folder import load
from bitfold.retrieval.job import retrieve
from bitfold.retrieval.loop import Trainer
from bitfold.retrieval.measuring import asked_vectors, item_vectors, user_vectors
from bitfold.retrieval.negatives import hard, nearest, unseen
from bitfold.retrieval.positives import Layout, Positives
from bitfold.retrieval.retriever import Retriever
from click_log import write
from interrupting import stopped_after
from retrieval_log import READING, TINY, taken


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> PreparedLog:
    folder = tmp_path_factory.mktemp("retrieval")
    return prepare(write(folder / "taken.csv", taken()), folder / "log", READING)


@pytest.fixture(scope="module")
def trained(log: PreparedLog, tmp_path_factory: pytest.TempPathFactory) -> Retriever:
    config = replace(TINY, epochs=6, patience=0)
    return retrieve(log.path, None, config, tmp_path_factory.mktemp("trained") / "run")


def positives_of(log: PreparedLog, history: int = 0) -> Positives:
    return Positives.of(log, Layout.of(log.schema, None, history))


def weights(run: Retriever) -> dict[str, torch.Tensor]:
    return read_tensors(run.path / "weights.safetensors")[0]


def test_it_learns_what_users_take(trained: Retriever) -> None:
    """An item of the user's kind is one in ten; popularity knows no kinds."""
    assert trained.metrics["recall@10"] > 0.8
    assert trained.metrics["popularity"]["recall@10"] < 0.4
    assert trained.metrics["index_recall@10"] == pytest.approx(trained.metrics["recall@10"])
    assert trained.metrics["best_epoch"] >= 1


def test_positives_are_the_rows_with_a_positive_label(log: PreparedLog) -> None:
    found = positives_of(log)
    assert len(found) == log.rows["train"] // 2  # a negative is drawn for each
    assert len(found.taken) == len(found)
    assert len(found.users) == 60
    pairs = set(zip(found.user.tolist(), found.item.tolist(), strict=True))
    every = np.array([[(u, i) in pairs for i in range(50)] for u in range(60)])
    assert np.array_equal(found.has(np.arange(60)[:, None], np.arange(50)[None]), every)
    users, places = np.array([4, 9, 4]), np.array([*range(50), 3, 3, 40, 7])
    rows, columns = found.met(users, places)
    expected = {
        (r, c) for r in range(3) for c in range(54) if (int(users[r]), int(places[c])) in pairs
    }
    assert set(zip(rows.tolist(), columns.tolist(), strict=True)) == expected
    assert len(rows) == len(expected) > 0
    shares = torch.tensor([float((found.item == i).sum()) for i in range(50)]) / len(found)
    torch.testing.assert_close(found.log_q, shares.log())


def test_histories_leave_the_item_out(log: PreparedLog) -> None:
    found = positives_of(log, history=3)
    ids: Any = found.item_columns["id:item"]
    everything = found.histories(np.arange(60))
    assert np.diff(everything.offsets).max() == 3
    for draw in (None, np.random.default_rng(0)):
        bags = found.histories(found.user, found.item, draw)
        lengths = np.diff(bags.offsets)
        taken = np.diff(found.starts)[found.user]
        assert np.array_equal(lengths, np.minimum(taken - 1, 3))
        for row in range(len(found)):
            mine = bags.values[bags.offsets[row] : bags.offsets[row + 1]]
            user = found.user[row]
            own = ids[found.taken[found.starts[user] : found.starts[user + 1]]]
            assert ids[found.item[row]] not in mine
            assert np.isin(mine, own).all()
            assert len(set(mine.tolist())) == len(mine)
    nobody = found.histories(np.array([-1, 0]))
    assert nobody.offsets[1] == 0


def test_negatives_are_unseen_and_the_nearest_are_near(log: PreparedLog) -> None:
    found = positives_of(log)
    draw = np.random.default_rng(0)
    assert not found.has(found.user[:, None], unseen(found, found.user, 4, draw)).any()
    torch.manual_seed(0)
    users, items = torch.randn(60, 4), torch.randn(50, 4)
    near = nearest(found, users, items, 5)
    scores = (users @ items.T).numpy()
    scores[found.has(np.arange(60)[:, None], np.arange(50)[None])] = -np.inf
    assert np.array_equal(near, np.argsort(-scores, axis=1)[:, :5])
    picked = hard(found, near, np.array([3, 9]), 8, draw)
    assert np.isin(picked[0], near[3]).all()
    assert np.isin(picked[1], near[9]).all()


def test_the_figures_are_those_of_brute_force(log: PreparedLog, trained: Retriever) -> None:
    ranking = Ranking.of(log, "test", RankConfig("item", (10, 20)))
    dense = trained.layout.dense
    positives = Positives.of(log, Layout.of(log.schema, dense, 0))
    users = asked_vectors(trained.model, positives, ranking)
    items = item_vectors(trained.model, positives)
    scores = (users @ items.T).numpy()
    asked = ranking.asked
    for question in range(len(asked)):
        scores[question, asked.masked(question)] = -np.inf
    relevant = [asked.relevant(question) for question in range(len(asked))]
    found = figures(Ranks.of(scores, relevant, asked.absent), (10, 20))
    for name, values in found.items():
        assert trained.metrics[name] == pytest.approx(mean_by_group(values, asked.groups))
    lists = [np.argsort(-row, kind="stable")[:50] for row in scores]
    whole = ranking.by_lists(lists)
    assert {name: whole[name] for name in found} == pytest.approx(
        {name: trained.metrics[name] for name in found}
    )
    nothing = ranking.by_lists([np.zeros(0, np.int64)] * len(asked))
    assert nothing["recall@20"] == 0


@pytest.mark.parametrize(
    "options",
    [
        {"memory": "adaptive", "memory_size": 100, "sampled": 7},
        {"memory": "batch", "memory_size": 64, "memory_hardest": 5, "lr_end": 0.1},
        {"memory": "plain", "memory_size": 500, "mask_taken": False, "memory_share": 0},
        {"loss": "bpr", "hard": 2, "hard_depth": 10},
        {"popularity": 0.5, "hard": 2, "sampled": 3},
        {"hard": 3, "history": 4, "hidden": (6,), "dropout": 0.2},
        {"similarity": "dot", "pooling": "mean", "method": "hash", "budget": "2x"},
    ],
)
def test_resumed_it_is_as_if_it_had_not_been_stopped(
    log: PreparedLog, tmp_path: Path, options: dict[str, Any]
) -> None:
    config = replace(TINY, epochs=3, patience=0, checkpoint_steps=2, **options)
    straight = retrieve(log.path, None, config, tmp_path / "straight")
    with stopped_after(9, of=Trainer):
        retrieve(log.path, None, config, tmp_path / "run")
    assert checkpoint.exists(tmp_path / "run" / "checkpoint")
    resumed = retrieve(log.path, None, config, tmp_path / "run", resume=True)
    assert weights(resumed).keys() == weights(straight).keys()
    for name, tensor in weights(straight).items():
        assert torch.equal(weights(resumed)[name], tensor), name
    assert torch.equal(resumed.user_vectors, straight.user_vectors)
    assert resumed.metrics["recall@20"] == straight.metrics["recall@20"]
    assert not (resumed.path / "checkpoint").exists()


def test_what_cannot_be_resumed_is_said(log: PreparedLog, tmp_path: Path) -> None:
    with stopped_after(7, of=Trainer):
        retrieve(log.path, None, TINY, tmp_path / "run")
    with pytest.raises(BitfoldError, match="has not ended"):
        retrieve(log.path, None, TINY, tmp_path / "run")
    with pytest.raises(BitfoldError, match="begun with another temperature"):
        retrieve(log.path, None, replace(TINY, temperature=0.2), tmp_path / "run", resume=True)
    retrieve(log.path, None, TINY, tmp_path / "run", resume=True)
    with pytest.raises(BitfoldError, match="exists already"):
        retrieve(log.path, None, TINY, tmp_path / "run")


def test_a_rate_that_falls_ends_where_it_is_said(log: PreparedLog, tmp_path: Path) -> None:
    """An epoch is one step here; at an end of 0 the second moves nothing."""
    config = replace(TINY, batch_size=512)
    one, falling, level = (
        weights(retrieve(log.path, None, replace(config, epochs=epochs, lr_end=end), tmp_path / n))
        for n, epochs, end in (("one", 1, 1.0), ("falling", 2, 0.0), ("level", 2, 1.0))
    )
    name = next(name for name, each in one.items() if each.dtype == torch.float32)
    assert torch.equal(one[name], falling[name])
    assert not torch.equal(one[name], level[name])


def test_a_prior_of_popularity_is_in_scores_and_index(log: PreparedLog, tmp_path: Path) -> None:
    config = replace(TINY, epochs=1, popularity=0.5, temperature=0.2)
    run = retrieve(log.path, None, config, tmp_path / "run")
    rows, users = run.rows.read(), run.user_vectors
    assert rows.shape[1] == users.shape[1] == TINY.width + 1
    assert (users[:, -1] == 1).all()
    positives = Positives.of(log, run.layout)
    expected = 0.1 * (positives.log_q - positives.log_q.mean())
    torch.testing.assert_close(rows[:, -1], expected)
    torch.testing.assert_close(rows[:, :-1].norm(dim=1), torch.ones(len(rows)))
    assert run.metrics["index_recall@20"] == pytest.approx(run.metrics["recall@20"])


def test_the_same_seed_gives_the_same_vectors(log: PreparedLog, tmp_path: Path) -> None:
    config = replace(TINY, epochs=1)
    first, second, other = (
        retrieve(log.path, None, replace(config, seed=seed), tmp_path / name)
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    )
    assert torch.equal(first.user_vectors, second.user_vectors)
    assert torch.equal(first.rows.codes, second.rows.codes)
    assert not torch.equal(first.user_vectors, other.user_vectors)


def test_bytes_are_those_of_what_is_saved(log: PreparedLog, tmp_path: Path) -> None:
    config = replace(TINY, method="hash", budget="3x", index_bits=4, hidden=(6,))
    run = retrieve(log.path, None, config, tmp_path / "run")
    saved = weights(run)
    embeddings = sum(t.nbytes for n, t in saved.items() if n.startswith("embeddings."))
    towers = sum(t.nbytes for n, t in saved.items() if not n.startswith("embeddings."))
    assert run.metrics["bytes"] == run.plan.bytes == embeddings
    assert run.metrics["towers_bytes"] == towers > 0
    assert run.metrics["ratio"] >= 3
    assert run.metrics["index_bytes"] == len(run.item_ids) * (4 + 2)
    with pytest.raises(BudgetTooSmall):
        retrieve(log.path, None, replace(config, budget="9"), tmp_path / "small")
    assert not (tmp_path / "small").exists()


@pytest.mark.parametrize("method", ["pep", "binary-code", "learned-hash"])
def test_methods_with_phases_and_others_train(
    log: PreparedLog, tmp_path: Path, method: str
) -> None:
    config = replace(TINY, method=method, budget="2x", width=8, epochs=2)
    run = retrieve(log.path, None, config, tmp_path / "run")
    assert run.metrics["bytes"] == run.plan.bytes
    assert run.metrics["ratio"] >= 2
    assert torch.isfinite(run.user_vectors).all()


def test_saved_and_loaded_it_searches_alike(trained: Retriever) -> None:
    again = load(trained.path)
    users = ["u3", "u4", "u8"]
    ids, scores = trained.search(users, 10)
    assert np.array_equal(again.search(users, 10)[0], ids)
    assert (np.diff(scores, axis=1) <= 0).all()
    kinds = {
        int(each): place for place, each in enumerate(again.ids_of([f"i{n}" for n in range(50)]))
    }
    assert -1 not in kinds
    right = [
        kinds[each] % 5 == user % 5
        for row, user in zip(ids, (3, 4, 8), strict=True)
        for each in row.tolist()
    ]
    assert np.mean(right) > 0.9
    assert again.ids_of(["i1", "nobody"]).tolist() == [*trained.ids_of(["i1"]), -1]
    with pytest.raises(BitfoldError, match="'nobody'"):
        trained.search(["u1", "nobody"])
    with pytest.raises(BitfoldError, match="k is too small"):
        trained.search(["u1"], 0)


def test_a_damaged_retriever_is_refused(trained: Retriever, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(trained.path, tmp_path / "run")
    content = bytearray((tmp_path / "run" / "items.safetensors").read_bytes())
    content[-1] ^= 1
    (tmp_path / "run" / "items.safetensors").write_bytes(content)
    with pytest.raises(BitfoldError, match="not what was saved"):
        load(tmp_path / "run")
    with pytest.raises(BitfoldError, match="bitfold run"):
        bitfold.load(trained.path)


@pytest.mark.parametrize(("index", "bits"), [("hnsw", 8), ("ivf", 32)])
def test_an_approximate_index_is_kept(
    log: PreparedLog, tmp_path: Path, index: str, bits: int
) -> None:
    pytest.importorskip("faiss")
    run = retrieve(log.path, None, replace(TINY, index=index, index_bits=bits), tmp_path / "run")
    assert run.metrics["index_overlap"] > 0.8
    assert run.metrics["index_bytes"] == (run.path / "index.faiss").stat().st_size
    again = load(run.path)
    assert np.array_equal(run.search(["u1"], 5)[0], again.search(["u1"], 5)[0])


def test_logs_that_two_towers_cannot_read(tmp_path: Path) -> None:
    csv = write(tmp_path / "taken.csv", taken(users=20, each=4))
    crossed = replace(READING, cross=("user*kind",))
    with pytest.raises(BitfoldError, match=r"user\*kind, which crosses both"):
        retrieve(csv, crossed, TINY, tmp_path / "run")
    no_item = DataConfig(
        fields=("user", "item"), group="user", label="kind!='k0'", split="last:1,1"
    )
    with pytest.raises(BitfoldError, match="needs the item's field"):
        retrieve(csv, no_item, TINY, tmp_path / "run")
    alone = replace(READING, fields=("item",), item_fields=())
    with pytest.raises(BitfoldError, match="nothing to read"):
        retrieve(csv, alone, TINY, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    run = retrieve(csv, alone, replace(TINY, history=3), tmp_path / "run")
    assert torch.isfinite(run.user_vectors).all()


def test_without_a_validation_part_the_last_weights_are_kept(tmp_path: Path) -> None:
    csv = write(tmp_path / "taken.csv", taken(users=20, each=5))
    config = replace(TINY, epochs=3, patience=1)
    run = retrieve(csv, replace(READING, split="last:0,1"), config, tmp_path / "run")
    assert (run.metrics["epochs"], run.metrics["part"]) == (3, "test")
    assert run.metrics["best_epoch"] == 3


def test_users_of_towers_with_context_and_bags(tmp_path: Path) -> None:
    """A multi-valued field of the user, one of the item, and a number of each."""
    table: dict[str, Any] = taken(users=30, each=6)
    rows = len(table["user"])
    table |= {
        "tags": ["a|b" if n % 2 else "c" for n in range(rows)],
        "genres": [f"g{int(item[1:]) % 3}|h" for item in table["item"]],
        "age": [str(int(user[1:]) % 7) for user in table["user"]],
        "price": [str(int(item[1:]) / 7) for item in table["item"]],
    }
    reading = replace(
        READING,
        fields=("user", "item", "kind", "tags", "genres"),
        multi={"tags": "|", "genres": "|"},
        numeric=("age", "price"),
        item_fields=("kind", "genres", "price"),
    )
    csv = write(tmp_path / "taken.csv", table)
    config = replace(TINY, history=2, hidden=(4,))
    run = retrieve(csv, reading, replace(config, keep_log=True), tmp_path / "run")
    layout = run.layout
    assert layout.slots(item=True) == [1, 2, 4]
    assert layout.slots(item=False) == [0, 1, 3]
    assert (layout.numbers(item=True), layout.numbers(item=False)) == (
        ["number:price"], ["number:age"],
    )  # fmt: skip
    log = PreparedLog(tmp_path / "run" / "log")
    positives = Positives.of(log, layout)
    torch.testing.assert_close(user_vectors(run.model, positives), run.user_vectors)
    torch.testing.assert_close(item_vectors(run.model, positives), run.rows.read())


def test_both_ways_of_reading_a_batch_agree(log: PreparedLog, trained: Retriever) -> None:
    positives = Positives.of(log, Layout.of(log.schema, trained.layout.dense, 0))
    rows = np.arange(20)
    places, layout = positives.item[rows], positives.layout
    both = layout.read_pairs(positives.context, rows, positives.item_columns, places)
    assert both is not None
    users, items = trained.model.pairs(*both)
    alone = trained.model.users(layout.read(positives.context, rows, item=False))
    torch.testing.assert_close(users, alone)
    alone = trained.model.items(layout.read(positives.item_columns, places, item=True))
    torch.testing.assert_close(items, alone)


def test_the_public_function() -> None:
    run = bitfold.retrieve(
        taken(users=20, each=5), fields="user,item", group="user", item="item", split="last:1,1",
        method="full", width=4, epochs=1, batch_size=64, progress=False,
    )  # fmt: skip
    assert run.search(["u1"], 3)[0].shape == (1, 3)
    loaded = bitfold.retrieve(None, run.path)
    assert repr(loaded) == repr(run)
    assert repr(run).startswith("Retriever(full, 20 users, ")
    with pytest.raises(BitfoldError, match="'temprature'"):
        bitfold.retrieve(taken(), temprature=1)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from bitfold.cli import main

    lines = [f"{user} " + " ".join(str(i) for i in range(user % 5, 30, 5)) for user in range(25)]
    (tmp_path / "train.txt").write_text("\n".join(lines) + "\n")
    words = [
        "retrieve", str(tmp_path / "train.txt"), "--format", "sequences", "--split", "last:1,1",
        "--method", "full", "--width", "4", "--epochs", "1", "--batch-size", "64",
        "--index-bits", "8", "--out", str(tmp_path / "run"),
    ]  # fmt: skip
    with pytest.raises(SystemExit) as left:
        main(words)
    shown = capsys.readouterr().out
    assert left.value.code == 0
    for name in ("recall@20", "index recall@20", "popularity recall@20", "index bytes"):
        assert name in shown
    options = json.loads((tmp_path / "run" / "config.json").read_text())
    assert options["retrieve"]["index_bits"] == 8
    assert options["data"]["negatives"] == 1
    with pytest.raises(SystemExit) as left:
        main(["retrieve", "--resume", "--out", str(tmp_path / "run")])
    assert left.value.code == 0
    with pytest.raises(SystemExit) as left:
        main(["retrieve", "--out", str(tmp_path / "other")])
    assert left.value.code == 2
    assert "there is no log to train on" in capsys.readouterr().err
