"""Rankings as users ask for them: train, evaluate, compare; and floors said first."""

import csv
import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import bitfold as package
from bitfold.comparison.board import ranking_figures
from bitfold.comparison.floors import below
from bitfold.ranking import RankConfig, Ranking
from command import TRAINING, bitfold, refused
from test_negatives import columns

RANK = ("--rank", "item", "--rank-at", "3,10")


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ranked")
    pl.DataFrame(columns(users=40, items=30)).write_csv(folder / "raw.csv")
    out = bitfold(
        "prepare", folder / "raw.csv", "--fields", "user,item,genre", "--group", "user", "--item",
        "item", "--item-fields", "genre", "--negatives", 3, "--split", "last:1,2", "--out",
        folder / "log",
    )  # fmt: skip
    assert out.code == 0, out.err
    assert "negatives: 960 for 320 positives, drawn evenly from" in out.out
    return folder / "log"


def test_train_and_evaluate_say_the_same(log: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    out = bitfold("train", log, *TRAINING, "--budget", "4KiB", *RANK, "--out", run)
    assert out.code == 0, out.err
    assert "ranking recall@10" in out.out
    assert "Ranking by popularity" in out.out
    metrics = json.loads((run / "metrics.json").read_text())
    ranking = metrics["ranking"]
    assert ranking["users"] == 40
    assert ranking["relevant"] == 80
    assert 0 < ranking["recall@3"] <= ranking["recall@10"] <= 1
    assert "ranking" in bitfold("train", log, *TRAINING, *RANK, "--resume", "--out", run).out
    out = bitfold("evaluate", run, log, *RANK, "--json")
    assert out.code == 0, out.err
    again = json.loads(out.out)
    assert again["ranking"] == pytest.approx(ranking)
    floor = metrics["floors"]["popularity"]
    assert again["floors"]["popularity"] == floor
    assert "ranking" not in json.loads(bitfold("evaluate", run, log, "--json").out)
    # And from Python, on another part.
    loaded = package.load(run)
    found = loaded.evaluate(log, "valid", ranking=RankConfig("item", (3,)))
    assert found["ranking"]["relevant"] == 40


def test_raw_rows_cannot_be_ranked(log: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert bitfold("train", log, *TRAINING, "--budget", "4KiB", "--out", run).code == 0
    out = bitfold("evaluate", run, log.parent / "raw.csv", *RANK)
    refused(out, "a ranking needs the prepared log")


@pytest.mark.parametrize("words", [("--rank", "itme"), ("--rank", "item", "--rank-at", "0")])
def test_mistakes_are_told_before_training(log: Path, tmp_path: Path, words: Any) -> None:
    out = bitfold("train", log, *TRAINING, "--budget", "4KiB", *words, "--out", tmp_path / "run")
    refused(out)
    assert "epoch" not in out.err
    assert not (tmp_path / "run").exists()
    out = bitfold("compare", log, *TRAINING, "--budgets", "2x", *words, "--out", tmp_path / "b")
    refused(out)
    assert "cells" not in out.err
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize("command", ["train", "compare"])
def test_a_field_that_cannot_be_ranked_is_told_before_the_log_is_read(
    log: Path, tmp_path: Path, command: str
) -> None:
    out = bitfold(
        command, log.parent / "raw.csv", "--fields", "user,item", "--group", "user", "--item",
        "item", "--negatives", 2, *TRAINING, "--rank", "itme", "--out", tmp_path / "out",
    )  # fmt: skip
    refused(out, "did you mean", "item")
    assert "reading" not in out.err
    assert not (tmp_path / "out").exists()


def test_compare_ranks_every_cell(log: Path, tmp_path: Path) -> None:
    board = tmp_path / "board"
    out = bitfold(
        "compare", log, *TRAINING, "--methods", "full,hash", "--budgets", "4x", "--seeds", 2,
        *RANK, "--out", board,
    )  # fmt: skip
    assert out.code == 0, out.err
    for name in ("recall@10", "NDCG@10", "MRR"):
        assert name in out.out
    found = json.loads((board / "results.json").read_text())
    assert len(found["results"]) >= 4
    for row in found["results"]:
        assert row["ranking"]["users"] == 40
        assert "floors" not in row
    references = found["references"]
    assert references["logistic regression"]["ranking"]["users"] == 40
    ranking = Ranking.of(package.data.PreparedLog(log), "test", RankConfig("item", (3, 10)))
    assert references["popularity"]["ranking"] == pytest.approx(ranking.by_popularity())
    with (board / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert float(rows[0]["recall@10"]) == found["results"][0]["ranking"]["recall@10"]
    page = (board / "board.html").read_text()
    assert "recall@10" in page
    assert "NDCG@10" in page


@pytest.mark.parametrize(
    "ranking",
    [
        None, "x", [1], 3, {"recall@x": 0.5}, {"recall@10": "high"}, {"recall@10": 10**5000},
        {"recall@10": True}, {"mrr": float("nan")}, {"recall@" + "9" * 5000: 0.5},
    ],
)  # fmt: skip
def test_damaged_rankings_are_left_out(ranking: Any) -> None:
    assert ranking_figures({"ranking": ranking}) == {}


def test_floors_in_sentences() -> None:
    popular = {"auc": 0.7, "field": "item", "ranking": {"recall@10": 0.2, "mrr": 0.1}}
    ranking = {"field": "item", "recall@10": 0.1, "mrr": 0.3, "users": 5}
    assert below({"auc": 0.8}, popular) == []
    assert below({"auc": 0.8}, None) == []
    assert below({"auc": None}, popular) == []
    (one,) = below({"auc": 0.7}, popular)
    assert "not above the popularity of item (0.7000)" in one
    first, _ = below({"auc": 0.4}, popular)
    assert "AUC 0.4000 is below .5: worse than chance" in first
    (last,) = below({"auc": 0.8, "ranking": ranking}, popular)
    assert last == "Not above ranking by the popularity of item: recall@10 0.1000 (0.2000)."


def test_a_model_below_the_floor_is_told_first(tmp_path: Path) -> None:
    """One item is always clicked, and a learning rate moves nothing."""
    rows = ["user,item,click"]
    for row in range(400):
        item = row % 4
        rows.append(f"u{row % 37},i{item},{int((item == 0) != (row % 11 == 0))}")
    (tmp_path / "log.csv").write_text("\n".join(rows) + "\n")
    out = bitfold(
        "train", tmp_path / "log.csv", "--label", "click", "--fields", "user,item", *TRAINING[:-2],
        "--lr", "1e-12", "--budget", "1KiB", "--out", tmp_path / "run",
    )  # fmt: skip
    assert out.code == 0, out.err
    lines = out.out.splitlines()
    first = next(line for line in lines if line)
    assert "AUC" in first
    assert "below .5" in first or "not above the popularity of item" in first
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["floors"]["popularity"]["auc"] > 0.8


def test_train_counts_no_more_ids_than_fit(
    log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bitfold.training.measuring.MOST_IDS", 10)
    out = bitfold("train", log, *TRAINING, "--budget", "4KiB", "--out", tmp_path / "run")
    assert out.code == 0, out.err
    assert "floors" not in json.loads((tmp_path / "run" / "metrics.json").read_text())


def test_rows_in_memory_without_labels() -> None:
    data = columns(users=20, items=20)
    rows = {name: data[name] for name in ("user", "item")}
    run = package.train(
        rows, fields="user,item", group="user", item="item", negatives=2, split="last:1,1",
        rank="item", method="hash", budget="2KiB", width=4, hidden=[8], epochs=1, progress=False,
    )  # fmt: skip
    assert run.metrics["ranking"]["users"] == 20
    assert run.predict({"user": ["u1"], "item": ["i3"]}).shape == (1,)


def test_the_page_says_what_ranks_no_better_than_popularity() -> None:
    from bitfold.report.decision import decision
    from bitfold.report.reading import Board

    def row(method: str, budget: str, recall: float) -> dict[str, Any]:
        return {
            "method": method, "budget": budget, "seed": 0, "auc": 0.8, "bytes": 100,
            "ranking": {"recall@5": 0.9, "recall@20": recall, "ndcg@20": 0.1, "mrr": 0.1},
        }  # fmt: skip

    popular = {"ranking": {"recall@5": 0.1, "recall@20": 0.3}}
    rows = (row("full", "1x", 0.4), row("hash", "10x", 0.2), row("binary-code", "10x", 0.3))
    _, notes = decision(Board(rows, more={"references": {"popularity": popular}}))
    told = [note for note in notes if "recall" in note]
    assert told == ["Not above recall@20 of popularity (0.3000): hash 10x and binary-code 10x."]
    _, notes = decision(Board(rows))
    assert not any("recall" in note for note in notes)
