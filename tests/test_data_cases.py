"""The small logs that failed once, through the commands as a user runs them."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from bitfold.data.prepared import PreparedLog
from command import bitfold

CASES = Path(__file__).resolve().parents[2] / "shared" / "cases" / "logs"

pytestmark = pytest.mark.skipif(
    not CASES.is_dir(), reason=f"SMALL FAILING LOGS MISSING: {CASES} is not here; nothing was tried"
)

L = ("--label", "click", "--fields", "user,item")
TINY = (*("--width", 4, "--hidden", 8, "--epochs", 3, "--batch-size", 64, "--lr", 0.01),)
BUDGET = ("--budget", "4KiB")
SPLIT = ("--time", "ts", "--split", "time:.5,.25,.25")


def train(folder: Path, log: str, *words: object) -> Path:
    run = folder / "run"
    done = bitfold("train", CASES / log, *words, *TINY, *BUDGET, "--out", run)
    assert done.code == 0, done.err
    return run


def score(run: Path, *rows: object) -> np.ndarray:
    out = run.parent / "scores.csv"
    done = bitfold("predict", run, *rows, "--out", out, "--force")
    assert done.code == 0, done.err
    found = pl.read_csv(out)["score"].to_numpy()
    assert np.isfinite(found).all()
    return found


def prepare(folder: Path, *logs: str, words: tuple[object, ...] = L) -> PreparedLog:
    """A log that must be read."""
    out = folder / "log"
    done = bitfold("prepare", *(CASES / log for log in logs), *words, "--out", out)
    assert done.code == 0, done.err
    return PreparedLog(out)


def refused(folder: Path, log: str, *words: object) -> str:
    done = bitfold("prepare", CASES / log, *words, "--out", folder / "log")
    assert done.code == 2
    assert "Traceback" not in done.err
    assert not (folder / "log").exists()
    return done.err


def test_a_constant_price(tmp_path):
    run = train(tmp_path, "train_3.csv", *L, "--numeric", "price")
    rows = pl.read_csv(CASES / "train_3.csv")
    rows.write_csv(tmp_path / "same.csv")
    rows.with_columns(price=3.03).write_csv(tmp_path / "off.csv")
    same, off, new = (
        score(run, path)
        for path in (tmp_path / "same.csv", tmp_path / "off.csv", CASES / "new_3.csv")
    )
    assert abs(same - off).max() < 0.05
    assert max(off.max(), new.max()) < 0.999


def test_empty_labels_do_not_stop_scores(tmp_path):
    assert len(score(train(tmp_path, "log.csv", *L), CASES / "rows_label_empty.csv")) == 600


def test_a_log_without_a_header_and_rows_without_the_label(tmp_path):
    run = train(tmp_path, "headerless.csv", "--columns", "user,item,click", *L)
    lines = (CASES / "headerless.csv").read_text().splitlines()
    bare = [line.rsplit(",", 1)[0] for line in lines]
    (tmp_path / "bare.csv").write_text("\n".join(bare) + "\n")
    (tmp_path / "named.csv").write_text("\n".join(["user,item", *bare]) + "\n")
    whole = score(run, CASES / "headerless.csv")
    assert len(whole) == len(lines)
    np.testing.assert_array_equal(whole, score(run, tmp_path / "bare.csv"))
    np.testing.assert_array_equal(whole, score(run, tmp_path / "named.csv"))


def test_quotes_in_tabs(tmp_path):
    log = prepare(tmp_path, "two_quotes.tsv", words=("--label", "click", "--fields", "query"))
    assert sum(log.rows.values()) == 50


@pytest.mark.parametrize("name", ["nan.csv", "nan.parquet"])
@pytest.mark.parametrize("rule", ["click==1", "click!=0"])
def test_missing_labels(tmp_path, name, rule):
    said = refused(tmp_path, name, "--label", rule, "--fields", "user,item")
    assert "the label is missing" in said


def test_types_of_parquet(tmp_path):
    assert sum(prepare(tmp_path, "label_category.parquet").rows.values()) == 600
    assert "durations" in refused(tmp_path / "b", "time_duration.parquet", *L, *SPLIT)
    log = prepare(tmp_path / "c", "plus0530.parquet", words=(*L, *SPLIT))
    assert log.rows == {"train": 300, "valid": 150, "test": 150}


def test_lines_and_cells(tmp_path):
    assert sum(prepare(tmp_path / "a", "mac_cr.csv").rows.values()) == 600
    assert sum(prepare(tmp_path / "b", "spaced.csv").rows.values()) == 600
    said = refused(tmp_path / "c", "long_cell_and_ragged.csv", *L, "--multi", "user=|")
    assert "line 603 of" in said
    assert "ragged" in said
    words = ("--format", "csv", "--separator", "::", "--columns", "user,item,title,click")
    log = prepare(tmp_path / "d", "colon_once.dat", words=(*words, *L))
    lines = (CASES / "colon_once.dat").read_text().splitlines()
    assert sum(log.rows.values()) == len(lines)


def test_empty_lines_of_one_column(tmp_path):
    run = train(tmp_path, "one_column_log.csv", "--label", "click", "--fields", "user")
    assert len(score(run, CASES / "one_column_rows.csv")) == 600


@pytest.mark.parametrize("order", [1, -1])
def test_milliseconds_and_text(tmp_path, order):
    logs = ["january_ms.csv", "february_iso.csv"][::order]
    words = ("--label", "click", "--fields", "user,item,month", *SPLIT)
    log = prepare(tmp_path, *logs, words=words)
    assert [each["value"] for each in log.stats["fields"]["month"]["head"]] == ["jan"]


def test_weights_of_zero(tmp_path):
    done = bitfold(
        "train", CASES / "all_zero.csv", *L, "--weight", "w", *TINY, "--out", tmp_path / "run"
    )
    assert done.code == 2
    assert "all weights are zero" in done.err
