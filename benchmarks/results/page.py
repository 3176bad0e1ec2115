"""`docs/results.md`, written from `docs/results/*.json` alone."""

from collections.abc import Sequence
from pathlib import Path

from bitfold.board import HASH
from bitfold.files import atomic
from bitfold.floors import LOGISTIC

from .boards import FINAL, GRID, REMEDIES, Board
from .claims import crosses, defaults, headline, notes, rivals
from .figures import CLAIM, Figures, claimed, difference, figure, link, paired, share, table
from .kept import Lead, kept_of
from .record import Record, key
from .sitting import Sitting
from .stages import FORMS, PAPER, TRIED, Key, plain

HEAD = """# The paper's claim, in the open

Yan et al. (CIKM 2021, arXiv 2109.02471) say that binary-code hash embedding keeps 99 % of the full table's quality at a thousandth of its size. Their data is not public. Here the claim is tested on public and synthetic logs.

This page is written by `python -m benchmarks.results --write-docs` from the files in `docs/results/` and from nothing else. `make results` measures what is missing, cell by cell; it may be stopped and called again, on any machine (`MINUTES=60` stops by itself).

- The shares are of the full table's mean test AUC, of its lift over .5, and of its lead over logistic regression (LR). The last is told only where that lead is above .005 and above 3 standard errors; a share of a small, uncertain number says nothing.
- `paper` is the paper's own form: `PAPER`. `best` is the best form of the grid at that budget by validation AUC, first seed; the second and third stand beside it.
- ± is the standard deviation over seeds; `less hash` is the paired difference of AUC over seeds from the hash trick at the same budget, with its 95 % interval ([comparison.md](comparison.md)). All methods of a log have the same words of training.
- Rows are dealt to fields so that small fields are whole and the others alike (`allocation=0`), the methods' default, for hashing and binary codes alike. [benchmarks/README.md](../benchmarks/README.md) says how the words of training were chosen, and what they give up.
- Hashed boards are held against the full table and floors of the board with dense ids, which reads the same rows. Bytes leave out the map of a vocabulary.
""".replace("PAPER", PAPER)  # noqa: E501


def write_page(sitting: Sitting, path: Path) -> None:
    """Write the page of what is measured, and of what is missing."""
    boards = list(sitting.boards.values())
    claims = (
        *(notes(path), headline(sitting), rivals(sitting, boards)),
        *(defaults(sitting, boards), crosses(sitting)),
    )
    parts = [HEAD, _overview(sitting, boards), *(text for text in claims if text)]
    parts += [text for board in boards if (text := _board(sitting, board))]
    parts += [text for text in (_missing(sitting, boards), _time(sitting, boards)) if text]
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic(path) as part:
        part.write_text("\n".join(parts), encoding="utf-8")


def _overview(sitting: Sitting, boards: Sequence[Board]) -> str:
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
                board.title,
                figure(whole.auc, whole.deviation) if whole else "-",
                claimed(line) if line else said,
                claimed(first) if first else "-",
                str(max(measured)) if measured else "-",
            ]
        )
    heads = ("log", "AUC of the full table", "paper's form at 1000x", "best form at 1000x", "seeds")
    return (
        "## The claim at 1000x\n\nOf the full table's AUC; in brackets of its lift over .5. "
        f"Reached means {CLAIM:.0%} of the AUC.\n\n{table(heads, rows)}"
    )


def _board(sitting: Sitting, board: Board) -> str:
    found = Figures(sitting, board)
    if not found.cells:
        return ""
    words = next(record.words for record in found.records.values() if record.words)
    train, rows = words["train"], words["rows"]
    text = [
        f"## {board.title}\n",
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
    said = "shares of it are told" if lead.holds else "no shares of it are told"
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
        "One word changed, one seed: test AUC (less that of the plain form). From "
        f"{link(found.records[REMEDIES])}:\n\n"
        + table(("form", "plain form", *board.budgets), rows)
    )


def _refusals(record: Record) -> str:
    return "".join(
        f"\n`{row['method']}` at {row['budget']} is not possible: {row['reason']}.\n"
        for row in record.refused
    )


def _missing(sitting: Sitting, boards: Sequence[Board]) -> str:
    rows = []
    for board in boards:
        for stage in board.stages:
            missing = sitting.missing(board, stage)
            if not missing:
                continue
            chosen = stage == GRID or sitting.best(board) is not None
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
