"""What the contract is tried on: methods, each in its forms, and fields, ids and bags for them.

A form is a mapping of options; a method lists its own as `forms`. A form may say a `budget` too,
where a quarter of the full table is not what it is for.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from bitfold.embedder.contract import Embedder
from bitfold.embedding import Embedding, EmbeddingBag, EmbeddingCollection
from bitfold.errors import BudgetTooSmall
from bitfold.method.planner import plan
from bitfold.method.registry import load_plugin, method_kind, method_kinds
from bitfold.planning.field import Field
from bitfold.planning.plan import Plan
from bitfold.planning.statistics import Counted

DIM = 6
SIZES = [40, 7, 300, 1]  # ragged: some whole, some folded
DENSE = tuple(Field(f"f{i}", size) for i, size in enumerate(SIZES))
MIXED = (*DENSE, Field("query", distinct=500), Field("page", distinct=90))
EXTREMES = [-(2**63), 2**63 - 1, -1, 0]
M = TypeVar("M", bound=nn.Module)
Bags = list[list[list[int]]]

_loaded: dict[Path, list[str]] = {}


def load(files: Iterable[Path]) -> None:
    """Register the methods of plugin files; they alone are tried from now on."""
    for file in files:
        _loaded[file] = load_plugin(file)


def plugins() -> list[Path]:
    """The plugin files that are tried."""
    return list(_loaded)


@dataclass(frozen=True)
class Case:
    """A method and some of its options.

    Args:
        method: its name.
        words: the options; `budget` may be among them.
    """

    method: str
    words: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return "-".join([self.method, *(f"{k}={v}" for k, v in self.words.items())])

    @property
    def fields(self) -> tuple[Field, ...]:
        """Dense and hashed fields, or dense ones alone if the method can take no others."""
        return MIXED if method_kind(self.method).traits.hashed_ids else DENSE

    @property
    def is_table(self) -> bool:
        """Whether the method keeps a parameter that is one field's table, a row an id."""
        return method_kind(self.method).traits.uncompressed

    def said(self, fields: Sequence[Field], dim: int = DIM, **more: Any) -> dict[str, Any]:
        """Method, options and a budget of a quarter, or the least there is."""
        words = {"method": self.method, "budget": "4x", **self.words, **more}
        try:
            plan(fields, dim, **words)
        except BudgetTooSmall as error:
            words["budget"] = error.minimum
        return words

    def plan(self, fields: Sequence[Field] | None = None, dim: int = DIM, **more: Any) -> Plan:
        """A plan for the case's fields."""
        fields = fields or self.fields
        return plan(fields, dim, **self.said(fields, dim, **more))

    def collection(self, fields: Sequence[Field] | None = None, **more: Any) -> EmbeddingCollection:
        """A collection of the case's fields."""
        fields = fields or self.fields
        words: dict[str, Any] = {"seed": 0, **self.said(fields), **more}
        return self.ready(EmbeddingCollection(fields, DIM, **words))

    def planned(self, made: Plan, **more: Any) -> EmbeddingCollection:
        """The collection of a plan."""
        return self.ready(EmbeddingCollection.from_plan(made, **more))

    def embedding(self, ids: int | None = 50, **more: Any) -> Embedding:
        """One field: dense ids, or hashed ones for None."""
        distinct = None if ids else 300
        words = self._layer(ids, distinct, more)
        return self.ready(Embedding(ids, DIM, distinct=distinct, **words))

    def bag(self, ids: int | None = 50, **more: Any) -> EmbeddingBag:
        """One field of bags."""
        distinct = None if ids else 300
        words = self._layer(ids, distinct, more)
        return self.ready(EmbeddingBag(ids, DIM, distinct=distinct, **words))

    def _layer(
        self, ids: int | None, distinct: int | None, more: Mapping[str, Any]
    ) -> dict[str, Any]:
        typed = {name: more[name] for name in ("dtype",) if name in more}  # it decides the least
        return {"seed": 0, **self.said([Field("ids", ids, distinct)], **typed), **more}

    def ready(self, module: M) -> M:
        """Prepare a module whose method needs to know how often ids occur."""
        if method_kind(self.method).traits.needs_counts:
            for part in module.modules():
                if isinstance(part, Embedder) and not any(p.is_meta for p in part.parameters()):
                    part.prepare(counts(part.plan.fields))
        return module

    def ids(self, rows: int, seed: int = 0) -> Tensor:
        """Random ids `[B, F]` of the case's fields; hashed ones of all 64 bits."""
        generator = torch.Generator().manual_seed(seed)
        columns = []
        for each in self.fields:
            low, high = (0, each.num_embeddings) if each.num_embeddings else EXTREMES[:2]
            columns.append(torch.randint(low, high, (rows,), generator=generator))
        return torch.stack(columns, 1)


def counts(fields: Sequence[Field]) -> Counted:
    """How often ids occur, and where: falling by their number, the last tenth never.

    The ids of hashed fields are those that `Case.ids` draws first, and more.
    """
    found: dict[str, tuple[Any, Any]] = {}
    generator, placing = np.random.default_rng(0), np.random.default_rng(1)
    for each in fields:
        if each.num_embeddings is None:
            ids = np.unique(generator.integers(-(2**63), 2**63 - 1, 200))
        else:
            ids = np.arange(max(1, each.num_embeddings * 9 // 10))
        times = 1 + 1000 // (1 + np.arange(len(ids)))
        rows = np.sort(placing.integers(0, 3000, times.sum()))
        found[each.name] = placing.permutation(np.repeat(ids, times)), rows
    return Counted.of_rows(found)


def all_cases() -> list[Case]:
    """Every form of every method: of the plugin files that are tried, or else of all there are."""
    names = [name for found in _loaded.values() for name in found] or list(method_kinds())
    return [Case(name, form) for name in names for form in method_kind(name).forms]


def first_cases() -> list[Case]:
    """The first form of every method."""
    return [case for case in all_cases() if case.words == method_kind(case.method).forms[0]]


def bags_by_field(rows: Bags) -> tuple[Tensor, Tensor]:
    """Ids and offsets, field by field, of the bags `rows[b][f]`."""
    ids: list[int] = []
    offsets = [0]
    for column in zip(*rows, strict=True):
        for bag in column:
            ids += bag
            offsets.append(len(ids))
    return torch.tensor(ids, dtype=torch.int64), torch.tensor(offsets)


def random_bags(case: Case, rows: int, longest: int = 4) -> Bags:
    """Bags `rows[b][f]`, some empty."""
    lengths = torch.randint(
        0, longest + 1, (rows, len(case.fields)), generator=torch.Generator().manual_seed(5)
    )
    drawn = case.ids(rows * longest, seed=6).tolist()
    return [
        [
            [drawn[b * longest + k][f] for k in range(int(lengths[b, f]))]
            for f in range(len(case.fields))
        ]
        for b in range(rows)
    ]
