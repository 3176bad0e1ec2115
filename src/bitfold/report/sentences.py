"""What was found, in sentences that follow from the figures alone."""

from collections.abc import Sequence
from typing import Any

from bitfold.comparison.board import Line
from bitfold.comparison.config import FULL_BUDGET
from bitfold.report.numbers import auc_text, byte_count, difference_text, share_text, size
from bitfold.report.reading import Board, Row, is_ratio
from bitfold.report.sizes import field_rows


def where(budget: str) -> str:
    """A budget inside a sentence.

    Example:
        >>> where("100x"), where("64KiB")
        ('at 100x', 'within 64KiB')
    """
    return f"at {budget}" if is_ratio(budget) else f"within {budget}"


def upper(text: str) -> str:
    """The sentence with a capital in front."""
    return text[:1].upper() + text[1:]


def found(board: Board, budget: str) -> str:
    """One sentence on the best method of a budget."""
    best, others = board.at(budget)[0], board.at(budget)[1:]
    bytes_ = f"{byte_count(best.means['bytes'])} bytes"
    if best.kept is not None and board.full is not None:
        text = (
            f"{upper(where(budget))}, {best.method} keeps {share_text(best.kept)} of the full "
            f"table's AUC ({auc_text(best.means['auc'])} of {auc_text(board.full.means['auc'])}) "
            f"in {bytes_}"
        )
    else:
        text = (
            f"{upper(where(budget))}, {best.method} reaches AUC {auc_text(best.means['auc'])} "
            f"in {bytes_}"
        )
    if others:
        text += f"; {others[0].method} follows with {auc_text(others[0].means['auc'])}"
    small = [row for row in board.refused if row["budget"] == budget]
    if small:
        needs = [f"{row['method']} needs {row['minimum']:,} bytes" for row in small]
        text += f" ({listed(needs)})"
    return text + "."


def frontier(board: Board) -> list[Line]:
    """The lines that no line of fewer bytes equals, from few bytes to many."""
    out: list[Line] = []
    for line in sorted(board.lines, key=lambda line: (line.means["bytes"], -line.means["auc"])):
        if not out or line.means["auc"] > out[-1].means["auc"]:
            out.append(line)
    return out


def for_my_bytes(board: Board) -> str:
    """Which method to take at which size, in a sentence."""
    steps: list[Line] = []
    for line in frontier(board):
        if not steps or line.method != steps[-1].method:
            steps.append(line)
    parts = [f"from {size(line.means['bytes'])} {line.method}" for line in steps]
    return upper(listed(parts)) + ", among what was tried."


def listed(parts: Sequence[str], most: int = 4) -> str:
    """Words as a list.

    Example:
        >>> listed(["a", "b", "c"])
        'a, b and c'
    """
    shown = list(parts[:most])
    if len(parts) > most:
        return ", ".join(shown) + f" and {len(parts) - most} more"
    return " and ".join(filter(None, [", ".join(shown[:-1]), shown[-1]])) if shown else ""


def lost(board: Board) -> str:
    """What the tightest budget costs."""
    if not board.budgets:
        return "No budget below the full table was tried."
    budget = board.budgets[-1]
    best = board.at(budget)[0]
    if board.full is None:
        return (
            f"{upper(where(budget))}, the best is {best.method} with AUC "
            f"{auc_text(best.means['auc'])}; the full table was not run beside it."
        )
    less = board.full.means["auc"] - best.means["auc"]
    if less <= 0:
        return f"{upper(where(budget))}: nothing; {best.method} equals the full table or passes it."
    return (
        f"{upper(where(budget))}: {less:.4f} of AUC with {best.method}, "
        f"which keeps {share_text(best.kept)}."
    )


