"""`python -m fuzz`: tries by the thousand, and their table in docs/reliability.md.

python -m fuzz --minutes 30           all kinds, until the time is over or the goal is reached
python -m fuzz --tries 500 --kind raw
python -m fuzz --again raw:17         one try again, with its traceback
"""

import argparse
import json
import selectors
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from fuzz.kinds import KINDS, attempt

GOAL = {
    "raw": 2500,
    "logs": 2500,
    "runs": 2500,
    "deltas": 2000,
    "results": 900,
    "checkpoints": 800,
    "cells": 800,
}
"""Tries of each kind: 12,000 together."""

SECONDS = 60.0
"""A try that takes longer hangs; the first of a kind also makes what is right."""

FIRST_SECONDS = 600.0
COLUMNS = ("told", "right", "wrong", "traceback", "hang", "crash")
Counts = dict[str, Counter[str]]
BEGIN, END = "<!-- fuzz: written by `make fuzz` -->", "<!-- fuzz: end -->"


class Worker:
    """One process of tries; started again when it crashes or hangs."""

    def __init__(self, made: Path) -> None:
        self.made = made
        self.process: subprocess.Popen[str] | None = None
        self.warm: set[str] = set()

    def attempt(self, kind: str, seed: int) -> tuple[str, str]:
        """What became of one try, and what was told of it."""
        if self.process is None:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "fuzz.worker", str(self.made)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            )  # fmt: skip
            self.warm.clear()
        process = self.process
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(f"{kind} {seed}\n")
            process.stdin.flush()
        except OSError:
            return self._ended("crash")
        limit = SECONDS if kind in self.warm else FIRST_SECONDS
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            if not selector.select(limit):
                return self._ended("hang")
        line = process.stdout.readline()
        if not line:
            return self._ended("crash")
        self.warm.add(kind)
        answer = json.loads(line)
        return answer["outcome"], answer["told"]

    def _ended(self, how: str) -> tuple[str, str]:
        self.close()
        return how, ""

    def close(self) -> None:
        """End the process."""
        process, self.process = self.process, None
        if process is not None:
            process.kill()
            process.communicate()


def run(minutes: float | None, tries: int | None, kinds: list[str], first: int) -> Counts:
    """The counts of each kind; findings are printed with the command that makes them again."""
    counts: Counts = {kind: Counter() for kind in kinds}
    goal = {kind: GOAL[kind] if tries is None else tries for kind in kinds}
    until = time.monotonic() + minutes * 60 if minutes else float("inf")
    with tempfile.TemporaryDirectory(prefix="bitfold-fuzz-") as made:
        worker = Worker(Path(made))
        try:
            while time.monotonic() < until:
                behind = [kind for kind in kinds if counts[kind].total() < goal[kind]]
                if not behind:
                    break
                kind = min(behind, key=lambda kind: counts[kind].total() / goal[kind])
                seed = first + counts[kind].total()
                outcome, told = worker.attempt(kind, seed)
                counts[kind][outcome] += 1
                if outcome not in ("told", "right"):
                    print(f"{outcome}: python -m fuzz --again {kind}:{seed}\n{told}", flush=True)
        finally:
            worker.close()
    return counts


def table(counts: Counts) -> str:
    """The counts as Markdown."""
    names = ("told", "right", "silently wrong", "traceback", "hang", "crash")
    lines = [
        f"| what was mutated | tries | {' | '.join(names)} |",
        "|---|" + "---:|" * (len(names) + 1),
    ]
    total: Counter[str] = Counter()
    for kind, found in counts.items():
        found["wrong"] += found.pop("unprintable", 0)
        total += found
        numbers = [found.total(), *(found[name] for name in COLUMNS)]
        lines.append(f"| {KINDS[kind].about} | {' | '.join(f'{n:,}' for n in numbers)} |")
    numbers = [total.total(), *(total[name] for name in COLUMNS)]
    lines.append(f"| together | {' | '.join(f'{n:,}' for n in numbers)} |")
    return "\n".join(lines)


def write(page: Path, text: str) -> None:
    """Put a table between its marks on a page."""
    old = page.read_text(encoding="utf-8")
    before, _, rest = old.partition(BEGIN)
    after = rest.partition(END)[2]
    page.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}", encoding="utf-8")


def again(what: str) -> None:
    """One try, here, with its traceback."""
    kind, _, seed = what.partition(":")
    with tempfile.TemporaryDirectory(prefix="bitfold-fuzz-") as folder:
        made = Path(folder) / "made"
        made.mkdir()
        KINDS[kind].make(made)
        print(attempt(kind, int(seed), made, Path(folder) / "work"))


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, help="stop after so long")
    parser.add_argument("--tries", type=int, help="of each kind; without it 12,000 in all")
    parser.add_argument("--kind", choices=KINDS, action="append")
    parser.add_argument("--seed", type=int, default=0, help="the first try's")
    parser.add_argument("--again", metavar="KIND:SEED", help="one try again, with its traceback")
    parser.add_argument("--page", type=Path, help="write the table here")
    said = parser.parse_args()
    if said.again:
        again(said.again)
        return
    counts = run(said.minutes, said.tries, said.kind or list(KINDS), said.seed)
    text = table(counts)
    print(text)
    if said.page is not None:
        write(said.page, text)
    bad = sum(found[name] for found in counts.values() for name in COLUMNS[2:])
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
