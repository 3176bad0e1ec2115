"""One chunk of raw columns to ids, numbers, label, weight, group and time."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from bitfold.data.config import DataConfig
from bitfold.data.frequent import FrequentTexts
from bitfold.data.hashing import canonical_text, cross_ids, hash_expr
from bitfold.data.labels import numbers, read_labels
from bitfold.data.newness import Watch
from bitfold.data.rows import Rows
from bitfold.data.times import Times
from bitfold.data.types import is_plain, respell, together, type_of
from bitfold.errors import BitfoldError

if TYPE_CHECKING:
    import polars as pl

from bitfold.data.fields import FieldSpec, field_specs

_LARGEST_WEIGHT = 1e30
"""Weights are float32, and so are their sums over a batch."""

_TEXTS_A_CHUNK = 256


class Encoder:
    """Turns chunks into frames of ids and numbers.

    Args:
        config: how rows are read.
        scoring: only the fields and numbers must be there.
        fields_only: nothing else is read, as scores need nothing else.
        types: how the training part spelt the values of columns (`bitfold.data.types`); without
            them they are found out.
        watch: is shown all rows, to notice values that training lacked.

    The frame of `n` rows has the columns `f0..` (Int64 ids, or lists of them for bags) for all
    fields but bucketised ones, `n0..` (Float64, NaN where missing) for numeric columns, and,
    where the configuration names them and the chunk has them, `label`, `weight` (Float32),
    `group` (Int64), `time` (Float64) and `part` (the split column's own values).
    """

    def __init__(
        self,
        config: DataConfig,
        *,
        scoring: bool = False,
        fields_only: bool = False,
        types: Mapping[str, str] | None = None,
        watch: Watch | None = None,
    ) -> None:
        self.config = config
        self.scoring = scoring
        self.fields_only = fields_only
        self.known_types = types
        self.watch = watch
        self.types: dict[str, str] = dict(types or {})
        self.specs = field_specs(config)
        self._known: dict[str, FrequentTexts] = {}
        self._times = Times(config.time or "")
        if not self.specs and not config.numeric:
            raise BitfoldError(
                "no fields are named",
                got="neither fields nor numeric columns",
                expected="the categorical columns of the log",
                fix="say --fields user,item",
            )

        rule = config.label_rule
        told = [*config.numeric, *(part for spec in self.specs for part in spec.parts)]
        if rule is not None and rule.column in told:
            raise BitfoldError(
                f"the label's column {rule.column!r} is also what the label is predicted from",
                got=f"{rule.column} as the label, and as a field, a number or a part of a cross",
                expected="fields that are known before the label is",
                fix=f"leave {rule.column} out of the fields",
            )

    @cached_property
    def drawn_parts(self) -> list[str]:
        """Parts of crosses that drawn items need: of those between the item's columns and others,
        and those that are no fields of their own.
        """
        config = self.config
        sides = {config.item, *config.item_fields}
        crosses = [spec.parts for spec in self.specs if spec.kind == "cross"]
        mixed = [parts for parts in crosses if 0 < len(sides & {*parts}) < len(parts)]
        loose = [part for parts in crosses for part in parts if part not in config.fields]
        return list(dict.fromkeys([*(part for parts in mixed for part in parts), *loose]))

    @cached_property
    def required(self) -> list[str]:
        """The raw columns that must be there."""
        config = self.config
        names = [part for spec in self.specs for part in spec.parts]
        names += config.numeric
        if not self.scoring:
            names += [name for name in self._extra if name]
        return list(dict.fromkeys(names))

    @cached_property
    def optional(self) -> list[str]:
        """The raw columns that are read where they are there."""
        if not self.scoring or self.fields_only:
            return []
        extra = [name for name in self._extra if name and name not in self.required]
        return list(dict.fromkeys(extra))

    @cached_property
    def _extra(self) -> list[str | None]:
        config = self.config
        rule = config.label_rule
        names = [rule.column if rule else None, config.group, config.weight]
        if not self.scoring:
            names += [config.time if config.split_rule.kind in ("time", "last") else None]
            names += [config.split_rule.column]
        return names

    def encode(self, rows: Rows) -> "pl.DataFrame":
        """The ids and numbers of some rows."""
        import polars as pl

        config = self.config
        out: dict[str, pl.Series] = {}
        hashed = self._hash_columns(rows)
        for index, spec in enumerate(self.specs):
            if spec.kind == "bag":
                out[f"f{index}"] = self._bag(rows, spec.name)
            elif spec.kind == "cross":
                parts = [hashed[part].to_numpy() for part in spec.parts]
                out[f"f{index}"] = pl.Series(cross_ids(parts))
                self._remember_cross(spec, out[f"f{index}"])
            elif spec.kind == "plain" and config.ids == "dense":
                out[f"f{index}"] = dense_ids(rows, spec.name, rows.frame[spec.name])
            elif spec.kind == "plain":
                out[f"f{index}"] = hashed[spec.name]
        if config.negatives and not self.scoring:
            out |= {f"h:{part}": hashed[part] for part in self.drawn_parts}
        for index, name in enumerate(config.numeric):
            out[f"n{index}"] = numbers(rows, name, "the numeric column", config.missing)
        out |= self._others(rows, hashed)
        made = pl.DataFrame([series.alias(name) for name, series in out.items()])
        if self.watch is not None:
            self.watch.see(made, rows)
        return made

    def _hash_columns(self, rows: Rows) -> "dict[str, pl.Series]":
        names = {
            part
            for spec in self.specs
            if spec.kind == "cross" or (spec.kind == "plain" and self.config.ids != "dense")
            for part in spec.parts
        }
        if self.config.group is not None and self.config.group in rows.frame.columns:
            names.add(self.config.group)
        import polars as pl

        if not names:
            return {}
        seed = self.config.hash_seed
        # Text and whole numbers are hashed by one query, which uses all cores; others need their
        # text spelt out first.
        frame = pl.DataFrame(
            [
                rows.frame[name] if self._is_simple(rows, name) else self._spelt(rows, name)
                for name in sorted(names)
            ]
        )
        ids = frame.select(
            hash_expr(pl.col(name).cast(pl.String), seed).alias(name) for name in frame.columns
        )
        for name in frame.columns:
            self._remember(name, frame[name], ids[name])
        if not self.scoring:
            self._spelt_rows = frame
        return {name: ids[name] for name in frame.columns}

    def _is_simple(self, rows: Rows, name: str) -> bool:
        import polars as pl

        column = rows.frame[name]
        self._see_type(name, column, rows.text)
        return (
            (column.dtype == pl.String or column.dtype.is_integer())
            and (rows.text or not self.config.missing)
            and self._is_plain(name, column, rows.text)
        )

    def _is_plain(self, name: str, column: "pl.Series", from_text: bool) -> bool:
        """Whether the training part spelt the values as this column does."""
        known = (self.known_types or {}).get(name)
        return known is None or is_plain(column, known, from_text=from_text)

    def _see_type(self, name: str, column: "pl.Series", from_text: bool) -> None:
        """Learn the column's type from a few values of each chunk."""
        if self.known_types is None and not self.scoring:
            found = type_of(column[:_TEXTS_A_CHUNK], from_text=from_text)
            found = together(self.types.get(name), found)
            if found is not None:
                self.types[name] = found

    def _spelt(self, rows: Rows, name: str) -> "pl.Series":
        """The canonical texts of a column, as the training part spelt them."""
        text = self._text(rows, name)
        if self._is_plain(name, rows.frame[name], rows.text):
            return text
        return respell(text, self.types[name])

    def _remember(self, name: str, text: "pl.Series", ids: "pl.Series") -> None:
        """Keep the texts of frequent values, so that statistics can name them."""
        if not self.scoring and len(ids):
            self._known.setdefault(name, FrequentTexts()).add(ids.to_numpy(), text)

    def _remember_cross(self, spec: FieldSpec, ids: "pl.Series") -> None:
        import polars as pl

        if not self.scoring:
            parts = [pl.col(name).cast(pl.String).fill_null("") for name in spec.parts]
            text = self._spelt_rows.select(pl.concat_str(parts, separator="*")).to_series()
            self._remember(spec.name, text, ids)

    @property
    def texts(self) -> dict[str, dict[int, Any]]:
        """For each hashed column, the texts of its frequent ids; None is a missing value."""
        return {name: known.texts() for name, known in self._known.items()}

    def _hash(self, text: "pl.Series") -> "pl.Series":
        import polars as pl

        frame = text.alias("v").to_frame()
        return frame.select(hash_expr(pl.col("v"), self.config.hash_seed)).to_series()

    def _text(self, rows: Rows, name: str) -> "pl.Series":
        text = canonical_text(rows.frame[name])
        return _without(text, self.config.missing) if not rows.text else text

    def _bag(self, rows: Rows, name: str) -> "pl.Series":
        """The ids of a multi-valued column: a list per row, empty where it is missing."""
        import polars as pl
        import pyarrow as pa

        column = rows.frame[name]
        if isinstance(column.dtype, pl.List):
            lists = column
        else:
            lists = self._text(rows, name).str.split(self.config.multi[name])
        values = lists.list.explode(empty_as_null=False, keep_nulls=False)
        lengths = lists.list.len().fill_null(0).to_numpy()
        owner = np.repeat(np.arange(len(lists)), lengths)
        if self.config.ids == "dense":
            kept = (values.is_not_null() & (values.cast(pl.String) != "")).to_numpy()
            ids = dense_ids(rows, name, values.filter(pl.Series(kept)))
        else:
            self._see_type(name, values, rows.text)
            text = _without(canonical_text(values), self.config.missing)
            if not self._is_plain(name, values, rows.text):
                text = respell(text, self.types[name])
            kept = (text.is_not_null() & (text != "")).fill_null(False).to_numpy()
            text = text.filter(pl.Series(kept))
            ids = self._hash(text)
            self._remember(name, text, ids)
        counts = np.bincount(owner[kept], minlength=len(lists))
        offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        listed = pa.LargeListArray.from_arrays(pa.array(offsets), pa.array(ids.to_numpy()))
        return pl.Series(listed)

    def _others(self, rows: Rows, hashed: "dict[str, pl.Series]") -> "dict[str, pl.Series]":
        import polars as pl

        config = self.config
        have = rows.frame.columns
        out: dict[str, pl.Series] = {}
        rule = config.label_rule
        if rule is not None and rule.column in have:
            out["label"] = read_labels(rows, rule, config.missing)
        if config.weight is not None and config.weight in have:
            weight = numbers(rows, config.weight, "the weight", config.missing)
            rows.refuse(
                weight.is_nan() | (weight < 0) | (weight > _LARGEST_WEIGHT),
                config.weight,
                "the weight is no weight",
                f"a number from 0 to {_LARGEST_WEIGHT:g} in every row",
            )
            out["weight"] = weight.cast(pl.Float32)
        if config.group is not None and config.group in have:
            out["group"] = hashed[config.group]
        split = config.split_rule
        if not self.scoring and config.time and split.kind in ("time", "last"):
            out["time"] = self._times.read(rows)
        if not self.scoring and split.column is not None:
            out["part"] = canonical_text(rows.frame[split.column])
        return out


def _without(text: "pl.Series", missing: Sequence[str]) -> "pl.Series":
    """The texts with those that mean missing made null."""
    if not missing:
        return text
    import polars as pl

    return text.set(text.is_in(list(missing)).fill_null(False), None).cast(pl.String)


def dense_ids(rows: Rows, name: str, column: "pl.Series") -> "pl.Series":
    """Ids that the column holds already: whole numbers of 0 or more.

    Raises:
        BitfoldError: naming row and column of a missing, fractional or negative one.
    """
    import polars as pl

    if column.dtype.is_integer():
        ids = column.cast(pl.Int64, strict=False)
    else:
        ids = column.cast(pl.String).cast(pl.Int64, strict=False)
        unread = ids.is_null() & column.is_not_null()
        if unread.any():
            loose = column.cast(pl.String).cast(pl.Float64, strict=False)
            whole = loose == loose.floor()
            ids = (
                pl.DataFrame({"i": ids, "l": loose, "w": whole})
                .select(
                    pl.when(pl.col("i").is_null() & pl.col("w"))
                    .then(pl.col("l").cast(pl.Int64, strict=False))
                    .otherwise(pl.col("i"))
                )
                .to_series()
            )
    rows.refuse(
        ids.is_null() | (ids < 0),
        name,
        "the column holds what is no dense id",
        "whole numbers 0, 1, 2, ... in every row",
        fix="say --ids hashed (any value works) or --ids vocabulary",
        shown=column,
    )
    return ids
