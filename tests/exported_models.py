"""Click models for the tests of exported files: every way in which an id comes to its rows."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import bitfold
from bitfold.exporting.graphs import Graph
from bitfold.exporting.writing import graph_of
from bitfold.nets.model import ClickModel
from bitfold.planning.field import Field
from bitfold.testing.cases import Case

WIDTH, NUMBERS, ROWS = 6, 2, 1024
DENSE = (Field("user", 3000), Field("shop", 70))
MIXED = (Field("user", 3000), Field("query", distinct=900))
# Methods, options and fields: each source of an address, fusion and number of bits at least once.
WAYS: dict[str, tuple[str, dict[str, Any], tuple[Field, ...]]] = {
    "whole tables": ("full", {"budget": "1x"}, DENSE),
    "one hash": ("hash", {}, MIXED),
    "concat": ("multi-hash", {"fusion": "concat"}, MIXED),
    "product": ("binary-code", {"fusion": "product"}, MIXED),
    "sum, shared": ("binary-code", {"fusion": "sum", "sharing": "shared"}, MIXED),
    "skip": ("binary-code", {"fusion": "mean", "strategy": "skip"}, MIXED),
    "weighted": ("binary-code", {"fusion": "weighted"}, MIXED),
    "residues": ("binary-code", {"fusion": "sum", "digits": "residues", "mix": True}, MIXED),
    "64 bits": (
        "binary-code",
        {"fusion": "sum", "block_bits": 3, "code_bits": 64, "budget": None},
        MIXED,
    ),
    "8 bits": ("binary-code", {"bits": 8}, MIXED),
    "4 bits": ("binary-code", {"bits": 4, "strategy": "skip"}, MIXED),
    "3 bits": ("binary-code", {"fusion": "sum", "bits": 3, "scale": "row"}, MIXED),
    "1 bit": ("binary-code", {"fusion": "sum", "bits": 1}, MIXED),
    "signs": ("robe", {"chunk": 2, "signs": True}, MIXED),
    "importances": ("hash-embeddings", {}, MIXED),
    "cores": ("tensor-train", {}, MIXED),
    "decoder": ("dhe", {}, MIXED),
    "narrow": ("low-rank", {}, DENSE),
    "pointers": ("dpq", {}, DENSE),
    "salts": ("cce", {}, DENSE),
    "map": ("hot-cold", {"hashes": 1}, MIXED),
}


class Tower(nn.Module):
    """A small network: vectors `[B, F, D]` and numbers `[B, N]` to logits `[B]`."""

    def __init__(self, fields: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(fields * WIDTH + NUMBERS, 16), nn.ReLU(), nn.Linear(16, 1)
        )

    def forward(self, vectors: Tensor, numbers: Tensor) -> Tensor:
        return self.layers(torch.cat([vectors.flatten(1), numbers], 1)).squeeze(1)


def model(way: str) -> ClickModel:
    """A click model whose ids come to their rows that way; the same each time."""
    torch.manual_seed(0)
    method, options, fields = WAYS[way]
    case = Case(method, options)
    return ClickModel(case.ready(_collection(case, fields)), Tower(len(fields)))


def _collection(case: Case, fields: tuple[Field, ...]) -> bitfold.EmbeddingCollection:
    words = case.said(fields, WIDTH)
    return bitfold.EmbeddingCollection(fields, WIDTH, seed=0, **words)


def graph(way: str, *, bags: bool = False) -> Graph:
    """The function of `model(way)`."""
    return graph_of(model(way), numbers=NUMBERS, bags=bags)


def apart(found: Graph, scorer: Any, rows: int = ROWS) -> float:
    """The largest difference of a file's scores from its model's, ids of all bits; some are NaN."""
    inputs = found.draw(rows, torch.Generator().manual_seed(7))
    wanted = found.eager(inputs).numpy()
    if found.spoil is not None:
        inputs, bad = found.spoil(inputs)
        wanted = np.where(bad.numpy(), np.float32(np.nan), wanted)
    scores = scorer([each.numpy() for each in inputs])
    assert scores.shape == wanted.shape
    assert np.array_equal(np.isnan(scores), np.isnan(wanted))
    assert len(np.unique(wanted)) > rows / 4
    return float(np.nanmax(np.abs(scores - wanted)))
