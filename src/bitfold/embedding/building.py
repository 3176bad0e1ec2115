"""From a plan to the module that holds its numbers."""

import torch

from bitfold.config import from_json
from bitfold.embedder.contract import Embedder
from bitfold.embedder.draws import part_seed
from bitfold.embedder.grouped import Grouped
from bitfold.errors import BitfoldError
from bitfold.method.registry import method_kind
from bitfold.planning.plan import Plan


def built(
    plan: Plan, seed: int | None, device: torch.device | str | None, sparse: bool = False
) -> Embedder:
    """The embedder of a plan, its weights drawn from `seed`, or from torch's generator if None.

    Raises:
        BitfoldError: if the plan was made by a newer version of a method.
    """
    with torch.inference_mode(False):  # built for inference, and trained later all the same
        several = len(plan.groups) > 1
        parts = []
        for number in range(len(plan.groups)):
            own = part_seed(seed, number) if several else seed
            parts.append(_part(plan.part(number), own, device, sparse))
        if several:
            return Grouped(plan, parts, device)
        parts[0].plan = plan  # with its budget, and what was asked for
        return parts[0]


def _part(
    plan: Plan, seed: int | None, device: torch.device | str | None, sparse: bool
) -> Embedder:
    group, kind = plan.group, method_kind(plan.group.method)
    if group.version > kind.version:
        raise BitfoldError(
            f"this plan was made by a newer {group.method!r}",
            got=f"version {group.version}",
            expected=f"{kind.version} or older",
            fix="install the bitfold that made it, or a newer one",
        )
    recipe = from_json(kind, group.options)
    return recipe.build(plan, seed=seed, device=device, sparse=sparse)
