"""bitfold folds web-scale embedding tables into a byte budget.

Say how many bytes; get the best click model that fits. See README.md for the main road and
docs/architecture.md for how the parts stand together.
"""

import gc
from importlib import import_module
from typing import TYPE_CHECKING, Any

from bitfold.errors import BitfoldError, BudgetTooSmall, IdOutOfRange, UnknownName
from bitfold.planning.field import Field

if TYPE_CHECKING:
    from bitfold import optim
    from bitfold.api import compare, inspect, prepare, retrieve, stream, train
    from bitfold.embedder.memory import Memory, memory
    from bitfold.embedding import (
        Embedding,
        EmbeddingBag,
        EmbeddingCollection,
        Table,
        TableCollection,
    )
    from bitfold.exporting import export
    from bitfold.folded import (
        FoldReport,
        fold,
        folding,
        load_model,
        resume,
        save,
        serving,
    )
    from bitfold.kernels.choice import plain_torch
    from bitfold.method import Method, MethodInfo, load_plugin, methods
    from bitfold.method.planner import plan
    from bitfold.nets.distilling import distill
    from bitfold.planning.budget import format_bytes
    from bitfold.planning.plan import Plan
    from bitfold.runs.delta import apply, delta
    from bitfold.runs.folder import load
    from bitfold.runs.run import Run

__version__ = "0.1.0"

__all__ = [
    "BitfoldError",
    "BudgetTooSmall",
    "Embedding",
    "EmbeddingBag",
    "EmbeddingCollection",
    "Field",
    "FoldReport",
    "IdOutOfRange",
    "Memory",
    "Method",
    "MethodInfo",
    "Plan",
    "Run",
    "Table",
    "TableCollection",
    "UnknownName",
    "apply",
    "compare",
    "delta",
    "distill",
    "export",
    "fold",
    "folding",
    "format_bytes",
    "inspect",
    "load",
    "load_model",
    "load_plugin",
    "memory",
    "methods",
    "optim",
    "plain_torch",
    "plan",
    "prepare",
    "resume",
    "retrieve",
    "save",
    "serving",
    "stream",
    "train",
]


_HOMES = {
    "api": ("compare", "inspect", "prepare", "retrieve", "stream", "train"),
    "embedder.memory": ("Memory", "memory"),
    "planning.budget": ("format_bytes",),
    "embedding": ("Embedding", "EmbeddingBag", "EmbeddingCollection", "Table", "TableCollection"),
    "exporting": ("export",),
    "folded": ("FoldReport", "fold", "folding", "load_model", "resume", "save", "serving"),
    "kernels.choice": ("plain_torch",),
    "method": ("Method", "MethodInfo", "load_plugin", "methods"),
    "planning.plan": ("Plan",),
    "method.planner": ("plan",),
    "nets.distilling": ("distill",),
    "runs.delta": ("apply", "delta"),
    "runs.folder": ("load",),
    "runs.run": ("Run",),
}


def __getattr__(name: str) -> Any:
    """Load a public name when it is asked for: preparing a log needs no torch, nor its memory."""
    if name == "optim":
        return import_module("bitfold.optim")
    for module, names in _HOMES.items():
        if name in names:
            value = getattr(_imported(f"bitfold.{module}"), name)
            globals()[name] = value
            return value
    raise AttributeError(f"module 'bitfold' has no attribute {name!r}")


def _imported(module: str) -> Any:
    """Import a module; Python's garbage collector, which takes a tenth of torch's import, waits."""
    was = gc.isenabled()
    gc.disable()
    try:
        return import_module(module)
    finally:
        if was:
            gc.enable()


def __dir__() -> list[str]:
    """The public names, those not loaded yet included."""
    return sorted({*globals(), *__all__})
