"""`docs/results.md`, the overview of all boards, written from `docs/results/*.json` alone."""

from collections.abc import Sequence
from pathlib import Path

from bitfold.files import atomic

from .auto import auto
from .board_page import board_page
from .boards import FINAL, Board
from .claims import crosses, defaults, headline, notes, rivals
from .distilled import distilled
from .figures import CLAIM, Figures, claimed, figure, table
from .methods import PAGE, every_method, method_table
from .reported import reported
from .sitting import Sitting
from .stages import PAPER, Key
from .unified import beside_unified

HEAD = """# The paper's claim, in the open

Yan et al. (CIKM 2021, arXiv 2109.02471) say that binary-code hash embedding keeps 99 % of the full table's quality at a thousandth of its size. Their data is not public. Here the claim is tested on public and synthetic logs.

This page is written by `python -m benchmarks.results --write-docs` from the files in `docs/results/` and from nothing else. `make results` measures what is missing, cell by cell; it may be stopped and called again, on any machine (`MINUTES=60` stops by itself).

- The shares are of the full table's mean test AUC, of its lift over .5, and of its lead over logistic regression (LR). The last is given only where that lead is above .005 and above 3 standard errors; a share of a small, uncertain number says nothing.
- `paper` is the paper's own form: `PAPER`. `best` is the best form of the grid at that budget by validation AUC, first seed; the second and third stand beside it.
- ± is the standard deviation over seeds; `less hash` is the paired difference of AUC over seeds from the hash trick at the same budget, with its 95 % interval ([comparison.md](comparison.md)). All methods of a log have the same training options.
- Rows are allocated so that small fields keep all their rows and the others share the rest equally (`allocation=0`), the methods' default, for hashing and binary codes alike. [How the results were measured](results-method.md) says how the training options were chosen, and what they give up.
- Hashed boards are held against the full table and floors of the board with dense ids, which reads the same rows. Bytes leave out the map of a vocabulary.
""".replace("PAPER", PAPER)  # noqa: E501

ELSEWHERE = """## Streams, retrieval, cold ids

Their figures stand on pages of their own, each made by one command that may be stopped and called again: [streams](streaming.md#our-figures) (`benchmarks/streams.py`), [two towers](retrieval.md) (`benchmarks/retrieval.py`), [ids with few clicks](cold-ids.md) (`benchmarks/cold.py`).
"""  # noqa: E501


def write_page(sitting: Sitting, path: Path) -> None:
    """Write the overview at `path`, and a page for each board in the folder of the same name."""
    every = list(sitting.boards.values())
    boards = [board for board in every if board.claims]
    claims = (
        *(
            notes(path),
            auto(sitting),
            every_method(sitting),
            reported(sitting),
            distilled(sitting),
            beside_unified(sitting),
        ),
        headline(sitting),
        rivals(sitting, boards),
        *(defaults(sitting, boards), crosses(sitting)),
    )
    pages = {board.name: text for board in boards if (text := board_page(sitting, board))}
    parts = [HEAD, _overview(sitting, boards, set(pages)), *(text for text in claims if text)]
    parts.append(ELSEWHERE)
    parts += [
        text
        for text in (
            _missing(sitting, list(sitting.boards.values())),
            _time(sitting, list(sitting.boards.values())),
        )
        if text
    ]
    if methods := method_table(sitting):
        _write(path.parent / PAGE, methods)
    for name, text in pages.items():
        _write(path.with_suffix("") / f"{name}.md", text)
    _write(path, "\n".join(parts))


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic(path) as part:
        part.write_text(text, encoding="utf-8")


def _overview(sitting: Sitting, boards: Sequence[Board], paged: set[str]) -> str:
    rows = []
    for board in boards:
        found = Figures(sitting, board)
        line = found.line(PAPER, "1000x")
        best = (sitting.best(board) or {}).get("1000x", [])
        first = found.line(best[0], "1000x") if best else None
        why = found.refused(PAPER, "1000x")
        said = f"not possible: {why['reason']}" if why else "not measured yet"
        whole = found.full_line
        measured = [each.seeds for each in (line, first) if each]
        rows.append(
            [
                f"[{board.title}](results/{board.name}.md)" if board.name in paged else board.title,
                figure(whole.auc, whole.deviation) if whole else "-",
                claimed(line) if line else said,
                claimed(first) if first else "-",
                str(max(measured)) if measured else "-",
            ]
        )
    heads = ("log", "AUC of the full table", "paper's form at 1000x", "best form at 1000x", "seeds")
    return (
        "## The claim at 1000x\n\nOf the full table's AUC; in brackets of its lift over .5. "
        f"Reached means {CLAIM:.0%} of the AUC. Each log has a page of its own.\n\n"
        f"{table(heads, rows)}"
    )


def _missing(sitting: Sitting, boards: Sequence[Board]) -> str:
    rows = []
    for board in boards:
        for stage in board.stages:
            missing = sitting.missing(board, stage)
            if not missing:
                continue
            chosen = stage != FINAL or sitting.best(board) is not None
            names = _named(missing) if chosen else "its forms are chosen when the grid is whole"
            rows.append([board.name, stage, str(len(missing)), names])
    if not rows:
        return ""
    return "## What is missing\n\n" + table(("board", "stage", "cells", "which"), rows)


def _named(missing: Sequence[Key]) -> str:
    """Each method with its budgets; only the number where there are many."""
    methods = dict.fromkeys(name for name, _, _ in missing)
    if len(methods) > 6:
        return f"{len(methods)} methods and forms"
    said = []
    for method in methods:
        budgets = dict.fromkeys(budget for name, budget, _ in missing if name == method)
        said.append(f"`{method}` at {', '.join(budgets)}")
    return "; ".join(said)


def _time(sitting: Sitting, boards: Sequence[Board]) -> str:
    """What the cells took: of one core, since each process has one thread."""
    rows, total = [], 0.0
    for board in boards:
        cells = list(Figures(sitting, board).cells.values())
        seconds = sum(row.get("took", row["seconds"]) for row in cells)
        total += seconds
        if cells:
            rows.append([board.name, str(len(cells)), f"{seconds / 3600:.2f}"])
    if not rows:
        return ""
    rows.append(["all", str(sum(int(row[1]) for row in rows)), f"{total / 3600:.2f}"])
    return (
        "## What it took\n\nHours of one core, of the cells above; preparing the logs comes on "
        "top. `make results` runs two processes of one thread.\n\n"
        + table(("board", "cells", "hours of one core"), rows)
    )
