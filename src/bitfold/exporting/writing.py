"""`bitfold.export`: a run or a model to one file that another runtime scores."""

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import bitfold
from bitfold.embedding import EmbeddingCollection
from bitfold.errors import BitfoldError
from bitfold.exporting.beside import ENDING, write_beside
from bitfold.exporting.checking import check
from bitfold.exporting.clicks import click_graph
from bitfold.exporting.formats import Format, format_named
from bitfold.exporting.graphs import Graph
from bitfold.exporting.models import collection_graph, digest_of, module_graph
from bitfold.nets.model import ClickModel
from bitfold.outputs import new_file
from bitfold.runs.folder import load
from bitfold.runs.run import Run

ROOM = 16 << 10  # bytes of a file beside its weights: the graph, and constants of the address


def export(
    what: "Run | nn.Module | str | Path",
    out: str | Path,
    to: str = "onnx",
    *,
    inputs: Mapping[str, Tensor] | None = None,
    numbers: int = 0,
    bags: bool = False,
    text: bool = False,
    force: bool = False,
) -> Path:
    """Write a model as one file that another runtime scores, with the same numbers.

    Of a run or a `ClickModel` the file is a function of `ids`, int64 `[B, F]`, and `numbers`,
    float32 `[B, N]` (left out where N is 0), to `scores`, float32 `[B]`: probabilities, corrected
    for down-sampled negatives. Logs with bags have `ids` `[T]` and `offsets` `[F*B + 1]`. B and T
    may be any, 0 too. Tables of few bits are in the file as they are served. A row with a dense
    id out of range scores NaN.

    Before it takes its place the file is run by its own runtime, and held against the model.

    Args:
        what: a run, its folder, a `ClickModel`, an `EmbeddingCollection`, or any module that holds
            bitfold's embeddings, such as a folded model.
        out: the file.
        to: its format, `"onnx"`.
        inputs: of a module of somebody else's an example of each input, by name, in the order of
            its `forward`: two rows or more. Its output is called `scores`.
        numbers: N of a `ClickModel`; a run knows its own.
        bags: whether a `ClickModel` or a collection is given bags; a run knows.
        text: write what turns raw values into ids and numbers beside it, as `OUT.json`.
        force: replace a file that is there.

    Returns:
        The file.

    Raises:
        BitfoldError: the model cannot be exported (it says what stands in the way), or the file
            does not score as the model does; then nothing is written.

    Example:
        >>> import tempfile, bitfold
        >>> rows = {"user": [1, 2, 3, 4] * 50, "clicked": [0, 1, 1, 0] * 50}
        >>> run = bitfold.train(rows, label="clicked", fields="user", method="full", width=4)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     export(run, Path(folder, "model.onnx")).name
        'model.onnx'
    """
    form = format_named(to)
    form.check()
    if isinstance(what, str | Path):
        what = load(what)
    out = Path(out)
    if text and not isinstance(what, Run):
        raise BitfoldError(
            "only a run knows how raw values become ids",
            got=type(what).__name__,
            expected="a run, or text=False",
        )
    with ExitStack() as stack:
        sources = [what.path] if isinstance(what, Run) else []
        beside = Path(f"{out}{ENDING}")
        path = stack.enter_context(new_file(out, force=force, inputs=sources))
        told = None
        if text:
            told = stack.enter_context(new_file(beside, force=force, inputs=sources))
        graph = graph_of(what, inputs=inputs, numbers=numbers, bags=bags)
        _write(form, graph, path)
        if told is not None and isinstance(what, Run):
            write_beside(what, path, told)
    return out


def graph_of(
    what: "Run | nn.Module",
    *,
    inputs: Mapping[str, Tensor] | None = None,
    numbers: int = 0,
    bags: bool = False,
) -> Graph:
    """The function that is exported; arguments as for `export`."""
    if isinstance(what, Run):
        schema = what.schema
        return click_graph(
            what.model,
            numbers=len(schema.numeric_names),
            bags=schema.has_bags,
            negative_rate=what.negative_rate,
            notes=_notes(what.digest),
        )
    if not isinstance(what, nn.Module):
        raise BitfoldError(
            "this cannot be exported",
            got=type(what).__name__,
            expected="a run, or a module of torch",
        )
    notes = _notes(digest_of(what))
    if inputs is not None:
        return module_graph(what, inputs, notes)
    if isinstance(what, ClickModel):
        return click_graph(what, numbers=numbers, bags=bags, negative_rate=None, notes=notes)
    if isinstance(what, EmbeddingCollection):
        return collection_graph(what, bags=bags, notes=notes)
    raise BitfoldError(
        "examples of the inputs are missing",
        got=f"a {type(what).__name__}",
        expected="inputs={'name': tensor}, in the order of its forward",
    )


def _write(form: Format, graph: Graph, path: Path) -> None:
    """Write a file, and see that it is small and right."""
    with torch.inference_mode(False):
        form.write(graph, path)
    size, most = path.stat().st_size, graph.weights + ROOM + graph.address_bytes
    if graph.ours and size > most:
        raise BitfoldError(
            f"{graph.methods} cannot be exported to {form.name} within its bytes",
            got=f"a file of {size:,} bytes",
            expected=f"{graph.weights:,} of weights, {most - graph.weights:,} for the graph",
            fix="another method: `bitfold methods` lists them",
        )
    check(graph, form.opened(path), form.name)


def _notes(digest: str) -> dict[str, Any]:
    return {"bitfold.version": bitfold.__version__, "bitfold.digest": digest}
