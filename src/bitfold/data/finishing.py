"""Encoded rows and a fitted schema to rows ready for batches: used by prepare and by predict."""

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from bitfold.data.schema import Schema
from bitfold.data.table import Bags, Table, interleave

if TYPE_CHECKING:
    import polars as pl


def id_columns(frame: "pl.DataFrame", schema: Schema) -> list[npt.NDArray[np.int64] | Bags]:
    """The final ids of each field: vocabulary and buckets applied."""
    out: list[npt.NDArray[np.int64] | Bags] = []
    bucketised = 0
    for index, info in enumerate(schema.fields):
        if info.kind == "bucket":
            values = frame[f"n{bucketised}"].to_numpy()
            bucketised += 1
            buckets = 1 + np.searchsorted(np.array(info.edges), values, side="right")
            out.append(np.where(np.isnan(values), 0, buckets).astype(np.int64))
            continue
        fmap = schema.vocabulary.maps[index] if schema.vocabulary is not None else None
        column = frame[f"f{index}"]
        if info.kind == "bag":
            bags = bags_of(column)
            out.append(bags if fmap is None else Bags(fmap.apply(bags.values), bags.offsets))
        else:
            ids = column.to_numpy()
            out.append(ids if fmap is None else fmap.apply(ids))
    return out


def bags_of(column: "pl.Series") -> Bags:
    """The bags of a column of lists."""
    values = column.list.explode(empty_as_null=False, keep_nulls=False).to_numpy()
    lengths = column.list.len().to_numpy()
    return Bags(values, np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64))


def number_matrix(frame: "pl.DataFrame", schema: Schema) -> npt.NDArray[np.float32]:
    """The transformed numbers: float32 `[n, N]`."""
    if not schema.numeric:
        return np.zeros((frame.height, 0), np.float32)
    columns = [frame[f"n{index}"].to_numpy() for index in range(len(schema.numeric))]
    return schema.numbers(columns)


def table_of(frame: "pl.DataFrame", schema: Schema) -> Table:
    """Encoded rows, in their order, ready to be cut into batches."""
    return assemble(
        id_columns(frame, schema),
        number_matrix(frame, schema),
        {
            name: frame[name].to_numpy()
            for name in ("label", "weight", "group")
            if name in frame.columns
        },
        None,
    )


def assemble(
    ids: list[npt.NDArray[np.int64] | Bags],
    numeric: npt.NDArray[np.float32],
    others: dict[str, Any],
    order: npt.NDArray[Any] | None,
) -> Table:
    """Columns to a table, its rows in the order given."""
    rows = len(numeric)
    has_bags = any(isinstance(column, Bags) for column in ids)
    single: Any = None
    bags: tuple[Bags, ...] = ()
    if has_bags:
        listed = [
            column if isinstance(column, Bags) else Bags(column, np.arange(rows + 1))
            for column in ids
        ]
        bags = tuple(column if order is None else column.take(order) for column in listed)
    elif ids:
        single = interleave([c for c in ids if not isinstance(c, Bags)], order)
    else:
        single = np.zeros((rows, 0), np.int64)

    def taken(column: Any) -> Any:
        return column if column is None or order is None else column[order]

    return Table(
        rows,
        single,
        bags,
        taken(numeric),
        taken(others.get("label")),
        taken(others.get("weight")),
        taken(others.get("group")),
    )
