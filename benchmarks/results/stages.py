"""The plan of cells: a grid of forms, the best of it against everybody over seeds, remedies.

The three best forms are chosen at each budget by validation AUC, since another budget has another
best form and the claim is about one of them. The test part chooses nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bitfold.comparison.config import FULL, Cell, CompareConfig, cells
from bitfold.comparison.floors import logistic_cell
from bitfold.method.registry import method_kinds

from .boards import AUTO, DEFAULT, DISTILL, FAMILIES, FINAL, GRID, REMEDIES, SHARES, Board

STRATEGIES = ("succession", "skip")
SHARINGS = ("slices", "shared", "fields")
FUSIONS = ("sum", "product", "concat")

Key = tuple[str, str, int]


def form(strategy: str, sharing: str, fusion: str) -> str:
    """An entry of `bitfold compare --methods`."""
    return f"binary-code:strategy={strategy},sharing={sharing},fusion={fusion}"


FORMS = tuple(form(a, b, c) for a in STRATEGIES for b in SHARINGS for c in FUSIONS)
PAPER = form("succession", "shared", "sum")
"""The paper's own form: one table for all blocks of a field, rows added up."""

POOL = form("succession", "fields", "concat")
TRIED = (
    *(f"{PAPER},allocation=0.5", f"{DEFAULT},allocation=0.5"),
    *(f"{DEFAULT},balance=1", f"{DEFAULT},std=0.1"),
    *(form("succession", "slices", "weighted"), f"{POOL},blocks=4"),
)
"""Forms that differ from one of the grid in one word: which words help?"""


def plain(tried: str) -> str:
    """The form that one of `TRIED` differs from in one word."""
    if tried.endswith("fusion=weighted"):
        return DEFAULT
    return tried.rpartition(",")[0]


BITS = ("", "bits=4", "bits=2")


def families() -> tuple[str, ...]:
    """Every method in float32, 4 and 2 bits, where its numbers can be kept so."""
    known = {name: kind.traits for name, kind in method_kinds().items()}
    return tuple(
        f"{name}:{bits}" if bits else name
        for name, traits in known.items()
        if not traits.uncompressed
        for bits in (BITS if traits.narrow and name != "auto" else BITS[:1])
    )


def _shown(name: str) -> bool:
    """Whether a form stands in the table of methods, which several seeds make: not in 2 bits."""
    return not name.endswith(BITS[2])


@dataclass(frozen=True)
class Call:
    """One call of `bitfold.comparison.compare.compare`; `name` is its folder."""

    name: str
    words: CompareConfig

    def cells(self, board: Board) -> list[Cell]:
        """What it trains: the cells, and that of logistic regression."""
        floor = [logistic_cell(board.train)[0]] if self.words.floors else []
        return cells(self.words, board.train.seed) + floor


def calls(board: Board, stage: str, best: Mapping[str, Sequence[str]]) -> list[Call]:
    """The calls of a stage; `best` has the chosen forms of each budget."""
    full = (FULL,) * board.whole
    # The smallest budget first: the claim is about it.
    if stage == GRID:
        return [
            Call(f"{GRID}-{budget}", _words((*full, *FORMS), (budget,), 1, floors=board.whole))
            for budget in reversed(board.budgets)
        ]
    if stage == AUTO:
        return [
            Call(
                f"{AUTO}-{budget}",
                _words(
                    (*full, *("auto",) * board.auto, *board.rivals),
                    (budget,),
                    board.seeds,
                    floors=False,
                ),
            )
            for budget in reversed(board.budgets)
        ]
    if stage == FAMILIES:  # one seed of all that is shown before more of any: there are many
        shown = tuple(name for name in families() if _shown(name))
        rounds = (("1", shown, 1), ("seeds", shown, board.seeds), ("bits", families(), 1))
        return [
            Call(f"{FAMILIES}-{budget}-{name}", _words(methods, (budget,), seeds, floors=False))
            for name, methods, seeds in rounds
            for budget in board.budgets
        ]
    if stage == DISTILL:
        several = ((board.rivals, board.seeds), (tuple(SHARES), 1))
        return [
            Call(f"{DISTILL}-{seeds}", _words(methods, board.budgets, seeds, floors=False))
            for methods, seeds in several
        ]
    if stage == REMEDIES:
        return [
            Call(f"{REMEDIES}-{budget}", _words(TRIED, (budget,), 1, floors=False))
            for budget in reversed(board.budgets)
        ]
    return [
        Call(
            f"{FINAL}-{budget}",
            _words(
                tuple(dict.fromkeys((*full, *board.rivals, PAPER, *best[budget]))),
                (budget,),
                board.seeds,
                floors=board.whole,
            ),
        )
        for budget in reversed(board.budgets)
    ]


def _words(
    methods: tuple[str, ...], budgets: tuple[str, ...], seeds: int, *, floors: bool
) -> CompareConfig:
    # equal_within=1: every form fills its budget as far as it can; the page shows the bytes.
    return CompareConfig(
        methods=methods,
        budgets=budgets,
        seeds=seeds,
        floors=floors,
        equal_within=1.0,
        diagnosis=False,
    )


def best_forms(
    board: Board, rows: Sequence[Mapping[str, Any]], refused: Sequence[Mapping[str, Any]]
) -> dict[str, list[str]] | None:
    """The best forms of each budget by validation AUC; None while the grid has gaps.

    Args:
        board: whose final stage is planned.
        rows: the cells of the grid that chooses.
        refused: what of that grid cannot be built.
    """
    out: dict[str, list[str]] = {}
    impossible = {(row["method"], row["budget"]) for row in refused}
    for budget in board.budgets:
        found = {row["method"]: row["valid"]["auc"] for row in rows if row["budget"] == budget}
        if any(name not in found and (name, budget) not in impossible for name in FORMS):
            return None
        ranked = sorted((name for name in FORMS if name in found), key=lambda name: -found[name])
        out[budget] = ranked[: board.best]
    return out


def guessed(board: Board) -> dict[str, list[str]]:
    """As many forms as will be chosen, to count cells before the grid is done."""
    return {budget: list(FORMS[-board.best :]) for budget in board.budgets}


def gaps(
    wanted: Sequence[Cell],
    rows: Sequence[Mapping[str, Any]],
    refused: Sequence[Mapping[str, Any]],
) -> list[Key]:
    """The cells that have no figures yet, and that can be built as far as is known."""
    known = {(row["method"], row["budget"], row["seed"]) for row in rows}
    impossible = {(row["method"], row["budget"]) for row in refused}
    return [
        key
        for key in dict.fromkeys(key_of(cell) for cell in wanted)
        if key not in known and key[:2] not in impossible
    ]


def key_of(cell: Cell) -> Key:
    """What tells a cell's figures from others."""
    return cell.variant.name, cell.budget, cell.seed