def eaters(board: Board) -> str:
    """Which fields take most of the bytes."""
    texts = []
    lines = [board.full] if board.full is not None else []
    if board.budgets:
        middle = board.budgets[len(board.budgets) // 2]
        lines.append(board.at(middle)[0])
    for line in lines:
        rows = [row for row in field_rows(board, line) if row["share"] is not None]
        if rows:
            top = max(rows, key=lambda row: row["share"])
            name = "the full table" if line.budget == FULL_BUDGET else line.method
            place = "" if line.budget == FULL_BUDGET else f" {where(line.budget)}"
            texts.append(
                f"{top['field']} takes {share_text(top['share'])} of the bytes of {name}{place}"
            )
    if not texts:
        return "These runs did not record it."
    return texts[0] + (f"; {texts[1]}" if len(texts) > 1 else "") + "."


def is_real(board: Board) -> str:
    """Whether the best method's lead is more than chance, in a sentence."""
    pairs = [row for row in board.more.get("differences") or [] if row.get("metric") == "auc"]
    if pairs:
        return verdicts(pairs, "" if board.full is None else board.full.method)
    if board.seeds < 2:
        return (
            "One seed cannot tell: small differences may be chance. Run again with --seeds 3 or "
            "more."
        )
    spreads = [s for line in board.lines if (s := line.spreads.get("auc")) is not None]
    gaps = [
        (budget, lines[0].means["auc"] - lines[1].means["auc"], lines)
        for budget in board.budgets
        if len(lines := board.at(budget)) > 1
    ]
    if not gaps:
        return "There is one method at each budget, so there is nothing to compare."
    spread = max(spreads)
    clear = [budget for budget, gap, _ in gaps if gap > 2 * spread]
    text = f"Runs that differ in the seed alone spread by up to {spread:.4f}. "
    if clear:
        return text + f"The best is ahead by more than twice that {listed([*map(where, clear)])}."
    return text + "No method is ahead of the next by more than twice that."


UNSURE = "not significant"


def verdicts(pairs: Sequence[Row], full: str) -> str:
    """What the paired differences tell, in a sentence; those against the full table come last."""
    if pairs and all(row.get("low") is None for row in pairs):
        return (
            "There is one seed, so no difference can be called significant; --seeds 3 would tell."
        )
    told = {"yes, better": "is better than", "yes, worse": "is worse than"}
    groups: dict[tuple[str, str, str], list[str]] = {}
    for row in sorted(pairs, key=lambda row: row["against"] == full):
        verb = told.get(verdict(row), "does not differ significantly from")
        key = (str(row["method"]), verb, str(row["against"]))
        groups.setdefault(key, []).append(where(str(row["budget"])))
    said = [f"{' '.join(key)} {listed(budgets)}" for key, budgets in groups.items()]
    more = f"; {len(said) - 3} more below" if len(said) > 3 else ""
    return "; ".join(said[:3]) + more + "."


def verdict(row: Row) -> str:
    """A difference in one or two words: better, worse, or not significant.

    Example:
        >>> verdict({"metric": "auc", "mean": 0.002, "low": 0.001, "high": 0.003})
        'yes, better'
        >>> verdict({"metric": "logloss", "mean": 0.002, "low": 0.001, "high": 0.003})
        'yes, worse'
    """
    low, high = row.get("low"), row.get("high")
    if low is None or high is None or low <= 0 <= high:
        return UNSURE
    better = low > 0
    if row.get("metric") in ("logloss", "ece"):
        better = not better
    return "yes, better" if better else "yes, worse"


def difference_words(row: Row) -> str:
    """A difference in a plain sentence."""
    metric = {"auc": "AUC", "logloss": "log loss", "gauc": "GAUC"}.get(
        row.get("metric", ""), str(row.get("metric"))
    )
    pair = f"{row['method']} against {row['against']}, {where(str(row['budget']))}"
    text = f"{pair}: {difference_text(row['mean'])} {metric}"
    if row.get("low") is None or row.get("high") is None:
        return f"{text}. Too few seeds for an interval."
    between = f"{difference_text(row['low'])} to {difference_text(row['high'])}"
    told = {
        UNSURE: "the interval holds zero: not significant",
        "yes, better": f"{row['method']} is better",
        "yes, worse": f"{row['method']} is worse",
    }[verdict(row)]
    return f"{text}, between {between}: {told}."


def who_suffers(board: Board, rows: Sequence[dict[str, Any]]) -> list[str]:
    """For each field: which group of ids loses most against the full table."""
    if board.full is None or not board.budgets:
        return []
    whole = {
        (row["field"], row["group"]): row["auc"]
        for row in rows
        if (row["method"], row["budget"]) == (board.full.method, board.full.budget)
    }
    budget = board.budgets[-1]
    best = board.at(budget)[0]
    out = []
    for field in dict.fromkeys(row["field"] for row in rows):
        losses = [
            (whole[field, row["group"]] - row["auc"], row)
            for row in rows
            if row["field"] == field
            and (row["method"], row["budget"]) == (best.method, budget)
            and (field, row["group"]) in whole
        ]
        if not losses:
            continue
        loss, worst = max(losses, key=lambda pair: pair[0])
        if loss <= 0:
            out.append(f"{field}: no group of ids loses AUC with {best.method} {where(budget)}.")
            continue
        met = "never met in training" if worst["group"] == 0 else f"met {worst['met']} times"
        out.append(
            f"{field}: rows whose id was {met} lose most with {best.method} {where(budget)}, "
            f"{loss:.4f} of AUC."
        )
    return out


def context(board: Board) -> str:
    """What was compared, on what."""
    first = board.rows[0]
    counts = first.get("rows") or {}
    parts = []
    if counts.get("train"):
        parts.append(f"{counts['train']:,} rows to train on, {counts.get('test') or 0:,} to test")
    fields = first.get("by_field") or []
    if fields:
        ids = sum(field["ids"] for field in fields)
        parts.append(f"{len(fields)} fields with {ids:,} ids")
    seeds = "one seed" if board.seeds == 1 else f"{board.seeds} seeds"
    several = first.get("embedding_sets") or 1
    sets = f"{several} embedding sets of " if several > 1 else ""
    width = first.get("width", "?")
    parts.append(f"network {first.get('network', '?')}, {sets}width {width}, {seeds}")
    return ". ".join(upper(part) for part in parts) + "."
