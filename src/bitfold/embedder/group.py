"""What embedders of one group share: pools, tables, ranges, maps, and the mark of their address."""

import copy
from collections.abc import Iterable
from typing import Any, Self

import torch
from torch import Tensor

from bitfold.address import Mapped
from bitfold.address.constants import WithConstants
from bitfold.address.fingerprint import check_fingerprint
from bitfold.address.tables import StoredTables
from bitfold.embedder.contract import Embedder, Table
from bitfold.embedder.draws import drawn_seed
from bitfold.embedder.preparing import build_maps, maps_of, unbuilt, unbuilt_maps
from bitfold.embedder.ranges import as_int64, limits_of, out_of_range
from bitfold.planning.plan import Plan
from bitfold.planning.spec import PoolSpec
from bitfold.planning.statistics import Statistics
from bitfold.pool import LowPrecisionPool, PackedPool


class GroupEmbedder(WithConstants, Embedder):
    """An embedder of a plan of one group; a subclass makes its pools and says what vectors are.

    Args:
        plan: what is kept; one group.
        std: the deviation of a fresh vector's components.
        seed: what fresh weights are drawn from; None: torch's generator, at each drawing.
        device: where the numbers live; on `"meta"` nothing is drawn.
    """

    limits: Tensor
    low_precision = False  # whether pools of few bits are codes while they are trained, too

    def __init__(
        self, plan: Plan, *, std: float, seed: int | None, device: torch.device | str | None
    ) -> None:
        super().__init__()
        self.plan, self.std, self.seed = plan, std, seed
        self.num_fields = len(plan.fields)
        self.stored = self._tables(device)
        self.waits = bool(self._maps())  # for its maps to be built

    def _tables(self, device: torch.device | str | None) -> StoredTables:
        """The tables of bytes: the plan's, most often."""
        return StoredTables(((each.name, each.bytes) for each in self.plan.group.stored), device)

    @property
    def specs(self) -> tuple[PoolSpec, ...]:
        """The pools that it has: the plan's, most often."""
        return self.plan.group.pools

    @property
    def pool_names(self) -> tuple[str, ...]:
        """The modules that are pools, in the plan's order."""
        return tuple(spec.name for spec in self.specs)

    def pools(self) -> list[Any]:
        """The pools, in the plan's order."""
        return [getattr(self, name) for name in self.pool_names]

    def marks(self) -> tuple[int, ...]:
        """Digests of 64 bits of what decides an id's numbers: this one's, and older ones of it."""
        raise NotImplementedError

    @property
    def marked(self) -> bool:
        """Whether the state dict has a mark: not where shapes say all."""
        return True

    def _constants(self) -> dict[str, Tensor]:
        return {"limits": torch.tensor(limits_of(self.plan.fields))}

    def reset_parameters(self) -> None:
        """Draw fresh weights: the same for the same seed, on every device."""
        if self._can_draw():
            # One number of torch's generator is all it is asked for, whatever the table's size.
            seed = drawn_seed(None) if self.seed is None else self.seed
            self._draw(self.std, torch.Generator().manual_seed(seed))

    def redraw(self, std: float, generator: torch.Generator | None = None) -> bool:
        """Draw fresh weights, for vectors of deviation `std`."""
        if std > 0 and self._can_draw():
            self._draw(std, torch.Generator().manual_seed(drawn_seed(generator)))
        return std > 0

    def _can_draw(self) -> bool:
        return not any(each.is_meta for each in (*self.parameters(), *self.buffers()))

    def _draw(self, std: float, generator: torch.Generator) -> None:
        """Fill all that is trained, for vectors of deviation `std`."""
        raise NotImplementedError

    @property
    def sparse(self) -> bool:
        """Whether gradients are sparse tensors."""
        return any(each.sparse for each in self.pools())

    @sparse.setter
    def sparse(self, flag: bool) -> None:
        for each in self.pools():
            each.make_sparse(flag)

    def tables(self) -> Iterable[Table]:
        """The pools' weights, those that are trained."""
        for each in self.pools():
            weight = each._parameters.get("weight")
            if weight is not None:
                yield Table(each, weight, weight.dim() == 2)

    def check(self, ids: Tensor) -> None:
        """Raise `IdOutOfRange` for a dense id of `[B, F]` that has no vector."""
        self.bad(as_int64(ids))

    def bad(self, ids: Tensor, field: Tensor | None = None) -> Tensor | None:
        """Which dense ids are out of range; see `bitfold.embedder.ranges`."""
        if self.limits.device != ids.device:  # weights that went there past `Module.to`
            self._place_all(ids.device)
        return out_of_range(self.plan.fields, self.limits, ids, field)

    @property
    def prepares(self) -> bool:  # type: ignore[override]
        """Whether there are maps to build."""
        return bool(self._maps())

    def prepare(self, stats: Statistics) -> None:
        """Build the maps."""
        if self._maps():
            build_maps(self.plan.program, self.plan.fields, self.stored, stats)
        self.waits = False

    def check_maps(self) -> None:
        """Raise unless all maps are built.

        Raises:
            BitfoldError: a lookup would read other ids' rows.
        """
        if self.waits:  # tables may have come one by one
            self.waits = unbuilt(self.plan.program, self.stored.named(), "")
        if self.waits:
            raise unbuilt_maps(self.plan.method)

    def _maps(self) -> dict[int, Mapped]:
        program = self.plan.group.program
        return {} if program is None else maps_of(program)

    def serving(self) -> Self:
        """A frozen copy in evaluation mode, its pools packed."""
        made = copy.deepcopy(self).eval().requires_grad_(False)
        for name in made.pool_names:
            setattr(made, name, getattr(made, name).serving())
        return made

    def resume(self) -> Self:
        """A copy that can be trained on; the inverse of `serving`.

        Raises:
            BitfoldError: with a step for each row, which would follow from other numbers.
        """
        if any(spec.packed and spec.scale == "row" for spec in self.plan.group.pools):
            super().resume()
        made = copy.deepcopy(self).train().requires_grad_(True)
        for name in made.pool_names:
            pool = getattr(made, name)
            again = self.low_precision and isinstance(pool, PackedPool)
            setattr(made, name, LowPrecisionPool.resumed(pool) if again else pool.resume())
        return made

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if self.marked:
            mark = torch.tensor(self.marks()[0], device=self.limits.device)
            destination[f"{prefix}fingerprint"] = mark

    def _load_from_state_dict(
        self, state_dict: Any, prefix: str, local: Any, strict: bool, missing: Any, *rest: Any
    ) -> None:
        if self.marked:
            key, state_dict = f"{prefix}fingerprint", dict(state_dict)
            mark = state_dict.pop(key, None)
            if mark is not None:
                check_fingerprint(mark, *self.marks())
            elif strict:
                missing.append(key)
        super()._load_from_state_dict(state_dict, prefix, local, strict, missing, *rest)
        if self.waits:  # tables are read after their module, so what they are about to be
            self.waits = unbuilt(self.plan.program, state_dict, f"{prefix}stored.")
        own = (value for key, value in state_dict.items() if key.startswith(prefix))
        first = next(own, self.limits)
        if self.limits.is_meta and not first.is_meta:
            self._place_all(first.device)

    def _place_all(self, device: torch.device) -> None:
        """Make all constants anew where the weights are."""
        for part in self.modules():
            if isinstance(part, WithConstants):
                part.place_constants(device)
