"""The command as a user runs it: the whole road on a small log."""

import json
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest

from bitfold import __version__
from bitfold.cli.entry import COMMANDS
from command import READING, TRAINING, bitfold, process, refused, write_ratings


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("road")


@pytest.fixture(scope="module")
def ratings(folder: Path) -> Path:
    return write_ratings(folder / "ratings.csv")


@pytest.fixture(scope="module")
def log(folder: Path, ratings: Path) -> Path:
    got = bitfold("prepare", ratings, *READING, "--numeric", "hour", "--out", folder / "log")
    assert got.code == 0, got.err
    assert "distinct ids" in got.out
    return folder / "log"


@pytest.fixture(scope="module")
def run(folder: Path, log: Path) -> Path:
    got = bitfold("train", log, *TRAINING, "--budget", "2KiB", "--out", folder / "run")
    assert got.code == 0, got.err
    assert "auc" in got.out
    return folder / "run"


def loaded_by(*args: object) -> set[str]:
    """The packages that one command line loads."""
    script = (
        "import sys, bitfold.cli.entry as entry\n"
        f"try: entry.main({[str(arg) for arg in args]!r})\n"
        "except SystemExit as end: assert end.code == 0, end.code\n"
        "print('loaded', *{name.partition('.')[0] for name in sys.modules})\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split())


def test_the_help_loads_nothing_heavy() -> None:
    heavy = {"torch", "polars", "pyarrow", "numba", "lightning_fabric", "sklearn", "rich"}
    assert not loaded_by("--help") & heavy
    shown = bitfold("--help").out
    assert all(name in shown for name in COMMANDS)


def test_preparing_never_loads_torch(ratings: Path, tmp_path: Path) -> None:
    assert "torch" not in loaded_by("prepare", ratings, *READING, "--out", tmp_path / "log")


def test_inspecting_a_log_never_loads_torch(log: Path) -> None:
    assert "torch" not in loaded_by("inspect", log)


def test_version() -> None:
    assert bitfold("--version").out.strip() == f"bitfold, version {__version__}"


@pytest.mark.parametrize("name", list(COMMANDS))
def test_every_command_explains_itself(name: str) -> None:
    got = bitfold(name, "--help")
    assert got.code == 0
    assert f"Usage: bitfold {name}" in got.out
    assert "--help" in got.out


def test_no_command_shows_the_help_and_is_a_mistake() -> None:
    got = bitfold()
    assert got.code == 2
    assert "Commands:" in got.err


def test_synth_writes_a_log_and_says_its_best_auc(tmp_path: Path) -> None:
    out = tmp_path / "clicks.csv.gz"
    got = bitfold("synth", "--rows", "2e3", "--ids", 200, "--fields", 3, "--out", out)
    assert got.code == 0, got.err
    assert "2,000 rows" in got.out
    assert "best AUC" in got.out
    assert out.stat().st_size > 1000


def test_the_metrics_of_a_run(run: Path) -> None:
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["ratio"] > 0
    assert metrics["epochs"] == 2
    assert 0 < metrics["auc"] <= 1
    assert 0 < metrics["bytes"] <= 2048
    assert metrics["rows_per_second"] > 0


def test_a_run_says_its_words_and_says_them_again(tmp_path: Path, log: Path, run: Path) -> None:
    got = bitfold("train", log, "--config", run / "config.json", "--out", tmp_path / "again")
    assert got.code == 0, got.err
    first, second = (
        (path / "weights.safetensors").read_bytes() for path in (run, tmp_path / "again")
    )
    assert first == second


def test_raw_rows_straight_into_training(tmp_path: Path, ratings: Path) -> None:
    got = bitfold(
        *("train", ratings, *READING, *TRAINING, "--method", "binary-code"),
        *("--budget", "64KiB", "--set", "blocks=2", "--set", "fusion=sum"),
        *("--network", "dcnv2", "--out", tmp_path / "r"),
    )
    assert got.code == 0, got.err
    config = json.loads((tmp_path / "r" / "config.json").read_text())
    assert config["train"]["set"] == {"blocks": "2", "fusion": "sum"}
    assert config["data"]["label"] == "rating>=4"


def test_evaluate_repeats_the_runs_own_figures(log: Path, run: Path) -> None:
    got = bitfold("evaluate", run, log, "--json")
    assert got.code == 0, got.err
    figures = json.loads(got.out)
    metrics = json.loads((run / "metrics.json").read_text())
    assert figures["auc"] == pytest.approx(metrics["auc"], abs=1e-9)
    assert "log" in bitfold("evaluate", run, log, "--part", "valid").out


def test_predict_needs_the_run_alone(tmp_path: Path, ratings: Path, run: Path) -> None:
    """A fresh process, another folder, unseen values, no label: scores in the input's order."""
    shutil.copytree(run, tmp_path / "model")
    rows = pl.read_csv(ratings).drop("rating").head(50)
    stranger = rows.head(1).with_columns(user=pl.lit("nobody"), item=pl.lit("a new one"))
    pl.concat([rows, stranger]).write_csv(tmp_path / "new.csv")
    got = process("predict", "model", "new.csv", "--out", "scores.parquet", cwd=tmp_path)
    assert got.code == 0, got.err
    scores = pl.read_parquet(tmp_path / "scores.parquet")["score"]
    assert len(scores) == 51
    assert scores.is_between(0, 1).all()
    turned = pl.concat([rows, stranger]).reverse()
    turned.write_csv(tmp_path / "turned.csv")
    assert bitfold("predict", run, tmp_path / "turned.csv", "--out", tmp_path / "t.csv").code == 0
    back = pl.read_csv(tmp_path / "t.csv")["score"].reverse()
    assert (back - scores).abs().max() < 1e-6  # type: ignore[operator]


def test_the_next_days_log(tmp_path: Path, run: Path) -> None:
    day = write_ratings(tmp_path / "day2.csv", seed=1)
    got = bitfold("train", day, "--from", run, "--epochs", 1, "--out", tmp_path / "next")
    assert got.code == 0, got.err
    before, after = (
        json.loads((path / "config.json").read_text()) for path in (run, tmp_path / "next")
    )
    assert after["train"] == before["train"] | {"epochs": 1}
    assert after["from_run"] == str(run)


def test_resume_says_only_where(log: Path, run: Path) -> None:
    before = (run / "weights.safetensors").read_bytes()
    assert bitfold("train", log, "--out", run, "--resume").code == 0
    assert bitfold("train", "--out", run, "--resume").code == 0
    assert (run / "weights.safetensors").read_bytes() == before


def test_words_of_reading_that_the_log_has_settled(log: Path, tmp_path: Path) -> None:
    got = bitfold("train", log, "--label", "age>30", "--out", tmp_path / "run")
    refused(got, "was prepared with another --label", "rating>=4")
    assert not (tmp_path / "run").exists()
    agreed = ("train", log, *READING, *TRAINING, "--budget", "2KiB", "--out", tmp_path / "run")
    assert bitfold(*agreed).code == 0


def test_plan_of_a_log_and_of_said_fields(log: Path) -> None:
    got = bitfold("plan", log, "--budget", "2KiB", "--width", 4)
    assert got.code == 0, got.err
    assert "user" in got.out
    said = bitfold("plan", "--fields", "user=6040,movie=3706", "--budget", "10x", "--json")
    made = json.loads(said.out)
    assert sum(made["by_kind"].values()) <= 62374
    assert [field["name"] for field in made["fields"]] == ["user", "movie"]


def test_methods_lists_all_and_explains_one() -> None:
    listed = bitfold("methods").out
    assert all(name in listed for name in ("full", "hash", "multi-hash", "binary-code"))
    assert "strategy" in bitfold("methods", "binary-code").out


def test_a_method_from_a_file_of_the_users(tmp_path: Path) -> None:
    plugin = tmp_path / "mine.py"
    plugin.write_text(
        "from dataclasses import dataclass\n"
        "from bitfold.method.hash import Hash\n"
        "@dataclass(frozen=True)\n"
        "class Mine(Hash):\n"
        "    '''The hash trick under a name of its own.'''\n"
        "    name = 'mine'\n"
        "    summary = 'one of my own'\n"
        "    when = 'to try the road'\n"
    )
    got = process("methods", "--plugin", plugin)
    assert got.code == 0, got.err
    assert "one of my own" in got.out


def test_output_that_is_no_terminal_has_no_escape_codes(ratings: Path, tmp_path: Path) -> None:
    got = process("prepare", ratings, *READING, "--out", tmp_path / "log")
    assert got.code == 0, got.err
    assert "\x1b" not in got.out + got.err
    assert "preparing" in got.err
    assert "preparing" not in got.out


def test_a_reader_that_leaves_early_is_no_error() -> None:
    done = subprocess.run(
        [f"{sys.executable} -m bitfold methods | head -1"],
        shell=True,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_cleanly(tmp_path: Path, log: Path, number: signal.Signals) -> None:
    command = ["train", log, *TRAINING, "--epochs", 100_000, "--patience", 0, "--budget", "2KiB"]
    child = subprocess.Popen(
        [sys.executable, "-m", "bitfold", *map(str, command), "--out", tmp_path / "run"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        deadline = time.monotonic() + 120
        while not list((tmp_path / "run").glob("checkpoint/*")):
            assert child.poll() is None, child.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        child.send_signal(number)
        _, err = child.communicate(timeout=60)
    finally:
        child.kill()
    assert child.returncode == 128 + number, err
    assert "Traceback" not in err
    said = shlex.join(["bitfold", *map(str, command), "--out", str(tmp_path / "run"), "--resume"])
    assert err.splitlines()[-2:] == ["bitfold: stopped; to go on:", said]


def test_debug_shows_the_traceback() -> None:
    quiet = bitfold("methods", "hsah")
    refused(quiet, "did you mean 'hash'")
    loud = bitfold("methods", "hsah", "--debug")
    assert loud.code == 2
    assert "Traceback" in loud.err
