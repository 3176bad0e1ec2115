"""From a plan to the module that holds its numbers."""

import torch

from bitfold.config import from_json
from bitfold.embedder.contract import Embedder
from bitfold.errors import BitfoldError
from bitfold.method.registry import method_kind
from bitfold.planning.plan import Plan


def built(
    plan: Plan, seed: int | None, device: torch.device | str | None, sparse: bool = False
) -> Embedder:
    """The embedder of a plan, its weights drawn from `seed`, or from torch's generator if None.

    Raises:
        BitfoldError: if the plan was made by a newer version of its method.
    """
    kind = method_kind(plan.method)
    if plan.method_version > kind.version:
        raise BitfoldError(
            f"this plan was made by a newer {plan.method!r}",
            got=f"version {plan.method_version}",
            expected=f"{kind.version} or older",
            fix="install the bitfold that made it, or a newer one",
        )
    with torch.inference_mode(False):  # built for inference, and trained later all the same
        return from_json(kind, plan.options).build(plan, seed=seed, device=device, sparse=sparse)
