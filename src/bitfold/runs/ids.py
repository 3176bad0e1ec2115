"""Whether a prepared log has the ids and numbers that a run was trained on."""

from typing import TYPE_CHECKING, Any

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
    found = other_ids(log, run)
    if found is not None:
        how, got, expected = found
        raise BitfoldError(
            f"the log was prepared {how} than the run's",
            got=got,
            expected=expected,
            fix="give the raw files, which are then read as the run reads them",
        )


def other_ids(log: "Schema", run: "Schema") -> tuple[str, Any, Any] | None:
    """What first makes other ids or numbers of a log than of a run's; None if they are the same.

    Returns:
        Words such as `with another hash_seed`, what the log has, and what the run has.
    """
    ours, theirs = log.to_json(), run.to_json()
    for name, expected in theirs["data"].items():
        if name not in READING and ours["data"][name] != expected:
            return f"with another {name}", ours["data"][name], expected
    fitted = run.config.ids == "vocabulary" or bool(run.numeric_names)
    fitted = fitted or any(info.kind == "bucket" for info in run.fields)
    if fitted and (
        ours["numeric"] != theirs["numeric"]
        or [info.edges for info in log.fields] != [info.edges for info in run.fields]
        or not _same_map(log.vocabulary, run.vocabulary)
    ):
        constants = "constants of numeric columns"
        return "from other rows", f"another vocabulary, or other {constants}", "those of the run"
    return None


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
