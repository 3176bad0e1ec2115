"""The examples of examples/frameworks, whole and folded, and their table.

    python benchmarks/integrations.py --data ../shared/data --page docs/integrations.md

Each example runs as its user runs it, in the environment that `make frameworks` makes, one after
the other, on one thread. A cell is an example, a budget and a seed; its figures are kept in
OUT/integrations/, and what is there is not measured again. Rows a second are measured apart, in
`--turns` short runs of `SHORT` rows, each model whole and at each budget one after the other, and
without rest: run `--turns 0` for the long runs beside other work, and the turns on a quiet machine.
The page's tables stand between `<!-- table: integrations -->` and `<!-- end -->`; `--only`,
`--budgets` and `--seeds` say which cells to measure.
"""

import argparse
import json
import os
import statistics
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from report import mebibytes
from tables import PLACE, markdown

import bitfold

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "examples" / "frameworks"
PYTHON = ROOT / ".frameworks" / "bin" / "python"
MODELS = {
    "deepctr_torch_deepfm": "DeepCTR-Torch, DeepFM",
    "torch_rechub_deepfm": "torch-rechub, DeepFM",
    "fuxictr_deepfm": "FuxiCTR, DeepFM",
    "recbole_deepfm": "RecBole, DeepFM",
    "torchrec_deepfm": "TorchRec, DeepFM",
    "transformers_bert": "Transformers, BERT of two layers",
    "lightning_deepfm": "Lightning, DeepFM",
    "plain_dlrm": "plain DLRM",
    "two_tower": "two towers",
}
WHOLE = "none"
BUDGETS = (WHOLE, "10x", "50x")
SHORT = 100_000
Row = dict[str, Any]


@dataclass(frozen=True)
class Cell:
    """An example at a budget, with a seed; or a short run of it, to see how fast it is."""

    model: str
    budget: str
    seed: int
    short: bool = False

    def path(self, out: Path) -> Path:
        """Where its figures are kept."""
        what = "speed-" if self.short else ""
        return out / "integrations" / f"{what}{self.model}-{self.budget}-{self.seed}.json"

    def measure(self, log: Path) -> Row:
        """Run it in a process of its own.

        Raises:
            RuntimeError: it failed; the last line of what it said.
        """
        words = ["--data", str(log), "--budget", self.budget, "--seed", str(self.seed)]
        words += ["--rows", str(SHORT), "--epochs", "1"] if self.short else []
        done = subprocess.run(
            [str(PYTHON), str(EXAMPLES / f"{self.model}.py"), *words],
            capture_output=True, text=True, check=False,
            env={**os.environ, "OMP_NUM_THREADS": "1", "POLARS_MAX_THREADS": "1"},
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(done.stderr.strip().splitlines()[-1])
        found: Row = json.loads(done.stdout.splitlines()[-1])
        return found


def prepared(data: Path, out: Path) -> Path:
    """The log that all of them read; made once."""
    folder = out / "integrations" / "log"
    if not (folder / "log.json").is_file():
        folder.parent.mkdir(parents=True, exist_ok=True)
        script = "import sys, ml1m, pathlib; ml1m.prepared(*map(pathlib.Path, sys.argv[1:]))"
        words = [str(PYTHON), "-c", script, str(data.resolve()), str(folder.resolve())]
        subprocess.run(words, check=True, env={**os.environ, "PYTHONPATH": str(EXAMPLES)})
    return folder


def figures(model: str, budget: str, out: Path, before: str = "") -> list[Row]:
    """The seeds that are measured; or the turns."""
    found = sorted((out / "integrations").glob(f"{before}{model}-{budget}-*.json"))
    return [json.loads(path.read_text()) for path in found]


def mean(rows: Sequence[Row], name: str) -> float:
    """Over seeds."""
    return statistics.fmean(row[name] for row in rows)


def line(model: str, budget: str, out: Path) -> list[str] | None:
    """A line of the table; None while it is not measured."""
    whole, rows = figures(model, WHOLE, out), figures(model, budget, out)
    if not whole or not rows:
        return None
    auc, full = mean(rows, "auc"), mean(whole, "auc")
    quick, slow = (figures(model, each, out, "speed-") for each in (budget, WHOLE))
    ratios = [
        a["rows_per_second"] / b["rows_per_second"] for a, b in zip(quick, slow, strict=False)
    ]
    folded = budget != WHOLE
    return [
        MODELS[model], budget if folded else "whole", f"{auc:.4f}",
        f"{(auc - 0.5) / (full - 0.5):.1%}" if folded else "",
        f"{mean(rows, 'bytes'):,.0f}",
        f"{statistics.median(row['rows_per_second'] for row in quick):,.0f}" if quick else "",
        f"{statistics.median(ratios):.2f}" if folded and ratios else "",
        f"{mean(rows, 'first_step'):.1f}", f"{mean(rows, 'epochs'):.0f}",
        mebibytes(mean(rows, "resident")), str(len(rows)),
    ]  # fmt: skip


def table(out: Path) -> str:
    """The table of all that is measured."""
    heads = ["model", "budget", "test AUC", "of the lift over 0.5", "bytes of tables"]
    heads += ["rows/s in training", "times the whole", "first step, s", "epochs"]
    heads += ["resident, MiB", "seeds"]
    cells = [line(model, budget, out) for model in MODELS for budget in BUDGETS]
    return markdown(heads, [cell for cell in cells if cell is not None])


def write(page: Path, out: Path) -> None:
    """Put the table into its place."""
    text = PLACE.sub(
        lambda found: found[1] + table(out) + found[3] if found[2] == "integrations" else found[0],
        page.read_text(),
    )
    page.write_text(text)


def main() -> None:
    say = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    say.add_argument("--data", type=Path, required=True)
    say.add_argument("--out", type=Path, default=Path("bench-out"))
    say.add_argument("--page", type=Path)
    say.add_argument("--seeds", type=int, default=3)
    say.add_argument("--turns", type=int, default=5, help="short runs of each, for rows a second")
    say.add_argument("--only", nargs="*", default=list(MODELS), choices=list(MODELS))
    say.add_argument("--budgets", nargs="*", default=list(BUDGETS))
    args = say.parse_args()
    if not PYTHON.exists():
        say.error("the frameworks are not installed: run `make frameworks`")
    log = prepared(args.data, args.out)
    cells = [
        Cell(model, budget, seed)
        for seed in range(args.seeds) for budget in args.budgets for model in args.only
    ]  # fmt: skip
    cells += [
        Cell(model, budget, turn, short=True)
        for model in args.only for turn in range(args.turns) for budget in args.budgets
    ]  # fmt: skip
    for cell in cells:
        kept = cell.path(args.out)
        if kept.is_file():
            continue
        try:
            found = cell.measure(log)
        except RuntimeError as error:
            print(f"{kept.stem}: failed: {error}", flush=True)
            continue
        kept.write_text(json.dumps({**found, "bitfold": bitfold.__version__}) + "\n")
        print(f"{kept.stem}: {found}", flush=True)
    if args.page:
        write(args.page, args.out)
    print(table(args.out))


if __name__ == "__main__":
    main()
