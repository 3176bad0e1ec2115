"""Whether a prepared log has the ids and numbers that a run was trained on."""

from typing import TYPE_CHECKING

import numpy as np

from bitfold.errors import BitfoldError

if TYPE_CHECKING:
    from bitfold.data.schema import Schema
    from bitfold.data.vocabulary import Vocabulary

READING = (
    "format", "columns", "header", "separator", "missing", "label", "group", "time", "weight",
    "negative_rate", "split", "split_seed", "item", "item_fields", "negatives", "negatives_by",
    "negatives_seed",
)  # fmt: skip
"""The options of a log that change neither ids nor numbers."""


def same_ids(log: "Schema", run: "Schema") -> None:
    """Raise unless a prepared log has the ids and numbers that a run was trained on."""
    ours, theirs = log.to_json(), run.to_json()
    for name, expected in theirs["data"].items():
        if name not in READING and ours["data"][name] != expected:
            raise BitfoldError(
                f"the log was prepared with another {name} than the run's",
                got=ours["data"][name],
                expected=expected,
                fix="give the raw files, which are then read as the run reads them",
            )
    fitted = run.config.ids == "vocabulary" or bool(run.numeric_names)
    fitted = fitted or any(info.kind == "bucket" for info in run.fields)
    if fitted and (
        ours["numeric"] != theirs["numeric"]
        or [info.edges for info in log.fields] != [info.edges for info in run.fields]
        or not _same_map(log.vocabulary, run.vocabulary)
    ):
        raise BitfoldError(
            "the log was prepared from other rows than the run's",
            got="another vocabulary, or other constants of numeric columns",
            expected="those of the run",
            fix="give the raw files, which are then read as the run reads them",
        )


def _same_map(one: "Vocabulary | None", other: "Vocabulary | None") -> bool:
    if one is None or other is None:
        return one is other
    pairs = zip(one.maps, other.maps, strict=True)
    return all(
        a is b
        or (
            a is not None
            and b is not None
            and np.array_equal(a.keys, b.keys)
            and np.array_equal(a.ids, b.ids)
        )
        for a, b in pairs
    )
