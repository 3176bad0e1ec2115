"""AOTInductor packages: the graph compiled to a library, with its weights, that torch loads.

The library is made for processors that have what this one has. Integers wrap where they overflow,
as torch's do: without `-fwrapv` a compiler takes a product of numbers that are not negative for one
that is not negative either, leaves out the masks that clear its sign, and other rows are read.
"""

import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bitfold.errors import BitfoldError
from bitfold.exporting.formats import Scorer
from bitfold.exporting.graphs import Graph
from bitfold.exporting.quiet import quiet, reason

COMPILERS = ("g++", "clang++")


def write(graph: Graph, path: Path) -> None:
    """Compile a graph to a package.

    Raises:
        BitfoldError: there is no C++ compiler, or something in the graph cannot be compiled.
    """
    compiler = _compiler()
    program = graph.program
    with quiet(), tempfile.TemporaryDirectory() as name:
        from torch._inductor import aoti_compile_and_package, config
        from torch._inductor.utils import fresh_inductor_cache

        folder = Path(name)
        options: dict[str, Any] = {
            "cpp.cxx": (None, str(_wrapping(compiler, folder))),
            "aot_inductor.metadata": dict(graph.notes),
            "aot_inductor.enable_line_tables": False,  # a megabyte that only debuggers read
            "aot_inductor.precompile_headers": False,  # which nothing else would use
        }
        known = {each: value for each, value in options.items() if _has(config, each)}
        try:
            with fresh_inductor_cache(dir=name), torch.no_grad():
                made = aoti_compile_and_package(
                    program, package_path=str(folder / "made.pt2"), inductor_configs=known
                )
        except Exception as error:
            raise BitfoldError(
                f"{graph.methods} cannot be exported to pt2",
                got=reason(error),
                expected=f"a graph that AOTInductor and {Path(compiler).name} compile",
            ) from error
        shutil.copyfile(made, path)


def opened(path: Path) -> Scorer:
    """A package, run by torch."""
    from torch._inductor import aoti_load_package

    with tempfile.TemporaryDirectory() as folder:  # torch wants a name that ends so
        link = Path(folder) / "model.pt2"
        link.symlink_to(path.absolute())
        model = aoti_load_package(str(link), run_single_threaded=True)

    def scores(inputs: Sequence[NDArray[Any]]) -> NDArray[np.float32]:
        with torch.no_grad():
            found: NDArray[np.float32] = model(*map(torch.from_numpy, inputs)).numpy()
        return found

    return scores


def _compiler() -> str:
    """The C++ compiler: what CXX says, or the first of `COMPILERS` that is there."""
    said = os.environ.get("CXX")
    for name in (said,) if said else COMPILERS:
        if found := shutil.which(name):
            return found
    raise BitfoldError(
        "pt2 needs a C++ compiler, which makes the library in the file",
        got=f"CXX is {said}, which is not here" if said else "neither g++ nor clang++ is here",
        expected="a C++ compiler on the path",
        fix="apt-get install g++, or --to onnx",
    )


def _wrapping(compiler: str, folder: Path) -> Path:
    """A script that runs the compiler with wrapping integers, and leaves out symbols.

    Torch tells GCC from Clang by the name, and has no option for flags of one's own.
    """
    script = folder / f"wrapping-{Path(compiler).name}"
    script.write_text(f'#!/bin/sh\nexec "{compiler}" -fwrapv -s "$@"\n', encoding="utf-8")
    script.chmod(0o700)
    return script


def _has(config: Any, name: str) -> bool:
    """Whether this torch has an option; those that it does not have only save room or time."""
    for part in name.split("."):
        if not hasattr(config, part):
            return False
        config = getattr(config, part)
    return True
