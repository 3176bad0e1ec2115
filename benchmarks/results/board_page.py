"""`docs/results/BOARD.md`: all that was measured on one board."""

from bitfold.comparison.config import HASH
from bitfold.comparison.floors import LOGISTIC

from .boards import FINAL, GRID, REMEDIES, Board
from .figures import Figures, difference, figure, link, paired, share, table
from .kept import Lead, kept_of
from .record import Record, key
from .sitting import Sitting
from .stages import FORMS, PAPER, TRIED, plain


def board_page(sitting: Sitting, board: Board) -> str:
    """The page of a board; empty where nothing is measured."""
    found = Figures(sitting, board)
    if not found.cells:
        return ""
    words = next(record.words for record in found.records.values() if record.words)
    train, rows = words["train"], words["rows"]
    text = [
        f"# {board.title}\n\nOne board of the [results](../results.md), where it is said how all "
        "boards were measured and what is missing.\n",
        f"{sum(rows.values()):,} rows ({', '.join(f'{n:,} {part}' for part, n in rows.items())}). "
        f"{train['network']}, width {train['width']}, hidden layers "
        f"{', '.join(map(str, train['hidden']))}, at most {train['epochs']} passes (patience "
        f"{train['patience']}), batches of {train['batch_size']}, rate {train['lr']:g}, decay of "
        f"embeddings {train['embedding_decay']:g}, embeddings by {train['embedding_optimizer']}"
        f"{''.join(f', {name}={value}' for name, value in train['set'].items())}.\n",
        _lead(found.lead) + _references(found),
    ]
    if found.records.get(FINAL) and found.records[FINAL].cells:
        text.append(_final(sitting, board, found))
    if found.records.get(GRID) and found.records[GRID].cells:
        text.append(_grid(board, found))
    if found.records.get(REMEDIES) and found.records[REMEDIES].cells:
        text.append(_remedies(board, found))
    return "\n".join(text)


def _lead(lead: Lead | None) -> str:
    if lead is None:
        return "The lead over logistic regression is not measured yet.\n"
    error = "unknown" if lead.error is None else f"{lead.error:.4f}"
    said = "shares of it are given" if lead.holds else "no shares of it are given"
    return (
        f"Full {lead.full:.4f}, logistic regression {lead.floor:.4f}: a lead of {lead.size:+.4f}, "
        f"standard error {error}; {said}.\n"
    )


def _references(found: Figures) -> str:
    """Floors and ceilings that need no training."""
    known = next((each.references for each in found.records.values() if each.references), {})
    titles = {"popularity": "popularity alone", "bayes": "the truth of the log (Bayes)"}
    said = [f"{titles[name]} {known[name]['auc']:.4f}" for name in titles if name in known]
    return f"Test AUC of {', of '.join(said)}.\n" if said else ""


def _final(sitting: Sitting, board: Board, found: Figures) -> str:
    record = found.records[FINAL]
    best = sitting.best(board) or {}
    names = list(dict.fromkeys((row["budget"], row["method"]) for row in record.cells))
    order = {budget: place for place, budget in enumerate(board.budgets)}
    rows = []
    for budget, method in sorted(names, key=lambda name: order.get(name[0], -1)):
        cells = [row for row in record.cells if (row["budget"], row["method"]) == (budget, method)]
        if method == LOGISTIC.name:
            continue
        mean = found.full_line.auc if found.full_line else None
        line = kept_of(cells, mean, found.lead)
        named = {"paper": method == PAPER, "best": method in best.get(budget, [])[:1]}
        marks = ", ".join(name for name, here in named.items() if here)
        rows.append(
            [
                f"`{method}`" + (f" ({marks})" if marks else ""),
                *(budget, str(line.seeds), f"{line.bytes:,}", figure(line.auc, line.deviation)),
                *(share(line.of_auc), share(line.of_lift), share(line.of_lead)),
                _less_hash(found, method, budget),
            ]
        )
    heads = (
        *("method", "budget", "seeds", "bytes", "test AUC"),
        *("of full's AUC", "of its lift over .5", "of its lead over LR", "less hash"),
    )
    return f"From {link(record)}:\n\n{table(heads, rows)}" + (_refusals(record))


def _less_hash(found: Figures, method: str, budget: str) -> str:
    """The paired difference of AUC from the hash trick at the same budget."""
    if method == HASH:
        return "-"
    return difference(paired(found.rows(method, budget), found.rows(HASH, budget)))


def _grid(board: Board, found: Figures) -> str:
    record = found.records[GRID]
    cells = {key(row)[:2]: row for row in record.cells}
    mean = found.full_line.auc if found.full_line else None
    rows = []
    for name in FORMS:
        line = []
        for budget in board.budgets:
            row = cells.get((name, budget))
            if row is None:
                refused = found.refused(name, budget)
                line.append("not possible" if refused else "-")
                continue
            kept = kept_of([row], mean, None)
            line.append(f"{row['valid']['auc']:.4f}, {kept.auc:.4f}, {share(kept.of_auc)}")
        words = [pair.partition("=")[2] for pair in name.partition(":")[2].split(",")]
        rows.append([", ".join(words) + (" (paper)" if name == PAPER else ""), *line])
    heads = ("form: strategy, sharing, fusion", *board.budgets)
    return (
        "The grid, one seed: validation AUC, test AUC, of full's test AUC. From "
        f"{link(record)}:\n\n{table(heads, rows)}"
    )


def _remedies(board: Board, found: Figures) -> str:
    """Forms beside those that they differ from in one word: test AUC, first seed."""

    def auc(method: str, budget: str) -> float | None:
        row = found.rows(method, budget).get(0)
        return None if row is None else row["auc"]

    rows = []
    for name in TRIED:
        line = []
        for budget in board.budgets:
            ours, theirs = auc(name, budget), auc(plain(name), budget)
            beside = "" if ours is None or theirs is None else f" ({ours - theirs:+.4f})"
            refused = "not possible" if found.refused(name, budget) else "-"
            line.append(refused if ours is None else f"{ours:.4f}{beside}")
        rows.append([f"`{name}`", f"`{plain(name)}`", *line])
    return (
        "One option changed, one seed: test AUC (less that of the plain form). From "
        f"{link(found.records[REMEDIES])}:\n\n"
        + table(("form", "plain form", *board.budgets), rows)
    )


def _refusals(record: Record) -> str:
    return "".join(
        f"\n`{row['method']}` at {row['budget']} is not possible: {row['reason']}.\n"
        for row in record.refused
    )
