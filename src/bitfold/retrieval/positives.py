"""What users took in training, in memory: rows, items, histories, and what towers read of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bitfold.data.table import Bags
from bitfold.data.vocabulary import Vocabulary
from bitfold.errors import BitfoldError
from bitfold.progress import Progress, silent
from bitfold.ranking.candidates import Candidates, Column, Ints, Sides, candidates
from bitfold.ranking.config import RankConfig, check_rank

if TYPE_CHECKING:
    from bitfold.data.prepared import PreparedLog
    from bitfold.data.schema import Schema


class Read(NamedTuple):
    """What a tower reads of n rows.

    Args:
        ids: int64 `[n, F]`; or `[T]` with offsets.
        offsets: int64 `[F * n + 1]`, field by field; a field of the other tower has empty bags.
        numeric: float32 `[n, N]`.
    """

    ids: Tensor
    offsets: Tensor | None
    numeric: Tensor


@dataclass(frozen=True)
class Layout:
    """Which fields and numbers each tower reads.

    Args:
        schema: of the log.
        sides: whose each column is.
        dense: the map to dense ids, where the method needs one.
        history: items of a user's history, at most.
    """

    schema: "Schema"
    sides: Sides
    dense: Vocabulary | None
    history: int

    @classmethod
    def of(cls, schema: "Schema", dense: Vocabulary | None, history: int) -> "Layout":
        """The layout of a log whose item and user are known.

        Raises:
            BitfoldError: the log names no item or user, or a field crosses both towers.
        """
        config = schema.config
        if config.item is None:
            raise BitfoldError(
                "retrieval needs the item's field",
                got="a log without an item",
                expected="a log prepared with --item",
                fix="say --item item",
            )
        check_rank(config, RankConfig(config.item))
        sides = Sides.of(schema, config.item)
        if sides.mixed:
            raise BitfoldError(
                "a field belongs to the user's tower or to the item's",
                got=f"{next(iter(sides.mixed))}, which crosses both",
                expected="crosses of columns of one side",
                fix="prepare the log without it",
            )
        if not any(name.startswith("id:") for name in sides.context) and not history:
            raise BitfoldError(
                "the user's tower has nothing to read",
                got="no field beside the item's",
                expected="the user's field, or a history",
                fix=f"add {config.group} to --fields, or say --history 50",
            )
        return cls(schema, sides, dense, history)

    @property
    def item(self) -> str:
        """The item's field."""
        return str(self.schema.config.item)

    def slots(self, *, item: bool) -> list[int]:
        """The fields that a tower reads: the user's with the item's own, if it has a history."""
        names = self.sides.item if item else self.sides.context
        found = [self._place(name) for name in names if name.startswith("id:")]
        if not item and self.history:
            found.append(self._place(f"id:{self.item}"))
        return sorted(found)

    def numbers(self, *, item: bool) -> list[str]:
        """The numeric columns that a tower reads."""
        names = self.sides.item if item else self.sides.context
        return [name for name in names if name.startswith("number:")]

    def mapped(self, columns: Mapping[str, Column]) -> dict[str, Column]:
        """Columns as they are stored, with ids as the model takes them."""
        return {name: self._map(name, column) for name, column in columns.items()}

    def _place(self, name: str) -> int:
        return self.schema.field_names.index(name.removeprefix("id:"))

    def _map(self, name: str, column: Column) -> Column:
        if self.dense is None or not name.startswith("id:"):
            return column
        fmap = self.dense.maps[self._place(name)]
        if fmap is None:
            return column
        if isinstance(column, Bags):
            return Bags(fmap.apply(column.values), column.offsets)
        return fmap.apply(column)

    def read(
        self, columns: Mapping[str, Column], rows: Ints, *, item: bool, history: Bags | None = None
    ) -> Read:
        """What one tower reads of some rows.

        Args:
            columns: mapped columns of its side.
            rows: int64 `[n]`, which of their rows.
            item: which tower.
            history: for the user's tower, bags of item ids, n of them.
        """
        fields: list[Column | None] = [None] * len(self.schema.fields)
        for name in self.sides.item if item else self.sides.context:
            if name.startswith("id:"):
                fields[self._place(name)] = _taken(columns[name], rows)
        if history is not None:
            fields[self._place(f"id:{self.item}")] = history
        ids, offsets = _bags(fields, len(rows))
        return Read(ids, offsets, self._numeric(columns, rows, item=item))

    def read_pairs(
        self, context: Mapping[str, Column], rows: Ints, items: Mapping[str, Column], places: Ints
    ) -> tuple[Tensor, Tensor, Tensor] | None:
        """Both towers' ids `[n, F]` in one, and each one's numbers; None where fields have bags."""
        names = [f"id:{name}" for name in self.schema.field_names]
        sides: Mapping[str, Any] = {**context, **items}
        if self.history or any(isinstance(sides[name], Bags) for name in names):
            return None
        ids = np.empty((len(rows), len(names)), np.int64)
        for place, name in enumerate(names):
            ids[:, place] = sides[name][places if name in items else rows]
        return (
            torch.from_numpy(ids),
            self._numeric(context, rows, item=False),
            self._numeric(items, places, item=True),
        )

    def _numeric(self, columns: Mapping[str, Any], rows: Ints, *, item: bool) -> Tensor:
        names = self.numbers(item=item)
        if not names:
            return torch.empty(len(rows), 0)
        return torch.from_numpy(np.stack([columns[name][rows] for name in names], 1))


