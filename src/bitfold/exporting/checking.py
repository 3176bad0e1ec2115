"""Checking: a file held against its model, so that a wrong one is never given out."""

import numpy as np
import torch

from bitfold.errors import BitfoldError
from bitfold.exporting.formats import Scorer
from bitfold.exporting.graphs import Graph, Inputs

ROWS = (1, 2, 257)
TOLERANCE = 1e-6


def check(graph: Graph, scorer: Scorer, name: str) -> None:
    """Hold a file against its model on random rows, ids of all bits and ids out of range.

    Args:
        graph: the model.
        scorer: the file, run by its own runtime.
        name: of the file's kind.

    Raises:
        BitfoldError: they differ by more than rounding, or an id out of range has a score.
    """
    generator = torch.Generator().manual_seed(1)
    for rows in ROWS:
        inputs = graph.draw(rows, generator)
        wanted = graph.eager(inputs).numpy()
        found = _scored(scorer, inputs)
        if found.shape != wanted.shape or not np.allclose(
            found, wanted, rtol=1e-5, atol=TOLERANCE, equal_nan=True
        ):
            raise _wrong(graph, name, found, wanted)
        if graph.spoil is None:
            continue
        spoiled, bad = graph.spoil(inputs)
        expected = np.where(bad.numpy(), np.nan, wanted)
        found = _scored(scorer, spoiled)
        if not np.allclose(found, expected, rtol=1e-5, atol=TOLERANCE, equal_nan=True):
            raise _wrong(graph, name, found, expected)


def _scored(scorer: Scorer, inputs: Inputs) -> np.ndarray:
    try:
        return scorer([each.numpy() for each in inputs])
    except Exception as error:  # of no common class
        raise BitfoldError(
            "the exported file cannot be run",
            got=f"{str(error).splitlines()[0][:300]}, with inputs {[[*e.shape] for e in inputs]}",
            expected="a model that takes any number of rows",
        ) from error


def _wrong(graph: Graph, name: str, found: np.ndarray, wanted: np.ndarray) -> BitfoldError:
    same = found.shape == wanted.shape
    apart = (
        f"{int((~np.isclose(found, wanted, rtol=1e-5, atol=TOLERANCE, equal_nan=True)).sum())} "
        f"of {wanted.size} numbers differ, by up to {np.nanmax(np.abs(found - wanted)):.3g}"
        if same
        else f"a result of shape {list(found.shape)}"
    )
    return BitfoldError(
        f"{graph.methods} cannot be exported to {name}: the file does not score as the model",
        got=apart,
        expected="the model's own numbers" if same else f"shape {list(wanted.shape)}",
        fix="export to another format, and tell the authors of bitfold",
    )
