"""The kinds of files that models are exported to, each in a module of its own.

A module has two functions:

    write(graph: Graph, path: Path) -> None        writes the file
    opened(path: Path) -> Scorer                   a function of arrays, by that file's own runtime

`opened` serves to hold the file against the model before it takes its place.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitfold.errors import BitfoldError, unknown_name
from bitfold.exporting.graphs import Graph

Scorer = Callable[[Sequence[NDArray[Any]]], NDArray[np.float32]]
"""Inputs in their order -> the output."""


@dataclass(frozen=True)
class Format:
    """A kind of file.

    Args:
        name: what `to` calls it.
        ending: what its files' names end in, usually.
        module: where its two functions are.
        needs: the packages that it is written and read with, as they are imported.
        install: what brings them.
    """

    name: str
    ending: str
    module: str
    needs: tuple[str, ...] = ()
    install: str = "pip install 'bitfold[export]'"

    def check(self) -> None:
        """Raise unless its packages are there."""
        missing = [each for each in self.needs if find_spec(each) is None]
        if missing:
            raise BitfoldError(
                f"{self.name} needs {', '.join(missing)}",
                got="not installed",
                expected=", ".join(self.needs),
                fix=self.install,
            )

    def write(self, graph: Graph, path: Path) -> None:
        """Write a graph."""
        import_module(self.module).write(graph, path)

    def opened(self, path: Path) -> Scorer:
        """A file as its runtime runs it."""
        found: Scorer = import_module(self.module).opened(path)
        return found


FORMATS = {
    each.name: each
    for each in (
        Format(
            "onnx",
            ".onnx",
            "bitfold.exporting.onnx_file",
            ("onnx", "onnxscript", "onnxruntime"),
        ),
    )
}


def format_named(name: str) -> Format:
    """The format of that name.

    Raises:
        UnknownName: there is none.
    """
    if name not in FORMATS:
        raise unknown_name("format", name, FORMATS)
    return FORMATS[name]
