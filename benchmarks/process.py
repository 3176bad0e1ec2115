"""A contestant in a process of its own, and in an environment of its own if it is a rival.

`ask` runs a script of `contestants/` with settings (JSON on its standard input) and returns its
answer (JSON, the last line of its standard output); `answer` is the script's side. This file needs
the standard library alone.
"""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ENVIRONMENTS = HERE.parent / ".rivals"
READY, FAILED = ".ready", ".failed"
Answer = dict[str, Any]


def ask(
    script: str, settings: dict[str, Any], rival: str | None = None, seconds: float = 900
) -> Answer:
    """What a script measures; `{"missing": why}` if the rival is not there or does not run.

    Args:
        script: a file of `contestants/`.
        settings: what it is told.
        rival: whose environment it runs in, a folder of `.rivals`; None for this one.
        seconds: how long it may take.
    """
    python = sys.executable
    if rival is not None:
        folder = ENVIRONMENTS / rival
        if not (folder / READY).exists():
            failed = folder / FAILED
            why = failed.read_text().strip() if failed.exists() else "run `make rivals`"
            return {"missing": f"not installed: {why}"}
        python = str(folder / "bin" / "python")
    paths = [str(HERE)]
    if rival is None and os.environ.get("PYTHONPATH"):
        paths.append(os.environ["PYTHONPATH"])
    try:
        done = subprocess.run(
            [python, str(HERE / "contestants" / script)],
            input=json.dumps(settings),
            capture_output=True,
            text=True,
            timeout=seconds,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            check=False,
        )
    except subprocess.TimeoutExpired:
        return {"missing": f"did not end within {seconds:.0f} s"}
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        return {"missing": f"failed: {lines[-1] if lines else f'exit code {done.returncode}'}"}
    found: Answer = json.loads(done.stdout.splitlines()[-1])  # some libraries print as they load
    return found


def answer(measured: Callable[[dict[str, Any]], Answer]) -> None:
    """Read settings, measure, and print the answer; whatever else is printed goes to stderr."""
    settings = json.load(sys.stdin)
    with contextlib.redirect_stdout(sys.stderr):
        found = measured(settings)
    print("\n" + json.dumps(found))
