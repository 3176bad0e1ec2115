"""The page's answers, each drawn from the figures: the headline, the rivals, one form for all."""

import statistics
from collections.abc import Sequence
from pathlib import Path

from .boards import DEFAULT, GRID, Board
from .figures import Figures, claimed, difference, figure, paired, table, verdict
from .sitting import Sitting
from .stages import FORMS, PAPER

HEADLINE = (("synthetic-20m", "1000x"), ("ml-1m-crossed", "100x"))
RIVALS = {
    "hash": ("hash", "hash:allocation=0.5"),
    "multi-hash": ("multi-hash", "multi-hash:allocation=0.5"),
}
NOTES = "results-notes.md"


def notes(page: Path) -> str:
    """What people wrote about the figures: a file beside the page, taken in as it is."""
    file = page.with_name(NOTES)
    return file.read_text(encoding="utf-8") if file.is_file() else ""


def headline(sitting: Sitting) -> str:
    """Two boards on which the claim is to hold: the best form, with the paper's own beside it."""
    rows = []
    for name, budget in HEADLINE:
        if name not in sitting.boards:
            continue
        board = sitting.boards[name]
        found = Figures(sitting, board)
        if found.full_line is None:
            continue
        best = (sitting.best(board) or {}).get(budget, [])[:1]
        methods = {"paper's form": PAPER}
        if best != [DEFAULT]:
            methods["today's default"] = DEFAULT
        methods |= {title: better(found, both, budget) for title, both in RIVALS.items()}
        for title, method in [*(("best form", each) for each in best), *methods.items()]:
            line = found.line(method, budget)
            if line is None:
                continue
            rows.append(
                [
                    *(f"{board.title} at {budget}", f"{title}: `{method}`", str(line.seeds)),
                    *(f"{line.bytes:,}", figure(line.auc, line.deviation), claimed(line)),
                    found.records_named(),
                ]
            )
    if not rows:
        return ""
    heads = ("log", "method", "seeds", "bytes", "test AUC", "of full's AUC (of its lift)", "from")
    return "## The headline\n\n" + table(heads, rows)


def rivals(sitting: Sitting, boards: Sequence[Board]) -> str:
    """The best form less the hash trick and multi-hash, board by board and ratio by ratio."""
    rows = []
    for board in boards:
        found, best = Figures(sitting, board), sitting.best(board) or {}
        for budget in board.budgets:
            for method in best.get(budget, [])[:1]:
                ours = found.rows(method, budget)
                line = [board.name, budget, f"`{method.partition(':')[2]}`"]
                told = []
                for rival in RIVALS:
                    chosen = better(found, RIVALS[rival], budget)
                    pairs = paired(ours, found.rows(chosen, budget))
                    refused = found.refused(rival, budget) is not None
                    dealt = f"; allocation {'.5' if chosen.endswith('0.5') else '0'}"
                    said = difference(pairs) + (dealt if pairs else "")
                    line.append(said if pairs or not refused else "not possible")
                    told.append(verdict(pairs) if pairs else "")
                if any(told):
                    rows.append([*line, "; ".join(dict.fromkeys(each for each in told if each))])
    if not rows:
        return ""
    heads = ("board", "ratio", "best form", "less hash", "less multi-hash", "the best form is")
    return (
        "## The best form against hashing at equal bytes\n\nPaired differences of test AUC; three "
        "seeds have a 95 % interval. *Above* and *below* mean that it leaves out zero. Hashing is "
        "measured with rows allocated equally (`allocation=0`) and by the square root of a field's "
        "size (.5); "
        "the better one by validation AUC, first seed, is the rival.\n\n" + table(heads, rows)
    )


def better(found: Figures, methods: Sequence[str], budget: str) -> str:
    """The method of the best validation AUC, first seed; the first where none is measured."""

    def valid(method: str) -> float:
        row = found.rows(method, budget).get(0)
        return 0.0 if row is None else float(row["valid"]["auc"])

    return max(methods, key=valid)


def defaults(sitting: Sitting, boards: Sequence[Board]) -> str:
    """How far each form is below the best of the grid, by the kind of ids."""
    parts = [
        _form_for_all(sitting, [board for board in boards if board.whole == whole], heading)
        for whole, heading in ((True, "dense ids"), (False, "hashed ids"))
    ]
    return "\n".join(part for part in parts if part)


def _form_for_all(sitting: Sitting, boards: Sequence[Board], heading: str) -> str:
    """The same for some boards, where the grid of a ratio is whole."""
    below: dict[str, dict[str, float]] = {name: {} for name in FORMS}
    impossible: dict[str, list[str]] = {name: [] for name in FORMS}
    places = []
    for board in boards:
        record = sitting.record(board, GRID)
        for budget in board.budgets:
            found = {
                row["method"]: row["valid"]["auc"]
                for row in record.cells
                if row["budget"] == budget and row["method"] in below
            }
            refused = {row["method"] for row in record.refused if row["budget"] == budget}
            if not found or any(name not in found and name not in refused for name in FORMS):
                continue
            places.append(place := f"{board.name} {budget}")
            for name in FORMS:
                if name in found:
                    below[name][place] = max(found.values()) - found[name]
                else:
                    impossible[name].append(place)
    if not places:
        return ""
    rows = []
    for name in sorted(FORMS, key=lambda name: statistics.fmean(below[name].values() or [1.0])):
        if not below[name]:
            continue
        worst = max(below[name], key=lambda place: below[name][place])
        rows.append(
            [
                f"`{name.partition(':')[2]}`" + (" (paper)" if name == PAPER else ""),
                f"{statistics.fmean(below[name].values()):.4f}",
                f"{below[name][worst]:.4f} ({worst})",
                str(len(impossible[name])),
            ]
        )
    heads = ("form", "below the best, mean", "worst", "places where it is not possible")
    return (
        f"## One form for all {heading}\n\nHow far each form's validation AUC is below the best "
        f"form's, over {len(places)} boards and ratios (one seed): {', '.join(places)}. The mean "
        "leaves out where a form is not possible.\n\n" + table(heads, rows)
    )


def crosses(sitting: Sitting) -> str:
    """Whether crossed fields help the full table at all."""
    if not {"ml-1m", "ml-1m-crossed"} <= sitting.boards.keys():
        return ""
    plain, crossed = (
        Figures(sitting, sitting.boards[name]).full_line for name in ("ml-1m", "ml-1m-crossed")
    )
    heading = "## Do crosses help at all?\n\n"
    if plain is None or crossed is None:
        return f"{heading}Not measured yet: it takes the full table on both boards.\n"
    gain = crossed.auc - plain.auc
    return (
        f"{heading}They {'do' if gain > 0 else 'do not'}: the full table has "
        f"{figure(crossed.auc, crossed.deviation)} with crosses (seeds: {crossed.seeds}) and "
        f"{figure(plain.auc, plain.deviation)} without (seeds: {plain.seeds}), {gain:+.4f}. "
        "From `ml-1m-*.json` and `ml-1m-crossed-*.json` in `docs/results/`.\n"
    )
