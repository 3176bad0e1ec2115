"""What `bitfold compare` prints beside its board: the differences, the grid."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from bitfold.cli.tables import figure, table
from bitfold.comparison.differences import METRICS, verdict

FIELDS = 5  # that a line names
LONG = {"auc": "AUC", "logloss": "log loss", "lr": "lr", "embedding_decay": "decay"}


def differences_table(
    differences: Sequence[Mapping[str, Any]], *, narrow: bool = False
) -> Table | str:
    """Each method against its opponents, in figures and in words; a narrow table has the AUC's.

    Where no method has more than one seed there is no interval, and one line says so.
    """
    if all(row["low"] is None for row in differences):
        return "one seed: no intervals, so nothing is significant (--seeds 3)"
    shown = [metric for metric in METRICS if metric == "auc" or not narrow]
    names = [name for metric in shown for name in (f"{LONG[metric]} (95 % interval)", "")]
    made = table("Paired differences over the seeds", ["method", "budget", "against", *names])
    pairs: dict[tuple[str, str, str], dict[str, Mapping[str, Any]]] = {}
    for row in differences:
        key = (row["method"], row["budget"], f"{row['against']} {row['against_budget']}")
        pairs.setdefault(key, {})[row["metric"]] = row
    for key, found in pairs.items():
        texts = [text for metric in shown for text in _difference(found.get(metric))]
        made.add_row(*key, *texts)
    return made


def _difference(row: Mapping[str, Any] | None) -> tuple[str, str]:
    if row is None:
        return "-", "-"
    text = f"{row['mean']:+.4f}"
    if row["low"] is not None:
        text += f" ({row['low']:+.4f} to {row['high']:+.4f})"
    return text, verdict(row)


def grid_table(grid: Mapping[str, Any]) -> Table:
    """The validation AUC of every point: a column a learning rate, the chosen point marked."""
    rates, decays = grid["lr"], grid["embedding_decay"]
    several = len(decays) > 1
    made = table(
        f"The grid: validation AUC with seed {grid['seed']} (* chosen)",
        ["method", "budget", *["decay"] * several, *(f"lr {rate:g}" for rate in rates), ""],
    )
    cells = {
        (cell["method"], cell["budget"], cell["lr"], cell["embedding_decay"]): cell["valid_auc"]
        for cell in grid["cells"]
    }
    for chosen in grid["choices"]:
        key = (chosen["method"], chosen["budget"])
        for decay in decays:
            at = [(*key, rate, decay) for rate in rates]
            here = (*key, chosen["lr"], chosen["embedding_decay"])
            texts = [
                ("diverged" if cells[point] is None else figure("auc", cells[point]))
                + ("*" if point == here else " ")
                for point in at
            ]
            edge = ", ".join(LONG[name] for name in chosen["edge"]) if here in at else ""
            first = key if decay == decays[0] else ("", "")
            made.add_row(
                *first, *[f"{decay:g}"] * several, *texts, f"at the edge: {edge}" if edge else ""
            )
    return made


def grid_note(grid: Mapping[str, Any]) -> str:
    """One line on how the options of training were chosen."""
    if not grid["searched"]:
        return (
            f"no grid: lr {grid['lr'][0]:g} and embedding decay {grid['embedding_decay'][0]:g} "
            "for all, tuned for none (--grid-lr, --grid-decay)"
        )
    ends = [f"{at['method']} {at['budget']}" for at in grid["choices"] if at["edge"]]
    if not ends:
        return "no choice lies at an edge of the grid"
    return f"chosen at an edge, where a wider grid may find better: {', '.join(ends)}"


def unseen_note(unseen: Sequence[Mapping[str, Any]]) -> str:
    """One line on the ids of the test part that the training part lacks, the most first."""
    shares = {row["field"]: row["test"] for row in unseen if row["test"]}
    if not shares:
        return "unseen ids in test: none"
    most = sorted(shares, key=lambda field: -shares[field])
    texts = [f"{field} {shares[field]:.1%}" for field in most[:FIELDS]]
    others = f", {len(most) - FIELDS} more fields" if len(most) > FIELDS else ""
    return f"unseen ids in test: {', '.join(texts)}{others}"
