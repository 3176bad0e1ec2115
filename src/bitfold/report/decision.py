"""What to take: the first sentence of the page, and what speaks against it."""

import shlex
from collections.abc import Mapping

from bitfold.comparison.board import CHANCE, Line, ranking_columns, ranking_figures
from bitfold.comparison.config import FULL, parse_variant
from bitfold.comparison.floors import LOGISTIC, nonsense
from bitfold.config import RENAMED
from bitfold.data.config import DataConfig
from bitfold.report.again import CELL, options
from bitfold.report.numbers import auc_text, share_text, size
from bitfold.report.reading import Board
from bitfold.report.sentences import listed, where
from bitfold.runs.options import TrainConfig

KEPT = 0.98
"""The share of the full table's lift over .5 that the tightest budget taken must keep. Shares of
the AUC itself flatter: a model that learned nothing keeps 62 % of .80."""


def floors(board: Board) -> dict[str, float]:
    """The AUC of what any model has to beat: popularity and logistic regression, if measured."""
    found = {}
    for name, figures in (board.more.get("references") or {}).items():
        value = figures.get("auc") if isinstance(figures, Mapping) else None
        if name not in ("popularity", LOGISTIC.name) or not isinstance(value, int | float):
            continue
        field = figures.get("field") if name == "popularity" else None
        found[f"popularity of {field}" if field else str(name)] = float(value)
    return found


def chosen(board: Board) -> Line:
    """The line to take: of the tightest budget that keeps 98 % of the lift and is above the
    floors; where there is none, the best of all that are smaller than the full table.
    """
    best = [board.at(budget)[0] for budget in board.budgets]
    if not best:
        return board.full or board.lines[0]
    floor = max(floors(board).values(), default=CHANCE)
    worthy = [line for line in best if (line.lift or 0) >= KEPT and line.means["auc"] > floor]
    return worthy[-1] if worthy else max(best, key=lambda line: line.means["auc"])


def decision(board: Board) -> tuple[str, list[str]]:
    """The first sentence of the page, and the notes below it."""
    line = chosen(board)
    auc = line.means["auc"]
    name, at = line.method, f"{where(line.budget)} ({size(line.means['bytes'])})"
    under = {floor: value for floor, value in floors(board).items() if auc <= value}
    if not board.budgets:
        first = f"{name} reaches AUC {auc_text(auc)} in {size(line.means['bytes'])}."
        if under:
            first = f"{name} does not beat {_said(under)}: its AUC is {auc_text(auc)}."
    elif auc < CHANCE:
        first = (
            f"Take none: the best, {name} {at}, ranks worse than chance (AUC {auc_text(auc)}). "
            "Look at the label and the split."
        )
    elif under:
        first = f"Nothing compressed beats {_said(under)} here: the best, {name} {at}, has AUC "
        first += f"{auc_text(auc)}."
    else:
        first = f"Take {name} {at}: " + _kept(board, line)
    return first, _notes(board)


def _kept(board: Board, line: Line) -> str:
    share, beaten = line.lift, floors(board)
    text = f"AUC {auc_text(line.means['auc'])}"
    if share is not None:
        text = (
            f"it keeps {share_text(share)} of the full table's lift over chance "
            f"({share_text(line.kept)} of its AUC)"
        )
    return text + (f", above {_said(beaten)}." if beaten else ".")


def _said(values: Mapping[str, float]) -> str:
    return listed([f"{name} ({auc_text(value)})" for name, value in values.items()])


def _notes(board: Board) -> list[str]:
    out = []
    line = chosen(board)
    share = line.lift
    if board.budgets and share is not None and share < KEPT:
        out.append(f"No budget that was tried keeps {KEPT:.0%} of the full table's lift.")
    popular = {name: value for name, value in floors(board).items() if name != LOGISTIC.name}
    for floor, value in popular.items():
        below = [_named(each) for each in board.lines if each.means["auc"] <= value]
        if below:
            out.append(f"Not above {floor} ({auc_text(value)}), which nothing is trained for: ")
            out[-1] += f"{listed(below)}."
    below = [_named(each) for each in board.lines if each.means["auc"] < CHANCE]
    if below:
        out.append(f"AUC below .5, worse than chance: {listed(below)}.")
    lost = [_named(each) for each in board.lines if any(map(nonsense, board.runs(each)))]
    if lost:
        out.append(
            f"All rows with one score, or a log loss far above a constant's: {listed(lost)}. "
            "They diverged or overfit; lower --lr, fewer --epochs."
        )
    out += _ranked_under(board)
    if board.seeds < 2:
        out.append("One seed: small differences may be chance; --seeds 3 would tell.")
    return out + [
        f"{row['method']} does not fit {row['budget']}: it needs {row['minimum']:,} bytes."
        for row in board.refused
    ]


def _ranked_under(board: Board) -> list[str]:
    """Which lines rank no better than popularity does, by recall at the greatest depth."""
    references = board.more.get("references")
    popular = references.get("popularity") if isinstance(references, Mapping) else None
    popular = ranking_figures(popular) if isinstance(popular, Mapping) else {}
    name = next(iter(ranking_columns(board.lines)), "")
    if name not in popular:
        return []
    below = [_named(line) for line in board.lines if line.means.get(name, 0) <= popular[name]]
    if not below:
        return []
    return [f"Not above {name} of popularity ({auc_text(popular[name])}): {listed(below)}."]


def _named(line: Line) -> str:
    return f"{line.method} {line.budget}"


def train_command(board: Board, line: Line, out: str = "RUN") -> str | None:
    """The `bitfold train` that makes a line's run; None without compare.json.

    The seed is the comparison's first, and the learning rate and decay are those of the line,
    which a grid may have chosen.
    """
    said = board.said
    if not said.get("paths"):
        return None
    runs = board.runs(line)
    first = min(runs, key=lambda row: row.get("seed") or 0)
    method = parse_variant(line.method).method
    train = {RENAMED.get(name, name): value for name, value in said.get("train", {}).items()}
    train |= {
        "method": method,
        "budget": None if method == FULL else line.budget.replace(" ", "").replace(",", ""),
        "set": first.get("options") or {},
    }
    for name in ("lr", "embedding_decay"):
        if isinstance(first.get(name), int | float):
            train[name] = first[name]
    parts = ["bitfold", "train", *(str(path["path"]) for path in said["paths"])]
    parts += options(DataConfig, said.get("data", {}))
    parts += ["--method", method]
    if train["budget"] is not None:
        parts += ["--budget", str(train["budget"])]
    parts += options(
        TrainConfig, {name: value for name, value in train.items() if name not in CELL}
    )
    return shlex.join([*parts, "--out", out])


def commands(board: Board) -> list[tuple[str, str]]:
    """For each budget the command that trains its best method: what it is, and the command."""
    made = []
    for line in [board.at(budget)[0] for budget in board.budgets]:
        command = train_command(board, line)
        if command is not None:
            made.append((_named(line), command))
    return made


__all__ = ["chosen", "commands", "decision", "floors", "train_command"]
