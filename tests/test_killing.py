"""Killed at its file operations, a command leaves the old output or the new one, and a way on.

`tests/killing.py` does the killing. Here are a few dozen of its tries; `make kill` makes all.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("killing.py")


def kill(folder: Path, scenario: str, *words: object) -> list[dict[str, object]]:
    """The tries of one scenario."""
    done = subprocess.run(
        [sys.executable, SCRIPT, folder, "--only", scenario, *map(str, words)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["fell"] for line in told] == [[]] * len(told)
    assert done.returncode == 0
    return told


@pytest.mark.parametrize(
    ("scenario", "signals", "first", "every"),
    [
        ("prepare --force", "KILL", 2, 9),
        ("synth --force", "INT", 2, 5),
        ("train --force", "KILL", 20, 60),
        ("compare --force", "INT", 40, 200),
        ("stream", "KILL", 12, 150),
    ],
)
def test_a_sample_of_kills(
    tmp_path: Path, scenario: str, signals: str, first: int, every: int
) -> None:
    words = ("--signals", signals, "--first", first, "--every", every)
    (told,) = kill(tmp_path, scenario, *words)
    assert int(str(told["tries"])) >= 4


def test_a_stream_killed_at_random_moments_comes_to_the_same(tmp_path: Path) -> None:
    (told,) = kill(tmp_path, "stream", "--random", 5)
    assert told["tries"] == 5


@pytest.mark.slow
def test_a_stream_killed_at_twenty_random_moments(tmp_path: Path) -> None:
    (told,) = kill(tmp_path, "stream", "--random", 20, "--seed", 1)
    assert told["tries"] == 20
