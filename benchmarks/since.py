"""What has become slower since another commit: its benchmarks and today's, turn by turn.

    python benchmarks/since.py COMMIT --subjects lookups bags training --turns 3

The commit is checked out beside this tree, and each subject runs there and here, one after the
other, as often as there are turns. What counts are bitfold's own contestants that both have; a
ratio is the median over the turns of its milliseconds today through those of then, each through the
full table's (or plain PyTorch's) of the same run, so that what else the machine does has less to
say. Below 1 is faster than then.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from report import Row, machine, table, write
from rich.console import Console

HERE = Path(__file__).resolve().parents[1]
OURS = "bitfold"
YARD = ("nn.Embedding", "nn.EmbeddingBag", "plain PyTorch, sparse")
FACTS = ("ids", "phase", "group", "mode", "length", "case", "name")


def figures(
    tree: Path, subject: str, out: Path, rounds: int, kernels: Path
) -> dict[tuple[Any, ...], float]:
    """Milliseconds of each of a subject's contestants in a tree, through those of its yardstick."""
    script = tree / "benchmarks" / f"{subject}.py"
    command = [sys.executable, str(script), "--out", str(out), "--rounds", str(rounds)]
    place = {"PYTHONPATH": str(tree / "src"), "NUMBA_CACHE_DIR": str(kernels)}
    subprocess.run(command, check=True, env=os.environ | place, stdout=subprocess.DEVNULL)
    rows = json.loads((out / f"{subject}.json").read_text())["results"]
    rows = [row for row in rows if "milliseconds" in row]
    yards: dict[tuple[Any, ...], float] = {}
    for row in rows:
        if row["name"].startswith(YARD):
            yards.setdefault(_group(row), row["milliseconds"])
    return {
        tuple(row.get(fact) for fact in FACTS): row["milliseconds"] / yards[_group(row)]
        for row in rows
        if row["name"].startswith(OURS)
    }


def _group(row: Row) -> tuple[Any, ...]:
    return tuple(row.get(fact) for fact in FACTS[:-1])


def compared(then: Path, subject: str, turns: int, rounds: int, out: Path) -> list[Row]:
    """The ratios of a subject, the slowest first."""
    taken: list[list[dict[tuple[Any, ...], float]]] = [[], []]
    for turn in range(turns):
        order = [(0, then), (1, HERE)]
        for place, tree in order if turn % 2 == 0 else order[::-1]:
            kernels = out.parent / f"kernels-{place}"
            taken[place].append(figures(tree, subject, out / f"{turn}-{place}", rounds, kernels))
    both = [key for key in taken[1][0] if key in taken[0][0]]
    found = []
    for key in both:
        ratios = [new[key] / old[key] for old, new in zip(*taken, strict=True)]
        named = dict(zip(FACTS, key, strict=True))
        found.append(
            {**named, "subject": subject, "ratio": statistics.median(ratios), "each": ratios}
        )
    return sorted(found, key=lambda row: -row["ratio"])


def main() -> None:
    """Measure, print and write `since.json`."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("commit", help="what to compare with")
    parser.add_argument("--subjects", nargs="+", default=["lookups", "bags", "training"])
    parser.add_argument("--turns", type=int, default=3, help="runs of each")
    parser.add_argument("--rounds", type=int, default=9, help="rounds of a run")
    parser.add_argument("--out", type=Path, default=Path("bench-out"), help="where to write")
    said = parser.parse_args()
    console, found = Console(width=130), []
    with tempfile.TemporaryDirectory() as folder:
        then = Path(folder) / "then"
        git = ["git", "-C", str(HERE), "worktree"]
        subprocess.run([*git, "add", "--quiet", "--detach", str(then), said.commit], check=True)
        try:
            for subject in said.subjects:
                rows = compared(then, subject, said.turns, said.rounds, Path(folder) / subject)
                found += rows
                made = table(f"{subject}: today through {said.commit}", ["", "ratio", "each turn"])
                for row in rows:
                    facts = [str(row[fact]) for fact in FACTS if row[fact] is not None]
                    each = " ".join(f"{ratio:.2f}" for ratio in row["each"])
                    made.add_row(", ".join(facts), f"{row['ratio']:.2f}", each)
                console.print(made)
                mean = statistics.geometric_mean(row["ratio"] for row in rows)
                console.print(f"{subject}: geometric mean of {len(rows)}: {mean:.3f}")
        finally:
            subprocess.run([*git, "remove", "--force", str(then)], check=True)
    written = {"machine": machine(commit=said.commit, turns=said.turns), "results": found}
    write(said.out, "since", written, console)


if __name__ == "__main__":
    main()
