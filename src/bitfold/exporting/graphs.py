"""Graphs: a model as a function of tensors, recorded once for all kinds of files."""

import warnings
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from bitfold.address.words import export_form
from bitfold.embedder.contract import embedders
from bitfold.errors import BitfoldError
from bitfold.exporting.quiet import reason
from bitfold.kernels.choice import plain_torch

Inputs = tuple[Tensor, ...]
A_LOOKUP, A_READER = 64, 1 << 10  # bytes


@dataclass(frozen=True)
class Graph:
    """A served model as a function, with what its file needs to be written and checked.

    Args:
        module: takes the inputs, gives one tensor.
        names: of the inputs.
        output: the output's name.
        examples: inputs to record it with.
        shapes: which of their dimensions may differ, as `torch.export` takes them.
        draw: makes other inputs of some rows: in range, with ids of all bits.
        spoil: puts ids out of range into inputs, and says which rows have them; None where
            every id is one.
        notes: what the file says of itself.
        ours: whether all of it is bitfold's, so that it divides no negative numbers.
    """

    module: nn.Module
    names: tuple[str, ...]
    output: str
    examples: Inputs
    shapes: tuple[Any, ...]
    draw: Callable[[int, torch.Generator], Inputs]
    spoil: Callable[[Inputs], tuple[Inputs, Tensor]] | None = None
    notes: Mapping[str, str] = field(default_factory=dict)
    ours: bool = True

    @cached_property
    def program(self) -> "torch.export.ExportedProgram":
        """The function as `torch.export` records it, in its export form.

        Raises:
            BitfoldError: something in it cannot be recorded.
        """
        return self.recorded(self.shapes)

    def recorded(self, shapes: tuple[Any, ...]) -> "torch.export.ExportedProgram":
        """As `program`, with other bounds of the dimensions that may differ."""
        with recording():
            try:
                return torch.export.export(
                    self.module, self.examples, dynamic_shapes=shapes, strict=False
                )
            except Exception as error:
                raise BitfoldError(
                    f"{self.methods} cannot be exported",
                    got=reason(error),
                    expected="a model that torch.export can record with any number of rows",
                ) from error

    @property
    def weights(self) -> int:
        """Bytes of the tables as they are served, and of the network."""
        return sum(each.nbytes for each in self.module.state_dict().values())

    @property
    def address_bytes(self) -> int:
        """What addresses may take in a file: constants of lookups, more where tables are read."""
        groups = {id(group): group for each in embedders(self.module) for group in each.plan.groups}
        found = 0
        for group in groups.values():
            if group.program is not None:
                readers = {each.source for each in group.program if each.source.tables}
                found += A_LOOKUP * group.program.lookups + A_READER * len(readers)
        return found

    @property
    def methods(self) -> str:
        """What an error calls it."""
        found = sorted({each.plan.method for each in embedders(self.module)})
        return f"method {', '.join(map(repr, found))}" if found else "this model"

    def eager(self, inputs: Inputs) -> Tensor:
        """What the model itself gives."""
        with torch.no_grad():
            found: Tensor = self.module(*inputs)
        return found


def recording() -> ExitStack:
    """A context in which models are recorded: export form, plain torch, no gradients, no noise."""
    stack = ExitStack()
    stack.enter_context(warnings.catch_warnings())
    warnings.simplefilter("ignore")
    stack.enter_context(export_form())
    stack.enter_context(plain_torch())
    stack.enter_context(torch.no_grad())
    return stack
