"""bitfold folds web-scale embedding tables into a byte budget.

Say how many bytes; get the best click model that fits. See README.md for the main road and
docs/architecture.md for how the parts stand together.
"""

from typing import TYPE_CHECKING, Any

from bitfold.bytesize import Memory, format_bytes, memory
from bitfold.embedding import Embedding, EmbeddingBag, EmbeddingCollection
from bitfold.errors import BitfoldError, BudgetTooSmall, IdOutOfRange, UnknownName
from bitfold.fields import Field
from bitfold.method import Method, MethodInfo, load_plugin, methods
from bitfold.plan_format import Plan
from bitfold.planning import plan

if TYPE_CHECKING:
    from bitfold.run import Run, load

__version__ = "0.1.0"

__all__ = [
    "BitfoldError",
    "BudgetTooSmall",
    "Embedding",
    "EmbeddingBag",
    "EmbeddingCollection",
    "Field",
    "IdOutOfRange",
    "Memory",
    "Method",
    "MethodInfo",
    "Plan",
    "Run",
    "UnknownName",
    "format_bytes",
    "load",
    "load_plugin",
    "memory",
    "methods",
    "plan",
]


def __getattr__(name: str) -> Any:
    """Load what needs the data and training packages only when it is asked for."""
    if name in ("Run", "load"):
        from bitfold import run

        return getattr(run, name)
    raise AttributeError(f"module 'bitfold' has no attribute {name!r}")
