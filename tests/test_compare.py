"""`bitfold compare`: one log, equal bytes, finished cells kept."""

import csv
import dataclasses
import json
import shutil
from pathlib import Path

import pytest

from bitfold import training
from bitfold.comparison.compare import compare
from bitfold.comparison.config import CompareConfig
from bitfold.data.config import DataConfig
from bitfold.errors import BitfoldError
from bitfold.records import sealed
from bitfold.runs.options import TrainConfig
from command import READING, TRAINING, Outcome, bitfold, refused, write_ratings

SLICES = "binary-code:sharing=slices"  # which do not fit 300 bytes
CELLS = ("--methods", f"full,hash,{SLICES}", "--budgets", "1KiB,300B", "--seeds", 2)
COLUMNS = (
    *("method", "budget", "seed", "auc", "logloss", "gauc", "bytes", "ratio"),
    *("training_bytes", "rows_per_second"),
)


@pytest.fixture(scope="module")
def ratings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_ratings(tmp_path_factory.mktemp("compare") / "ratings.csv")


@pytest.fixture(scope="module")
def done(ratings: Path) -> tuple[Path, Outcome]:
    out = ratings.parent / "board"
    got = bitfold("compare", ratings, *READING, *TRAINING, *CELLS, "--out", out)
    assert got.code == 0, got.err
    return out, got


def board_of(out: Path) -> dict[str, list[dict[str, object]]]:
    made: dict[str, list[dict[str, object]]] = json.loads((out / "results.json").read_text())
    return made


def test_results_have_every_cell_and_column(done: tuple[Path, Outcome]) -> None:
    board = board_of(done[0])
    rows = board["results"]
    assert all(set(COLUMNS) <= row.keys() for row in rows)
    assert sorted({(row["method"], row["budget"]) for row in rows}) == [
        (SLICES, "1KiB"),
        ("full", "1x"),
        ("hash", "1KiB"),
        ("hash", "300B"),
    ]
    assert all(row["seed"] in (0, 1) for row in rows)
    assert len(rows) == 8


def test_the_log_of_every_cell_is_kept(done: tuple[Path, Outcome]) -> None:
    cells = {file.stem for file in (done[0] / "cells").iterdir()}
    logs = {folder.name: folder for folder in (done[0] / "logs").iterdir()}
    assert logs.keys() == cells
    for folder in logs.values():
        assert (folder / "training.csv").read_text().count("\n") >= 3
        assert len(list(folder.glob("events.out.tfevents.*"))) == 1


def test_bytes_are_equal_at_a_budget_and_never_above(done: tuple[Path, Outcome]) -> None:
    rows = {row["method"]: row for row in board_of(done[0])["results"] if row["budget"] == "1KiB"}
    sizes = [row["bytes"] for row in rows.values()]
    assert len(sizes) == 2
    assert all(950 < size <= 1024 for size in sizes)  # type: ignore[operator]


def test_full_needs_a_map_from_text_and_the_others_do_not(done: tuple[Path, Outcome]) -> None:
    maps = {row["method"]: row["map_bytes"] for row in board_of(done[0])["results"]}
    assert maps["full"] > 0  # type: ignore[operator]
    assert maps["hash"] == maps[SLICES] == 0


def test_a_budget_that_is_too_small_is_a_row_that_says_so(done: tuple[Path, Outcome]) -> None:
    (row,) = board_of(done[0])["refused"]
    assert (row["method"], row["budget"]) == (SLICES, "300B")
    least = row["minimum"]
    assert f"needs {least:,} B" in done[1].out
    plan = ("plan", done[0] / "log", "--width", 4, "--method", "binary-code")
    plan = (*plan, "--set", "sharing=slices", "--budget")
    assert bitfold(*plan, least).code == 0
    refused(bitfold(*plan, int(str(least)) - 1), f"{least:,} bytes or more")


def test_the_table_has_a_line_for_each(done: tuple[Path, Outcome]) -> None:
    board = done[1].out.split("Paired differences")[0]
    lines = [line.split() for line in board.splitlines()]
    assert [line[:2] for line in lines if line and line[0] in ("full", "hash", SLICES)] == [
        ["full", "1x"],
        ["hash", "1KiB"],
        [SLICES, "1KiB"],
        ["hash", "300B"],
        [SLICES, "300B"],
    ]
    assert "±" in done[1].out
    assert "100.0%" in done[1].out


def test_csv_says_what_json_says(done: tuple[Path, Outcome]) -> None:
    rows = list(csv.DictReader((done[0] / "results.csv").read_text().splitlines()))
    assert [float(row["auc"]) for row in rows] == [
        row["auc"] for row in board_of(done[0])["results"]
    ]


def test_a_cell_is_the_run_that_train_makes(
    done: tuple[Path, Outcome], ratings: Path, tmp_path: Path
) -> None:
    words = ("--method", "hash", "--budget", "1KiB", "--seed", 1)
    got = bitfold("train", ratings, *READING, *TRAINING, *words, "--out", tmp_path / "run")
    assert got.code == 0, got.err
    alone = json.loads((tmp_path / "run" / "metrics.json").read_text())
    (cell,) = (
        row
        for row in board_of(done[0])["results"]
        if (row["method"], row["budget"], row["seed"]) == ("hash", "1KiB", 1)
    )
    assert cell["auc"] == alone["auc"]
    assert cell["bytes"] == alone["bytes"]


