"""What searches for short rows share: whole rows while they search, and their cut when they serve.

`bitfold.embedder.twins` searches by frequency, `bitfold.embedder.row_search` by rows' norms.
"""

from collections.abc import Iterable
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from bitfold.embedder.prefixes import REST, Prefixes, PrefixRows
from bitfold.planning.spec import PoolSpec


class WideSearch(PrefixRows):
    """Rows of the full width, which a search lets ids read in part or not at all.

    A subclass says by `dealt` which ids would have the rows of the plan. What they serve is an
    embedder of the kind `serves`.
    """

    exact = False
    prepares = True
    estimates = True
    serves: ClassVar[type[Prefixes]] = Prefixes
    trains_shared: ClassVar[bool] = True

    @property
    def specs(self) -> tuple[PoolSpec, ...]:
        """Rows as wide as vectors; and those that are shared, where it trains them."""
        rows = [PoolSpec("rows", self.total, self.plan.embedding_dim, self.plan.dtype)]
        if self.shares and self.trains_shared:
            rows.append(PoolSpec(REST, len(self.sizes), self.plan.embedding_dim, self.plan.dtype))
        return tuple(rows)

    def dealt(self) -> Tensor:
        """The class of each id, int64 `[V]`, where as many have each as the plan says."""
        raise NotImplementedError

    def numbers(self) -> Tensor:
        """The rows, `[V, D]`."""
        weight: Tensor = self.get_submodule("rows").weight  # type: ignore[assignment]
        return weight.detach()

    def shared_rows(self) -> Tensor | None:
        """The shared rows, `[F, D]`, where there are any."""
        if not self.shares:
            return None
        weight: Tensor = self.get_submodule(REST).weight  # type: ignore[assignment]
        return weight.detach()

    def serving(self) -> Self:
        """Rows as short as the plan has them: what was learned says whose."""
        return self.planned().serving()  # type: ignore[return-value]

    @torch.no_grad()
    def planned(self) -> Prefixes:
        """What the plan would have of it: its numbers of rows, dealt as was found."""
        rows = self.numbers()
        made = self.serves(
            self.plan, std=self.std, seed=self.seed, device="meta" if rows.is_meta else "cpu"
        )
        if not rows.is_meta:
            made = made.to(rows)
            made.take(self.dealt(), rows, self.shared_rows())
        return made.train(self.training)

    @torch.no_grad()
    def put_rows(self, field: int, chunks: Iterable[tuple[Tensor, Tensor, Tensor]]) -> None:
        """Write the vectors of a field's ids; what they may share is their mean."""
        sums, mass = torch.zeros(self.dim, dtype=torch.float64, device=self.bases.device), 0.0
        pool: Any = self.get_submodule("rows")
        for ids, vectors, weights in chunks:
            pool.put(self.placed(ids, torch.full_like(ids, field))[0], vectors)
            sums += (vectors.double() * weights[:, None]).sum(0)
            mass += float(weights.sum())
        if self.shares and self.trains_shared and mass:
            shared: Any = self.get_submodule(REST)
            shared.put(torch.tensor([field], device=sums.device), (sums / mass).unsqueeze(0))
