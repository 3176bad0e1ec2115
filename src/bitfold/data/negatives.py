"""Sampled negatives for a log of positives: items that a user does not have.

A negative is a copy of a positive (its user, context, time, weight and part) with another item
and that item's own columns. Its item is drawn

- from the items that have a positive in the same part or an earlier one, so that training never
  meets an item of the future;
- evenly (`uniform`), or in proportion to the positives there (`popularity`);
- again and again until it is an item that the user has *nowhere in the log*: neither in training
  nor among the held-out rows.

Each draw is decided by the seed, the row's number in the log and nothing else.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from bitfold.data.dealing import Dealt
from bitfold.data.fitting import Shard, read_shards
from bitfold.data.hashing import cross_ids
from bitfold.data.interactions import Ids, Interactions, Pairs, pair_keys
from bitfold.data.reading import Progress
from bitfold.data.spill import append_frame
from bitfold.data.splits import marks
from bitfold.errors import BitfoldError

if TYPE_CHECKING:
    import polars as pl

PARTS = 3
ATTEMPTS = 48
"""Draws that are tried blindly; then what the user lacks is listed, and one of it is drawn."""

_SALT = 0x4E65


@dataclass(frozen=True)
class Pool:
    """The items that a part's negatives are drawn from.

    Args:
        items: places in the sorted list of items, rising.
        below: for draws by popularity, the running sum of the items' positives; else None.
    """

    items: Ids
    below: Ids | None

    def pick(self, draws: npt.NDArray[np.float64]) -> Ids:
        """The items of some numbers in [0, 1)."""
        if self.below is None:
            even: Ids = self.items[(draws * len(self.items)).astype(np.int64)]
            return even
        place = np.searchsorted(self.below, draws * self.below[-1], side="right")
        popular: Ids = self.items[np.minimum(place, len(self.items) - 1)]
        return popular

    def among(self, kept: npt.NDArray[np.bool_]) -> "Pool":
        """The pool of some of its items."""
        if self.below is None:
            return Pool(self.items[kept], None)
        counts = np.diff(self.below, prepend=0)[kept]
        return Pool(self.items[kept], np.cumsum(counts))


@dataclass
class Drawer:
    """Draws items for users, never one that the user has.

    Args:
        ids: the items' ids, sorted.
        pairs: the sorted keys of what users have.
        seed: of the draws.
    """

    ids: Ids
    pairs: Pairs
    seed: int
    short: set[int] = field(default_factory=set)

    def draw(self, users: Ids, numbers: Ids, pool: Pool) -> Ids:
        """Places `[n]` in `ids` for users `[n]`; -1 where the user has every item of the pool.

        Args:
            users: hashed users.
            numbers: a number of its own for each draw, which decides it.
            pool: where to draw from.
        """
        out = np.full(len(users), -1, np.int64)
        open_ = np.arange(len(users))
        for attempt in range(ATTEMPTS):
            if not len(open_) or not len(pool.items):
                break
            drawn = pool.pick(self._uniform(numbers[open_], attempt))
            free = ~self._has(users[open_], self.ids[drawn])
            out[open_[free]] = drawn[free]
            open_ = open_[~free]
        for user in np.unique(users[open_]).tolist():
            mine = open_[users[open_] == user]
            lacking = ~self._has(np.full(len(pool.items), user), self.ids[pool.items])
            if lacking.any():
                rest = pool.among(lacking)
                out[mine] = rest.pick(self._uniform(numbers[mine], ATTEMPTS))
            else:
                self.short.add(user)
        return out

    def _uniform(self, numbers: Ids, attempt: int) -> npt.NDArray[np.float64]:
        bits = marks(numbers, self.seed, _SALT + attempt) >> np.uint64(11)
        return bits.astype(np.float64) * 2.0**-53

    def _has(self, users: Ids, items: Ids) -> npt.NDArray[np.bool_]:
        if not len(self.pairs):
            return np.zeros(len(users), bool)
        keys = pair_keys(users, items)
        order = np.argsort(keys)  # near keys are looked up together: the list may be long
        place = np.empty(len(keys), np.int64)
        place[order] = np.searchsorted(self.pairs, keys[order])
        place[place == len(self.pairs)] = 0
        found: npt.NDArray[np.bool_] = self.pairs[place] == keys
        return found


def add_negatives(
    dealt: Dealt, known: Interactions, folder: Path, progress: Progress | None = None
) -> Dealt:
    """Write the dealt files again, each positive with its negatives.

    Memory: one file at a time, beside what `Interactions` holds and 24 bytes an item.

    Returns:
        The log with negatives; its `negatives` holds what `stats.json` says of them.

    Raises:
        BitfoldError: no user lacks any item, or a column of the context belongs to the item.
    """
    config = known.config
    known.check()
    items = known.items()
    ids = items[known.columns.item].to_numpy()
    pools = _pools(dealt, known, ids)
    drawer = Drawer(ids, known.pairs(), config.negatives_seed)
    target = folder / "drawn"
    target.mkdir()
    paths = []
    drawn = positives = 0
    for shard in read_shards(dealt):
        path = target / dealt.paths[shard.index].name
        negatives = _negatives(shard, known, items, drawer, pools)
        columns = [name for name in shard.frame.columns if not name.startswith("h:")]
        append_frame(path, shard.frame.select(columns))
        if negatives.height:
            append_frame(path, negatives.select(columns))
        dealt.paths[shard.index].unlink()
        paths.append(path)
        drawn += negatives.height
        positives += shard.frame.height
        if progress is not None:
            progress("negatives", drawn, shard.index + 1, len(dealt.paths))
    if drawn == 0:
        raise BitfoldError(
            "no negative can be drawn",
            got=f"{len(drawer.short):,} users, each with all {len(ids):,} items",
            expected="users who lack some items",
            fix=f"check --group {config.group} and --item {config.item}",
        )
    told = {
        "per_positive": config.negatives,
        "by": config.negatives_by,
        "positives": positives,
        "drawn": drawn,
        "items": len(ids),
        "dropped": known.dropped,
        "lacking": positives * config.negatives - drawn,
        "full_users": len(drawer.short),
    }
    return replace(dealt, paths=paths, rows=positives + drawn, negatives=told)


def _pools(dealt: Dealt, known: Interactions, ids: Ids) -> list[Pool]:
    """What each part draws from: the items with a positive in it or in an earlier part."""
    counts = np.zeros((PARTS, len(ids)), np.int64)
    for shard in read_shards(dealt):
        place, met = _places(shard.frame[known.columns.item].to_numpy(), ids)
        for part in range(PARTS):
            mine = place[met & (shard.parts == part)]
            counts[part] += np.bincount(mine, minlength=len(ids))
    pools = []
    for total in np.cumsum(counts, axis=0):
        places = np.flatnonzero(total)
        popular = known.config.negatives_by == "popularity"
        pools.append(Pool(places, np.cumsum(total[places]) if popular else None))
    return pools


def _places(values: Ids, ids: Ids) -> tuple[Ids, npt.NDArray[np.bool_]]:
    """Where values stand in sorted ids, and whether they are there."""
    place = np.searchsorted(ids, values)
    place[place == len(ids)] = 0
    return place, ids[place] == values


def _negatives(
    shard: Shard, known: Interactions, items: "pl.DataFrame", drawer: Drawer, pools: list[Pool]
) -> "pl.DataFrame":
    """The negatives of one dealt file."""
    import polars as pl

    each = known.config.negatives
    frame = shard.frame
    copies = np.repeat(np.arange(frame.height), each)
    users = frame["group"].to_numpy()[copies]
    numbers = frame["row"].to_numpy()[copies] * each + np.tile(np.arange(each), frame.height)
    parts = shard.parts[copies]
    drawn = np.full(len(copies), -1, np.int64)
    for part in range(PARTS):
        mine = np.flatnonzero(parts == part)
        if len(mine):
            drawn[mine] = drawer.draw(users[mine], numbers[mine], pools[part])
    made = drawn >= 0
    own = items[drawn[made]]
    out = frame[copies[made]].with_columns(
        *(own[name] for name in known.columns.own), pl.lit(0.0, pl.Float32).alias("label")
    )
    crossed = {
        name: pl.Series(cross_ids([out[part].to_numpy() for part in parts]))
        for name, parts in known.columns.mixed
    }
    return out.with_columns(series.alias(name) for name, series in crossed.items())
