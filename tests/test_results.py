"""`make results`: short sittings that add up, and a page of nothing but what was measured."""

import importlib
import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bitfold import training
from bitfold.data.config import DataConfig
from bitfold.data.synth.log import SynthConfig
from bitfold.runs.options import TrainConfig

ROOT = Path(__file__).resolve().parents[1]
MODULES = (
    *("boards", "board_page", "claims", "figures", "kept", "locks", "page"),
    *("record", "sitting", "sources", "stages", "__main__"),
)
TRAIN = TrainConfig(width=4, hidden=(8,), epochs=1, batch_size=512)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The modules of benchmarks/results, which stand outside the package, with one form alone."""
    monkeypatch.syspath_prepend(str(ROOT))
    found = {name: importlib.import_module(f"benchmarks.results.{name}") for name in MODULES}
    for name in ("stages", "board_page", "claims"):
        monkeypatch.setattr(found[name], "FORMS", (found["stages"].PAPER,))
    return SimpleNamespace(main=found.pop("__main__").main, **found)


@pytest.fixture
def board(made: SimpleNamespace) -> Any:
    """A synthetic board of twenty thousand rows."""
    return made.boards.Board(
        "tiny", "Tiny log", None,
        DataConfig(
            label="label", fields=("field_0", "field_1"), group="field_0", ids="vocabulary"
        ),
        TRAIN, synth=SynthConfig(rows=20_000, fields=2, ids=2_000, numeric=0),
        rivals=("hash",), best=1, seeds=1, budgets=("10x",), stages=("grid", "final"),
    )  # fmt: skip


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is trained, as it begins."""
    begun: list[str] = []
    real = training.train

    def train(*args: object, **words: object) -> object:
        begun.append(Path(str(args[3])).name)
        return real(*args, **words)  # type: ignore[arg-type]

    monkeypatch.setattr(training, "train", train, raising=False)
    return begun


def sat(made: SimpleNamespace, board: Any, folder: Path, *words: str) -> int:
    places = ("--data", str(folder), "--out", str(folder / "out"), "--docs", str(folder / "docs"))
    code: int = made.main([*places, *words], {board.name: board})
    return code


