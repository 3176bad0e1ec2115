"""ONNX files: what `torch.onnx` makes of a recorded program, made small, and ONNX Runtime."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bitfold.errors import BitfoldError
from bitfold.exporting.formats import Scorer
from bitfold.exporting.graphs import Graph
from bitfold.exporting.onnx_small import made_small
from bitfold.exporting.quiet import quiet, reason

OPSET = 18  # the first with operators of bits
MOST_BYTES = (1 << 31) - (1 << 24)  # of one protocol buffer
# Of constants that are computed once, when the file is written; the others when it is loaded.
FOLDED_INPUT, FOLDED_OUTPUT = 1024, 1024


def write(graph: Graph, path: Path) -> None:
    """Write a graph as an ONNX file.

    Raises:
        BitfoldError: something in it has no ONNX form, or it is too large for one file.
    """
    if graph.weights > MOST_BYTES:
        raise BitfoldError(
            "this model is too large for one ONNX file",
            got=f"{graph.weights:,} bytes",
            expected=f"{MOST_BYTES:,} bytes at most",
            fix="a smaller budget",
        )
    with quiet():
        import onnxscript.optimizer

        try:
            program: Any = torch.onnx.export(
                graph.program,
                dynamo=True,
                opset_version=OPSET,
                input_names=list(graph.names),
                output_names=[graph.output],
                custom_translation_table=_translations() if graph.ours else None,
                optimize=False,
                verbose=False,
            )
        except Exception as error:
            raise BitfoldError(
                f"{graph.methods} cannot be exported to ONNX",
                got=reason(error),
                expected="operations that have an ONNX form",
            ) from error
        onnxscript.optimizer.optimize(
            program.model, input_size_limit=FOLDED_INPUT, output_size_limit=FOLDED_OUTPUT
        )
        model = made_small(program.model_proto, graph.notes)
    path.write_bytes(model.SerializeToString(deterministic=True))


def opened(path: Path) -> Scorer:
    """An ONNX file, run by ONNX Runtime on one thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # of no common class
        raise BitfoldError(
            "ONNX Runtime does not take this model",
            got=reason(error),
            expected="operations that it has for these types",
            fix="weights of float32",
        ) from error
    names = [each.name for each in session.get_inputs()]

    def scores(inputs: Sequence[NDArray[Any]]) -> NDArray[np.float32]:
        found: NDArray[np.float32] = session.run(None, dict(zip(names, inputs, strict=True)))[0]
        return found

    return scores


def _translations() -> dict[Any, Any]:
    """Quotients of numbers that are never negative: ONNX's own division, which truncates."""
    from onnxscript import opset18 as op

    def quotient(self: Any, other: Any) -> Any:
        return op.Div(self, other)

    return {torch.ops.aten.floor_divide.default: quotient}
