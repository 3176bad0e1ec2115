"""The third pass: dealt files and a fitted schema to Parquet shards, statistics and manifest."""

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bitfold.data.dealing import Dealt
from bitfold.data.field_map import UNSEEN
from bitfold.data.finishing import id_columns, number_matrix
from bitfold.data.fitting import FieldFit, Fitted, Shard, read_shard
from bitfold.data.manifest import PARTS, Manifest, ShardInfo, write_json
from bitfold.data.newness import Known
from bitfold.data.reading import Progress
from bitfold.data.schema import Schema
from bitfold.data.statistics import IdCounter
from bitfold.data.stats import REPORT_FILE, STATS, STATS_FILE
from bitfold.data.table import Bags
from bitfold.records import file_digest

Column = npt.NDArray[np.int64] | Bags

HEAD = 20
"""Values listed in a field's frequency head."""

_DICTIONARY = 1 << 15
"""Fields of at most so many ids are stored as dictionaries: smaller, and as fast to read."""


def write_log(
    folder: Path,
    dealt: Dealt,
    fitted: Fitted,
    inputs: list[list[Any]],
    progress: Progress | None = None,
    report: dict[str, Any] | None = None,
) -> None:
    """Write all files of a prepared log into `folder`; the manifest, `log.json`, comes last.

    `report` is that of a synthetic log, if it is one.
    """
    schema = fitted.schema
    shards: dict[str, list[ShardInfo]] = {part: [] for part in PARTS}
    unseen = np.zeros((len(PARTS), len(schema.fields), 2), np.int64)
    done = 0
    for part in PARTS:
        (folder / part).mkdir()
    with ThreadPoolExecutor(1) as pool:
        # While one shard is compressed and written, the next is read and put in order.
        writing: list[Future[ShardInfo]] = []
        for index, path in enumerate(dealt.paths):
            shard = read_shard(dealt, index, path)
            path.unlink()
            pieces = _pieces(shard, schema)
            for piece in pieces:
                if piece.part:
                    unseen[piece.part] += _count_unseen(piece.ids, fitted)
            _collect(writing, shards)
            writing = [
                pool.submit(write_shard, folder, f"{PARTS[piece.part]}/{index:05d}", schema, piece)
                for piece in pieces
            ]
            done += shard.frame.height
            if progress is not None:
                progress("writing", done, index + 1, len(dealt.paths))
        _collect(writing, shards)
    write_json(folder / STATS_FILE, statistics(dealt, fitted, unseen))
    known = Known.of(fitted.fields, unseen[1:].sum(axis=0))
    files = [STATS_FILE, *replace(schema, known=known).save(folder)]
    if report is not None:
        write_json(folder / REPORT_FILE, report)
        files.append(REPORT_FILE)
    Manifest(shards, inputs).save(folder, files)


def _collect(writing: list[Future[ShardInfo]], shards: dict[str, list[ShardInfo]]) -> None:
    for job in writing:
        info = job.result()
        shards[info.name.split("/")[0]].append(info)


@dataclass(frozen=True)
class Piece:
    """Rows of one part: ids by field, numbers `[n, N]`, and label, weight and group."""

    part: int
    ids: list[Column]
    numeric: npt.NDArray[np.float32]
    others: dict[str, npt.NDArray[Any]]


def _pieces(shard: Shard, schema: Schema) -> list[Piece]:
    """The rows of one dealt file by part, in random order."""
    ids = id_columns(shard.frame, schema)
    numeric = number_matrix(shard.frame, schema)
    others = {
        name: shard.frame[name].to_numpy()
        for name in ("label", "weight", "group")
        if name in shard.frame.columns
    }
    # Rows of a dealt file lie in the log's order: this is where they lose it.
    order = np.random.default_rng([schema.config.split_seed, shard.index]).permutation(
        shard.frame.height
    )
    pieces = []
    for number in range(len(PARTS)):
        rows = order[shard.parts[order] == number]
        if len(rows):
            taken: list[Column] = [
                column.take(rows) if isinstance(column, Bags) else np.take(column, rows)
                for column in ids
            ]
            rest = {str(key): np.take(column, rows) for key, column in others.items()}
            pieces.append(Piece(number, taken, numeric[rows], rest))
    return pieces


