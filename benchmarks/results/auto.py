"""What a budget alone gives, as sections of the page."""

from collections.abc import Sequence

from bitfold.comparison.config import FULL

from .boards import AUTO, LOW_PRECISION, NARROW, PRECISIONS, Board
from .figures import Figures, difference, figure, link, paired, table
from .reported import is_reported
from .sitting import Sitting


def auto(sitting: Sitting) -> str:
    """The sections; empty while nothing is measured."""
    boards = [board for board in sitting.boards.values() if AUTO in board.stages]
    low = [board for board in boards if LOW_PRECISION in board.rivals]
    narrow = [board for board in boards if board.rivals == NARROW]
    precisions = [board for board in boards if board.rivals == PRECISIONS]
    beside = *low, *narrow, *precisions
    others = [each for each in boards if each not in beside and not is_reported(each.name)]
    parts = [_budgets(sitting, others), _narrow(sitting, narrow), _precisions(sitting, precisions)]
    parts += [_low_precision(sitting, board) for board in low]
    return "\n".join(part for part in parts if part)


def _budgets(sitting: Sitting, boards: Sequence[Board]) -> str:
    rows = []
    for board in boards:
        found = Figures(sitting, board)
        full = {int(row["seed"]): row for row in found.full if row["method"] == FULL}
        for budget in board.budgets:
            line, ours = found.line("auto", budget), found.rows("auto", budget)
            if line is None or found.full_line is None:
                continue
            whole = found.full_line
            rows.append(
                [
                    board.title, budget, f"{line.bytes:,}", figure(line.auc, line.deviation),
                    figure(whole.auc, whole.deviation), difference(paired(ours, full)),
                    str(line.seeds), link(found.records[AUTO], "results/"),
                ]
            )  # fmt: skip
    if not rows:
        return ""
    heads = ("log", "budget", "bytes", "auto", "full table", "auto less full", "seeds", "from")
    return (
        "## What a budget alone gives\n\n`--budget` and nothing else: the method is `auto`. Test "
        "AUC, ± its standard deviation over seeds; the difference is paired, with its 95 % "
        "interval. Training is longer than on the boards below (`AUTO_TRAINING` in "
        "benchmarks/results/boards.py), the same for both. Boards from raw text have hashed ids: "
        "whatever maps take is in the bytes of `auto`, and not in those of the full table.\n\n"
        + table(heads, rows)
    )


def _narrow(sitting: Sitting, boards: Sequence[Board]) -> str:
    rows = []
    for board in boards:
        found = Figures(sitting, board)
        for budget in board.budgets:
            lines = [found.line(method, budget) for method in NARROW]
            own, shared = (found.rows(method, budget) for method in NARROW)
            if lines[0] is None or lines[1] is None:
                continue
            rows.append(
                [
                    board.title, budget,
                    *(f"{figure(each.auc, each.deviation)}, {each.bytes:,} B" for each in lines),
                    difference(paired(own, shared)), str(lines[0].seeds),
                    link(found.records[AUTO], "results/"),
                ]
            )  # fmt: skip
    if not rows:
        return ""
    heads = ("log", "budget", "narrower rows", "shared rows", "narrower less shared", "seeds")
    return (
        "## Narrower rows, or shared ones\n\nWhere all ids no longer fit at 4 bits and the whole "
        f"width, each can keep a narrower row of its own (`{NARROW[0]}`), or rows can be shared "
        f"(`{NARROW[1]}`). `auto` takes the first as long as half the width fits, which is down to "
        "16x here. The training of the table above.\n\n" + table((*heads, "from"), rows)
    )


def _precisions(sitting: Sitting, boards: Sequence[Board]) -> str:
    rows = []
    for board in boards:
        found = Figures(sitting, board)
        for budget in board.budgets:
            lines = [found.line(method, budget) for method in ("auto", *PRECISIONS)]
            ours, *theirs = (found.rows(method, budget) for method in ("auto", *PRECISIONS))
            if None in lines:
                continue
            rows.append(
                [
                    board.title, budget,
                    *(figure(line.auc, line.deviation) for line in lines if line),
                    *(difference(paired(each, ours)) for each in theirs),
                    str(len(ours)), link(found.records[AUTO], "results/"),
                ]
            )  # fmt: skip
    if not rows:
        return ""
    heads = ("log", "budget", "auto", *PRECISIONS, *(f"{each} less auto" for each in PRECISIONS))
    return (
        "## Bits by frequency\n\nMPE is the nearest rival of `auto`: frequent ids have more bits "
        f"than rare ones, searched (`{PRECISIONS[0]}`) or by Zipf's law (`{PRECISIONS[1]}`). What "
        "`auto` takes here are the narrower rows of the table above. The training of the tables "
        "above; differences are paired over seeds, with their 95 % interval.\n\n"
        + table((*heads, "seeds", "from"), rows)
    )


def _low_precision(sitting: Sitting, board: Board) -> str:
    found = Figures(sitting, board)
    rows = []
    for budget in board.budgets:
        pairs = found.rows("auto", budget), found.rows(LOW_PRECISION, budget)
        lines = found.line("auto", budget), found.line(LOW_PRECISION, budget)
        if lines[0] is None or lines[1] is None:
            continue
        trained = [f"{each[min(each)]['training_bytes']:,}" for each in pairs]
        rows.append(
            [
                budget, f"{lines[0].bytes:,}", figure(lines[0].auc, lines[0].deviation),
                figure(lines[1].auc, lines[1].deviation),
                difference(paired(pairs[1], pairs[0])), *trained,
                str(lines[1].seeds), link(found.records[AUTO], "results/"),
            ]
        )  # fmt: skip
    if not rows:
        return ""
    heads = ("budget", "bytes", "auto", "low precision", "low precision less auto")
    heads += ("training bytes", "in low precision", "seeds", "from")
    return (
        f"## Low precision throughout\n\n{board.title}: `auto`, whose few bits are rounded from "
        "floats while they are trained, and `auto` with `low_precision=true`, whose rows are codes "
        "while they are trained, too. Training bytes are those of weights, gradients and the "
        "optimizer's state. The training of the table above.\n\n" + table(heads, rows)
    )
