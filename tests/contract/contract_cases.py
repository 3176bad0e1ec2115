"""What the contract is tried on: every registered method, in each of its forms.

A method that is not named here is tried with its defaults. A test takes `case`, and may name the
aspect it proves (`@pytest.mark.aspect("...")`); `OPT_OUTS` says which case skips an aspect, and
why. The reasons are printed at the end of the run (`pytest -ra`).
"""

from dataclasses import dataclass, field
from typing import Any

import torch

import bitfold
from bitfold import BudgetTooSmall, Embedding, EmbeddingBag, EmbeddingCollection, Field, Plan
from bitfold.method.registry import method_kind

DIM = 6
SIZES = [40, 7, 300, 1]  # ragged: some whole, some folded
DENSE = [Field(f"f{i}", size) for i, size in enumerate(SIZES)]
MIXED = [*DENSE, Field("query", distinct=500), Field("page", distinct=90)]
EXTREMES = [-(2**63), 2**63 - 1, -1, 0]

FORMS: dict[str, list[dict[str, Any]]] = {
    "hash": [{}, {"allocation": 0.5}],
    "multi-hash": [{}, {"fusion": "concat"}, {"fusion": "mean", "hashes": 3}],
    "binary-code": [
        {},
        {"fusion": "sum"},
        {"fusion": "mean", "strategy": "skip"},
        {"fusion": "concat", "blocks": 3},
        {"fusion": "weighted", "allocation": 0.0},
        {"fusion": "product", "sharing": "shared"},
        {"fusion": "sum", "sharing": "fields"},
        {"fusion": "sum", "digits": "residues", "balance": 1.0, "mix": True},
        {"fusion": "sum", "block_bits": 3, "budget": None, "code_bits": 64},
    ],
}

OPT_OUTS: dict[tuple[str, str], str] = {
    ("full", "hashed ids"): "a row per id needs dense ids",
    ("full", "fingerprint"): "ids are rows as they stand: there is no address to mistake",
}


@dataclass(frozen=True)
class Case:
    """A method and some of its options."""

    method: str
    words: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return "-".join([self.method, *(f"{k}={v}" for k, v in self.words.items())])

    @property
    def fields(self) -> list[Field]:
        """Dense and hashed fields, or dense ones alone if the method can take no others."""
        return MIXED if method_kind(self.method).traits.hashed_ids else DENSE

    def said(self, fields: list[Field], dim: int = DIM, **more: Any) -> dict[str, Any]:
        """Method, options and a budget of a quarter, or the least there is."""
        words = {"method": self.method, "budget": "4x", **self.words, **more}
        try:
            bitfold.plan(fields, dim, **words)
        except BudgetTooSmall as error:
            words["budget"] = error.minimum
        return words

    def plan(self, fields: list[Field] | None = None, dim: int = DIM, **more: Any) -> Plan:
        """A plan for the case's fields."""
        fields = fields or self.fields
        return bitfold.plan(fields, dim, **self.said(fields, dim, **more))

    def collection(self, fields: list[Field] | None = None, **more: Any) -> EmbeddingCollection:
        """A collection of the case's fields."""
        fields = fields or self.fields
        return EmbeddingCollection(fields, DIM, **{"seed": 0, **self.said(fields), **more})

    def embedding(self, ids: int | None = 50, **more: Any) -> Embedding:
        """One field: dense ids, or hashed ones for None."""
        distinct = None if ids else 300
        said = self.said([Field("ids", ids, distinct)])
        return Embedding(ids, DIM, distinct=distinct, **{"seed": 0, **said, **more})

    def bag(self, ids: int | None = 50, **more: Any) -> EmbeddingBag:
        """One field of bags."""
        distinct = None if ids else 300
        said = self.said([Field("ids", ids, distinct)])
        return EmbeddingBag(ids, DIM, distinct=distinct, **{"seed": 0, **said, **more})

    def ids(self, rows: int, seed: int = 0) -> torch.Tensor:
        """Random ids `[B, F]` of the case's fields; hashed ones of all 64 bits."""
        generator = torch.Generator().manual_seed(seed)
        columns = []
        for each in self.fields:
            low, high = (0, each.num_embeddings) if each.num_embeddings else EXTREMES[:2]
            columns.append(torch.randint(low, high, (rows,), generator=generator))
        return torch.stack(columns, 1)


def all_cases() -> list[Case]:
    """Every form of every method."""
    return [Case(name, words) for name in bitfold.methods() for words in FORMS.get(name, [{}])]


def bags_by_field(rows: list[list[list[int]]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and offsets, field by field, of the bags `rows[b][f]`."""
    ids: list[int] = []
    offsets = [0]
    for column in zip(*rows, strict=True):
        for bag in column:
            ids += bag
            offsets.append(len(ids))
    return torch.tensor(ids, dtype=torch.int64), torch.tensor(offsets)


def random_bags(case: Case, rows: int, longest: int = 4) -> list[list[list[int]]]:
    """Bags `rows[b][f]`, some empty."""
    lengths = torch.randint(
        0, longest + 1, (rows, len(case.fields)), generator=torch.Generator().manual_seed(5)
    )
    pool = case.ids(rows * longest, seed=6).tolist()
    return [
        [
            [pool[b * longest + k][f] for k in range(int(lengths[b, f]))]
            for f in range(len(case.fields))
        ]
        for b in range(rows)
    ]
