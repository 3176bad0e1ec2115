"""Ctrl-C, SIGTERM, closed pipes and full disks: nothing is lost, and the way on is printed."""

import contextlib
import io
import os
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bitfold.cli.entry import main
from bitfold.cli.stopping import Stopped, going_on
from bitfold.outputs import hidden
from bitfold.training.loop import Trainer
from command import READING, TRAINING, bitfold, write_ratings

TRAIN = (*READING, *TRAINING, "--method", "hash", "--budget", "2KiB")
COMPARE = (
    *READING,
    *TRAINING,
    "--methods",
    "hash",
    "--budgets",
    "2KiB",
    "--seeds",
    2,
    "--no-floors",
)
STOPS = {130: KeyboardInterrupt, 143: lambda: Stopped(signal.SIGTERM)}


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_ratings(tmp_path_factory.mktemp("my rows") / "ratings.csv")


@contextlib.contextmanager
def stopping(after: int, error):  # type: ignore[no-untyped-def]
    """Training that is stopped by a signal."""
    step, steps = Trainer._step, 0

    def counted(self, batch):  # type: ignore[no-untyped-def]
        nonlocal steps
        steps += 1
        if steps == after:
            raise error()
        return step(self, batch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "_step", counted)
        yield


def last_line(err: str) -> list[str]:
    line = err.splitlines()[-1]
    assert line.startswith("bitfold "), err
    return shlex.split(line)[1:]


@pytest.mark.parametrize("code", STOPS)
@pytest.mark.parametrize("after", [1, 12])
def test_the_last_line_goes_on_with_a_training(
    rows: Path, tmp_path: Path, after: int, code: int
) -> None:
    # Plain, then --force over the run: each is stopped, and its last line makes the same run.
    out, weights = tmp_path / "a run", []
    for words in ((), ("--force", "--seed", 3)):
        with stopping(after, STOPS[code]):
            got = bitfold("train", rows, *TRAIN, "--out", out, *words)
        assert got.code == code
        assert last_line(got.err)[-1] == "--resume"
        assert "--force" not in last_line(got.err)
        assert bitfold(*last_line(got.err)).code == 0
        fresh = tmp_path / f"fresh{len(words)}"
        assert bitfold("train", rows, *TRAIN, "--out", fresh, *words).code == 0
        weights.append((out / "weights.safetensors").read_bytes())
        assert weights[-1] == (fresh / "weights.safetensors").read_bytes()
        assert not hidden(out).exists()
    assert weights[0] != weights[1]


def test_the_last_line_goes_on_with_a_comparison(rows: Path, tmp_path: Path) -> None:
    out = tmp_path / "board"
    for words in ((), ("--force",)):
        with stopping(20, KeyboardInterrupt):  # in the second cell
            got = bitfold("compare", rows, *COMPARE, f"--out={out}", *words)
        assert got.code == 130
        assert last_line(got.err)[-1] == "--resume"
        got = bitfold(*last_line(got.err))
        assert got.code == 0, got.err
        assert not hidden(out).exists()


def test_what_cannot_be_resumed_is_said_again(rows: Path, tmp_path: Path) -> None:
    words = ["prepare", str(rows), *READING, "--out", str(tmp_path / "log"), "--force"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "bitfold.data.prepare.fit", lambda *_, **how: (_ for _ in ()).throw(KeyboardInterrupt)
        )
        got = bitfold(*words)
    assert got.code == 130
    assert last_line(got.err) == words
    assert not list(tmp_path.iterdir())
    # A forced training that was stopped before it began: --resume would be about the old run.
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text("{}")
    words = ["train", "x.csv", "--out", str(tmp_path / "run")]
    assert going_on([*words, "--force"]) == shlex.join(["bitfold", *words, "--force"])
    assert going_on(words) == shlex.join(["bitfold", *words, "--resume"])


class Broken(io.StringIO):
    """A stream whose reader has left, or whose disk is full."""

    def write(self, text: str) -> int:
        raise BrokenPipeError(32, "Broken pipe")

    def flush(self) -> None:
        raise OSError(28, "No space left on device")


def test_a_broken_stderr_ends_nothing(rows: Path, tmp_path: Path) -> None:
    for name, command in {
        "log": ("prepare", rows, *READING),
        "run": ("train", rows, *TRAIN),
        "board": ("compare", rows, *COMPARE),
    }.items():
        out = io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(Broken()):
            with pytest.raises(SystemExit) as ended:
                main([*map(str, command), "--out", str(tmp_path / name)])
            assert ended.value.code == 0
        assert out.getvalue()


@pytest.mark.parametrize(
    ("redirect", "code"),
    [
        ("2>&-", 0),
        (">&- 2>&-", 0),
        ("2>/dev/full", 0),
        ("2> >(true)", 0),
        ("2>&1 | true", None),
        (">/dev/full", 2),
        ("<&- >&- 2>&-", 0),
    ],
)
def test_closed_and_full_streams(
    rows: Path, tmp_path: Path, redirect: str, code: int | None
) -> None:
    log = tmp_path / "log"
    words = shlex.join([sys.executable, "-m", "bitfold", *map(str, ("prepare", rows, *READING))])
    done = subprocess.run(
        ["bash", "-c", f"{words} --out {log} {redirect}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert code is None or done.returncode == code, done
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
    assert bitfold("inspect", log).code == 0
    assert os.listdir(tmp_path) == ["log"]  # noqa: PTH208
    shutil.rmtree(log)
