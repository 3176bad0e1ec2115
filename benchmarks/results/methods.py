"""Every method on two logs at three ratios: a page of its own, and what results.md says of it."""

from .boards import FAMILIES, Board
from .figures import Figures, figure, link, table
from .kept import Kept
from .sitting import Sitting
from .stages import BITS, families

CODES = ("binary-code", "quotient-remainder")
"""Binary codes, and what is one of their forms by another name."""
OWN_BITS = ("auto", "mpe")
"""Methods that choose bits by themselves."""
PAGE = "methods/table.md"
HEAD = """# All methods in one table

Written by `python -m benchmarks.results --write-docs` from the files of `docs/results/`; `python -m benchmarks.results --stage families` measures what is missing, cell by cell, and may be stopped and called again.

Test AUC at equal bytes, all methods trained alike (`AUTO_TRAINING` in benchmarks/results/boards.py), options at their defaults: early stopping on the validation part, the reference at its best epoch, too. ± is the standard deviation over three seeds; a figure without it is of one seed, and differences below .002 say nothing then. *needs* is the least bytes that a plan takes. The best of a column is bold. `bits`: the type of a served number; methods that keep their numbers in few bits are measured in 4, too.

"""  # noqa: E501


def boards_of(sitting: Sitting) -> list[Board]:
    """The boards that every method is measured on."""
    return [board for board in sitting.boards.values() if FAMILIES in board.stages]


def method_table(sitting: Sitting) -> str:
    """The page of all methods; empty while nothing is measured."""
    boards = boards_of(sitting)
    found = [Figures(sitting, board) for board in boards]
    places = [(each, budget) for each, board in zip(found, boards, strict=True)
              for budget in board.budgets]  # fmt: skip
    shown = [name for name in families() if not name.endswith(BITS[2])]
    best = {}
    for place, (each, budget) in enumerate(places):
        known = {name: line.auc for name in shown if (line := each.line(name, budget)) is not None}
        best[place] = max(known, key=known.__getitem__) if known else None
    rows = []
    for name in shown:
        method, _, bits = name.partition(":")
        cells = [
            _cell(each, name, budget, bold=best[place] == name)
            for place, (each, budget) in enumerate(places)
        ]
        if any(cell != "-" for cell in cells):
            kept = bits.partition("=")[2] or ("its own" if method in OWN_BITS else "float32")
            rows.append([f"[{method}]({_page(method)}.md)", kept, *cells])
    if not rows:
        return ""
    heads = ["method", "bits"]
    heads += [f"{_short(board)} {budget}" for board in boards for budget in board.budgets]
    full = [
        f"{_short(board)} {figure(each.full_line.auc, each.full_line.deviation)}"
        for each, board in zip(found, boards, strict=True)
        if each.full_line is not None
    ]
    sources = ", ".join(
        link(each.records[FAMILIES], "../results/")
        for each in found
        if each.records[FAMILIES].cells
    )
    return (
        HEAD
        + f"The full table has {', '.join(full)}.\n\n"
        + table(heads, rows)
        + f"\nFrom {sources}, which have 2 bits, log loss, bytes and seconds, too.\n"
    )


def every_method(sitting: Sitting) -> str:
    """What results.md says of it: binary codes beside the best of the rest."""
    parts = []
    for board in boards_of(sitting):
        found = Figures(sitting, board)
        leads = [line for budget in board.budgets if (line := _lead(found, budget))]
        if leads:
            parts.append(f"{board.title}:\n\n" + "\n".join(leads))
    if not parts:
        return ""
    return (
        f"## Every method at equal bytes\n\n[All methods in one table]({PAGE}) has each on "
        "two logs at three ratios, in float32 and in 4 bits. Here the best binary code stands "
        "beside the best single method of the rest (quotient-remainder is a form of binary codes, "
        "of few bits the very same one).\n\n" + "\n\n".join(parts) + "\n\n"
        "What is ahead of binary codes has a row of its own for every id, a narrower one or one of "
        "fewer bits, which only a budget of about a tenth buys; there `auto` does so, too. Below, "
        "ids must share, and codes share best.\n"
    )


def _cell(found: Figures, name: str, budget: str, *, bold: bool) -> str:
    line, why = found.line(name, budget), found.refused(name, budget)
    if line is None:
        return f"needs {why['minimum']:,} B" if why and why.get("minimum") else "-"
    said = figure(line.auc, line.deviation)
    return f"**{said}**" if bold else said


def _page(method: str) -> str:
    """The page of a method: some share one."""
    return {"mgqe": "dpq"}.get(method, method)


def _short(board: Board) -> str:
    return board.name.removesuffix("-auto")


def _lead(found: Figures, budget: str) -> str:
    lines: dict[str, Kept] = {}
    for name in families():
        line = found.line(name, budget)
        if line is not None:
            lines[name] = line
    ours = [name for name in lines if name.startswith("binary-code")]
    rest = [name for name in lines if not name.startswith((*CODES, "auto"))]
    if not ours or not rest:
        return ""
    best, rival = (max(names, key=lambda name: lines[name].auc) for names in (ours, rest))
    where = "ahead of" if lines[best].auc > lines[rival].auc else "**behind**"
    return f"- {budget}: {_said(best, lines)}, {where} {_said(rival, lines)}"


def _said(name: str, lines: dict[str, Kept]) -> str:
    return f"`{name}` {figure(lines[name].auc, lines[name].deviation)}"