def test_a_sitting_is_whole_and_its_files_are_enough_for_the_next(
    made: SimpleNamespace,
    board: Any,
    trained: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert sat(made, board, tmp_path, "--stage", "grid") == 0
    assert len(trained) == 3  # full, the form, logistic regression
    assert "tiny grid" not in capsys.readouterr().out.split("seed 0")[-1]
    shutil.rmtree(tmp_path / "out")  # another machine: only docs/ is there

    assert sat(made, board, tmp_path) == 0
    assert trained[3:] == ["hash-10x-0"]
    assert capsys.readouterr().out.endswith("nothing is missing\n")
    kept = json.loads((tmp_path / "docs/results/tiny-final.json").read_text())
    results = json.loads((tmp_path / "out/boards/tiny/final-10x/results.json").read_text())
    figures = {row["method"]: row["auc"] for row in results["results"]}
    assert not any("curve" in row for row in results["results"])  # no cell is diagnosed
    assert {row["method"]: row["auc"] for row in kept["cells"]} == figures | {
        "logistic regression": results["references"]["logistic regression"]["auc"]
    }
    assert kept["references"]["bayes"] == results["references"]["bayes"]
    page = (tmp_path / "docs/results.md").read_text()
    assert "[Tiny log](results/tiny.md)" in page
    assert "What is missing" not in page
    page = (tmp_path / "docs/results/tiny.md").read_text()
    assert "(tiny-final.json)" in page
    assert f"of the truth of the log (Bayes) {kept['references']['bayes']['auc']:.4f}" in page

    assert sat(made, board, tmp_path) == 0
    assert len(trained) == 4
    changed = replace(board, train=replace(TRAIN, lr=0.5), seeds=2)
    assert sat(made, changed, tmp_path) == 2
    assert "another train: lr" in capsys.readouterr().err


def test_time_that_is_up_stops_between_cells(
    made: SimpleNamespace,
    board: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    clock = iter(range(0, 10**6, 20))  # each look at the clock is twenty seconds later
    watches = SimpleNamespace(monotonic=lambda: next(clock), process_time=lambda: 0.0)
    monkeypatch.setattr(made.sitting, "time", watches)
    assert sat(made, board, tmp_path, "--stage", "grid", "--minutes", "0.8") == 0
    out = capsys.readouterr().out
    assert "the time is up" in out
    assert "tiny grid: " in out
    kept = json.loads((tmp_path / "docs/results/tiny-grid.json").read_text())
    assert 0 < len(kept["cells"]) < 3
    assert "What is missing" in (tmp_path / "docs/results.md").read_text()


def test_a_teacher_has_cells_of_its_own(
    made: SimpleNamespace, board: Any, trained: list[str], tmp_path: Path
) -> None:
    auto = replace(board, name="tiny-auto", stages=("auto",), rivals=())
    taught = replace(
        auto, name="tiny-distilled", reference="tiny-auto", stages=("distill",),
        rivals=tuple(made.boards.TAUGHT),
    )  # fmt: skip
    boards = {each.name: each for each in (auto, taught)}
    places = ("--data", str(tmp_path), "--out", str(tmp_path / "out"))
    places += ("--docs", str(tmp_path / "docs"))
    assert made.main([*places, "--stage", "distill"], boards) == 0
    # A teacher, and what it teaches; the one of each seed is trained once.
    assert trained.count("full-0") == len(trained) / 2 == 4
    assert made.main(list(places), boards) == 0
    assert trained[8:] == ["full-1x-0", "auto-10x-0"]
    kept = json.loads((tmp_path / "docs/results/tiny-distilled-distill.json").read_text())
    found = {row["method"]: row["auc"] for row in kept["cells"]}
    assert found.keys() == {*made.boards.TAUGHT, *made.boards.SHARES}
    assert len(set(found.values())) == 4
    page = (tmp_path / "docs/results.md").read_text()
    for method, title in made.boards.TAUGHT.items():
        assert f"| 10x | {title} | 1 | {found[method]:.4f} |" in page
    assert "| 10x | plain | 1 |" in page
    assert "What is missing" not in page


def test_the_final_stage_waits_for_the_grid(
    made: SimpleNamespace, board: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sat(made, board, tmp_path, "--stage", "final") == 0
    assert "waits for the grid of tiny" in capsys.readouterr().out
    assert not (tmp_path / "docs" / "results").exists()


def test_a_board_is_the_work_of_one_process(
    made: SimpleNamespace, board: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with made.locks.claimed(tmp_path / "out" / "locks" / "tiny") as mine:
        assert mine
        assert sat(made, board, tmp_path) == 0
    out = capsys.readouterr().out
    assert "tiny: another process is at work on it" in out
    assert "tiny grid: 3 cells" in out
    assert not (tmp_path / "docs" / "results").exists()


def test_several_processes_say_the_same_words(
    made: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    begun: list[list[str]] = []

    def start(command: list[str], env: dict[str, str]) -> SimpleNamespace:
        assert env["OMP_NUM_THREADS"] == "1"
        begun.append(command)
        return SimpleNamespace(wait=lambda: len(begun), terminate=lambda: None)

    monkeypatch.setattr("subprocess.Popen", start)
    assert made.main(["--only", "frappe", "--jobs", "2"]) == 2
    assert len(begun) == 2
    assert begun[0][1:] == [
        "-m", "benchmarks.results", "--only", "frappe", "--jobs", "2", "--jobs", "1"
    ]  # fmt: skip
    assert made.main(["--jobs", "0"]) == 2
    assert "jobs are out of range" in capsys.readouterr().err


def test_mistakes_are_told(
    made: SimpleNamespace, board: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    there = replace(board, file="tiny/tiny.csv.gz", synth=None)
    assert sat(made, there, tmp_path / "nowhere") == 2
    assert "folder of public data sets is not there" in capsys.readouterr().err
    assert not (tmp_path / "nowhere").exists()
    assert sat(made, board, tmp_path, "--only", "tyni") == 2
    assert "did you mean 'tiny'" in capsys.readouterr().err
    assert sat(made, board, tmp_path, "--minutes", "0") == 2
    assert "minutes" in capsys.readouterr().err


def test_a_missing_set_is_left_out_loudly(
    made: SimpleNamespace, board: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sat(made, replace(board, file="tiny/tiny.csv.gz", synth=None), tmp_path) == 0
    heard = capsys.readouterr()
    assert "LEFT OUT: tiny" in heard.err
    assert "no file" in heard.out
    assert "| tiny | grid |" in (tmp_path / "docs" / "results.md").read_text()


def row(method: str, budget: str, seed: int, auc: float, valid: float = 0.6) -> dict[str, Any]:
    return {
        "method": method, "budget": budget, "seed": seed, "auc": auc, "bytes": 1000,
        "seconds": 60.0, "clicks": 50_000, "valid": {"auc": valid, "logloss": 0.5},
        "rows": {"train": 800_000, "valid": 100_000, "test": 100_000},
    }  # fmt: skip


def written(made: SimpleNamespace, board: Any, folder: Path, stage: str, *rows: Any) -> None:
    record = made.record.Record.read(folder / "results", board.name, stage)
    record.words = {
        "train": {"network": "deepfm", "width": 4, "epochs": 1, "patience": 2}
        | {"batch_size": 512, "lr": 0.002, "embedding_decay": 0.0, "hidden": [8]}
        | {"set": {"allocation": "0"}, "embedding_optimizer": "lazy-adam"},
        "data": {},
        "rows": rows[0]["rows"],
    }
    record.add(rows)
    record.write()


@pytest.mark.parametrize(
    ("floor", "told"), [(0.70, "80.0 %"), (0.796, "-"), (0.794, "-")], ids=["far", "small", "near"]
)
def test_the_page_tells_shares_of_a_lead_that_is_one(
    made: SimpleNamespace, board: Any, tmp_path: Path, floor: float, told: str
) -> None:
    board, paper = replace(board, seeds=3), made.stages.PAPER
    seeds = [row("full", "1x", seed, auc) for seed, auc in enumerate((0.799, 0.8, 0.801))]
    ours = [row(paper, "10x", seed, auc) for seed, auc in enumerate((0.77, 0.78, 0.79))]
    lr = row("logistic regression", "1x", 0, floor)
    written(made, board, tmp_path, "grid", row(paper, "10x", 0, 0.77, valid=0.75), seeds[0], lr)
    hashed = [row("hash", "10x", seed, auc) for seed, auc in enumerate((0.75, 0.76, 0.77))]
    written(made, board, tmp_path, "final", *seeds, *ours, lr, *hashed[:2])
    sitting = made.sitting.Sitting({board.name: board}, tmp_path, tmp_path, tmp_path / "results")
    made.page.write_page(sitting, tmp_path / "results.md")
    page = (tmp_path / "results/tiny.md").read_text()
    (line,) = (text for text in page.splitlines() if text.startswith(f"| `{paper}` (paper, best)"))
    assert line.rstrip(" |").split(" | ")[1:] == [
        "10x", "3", "1,000", "0.7800 ± 0.0100", "97.5 %", "93.3 %", told,
        "+0.0200 (+0.0200 to +0.0200)",
    ]  # fmt: skip
    page = (tmp_path / "results.md").read_text()
    assert "`hash` at 10x" in page.partition("What is missing")[2]
    (against,) = (text for text in page.splitlines() if text.startswith("| tiny | 10x |"))
    assert against.endswith("| +0.0200 (+0.0200 to +0.0200); allocation 0 | - | above |")


def test_the_headline_has_the_best_form_and_the_papers_own(
    made: SimpleNamespace, board: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paper, other = made.stages.PAPER, made.stages.form("skip", "fields", "concat")
    monkeypatch.setattr(made.stages, "FORMS", (paper, other))
    board = replace(board, name="ml-1m-crossed", budgets=("100x",))
    cells = [row("full", "1x", 0, 0.80), row(paper, "100x", 0, 0.78, valid=0.70)]
    written(made, board, tmp_path, "grid", *cells, row(other, "100x", 0, 0.795, valid=0.71))
    sitting = made.sitting.Sitting({board.name: board}, tmp_path, tmp_path, tmp_path / "results")
    (tmp_path / "results-notes.md").write_text("## What it says\n\nA note.\n")
    made.page.write_page(sitting, tmp_path / "results.md")
    page = (tmp_path / "results.md").read_text()
    assert "\n## What it says\n\nA note.\n\n## The headline\n" in page
    lines = [text for text in page.splitlines() if text.startswith("| Tiny log at 100x")]
    assert [text.split(" | ")[1] for text in lines] == [
        f"best form: `{other}`", f"paper's form: `{paper}`"
    ]  # fmt: skip
    assert "99.4 % (98.3 %): reached" in lines[0]
    assert "97.5 % (93.3 %): not reached" in lines[1]
    assert "(results/ml-1m-crossed-grid.json)" in lines[0]


def test_remedies_stand_beside_the_plain_form(
    made: SimpleNamespace, board: Any, tmp_path: Path
) -> None:
    stages = made.stages
    assert [stages.plain(name) for name in stages.TRIED] == [
        *(stages.PAPER, *[stages.DEFAULT] * 4, stages.POOL)
    ]
    board = replace(board, stages=made.boards.CLAIM_STAGES)
    written(made, board, tmp_path, "grid", row(stages.DEFAULT, "10x", 0, 0.78))
    written(made, board, tmp_path, "remedies", row(f"{stages.DEFAULT},std=0.1", "10x", 0, 0.79))
    sitting = made.sitting.Sitting({board.name: board}, tmp_path, tmp_path, tmp_path / "results")
    made.page.write_page(sitting, tmp_path / "results.md")
    page = (tmp_path / "results/tiny.md").read_text()
    assert f"| `{stages.DEFAULT},std=0.1` | `{stages.DEFAULT}` | 0.7900 (+0.0100) |" in page
    assert len(sitting.missing(board, "remedies")) == len(stages.TRIED) - 1


def test_the_rival_is_the_better_hashing(made: SimpleNamespace, board: Any, tmp_path: Path) -> None:
    paper, other = made.stages.PAPER, "hash:allocation=0.5"
    written(made, board, tmp_path, "grid", row(paper, "10x", 0, 0.80, valid=0.8))
    hashed = [row("hash", "10x", 0, 0.78, valid=0.70), row(other, "10x", 0, 0.77, valid=0.71)]
    written(made, board, tmp_path, "final", *hashed)
    sitting = made.sitting.Sitting({board.name: board}, tmp_path, tmp_path, tmp_path / "results")
    text = made.claims.rivals(sitting, [board])
    assert "| +0.0300; allocation .5 | - | above, one seed |" in text


def test_one_form_for_all(
    made: SimpleNamespace, board: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [made.stages.form("skip", "slices", fusion) for fusion in ("sum", "product", "concat")]
    monkeypatch.setattr(made.claims, "FORMS", tuple(names))
    record = made.record.Record.read(tmp_path / "results", board.name, "grid")
    record.add([row(names[0], "10x", 0, 0.9, valid=0.6), row(names[1], "10x", 0, 0.6, valid=0.7)])
    sitting = made.sitting.Sitting({board.name: board}, tmp_path, tmp_path, tmp_path / "results")
    record.write()
    assert made.claims.defaults(sitting, [board]) == ""  # the third form is not known
    record.refused = [{"method": names[2], "budget": "10x", "reason": "needs more"}]
    record.write()
    lines = made.claims.defaults(sitting, [board]).splitlines()[-2:]
    assert [line.strip("| ").split(" | ")[1:] for line in lines] == [
        ["0.0000", "0.0000 (tiny 10x)", "0"], ["0.1000", "0.1000 (tiny 10x)", "0"]
    ]  # fmt: skip


def test_what_one_seed_and_several_tell(made: SimpleNamespace) -> None:
    assert made.figures.verdict([0.01]) == "above, one seed"
    assert made.figures.verdict([-0.01]) == "not above, one seed"
    assert made.figures.verdict([0.01, 0.011, 0.012]) == "above"
    assert made.figures.verdict([-0.01, -0.011, -0.012]) == "below"
    assert made.figures.verdict([0.01, -0.01, 0.0]) == "not significant"


def test_no_figure_appears_that_was_not_measured(
    made: SimpleNamespace, board: Any, tmp_path: Path
) -> None:
    sitting = made.sitting.Sitting({board.name: board}, tmp_path, tmp_path, tmp_path / "results")
    made.page.write_page(sitting, tmp_path / "results.md")
    page = (tmp_path / "results.md").read_text()
    assert "| Tiny log | - | not measured yet | - | - |" in page
    assert "its forms are chosen when the grid is whole" in page
    assert made.sitting.estimate(sitting, [board], ("grid",)) == [
        "tiny grid: 3 cells; none finished to go by",
        "time left: about 0.0 h of one core, and 3 cells of boards that nothing is known of",
    ]


def test_the_error_of_an_auc_is_that_of_drawn_scores(made: SimpleNamespace) -> None:
    from sklearn.metrics import roc_auc_score

    random = np.random.default_rng(0)
    labels = np.repeat([0, 1], [300, 100])
    drawn = [roc_auc_score(labels, random.normal(labels * 0.8)) for _ in range(400)]
    error = made.kept.auc_error(float(np.mean(drawn)), 100, 300)
    assert error == pytest.approx(float(np.std(drawn)), rel=0.15)


def test_the_best_forms_are_those_of_validation(made: SimpleNamespace, board: Any) -> None:
    names = [made.stages.form("skip", "slices", fusion) for fusion in ("sum", "product", "concat")]
    made.stages.FORMS = tuple(names)
    rows = [row(names[0], "10x", 0, 0.9, valid=0.6), row(names[1], "10x", 0, 0.6, valid=0.7)]
    assert made.stages.best_forms(board, rows, []) is None
    refused = [{"method": names[2], "budget": "10x"}]
    assert made.stages.best_forms(board, rows, refused) == {"10x": [names[1]]}


def test_negatives_are_items_that_the_user_never_has(made: SimpleNamespace, tmp_path: Path) -> None:
    import polars as pl

    random = np.random.default_rng(1)
    pairs = np.unique(random.integers(0, 30, (300, 2)), axis=0)
    raw = pl.DataFrame({"user": pairs[:, 0], "item": pairs[:, 1]}).with_columns(
        split=pl.when(pl.col("item") % 5 == 0).then(pl.lit("test")).otherwise(pl.lit("train"))
    )
    raw.write_csv(tmp_path / "raw.csv")
    made.sources.with_negatives(tmp_path / "raw.csv", tmp_path / "a.parquet")
    made.sources.with_negatives(tmp_path / "raw.csv", tmp_path / "b.parquet")
    found = pl.read_parquet(tmp_path / "a.parquet")
    assert found.equals(pl.read_parquet(tmp_path / "b.parquet"))
    negatives = found.filter(pl.col("label") == 0)
    assert negatives.height == raw.height
    assert negatives.join(raw, on=["user", "item"]).is_empty()
    assert negatives["split"].to_list() == raw["split"].to_list()
    assert negatives["item"].n_unique() > 25


def test_boards_of_a_budget_alone_train_the_full_table_and_auto(made: SimpleNamespace) -> None:
    boards = made.boards.every_board()
    titles = [
        cell.title
        for call in made.stages.calls(boards["ml-1m-auto"], "auto", {})
        for cell in call.cells(boards["ml-1m-auto"])
    ]
    assert titles[:4] == [
        "full 1x seed 0",
        "auto 100x seed 0",
        "full 1x seed 1",
        "auto 100x seed 1",
    ]
    text = boards["ml-1m-text-auto"]
    assert text.data.ids == "hashed"
    calls = made.stages.calls(text, "auto", {})
    assert {cell.variant.method for call in calls for cell in call.cells(text)} == {"auto"}
    every = made.stages.families()
    assert {"binary-code", "binary-code:bits=4", "binary-code:bits=2", "auto"} <= set(every)
    assert "full" not in every


def test_the_section_of_low_precision_has_both_and_what_they_weigh(
    made: SimpleNamespace, tmp_path: Path
) -> None:
    pages = importlib.import_module("benchmarks.results.auto")
    every = made.boards.every_board()
    names = ("ml-1m-auto", "ml-1m-low-precision")
    sitting = made.sitting.Sitting({name: every[name] for name in names}, *3 * (tmp_path,))
    assert pages.auto(sitting) == ""
    record = sitting.record(every["ml-1m-low-precision"], "auto")
    record.add(
        row(method, "2x", seed, auc + seed / 1000) | {"bytes": 200, "training_bytes": size}
        for method, auc, size in (("auto", 0.81, 3_000), (made.boards.LOW_PRECISION, 0.80, 500))
        for seed in range(2)
    )
    record.write()
    page = pages.auto(sitting)
    assert "What a budget alone gives" not in page
    (line,) = [line for line in page.splitlines() if line.startswith("| 2x")]
    assert [cell.strip() for cell in line.strip("|").split("|")] == [
        *("2x", "200", "0.8105 ± 0.0007", "0.8005 ± 0.0007", "-0.0100 (-0.0100 to -0.0100)"),
        *("3,000", "500", "2"),
        "[ml-1m-low-precision-auto.json](results/ml-1m-low-precision-auto.json)",
    ]


def test_the_section_of_bits_by_frequency_has_both_rivals_beside_auto(
    made: SimpleNamespace, tmp_path: Path
) -> None:
    pages = importlib.import_module("benchmarks.results.auto")
    every = made.boards.every_board()
    board = every["frappe-precisions"]
    methods = "auto", *made.boards.PRECISIONS
    cells = [cell for call in made.stages.calls(board, "auto", {}) for cell in call.cells(board)]
    assert {(cell.variant.name, cell.budget) for cell in cells} == {
        (method, budget) for method in methods for budget in ("10x", "14x")
    }
    sitting = made.sitting.Sitting(
        {name: every[name] for name in ("frappe-auto", board.name)}, *3 * (tmp_path,)
    )
    record = sitting.record(board, "auto")
    figures = [
        row(method, "14x", seed, auc + seed / 1000)
        for method, auc in zip(methods, (0.81, 0.80, 0.83), strict=True)
        for seed in range(2)
    ]
    record.add(figures[:4])  # without the other rival there is no line
    record.write()
    assert pages.auto(sitting) == ""
    record.add(figures[4:])
    record.write()
    (line,) = [line for line in pages.auto(sitting).splitlines() if line.startswith("| Frappe")]
    assert [cell.strip() for cell in line.strip("|").split("|")][1:] == [
        *("14x", "0.8105 ± 0.0007", "0.8005 ± 0.0007", "0.8305 ± 0.0007"),
        *("-0.0100 (-0.0100 to -0.0100)", "+0.0200 (+0.0200 to +0.0200)", "2"),
        "[frappe-precisions-auto.json](results/frappe-precisions-auto.json)",
    ]


def test_the_section_of_narrower_rows_has_both_and_their_difference(
    made: SimpleNamespace, tmp_path: Path
) -> None:
    pages = importlib.import_module("benchmarks.results.auto")
    every = made.boards.every_board()
    board = every["frappe-narrow"]
    titles = [
        cell.title for call in made.stages.calls(board, "auto", {}) for cell in call.cells(board)
    ]
    assert len(titles) == 2 * 2 * len(board.budgets)
    assert all(title.startswith(made.boards.NARROW) for title in titles)
    sitting = made.sitting.Sitting(
        {name: every[name] for name in ("frappe-auto", board.name)}, *3 * (tmp_path,)
    )
    record = sitting.record(board, "auto")
    record.add(
        row(method, "18x", 0, auc) | {"bytes": size}
        for method, auc, size in zip(made.boards.NARROW, (0.975, 0.974), (190, 200), strict=True)
    )
    record.write()
    (line,) = [line for line in pages.auto(sitting).splitlines() if "18x" in line]
    assert [cell.strip() for cell in line.strip("|").split("|")][1:-1] == [
        *("18x", "0.9750, 190 B", "0.9740, 200 B", "+0.0010", "1"),
    ]


def test_boards_plan_and_read_with_words_that_exist(made: SimpleNamespace) -> None:
    boards = made.boards.every_board()
    assert all(board.reference is None or board.reference in boards for board in boards.values())
    claims = {name: board for name, board in boards.items() if board.claims}
    assert all(board.train.set == {"allocation": "0"} for board in claims.values())
    assert list(claims)[-1] == "synthetic-5m-hashed"
    large = boards["synthetic-20m"]
    (call,) = made.stages.calls(large, "final", {"1000x": ["binary-code:strategy=skip"]})
    assert [cell.title for cell in call.cells(large)][:-1] == [
        "full 1x seed 0",
        "hash 1000x seed 0",
        "multi-hash 1000x seed 0",
        "hash:allocation=0.5 1000x seed 0",
        "multi-hash:allocation=0.5 1000x seed 0",
        f"{made.boards.DEFAULT} 1000x seed 0",
        f"{made.stages.PAPER} 1000x seed 0",
        "binary-code:strategy=skip 1000x seed 0",
    ]
