"""The command as tests call it: in this process, or in one of its own."""

import contextlib
import io
import random
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from bitfold.cli.entry import main


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str


def bitfold(*args: object) -> Outcome:
    """Run one command line in this process."""
    out, err = io.StringIO(), io.StringIO()
    code: object = None
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main([str(arg) for arg in args])
        except SystemExit as end:
            code = end.code
    assert isinstance(code, int)
    return Outcome(code, out.getvalue(), err.getvalue())


def process(*args: object, cwd: Path | None = None) -> Outcome:
    """Run one command line in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "bitfold", *map(str, args)],
        capture_output=True,
        text=True,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        check=False,
        timeout=300,
    )
    return Outcome(done.returncode, done.stdout, done.stderr)


def cramped(*args: object, cwd: Path) -> Outcome:
    """Run one command line where no file may grow past a kilobyte: a disk that is full."""
    line = "ulimit -f 1; trap '' XFSZ; exec " + shlex.join(
        [sys.executable, "-m", "bitfold", *map(str, args)]
    )
    done = subprocess.run(
        ["bash", "-c", line], capture_output=True, text=True, cwd=cwd, check=False, timeout=300
    )
    return Outcome(done.returncode, done.stdout, done.stderr)


def write_ratings(
    path: Path, rows: int = 600, seed: int = 0, users: int = 40, items: int = 30
) -> Path:
    """A log of ratings that users and items explain in part."""
    draw = random.Random(seed)
    taste = [draw.gauss(0, 1.5) for _ in range(users)]
    appeal = [draw.gauss(0, 1.5) for _ in range(items)]
    lines = ["user,item,age,hour,rating"]
    for _ in range(rows):
        user, item = draw.randrange(users), draw.randrange(items)
        score = 3.4 + taste[user] + appeal[item] + draw.gauss(0, 0.7)
        rating = min(max(round(score), 1), 5)
        hour = draw.randrange(24)
        lines.append(f"u{user},item {item},{20 + user % 5 * 10},{hour},{rating}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


READING = ("--label", "rating>=4", "--fields", "user,item,age", "--group", "user")
TRAINING = ("--width", 4, "--hidden", "8", "--epochs", 2, "--batch-size", 64, "--lr", 0.01)


def refused(outcome: Outcome, *texts: str) -> None:
    """Check that a mistake was told as the house tells it: one message, exit code 2."""
    assert outcome.code == 2, outcome
    assert "Traceback" not in outcome.err + outcome.out
    told = [line for line in outcome.err.splitlines() if line.startswith("bitfold: ")]
    assert len(told) == 1, outcome.err
    for text in texts:
        assert text in outcome.err, outcome.err
