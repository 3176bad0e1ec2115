"""A training for ids with few clicks: who they are, both heads' loss, prototypes at the end.

Before anything is planned the clicks of each id are counted, so that the bytes of prototypes are
known. In training a batch is an episode (`relation_loss`); at the end, with the best weights, one
pass over the training part makes prototypes, and one over the validation part finds what they are
worth: rows that were trained on would say that an id's own vector is right.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bitfold.data.batch import Batch
from bitfold.data.field_map import UNSEEN
from bitfold.embedding import EmbeddingCollection
from bitfold.errors import BitfoldError, BudgetTooSmall
from bitfold.method.sets import plan_sets
from bitfold.nets.cold import MOST, NAMES, ColdIds, cold_bytes, contexts, ids_of, places_of
from bitfold.nets.cold_heads import learned_weights, relation_loss, with_margin
from bitfold.nets.model import ClickModel, click_loss
from bitfold.planning.budget import parse_budget
from bitfold.planning.field import Field
from bitfold.planning.plan import Plan
from bitfold.progress import Progress
from bitfold.runs.cold import ColdConfig
from bitfold.runs.config import RunConfig
from bitfold.runs.metrics import auc
from bitfold.runs.scoring import EVALUATION_ROWS
from bitfold.training.counting import merged
from bitfold.training.distilling import inputs_of
from bitfold.training.rows import TrainingRows

TEMPERATURE = 0.5  # what cosines are divided by in training: logits of -2 to 2
PRIOR = 10.0  # pulls weights to plain: about as much as 40 rows do
_WAITING = 1 << 22  # ids that wait to be counted together


@dataclass(frozen=True)
class ColdTraining:
    """What a training knows of its cold ids.

    Args:
        config: the options.
        field: the place of the field.
        ids: those of 1 to 8 clicks in training, int64 `[K]`, rising.
        clicks: of each, int64 `[K]`.
        others: ids whose vectors are averaged: those of more clicks; all, where there are none.
        dense: whether ids are below 2**31.
    """

    config: ColdConfig
    field: int
    ids: Tensor
    clicks: Tensor
    others: Tensor
    dense: bool

    @classmethod
    def of(
        cls, rows: TrainingRows, config: ColdConfig, device: torch.device | str = "cpu"
    ) -> "ColdTraining | None":
        """The cold ids of a log's training part, on a device; None where nothing is done for them.

        Raises:
            BitfoldError: there is no validation part to learn weights on.
        """
        if not config.on:
            return None
        if not rows.count("valid"):
            raise BitfoldError(
                "what prototypes are worth is learned on a validation part",
                got=f"cold {config.cold}, and a log without one",
                expected="held-out rows",
                fix="prepare the log with a split that has a valid part",
            )
        schema = rows.log.schema
        field = schema.field_names.index(str(config.cold_field))
        found = np.empty(0, np.int64), np.empty(0, np.int64)
        waiting: list[Any] = []
        for batch in rows.batches("train", EVALUATION_ROWS):
            assert batch.labels is not None
            mine = ids_of(batch.ids, batch.offsets, field, batch.rows)
            waiting.append(mine[batch.labels > 0.5].numpy())
            if sum(map(len, waiting)) >= _WAITING:
                found, waiting = merged(found, waiting), []
        ids, counts = merged(found, waiting)
        if any(each is not None and each.maps[field] is not None
               for each in (schema.vocabulary, rows.dense)):  # fmt: skip
            ids, counts = ids[ids != UNSEEN], counts[ids != UNSEEN]  # many values in one
        few = counts <= MOST
        others = ids if few.all() else ids[~few]
        size = _fields(rows)[field].num_embeddings
        cold, clicks, many = (
            torch.from_numpy(each).to(device) for each in (ids[few], counts[few], others)
        )
        dense = size is not None and size <= 1 << 31
        return cls(config, field, cold, clicks, many, dense)

    def plan(
        self, fields: Sequence[Field], dim: int, *, budget: int | str | None, **asked: Any
    ) -> Plan:
        """A plan of embeddings beside the prototypes, which take their bytes first.

        Raises:
            BudgetTooSmall: `.minimum` is for both.
        """
        if budget is None:
            return plan_sets(fields, dim, budget=None, **asked)
        size = parse_budget(budget, fields, dim)
        held = cold_bytes(len(self.ids), dim, self.config.cold_bits, dense=self.dense)
        try:
            return plan_sets(fields, dim, budget=max(size - held, 1), **asked)
        except BudgetTooSmall as error:
            least = held + error.minimum
            raise BudgetTooSmall(
                f"prototypes of {len(self.ids):,} ids take {held:,} bytes: {error.problem}",
                minimum=least,
                got=f"{size:,} bytes for both",
                fix=f"raise the budget to {least} bytes, or take fewer --cold-bits",
            ) from None

    def loss(self, model: ClickModel, module: Any, batch: Batch) -> Tensor:
        """Both heads' loss on a batch.

        Args:
            model: what is trained.
            module: the same as it is called with a batch's tensors.
            batch: its rows.
        """
        assert batch.labels is not None
        with inputs_of(model.network) as inputs:
            logits = module(batch.ids, batch.offsets, batch.numeric)
        mine = ids_of(batch.ids, batch.offsets, self.field, batch.rows)
        words = self.config
        if words.cold_margin:
            cold = places_of(self.ids, mine) >= 0
            logits = with_margin(logits, batch.labels, cold, words.cold_margin)
        loss = click_loss(logits, batch.labels, batch.weights)
        if not words.cold_relation:
            return loss
        vectors: Tensor = inputs[0][0]
        found = contexts(vectors, self.field)
        far = relation_loss(found, mine, batch.labels, TEMPERATURE, batch.weights)
        return loss + words.cold_relation * far

    @torch.no_grad()
    def learned(
        self, model: ClickModel, rows: TrainingRows, device: torch.device, progress: Progress
    ) -> ColdIds:
        """The cold ids as they are served by a model that has ended its training."""
        mode, model.cold = model.training, None
        model.eval()
        try:
            centre, prototypes = self._prototypes(model, rows, device, progress)
            cold = ColdIds.of(
                self.field,
                self.config.cold_bits,
                self.ids,
                self.clicks,
                prototypes,
                centre,
                self._mean(model),
                dense=self.dense,
            )
            found = list(_leaning(model, cold, rows, "valid", device, progress))
            if found:
                parts, labels, where, weights = (_joined(each) for each in zip(*found, strict=True))
                assert parts is not None
                assert labels is not None
                assert where is not None
                cold.weights.copy_(learned_weights(parts, labels, where, PRIOR, weights))
        finally:
            model.train(mode)
        return cold

    def _prototypes(
        self, model: ClickModel, rows: TrainingRows, device: torch.device, progress: Progress
    ) -> tuple[Tensor, Tensor]:
        """The mean context `[D]`, and those of each cold id's clicks less that, `[K, D]`."""
        total: Tensor | float = 0.0
        sums, done = None, 0
        for batch in rows.batches("train", EVALUATION_ROWS):
            batch = batch.to(device)
            assert batch.labels is not None
            found = contexts(model.vectors(batch.ids, batch.offsets), self.field)
            if sums is None:
                sums = found.new_zeros(len(self.ids), found.shape[1])
            total = total + found.double().sum(0)
            at = places_of(self.ids, ids_of(batch.ids, batch.offsets, self.field, batch.rows))
            kept = (at >= 0) & (batch.labels > 0.5)
            sums.index_add_(0, at[kept], found[kept])
            done += batch.rows
            progress("prototypes", done, rows.count("train"))
        assert sums is not None
        assert isinstance(total, Tensor)
        centre = (total / done).float()
        return centre, sums / self.clicks[:, None] - centre

    def _mean(self, model: ClickModel) -> Tensor:
        """The mean vector `[D]` of ids of many clicks."""
        collection = model.embeddings
        assert isinstance(collection, EmbeddingCollection)
        total: Tensor | float = 0.0
        for some in torch.split(self.others, EVALUATION_ROWS):
            ids = some.new_zeros(len(some), len(collection.plan.fields))
            ids[:, self.field] = some
            total = total + collection(ids)[:, self.field].double().sum(0)
        if not len(self.others):  # nothing was clicked
            return self.ids.new_zeros(collection.plan.embedding_dim, dtype=torch.float32)
        assert isinstance(total, Tensor)
        return total / len(self.others)


