"""What a prepared log holds, in figures: what `prepare` counted, and one pass over the shards."""

from typing import Any

import numpy as np

from bitfold.data.manifest import PARTS
from bitfold.data.prepared import PreparedLog
from bitfold.data.schema import FieldInfo, Schema
from bitfold.data.statistics import TOTAL_CAP, IdCounter, hold_to
from bitfold.data.table import Bags
from bitfold.progress import Progress, silent

HEAD = 20  # the most frequent ids whose share is told


def inspect(
    log: PreparedLog, width: int = 16, *, quick: bool = False, progress: Progress | None = None
) -> dict[str, Any]:
    """The figures of a log as plain JSON values; what it has no figure for is left out.

    Args:
        log: the prepared log.
        width: `D`, for the bytes of the full table.
        quick: only what `prepare` has counted; nothing is read but its statistics.
        progress: is told how far the pass over the shards is.
    """
    schema, stats = log.schema, log.stats
    passed = None if quick else _Pass(log, progress or silent)
    full = [(field.size or 0) * width * 4 for field in schema.embedding_fields()]
    clicked = {"train": stats["train_positives"] / stats["train_rows"]}
    if passed is not None:
        clicked = passed.clicked
    out: dict[str, Any] = {
        "log": str(log.path),
        "rows": dict(log.rows),
        "clicked": clicked,
        "bytes_on_disk": log.size,
        "label": schema.config.label,
        "split": schema.config.split,
        "ids": schema.config.ids,
        "width": width,
        "full_bytes": sum(full),
    }
    if schema.vocabulary is not None:
        out["map_bytes"] = schema.map_bytes
    out["fields"] = [
        _field(info, stats, schema, None if passed is None else passed.fields[index])
        | {"full_bytes": full[index], "share": full[index] / sum(full)}
        for index, info in enumerate(schema.fields)
    ]
    out["numeric"] = [
        {
            "name": name,
            "transform": schema.config.transform.kind,
            **words,
            "missing": words["missing"] / stats["train_rows"],
        }
        for name, words in stats["numeric"].items()
    ]
    return out


class _Field:
    """What the pass learns of one field, over the training part."""

    def __init__(self) -> None:
        self.counter = IdCounter()
        self.values = 0
        self.longest: int | None = None

    def add(self, column: Any) -> None:
        if isinstance(column, Bags):
            lengths = np.diff(column.offsets)
            self.longest = max(self.longest or 0, int(lengths.max(initial=0)))
            column = column.values
        self.values += len(column)
        self.counter.add(column)


class _Pass:
    """One reading of the shards: ids of the training part, clicks of all parts."""

    def __init__(self, log: PreparedLog, progress: Progress) -> None:
        names = [f"id:{name}" for name in log.schema.field_names]
        self.fields = [_Field() for _ in names]
        self.clicked: dict[str, float] = {}
        done, total = 0, sum(log.rows.values())
        progress("reading the log", 0, total)
        for part in PARTS:
            clicks = 0
            for columns in log.columns(part, [*names, "label"] if part == "train" else ["label"]):
                clicks += int(columns["label"].sum())
                if part == "train":
                    for field, name in zip(self.fields, names, strict=True):
                        field.add(columns[name])
                    hold_to([field.counter for field in self.fields], TOTAL_CAP)
                done += len(columns["label"])
                progress("reading the log", done, total)
            if log.rows[part]:
                self.clicked[part] = clicks / log.rows[part]


def _field(
    info: FieldInfo, stats: dict[str, Any], schema: Schema, passed: _Field | None
) -> dict[str, Any]:
    counted = stats["fields"][info.name]
    out: dict[str, Any] = {"name": info.name, "kind": info.kind, "distinct": info.distinct}
    out["exact"] = info.exact
    if info.num_embeddings is not None:
        out["num_embeddings"] = info.num_embeddings
    if "standard_error" in counted:
        out["standard_error"] = counted["standard_error"]
    out["missing"] = counted["missing"] / stats["train_rows"]
    if counted.get("unseen"):
        out["unseen"] = counted["unseen"]
    # A bag field's values are not its rows, and only the pass counts them.
    values = stats["train_rows"] if info.kind != "bag" else 0
    head = counted.get("head")
    if passed is not None:
        values = passed.values
        head = head or [
            {"id": key, "value": _bucket(info, key), "count": count}
            for key, count in passed.counter.head(HEAD)
        ]
        out |= _skew(passed.counter, schema)
        if passed.longest is not None:
            rows = stats["train_rows"]
            out["bags"] = {"mean": values / rows, "longest": passed.longest}
    if head and values:
        out["head"] = [dict(each) | {"share": each["count"] / values} for each in head[:HEAD]]
        out["head_share"] = sum(each["count"] for each in head[:HEAD]) / values
    return out


def _skew(counter: IdCounter, schema: Schema) -> dict[str, Any]:
    """The share of ids met once, and how many ids hold half of the values."""
    _, counts = counter.counts()
    # Rare values already share an id where a vocabulary left them out.
    if not len(counts) or schema.config.min_count > 1:
        return {}
    out: dict[str, Any] = {"once": float((counts == 1).mean())}
    if counter.exact:
        falling = np.cumsum(np.sort(counts)[::-1])
        out["half"] = int(np.searchsorted(falling, falling[-1] / 2)) + 1
    return out


def _bucket(info: FieldInfo, key: int) -> str | None:
    """A bucket's bounds in words; None for the id of missing numbers."""
    if key == 0:
        return None
    low = f"{info.edges[key - 2]:g}" if key > 1 else ""
    high = f"{info.edges[key - 1]:g}" if key <= len(info.edges) else ""
    return f"{low}..{high}"
