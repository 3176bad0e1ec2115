"""The parts of a log, looked at before the first epoch: can they be trained on and measured?"""

from typing import TYPE_CHECKING

import numpy as np

from bitfold.errors import BitfoldError
from bitfold.runs.metrics import class_weights

if TYPE_CHECKING:
    from bitfold.data.prepared import PreparedLog

NAMES = {"train": "training", "valid": "validation", "test": "test"}
WITHOUT = {
    "valid": "the validation part is empty: no epoch is chosen and none is left out",
    "test": "the test part is empty: the run is measured on the validation part",
}


def check_parts(log: "PreparedLog", processes: int = 1) -> list[str]:
    """Look at the labels and weights of every part.

    Args:
        log: a prepared log.
        processes: how many train together; each needs a row.

    Returns:
        What the user should know beforehand, a sentence each.

    Raises:
        BitfoldError: there is nothing to learn from, or no epoch could be chosen.
    """
    if log.rows["train"] == 0:
        raise BitfoldError("there is nothing to train on", got="an empty training part")
    if log.rows["train"] < processes:
        raise BitfoldError(
            "the training part has fewer rows than there are processes",
            got=f"{log.rows['train']:,} rows, {processes} processes",
            expected="a row for each",
            fix="train with fewer --devices",
        )
    notes = []
    for part in NAMES:
        if log.rows[part] == 0:
            notes.append(WITHOUT[part])
            continue
        problem = _one_class(log, part)
        if problem is None:
            continue
        if part == "test":
            notes.append(f"{problem}: AUC and GAUC cannot be computed there")
        else:
            raise BitfoldError(
                problem + (", so no epoch can be chosen" if part == "valid" else ""),
                got=f"{log.rows[part]:,} rows",
                expected="clicked and unclicked rows with weights above 0",
                fix="check --label and --weight"
                + (", or choose another --split" if part == "valid" else ""),
            )
    if not log.rows["valid"] and not log.rows["test"]:
        notes = ["the validation and test parts are empty: the run is not measured"]
    return notes


def _one_class(log: "PreparedLog", part: str) -> str | None:
    """What is wrong with a part's classes; None if both are there with some weight."""
    only = ["label", "weight"] if log.schema.config.weight is not None else ["label"]
    total = np.zeros(2)
    for columns in log.columns(part, only):
        total += class_weights(columns["label"], columns.get("weight"))
    if total.all():
        return None
    of = f"the {NAMES[part]} part"
    if not total.any():
        return f"all weights of {of} are zero"
    rows = "rows with a weight above 0" if len(only) > 1 else "rows"
    return f"{of} holds one class only: its {rows} are all " + (
        "clicked" if total[1] else "unclicked"
    )
