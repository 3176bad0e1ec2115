"""No argument, whatever it is, has a kernel read or write what is not there."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import bitfold

SCRIPT = Path(__file__).parent / "wrong_arguments.py"


def tried(count, first):
    """Wrong arguments, one after another, in a process of their own."""
    environment = {**os.environ, "PYTHONPATH": str(Path(bitfold.__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(count), str(first)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    last = "\n".join(done.stdout.splitlines()[-3:])
    assert done.returncode == 0, f"died ({done.returncode}) after\n{last}\n{done.stderr[-500:]}"
    assert f"done: {count} tried" in last
    return int(last.split("tried, ")[1].split()[0])


def test_a_sample_of_wrong_arguments():
    assert tried(160, 100_000) > 80


@pytest.mark.slow
def test_two_thousand_wrong_arguments():
    assert tried(2000, 0) > 1000
