"""Who has what: the users' items in a log of positives, gathered while it is read."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from bitfold.data.columns import Encoder
from bitfold.data.config import DataConfig
from bitfold.data.finishing import bags_of
from bitfold.data.follows import Follows, refuse_following, row_keys
from bitfold.data.hashing import missing_id, mix
from bitfold.errors import BitfoldError

if TYPE_CHECKING:
    import polars as pl

Ids = npt.NDArray[np.int64]
Pairs = npt.NDArray[np.uint64]

_PAIR_SALT = 0x9A1B
_WAITING = 1 << 16


def pair_keys(users: Ids, items: Ids) -> Pairs:
    """One 64-bit key for each (user, item) pair.

    Equal pairs always have equal keys. Different pairs share one with a chance of 2**-64, which
    costs no more than a candidate that is passed over.
    """
    spread = mix(users, _PAIR_SALT).view(np.int64)
    return mix(spread ^ items, _PAIR_SALT + 1)


def context_columns(encoder: Encoder, own: "ItemColumns") -> dict[str, str]:
    """The columns of an encoded frame that stay when the item changes, by their raw names."""
    config = encoder.config
    out = {
        spec.name: f"f{index}"
        for index, spec in enumerate(encoder.specs)
        if spec.kind in ("plain", "bag")
    }
    out |= {name: f"n{index}" for index, name in enumerate(config.numeric)}
    out |= {name: f"h:{name}" for name in encoder.drawn_parts if name not in out}
    sides = {config.group, *own.own}
    return {name: column for name, column in out.items() if not sides & {name, column}}


def _keys(column: "pl.Series") -> Ids:
    import polars as pl

    return row_keys(bags_of(column) if column.dtype == pl.List else column.to_numpy())


@dataclass(frozen=True)
class ItemColumns:
    """Which columns of an encoded frame belong to the item, and which crosses are mixed.

    Args:
        item: the column of the item's id.
        own: columns whose values go with the item, the id among them.
        mixed: crosses of the item's columns with others: the column, and its parts' columns.
    """

    item: str
    own: tuple[str, ...]
    mixed: tuple[tuple[str, tuple[str, ...]], ...]

    @classmethod
    def of(cls, encoder: Encoder) -> "ItemColumns":
        """The columns of an encoder whose configuration names an item."""
        config = encoder.config
        sides = {config.item, *config.item_fields}
        item, own, mixed = "", [], []
        for index, spec in enumerate(encoder.specs):
            if spec.kind == "bucket":
                continue
            inside = [part in sides for part in spec.parts]
            if spec.name == config.item:
                item = f"f{index}"
            if all(inside):
                own.append(f"f{index}")
            elif any(inside):
                mixed.append((f"f{index}", tuple(f"h:{part}" for part in spec.parts)))
        own += [f"n{index}" for index, name in enumerate(config.numeric) if name in sides]
        own += [f"h:{name}" for name in encoder.drawn_parts if name in sides]
        return cls(item, tuple(own), tuple(mixed))


class Interactions:
    """The pairs of a log's users and items, and each item's own columns.

    Memory: 8 bytes a row of the log (16 for a moment while they are sorted), and the item's
    columns once for each distinct item.
    """

    def __init__(self, encoder: Encoder) -> None:
        self.config: DataConfig = encoder.config
        self.columns = ItemColumns.of(encoder)
        self._context = context_columns(encoder, self.columns)
        self._follows = Follows(self._context)
        self.dropped = 0
        self._keys: list[Pairs] = []
        self._items: list[pl.DataFrame] = []
        self._known = self._waiting = 0

    def take(self, frame: "pl.DataFrame") -> "pl.DataFrame":
        """Note the pairs of some encoded rows, and return the positives among them.

        A row that the label calls negative is an item that the user has, too: it is left out of
        the log, and never drawn for this user.
        """
        import polars as pl

        item = self.columns.item
        self._keys.append(pair_keys(frame["group"].to_numpy(), frame[item].to_numpy()))
        if "label" in frame.columns:
            rows = frame.height
            frame = frame.filter(pl.col("label") > 0.5)
            self.dropped += rows - frame.height
        else:
            frame = frame.with_columns(pl.lit(1.0, pl.Float32).alias("label"))
        self._follows.add(
            frame[item].to_numpy(),
            {name: _keys(frame[column]) for name, column in self._context.items()},
        )
        met = frame.select(self.columns.own).unique(item, keep="first", maintain_order=True)
        self._items.append(met)
        self._waiting += met.height
        if self._waiting > max(self._known, _WAITING):
            self._merge()
        return frame

    def _merge(self) -> None:
        import polars as pl

        joined = pl.concat(self._items, rechunk=True)
        merged = joined.unique(self.columns.item, keep="first", maintain_order=True)
        self._items, self._known, self._waiting = [merged], merged.height, 0

    def check(self) -> None:
        """Raise if a column of the context belongs to the item."""
        refuse_following(self._follows.found(), self.config.item or "")

    def pairs(self) -> Pairs:
        """The sorted keys of all pairs; they are kept no longer."""
        held, self._keys = self._keys, []
        keys = np.concatenate(held) if held else np.empty(0, np.uint64)
        held.clear()
        keys.sort()
        return keys

    def items(self) -> "pl.DataFrame":
        """The distinct items of positives with their own columns, sorted by id.

        A missing item is none. An item whose columns differ from row to row has those of its
        first row.
        """
        import polars as pl

        self._merge()
        item = self.columns.item
        found = self._items[0].sort(item)
        if self.config.ids != "dense":
            found = found.filter(pl.col(item) != missing_id(self.config.hash_seed))
        if found.height < 2:
            raise BitfoldError(
                "there are no items to draw negatives from",
                got=f"{found.height} distinct {self.config.item}",
                expected="two items or more",
                fix="check --item and the label",
            )
        return found
