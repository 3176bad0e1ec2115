"""Who is asked: users in a context, with the items that they took and those they have already."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bitfold.data.follows import row_keys
from bitfold.data.hashing import mix
from bitfold.data.table import Bags
from bitfold.errors import BitfoldError
from bitfold.progress import Progress
from bitfold.ranking.candidates import Candidates, Column, Ints, Sides
from bitfold.ranking.config import RankConfig

if TYPE_CHECKING:
    from bitfold.data.prepared import PreparedLog

_SALT = 0x9E57


@dataclass(frozen=True)
class Questions:
    """Q questions: each a user in a context (all columns that are not the item's).

    Args:
        groups: int64 `[Q]`, the user of each, counted from 0.
        users: int64, the hashed users.
        columns: the context's columns, Q rows each.
        starts: int64 `[Q + 1]`: question q's relevant items are `items[starts[q]:starts[q + 1]]`.
        items: places among the candidates, distinct for each question.
        absent: int64 `[Q]`, relevant items that are no candidates.
        seen_starts: int64 `[users + 1]`, and
        seen: places of the candidates that each user has in training; empty if they are ranked.
    """

    groups: Ints
    users: Ints
    columns: dict[str, Column]
    starts: Ints
    items: Ints
    absent: Ints
    seen_starts: Ints
    seen: Ints

    def __len__(self) -> int:
        return len(self.groups)

    def relevant(self, question: int) -> Ints:
        """The relevant candidates of one question."""
        return self.items[self.starts[question] : self.starts[question + 1]]

    def masked(self, question: int) -> Ints:
        """The candidates that are not ranked for one question."""
        user = self.groups[question]
        return self.seen[self.seen_starts[user] : self.seen_starts[user + 1]]


def questions(
    log: "PreparedLog",
    part: str,
    config: RankConfig,
    sides: Sides,
    known: Candidates,
    progress: Progress,
) -> Questions:
    """The questions of a part: its positives, by user and context.

    Items that a user has in training are neither ranked for this user nor relevant, unless
    `config.seen`. A question without a relevant item is left out.

    Memory: the part's positives, and 8 bytes for each training positive of a user of the part.
    """
    names = ["label", "group", *sides.context, sides.item[0]]
    pieces: list[dict[str, Any]] = []
    for columns in log.columns(part, list(dict.fromkeys(names))):
        rows = np.flatnonzero(columns["label"] > 0.5)
        pieces.append(
            {
                name: column.take(rows) if isinstance(column, Bags) else column[rows]
                for name, column in columns.items()
            }
        )
    rows_of = _joined(pieces)
    if not rows_of or not len(rows_of["group"]):
        raise BitfoldError(
            "there is nothing to rank for",
            got=f"no positives in the {part} part",
            expected="held-out positives",
        )
    users = np.unique(rows_of["group"])
    if config.users and len(users) > config.users:
        # By a hash of the user: the same ones for every model and every way of preparing.
        users = np.sort(users[np.argsort(mix(users, _SALT), kind="stable")[: config.users]])
        asked_for = np.flatnonzero(np.isin(rows_of["group"], users))
        rows_of = {name: _rows(column, asked_for) for name, column in rows_of.items()}
    user = np.searchsorted(users, rows_of["group"])
    keys = mix(user.astype(np.int64), _SALT).view(np.int64)
    for name in sides.context:
        keys = mix(keys ^ row_keys(rows_of[name]), _SALT).view(np.int64)
    _, first, question = np.unique(keys, return_index=True, return_inverse=True)
    ids = rows_of[sides.item[0]]
    place = known.places(ids)
    absent = _absent(question, ids, place, len(first), shared=log.schema.vocabulary is not None)
    seen = np.zeros(0, np.int64)
    if not config.seen:
        seen = _seen(log, sides.item[0], users, known, progress)
    # (question, item) and (user, item) as one number each.
    size = len(known.ids)
    met = place >= 0
    relevant = np.unique(question[met] * size + place[met])
    question_of, item_of = relevant // size, relevant % size
    group = user[first]
    kept = ~np.isin(group[question_of] * size + item_of, seen)
    question_of, item_of = question_of[kept], item_of[kept]
    counts = np.bincount(question_of, minlength=len(first))
    asked = np.flatnonzero(counts + absent > 0)
    if not len(asked):
        raise BitfoldError(
            "there is nothing to rank for",
            got=f"every positive of the {part} part is an item that its user has in training",
            expected="items that are new to their users",
            fix="say --rank-seen to rank these items too",
        )
    whose = seen // size
    return Questions(
        group[asked],
        users,
        {name: _rows(rows_of[name], first[asked]) for name in sides.context},
        np.concatenate([[0], np.cumsum(counts[asked])]),
        item_of,
        absent[asked],
        np.searchsorted(whose, np.arange(len(users) + 1)),
        seen % size,
    )


def _absent(question: Ints, ids: Ints, place: Ints, count: int, *, shared: bool) -> Ints:
    """Relevant items of each question that are no candidates.

    With a vocabulary all unseen items share an id, so each row counts for itself.
    """
    rows = np.flatnonzero(place < 0)
    if not shared:
        distinct, code = np.unique(ids[rows], return_inverse=True)
        _, first = np.unique(question[rows] * len(distinct) + code, return_index=True)
        rows = rows[first]
    return np.bincount(question[rows], minlength=count)


def _seen(
    log: "PreparedLog", item: str, users: Ints, known: Candidates, progress: Progress
) -> Ints:
    """The training positives of some users as sorted numbers `user * I + item`, each once."""
    size = len(known.ids)
    found = [np.zeros(0, np.int64)]
    done = 0
    for columns in log.columns("train", ["label", "group", item]):
        group = columns["group"]
        user = np.searchsorted(users, group)
        user[user == len(users)] = 0
        place = known.places(columns[item])
        kept = (users[user] == group) & (place >= 0) & (columns["label"] > 0.5)
        found.append(np.unique(user[kept] * size + place[kept]))
        done += len(group)
        progress("reading users", done, log.rows["train"])
    return np.unique(np.concatenate(found))


def _rows(column: Column, rows: Ints) -> Column:
    return column.take(rows) if isinstance(column, Bags) else column[rows]


def _joined(pieces: list[dict[str, Any]]) -> dict[str, Any]:
    if not pieces:
        return {}
    return {
        name: Bags.join([piece[name] for piece in pieces])
        if isinstance(column, Bags)
        else np.concatenate([piece[name] for piece in pieces])
        for name, column in pieces[0].items()
    }


def blocks(total: int, size: int) -> Iterator[tuple[int, int]]:
    """`(start, stop)` of blocks of at most `size`.

    Example:
        >>> list(blocks(5, 2))
        [(0, 2), (2, 4), (4, 5)]
    """
    for start in range(0, total, size):
        yield start, min(start + size, total)
