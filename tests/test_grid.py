"""The grid: the same points for everybody, the best validation AUC chooses."""

from pathlib import Path
from typing import Any

import pytest

from bitfold import training
from bitfold.comparison.config import Cell, CompareConfig, Variant
from bitfold.comparison.grid import Grid
from bitfold.errors import BitfoldError, Diverged
from bitfold.runs.options import TrainConfig
from command import READING, TRAINING, bitfold, refused, write_ratings
from test_compare import board_of

HASH = Cell(Variant("hash", "hash"), "10x", 0)
WORDS = TrainConfig(lr=0.5, embedding_decay=0.25)


def tried(aucs: dict[tuple[float, float], float | None]) -> tuple[Grid, Any, list[str]]:
    """A grid, and a training that gives these validation AUCs by (lr, decay)."""
    lr, decay = (tuple(dict.fromkeys(point[axis] for point in aucs)) for axis in (0, 1))
    begun: list[str] = []

    def trained(cell: Cell, words: TrainConfig) -> dict[str, Any]:
        begun.append(cell.title)
        auc = aucs[words.lr, words.embedding_decay]
        if auc is None:
            raise Diverged("training diverged")
        return {"lr": words.lr, "decay": words.embedding_decay, "valid": {"auc": auc}}

    return Grid(lr, decay, searched=True, seed=0), trained, begun


def test_without_a_grid_the_words_of_training_stand() -> None:
    grid = Grid.of(CompareConfig(), WORDS)
    assert grid.points == [{"lr": 0.5, "embedding_decay": 0.25}]
    row = grid.best(HASH, WORDS, lambda cell, words: {"lr": words.lr, "slug": cell.slug})
    assert row == {"lr": 0.5, "slug": "hash-10x-0"}
    assert grid.to_json()["searched"] is False


def test_an_axis_that_is_not_said_is_the_word_of_training() -> None:
    grid = Grid.of(CompareConfig(grid_lr=(0.1, 0.2)), WORDS)
    assert [tuple(point.values()) for point in grid.points] == [(0.1, 0.25), (0.2, 0.25)]


def test_the_best_validation_auc_chooses_and_the_other_seeds_follow() -> None:
    grid, trained, begun = tried({(1, 0): 0.6, (1, 1): 0.61, (2, 0): 0.7, (2, 1): 0.65})
    row = grid.best(HASH, WORDS, trained)
    assert (row["lr"], row["decay"]) == (2, 0)
    again = grid.best(Cell(HASH.variant, "10x", 1), WORDS, trained)
    assert (again["lr"], again["decay"]) == (2, 0)
    assert len(begun) == 5
    assert grid.trainings([HASH, Cell(HASH.variant, "10x", 1)]) == 5
    assert [cell["valid_auc"] for cell in grid.cells] == [0.6, 0.61, 0.7, 0.65]


def test_of_equals_the_earlier_point_wins() -> None:
    grid, trained, _ = tried({(1, 0): 0.6, (2, 0): 0.7, (3, 0): 0.7})
    assert grid.best(HASH, WORDS, trained)["lr"] == 2
    assert grid.choices[0]["edge"] == []


@pytest.mark.parametrize(
    ("aucs", "edge"),
    [
        ({(1, 0): 0.9, (2, 0): 0.5, (3, 0): 0.4}, ["lr"]),
        ({(3, 0): 0.9, (1, 0): 0.5, (2, 0): 0.4}, ["lr"]),  # the largest, said first
        ({(1, 5): 0.5, (1, 7): 0.9}, ["embedding_decay"]),
        ({(1, 5): 0.9, (1, 7): 0.5}, ["embedding_decay"]),
        ({(1, 0): 0.9, (1, 7): 0.5}, []),  # nothing lies beyond 0
        ({(1, 0): 0.9}, []),
    ],
)
def test_a_choice_at_the_edge_is_flagged(aucs: Any, edge: list[str]) -> None:
    grid, trained, _ = tried(aucs)
    grid.best(HASH, WORDS, trained)
    assert grid.choices[0]["edge"] == edge


