"""Folding trees of modules as they come: nested, shared, bags, modes, padding."""

from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import bitfold
from bitfold import BudgetTooSmall
from bitfold.folded.faces import Folded

TABLE = st.fixed_dictionaries(
    {
        "rows": st.integers(2, 400),
        "dim": st.sampled_from([1, 4, 8]),
        "bag": st.sampled_from([None, "sum", "mean", "max"]),
        "padding": st.none() | st.integers(0, 1),
        "last": st.booleans(),
        "sparse": st.booleans(),
    }
)
TREE = st.recursive(
    TABLE | st.sampled_from(["linear", "again", "tied"]),
    lambda inner: st.lists(inner, min_size=1, max_size=3),
    max_leaves=8,
)


class Tree(nn.Module):
    """A tree of modules; a call reads every table of it, shared ones in each of their places."""

    def __init__(self, tree: Any) -> None:
        super().__init__()
        self.read: list[nn.Module] = []
        self.root = self._made(tree)

    def _made(self, tree: Any) -> nn.Module:
        if isinstance(tree, list):
            return nn.ModuleList(self._made(each) for each in tree)
        if isinstance(tree, str):
            if tree == "linear" or not self.read:
                return nn.Linear(3, 2)
            if tree == "again":  # one module in two places
                self.read.append(self.read[-1])
            else:  # another module with the same weight
                first: Any = self.read[0]
                twin = _table(_said(first))
                twin.weight = first.weight
                self.read.append(twin)
            return self.read[-1]
        self.read.append(_table(tree))
        return self.read[-1]

    def forward(self, seed: int) -> list[Tensor]:
        generator = torch.Generator().manual_seed(seed)
        return [_read(table, generator) for table in self.read]


def _table(said: dict[str, Any]) -> Any:
    words = {"padding_idx": said["padding"], "sparse": said["sparse"]}
    if said["bag"] is None:
        return nn.Embedding(said["rows"], said["dim"], **words)
    if said["bag"] == "max":
        words["sparse"] = False  # as torch wants it
    return nn.EmbeddingBag(
        said["rows"], said["dim"], mode=said["bag"], include_last_offset=said["last"], **words
    )


def _said(table: Any) -> dict[str, Any]:
    return {
        "rows": table.num_embeddings,
        "dim": table.embedding_dim,
        "bag": getattr(table, "mode", None),
        "padding": table.padding_idx,
        "last": getattr(table, "include_last_offset", False),
        "sparse": table.sparse,
    }


def _read(table: Any, generator: torch.Generator) -> Tensor:
    ids = torch.randint(0, table.num_embeddings, (7,), generator=generator)
    if not isinstance(table, nn.EmbeddingBag):
        return table(ids)
    ends = [0, 3, 3, 7] if table.include_last_offset else [0, 3, 3]
    return table(ids, torch.tensor(ends))


HOW = {"deadline": None, "suppress_health_check": list(HealthCheck)}
DRAWN = {"tree": TREE, "ratio": st.integers(2, 30), "seed": st.integers(0, 2**20)}


@settings(max_examples=25, **HOW)
@given(**DRAWN)
def test_any_tree_is_folded_runs_and_comes_back(tree: Any, ratio: int, seed: int) -> None:
    comes_back(tree, ratio, seed)


@pytest.mark.slow
@settings(max_examples=100, **HOW)
@given(**DRAWN)
def test_a_hundred_trees(tree: Any, ratio: int, seed: int) -> None:
    comes_back(tree, ratio, seed)


def comes_back(tree: Any, ratio: int, seed: int) -> None:
    torch.manual_seed(seed)
    model = Tree(tree)
    wanted = [each.shape for each in model(seed)]
    places = list(model.read)
    if not any(isinstance(t, nn.Embedding | nn.EmbeddingBag) for t in places):
        return
    if all(t.num_embeddings < 20 for t in places):
        with pytest.raises(bitfold.BitfoldError, match="no table to fold"):
            bitfold.fold(model, f"{ratio}x", min_rows=20)
        return
    budget: int | str = f"{ratio}x"
    while True:
        try:
            report = bitfold.fold(model, budget, min_rows=20, seed=seed)
            break
        except BudgetTooSmall as error:
            budget = error.minimum
    assert report.bytes <= report.budget
    assert all(a is b for a, b in zip(places, model.read, strict=True))
    found = model(seed)
    assert [each.shape for each in found] == wanted
    assert all(each.isfinite().all() for each in found)
    for table, vectors in zip(model.read, found, strict=True):
        if isinstance(table, Folded) and not isinstance(table, nn.EmbeddingBag):
            ids = torch.randint(
                0, table.num_embeddings, (7,), generator=torch.Generator().manual_seed(0)
            )
            one = table(ids)
            if table.padding_idx is not None:
                assert not one[ids == table.padding_idx].any()
            assert vectors.dtype == one.dtype
    sum(each.square().sum() for each in found).backward()
    assert any(p.grad is not None for p in model.parameters())
    model.eval()
    wanted_values = model(seed)
    if any(isinstance(table, Folded) for table in model.read):
        state = {name: value.clone() for name, value in model.state_dict().items()}
        again = bitfold.load_model(state, lambda: Tree(tree)).eval()
        for a, b in zip(again(seed), wanted_values, strict=True):
            assert torch.equal(a, b)
        for a, b in zip(bitfold.serving(model)(seed), wanted_values, strict=True):
            torch.testing.assert_close(a, b)
