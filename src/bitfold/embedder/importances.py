"""Importances: what an id's terms count is learned for each id, or for few ids together."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from bitfold.address import Address, Lookup, Mixed, Program, Raw
from bitfold.address.mixing import derive_salt
from bitfold.address.program import place
from bitfold.embedder.contract import Table
from bitfold.embedder.corridor import Corridor
from bitfold.planning.plan import Plan
from bitfold.pool import DensePool
from bitfold.pool.dtypes import DTYPES


class Importances(Corridor):
    """A corridor whose fields of `k` terms have a table of importances `[rows, k]`, from 1 on.

    Args:
        plan: one group, with an address and one pool.
        rows: rows of importances of each field; 0 for one whose ids have rows of their own. A
            field with a row for every dense id is read by the id, others by one more hash.
        more: what `Corridor` takes.
    """

    weighs: Tensor

    def __init__(self, plan: Plan, *, rows: Sequence[int], **more: Any) -> None:
        self.rows = tuple(rows)
        super().__init__(plan, **more)
        device, dtype = more.get("device"), DTYPES[plan.dtype]
        self.places = Address(_program(plan, self.rows), device)
        self.importance = DensePool(sum(rows), max(self.program.terms), device=device, dtype=dtype)
        self.importance.make_sparse(self.pool.sparse)
        if not self.importance.weight.is_meta:
            torch.nn.init.ones_(self.importance.weight)

    def factors(self, ids: Tensor, field: Tensor | None = None) -> Tensor:
        """The importances `[B, F, 1, k]` or `[T, 1, k]` of ids; 1 for fields that have none."""
        cells = self.places.cells(ids, field).squeeze(-1)
        weighs = self.weighs if field is None else self.weighs[field]
        found = F.embedding(cells, self.importance.weight, sparse=self.importance.sparse)
        return found.where(weighs[..., None, None], found.new_ones(()))

    def _draw(self, std: float, generator: torch.Generator) -> None:
        super()._draw(std, generator)
        if "importance" in self._modules:
            torch.nn.init.ones_(self.importance.weight)

    @property
    def sparse(self) -> bool:
        """Whether gradients are sparse tensors."""
        return bool(self.pool.sparse)

    @sparse.setter
    def sparse(self, flag: bool) -> None:
        self.pool.make_sparse(flag)
        self.importance.make_sparse(flag)

    def tables(self) -> Iterable[Table]:
        """The pool, and the importances."""
        yield from super().tables()
        yield Table(self.importance, self.importance.weight)

    def bytes(self, phase: str = "serving") -> dict[str, int]:
        """Bytes by kind; in training importances are among the weights."""
        kinds = super().bytes(phase)
        if phase == "serving":
            return kinds | {"importances": self.importance.weight.nbytes}
        del kinds["importances"]
        return kinds

    def _constants(self) -> dict[str, Tensor]:
        return super()._constants() | {"weighs": torch.tensor(self.rows) > 0}


def _program(plan: Plan, rows: Sequence[int]) -> Program:
    """One lookup a field, in the table of importances; of fields without any its first row."""
    lookups = []
    bases, end = place(rows)
    for own, base, size, terms in zip(plan.fields, bases, rows, plan.program.fields, strict=True):
        source = terms[0].source
        if size == own.num_embeddings:
            found = Lookup(Raw(), size, base)
        elif size and isinstance(source, Mixed):
            found = Lookup(Mixed(derive_salt(source.salt, 0)), size, base, leading=True)
        else:
            found = Lookup(Raw(), 1, 0)
        lookups.append((found,))
    return Program(1, tuple(lookups), end)
