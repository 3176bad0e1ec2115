"""Which operations of torch give other results in which runtime: why the export form is what it is.

Each operation is a graph of its own, of int64 `[B, 4]`, exported as a user would do it, and run on
4,096 rows of random int64 numbers.
"""

import contextlib
import io
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bitfold.address.words import MOST, export_form, run_of

ROWS, COLUMNS, SEED = 4096, 4, 11
SECOND = -0x5F89E29B87429BD1  # an odd factor of 64 bits
Run = Callable[[Tensor], Tensor]


def _exported(ids: Tensor) -> Tensor:
    with export_form():
        return run_of(ids, 7, MOST)


def _mixed(ids: Tensor) -> Tensor:
    with export_form():
        word = ids * SECOND
        return run_of(word ^ run_of(word, 32, 0xFFFFFFFF), 40, 0xFFFF)


TABLE = torch.arange(8000).reshape(1000, 8)
OPS: dict[str, Run] = {
    '`torch.div(ids, 1000, rounding_mode="floor")`': lambda ids: torch.div(
        ids, 1000, rounding_mode="floor"
    ),
    "`ids // 1000`": lambda ids: ids // 1000,
    "`ids % 1000`": lambda ids: ids % 1000,
    "`ids >> 7`": lambda ids: ids >> 7,
    "`ids ^ SALT`": lambda ids: ids ^ SECOND,
    "`ids * ODD`": lambda ids: ids * SECOND,
    "`ids.sum(1)`": lambda ids: ids.sum(1),
    "`table[((ids & MOST) * 12345 & MOST) % 1000]`": lambda ids: TABLE.to(ids.device)[
        ((ids & MOST) * 12345 & MOST) % 1000
    ],
    "export form of a shift": _exported,
    "export form of a mixer": _mixed,
}


class Op(nn.Module):
    """One of `OPS` as a model."""

    def __init__(self, run: Run) -> None:
        super().__init__()
        self.run = run

    def forward(self, ids: Tensor) -> Tensor:
        """Of int64 `[B, 4]`, the results."""
        return self.run(ids)


def _graph(op: Op, ids: Tensor, most: int | None = None) -> Any:
    rows = torch.export.Dim("rows", min=1, max=most)
    return torch.export.export(op, (ids,), dynamic_shapes=({0: rows},))


def _onnx(op: Op, ids: Tensor, path: Path, dynamo: bool) -> Run:
    import onnxruntime

    shapes: Any = (
        {"dynamic_shapes": ({0: torch.export.Dim("rows")},)}
        if dynamo
        else {"dynamic_axes": {"ids": {0: "rows"}}}
    )
    torch.onnx.export(op, (ids,), str(path), input_names=["ids"], dynamo=dynamo, **shapes)
    session = onnxruntime.InferenceSession(str(path))
    return lambda rows: torch.from_numpy(np.asarray(session.run(None, {"ids": rows.numpy()})[0]))


def _dynamo(op: Op, ids: Tensor, path: Path) -> Run:
    return _onnx(op, ids, path, True)


def _legacy(op: Op, ids: Tensor, path: Path) -> Run:
    return _onnx(op, ids, path, False)


def _executorch(op: Op, ids: Tensor, path: Path) -> Run:
    from executorch.exir import to_edge_transform_and_lower
    from executorch.runtime import Runtime

    path.write_bytes(to_edge_transform_and_lower(_graph(op, ids, ROWS)).to_executorch().buffer)
    program = Runtime.get().load_program(path)
    method = program.load_method("forward")
    return lambda rows: method.execute((rows,))[0]


def _inductor(op: Op, ids: Tensor, path: Path) -> Run:
    from torch._inductor import aoti_compile_and_package, aoti_load_package

    return aoti_load_package(aoti_compile_and_package(_graph(op, ids), package_path=str(path)))


EXPORTS: dict[str, tuple[str, Callable[[Op, Tensor, Path], Run]]] = {
    "ONNX, dynamo": (".onnx", _dynamo),
    "ONNX, legacy": (".onnx", _legacy),
    "ExecuTorch portable": (".pte", _executorch),
    "AOTInductor": (".pt2", _inductor),
}


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without what exporters print and warn of."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


def wrong(name: str, export: str) -> float | str:
    """The share of an operation's wrong results after an export, or what failed."""
    op = Op(OPS[name]).eval()
    ids = torch.randint(
        -(2**63), 2**63 - 1, (ROWS, COLUMNS), generator=torch.Generator().manual_seed(SEED)
    )
    suffix, make = EXPORTS[export]
    with tempfile.TemporaryDirectory() as folder, quiet():
        try:
            run = make(op, ids[:64], Path(folder) / f"op{suffix}")
        except Exception as error:
            return f"refused: {type(error).__name__}"
        try:
            found = run(ids)
        except Exception as error:
            return f"fails: {type(error).__name__}"
    return float((found != op(ids)).float().mean())


def measure() -> dict[str, dict[str, float | str]]:
    """`wrong` of every operation and export."""
    return {name: {export: wrong(name, export) for export in EXPORTS} for name in OPS}
