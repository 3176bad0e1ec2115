"""The second pass: what is learned from the training part, and only from it."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from bitfold.data.balance import Balance
from bitfold.data.config import DataConfig
from bitfold.data.dealing import Dealt
from bitfold.data.field_map import FieldMap
from bitfold.data.fields import FieldSpec
from bitfold.data.hashing import missing_id
from bitfold.data.reading import Progress
from bitfold.data.schema import FieldInfo, NumericInfo, Schema
from bitfold.data.spill import read_frames
from bitfold.data.splits import Parts, marks, time_parts
from bitfold.data.standard import shape
from bitfold.data.statistics import TOTAL_CAP, IdCounter, Moments, Sample, hold_to
from bitfold.data.vocabulary import vocabulary_of
from bitfold.errors import BitfoldError

if TYPE_CHECKING:
    import polars as pl

THREADS = 2
_BUCKET_SALT = 0xB0C7


@dataclass(frozen=True)
class Shard:
    """One dealt file in memory: encoded rows and the part of each."""

    index: int
    frame: "pl.DataFrame"
    parts: Parts


def read_shards(dealt: Dealt) -> Iterator[Shard]:
    """The dealt files, one after another."""
    for index, path in enumerate(dealt.paths):
        yield read_shard(dealt, index, path)


def read_shard(dealt: Dealt, index: int, path: Path) -> Shard:
    """One dealt file, with the part of each of its rows."""
    frame = read_frames(path)
    if dealt.bounds is not None:
        parts = time_parts(frame["time"].to_numpy(), dealt.bounds)
    elif dealt.parts is not None:
        parts = dealt.parts[frame["row"].to_numpy()]
    else:
        parts = frame["part"].to_numpy()
    return Shard(index, frame, parts)


class FieldFit:
    """What is learned of one categorical field."""

    def __init__(self, spec: FieldSpec, config: DataConfig) -> None:
        self.spec = spec
        self.dense = config.ids == "dense" and spec.kind in ("plain", "bag")
        cap = {"cap": None} if config.ids == "vocabulary" else {}
        self.counter = IdCounter(**cap)
        self.missing = 0
        self.largest = -1
        self._missing_id = missing_id(config.hash_seed)

    def add(self, column: "pl.Series", train: npt.NDArray[np.bool_]) -> None:
        """Take in one shard's column."""
        import polars as pl

        rows = column.filter(pl.Series(train))
        if self.spec.kind == "bag":
            self.missing += int((rows.list.len() == 0).sum())
            ids = _values(rows)
            whole = _values(column) if self.dense else ids
        else:
            ids = rows.to_numpy()
            whole = column.to_numpy()
            if not self.dense:
                self.missing += int((ids == self._missing_id).sum())
        if self.dense and len(whole):
            self.largest = max(self.largest, int(whole.max()))
        self.counter.add(ids)


def _values(bags: "pl.Series") -> npt.NDArray[np.int64]:
    return bags.list.explode(empty_as_null=False, keep_nulls=False).to_numpy()


class NumericFit:
    """What is learned of one numeric column."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.moments = Moments()
        self.sample = Sample()
        self.missing = 0

    def add(
        self, values: npt.NDArray[np.float64], row_marks: npt.NDArray[np.uint64] | None
    ) -> None:
        """Take in one shard's numbers of the training part."""
        met = ~np.isnan(values)
        self.missing += int(len(values) - met.sum())
        values = values[met]
        if row_marks is not None:
            self.sample.add(values, row_marks[met])
        self.moments.add(shape(values, self.kind))

    def edges(self, buckets: int) -> tuple[float, ...]:
        """The bounds between quantile buckets; fewer where values repeat."""
        values = self.sample.sorted()
        if not len(values):  # a window without a value; its schema is that of the first
            return ()
        place = np.arange(1, buckets) * len(values) // buckets
        bounds = np.unique(values[place])
        # A bound at the least value would leave the first bucket empty.
        return tuple(float(bound) for bound in bounds if bound > values[0])


