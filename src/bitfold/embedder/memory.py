"""What a module weighs."""

from dataclasses import dataclass

from torch import nn

from bitfold.embedder.contract import Embedder, embedders
from bitfold.planning.budget import format_bytes


@dataclass(frozen=True)
class Memory:
    """What a module weighs, in bytes."""

    by_kind: dict[str, int]

    @property
    def total(self) -> int:
        """All kinds together."""
        return sum(self.by_kind.values())

    def __str__(self) -> str:
        parts = ", ".join(f"{kind} {format_bytes(size)}" for kind, size in self.by_kind.items())
        return f"{format_bytes(self.total)} ({parts})"


def memory(module: nn.Module, phase: str = "serving") -> Memory:
    """The bytes that `module` takes: its own embeddings by kind, the rest as `other`.

    Every tensor of the state dict counts once, shared ones too.

    Args:
        module: any module, whatever embeddings are in it.
        phase: `serving`, or `training`: weights as they are trained and a gradient of each,
            before any optimizer's state.

    Example:
        >>> from bitfold import Embedding
        >>> memory(Embedding(100_000, 16, budget="100x", method="hash")).total
        63944
    """
    kinds: dict[str, int] = {}
    seen: set[int] = set()

    def add(kind: str, size: int) -> None:
        kinds[kind] = kinds.get(kind, 0) + size

    for part in embedders(module):
        tensors = list(part.parameters())
        if not any(id(tensor) in seen for tensor in tensors):
            for kind, size in part.bytes(phase).items():
                add(kind, size)
        seen.update(id(tensor) for tensor in tensors)
    ours = tuple(
        f"{name}." if name else ""
        for name, part in module.named_modules(remove_duplicate=False)
        if isinstance(part, Embedder)
    )
    for name, tensor in module.state_dict(keep_vars=True).items():
        if hasattr(tensor, "nbytes") and id(tensor) not in seen and not name.startswith(ours):
            seen.add(id(tensor))
            add("other", tensor.nbytes)
    return Memory(kinds)
