"""Small click models, one for each way in which an id may come to its rows."""

from dataclasses import dataclass
from typing import Any

import torch

from bitfold.embedder.contract import embedders
from bitfold.embedding import EmbeddingCollection
from bitfold.exporting.graphs import Graph
from bitfold.exporting.writing import graph_of
from bitfold.nets.building import build_network
from bitfold.nets.model import ClickModel
from bitfold.planning.field import Field
from bitfold.pool.lowbit import LowBitPool
from bitfold.testing.cases import counts

WIDTH, NUMBERS = 8, 2
DENSE = (Field("user", 1_000_000), Field("item", 50_000), Field("shop", 3000), Field("hour", 24))
HASHED = tuple(
    Field(name, distinct=distinct)
    for name, distinct in (("user", 1 << 20), ("item", 1 << 16), ("query", 1 << 18), ("page", 5000))
)


@dataclass(frozen=True)
class Program:
    """A model to export.

    Args:
        what: its ids' way, in words.
        fields: all dense, or all hashed.
        method: of the embeddings.
        options: the method's, and `budget`.
        counted: whether it must know how often ids occur.
        spread: the deviation of its pools' numbers: rows differ, and scores are no large sums.
    """

    what: str
    fields: tuple[Field, ...]
    method: str
    options: dict[str, Any]
    counted: bool = False
    spread: float = 0.3

    def graph(self) -> Graph:
        """Its function, of the same weights each time."""
        torch.manual_seed(0)
        words = {"budget": 1 << 18, **self.options}
        made = EmbeddingCollection(self.fields, WIDTH, method=self.method, seed=0, **words)
        if self.counted:
            for each in embedders(made):
                each.prepare(counts(self.fields))
        network = build_network("deepfm", len(self.fields), WIDTH, NUMBERS, hidden=(32, 16))
        with torch.no_grad():  # rows that are told apart by their scores
            for weight in made.parameters():
                weight.normal_(0.0, self.spread)
            for each in made.modules():
                if isinstance(each, LowBitPool):
                    each.refresh()
        return graph_of(ClickModel(made, network), numbers=NUMBERS)


PROGRAMS = {
    "trailing digits": Program("dense ids, trailing digits", DENSE, "binary-code", {}),
    "leading digits": Program("mixed ids, leading digits", HASHED, "binary-code", {}),
    "skip": Program(
        "mixed ids, dealt by skip", HASHED, "binary-code", {"strategy": "skip", "fusion": "mean"}
    ),
    "64-bit codes": Program(
        "mixed ids, 64-bit codes in blocks of 3 bits", HASHED, "binary-code",
        {"fusion": "sum", "block_bits": 3, "code_bits": 64, "budget": None},
        spread=0.05,
    ),
    "map": Program("places in a compact map, or a hash", HASHED, "hot-cold", {}, counted=True),
    "pointers": Program(
        "stored pointers of dense ids", DENSE[1:], "dpq", {"budget": 1 << 19}, counted=True
    ),
    "salts": Program("stored salts and pointers", DENSE[1:], "cce", {}, counted=True),
    "4 bits": Program("pools of 4 bits", HASHED, "binary-code", {"bits": 4}),
    "3 bits": Program("pools of 3 bits, a step a row", HASHED, "binary-code",
        {"bits": 3, "scale": "row", "fusion": "sum"},
        spread=0.2,
    ),
}  # fmt: skip