def _fields(rows: TrainingRows) -> list[Field]:
    fields = rows.log.schema.embedding_fields()
    return fields if rows.dense is None else rows.dense.fields(fields)


Leaning = tuple[Tensor, Tensor, Tensor, Tensor | None]


def _leaning(
    model: ClickModel, cold: ColdIds, rows: TrainingRows, part: str, device: torch.device,
    progress: Progress,
) -> Iterator[Leaning]:  # fmt: skip
    """Of the rows of cold ids: mean logit, plain one and relation; labels, ranges, weights."""
    done = 0
    for batch in rows.batches(part, EVALUATION_ROWS):
        batch = batch.to(device)
        done += batch.rows
        progress("cold ids", done, rows.count(part))
        places = cold.places(ids_of(batch.ids, batch.offsets, cold.field, batch.rows))
        kept = (places >= 0).nonzero().squeeze(1)
        if not len(kept):
            continue
        assert batch.labels is not None
        vectors, numeric = model.vectors(batch.ids, batch.offsets)[kept], batch.numeric[kept]
        plain = model.network(vectors, numeric).double()
        mean, relation = cold.heads(vectors, places[kept], numeric, model.network)
        weights = None if batch.weights is None else batch.weights[kept]
        parts = torch.stack([mean.double(), plain, relation.double()], 1)
        yield parts, batch.labels[kept], cold.ranges(places[kept]), weights


