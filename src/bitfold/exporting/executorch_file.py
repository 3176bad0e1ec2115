"""ExecuTorch programs: what runs on phones and small devices, by portable kernels alone.

Its memory is laid out when the file is written, so there is a most of rows: `ROWS` of a call, and
with bags `IDS` ids. The constant methods `bitfold_version`, `bitfold_digest` and `most_rows` say
what the file is.
"""

import copy
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bitfold.errors import BitfoldError
from bitfold.exporting.formats import Scorer
from bitfold.exporting.graphs import Graph
from bitfold.exporting.quiet import quiet, reason, unheard

ROWS = 4096
IDS = 1 << 17


def write(graph: Graph, path: Path) -> None:
    """Write a graph as an ExecuTorch program.

    Raises:
        BitfoldError: something in it has no form there, or no portable kernel.
    """
    with quiet():
        from executorch.exir import to_edge_transform_and_lower

        program = graph.recorded(_bounded(graph.shapes))
        told: dict[str, Any] = {
            name.replace(".", "_"): value for name, value in graph.notes.items()
        }
        try:
            edge = to_edge_transform_and_lower(
                program, constant_methods={**told, "most_rows": ROWS}
            )
            made: Any = edge.to_executorch()
        except Exception as error:
            raise BitfoldError(
                f"{graph.methods} cannot be exported to executorch",
                got=reason(error),
                expected="operations that its portable kernels have",
            ) from error
    _check_kernels(graph, made.executorch_program)
    with path.open("wb") as file:
        made.write_to_file(file)


def opened(path: Path) -> Scorer:
    """A program, run by ExecuTorch's runtime."""
    from executorch.runtime import Runtime

    program = Runtime.get().load_program(path)
    method = program.load_method("forward")
    first = True

    def scores(inputs: Sequence[NDArray[Any]]) -> NDArray[np.float32]:
        nonlocal first
        given = [torch.from_numpy(np.ascontiguousarray(each)) for each in inputs]
        with unheard() if first else nullcontext():  # it tells what processor it finds
            found: NDArray[np.float32] = method.execute(given)[0].numpy()
        first = False
        return found

    return scores


def _bounded(shapes: Any) -> Any:
    """The shapes, with a most of every dimension that may differ."""
    made = copy.deepcopy(shapes)
    for each in _dimensions(made):
        root = getattr(each, "root", each)
        root.max = IDS if root.__name__ == "total" else ROWS
    return made


def _dimensions(shapes: Any) -> Iterator[Any]:
    if isinstance(shapes, dict):
        yield from shapes.values()
    else:
        for each in shapes:
            yield from _dimensions(each)


def _check_kernels(graph: Graph, program: Any) -> None:
    from executorch.runtime import Runtime

    known = Runtime.get().operator_registry.operator_names
    used = {
        f"{each.name}.{each.overload}" if each.overload else each.name
        for plan in program.execution_plan
        for each in plan.operators
    }
    missing = sorted(used - set(known))
    if missing:
        raise BitfoldError(
            f"{graph.methods} cannot be exported to executorch",
            got=f"no kernel for {', '.join(missing)}",
            expected="operations that its portable kernels have",
        )