@dataclass(frozen=True)
class Fitted:
    """The schema, and the counts behind it."""

    schema: Schema
    fields: list[FieldFit]
    numeric: list[NumericFit]
    train_rows: int
    positives: int


def fit(
    config: DataConfig,
    specs: list[FieldSpec],
    dealt: Dealt,
    progress: Progress | None = None,
    *,
    window: bool = False,
    fresh: bool = True,
) -> Fitted:
    """Learn the schema from the training rows of the dealt files.

    Rows of a `window` may be of one class; where no `fresh` schema is wanted of them, a column may
    be missing in all of them, and all may weigh nothing.
    """
    plain = [spec for spec in specs if spec.kind != "bucket"]
    fields = [FieldFit(spec, config) for spec in plain]
    numeric = [NumericFit(config.transform.kind) for _ in config.numeric]
    done = 0
    balance = Balance()
    with ThreadPoolExecutor(THREADS) as pool:
        for shard in read_shards(dealt):
            train = shard.parts == 0
            balance.add(
                shard.parts,
                *(
                    shard.frame[name].to_numpy() if name in shard.frame.columns else None
                    for name in ("label", "weight")
                ),
            )
            jobs: list[Any] = [
                pool.submit(field.add, shard.frame[f"f{index}"], train)
                for index, field in enumerate(fields)
            ]
            row_marks = None
            if config.transform.kind == "buckets":
                numbers = shard.frame["row"].to_numpy()[train]
                row_marks = marks(numbers, config.split_seed, _BUCKET_SALT)
            jobs += [
                pool.submit(number.add, shard.frame[f"n{i}"].to_numpy()[train], row_marks)
                for i, number in enumerate(numeric)
            ]
            for job in jobs:
                job.result()
            hold_to([field.counter for field in fields], TOTAL_CAP)
            done += shard.frame.height
            if progress is not None:
                progress("fitting", done, shard.index + 1, len(dealt.paths))
    strict = fresh or not window
    balance.check_train(config.weight, both=not window, weighing=strict)
    rows, positives = int(balance.rows[0]), int(balance.clicks[0])
    for name, missing in [
        *((field.spec.name, field.missing) for field in fields if field.spec.kind != "cross"),
        *zip(config.numeric, (number.missing for number in numeric), strict=True),
    ]:
        if missing == rows and strict:
            raise BitfoldError(
                f"the column {name!r} is missing in every row of the training part",
                got=f"{rows:,} missing values",
                expected="some values",
                fix=f"leave {name} out, or check the columns' names and the separator",
            )
    schema = _schema(config, fields, numeric)
    return Fitted(schema, fields, numeric, rows, positives)


def _schema(config: DataConfig, fields: list[FieldFit], numeric: list[NumericFit]) -> Schema:
    maps: list[FieldMap | None] = []
    infos: list[FieldInfo] = []
    for field in fields:
        fmap = None
        size = field.largest + 1 if field.dense else None
        if config.ids == "vocabulary":
            fmap = FieldMap.fit(
                *field.counter.counts(),
                missing=missing_id(config.hash_seed),
                min_count=config.min_count,
            )
            size = fmap.num_embeddings
        maps.append(fmap)
        counter = field.counter
        infos.append(
            FieldInfo(field.spec.name, field.spec.kind, counter.distinct, counter.exact, size)
        )
    kept: list[NumericInfo] = []
    for name, number in zip(config.numeric, numeric, strict=True):
        if config.transform.kind == "buckets":
            edges = number.edges(config.transform.buckets)
            met = len(edges) + 1 + (number.missing > 0)
            infos.append(FieldInfo(name, "bucket", met, True, len(edges) + 2, edges))
            maps.append(None)
        else:
            kept.append(NumericInfo(name, number.moments.mean, number.moments.deviation))
    return Schema(config, tuple(infos), tuple(kept), vocabulary_of(maps))
