"""Bad input through the command: one message, exit code 2, no traceback, nothing half-written."""

import errno
import gzip
import json
import os
import shutil
from pathlib import Path

import polars as pl
import pytest

from bitfold.cli import entry
from command import READING, TRAINING, bitfold, cramped, process, refused, write_ratings

HEADER = "user,item,age,hour,rating\n"
FEW = HEADER + "u1,i1,20,3,5\nu2,i2,30,4,1\nu1,i2,20,5,2\nu2,i1,30,6,4\n"


@pytest.fixture(scope="module")
def ratings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_ratings(tmp_path_factory.mktemp("mistakes") / "ratings.csv")


@pytest.fixture(scope="module")
def run(ratings: Path) -> Path:
    out = ratings.parent / "run"
    got = bitfold("train", ratings, *READING, *TRAINING, "--budget", "2KiB", "--out", out)
    assert got.code == 0, got.err
    return out


def prepared(folder: Path, name: str, data: bytes | str, *args: object) -> tuple[Path, object]:
    """Prepare a file of these bytes; the folder must hold nothing else afterwards."""
    path = folder / name
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    outcome = bitfold("prepare", path, *(args or READING), "--out", folder / "log")
    assert sorted(each.name for each in folder.iterdir()) == [name], "something was left behind"
    return path, outcome


BAD_FILES = {
    "empty": ("a.csv", b"", ("empty",)),
    "header only": ("a.csv", HEADER.encode(), ()),
    "ragged": ("a.csv", (FEW + "u3,i1,20\n").encode(), ("6",)),
    "not UTF-8": ("a.csv", FEW.encode() + b"u\xff\xfe,i1,20,3,5\n", ("UTF-8",)),
    "truncated gzip": ("a.csv.gz", gzip.compress(FEW.encode() * 500)[:-20], ()),
    "no gzip at all": ("a.csv.gz", b"user,item\n", ()),
    "broken Parquet": ("a.parquet", b"PAR1 and then nothing", ()),
    "one class": ("a.csv", (HEADER + "u1,i1,20,3,5\nu2,i2,30,4,5\n").encode(), ("class",)),
    "a field all missing": ("a.csv", (HEADER + "u1,,20,3,5\nu2,,30,4,1\n").encode(), ("item",)),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_bad_files(tmp_path: Path, case: str) -> None:
    name, data, texts = BAD_FILES[case]
    _, outcome = prepared(tmp_path, name, data)
    refused(outcome, *texts)  # type: ignore[arg-type]


def test_a_missing_file(tmp_path: Path) -> None:
    refused(bitfold("prepare", tmp_path / "no.csv", *READING, "--out", tmp_path / "log"), "no.csv")
    assert not any(tmp_path.iterdir())


def test_nested_parquet(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pl.DataFrame({"user": [{"a": 1}, {"a": 2}], "y": [0, 1]}).write_parquet(path)
    got = bitfold("prepare", path, "--label", "y", "--fields", "user", "--out", tmp_path / "log")
    refused(got, "user")
    assert not (tmp_path / "log").exists()


BAD_WORDS = {
    "unknown column": (("--label", "rating>=4", "--fields", "usr"), ("did you mean 'user'",)),
    "label neither 0 nor 1": (("--label", "rating", "--fields", "user"), ("0", "1")),
    "no label": (("--fields", "user"), ("label",)),
    "fractions": ((*READING, "--split", "random:0.8,0.1,0.2"), ("sum to 1",)),
    "unknown split": ((*READING, "--split", "randon:0.8,0.1,0.1"), ("did you mean 'random'",)),
    "unknown format": ((*READING, "--format", "parket"), ("did you mean 'parquet'",)),
    "fractional dense ids": (
        ("--label", "rating>=4", "--fields", "dense", "--ids", "dense"),
        ("dense",),
    ),
    "negative dense ids": (
        ("--label", "rating>=4", "--fields", "minus", "--ids", "dense"),
        ("-1",),
    ),
    "unknown option": ((*READING, "--spilt", "random:0.8,0.1,0.1"), ("did you mean '--split'",)),
    "a number that is none": ((*READING, "--min-count", "few"), ("--min-count", "whole number")),
}


@pytest.mark.parametrize("case", BAD_WORDS)
def test_bad_words_of_reading(tmp_path: Path, case: str) -> None:
    words, texts = BAD_WORDS[case]
    data = "user,dense,minus,rating\nu1,0.5,-1,5\nu2,1,2,1\nu1,2,0,4\n"
    path = tmp_path / "a.csv"
    path.write_text(data)
    if "user,item,age" in words:
        path.write_text(FEW)
    refused(bitfold("prepare", path, *words, "--out", tmp_path / "log"), *texts)
    assert [each.name for each in tmp_path.iterdir()] == ["a.csv"]


BAD_TRAINING = {
    "budget 0": (("--budget", "0"), ("above zero",)),
    "budget too small": (("--budget", "20"), ("bytes or more",)),
    "budget malformed": (("--budget", "ten"), ("malformed budget",)),
    "ratio below 1": (("--budget", "0.5x"), ("1x or more",)),
    "unknown method": (("--method", "binarycode"), ("did you mean 'binary-code'",)),
    "unknown option": (
        ("--budget", "2KiB", "--set", "strateggy=skip"),
        ("did you mean 'strategy'",),
    ),
    "wrong option": (("--budget", "2KiB", "--set", "blocks=many"), ("blocks",)),
    "unknown network": (("--network", "deepmf"), ("did you mean 'deepfm'",)),
    "unknown network option": (
        ("--budget", "2KiB", "--network-set", "lineer=false"),
        ("did you mean 'linear'",),
    ),
    "width 0": (("--width", "0", "--budget", "2KiB"), ("width",)),
    "no epochs": (("--epochs", "0"), ("epochs",)),
    "no rate": (("--lr", "-1"), ("lr",)),
    "no such device": (("--device", "abacus", "--budget", "2KiB"), ("abacus",)),
}


@pytest.mark.parametrize("case", BAD_TRAINING)
def test_bad_words_of_training(tmp_path: Path, ratings: Path, case: str) -> None:
    words, texts = BAD_TRAINING[case]
    refused(bitfold("train", ratings, *READING, *words, "--out", tmp_path / "run"), *texts)
    assert not any(tmp_path.iterdir())


def test_unknown_commands_name_the_nearest() -> None:
    refused(bitfold("perpare"), "did you mean 'prepare'")


def test_missing_words_are_named() -> None:
    refused(bitfold("prepare", "a.csv"), "--out is missing")
    refused(bitfold("prepare", "--out", "log"), "INPUT")
    refused(bitfold("train", "--out", "nothing-there"), "no log to train on")
    assert not Path("nothing-there").exists()


def test_outputs_that_exist_stay_as_they_are(tmp_path: Path, ratings: Path, run: Path) -> None:
    for name, command in {
        "log": ("prepare", ratings, *READING),
        "run": ("train", ratings, *READING, "--budget", "2KiB"),
        "board": ("compare", ratings, *READING),
    }.items():
        out = tmp_path / name
        out.mkdir()
        (out / "mine.txt").write_text("keep me")
        for force in ((), ("--force",)):
            refused(bitfold(*command, "--out", out, *force), str(out))
            assert [each.name for each in out.iterdir()] == ["mine.txt"]
    scores = tmp_path / "scores.csv"
    scores.write_text("keep me")
    refused(bitfold("predict", run, ratings, "--out", scores), "--force")
    assert scores.read_text() == "keep me"
    assert bitfold("predict", run, ratings, "--out", scores, "--force").code == 0
    synth = ("synth", "--rows", 100, "--ids", 20, "--out", scores)
    refused(bitfold(*synth), "--force")


def test_a_run_that_exists_needs_force(ratings: Path, run: Path) -> None:
    before = (run / "weights.safetensors").read_bytes()
    refused(bitfold("train", ratings, *READING, "--budget", "2KiB", "--out", run), "--force")
    assert (run / "weights.safetensors").read_bytes() == before


def truncate(run: Path) -> None:
    weights = run / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-40])