def test_runs_are_removed_unless_they_are_wanted(
    done: tuple[Path, Outcome], ratings: Path, tmp_path: Path
) -> None:
    assert not (done[0] / "runs").exists()
    words = ("--methods", "hash", "--budgets", "1KiB", "--seeds", 1, "--keep-runs", "--no-floors")
    got = bitfold("compare", done[0] / "log", *TRAINING, *words, "--out", tmp_path / "board")
    assert got.code == 0, got.err
    (run,) = (tmp_path / "board" / "runs").iterdir()
    assert bitfold("evaluate", run, ratings).code == 0
    assert not (tmp_path / "board" / "log").exists()


class Stop(Exception):
    """The third cell's death."""


@pytest.fixture
def dying(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Training that dies in its third cell, and a list of what it began."""
    begun: list[str] = []
    real = training.train

    def train(*args: object, **words: object) -> object:
        begun.append(str(args[3]))
        if len(begun) == 3:
            raise Stop
        return real(*args, **words)  # type: ignore[arg-type]

    monkeypatch.setattr(training, "train", train, raising=False)
    return begun


def test_finished_cells_are_kept(ratings: Path, tmp_path: Path, dying: list[str]) -> None:
    data = DataConfig(label="rating>=4", fields=("user", "item"))
    train = TrainConfig(width=4, hidden=(8,), epochs=1, batch_size=64)
    words = CompareConfig(methods=("full", "hash"), budgets=("2KiB", "1KiB"), seeds=1, floors=False)
    out = tmp_path / "board"
    with pytest.raises(Stop):
        compare([ratings], data, train, words, out)
    assert len(board_of(out)["results"]) == 2
    marked = out / "cells" / "hash-2KiB-0.json"
    changed = json.loads(marked.read_text()) | {"auc": 0.123}
    marked.write_text(json.dumps(changed))
    with pytest.raises(BitfoldError, match="not what was saved"):
        compare([ratings], data, train, words, out, resume=True)
    marked.write_text(json.dumps(sealed(changed | {"seed": 7})))
    with pytest.raises(BitfoldError, match="figures of another cell"):
        compare([ratings], data, train, words, out, resume=True)
    marked.write_text(json.dumps(sealed(changed)))
    more = dataclasses.replace(words, budgets=("2KiB", "1KiB", "900B"))
    found = compare([ratings], data, train, more, out, resume=True)
    assert [row["budget"] for row in found.results] == ["1x", "2KiB", "1KiB", "900B"]
    assert found.results[1]["auc"] == 0.123
    assert len(dying) == 5


def test_resume_refuses_other_words_and_another_log(
    done: tuple[Path, Outcome], ratings: Path, tmp_path: Path
) -> None:
    again = ("--out", done[0], "--resume")
    got = bitfold("compare", ratings, *READING, *TRAINING, *CELLS, "--lr", 0.02, *again)
    refused(got, "--lr is not what the comparison began with", "0.01")
    other = write_ratings(tmp_path / "ratings.csv", seed=9)
    refused(bitfold("compare", other, *READING, *TRAINING, *CELLS, *again), "is not the one")
    assert bitfold("compare", ratings, "--config", done[0] / "compare.json", *again).code == 0


def test_a_board_that_exists_needs_a_word(done: tuple[Path, Outcome], ratings: Path) -> None:
    got = bitfold("compare", ratings, *READING, *TRAINING, *CELLS, "--out", done[0])
    refused(got, "--resume", "--force")


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("--methods", "hash,binary-kode"), "did you mean 'binary-code'"),
        (("--set", "blokcs=3"), "did you mean 'blocks'"),
        (("--set", "hash.blocks=3"), "option of hash"),
        (("--budgets", "ten"), "malformed budget"),
        (("--budgets", "0x"), "above zero"),
        (("--seeds", "0"), "seed"),
        (("--methods", "binary-code:strategy=skp"), "did you mean 'skip'"),
        (("--method", "hash"), "--method"),
        (("--fields", "usr"), "did you mean 'user'"),
    ],
)
def test_mistakes_leave_nothing(
    ratings: Path, tmp_path: Path, words: tuple[str, ...], text: str
) -> None:
    got = bitfold("compare", ratings, *READING, *TRAINING, *words, "--out", tmp_path / "board")
    refused(got, text)
    assert not any(tmp_path.iterdir())


def test_variants_of_one_method(done: tuple[Path, Outcome], tmp_path: Path) -> None:
    log = tmp_path / "log"
    shutil.copytree(done[0] / "log", log)
    methods = "binary-code,binary-code:fusion=sum,digits=residues"
    words = ("--methods", methods, "--budgets", "2KiB", "--seeds", 1)
    got = bitfold("compare", log, *TRAINING, *words, "--out", tmp_path / "board")
    assert got.code == 0, got.err
    rows = board_of(tmp_path / "board")["results"]
    assert [row["method"] for row in rows] == [
        "binary-code",
        "binary-code:fusion=sum,digits=residues",
    ]
    assert rows[1]["options"] == {"fusion": "sum", "digits": "residues"}
    assert rows[0]["auc"] != rows[1]["auc"]