def _joined(parts: Sequence[Tensor | None]) -> Tensor | None:
    there = [each for each in parts if each is not None]
    return torch.cat(there) if there else None


@torch.no_grad()
def by_clicks(
    model: ClickModel, rows: TrainingRows, part: str, device: torch.device, progress: Progress
) -> dict[str, dict[str, float]]:
    """What leaning is worth: rows and AUC of cold ids by their clicks, `plain_auc` without it."""
    cold = model.cold
    assert cold is not None
    mode = model.training
    model.eval()
    found = list(_leaning(model, cold, rows, part, device, progress))
    model.train(mode)
    if not found:
        return {}
    parts, labels, where, weights = (_joined(each) for each in zip(*found, strict=True))
    assert parts is not None
    assert where is not None
    assert labels is not None
    mean, plain, relation = parts.unbind(1)
    own, lean, level = cold.weights.double()[where].unbind(1)
    leant = mean + own * (plain - mean) + lean * relation + level
    out = {}
    for place, name in enumerate(NAMES[:-1]):
        mine = where == place
        if not bool(mine.any()):
            continue
        counted = None if weights is None else weights[mine].cpu().numpy()
        truth = labels[mine].cpu().numpy()
        scores = {"auc": leant, "plain_auc": plain}
        aucs = {key: auc(truth, each[mine].cpu().numpy(), counted) for key, each in scores.items()}
        out[name] = {"rows": int(mine.sum()), **aucs}
    return out


def check_beside(config: RunConfig, processes: int) -> None:
    """Raise where a training has, beside cold ids, what they cannot be with.

    Raises:
        BitfoldError: several embedding sets, a teacher, a run to go on from, several processes.
    """
    words = config.train
    cannot = [
        (
            words.embedding_sets > 1,
            "embedding sets have a vector of an id each, and no prototype is of all",
            f"{words.embedding_sets} sets",
            "leave --embedding-sets out",
        ),
        (
            config.taught.teacher is not None,
            "a teacher tells nothing of the heads of cold ids",
            f"the teacher {config.taught.teacher}",
            "leave --teacher out",
        ),
        (
            config.from_run is not None,
            "clicks of the log that a run went through before are not counted any more",
            f"a training from {config.from_run}",
            "train on both logs, or without --cold",
        ),
        (
            processes > 1,
            "prototypes are made of the rows of one process",
            f"{processes} processes",
            "train with devices=1",
        ),
    ]
    for wrong, problem, got, fix in cannot:
        if config.cold.on and wrong:
            raise BitfoldError(
                problem, got=f"{got} beside cold {config.cold.cold}", expected="one of both",
                fix=fix,
            )  # fmt: skip
