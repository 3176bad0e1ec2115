"""A trained retriever: users in, the nearest items out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bitfold.config import MOST_WHOLE
from bitfold.data.cells import dense_id
from bitfold.data.hashing import hash_values
from bitfold.errors import BitfoldError
from bitfold.planning.plan import Plan
from bitfold.retrieval.index import Index
from bitfold.retrieval.lowbit import LowBit
from bitfold.retrieval.options import RetrieveConfig
from bitfold.retrieval.positives import Layout
from bitfold.retrieval.towers import TwoTowers

Ids = npt.NDArray[np.int64]


@dataclass
class Retriever:
    """Two trained towers, the vectors of training's users and items, and an index of the items.

    Args:
        path: its folder.
        model: the towers, above serving embeddings.
        layout: which columns each tower reads.
        config: how it was trained.
        metrics: what it is worth: `recall@20`, `ndcg@20`, `bytes`, `index_bytes`, ...
        plan: where the embeddings keep every number.
        item_ids: int64 `[I]`, the items, sorted.
        rows: their vectors, in few bits.
        user_ids: int64 `[U]`, the hashed users, sorted.
        user_vectors: float32 `[U, D]`.
        index: what is searched.

    Example:
        Beside a trained one::

            found = bitfold.retrieve("log", "RUN", budget="10x")
            items, scores = found.search(["u17", "u4"], 20)
    """

    path: Path
    model: TwoTowers
    layout: Layout
    config: RetrieveConfig
    metrics: Mapping[str, Any]
    plan: Plan
    item_ids: Tensor
    rows: LowBit
    user_ids: Tensor
    user_vectors: Tensor
    index: Index

    def search(self, users: Sequence[Any], k: int = 20) -> tuple[Ids, npt.NDArray[np.float32]]:
        """The nearest items of users that training knows.

        Args:
            users: values of the user's column, `[Q]`.
            k: how many items; those that a user has already are not left out.

        Returns:
            Ids of items int64 `[Q, k]`, as `ids_of` gives them, -1 where fewer were found; and
            scores float32 `[Q, k]`, -inf there. With k above the number of items, so many columns
            as there are items.

        Raises:
            BitfoldError: a user that training does not know, naming the first; a text in place of
                a list; or a k that cannot be.
        """
        whole = isinstance(k, int | np.integer) and not isinstance(k, bool)
        if not whole or not 1 <= k <= MOST_WHOLE:
            raise BitfoldError(
                "k is too small" if whole and k < 1 else "k cannot be",
                got=repr(k),
                expected=f"a whole number, 1 to {MOST_WHOLE:,}",
            )
        scores, places = self.index.search(self.vectors_of(users), int(k))
        ids = torch.where(places >= 0, self.item_ids[places.clamp_min(0)], -1)
        return ids.numpy(), scores.numpy()

    def vectors_of(self, users: Sequence[Any]) -> Tensor:
        """Vectors float32 `[Q, D]` of users that training knows.

        Raises:
            BitfoldError: a user that it does not know, naming the first.
        """
        users = _listed(users)
        hashed = torch.from_numpy(self._hashed(users))
        place = torch.searchsorted(self.user_ids, hashed).clamp_max(len(self.user_ids) - 1)
        unknown = (self.user_ids[place] != hashed).nonzero().flatten()
        if len(unknown):
            raise BitfoldError(
                "a user is not known",
                got=repr(users[int(unknown[0])]),
                expected=f"one of the {len(self.user_ids):,} users met in training",
            )
        return self.user_vectors[place]

    def ids_of(self, items: Sequence[Any]) -> Ids:
        """The ids int64 `[n]` of values of the item's column; -1 for those training does not know.

        With them, what `search` found is told in your own values.
        """
        layout, items = self.layout, _listed(items)
        if layout.schema.config.ids == "dense":
            ids = np.array([_dense(item) for item in items], np.int64)
            return np.where(np.isin(ids, self.item_ids.numpy()), ids, -1)
        ids = self._hashed(items)
        if layout.schema.vocabulary is not None:
            fmap = layout.schema.vocabulary.maps[layout.schema.field_names.index(layout.item)]
            assert fmap is not None
            ids = fmap.apply(ids)
        known = np.isin(ids, self.item_ids.numpy())
        return np.where(known, ids, -1)

    def _hashed(self, values: Sequence[Any]) -> Ids:
        return hash_values(list(values), self.layout.schema.config.hash_seed).copy()

    def __repr__(self) -> str:
        users, items = len(self.user_ids), len(self.item_ids)
        return f"Retriever({self.plan.method}, {users:,} users, {items:,} items)"


def _listed(values: Sequence[Any]) -> list[Any]:
    """Values as a list; a text alone would be one value a letter."""
    if isinstance(values, str | bytes):
        raise BitfoldError(
            "one value was given where several are read",
            got=repr(values),
            expected="a list of values",
            fix=f"say [{values!r}]",
        )
    return list(values)


def _dense(item: Any) -> int:
    """The number of an item whose ids are numbers; -1 for what is none."""
    try:
        return dense_id(item)
    except BitfoldError:
        return -1
