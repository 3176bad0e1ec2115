"""What a checkpoint holds, in figures: its tables, what ratios cost, and how a log reads rows."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bitfold.planning.budget import format_bytes
from bitfold.progress import Progress, silent
from bitfold.weights.costs import RATIOS, full_size, least_size, quote
from bitfold.weights.fields import pair_up
from bitfold.weights.opening import open_weights
from bitfold.weights.reads import Reads, open_reads
from bitfold.weights.rows import count_rows
from bitfold.weights.suggestion import LOST, suggest
from bitfold.weights.tables import FoundTable, find_tables
from bitfold.weights.tensors import StoredTensor, Weights
from bitfold.weights.usage import usage

READ_BELOW = 1 << 30
"""Bytes of all tables up to which their rows are read without being asked for."""
LARGEST = 5
"""Tensors that are no tables, and are named."""


def inspect(
    path: Path,
    *,
    tables: str | None = None,
    rows: bool | None = None,
    log: Path | None = None,
    fields: Mapping[str, str] | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """The figures of a checkpoint as plain JSON values; what there is no figure for is left out.

    Args:
        path: a file of weights, or a folder as Hugging Face writes it.
        tables: a regular expression that says by their names which tensors are tables.
        rows: whether to read the tables' rows; None reads them if they take 1 GiB or less.
        log: a prepared log, or a Parquet or CSV file of ids, that says how rows are used.
        fields: the field of the log that reads a table, by the table's name.
        progress: is told how far the passes over rows and log are.

    Raises:
        BitfoldError: the file is no checkpoint, is damaged, needs code, or has no table; a log
            that does not fit.
    """
    tell = progress or silent
    weights = open_weights(path)
    found = find_tables(weights, tables)
    found.sort(key=lambda table: (-table.tensor.bytes, table.name))
    filled = [table for table in found if table.rows and table.width]
    reads = None if log is None else open_reads(log)
    pairs = {} if reads is None else pair_up(filled or found, reads.fields, fields or {})
    size = sum(table.tensor.bytes for table in found)
    looked = size <= READ_BELOW if rows is None else rows
    counted = _count(found, size, tell) if looked else {}
    used = {} if reads is None else usage(filled, pairs, reads, tell)
    total = weights.bytes
    full = full_size(filled)
    least = least_size(filled) if filled else 0
    suggestion = suggest(filled, least, used) if filled else None
    return {
        "checkpoint": str(path),
        "format": weights.form,
        "bytes_on_disk": weights.size,
        "bytes": total,
        "beside": weights.beside,
        "tables": [
            _table(each, total) | counted.get(each.name, {}) | _used(used.get(each.name))
            for each in found
        ],
        "others": _others(weights, found, total),
        "table_bytes": size,
        "full_bytes": full,
        "costs": _costs(filled, full, tell),
        "least": least,
        "suggestion": suggestion,
        "notes": [
            *_notes(found, counted, looked, rows, size),
            *_notes_of_log(filled, pairs, reads, used),
        ],
    }


def _table(table: FoundTable, total: int) -> dict[str, Any]:
    return {
        "name": table.name,
        "also": list(table.also),
        "rows": table.rows,
        "width": table.width,
        "dtype": table.tensor.dtype,
        "bytes": table.tensor.bytes,
        "share": table.tensor.bytes / total if total else 0.0,
    }


def _used(figures: Mapping[str, Any] | None) -> dict[str, Any]:
    return {} if figures is None else {"usage": dict(figures)}


def _count(found: Sequence[FoundTable], size: int, tell: Progress) -> dict[str, dict[str, int]]:
    """Rows of zeros and of NaN, by the table's name."""
    done = 0
    stage = "reading the tables"

    def read(count: int) -> None:
        nonlocal done
        done += count
        tell(stage, done, size)

    tell(stage, 0, size)
    return {table.name: count_rows(table, read) for table in found}


def _others(weights: Weights, found: Sequence[FoundTable], total: int) -> dict[str, Any]:
    """Everything else: how much, and the largest of it."""
    places = {table.tensor.place for table in found}
    rest: dict[object, StoredTensor] = {}
    for each in weights.tensors:
        if each.place not in places:
            rest.setdefault(each.place, each)
    size = sum(each.bytes for each in rest.values())
    falling = sorted(rest.values(), key=lambda each: -each.bytes)[:LARGEST]
    return {
        "tensors": len(rest),
        "bytes": size,
        "share": size / total if total else 0.0,
        "largest": [
            {"name": each.name, "shape": list(each.shape), "bytes": each.bytes} for each in falling
        ],
    }


def _costs(filled: Sequence[FoundTable], full: int, tell: Progress) -> list[dict[str, Any]]:
    """What each ratio keeps; `lost` is the most AUC that it cost on our boards."""
    costs = []
    for done, ratio in enumerate(RATIOS if filled else ()):
        tell("planning", done, len(RATIOS))
        made = {"ratio": ratio} | quote(filled, max(full // ratio, 1))
        kept = made.pop("kept", None)
        if kept is not None:
            made["kept"] = {table.name: each for table, each in zip(filled, kept, strict=True)}
        costs.append(made | ({"lost": LOST[ratio]} if ratio in LOST else {}))
    tell("planning", len(RATIOS), len(RATIOS))
    return costs


def _notes(
    found: Sequence[FoundTable],
    counted: Mapping[str, Mapping[str, int]],
    looked: bool,
    rows: bool | None,
    size: int,
) -> list[str]:
    """What is worth a sentence about the tables."""
    out = []
    for table in found:
        if table.also:
            out.append(
                f"{table.name} shares its numbers with {', '.join(table.also)} (tied weights): one "
                "table, counted once"
            )
        broken = counted.get(table.name, {}).get("nonfinite_rows")
        if broken:
            out.append(f"{table.name} has {broken:,} rows that hold NaN or infinities")
        if not (table.rows and table.width):
            out.append(f"{table.name} is empty: it is in no plan")
    if not looked and rows is None:
        out.append(
            f"rows of zeros and NaN were not counted: the tables take {format_bytes(size)}; "
            "--rows reads them"
        )
    kinds = sorted({table.tensor.dtype for table in found} - {"float32"})
    if kinds:
        out.append(f"ratios are to float32 tables, of which tables in {', '.join(kinds)} differ")
    return out


def _notes_of_log(
    filled: Sequence[FoundTable],
    pairs: Mapping[str, str],
    reads: Reads | None,
    used: Mapping[str, Mapping[str, Any]],
) -> list[str]:
    """What does not fit between the log and the tables."""
    if reads is None:
        return []
    out = []
    for table in filled:
        field = pairs.get(table.name)
        if field is None:
            out.append(f"no field of the log reads {table.name}; --map {table.name}=FIELD says one")
            continue
        ids = reads.size(field)
        if ids is not None and ids != table.rows:
            out.append(
                f"{table.name} has {table.rows:,} rows, and the field {field} {ids:,} ids: the log "
                "may number its values otherwise than the model's"
            )
        outside = used[table.name]["outside"]
        if outside:
            out.append(
                f"{outside:,} values of {field} are no row of {table.name}, 0 to {table.rows - 1:,}"
            )
        if not used[table.name]["exact"]:
            out.append(f"rows of {table.name} that are read were too many to count: a sample was")
    return out