def test_a_point_that_diverges_is_out_and_all_of_them_are_a_mistake() -> None:
    grid, trained, _ = tried({(1, 0): 0.6, (9, 0): None})
    assert grid.best(HASH, WORDS, trained)["lr"] == 1
    assert [cell["valid_auc"] for cell in grid.cells] == [0.6, None]
    grid, trained, _ = tried({(8, 0): None, (9, 0): None})
    with pytest.raises(BitfoldError, match="every point"):
        grid.best(HASH, WORDS, trained)


@pytest.fixture(scope="module")
def ratings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_ratings(tmp_path_factory.mktemp("grid") / "ratings.csv")


POINTS = ("--grid-lr", "1e-3,0.02,1e9", "--grid-decay", "0,1e-5")
CELLS = ("--methods", "full,hash", "--budgets", "1KiB", "--seeds", 2, "--no-floors")


def test_the_command_searches_for_full_and_hash_alike_and_goes_on(
    ratings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, begun = tmp_path / "board", []
    real = training.train

    def train(*args: Any, **words: Any) -> Any:
        begun.append(Path(args[3]).name)
        if len(begun) == 3:
            raise KeyboardInterrupt
        return real(*args, **words)

    monkeypatch.setattr(training, "train", train, raising=False)
    line = ("compare", ratings, *READING, *TRAINING, *CELLS, "--out", out)
    assert bitfold(*line, *POINTS).code == 130
    assert len(list((out / "cells").iterdir())) == 2
    got = bitfold(*line, *POINTS, "--resume")
    assert got.code == 0, got.err
    kept = [name for name in begun if begun.count(name) == 1]
    assert "full-1x-0-lr=0.001_decay=0.0" in kept  # trained before the stop, not again
    board: dict[str, Any] = board_of(out)
    grid = board["grid"]
    assert grid["lr"] == [1e-3, 0.02, 1e9]
    assert grid["embedding_decay"] == [0, 1e-5]
    by_method = {
        method: [cell["valid_auc"] for cell in grid["cells"] if cell["method"] == method]
        for method in ("full", "hash")
    }
    assert [len(aucs) for aucs in by_method.values()] == [6, 6]
    for chosen in grid["choices"]:
        known = [auc for auc in by_method[chosen["method"]] if auc is not None]
        assert chosen["valid_auc"] == max(known)
        rows = [row for row in board["results"] if row["method"] == chosen["method"]]
        assert {(row["lr"], row["embedding_decay"]) for row in rows} == {
            (chosen["lr"], chosen["embedding_decay"])
        }
        assert rows[0]["valid"]["auc"] == chosen["valid_auc"]
    assert [(row["method"], row["seed"]) for row in board["results"]] == [
        *(("full", 0), ("hash", 0), ("full", 1), ("hash", 1))
    ]
    assert "The grid: validation AUC with seed 0" in got.out
    assert got.out.count("*") >= 2
    refused(bitfold(*line, "--grid-lr", "1e-3", "--resume"), "--grid-lr is not what")


def test_no_grid_is_said(ratings: Path, tmp_path: Path) -> None:
    words = ("--methods", "hash", "--budgets", "1KiB", "--seeds", 1, "--no-floors")
    got = bitfold("compare", ratings, *READING, *TRAINING, *words, "--out", tmp_path / "board")
    assert "no grid: lr 0.01 and embedding decay 0 for all" in got.out
    assert board_of(tmp_path / "board")["grid"]["searched"] is False  # type: ignore[call-overload]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("--grid-lr", "0"), "grid_lr holds a value out of range"),
        (("--grid-lr", "1e-3,inf"), "grid_lr holds a value out of range"),
        (("--grid-lr", "fast"), "--grid-lr cannot be read"),
        (("--grid-decay", "-1"), "grid_decay holds a value out of range"),
        (("--grid-decay", "0,nan"), "grid_decay holds a value out of range"),
        (("--grid-lr", "1e-3,2e-3", "--split", "random:0.9,0,0.1"), "no validation part"),
        (("--equal-within", "2"), "equal_within is no share"),
    ],
)
def test_mistakes_leave_nothing(
    ratings: Path, tmp_path: Path, words: tuple[str, ...], text: str
) -> None:
    got = bitfold("compare", ratings, *READING, *TRAINING, *words, "--out", tmp_path / "board")
    refused(got, text)
    assert not any(tmp_path.iterdir())
