"""The boards beside unified embedding's public figures: what they read, train and tell."""

import importlib
from pathlib import Path
from types import SimpleNamespace

import polars as pl
import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The modules of benchmarks/results, which stand outside the package."""
    monkeypatch.syspath_prepend(str(ROOT))
    names = ("boards", "sitting", "sources", "stages", "unified")
    return SimpleNamespace(
        **{name: importlib.import_module(f"benchmarks.results.{name}") for name in names}
    )


def test_the_middle_rating_is_left_out_and_ids_stay_text(
    made: SimpleNamespace, tmp_path: Path
) -> None:
    lines = ["zip,label_ge3,label_ge4", *("01234,1,1", "55117,1,0", "02139-1,0,0", "00501,1,1")]
    (tmp_path / "raw.csv").write_text("\n".join(lines) + "\n")
    made.sources.without_middle(tmp_path / "raw.csv", tmp_path / "raw.parquet")
    found = pl.read_parquet(tmp_path / "raw.parquet")
    assert found["zip"].to_list() == ["01234", "02139-1", "00501"]
    assert found["label_ge4"].to_list() == ["1", "0", "1"]


def test_the_real_ratings_without_3_are_as_many_as_others_have(
    made: SimpleNamespace, shared_data: Path, tmp_path: Path
) -> None:
    board = made.boards.every_board()["ml-1m-unified"]
    log = made.sources.log_of(board, shared_data, tmp_path)
    assert sum(log.rows.values()) == 739_012
    found = pl.read_parquet(tmp_path / "raw/ml-1m-unified.parquet")
    assert sum(found[name].n_unique() for name in board.data.fields) == 13_177


def test_the_boards_train_rivals_at_the_public_bytes(made: SimpleNamespace) -> None:
    boards = made.boards.every_board()
    dense, text = (boards[name] for name in made.unified.BOARDS)
    assert set(dense.budgets) == set(text.budgets) == set(made.unified.PUBLIC)
    for board, methods in (
        (dense, ["full", "auto"]),
        (text, ["auto", "hash", "unified", "multi-hash"]),
    ):
        for call in made.stages.calls(board, "auto", {}):
            wanted = call.cells(board)
            assert [cell.variant.method for cell in wanted] == 3 * methods


def test_the_section_has_what_was_measured_and_nothing_else(
    made: SimpleNamespace, tmp_path: Path
) -> None:
    every = made.boards.every_board()
    boards = {name: every[name] for name in made.unified.BOARDS}
    sitting = made.sitting.Sitting(boards, tmp_path, tmp_path, tmp_path)
    assert made.unified.beside_unified(sitting) == ""
    record = sitting.record(boards["ml-1m-unified"], "auto")
    record.add(
        {
            "method": method, "budget": budget, "seed": 0, "auc": auc, "bytes": size,
            "valid": {"auc": 0.5, "logloss": 0.5},
        }
        for method, budget, auc, size in (
            ("full", "1x", 0.9, 1_500_000),
            ("auto", "158000B", 0.88, 157_999),
            ("unified", "158000B", 0.83, 158_000),
        )
    )  # fmt: skip
    record.write()
    (line,) = [
        line for line in made.unified.beside_unified(sitting).splitlines() if "157,999" in line
    ]
    assert [cell.strip() for cell in line.strip("|").split("|")] == [
        *("vocabulary", "158,000", "0.7712 / 0.7707", "0.8263 / 0.8200", "-"),
        *("0.9000", "-", "-", "0.8300", "0.8800", "157,999", "1"),
        "[ml-1m-unified-auto.json](results/ml-1m-unified-auto.json)",
    ]