def tamper(run: Path) -> None:
    weights = run / "weights.safetensors"
    data = bytearray(weights.read_bytes())
    data[-3] ^= 1
    weights.write_bytes(bytes(data))


def newer(run: Path) -> None:
    manifest = json.loads((run / "manifest.json").read_text())
    (run / "manifest.json").write_text(json.dumps(manifest | {"format": 999}))


def lose(run: Path) -> None:
    (run / "schema.json").unlink()


@pytest.mark.parametrize(
    ("harm", "text"),
    [
        (truncate, "bytes"),
        (tamper, "SHA-256"),
        (newer, "newer format"),
        (lose, "schema.json"),
        (shutil.rmtree, "not a finished run"),
    ],
)
def test_a_run_that_is_not_whole(
    tmp_path: Path, ratings: Path, run: Path, harm: object, text: str
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    harm(copy)  # type: ignore[operator]
    scores = tmp_path / "scores.parquet"
    refused(bitfold("predict", copy, ratings, "--out", scores), text)
    refused(bitfold("evaluate", copy, ratings), text)
    refused(bitfold("train", ratings, "--from", copy, "--out", tmp_path / "next"), text)
    assert not scores.exists()
    assert not (tmp_path / "next").exists()


def test_predict_to_a_name_without_a_format(tmp_path: Path, ratings: Path, run: Path) -> None:
    refused(bitfold("predict", run, ratings, "--out", tmp_path / "scores.txt"), ".parquet")
    refused(bitfold("predict", run, ratings, "--out", tmp_path / "no" / "s.csv"), "does not exist")
    assert not any(tmp_path.iterdir())


def test_predict_lacks_a_column(tmp_path: Path, ratings: Path, run: Path) -> None:
    pl.read_csv(ratings).drop("item").write_csv(tmp_path / "rows.csv")
    refused(bitfold("predict", run, tmp_path / "rows.csv", "--out", tmp_path / "s.csv"), "item")
    assert not (tmp_path / "s.csv").exists()


def test_a_full_disk(tmp_path: Path, ratings: Path, run: Path) -> None:
    for command in (
        ("predict", run, ratings, "--out", "s.csv"),
        ("synth", "--rows", 20_000, "--ids", 100, "--out", "s.csv"),
        ("prepare", ratings, *READING, "--out", "log"),
        ("train", ratings, *READING, *TRAINING, "--budget", "2KiB", "--out", "run"),
        ("compare", ratings, *READING, *TRAINING, "--budgets", "2KiB", "--out", "board"),
    ):
        refused(cramped(*command, cwd=tmp_path))
        assert not any(tmp_path.iterdir()), command


def test_the_systems_refusals_are_told() -> None:
    told = str(entry.system(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/tmp/x")))
    assert "No space left on device: /tmp/x" in told
    assert "fix:" in told


def test_mistakes_in_a_process_of_their_own(tmp_path: Path) -> None:
    got = process("train", "missing.csv", *READING, "--budget", "10x", "--out", "run", cwd=tmp_path)
    refused(got, "missing.csv")
    assert got.out == ""
    assert not any(tmp_path.iterdir())
