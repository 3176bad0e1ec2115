"""Models by hand as functions: whatever holds embeddings of bitfold."""

import hashlib
import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from bitfold.embedder.contract import embedders
from bitfold.embedding import EmbeddingCollection
from bitfold.errors import BitfoldError
from bitfold.exporting.clicks import ROWS, Rows
from bitfold.exporting.graphs import Graph, Inputs
from bitfold.files import tensor_digest
from bitfold.folded import serving


def collection_graph(
    collection: EmbeddingCollection, *, bags: bool, notes: dict[str, str]
) -> Graph:
    """The vectors `[B, F, D]` of a collection; those of ids out of range are NaN.

    Args:
        collection: trained or served.
        bags: whether ids come as bags.
        notes: what the file says of itself.
    """
    draw = Rows(collection.fields, 0, bags)
    return Graph(
        module=serving(collection).to("cpu").eval(),
        names=("ids", "offsets") if bags else ("ids",),
        output="vectors",
        examples=draw(ROWS, torch.Generator().manual_seed(0)),
        shapes=draw.shapes(),
        draw=draw,
        notes=notes,
    )


def module_graph(model: nn.Module, inputs: Mapping[str, Tensor], notes: dict[str, str]) -> Graph:
    """A model of somebody else's, which takes tensors in some order and gives one tensor.

    Args:
        model: what holds embeddings of bitfold, trained or served.
        inputs: an example of each input, by name, in the order that `forward` takes them. The
            first dimension of all may differ from file to call; inputs of as many rows as the
            first one always have as many.
        notes: what the file says of itself.

    Raises:
        BitfoldError: no bitfold embedding is in it, or the examples are no tensors of 2 rows or
            more.
    """
    if not embedders(model):
        raise BitfoldError(
            "this model has no embedding of bitfold",
            got=type(model).__name__,
            expected="a run, a ClickModel, or a module with such embeddings",
            fix="fold it first: bitfold.fold(model, budget)",
        )
    examples = tuple(inputs.values())
    for name, value in inputs.items():
        if not isinstance(value, Tensor) or value.dim() < 1 or value.shape[0] < 2:
            raise BitfoldError(
                f"input {name!r} is no example of a batch",
                got=list(value.shape) if isinstance(value, Tensor) else type(value).__name__,
                expected="a tensor of two rows or more",
            )
    made = serving(model).to("cpu").eval()
    dimensions: dict[int, Any] = {}
    for each in examples:
        number = len(dimensions)
        dimensions.setdefault(
            each.shape[0], torch.export.Dim("batch" if not number else f"rows_{number}", min=0)
        )
    spread = _takes_any(made)
    shapes = tuple({0: dimensions[each.shape[0]]} for each in examples)
    return Graph(
        module=made,
        names=tuple(inputs),
        output="scores",
        examples=examples,
        shapes=(shapes,) if spread else shapes,
        draw=lambda rows, generator: _drawn(examples, rows, generator),
        notes=notes,
        ours=False,
    )


def digest_of(model: nn.Module) -> str:
    """SHA-256 of a model's plans and weights, as hex."""
    plans = [str(each.plan.to_json()) for each in embedders(model)]
    state = {name: value for name, value in model.state_dict().items() if isinstance(value, Tensor)}
    weights = tensor_digest(state, {})
    return hashlib.sha256("\n".join([*plans, weights]).encode()).hexdigest()


def _drawn(examples: Inputs, rows: int, generator: torch.Generator) -> Inputs:
    """Rows of the examples, drawn anew; inputs of other lengths than the first stay."""
    first = examples[0].shape[0]
    if any(each.shape[0] != first for each in examples):
        return examples
    chosen = torch.randint(0, first, (rows,), generator=generator)
    return tuple(each[chosen] for each in examples)


def _takes_any(model: nn.Module) -> bool:
    kinds = [each.kind for each in inspect.signature(model.forward).parameters.values()]
    return kinds == [inspect.Parameter.VAR_POSITIONAL]
