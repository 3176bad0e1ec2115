"""The items that are ranked, with the columns that belong to them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from bitfold.data.field_map import FIRST
from bitfold.data.follows import Follows, refuse_following, row_keys
from bitfold.data.hashing import missing_id
from bitfold.data.manifest import PARTS
from bitfold.data.statistics import IdCounter
from bitfold.data.table import Bags
from bitfold.errors import BitfoldError
from bitfold.progress import Progress
from bitfold.ranking.config import RankConfig

if TYPE_CHECKING:
    from bitfold.data.prepared import PreparedLog
    from bitfold.data.schema import Schema

Ints = npt.NDArray[np.int64]
Column = npt.NDArray[Any] | Bags


@dataclass(frozen=True)
class Sides:
    """Whose each stored column of a log is: the item's, the context's, or a cross of both.

    Args:
        item: the item's columns (`id:NAME`, `number:NAME`), its id first.
        context: the others.
        mixed: by the name of a cross of both, its parts.
    """

    item: tuple[str, ...]
    context: tuple[str, ...]
    mixed: Mapping[str, tuple[str, ...]]

    @classmethod
    def of(cls, schema: "Schema", field: str) -> "Sides":
        """The sides of a schema's columns where `field` is the item."""
        sides = {field, *schema.config.item_fields}
        item, context, mixed = [f"id:{field}"], [], {}
        for info in schema.fields:
            parts = tuple(info.name.split("*")) if info.kind == "cross" else (info.name,)
            inside = len(sides & {*parts})
            if info.name == field:
                continue
            if inside == 0:
                context.append(f"id:{info.name}")
            elif inside == len(parts):
                item.append(f"id:{info.name}")
            else:
                mixed[info.name] = parts
        for name in schema.numeric_names:
            (item if name in sides else context).append(f"number:{name}")
        return cls(tuple(item), tuple(context), mixed)


@dataclass(frozen=True)
class Candidates:
    """I items.

    Args:
        ids: int64 `[I]`, sorted.
        columns: the items' own columns, I rows each.
        taken: int64 `[I]`, positives of each in training.
    """

    ids: Ints
    columns: dict[str, Column]
    taken: Ints

    def places(self, ids: Ints) -> Ints:
        """Where ids stand among the candidates; -1 for those that are none."""
        place = np.searchsorted(self.ids, ids)
        place[place == len(self.ids)] = 0
        return np.where(self.ids[place] == ids, place, -1)


def candidates(
    log: "PreparedLog", config: RankConfig, sides: Sides, progress: Progress
) -> Candidates:
    """The items of a log's training part, or of all parts; an item's columns are its first row's.

    Memory: the items' own columns, and 24 bytes an item.

    Raises:
        BitfoldError: fewer than two items, or a column of the context that follows from the item.
    """
    watched = [name for name in sides.context if name != f"id:{log.schema.config.group}"]
    follows = Follows(watched)
    names = ["label", *sides.item, *watched]
    counter = IdCounter(cap=None)
    found: list[tuple[Ints, dict[str, Column]]] = []
    known = waiting = done = 0
    parts = PARTS if config.items == "all" else PARTS[:1]
    for part in parts:
        for columns in log.columns(part, names):
            ids = columns[sides.item[0]]
            if part == "train":
                counter.add(ids[columns["label"] > 0.5])
                follows.add(ids, {name: row_keys(columns[name]) for name in watched})
                done += len(ids)
                progress("reading items", done, log.rows["train"])
            found.append(_first_rows(ids, {name: columns[name] for name in sides.item}))
            waiting += len(found[-1][0])
            if waiting > max(known, 1 << 16):
                found = [_merged(found)]
                known, waiting = len(found[0][0]), 0
    refuse_following([name.partition(":")[2] for name in follows.found()], config.field)
    ids, own = _merged(found)
    real = _real(ids, log.schema)
    ids, own = ids[real], {name: _taken(column, real) for name, column in own.items()}
    if len(ids) < 2:
        raise BitfoldError(
            f"there are no items to rank in {config.field!r}",
            got=f"{len(ids)} distinct values in training",
            expected="two or more",
        )
    keys, counts = counter.counts()
    taken = np.zeros(len(ids), np.int64)
    place = np.searchsorted(ids, keys)
    inside = place < len(ids)
    inside[inside] = ids[place[inside]] == keys[inside]
    taken[place[inside]] = counts[inside]
    return Candidates(ids, own, taken)


def _real(ids: Ints, schema: "Schema") -> Ints:
    """The places of ids that are items: not those of unseen and missing values."""
    if schema.vocabulary is not None:
        return np.flatnonzero(ids >= FIRST)
    if schema.config.ids == "dense":
        return np.arange(len(ids))
    return np.flatnonzero(ids != missing_id(schema.config.hash_seed))


def _first_rows(ids: Ints, columns: dict[str, Column]) -> tuple[Ints, dict[str, Column]]:
    keys, first = np.unique(ids, return_index=True)
    return keys, {name: _taken(column, first) for name, column in columns.items()}


def _merged(parts: Sequence[tuple[Ints, dict[str, Column]]]) -> tuple[Ints, dict[str, Column]]:
    """The distinct ids of all parts, with the columns of the first part that has each."""
    if not parts:
        return np.zeros(0, np.int64), {}
    ids = np.concatenate([keys for keys, _ in parts])
    columns: dict[str, Column] = {}
    for name, first in parts[0][1].items():
        pieces: list[Any] = [columns[name] for _, columns in parts]
        columns[name] = Bags.join(pieces) if isinstance(first, Bags) else np.concatenate(pieces)
    return _first_rows(ids, columns)


def _taken(column: Column, rows: Ints) -> Column:
    return column.take(rows) if isinstance(column, Bags) else column[rows]
