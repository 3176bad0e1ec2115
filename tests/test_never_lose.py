"""`--force`: the old run or comparison stays, byte for byte, until the new one is whole."""

import json
import os
import shutil
from pathlib import Path

import pytest

import bitfold.training.fit as fit
from bitfold.outputs import hidden
from bitfold.training.loop import Trainer
from command import READING, TRAINING, bitfold, cramped, refused, write_ratings
from interrupting import Stop, stopped_after

WORDS = (*READING, *TRAINING, "--method", "hash")
TRAIN = (*WORDS, "--budget", "2KiB")
COMPARE = (
    *READING,
    *TRAINING,
    "--methods",
    "hash",
    "--budgets",
    "2KiB",
    "--seeds",
    1,
    "--no-floors",
)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ratings, a run and a comparison of them."""
    folder = tmp_path_factory.mktemp("made")
    rows = write_ratings(folder / "ratings.csv")
    for command in (("train", rows, *TRAIN, "--out", folder / "run"),):
        got = bitfold(*command)
        assert got.code == 0, got.err
    got = bitfold("compare", rows, *COMPARE, "--out", folder / "board")
    assert got.code == 0, got.err
    assert sorted(file.name for file in folder.iterdir()) == ["board", "ratings.csv", "run"]
    return folder


@pytest.fixture
def here(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made, tmp_path / "here")
    return tmp_path / "here"


def content(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


def spoil(rows: Path, label: str) -> Path:
    bad = rows.with_name("bad.csv")
    bad.write_text(rows.read_text() + f"u1,item 1,20,1,{label}\n")
    return bad


def one_class(rows: Path) -> Path:
    bad = rows.with_name("bad.csv")
    lines = [line.split(",")[:4] for line in rows.read_text().splitlines()[1:]]
    text = "".join(",".join([*line, "1"]) + "\n" for line in lines)
    bad.write_text("user,item,age,hour,rating\n" + text)
    return bad


MISTAKES = {
    "misspelt log": lambda rows: (rows.with_name("ratigns.csv"), ()),
    "unknown field": lambda rows: (rows, ("--fields", "user,itme")),
    "budget too small": lambda rows: (rows, ("--budget", "8")),
    "unknown method": lambda rows: (rows, ("--method", "hsah")),
    "unknown option": lambda rows: (rows, ("--set", "blokcs=2")),
    "bad label in the last row": lambda rows: (spoil(rows, "often"), ()),
    "one class": lambda rows: (one_class(rows), ()),
    "no negatives are kept": lambda rows: (rows, ("--negative-rate", "7")),
    "divergence": lambda rows: (rows, ("--lr", "1e30", "--optimizer", "sgd", "--network", "dcnv2")),
    "a device": lambda rows: (rows, ("--device", "abacus")),
    "a run to go on from": lambda rows: (rows, ("--from", "nowhere")),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_costs_no_run(here: Path, mistake: str) -> None:
    rows, words = MISTAKES[mistake](here / "ratings.csv")
    before = content(here)
    refused(bitfold("train", rows, *TRAIN, *words, "--out", here / "run", "--force"))
    assert content(here) == before
    assert not hidden(here / "run").exists()


@pytest.mark.parametrize(
    "mistake", [name for name in MISTAKES if name not in ("unknown method", "a run to go on from")]
)
def test_a_mistake_costs_no_comparison(here: Path, mistake: str) -> None:
    rows, words = MISTAKES[mistake](here / "ratings.csv")
    words = tuple("--budgets" if word == "--budget" else word for word in words)
    before = content(here)
    got = bitfold("compare", rows, *COMPARE, *words, "--out", here / "board", "--force")
    if got.code:
        refused(got)
        left = {name: data for name, data in content(here).items() if ".board.bitfold/" not in name}
        assert left == before
        assert (
            bitfold(
                "compare", here / "ratings.csv", *COMPARE, "--out", here / "board", "--force"
            ).code
            == 0
        )
        assert not hidden(here / "board").exists()
    else:  # a budget that is too small is a row of a comparison, no mistake
        assert mistake == "budget too small"


def test_a_full_disk_costs_nothing(here: Path) -> None:
    before = content(here)
    for command in (
        ("train", "ratings.csv", *TRAIN, "--out", "run", "--force"),
        ("compare", "ratings.csv", *COMPARE, "--out", "board", "--force"),
    ):
        refused(cramped(*command, cwd=here))
        assert content(here) == before
        assert sorted(file.name for file in here.iterdir()) == ["board", "ratings.csv", "run"]


def test_files_of_an_output_have_the_mode_that_the_umask_gives(here: Path) -> None:
    before = os.umask(0o027)
    try:
        words = (*TRAINING, "--method", "full")  # with a map from values to ids
        log = here / "log"
        for command in (
            ("prepare", here / "ratings.csv", *READING, "--ids", "vocabulary", "--out", log),
            ("train", log, *words, "--keep-log", "--out", here / "new"),
            ("train", here / "ratings.csv", *READING, *words, "--keep-log", "--out", here / "raw"),
        ):
            assert bitfold(*command).code == 0, command
    finally:
        os.umask(before)
    made = [log, here / "new", here / "raw"]
    files = [file for folder in made for file in folder.rglob("*") if file.is_file()]
    assert {file.stat().st_mode & 0o777 for file in files} == {0o640}
    assert {folder.stat().st_mode & 0o777 for folder in made} == {0o750}


def interrupted(here: Path, *words: object) -> None:
    """A training that is stopped in its second epoch."""
    with stopped_after(10):
        bitfold("train", here / "ratings.csv", *TRAIN, "--out", here / "run", *words)


def test_a_forced_training_is_resumed_and_then_takes_the_place(here: Path) -> None:
    run, rows = here / "run", here / "ratings.csv"
    before = content(run)
    interrupted(here, "--force", "--seed", 7)
    assert content(run) == before
    assert bitfold("predict", run, rows, "--out", here / "scores.csv").code == 0
    (here / "scores.csv").unlink()
    refused(bitfold("train", rows, *TRAIN, "--out", run), "--resume", "--force", "finished run")
    assert bitfold("train", "--out", run, "--resume").code == 0
    assert json.loads((run / "config.json").read_text())["train"]["seed"] == 7
    assert bitfold("train", rows, *TRAIN, "--seed", 7, "--out", here / "fresh").code == 0
    name = "weights.safetensors"
    assert (run / name).read_bytes() == (here / "fresh" / name).read_bytes() != before[name]
    assert not hidden(run).exists()


def test_a_forced_training_begins_anew_with_force(here: Path) -> None:
    run, rows = here / "run", here / "ratings.csv"
    before = content(run)
    interrupted(here, "--force", "--seed", 7)
    refused(bitfold("train", rows, *TRAIN, "--seed", 8, "--out", run, "--resume"), "another seed")
    assert content(run) == before
    assert bitfold("train", rows, *TRAIN, "--out", run, "--force").code == 0
    assert not hidden(run).exists()
    assert content(run)["weights.safetensors"] == before["weights.safetensors"]


def test_a_whole_run_that_was_not_put_in_its_place(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*args: object, **words: object) -> None:
        raise Stop

    run, rows = here / "run", here / "ratings.csv"
    with monkeypatch.context() as patch:
        patch.setattr(fit.folder, "tidy", die)
        with pytest.raises(Stop):
            bitfold("train", rows, *TRAIN, "--seed", 7, "--out", run, "--force")
    assert json.loads((run / "config.json").read_text())["train"]["seed"] == 0
    assert bitfold("train", "--out", run, "--resume").code == 0
    assert json.loads((run / "config.json").read_text())["train"]["seed"] == 7
    assert not (run / "checkpoint").exists()
    assert not hidden(run).exists()


def test_a_forced_comparison_is_resumed(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    board, rows = here / "board", here / "ratings.csv"
    words = (*COMPARE, "--budgets", "2KiB,1KiB", "--keep-runs")
    before, begun = content(board), []
    real = fit.train

    def dying(*args: object, **more: object) -> object:
        begun.append(args[3])
        if len(begun) == 2:
            raise Stop
        return real(*args, **more)  # type: ignore[arg-type]

    monkeypatch.setattr("bitfold.training.train", dying)
    with pytest.raises(Stop):
        bitfold("compare", rows, *words, "--out", board, "--force")
    assert content(board) == before
    refused(bitfold("compare", rows, *words, "--out", board), "--resume", "--force")
    got = bitfold("compare", rows, *words, "--out", board, "--resume")
    assert got.code == 0, got.err
    assert len(begun) == 3
    found = json.loads((board / "results.json").read_text())
    assert [row["budget"] for row in found["results"]] == ["2KiB", "1KiB"]
    assert f"--out {board}" in (board / "board.html").read_text()
    assert not hidden(board).exists()
    kept = next((board / "runs").iterdir())
    assert json.loads((kept / "config.json").read_text())["paths"] == [str(board / "log")]
    assert bitfold("evaluate", kept, rows).code == 0
    assert bitfold("compare", rows, *COMPARE, "--out", board, "--force").code == 0


@pytest.mark.parametrize("name", [".git/HEAD", ".env", "notes.md", "logs/mine.txt"])
def test_other_peoples_files_in_a_run(here: Path, name: str) -> None:
    mine = here / "run" / name
    mine.parent.mkdir(exist_ok=True)
    mine.write_text("mine")
    before = content(here)
    refused(bitfold("train", here / "ratings.csv", *TRAIN, "--out", here / "run", "--force"), name)
    assert content(here) == before
    # A training that fails in a folder of its own leaves what has come there meanwhile.
    out = here / "new"
    progress = Trainer._epoch

    def epoch(self):  # type: ignore[no-untyped-def]
        (out / name).parent.mkdir(exist_ok=True, parents=True)
        (out / name).write_text("mine")
        return progress(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "_epoch", epoch)
        words = (*MISTAKES["divergence"](here)[1], "--out", out)
        refused(bitfold("train", here / "ratings.csv", *TRAIN, *words), "diverged")
        assert list(content(out)) == [name]
        assert bitfold("train", here / "ratings.csv", *TRAIN, "--out", here / "other").code == 0
    sealed = json.loads((here / "other" / "manifest.json").read_text())["files"]
    assert "notes.md" not in sealed


def test_outputs_and_inputs_are_apart(here: Path) -> None:
    run, board, rows = here / "run", here / "board", here / "ratings.csv"
    log = here / "log"
    assert bitfold("prepare", rows, *READING, "--out", log).code == 0
    (here / "link.csv").symlink_to(rows)
    before = content(here)
    for command in (
        ("train", log, *TRAINING, "--budget", "2KiB", "--out", log / "run"),
        ("train", log, *TRAINING, "--budget", "2KiB", "--out", log, "--force"),
        ("train", run / "config.json", *TRAIN, "--out", run, "--force"),
        ("train", rows, "--from", run, "--out", run, "--force"),
        ("compare", log, *TRAINING, "--out", log / "board"),
        ("compare", board / "log", *TRAINING, "--out", board, "--force"),
        ("prepare", here, "--format", "csv", *READING, "--out", here / "out"),
        ("prepare", log / "train" / "*.parquet", *READING, "--out", log, "--force"),
        ("predict", run, rows, "--out", rows, "--force"),
        ("predict", run, rows, "--out", here / "run" / ".." / "ratings.csv", "--force"),
        ("predict", run, rows, "--out", here / "link.csv", "--force"),
        ("predict", run, here / "link.csv", "--out", rows, "--force"),
        ("predict", run, rows, "--out", run / "weights.csv", "--force"),
    ):
        refused(bitfold(*command))
        assert content(here) == before, command
