"""Ids that the training part lacks: how many rows meet them, and which rows of a table are theirs.

A row that no training id reads keeps its random first numbers. A table with a row an id would
answer an unseen id with noise, where methods that share rows answer with trained ones: so such rows
are given the mean of the field's trained rows (`Embedder.fill_unseen`).
"""

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from torch import Tensor

    from bitfold.data.prepared import PreparedLog
    from bitfold.training.rows import TrainingRows


def unseen_shares(log: "PreparedLog") -> list[dict[str, Any]]:
    """The share of values in valid and in test whose id the training part lacks, field by field.

    Returns:
        Mappings of `field`, `valid` and `test`; None for a part without rows. Buckets of numbers
        are left out: they cover every number.
    """
    out = []
    for name, facts in log.stats["fields"].items():
        shares = facts.get("unseen")
        if shares is not None:
            out.append({"field": name, "valid": shares.get("valid"), "test": shares.get("test")})
    return out


def training_counts(rows: "TrainingRows", sizes: dict[int, int]) -> "dict[int, Tensor]":
    """How often the training part holds each dense id of some fields.

    Args:
        rows: the log, and the map to dense ids if there is one.
        sizes: V of each field that is counted, by its number.

    Returns:
        int64 `[V]` by field.
    """
    import torch

    counts = {field: np.zeros(size, np.int64) for field, size in sizes.items()}
    for columns in rows.log.id_columns("train"):
        for field, size in sizes.items():
            counts[field] += np.bincount(_dense(rows, field, columns[field]), minlength=size)
    return {field: torch.from_numpy(count) for field, count in counts.items()}


def _dense(rows: "TrainingRows", field: int, ids: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    found = None if rows.dense is None else rows.dense.maps[field]
    return ids if found is None else found.apply(ids)