def _taken(column: Column, rows: Ints) -> Column:
    return column.take(rows) if isinstance(column, Bags) else column[rows]


def _bags(fields: Sequence[Column | None], count: int) -> tuple[Tensor, Tensor]:
    """Fields of `count` rows as bags, field after field; None is a field of empty bags."""
    values, lengths = [np.zeros(0, np.int64)], []
    for column in fields:
        if column is None:
            lengths.append(np.zeros(count, np.int64))
        elif isinstance(column, Bags):
            values.append(column.values)
            lengths.append(np.diff(column.offsets))
        else:
            values.append(column)
            lengths.append(np.ones(count, np.int64))
    offsets = np.concatenate([[0], np.cumsum(np.concatenate(lengths))])
    return torch.from_numpy(np.concatenate(values)), torch.from_numpy(offsets)


@dataclass(frozen=True)
class Positives:
    """n training positives of U users and I items.

    Args:
        layout: which columns each tower reads.
        items: the items, sorted by id, with how often each was taken.
        item_columns: their own columns, mapped.
        context: the positives' other columns, mapped, n rows each.
        item: int64 `[n]`, the place of each positive's item.
        user: int64 `[n]`, the place of each positive's user.
        users: int64 `[U]`, the hashed users, sorted.
        first: int64 `[U]`, a positive of each user: its context.
        starts: int64 `[U + 1]`: user u took `taken[starts[u]:starts[u + 1]]`.
        taken: places of items, each once a user, sorted.
    """

    layout: Layout
    items: Candidates
    item_columns: dict[str, Column]
    context: dict[str, Column]
    item: Ints
    user: Ints
    users: Ints
    first: Ints
    starts: Ints
    taken: Ints

    def __len__(self) -> int:
        return len(self.item)

    @classmethod
    def of(cls, log: "PreparedLog", layout: Layout, progress: Progress = silent) -> "Positives":
        """Gather a log's training positives: two passes over the training part.

        Memory: the context's columns and 24 bytes, a positive.

        Raises:
            BitfoldError: there is nothing to learn from.
        """
        config = RankConfig(layout.item)
        items = candidates(log, config, layout.sides, progress)
        names = ["label", "group", *layout.sides.context, layout.sides.item[0]]
        pieces: list[dict[str, Any]] = []
        for columns in log.columns("train", list(dict.fromkeys(names))):
            rows = np.flatnonzero(columns["label"] > 0.5)
            pieces.append({name: _taken(column, rows) for name, column in columns.items()})
        found: dict[str, Any] = {
            name: Bags.join([piece[name] for piece in pieces])
            if isinstance(pieces[0][name], Bags)
            else np.concatenate([piece[name] for piece in pieces])
            for name in pieces[0]
        }
        place = items.places(found[layout.sides.item[0]])
        kept = np.flatnonzero(place >= 0)
        if len(kept) < 2:
            raise BitfoldError(
                "there is nothing to learn from",
                got=f"{len(kept)} positives in the training part",
                expected="two or more",
                fix="check the label",
            )
        place = place[kept]
        users, first, user = np.unique(found["group"][kept], return_index=True, return_inverse=True)
        pairs = np.unique(user * len(items.ids) + place)
        context = {name: _taken(found[name], kept) for name in layout.sides.context}
        return cls(
            layout,
            items,
            layout.mapped(items.columns),
            layout.mapped(context),
            place,
            user,
            users,
            first,
            np.searchsorted(pairs // len(items.ids), np.arange(len(users) + 1)),
            pairs % len(items.ids),
        )

    def has(self, users: Ints, items: Ints) -> npt.NDArray[np.bool_]:
        """Whether each user took each item, `[n]` and `[n]`, or shapes that broadcast."""
        return _among(self._pairs, users * len(self.items.ids) + items)

    @cached_property
    def _pairs(self) -> Ints:
        """What was taken, as sorted numbers `user * I + item`."""
        owner = np.repeat(np.arange(len(self.users)), np.diff(self.starts))
        return owner * len(self.items.ids) + self.taken

    def met(self, users: Ints, places: Ints) -> tuple[Ints, Ints]:
        """Where items that a user took stand among others.

        Args:
            users: int64 `[n]`, places of users.
            places: int64 `[N]`, items, any of them several times.

        Returns:
            Rows and columns of all pairs in which user `users[row]` took item `places[column]`.
        """
        order = np.argsort(places, kind="stable")
        ranked = places[order]
        row, taken = self._flat(self.starts[users], self.starts[users + 1])
        left = np.searchsorted(ranked, self.taken[taken], side="left")
        right = np.searchsorted(ranked, self.taken[taken], side="right")
        which, column = self._flat(left, right)
        return row[which], order[column]

    @staticmethod
    def _flat(starts: Ints, stops: Ints) -> tuple[Ints, Ints]:
        """All numbers of some ranges, and which range each is of."""
        lengths = stops - starts
        which = np.repeat(np.arange(len(lengths)), lengths)
        offsets = np.cumsum(lengths) - lengths
        return which, np.arange(len(which)) - offsets[which] + starts[which]

    def places_of(self, users: Ints) -> Ints:
        """The places of hashed users; -1 for those without a training positive."""
        place = np.searchsorted(self.users, users)
        place[place == len(self.users)] = 0
        return np.where(self.users[place] == users, place, -1)

    def histories(
        self, users: Ints, without: Ints | None = None, draw: np.random.Generator | None = None
    ) -> Bags:
        """Bags of the ids of items that users took, `history` at most.

        Args:
            users: int64 `[n]`, places of users; -1 has an empty bag.
            without: int64 `[n]`, an item each that is left out: the one to be found.
            draw: takes a window of a longer history at random; without, its beginning.
        """
        known = users >= 0
        starts = np.where(known, self.starts[users], 0)
        lengths = np.where(known, self.starts[users + 1] - starts, 0)
        most = self.layout.history + (without is not None)
        if draw is not None:
            spare = np.maximum(lengths - most, 0)
            starts = starts + (draw.random(len(users)) * (spare + 1)).astype(np.int64)
        lengths = np.minimum(lengths, most)
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        row = np.repeat(np.arange(len(users)), lengths)
        within = np.arange(offsets[-1]) - offsets[row]
        items = self.taken[within + starts[row]]
        if without is not None:
            kept = items != without[row]
            # One more than asked for was taken, in case the item itself is among them.
            order = np.cumsum(kept) - np.concatenate([[0], np.cumsum(kept)])[offsets[row]]
            kept &= order <= self.layout.history
            items, row = items[kept], row[kept]
            offsets = np.concatenate([[0], np.cumsum(np.bincount(row, minlength=len(users)))])
        ids: Any = self.item_columns[f"id:{self.layout.item}"]
        return Bags(ids[items], offsets)

    @property
    def log_q(self) -> Tensor:
        """The log of each item's share of the positives, float32 `[I]`."""
        return self.log_shares(self.items.taken)

    def log_shares(self, taken: Ints) -> Tensor:
        """The log of the share of training's positives that some counts are; 0 counts as 1."""
        share = np.maximum(taken, 1) / max(int(self.items.taken.sum()), 1)
        return torch.from_numpy(np.log(share).astype(np.float32))

    @property
    def middle(self) -> float:
        """The mean of `log_q`: what a prior of popularity is told from."""
        return float(self.log_q.mean())


def _among(keys: Ints, values: Ints) -> npt.NDArray[np.bool_]:
    """Whether values are among sorted keys."""
    place = np.searchsorted(keys, values)
    place[place == len(keys)] = 0
    found: npt.NDArray[np.bool_] = keys[place] == values
    return found