def write_shard(folder: Path, stem: str, schema: Schema, piece: Piece) -> ShardInfo:
    """Write the rows of one shard as one row group."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns: dict[str, Any] = {}
    for field, column in zip(schema.field_names, piece.ids, strict=True):
        if isinstance(column, Bags):
            columns[f"id:{field}"] = pa.LargeListArray.from_arrays(
                pa.array(column.offsets), pa.array(column.values)
            )
        else:
            columns[f"id:{field}"] = pa.array(column)
    for index, number in enumerate(schema.numeric_names):
        columns[f"number:{number}"] = pa.array(np.ascontiguousarray(piece.numeric[:, index]))
    columns |= {key: pa.array(column) for key, column in piece.others.items()}
    table = pa.table(columns)
    name = f"{stem}.parquet"
    path = folder / name
    pq.write_table(
        table,
        path,
        compression="lz4",
        use_dictionary=[
            f"id:{info.name}" for info in schema.fields if info.distinct <= _DICTIONARY
        ],
        write_statistics=False,
        row_group_size=max(table.num_rows, 1),
    )
    return ShardInfo(name, table.num_rows, path.stat().st_size, file_digest(path))


def _count_unseen(columns: list[Column], fitted: Fitted) -> npt.NDArray[np.int64]:
    """For each field, `(values the training part lacks, values)` of some rows."""
    out = np.zeros((len(columns), 2), np.int64)
    for index, (column, info) in enumerate(zip(columns, fitted.schema.fields, strict=True)):
        if info.kind == "bucket":
            continue
        values = column.values if isinstance(column, Bags) else column
        if fitted.schema.vocabulary is not None:
            out[index] = int((values == UNSEEN).sum()), len(values)
        else:
            out[index] = _lacking(values, fitted.fields[index].counter)
    return out


def _lacking(values: npt.NDArray[np.int64], counter: IdCounter) -> tuple[int, int]:
    keys, _ = counter.counts()
    distinct, counts = np.unique(values, return_counts=True)
    distinct, counts = counter.sampled(distinct, counts)
    place = np.searchsorted(keys, distinct)
    place[place == len(keys)] = 0
    met = keys[place] == distinct if len(keys) else np.zeros(len(distinct), bool)
    return int(counts[~met].sum()), int(counts.sum())


def statistics(dealt: Dealt, fitted: Fitted, unseen: npt.NDArray[np.int64]) -> dict[str, Any]:
    """What is written to `stats.json`."""
    schema = fitted.schema
    fields: dict[str, Any] = {}
    for index, info in enumerate(schema.fields):
        facts: dict[str, Any] = {"kind": info.kind, "distinct": info.distinct, "exact": info.exact}
        if info.kind == "bucket":
            number = fitted.numeric[schema.config.numeric.index(info.name)]
            fields[info.name] = facts | {"missing": number.missing}
            continue
        field = fitted.fields[index]
        if not info.exact:
            facts["standard_error"] = round(field.counter.standard_error)
        facts["missing"] = field.missing
        facts["unseen"] = {
            part: round(lacking / total, 6)
            for part, (lacking, total) in zip(PARTS, unseen[:, index].tolist(), strict=True)
            if total
        }
        facts["head"] = _head(field, dealt)
        fields[info.name] = facts
    return STATS.head() | {
        "rows": dealt.rows,
        "train_rows": fitted.train_rows,
        "train_positives": fitted.positives,
        **({"negatives": dealt.negatives} if dealt.negatives else {}),
        "fields": fields,
        "numeric": {
            info.name: {"missing": number.missing, "mean": info.mean, "deviation": info.deviation}
            for info, number in zip(schema.numeric, fitted.numeric, strict=False)
        },
    }


def _head(field: FieldFit, dealt: Dealt) -> list[dict[str, Any]]:
    texts = dealt.texts.get(field.spec.name, {})
    out: list[dict[str, Any]] = []
    for key, count in field.counter.head(HEAD):
        facts: dict[str, Any] = {"id": key, "count": count}
        if field.dense:
            facts["value"] = str(key)
        elif key in texts:
            facts["value"] = None if texts[key] is None else str(texts[key])
        out.append(facts)
    return out
