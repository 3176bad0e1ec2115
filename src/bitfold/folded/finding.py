"""The tables of a model: every `nn.Embedding` and `nn.EmbeddingBag` in its tree."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn

from bitfold.errors import BitfoldError, unknown_name
from bitfold.folded.beside import WholeEmbedding, WholeEmbeddingBag

Patterns = str | Sequence[str] | None
ROOT = "model"
"""What a model is called that is a table itself."""
TO, DRAWN = "_folded_to", "_drawn_with"
"""What a table without memory knows of itself: where it was to be, and its numbers' deviation."""
KINDS = (nn.Embedding, nn.EmbeddingBag)


@dataclass
class FoundTable:
    """A table: one weight, and the modules that read it.

    Args:
        name: where the first module stands in the model.
        weight: `[V, D]`.
        modules: those that have it as `weight`, by their places.
        left: why it stays as it is; empty if it is folded.
        counts: whether its bytes count in the budget.
    """

    name: str
    weight: Tensor
    modules: dict[str, Any] = field(default_factory=dict)
    left: str = ""
    counts: bool = False

    @property
    def first(self) -> Any:
        """The first module."""
        return next(iter(self.modules.values()))

    @property
    def rows(self) -> int:
        """`V`."""
        return self.weight.shape[0]

    @property
    def width(self) -> int:
        """`D`."""
        return self.weight.shape[1]

    @property
    def bytes(self) -> int:
        """Bytes of the weight."""
        return self.weight.numel() * self.weight.element_size()


def find_tables(model: nn.Module) -> list[FoundTable]:
    """The tables of a model in the order of its tree, those that cannot be folded with the reason.

    Modules that share a weight are one table. Subclasses with a forward of their own stay.
    """
    by_weight: dict[int, FoundTable] = {}
    for path, module in model.named_modules():
        if not isinstance(module, KINDS) or not path.isprintable():
            continue
        weight = module._parameters.get("weight")
        if weight is None:  # bitfold's own, or a weight that something computes
            continue
        place = path or ROOT
        known = by_weight.setdefault(id(weight), FoundTable(place, weight))
        known.modules[place] = module
        if not known.left:
            known.left = _reason(module, weight)
    owners = _owners(model)
    for table in by_weight.values():
        others = [name for name in owners[_memory(table.weight)] if not _is_of(name, table)]
        if others:
            table.left = f"its weight is also {others[0]}"
        kinds = {module.sparse for module in table.modules.values()}
        if len(kinds) > 1:
            table.left = "the modules that share it differ in `sparse`"
    return list(by_weight.values())


def _reason(module: nn.Module, weight: Tensor) -> str:
    """Why a table cannot be folded, or nothing."""
    if type(module) in (WholeEmbedding, WholeEmbeddingBag):
        return "it is read beside tables that are folded"
    if type(module) not in KINDS:
        return f"{type(module).__name__} is a subclass with a life of its own"
    if not weight.is_floating_point():
        return f"its numbers are {weight.dtype}"
    if weight.is_quantized or weight.layout is not torch.strided:
        return f"its layout is {weight.layout}"
    return ""


def _memory(weight: Tensor) -> int:
    """What two names of one weight have in common."""
    if weight.is_meta or type(weight) not in (Tensor, nn.Parameter):
        return -id(weight)
    return weight.data_ptr() or -id(weight)


def _owners(model: nn.Module) -> dict[int, list[str]]:
    """The names of all parameters and buffers by their memory."""
    found: dict[int, list[str]] = {}
    for path, module in model.named_modules():
        for name, each in (*module._parameters.items(), *module._buffers.items()):
            if each is not None:
                found.setdefault(_memory(each), []).append(f"{path}.{name}" if path else name)
    return found


def _is_of(name: str, table: FoundTable) -> bool:
    place = name.rpartition(".")[0] or ROOT
    return place in table.modules and name.endswith("weight")


def matches(name: str, patterns: Sequence[str]) -> bool:
    """Whether a table's place is one of the patterns, or lies under one."""
    return any(fnmatchcase(name, each) or name.startswith(f"{each}.") for each in patterns)


def listed(patterns: Patterns) -> list[str]:
    """Patterns as a list."""
    return [patterns] if isinstance(patterns, str) else list(patterns or ())


def check_patterns(what: str, patterns: Sequence[str], tables: Sequence[FoundTable]) -> None:
    """Raise for a pattern that is no table's.

    Raises:
        UnknownName: which names the tables.
    """
    for each in patterns:
        if not any(matches(name, [each]) for table in tables for name in table.modules):
            names = [name for table in tables for name in table.modules]
            raise unknown_name(f"table in {what}", each, names)


def check_words(table: FoundTable) -> None:
    """Raise for a table whose module does what only a row an id can.

    Raises:
        BitfoldError: which names table and keyword.
    """
    for name, module in table.modules.items():
        for word, unset in (("max_norm", None), ("scale_grad_by_freq", False)):
            value = getattr(module, word)
            if value not in (unset, None, False):
                raise BitfoldError(
                    f"table {name!r} cannot be folded with {word}: it needs a row for each id",
                    got=f"{word}={value}",
                    expected=f"{word}={unset}",
                    fix=f"fold(..., exclude={name!r}) leaves it as it is",
                )


def by_table(values: Mapping[str, Any], tables: Sequence[FoundTable]) -> dict[int, Any]:
    """Values by the table that a name of theirs is, by number.

    Raises:
        UnknownName: for a name that is no table's.
    """
    check_patterns("counts", list(values), tables)
    return {
        number: values[name]
        for number, table in enumerate(tables)
        for name in table.modules
        if name in values
    }
