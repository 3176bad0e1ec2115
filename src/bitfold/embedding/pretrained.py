"""From given vectors to a module that holds them: as its table, or as nearly as its bytes allow."""

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from bitfold.embedding.single import OneField
from bitfold.errors import BitfoldError
from bitfold.fitting import fit
from bitfold.planning.statistics import Counted

Face = TypeVar("Face", bound=OneField)


def pretrained(
    make: Callable[..., Face],
    embeddings: Any,
    freeze: bool,
    *,
    method: str | None,
    budget: int | str | None,
    counts: Any,
    seed: int | None,
    options: dict[str, Any],
) -> Face:
    """A module of given vectors.

    Args:
        make: builds the module of `num_embeddings` and `embedding_dim`, with torch's other words.
        embeddings: `[V, D]`, a tensor, or whatever gives rows by slices.
        freeze: whether nothing is trained.
        method: its name; None: `full`, or `auto` where a budget or an option asks for less.
        budget: as for every module.
        counts: `[V]`, how often each id occurs, or None.
        seed: what hashes are salted and a fit's starts are drawn from.
        options: the method's own.
    """
    shape = tuple(getattr(embeddings, "shape", ()))
    if len(shape) != 2:
        got = list(shape) or type(embeddings).__name__
        raise BitfoldError("vectors are two-dimensional", got=got, expected="a tensor [V, D]")
    rows, width = int(shape[0]), int(shape[1])
    said: dict[str, Any] = {
        "method": method or ("full" if budget is None and not options else "auto"),
        "budget": budget,
        "seed": seed or 0,
        **options,
    }
    if counts is not None:
        said["stats"] = _counted(counts, rows)
    if isinstance(embeddings, Tensor):
        said["dtype"] = embeddings.dtype
    planned = make(rows, width, device="meta", **said)
    if planned.embedder.table is not None and isinstance(embeddings, Tensor):
        made = make(rows, width, _weight=embeddings, **said)
    else:
        device = embeddings.device if isinstance(embeddings, Tensor) else None
        made = make(rows, width, device=device, **said)
        (made.fitted,) = fit(
            made.embedder, [embeddings], [counts], padding=[made.padding_idx], seed=seed or 0
        )
    made.requires_grad_(not freeze)
    return made


def _counted(counts: Any, rows: int) -> Counted | None:
    found = torch.as_tensor(counts).detach().cpu()
    if found.shape != (rows,):
        return None  # which the fit complains of
    return Counted({"ids": (np.arange(rows), found.double().ceil().numpy())})
