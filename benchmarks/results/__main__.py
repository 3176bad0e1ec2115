"""The command: `python -m benchmarks.results`; `make results` runs it."""

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from bitfold.errors import BitfoldError, unknown_name

from .boards import STAGES, Board, every_board
from .page import write_page
from .sitting import Sitting, estimate

DOCS = Path(__file__).resolve().parents[2] / "docs"


def main(args: Sequence[str] | None = None, boards: dict[str, Board] | None = None) -> int:
    """Run a sitting, or write the page; returns the exit code."""
    said = _parsed(args)
    try:
        if said.jobs != 1 and boards is None:
            return _share_out(said.jobs, sys.argv[1:] if args is None else args)
        return _main(said, every_board() if boards is None else boards)
    except BitfoldError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _parsed(args: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.results",
        description="What binary codes keep of the full table's quality. Finished cells are kept: "
        "call it again to go on.",
    )
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="public sets")
    parser.add_argument("--out", type=Path, default=Path("results-out"), help="logs and pages")
    parser.add_argument("--docs", type=Path, default=DOCS, help="where results.md and results/ are")
    parser.add_argument("--only", action="append", metavar="BOARD", help="may be said again")
    parser.add_argument("--stage", choices=STAGES, help="without it, one after the other")
    parser.add_argument("--minutes", type=float, help="stop between cells after so many")
    parser.add_argument(
        "--jobs", type=int, default=1, help="so many processes of one thread share the boards"
    )
    parser.add_argument("--estimate", action="store_true", help="say what is missing, and end")
    parser.add_argument("--write-docs", action="store_true", help="write results.md, and end")
    return parser.parse_args(args)


def _share_out(jobs: int, args: Sequence[str]) -> int:
    """The same command in several processes: each takes the first board that is free."""
    if jobs < 1:
        raise BitfoldError("jobs are out of range", got=jobs, expected="1 or more")
    command = [sys.executable, "-m", "benchmarks.results", *args, "--jobs", "1"]
    one = os.environ | {"OMP_NUM_THREADS": "1", "POLARS_MAX_THREADS": "1"}
    running = [subprocess.Popen(command, env=one) for _ in range(jobs)]
    try:
        return max(each.wait() for each in running)
    finally:
        for each in running:
            each.terminate()


def _main(said: argparse.Namespace, boards: dict[str, Board]) -> int:
    for name in said.only or ():
        if name not in boards:
            raise unknown_name("board", name, boards)
    chosen = [board for name, board in boards.items() if not said.only or name in said.only]
    stages = (said.stage,) if said.stage else STAGES
    if said.minutes is not None and not said.minutes > 0:
        raise BitfoldError("minutes are out of range", got=said.minutes, expected="more than 0")
    sitting = Sitting(
        boards, said.data, said.out, said.docs / "results", said.minutes,
        lambda line: print(line, flush=True),
    )  # fmt: skip
    if said.write_docs:
        write_page(sitting, said.docs / "results.md")
        print(f"written: {said.docs / 'results.md'}")
        return 0
    if not said.estimate:
        if any(board.file for board in chosen) and not said.data.is_dir():
            raise BitfoldError(
                "the folder of public data sets is not there",
                got=said.data,
                expected="a folder with frappe/, ml-1m/ and gowalla/",
                fix="say where it is with --data, or name synthetic boards with --only",
            )
        if not sitting.run(chosen, stages):
            print("the time is up; call again to go on")
        write_page(sitting, said.docs / "results.md")
    print("\n".join(estimate(sitting, chosen, stages)))
    for name in dict.fromkeys(sitting.left_out):
        print(f"LEFT OUT: {name}: its data set is not in {said.data}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
