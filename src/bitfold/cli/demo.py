"""The main job on a synthetic log: what `make demo` runs.

It is three commands, shown before they run, so that each can be tried again with other options.
"""

import argparse
import shlex
import subprocess
import sys
from pathlib import Path

FIELDS = 10
BUDGETS = "10x,100x,1000x"


def commands(out: Path) -> list[list[str]]:
    """The demo's command lines, without the word `bitfold`.

    Example:
        >>> [command[0] for command in commands(Path("demo-out"))]
        ['synth', 'prepare', 'compare']
    """
    raw, log, board = (str(out / name) for name in ("clicks.parquet", "log", "board"))
    fields = ",".join(f"field_{number}" for number in range(FIELDS))
    reading = ["--label", "label", "--fields", fields, "--numeric", "numeric_0,numeric_1"]
    training = ["--epochs", "1", "--batch-size", "4096", "--lr", "2e-3", "--seeds", "1"]
    return [
        ["synth", "--fields", str(FIELDS), "--out", raw, "--force"],
        ["prepare", raw, *reading, "--group", "field_0", "--out", log, "--force"],
        ["compare", log, "--budgets", BUDGETS, *training, "--out", board, "--force"],
    ]


def main() -> int:
    """Run the commands, stopping at the first that fails; returns its exit code."""
    parser = argparse.ArgumentParser(description="bitfold on a synthetic log of 1.2 million rows")
    parser.add_argument("--out", type=Path, default=Path("demo-out"), help="where to write")
    out: Path = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    for command in commands(out):
        print(f"\n$ bitfold {shlex.join(command)}", flush=True)
        code = subprocess.run([sys.executable, "-m", "bitfold", *command], check=False).returncode
        if code:
            return code
    print(
        f"\nOpen {out}/board/board.html to see it; all figures are in {out}/board/results.json.\n"
        "Next, on a log of your own:\n"
        "  bitfold compare clicks.csv.gz --label clicked --fields user,item --out board\n"
        "  bitfold train clicks.csv.gz --label clicked --fields user,item --budget 100x --out RUN\n"
        "  bitfold predict RUN clicks.csv.gz --out scores.parquet\n"
        "README.md has the rest; `bitfold methods` lists the methods."
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
