"""Every item for every question: through a model, or by popularity."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from bitfold.data.field_map import MISSING, UNSEEN, FieldMap
from bitfold.data.hashing import cross_ids, missing_id
from bitfold.data.vocabulary import Vocabulary
from bitfold.errors import BitfoldError, Diverged
from bitfold.progress import Progress, silent
from bitfold.ranking.candidates import Candidates, Column, Ints, Sides, candidates
from bitfold.ranking.config import RankConfig, check_rank
from bitfold.ranking.figures import Ranks, figures, mean_by_group
from bitfold.ranking.questions import Questions, blocks, questions

if TYPE_CHECKING:
    import torch

    from bitfold.data.batch import Batch
    from bitfold.data.prepared import PreparedLog
    from bitfold.data.schema import Schema
    from bitfold.nets.model import ClickModel

PAIRS = 8192
"""Rows, each an item for a question, that a model scores at once."""

SCORES = 1 << 22
"""Scores that are held at once (16 MiB); a longer list of items is held for one question."""


@dataclass(frozen=True)
class Ranking:
    """The questions of one part of a log, and the items that are ranked for them.

    Args:
        config: what is ranked, and how deep.
        schema: of the log.
        sides: whose each column is.
        items: the candidates.
        asked: the questions.

    Example:
        Beside a trained run and the log it was trained on::

            ranking = Ranking.of(log, "test", RankConfig("movie"))
            ranking.by_model(run.model, dense=run.dense)["recall@20"]
            ranking.by_popularity()["recall@20"]
    """

    config: RankConfig
    schema: "Schema"
    sides: Sides
    items: Candidates
    asked: Questions

    @classmethod
    def of(
        cls, log: "PreparedLog", part: str, config: RankConfig, progress: Progress = silent
    ) -> "Ranking":
        """Gather items and questions: two passes over the training part, one over `part`.

        Raises:
            BitfoldError: a log that cannot be ranked, or a part without anything to rank for.
        """
        check_rank(log.schema.config, config)
        if not log.rows.get("train"):
            raise BitfoldError(
                "there are no items to rank",
                got="a log without a training part",
                expected="the log that the run was trained on, prepared",
            )
        sides = Sides.of(log.schema, config.field)
        items = candidates(log, config, sides, progress)
        asked = questions(log, part, config, sides, items, progress)
        return cls(config, log.schema, sides, items, asked)

    def by_model(
        self,
        model: "ClickModel",
        *,
        dense: Vocabulary | None = None,
        device: "torch.device | str" = "cpu",
        progress: Progress = silent,
    ) -> dict[str, Any]:
        """The figures of a model's ranking; the model's mode is put back afterwards.

        Args:
            model: a click model of the log's ids.
            dense: the run's map from hashed to dense ids, if it has one.
            device: where the model is.
            progress: told of the questions done.

        Returns:
            `recall@k`, `ndcg@k` and `mrr`, the mean over users; `field`, and the numbers of
            `users`, `questions`, `items`, relevant items (`relevant`), and those among them that
            are no candidates (`absent`).

        Raises:
            BitfoldError: a score that is no number.
        """
        pairs = Pairs(self, dense)
        training = model.training
        model.eval()
        try:
            return self._measured(self._scored(model, pairs, device, progress))
        finally:
            model.train(training)

    def by_vectors(
        self, users: "torch.Tensor", items: "torch.Tensor", *, progress: Progress = silent
    ) -> dict[str, Any]:
        """The figures of ranking by the product of a question's vector and an item's.

        Args:
            users: float32 `[Q, D]`, a vector of each question.
            items: float32 `[I, D]`, one of each candidate.
            progress: told of the questions done.

        Raises:
            BitfoldError: a score that is no number.
        """
        return self._measured(self._multiplied(users, items, progress))

    def by_lists(self, places: Iterable[Ints]) -> dict[str, Any]:
        """The figures of lists that a search found: what it did not find stands nowhere.

        Args:
            places: for each question the candidates found, the nearest first, each once; masked
                ones left out.
        """
        return self._measured(self._listed(places))

    def by_popularity(self) -> dict[str, Any]:
        """The figures of ranking by the items' positives in training: a floor without training."""
        return self._measured(self._counted())

    def _scored(
        self, model: "ClickModel", pairs: "Pairs", device: "torch.device | str", tell: Progress
    ) -> Iterator[Ranks]:
        import torch

        count, total = len(self.items.ids), len(self.asked)
        for start, stop in blocks(total, max(SCORES // count, 1)):
            scores = np.empty((stop - start) * count, np.float32)
            with torch.no_grad():
                for first, last in blocks(len(scores), PAIRS):
                    batch = pairs.batch(start, first, last).to(device)
                    scores[first:last] = model(batch).cpu().numpy()
                    tell("ranking", start + last // count, total)
            yield self._ranked(scores.reshape(stop - start, count), start, stop)
        tell("ranking", total, total)

    def _multiplied(
        self, users: "torch.Tensor", items: "torch.Tensor", tell: Progress
    ) -> Iterator[Ranks]:
        count, total = len(self.items.ids), len(self.asked)
        for start, stop in blocks(total, max(SCORES // count, 1)):
            rows = (users[start:stop] @ items.T).numpy()
            yield self._ranked(rows, start, stop)
            tell("ranking", stop, total)

    def _listed(self, places: Iterable[Ints]) -> Iterator[Ranks]:
        nowhere = len(self.items.ids)
        for question, found in enumerate(places):
            order = np.argsort(found, kind="stable")
            mine = self.asked.relevant(question)
            at = np.searchsorted(found, mine, sorter=order)
            at[at == len(found)] = 0
            which = order[at] if len(found) else at
            met = found[which] == mine if len(found) else np.zeros(len(mine), bool)
            above = np.where(met, which, nowhere)
            yield Ranks(
                np.zeros(len(mine), np.int64),
                above,
                np.ones(len(mine), np.int64),
                np.array([len(mine) + self.asked.absent[question]]),
            )

    def _ranked(self, rows: npt.NDArray[Any], start: int, stop: int) -> Ranks:
        """The ranks of the scores `[stop - start, I]` of some questions."""
        if not np.isfinite(rows).all():
            raise Diverged(
                "the model gives scores that are no numbers",
                got=str(rows[~np.isfinite(rows)][0]),
                expected="finite scores",
                fix="train again with a lower --lr",
            )
        for row, question in zip(rows, range(start, stop), strict=True):
            row[self.asked.masked(question)] = -np.inf
        asked = range(start, stop)
        return Ranks.of(
            rows, [self.asked.relevant(q) for q in asked], self.asked.absent[start:stop]
        )

    def _counted(self) -> Iterator[Ranks]:
        """Ranks by counts; what is masked is taken off each item's rank among all."""
        taken = self.items.taken
        ordered = np.sort(taken)
        right = np.searchsorted(ordered, taken, side="right")
        above = len(taken) - right
        tied = right - np.searchsorted(ordered, taken, side="left")
        for start, stop in blocks(len(self.asked), 1 << 10):
            parts = []
            for question in range(start, stop):
                mine = self.asked.relevant(question)
                masked = taken[self.asked.masked(question)][None, :]
                own = taken[mine][:, None]
                parts.append(
                    (above[mine] - (masked > own).sum(1), tied[mine] - (masked == own).sum(1))
                )
            counts = np.array([len(part[0]) for part in parts])
            yield Ranks(
                np.repeat(np.arange(stop - start), counts),
                np.concatenate([part[0] for part in parts]),
                np.concatenate([part[1] for part in parts]),
                counts + self.asked.absent[start:stop],
            )

    def _measured(self, found: Iterator[Ranks]) -> dict[str, Any]:
        parts = [figures(ranks, self.config.at) for ranks in found]
        asked = self.asked
        absent = int(asked.absent.sum())
        means = {
            name: mean_by_group(np.concatenate([part[name] for part in parts]), asked.groups)
            for name in self.config.names
        }
        return {
            "field": self.config.field,
            **means,
            "users": len(np.unique(asked.groups)),
            "questions": len(asked),
            "items": len(self.items.ids),
            "relevant": len(asked.items) + absent,
            "absent": absent,
        }


class Pairs:
    """Rows of questions and items, as a model takes them."""

    def __init__(self, ranking: Ranking, dense: Vocabulary | None) -> None:
        self._ranking = ranking
        self._dense = dense
        schema = ranking.schema
        self._numbers = [f"number:{name}" for name in schema.numeric_names]
        item, context = ranking.items.columns, ranking.asked.columns
        # What is only looked up is mapped once; what crosses are made of stays as it is stored.
        self._mapped: dict[str, Column] = {
            f"id:{name}": self._map(index, (item | context)[f"id:{name}"])
            for index, name in enumerate(schema.field_names)
            if name not in ranking.sides.mixed
        }
        self._raw = {
            part: self._raw_ids(part)
            for parts in ranking.sides.mixed.values()
            for part in dict.fromkeys(parts)
        }

    def _map(self, index: int, column: Column) -> Column:
        from bitfold.data.table import Bags

        fmap = None if self._dense is None else self._dense.maps[index]
        if fmap is None:
            return column
        if isinstance(column, Bags):
            return Bags(fmap.apply(column.values), column.offsets)
        return fmap.apply(column)

    def _raw_ids(self, part: str) -> tuple[Ints, npt.NDArray[np.bool_]]:
        """The hashes that a part's crosses are made of, and where they are not known."""
        schema = self._ranking.schema
        name = f"id:{part}"
        stored: Any = (self._ranking.items.columns | self._ranking.asked.columns)[name]
        if schema.vocabulary is None:
            return stored, np.zeros(len(stored), bool)
        fmap = schema.vocabulary.maps[schema.field_names.index(part)]
        assert fmap is not None
        return _unmapped(fmap, missing_id(schema.config.hash_seed))[stored], stored == UNSEEN

    def batch(self, start: int, first: int, last: int) -> "Batch":
        """Rows `first` to `last` of the pairs that follow question `start`, items running fast."""
        from bitfold.data.finishing import assemble

        ranking = self._ranking
        pairs = np.arange(first, last)
        count = len(ranking.items.ids)
        rows = {True: pairs % count, False: start + pairs // count}
        own = set(ranking.sides.item)
        ids: list[Any] = []
        for index, name in enumerate(ranking.schema.field_names):
            if name in ranking.sides.mixed:
                ids.append(self._crossed(index, ranking.sides.mixed[name], rows))
            else:
                ids.append(_taken(self._mapped[f"id:{name}"], rows[f"id:{name}" in own]))
        numeric = np.empty((len(pairs), len(self._numbers)), np.float32)
        for index, name in enumerate(self._numbers):
            side = ranking.items.columns if name in own else ranking.asked.columns
            numeric[:, index] = _taken(side[name], rows[name in own])
        return assemble(ids, numeric, {}, None).batch()

    def _crossed(self, index: int, parts: tuple[str, ...], rows: dict[bool, Ints]) -> Ints:
        schema, own = self._ranking.schema, set(self._ranking.sides.item)
        taken = [(self._raw[part], rows[f"id:{part}" in own]) for part in parts]
        ids = cross_ids([hashes[place] for (hashes, _), place in taken])
        if schema.vocabulary is not None:
            fmap = schema.vocabulary.maps[index]
            assert fmap is not None
            ids = fmap.apply(ids)
            for (_, unknown), place in taken:
                ids[unknown[place]] = UNSEEN
        mapped = self._map(index, ids)
        assert isinstance(mapped, np.ndarray)
        return mapped


def _unmapped(fmap: FieldMap, missing: int) -> Ints:
    """The hash of each dense id of a map; that of UNSEEN means nothing."""
    hashes = np.zeros(fmap.num_embeddings, np.int64)
    hashes[MISSING] = missing
    hashes[fmap.ids] = fmap.keys
    return hashes


def _taken(column: Column, rows: Ints) -> Any:
    from bitfold.data.table import Bags

    return column.take(rows) if isinstance(column, Bags) else column[rows]
